"""What moves in a frame, by the truth and by a run's cue."""

import numpy as np
import xarray as xr

CUE_THRESHOLD = 0.5
"""Motion score above which a patch is outlined."""


def true_motion(run: xr.DataTree, frame: int) -> np.ndarray | None:
    """Return the true motion of a frame, uint8 (y, x)."""
    if "truth" not in run.children or "motion_mask" not in run["truth"]:
        return None
    mask = run["truth"].to_dataset()["motion_mask"]
    return mask.sel(frame=frame).values.astype(np.uint8)


def motion_score(run: xr.DataTree, frame: int) -> np.ndarray | None:
    """Return the motion score of a frame, float32 (patch_row, patch_col)."""
    if "cue" not in run.children or "motion" not in run["cue"]:
        return None
    score = run["cue"].to_dataset()["motion"].transpose("frame", "patch_row", "patch_col")
    return score.sel(frame=frame).values.astype(np.float32)
