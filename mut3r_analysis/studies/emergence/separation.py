"""How well scores separate two classes of patches, for many scores at once.

Pairs are formed within a frame only: a score that rises and falls with the frames gains nothing.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata

LEAST_PAIRS = 20
"""An area under a curve made of fewer pairs is not given."""

Array = NDArray[np.floating[Any]]
Mask = NDArray[np.bool_]


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


def without_controls(score: Array, controls: Array, fit: Mask) -> Array:
    """Take out of a score what controls predict by a linear fit.

    Parameters
    ----------
    score : ndarray
        (..., frame, patch).
    controls : ndarray
        (control, frame, patch).
    fit : ndarray of bool
        (frame, patch): where the fit is made. Fitted where things move, controls that single a
        moving object out, its place for one, would take the motion itself out as well.

    Returns
    -------
    ndarray
        What is left, (..., frame, patch). Every frame has its own level; NaN in frames without
        patches to fit on.
    """
    count = np.where(fit.any(axis=1), fit.sum(axis=1), np.nan)

    def centred(values: Array) -> Array:
        level = np.einsum("...fp,fp->...f", values, fit.astype(np.float64)) / count
        return values.astype(np.float64) - level[..., None]

    rest, columns = centred(score), centred(controls)
    scale = columns[:, fit].std(axis=1)
    columns = columns[scale > 0] / scale[scale > 0, None, None]
    weights = rest[..., fit] @ np.linalg.pinv(columns[:, fit], rcond=1e-6)
    return rest - np.einsum("...k,kfp->...fp", weights, columns, optimize=True)
