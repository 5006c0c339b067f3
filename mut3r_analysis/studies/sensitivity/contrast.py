"""Contrast of weights: how strongly a gate sets patches apart, whatever its beta is called."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import xarray as xr

from mut3r_analysis.motion.site_gates import LARGEST_SCORE
from mut3r_analysis.running.opening import open_run

_TAILS = (0.05, 0.95)
"""Patches whose weights are compared: nearly the least and nearly the most dynamic of a frame."""


def contrast(table: xr.Dataset, layout: Mapping[str, Mapping[str, Any]]) -> xr.DataArray:
    """Measure how strongly weights are set apart, which makes betas of normalisers comparable.

    A softmax gate ignores a factor common to all keys, so only the contrast acts: the ratio of
    the weights ``(1 - g)^beta`` of a patch scored low and of one scored high, here at the 5th and
    the 95th percentile of a frame. Scores are those of the runs whose beta is nearest to 1.

    Parameters
    ----------
    table : Dataset
        Result of a sweep, with the stores in ``run``.
    layout : mapping
        Configuration to its ``cue`` and ``beta``, from `sensitivity.design`.

    Returns
    -------
    DataArray
        (cue, beta), the logarithm of the ratio to base 10, averaged over frames and sequences;
        NaN where no run is there.
    """
    betas = sorted({float(row["beta"]) for row in layout.values()})
    near = min(betas, key=lambda beta: abs(np.log(beta)))
    labels = {str(row["cue"]): label for label, row in layout.items() if row["beta"] == near}
    spreads = {}
    for cue, label in labels.items():
        paths = [path for path in table["run"].sel(configuration=label).values.ravel() if path]
        spreads[cue] = np.mean([_spread(path) for path in paths]) if paths else np.nan
    return xr.DataArray(
        np.outer(np.array(list(spreads.values())), np.array(betas)),
        dims=("cue", "beta"),
        coords={"cue": list(spreads), "beta": betas},
        attrs={"long_name": "contrast of weights, 95th to 5th percentile", "units": "decades"},
    )


def _spread(path: str) -> float:
    """Mean over frames of log10 of how much more a patch scored low weighs than one scored high."""
    with open_run(path) as run:
        motion = run["cue"].to_dataset()["motion"].values.astype(np.float64)
    kept = np.log10(1 - np.clip(motion.reshape(len(motion), -1), 0, LARGEST_SCORE))
    low, high = np.quantile(kept, _TAILS, axis=1)
    return float(np.mean(high - low))
