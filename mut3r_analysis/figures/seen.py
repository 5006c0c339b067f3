"""What a run's backbone saw, and what moved: frames, motion, and the camera's poses."""

from pathlib import Path

import numpy as np
import xarray as xr

from mut3r_analysis.backbones.preparation import Preparation
from mut3r_analysis.errors import InvalidArgument
from mut3r_analysis.foundation.labelling import held
from mut3r_analysis.running.source_of_run import sequence_of

CUE_THRESHOLD = 0.5
"""Motion score above which a patch is outlined."""


def frames_seen(
    run: xr.DataTree, sequence: xr.Dataset | str | Path, frames: np.ndarray
) -> xr.DataArray:
    """Resize and crop frames as the run did.

    Parameters
    ----------
    run : xarray.DataTree
    sequence : xarray.Dataset, str or Path
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
    if isinstance(sequence, str | Path):
        sequence = sequence_of(run, sequence)
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
    mask = held(run, "truth/motion_mask")
    return None if mask is None else mask.sel(frame=frame).values.astype(np.uint8)


def motion_score(run: xr.DataTree, frame: int) -> np.ndarray | None:
    """Return the motion score of a frame, float32 (patch_row, patch_col)."""
    if (score := held(run, "cue/motion")) is None:
        return None
    return score.sel(frame=frame).transpose("patch_row", "patch_col").values.astype(np.float32)


def predicted_poses(run: xr.DataTree) -> np.ndarray | None:
    """Return predicted camera-to-world transforms, float64 (frame, row, col), or None."""
    pose = held(run, "prediction/pose")
    return None if pose is None else _path(pose)


def true_poses(run: xr.DataTree) -> np.ndarray | None:
    """Return true camera-to-world transforms, float64 (frame, row, col), or None.

    They are moved rigidly into the predicted world, so that both first poses coincide.
    """
    predicted, known = predicted_poses(run), held(run, "truth/pose")
    if predicted is None or known is None or not np.isfinite(_path(known)[0]).all():
        return None
    return predicted[0] @ np.linalg.inv(_path(known)[0]) @ _path(known)


def _path(pose: xr.DataArray) -> np.ndarray:
    return pose.transpose("frame", "row", "col").values.astype(np.float64)


def view_slopes(run: xr.DataTree) -> tuple[float, float] | None:
    """Return tangents of half the field of view, across and down, where a focal length is known."""
    prediction = run["prediction"].to_dataset()
    focal = float(np.median(prediction["focal"].values)) if "focal" in prediction else np.nan
    if not np.isfinite(focal) or focal <= 0 or "y" not in prediction.sizes:
        return None
    return prediction.sizes["x"] / 2 / focal, prediction.sizes["y"] / 2 / focal
