"""What a run is given: checked before anything is made, and frame by frame."""

import warnings
from collections.abc import Collection, Iterator, Sequence
from copy import copy
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
import xarray as xr

from mut3r_analysis.attention.capture import Capture
from mut3r_analysis.backbones.loading import load_backbone
from mut3r_analysis.backbones.preparation import Preparation
from mut3r_analysis.backbones.protocol import Backbone
from mut3r_analysis.errors import InvalidArgument
from mut3r_analysis.foundation.fields import instance_of
from mut3r_analysis.metrics.catalogue import protocol as find_protocol
from mut3r_analysis.metrics.protocols import Protocol
from mut3r_analysis.motion.readings import MASK
from mut3r_analysis.running.configuration import Configuration
from mut3r_analysis.running.passes import FrameInput
from mut3r_analysis.sequences.model import check_sequence
from mut3r_analysis.sequences.opening import open_sequence

_OPENED = {"name", "kind", "source", "sha256"}
"""Attributes of what `open_sequence` returns."""


def check_inputs(backbone: Any, sequence: Any, capture: Any) -> tuple[Backbone, xr.Dataset]:
    """Return the backbone and the sequence, opened where names or paths are given.

    A specimen that is to read anything but rendered scenes is announced, once.

    Raises
    ------
    InvalidArgument
        For what is no backbone, no sequence or no capture, saying how to get one.
    """
    if isinstance(backbone, str | Path):
        backbone = load_backbone(backbone)
    if not isinstance(backbone, Backbone):
        raise InvalidArgument(
            f"{backbone!r} is not a loaded backbone; load it: load_backbone('tiny'), or with the "
            "path of a checkpoint"
        )
    if isinstance(sequence, str | Path):
        sequence = open_sequence(sequence)
    how = ": open_sequence('scenes/orbit-03'), or of a folder, a video file or an array"
    instance_of("sequence", sequence, xr.Dataset, how)
    check_sequence(sequence)
    if capture is not None:
        instance_of("capture", capture, Capture, " such as Capture(statistics='all'), or None")
    if backbone.looks_ahead and sequence.sizes["frame"] < 2:
        raise InvalidArgument(
            f"{backbone.family} reads each frame together with the next one, and this sequence has "
            "a single frame; give at least two"
        )
    if backbone.origin.specimen and sequence.attrs.get("kind") != "scenes":
        _announce(backbone.origin.name)
    return backbone, sequence


@cache
def _announce(specimen: str) -> None:
    """Warn of what a specimen makes of frames like these; the cache makes it once."""
    warnings.warn(
        f"{specimen!r} is a specimen that was trained on this package's rendered scenes only: on "
        "other frames its predictions are noise. For those, load official weights, as "
        "load_backbone('cut3r_512_dpt_4_64.pth') or --backbone cut3r_512_dpt_4_64.pth; "
        "'Official checkpoints' in the README says where they are and what they cost",
        stacklevel=4,
    )


def as_scored(
    backbone: Backbone,
    sequence: xr.Dataset,
    protocol: str | Protocol | None,
    preparation: str | Preparation | None,
) -> tuple[Backbone, xr.Dataset]:
    """Return a backbone and a sequence with the preparation and the frames of a protocol.

    Raises
    ------
    InvalidArgument
        As :func:`prepared` and :func:`frames_of`.
    """
    if isinstance(protocol, str):
        protocol = find_protocol(protocol)
    if protocol is not None:
        sequence = sequence.isel(frame=frames_of(protocol, sequence))
    return prepared(backbone, protocol, preparation), sequence


def prepared(
    backbone: Backbone, protocol: Protocol | None, preparation: str | Preparation | None
) -> Backbone:
    """Return a backbone that prepares frames as a protocol, or somebody, says.

    Raises
    ------
    InvalidArgument
        When both say it, or the protocol wants another input than the model's.
    """
    if protocol is not None and protocol.preparation != "given":
        if preparation is not None:
            raise InvalidArgument(
                f"{protocol.id} says how frames are prepared, {protocol.preparation!r}; give it or "
                "preparation="
            )
        preparation = protocol.preparation
    if isinstance(preparation, str):
        fields = backbone.preparation.to_dict() | {"rule": preparation}
        preparation = Preparation.from_dict(fields)
    if preparation is not None:
        backbone = copy(backbone)
        backbone.preparation = preparation
    if protocol is not None and (other := protocol.other_input(backbone.preparation.to_dict())):
        raise InvalidArgument(
            f"{protocol.id} takes {protocol.input_words}, the backbone prepares its frames with "
            f"{other}; run a model of that size, or without protocol="
        )
    return backbone


def frames_of(protocol: Protocol, sequence: xr.Dataset) -> np.ndarray:
    """Return the positions, in an open sequence, of the frames that a protocol scores.

    Raises
    ------
    InvalidArgument
        When the sequence is of another data set, or lacks frames that the protocol takes.
    """
    kind, name = sequence.attrs.get("kind", ""), str(sequence.attrs.get("name", ""))
    if protocol.is_of_another(kind):
        raise InvalidArgument(
            f"the sequence is of {kind!r}, {protocol.id} is of {protocol.dataset!r}"
        )
    if protocol.dataset == "any" or not sequence.sizes["frame"]:
        return np.arange(sequence.sizes["frame"])
    frames = sequence["frame"].values
    wanted = np.asarray(protocol.frames.indices(int(frames.max()) + 1))
    if not wanted.size:
        raise InvalidArgument(
            f"{protocol.id} takes {protocol.frames.describe()}, of which {name!r} has none: it "
            f"ends with frame {frames.max()}"
        )
    if missing := sorted(set(wanted.tolist()) - set(frames.tolist())):
        raise InvalidArgument(
            f"{protocol.id} takes {protocol.frames.describe()}; the open sequence lacks "
            f"{len(missing)} of these {len(wanted)}, from frame {missing[0]} of the source on; "
            "open it without start, stop and stride"
        )
    return np.searchsorted(frames, wanted)


def identified(sequence: xr.Dataset) -> xr.Dataset:
    """Return a sequence with its name and the digest by which a run knows it again.

    A Dataset that `open_sequence` did not make has no digest yet, and is read once for it.
    """
    return sequence if set(sequence.attrs) >= _OPENED else open_sequence(sequence)


def frame_inputs(
    backbone: Backbone,
    sequence: xr.Dataset,
    configurations: Sequence[Configuration] = (),
    *,
    start: int = 0,
    stop: int | None = None,
    recorded: Collection[int] = (),
) -> Iterator[FrameInput]:
    """Read the frames of a sequence one by one and prepare them for a backbone.

    For a model that looks ahead one more follows, where there is one.

    Parameters
    ----------
    backbone : Backbone
    sequence : xarray.Dataset
    configurations : sequence of Configuration
        Whose cues may read variables of the sequence; these are prepared like the image.
    start, stop : int
        Positions, half-open.
    recorded : collection of int
        Positions at which a capture records.
    """
    cues = [item.cue for item in configurations if item.cue is not None]
    names = sorted({str(cue.of) for cue in cues if cue.reading == MASK})
    preparation, device = backbone.preparation, backbone.device
    frames = sequence.sizes["frame"]
    stop = frames if stop is None else stop
    for position in range(start, min(frames, stop + backbone.looks_ahead)):
        # variables alone: a Dataset of one frame would cost more than reading it
        image, *masks = (
            sequence.variables[name].isel(frame=position).values for name in ("image", *names)
        )
        yield FrameInput(
            position,
            torch.from_numpy(preparation.image(image))[None].to(device),
            {
                name: torch.from_numpy(preparation.mask(mask))[None].to(device)
                for name, mask in zip(names, masks, strict=True)
            },
            record=position in recorded,
            ahead=position == stop,
        )
