"""How well a score separates two classes of patches, with intervals over sequences."""

import numpy as np
from numpy.typing import NDArray

from mut3r_analysis.metrics.ranking import weighted_auc

Array = NDArray[np.float64]

LEVEL = 0.95


def roc_auc(score: Array, positive: NDArray[np.bool_], weight: Array | None = None) -> float:
    """Area under the ROC curve: chance that a positive scores above a negative, ties count half.

    Parameters
    ----------
    score : ndarray (item,)
    positive : ndarray of bool (item,)
    weight : ndarray (item,), optional
        How often each item counts.

    Returns
    -------
    float
        NaN when a class is empty.
    """
    return float(weighted_auc(score, positive, None if weight is None else weight[None])[0])


def auc_interval(
    score: Array, positive: NDArray[np.bool_], sequence: NDArray[np.int_], draws: NDArray[np.int_]
) -> tuple[float, float, float]:
    """AUC and its percentile interval over sequences.

    Parameters
    ----------
    score, positive : ndarray (item,)
    sequence : ndarray of int (item,)
        Which sequence an item belongs to.
    draws : ndarray (draw, sequence)
        How often each sequence was drawn, from :func:`sequence_draws`.
    """
    values = weighted_auc(score, positive, draws[:, sequence].astype(float))
    low, high = np.nanquantile(values, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return roc_auc(score, positive), float(low), float(high)


def sequence_draws(sequences: int, resamples: int, seed: int) -> NDArray[np.int_]:
    """How often each sequence comes up in each bootstrap resample ``(draw, sequence)``."""
    rng = np.random.default_rng(seed)
    return rng.multinomial(sequences, np.full(sequences, 1 / sequences), size=resamples)


def mean_interval(values: Array, draws: NDArray[np.int_]) -> tuple[float, float, float]:
    """Mean of per-sequence values ``(sequence,)`` and its interval; NaN values are left out."""
    known = np.isfinite(values)
    filled = np.where(known, values, 0)
    means = (draws @ filled) / np.maximum(draws @ known, 1)
    low, high = np.quantile(means, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(filled.sum() / max(known.sum(), 1)), float(low), float(high)


def without(score: Array, regressors: Array, fit_on: NDArray[np.bool_]) -> Array:
    """Residual of a score after linear regression on `regressors` ``(item, column)``.

    The coefficients come from the items `fit_on`; a constant is added.
    """
    design = np.column_stack([np.ones(len(score)), regressors])
    coefficients, *_ = np.linalg.lstsq(design[fit_on], score[fit_on], rcond=None)
    return score - design @ coefficients


def ratio_interval(
    values: Array, reference: Array, draws: NDArray[np.int_]
) -> tuple[float, float, float]:
    """Mean of values ``(sequence,)`` over that of a reference, both of the same draws."""
    ratios = (draws @ values) / (draws @ reference)
    low, high = np.quantile(ratios, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(values.mean() / reference.mean()), float(low), float(high)
