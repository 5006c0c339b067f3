"""Area under the ROC curve from one sort, under as many weightings as wanted."""

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


def weighted_auc(score: Array, positive: NDArray[np.bool_], weights: Array | None = None) -> Array:
    """Chance that a positive scores above a negative; ties count half (Mann-Whitney).

    Parameters
    ----------
    score : ndarray (item,)
    positive : ndarray of bool (item,)
    weights : ndarray (draw, item), optional
        How often each item counts, per bootstrap draw; None is one draw in which each counts once.

    Returns
    -------
    ndarray (draw,)
        NaN where a class is empty.
    """
    order = np.argsort(score, kind="stable")
    score, positive = score[order], positive[order]
    weights = np.ones((1, len(score))) if weights is None else weights[:, order]
    of_positive, of_negative = weights * positive, weights * ~positive
    starts = np.flatnonzero(np.r_[True, np.diff(score) != 0])
    if len(starts) < len(score):  # equal scores count as one place in the order
        of_positive = np.add.reduceat(of_positive, starts, axis=1)
        of_negative = np.add.reduceat(of_negative, starts, axis=1)
    below = np.cumsum(of_negative, axis=1) - of_negative / 2
    wins = np.einsum("ij,ij->i", of_positive, below)
    pairs = of_positive.sum(axis=1) * of_negative.sum(axis=1)
    return np.divide(wins, pairs, out=np.full(len(wins), np.nan), where=pairs > 0)
