"""What a run is given, checked before anything is made."""

from typing import Any

import xarray as xr

from mut3r_analysis.attention.capture import Capture
from mut3r_analysis.backbones.cut3r import CUT3R
from mut3r_analysis.errors import InvalidArgument
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
    if not isinstance(backbone, CUT3R):
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
