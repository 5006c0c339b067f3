"""Bootstrap intervals over clips: of means, their ratios, and the scores of a checkpoint."""

import numpy as np
from numpy.typing import NDArray

from mut3r_analysis.metrics.bootstrap import drawn_counts, percentile_bounds, resampled_means
from mut3r_analysis.training.validation import AXES, ClipScores

RESAMPLES = 1000

RATIOS = {
    "rpe_rotation": "rpe_rotation_constant",
    "rpe_translation": "rpe_translation_constant",
    "ate": "ate_straight",
    "depth": "depth_constant",
}
"""Errors and the baselines they are divided by."""


def scores_with_intervals(scores: ClipScores) -> dict[str, list[float]]:
    """Every number of :meth:`ClipScores.summary` as [value, low, high].

    Clips are drawn with replacement; ratios and correlations are computed within each draw.
    """
    clips = len(scores.motion)
    draws = _with_data(drawn_counts(clips, RESAMPLES, seed=2))
    total = draws.sum(axis=1)
    found: dict[str, NDArray[np.float64]] = {}
    for name, values in scores.errors.items():
        values = values.astype(np.float64)
        if name.startswith("rpe"):
            found[name] = np.sqrt(draws @ values**2 / total)
        else:
            found[name] = draws @ values / total
    for name, baseline in RATIOS.items():
        found[f"{name}_ratio"] = found[name] / np.maximum(found[baseline], 1e-12)
    for axis, name in enumerate(AXES):
        true, predicted = (
            each[..., axis].astype(np.float64) for each in (scores.motion, scores.predicted_motion)
        )
        found[f"correlation_{name}"] = _correlation(true, predicted, draws)
    return {name: _interval(values) for name, values in found.items()}


def mean_interval(values: NDArray[np.float64], draws: NDArray[np.int_]) -> list[float]:
    """Mean of values ``(clip,)`` as [value, low, high]; NaN values are left out.

    `draws` ``(draw, clip)`` are those of :func:`~mut3r_analysis.metrics.bootstrap.drawn_counts`.
    """
    return _interval(resampled_means(values, _with_data(draws)))


def ratio_interval(
    values: NDArray[np.float64], reference: NDArray[np.float64], draws: NDArray[np.int_]
) -> list[float]:
    """Mean of values ``(clip,)`` over that of a reference, both of the same draws."""
    own, other = (resampled_means(each, _with_data(draws)) for each in (values, reference))
    return _interval(own / other)


def _with_data(draws: NDArray[np.int_]) -> NDArray[np.int_]:
    """Put the data as they are, each clip once, before what was drawn."""
    return np.vstack([np.ones_like(draws[:1]), draws])


def _correlation(
    true: NDArray[np.float64], predicted: NDArray[np.float64], draws: NDArray[np.int_]
) -> NDArray[np.float64]:
    """Pearson correlation per draw, from sums per clip ``(clip, pair)``."""
    pairs = true.shape[1] * draws.sum(axis=1)
    x, y, xx, yy, xy = (
        draws @ each.sum(axis=1) / pairs
        for each in (true, predicted, true**2, predicted**2, true * predicted)
    )
    spread = np.sqrt(np.maximum((xx - x**2) * (yy - y**2), 0))
    return np.divide(xy - x * y, spread, out=np.zeros_like(xy), where=spread > 1e-15)


def _interval(values: NDArray[np.float64]) -> list[float]:
    return [float(values[0]), *percentile_bounds(values[1:]).tolist()]
