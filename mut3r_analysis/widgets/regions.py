"""What moves in a frame by a run's cue."""

import numpy as np
import xarray as xr

CUE_THRESHOLD = 0.5
"""Motion score above which a patch is outlined."""


def motion_score(run: xr.DataTree, frame: int) -> np.ndarray | None:
    """Return the motion score of a frame, float32 (patch_row, patch_col)."""
    if "cue" not in run.children or "motion" not in run["cue"]:
        return None
    score = run["cue"].to_dataset()["motion"].transpose("frame", "patch_row", "patch_col")
    return score.sel(frame=frame).values.astype(np.float32)
