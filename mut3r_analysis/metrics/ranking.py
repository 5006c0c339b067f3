"""The area under the ROC curve: the chance that a positive scores above a negative.

Counted in two ways: for one score under many weightings (bootstrap draws), and for many scores at
once, with pairs formed within frames only, so that a score that rises and falls with the frames
gains nothing.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata

from mut3r_analysis.metrics.bootstrap import percentile_bounds

LEAST_PAIRS = 20
"""An area under a curve made of fewer pairs is not given."""

Array = NDArray[np.floating[Any]]
Mask = NDArray[np.bool_]


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


def auc_interval(
    score: Array, positive: Mask, group: NDArray[np.int_], counts: NDArray[np.int_]
) -> tuple[float, float, float]:
    """Return the area and its 95 % percentile interval over groups of items.

    Parameters
    ----------
    score, positive : ndarray (item,)
    group : ndarray of int (item,)
        Which group, such as a clip, an item belongs to.
    counts : ndarray (draw, group)
        How often each group was drawn, from `bootstrap.drawn_counts`.
    """
    low, high = percentile_bounds(weighted_auc(score, positive, counts[:, group].astype(float)))
    return float(weighted_auc(score, positive)[0]), float(low), float(high)


def wins(above: Array, below: Array) -> Array:
    """Count the pairs in which a score of `above` exceeds one of `below`; ties count half.

    Parameters
    ----------
    above, below : ndarray
        (..., item) each, of different numbers of items.

    Returns
    -------
    ndarray
        (...); NaN where a score is not finite.
    """
    count = above.shape[-1]
    # Not above 32 bit: scores that differ by no more than that are ties.
    both = np.concatenate([above, below], axis=-1).astype(np.float32)
    ranks = rankdata(both, axis=-1, nan_policy="propagate")[..., :count]
    return ranks.sum(axis=-1) - count * (count + 1) / 2


def frame_wins(score: Array, positive: Mask, negative: Mask) -> tuple[Array, NDArray[np.int_]]:
    """Count pairs of positive and negative patches of the same frame.

    Parameters
    ----------
    score : ndarray
        (..., frame, patch).
    positive, negative : ndarray of bool
        (frame, patch).

    Returns
    -------
    won : ndarray
        (..., frame), 0 in frames without pairs.
    pairs : ndarray of int
        (frame,).
    """
    pairs = positive.sum(axis=1) * negative.sum(axis=1)
    won = np.zeros(score.shape[:-1])
    for frame in np.flatnonzero(pairs):
        of_frame = score[..., frame, :]
        won[..., frame] = wins(of_frame[..., positive[frame]], of_frame[..., negative[frame]])
    return won, pairs


def area(won: Array, pairs: NDArray[np.int_], least: int = LEAST_PAIRS) -> Array:
    """Area under the ROC curve ``(...)`` from pairs won ``(..., frame)``; NaN with too few."""
    total = pairs.sum()
    if total < least:
        return np.full(won.shape[:-1], np.nan)
    return won.sum(axis=-1) / total
