"""The frames of a sequence as a run's backbone saw them, and what truly moves in them."""

import numpy as np
import xarray as xr

from mut3r_analysis.backbones.preparation import Preparation
from mut3r_analysis.errors import InvalidArgument


def frames_seen(run: xr.DataTree, sequence: xr.Dataset, frames: np.ndarray) -> xr.DataArray:
    """Resize and crop frames as the run did.

    Parameters
    ----------
    run : xarray.DataTree
    sequence : xarray.Dataset
        The sequence that was run; a run does not hold its pixels.
    frames : numpy.ndarray
        Labels of frames.

    Returns
    -------
    xarray.DataArray
        uint8 ``(frame, y, x, rgb)`` on the prediction grid.

    Raises
    ------
    InvalidArgument
        When the sequence is another one, or lacks a frame.
    """
    if not isinstance(sequence, xr.Dataset) or "image" not in sequence:
        raise InvalidArgument(
            "frames are drawn from the sequence that was run: give what m3.open_sequence returned"
        )
    ran, given = run.attrs.get("sequence", {}), sequence.attrs
    if ran.get("sha256") and ran["sha256"] != given.get("sha256"):
        raise InvalidArgument(
            f"this run is of sequence {ran.get('name')!r} ({ran['sha256'][:8]}), the one given is "
            f"{given.get('name')!r} ({str(given.get('sha256'))[:8]}); open the sequence with the "
            "same start, stop and stride as for the run"
        )
    preparation = Preparation.from_dict(run.attrs["backbone"]["preparation"])
    pixels = [preparation.pixels(sequence["image"].sel(frame=frame).values) for frame in frames]
    return xr.DataArray(
        np.stack(pixels), dims=("frame", "y", "x", "rgb"), coords={"frame": frames}, name="image"
    )


def true_motion(run: xr.DataTree, frame: int) -> np.ndarray | None:
    """Return the true motion of a frame, uint8 (y, x)."""
    if "truth" not in run.children or "motion_mask" not in run["truth"]:
        return None
    mask = run["truth"].to_dataset()["motion_mask"]
    return mask.sel(frame=frame).values.astype(np.uint8)
