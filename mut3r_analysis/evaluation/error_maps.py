"""Where in a frame depth is wrong, aligned as its score was."""

import numpy as np
import xarray as xr

from mut3r_analysis.foundation.labelling import held


def depth_error(run: xr.DataTree, scores: xr.Dataset | None, frame: int) -> np.ndarray | None:
    """Return the relative error of the aligned depth of a frame.

    Returns
    -------
    numpy.ndarray or None
        float32 ``(y, x)``: distance from the true depth over the true depth, NaN where that is not
        known; None when the run has no depth or no truth.

    Notes
    -----
    Aligned as the scores were; without scores the prediction is taken as it is.
    """
    truth, prediction = held(run, "truth/depth"), held(run, "prediction/depth")
    if truth is None or prediction is None:
        return None
    known, given = (each.sel(frame=frame).values.astype(np.float64) for each in (truth, prediction))
    if scores is not None and "depth_alignment_scale" in scores:
        mine = scores.sel(sequence=str(run.attrs["sequence"]["name"]))
        scale, shift = (float(mine[f"depth_alignment_{name}"]) for name in ("scale", "shift"))
        given = scale * given + shift
    with np.errstate(divide="ignore", invalid="ignore"):
        error = np.where(known > 0, np.abs(given - known) / known, np.nan)
    return error.astype(np.float32)
