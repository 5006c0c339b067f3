"""What a run is given: checked before anything is made, and frame by frame."""

from collections.abc import Collection, Iterator, Sequence
from typing import Any

import torch
import xarray as xr

from mut3r_analysis.attention.capture import Capture
from mut3r_analysis.backbones.protocol import Backbone
from mut3r_analysis.errors import InvalidArgument
from mut3r_analysis.motion.readings import MASK
from mut3r_analysis.running.configuration import Configuration
from mut3r_analysis.running.passes import FrameInput
from mut3r_analysis.sequences.model import check_sequence
from mut3r_analysis.sequences.opening import open_sequence

_OPENED = {"name", "kind", "source", "sha256"}
"""Attributes of what `open_sequence` returns."""


def check_inputs(backbone: Any, sequence: Any, capture: Any) -> None:
    """Refuse what is no backbone, no sequence or no capture.

    Raises
    ------
    InvalidArgument
        Saying how to get one.
    """
    if not isinstance(backbone, Backbone):
        raise InvalidArgument(
            f"{backbone!r} is not a loaded backbone; load it: load_backbone('tiny'), or with the "
            "path of a checkpoint"
        )
    if not isinstance(sequence, xr.Dataset):
        raise InvalidArgument(
            f"a {type(sequence).__name__} is not an open sequence; open it: "
            "open_sequence('scenes/orbit-03'), or with a folder, a video file or an array"
        )
    check_sequence(sequence)
    if not isinstance(capture, Capture | None):
        raise InvalidArgument(
            f"capture must be a Capture such as Capture(statistics='all'), or None; got {capture!r}"
        )


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
    for position in range(start, sequence.sizes["frame"] if stop is None else stop):
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
        )
