"""Otsu's thresholds of several classes, and how many classes there are."""

from collections.abc import Collection
from typing import NamedTuple

import numpy as np

from mut3r_analysis.errors import InvalidArgument

BINS = 256


class Otsu(NamedTuple):
    """What separates values best.

    Attributes
    ----------
    threshold : float
        The last one of the number of classes with the highest score; NaN where values are.
    scores : dict of int to float
        Number of classes -> variance of the classes' means, over the root of their number.
    thresholds : dict of int to ndarray
        Number of classes -> its thresholds, ascending.
    """

    threshold: float
    scores: dict[int, float]
    thresholds: dict[int, np.ndarray]


def best_threshold(values: np.ndarray, classes: Collection[int]) -> Otsu:
    """Return the threshold above which the highest class lies; of equal scores fewer classes win.

    Parameters
    ----------
    values : ndarray
        Of any shape.
    classes : collection of int
        Numbers of classes to try.

    Raises
    ------
    InvalidArgument
        For fewer different values than classes.
    """
    if np.isnan(values).any():
        return Otsu(np.nan, dict.fromkeys(classes, np.nan), {})
    scores, thresholds = {}, {}
    for count in sorted(classes):
        thresholds[count] = multi_otsu(values, count)
        member = np.digitize(values, thresholds[count])
        means = [values[member == index].mean() for index in range(count)]
        scores[count] = float(np.var(means) / np.sqrt(count))
    best = max(scores, key=lambda count: (scores[count], -count))
    return Otsu(float(thresholds[best][-1]), scores, thresholds)


def multi_otsu(values: np.ndarray, classes: int) -> np.ndarray:
    """Return the centres of the histogram bins after which the classes end.

    The cuts have the largest variance between classes: the sum over classes of squared first moment
    over zeroth. Of equal ones the first wins. Levels are the numbers of bins, except that the first
    bin counts as level 1, as in scikit-image; other cuts would win without that.

    Parameters
    ----------
    values : ndarray
    classes : int
        From 2 on.

    Returns
    -------
    ndarray
        ``(classes - 1,)``, ascending.

    Raises
    ------
    InvalidArgument
        For fewer different values than classes.
    """
    different = len(np.unique(values))
    if different < classes:
        raise InvalidArgument(
            f"{classes} classes need as many different values, and there are {different}; the map "
            "is flat: try fewer classes, or look whether the frames differ"
        )
    counts, edges = np.histogram(values, BINS)
    centres = (edges[:-1] + edges[1:]) / 2
    if different == classes:
        return centres[np.flatnonzero(counts)[:-1]]
    return centres[_cuts(counts, classes)]


def _cuts(counts: np.ndarray, classes: int) -> list[int]:
    """Last bin of each class but the last one: the best cuts, found from the right."""
    level = np.maximum(np.arange(BINS), 1)
    zeroth, first = (np.concatenate([[0], moment.cumsum()]) for moment in (counts, counts * level))
    mass = zeroth[None, 1:] - zeroth[:-1, None]  # from bin (row) to bin (column), both in it
    total = (first[None, 1:] - first[:-1, None]).astype(np.float64)
    share = np.where(mass > 0, total**2 / np.maximum(mass, 1), 0)
    share[np.tri(BINS, k=-1, dtype=bool)] = -np.inf
    rest = share[:, -1]  # of all bins from here on as one class
    choices = []
    for _ in range(classes - 1):
        # A class from here to its end, and the best of what follows.
        both = share[:, :-1] + rest[None, 1:]
        choices.append(both.argmax(axis=1))
        rest = both.max(axis=1)
    begin, cuts = 0, []
    for choice in reversed(choices):
        cuts.append(int(choice[begin]))
        begin = cuts[-1] + 1
    return cuts
