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
        Whose cues may read variables of the sequence.
    start, stop : int
        Positions, half-open.
    recorded : collection of int
        Positions at which a capture records.
    """
    for position in range(start, sequence.sizes["frame"] if stop is None else stop):
        frame = sequence.isel(frame=position)
        image = torch.from_numpy(backbone.preparation.image(frame["image"].values))
        masks = masks_for(configurations, backbone, frame)
        yield FrameInput(
            position, image[None].to(backbone.device), masks, record=position in recorded
        )


def masks_for(
    configurations: Sequence[Configuration], backbone: Backbone, frame: xr.Dataset
) -> dict[str, torch.Tensor]:
    """Return the variables of a frame that cues read, ``(1, y, x)``, prepared like the image."""
    names = {
        str(item.cue.of)
        for item in configurations
        if item.cue is not None and item.cue.reading == MASK
    }
    prepare = backbone.preparation.mask
    return {
        name: torch.from_numpy(prepare(frame[name].values))[None].to(backbone.device)
        for name in sorted(names)
    }
