"""From one number per sequence to the protocol's mean, and how far it can be trusted."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from mut3r_analysis.metrics.bootstrap import bootstrap_sequences
from mut3r_analysis.metrics.protocols import Protocol, find_metric
from mut3r_analysis.metrics.reductions import REDUCTIONS, average_sequences

LEVEL = 0.95
"""Nominal coverage of the intervals."""


def metric_names(scores: xr.Dataset) -> list[str]:
    """Return the metrics that `evaluate` scored, in the order of their protocols."""
    prefix = "mean_"
    return [str(n).removeprefix(prefix) for n in scores.data_vars if str(n).startswith(prefix)]


def add_means(scores: xr.Dataset, protocol: Protocol) -> xr.Dataset:
    """Add the mean over sequences of every metric of a protocol, with its interval."""
    scores = scores.assign_coords(bound=["lower", "upper"])
    names = [str(name) for name in scores["sequence"].values]
    count = REDUCTIONS[protocol.reduction].weights
    weights = None
    if count is not None:
        weights = dict(zip(names, scores[count].values.astype(float), strict=True))
    for metric in protocol.metrics:
        values = dict(zip(names, scores[metric].values.astype(float), strict=True))
        if not np.isfinite(list(values.values())).any():
            mean, low, high, valid = (np.nan, np.nan, np.nan, 0)
        else:
            average = average_sequences(values, protocol.reduction, weights)
            mean, valid = average.value, average.n_valid
            kept = [name for name in names if name not in average.skipped]
            low, high = _interval(scores, metric, kept)
        attrs = {**scores[metric].attrs, "n_valid": valid}
        scores[f"mean_{metric}"] = ((), mean, attrs)
        words = f"{LEVEL:.0%} bootstrap interval of the mean"
        scores[f"interval_{metric}"] = ("bound", [low, high], {**attrs, "long_name": words})
    return scores


@dataclass(frozen=True, eq=False)
class FrameSeries:
    """What a metric's sequences are made of, under the names that `bootstrap_sequences` has.

    Attributes
    ----------
    values : dict
        Sequence to values (frame); a single one where a metric has none per frame.
    statistic : str
        Over frames: ``"mean"`` or ``"rmse"``.
    frame_weights, sequence_weights : dict or None
        As in `bootstrap_sequences`.
    """

    values: dict[str, NDArray[np.float64]]
    statistic: str
    frame_weights: dict[str, NDArray[np.float64]] | None
    sequence_weights: dict[str, float] | None


def frame_series(scores: xr.Dataset, metric: str, names: Iterable[str]) -> FrameSeries:
    """Return what the metric of each of these sequences is made of."""
    row = find_metric(metric)
    variable = f"frame_{row.frames}" if row.made_of_frames else ""
    count = REDUCTIONS[scores[metric].attrs["reduction"]].weights
    used = [name for name in (metric, variable, "frame_pixels", count) if name in scores]
    values, pixels, shares = {}, {}, {}
    for name in names:
        one = scores[used].sel(sequence=name)
        if count is not None:
            shares[name] = float(one[count])
        if variable not in scores:
            values[name] = np.array([float(one[metric])])
            continue
        found = one[variable].values
        there = np.isfinite(found)
        values[name] = row.counted(found[there])
        if row.weights == "pixels":
            pixels[name] = one["frame_pixels"].values[there].astype(float)
    statistic = "rmse" if variable and row.pooling == "rmse" else "mean"
    return FrameSeries(values, statistic, pixels or None, shares or None)


def _interval(scores: xr.Dataset, metric: str, names: list[str]) -> tuple[float, float]:
    """Draw sequences, then frames where they make up the metric; return the interval's ends."""
    if len(names) < 2:
        return float("nan"), float("nan")
    found = bootstrap_sequences(**vars(frame_series(scores, metric, names)), level=LEVEL)
    return found.low, found.high
