"""From one number per sequence to one number per benchmark, with the skipped ones named."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from mut3r_analysis.errors import InvalidArgument
from mut3r_analysis.foundation.fields import one_of
from mut3r_analysis.metrics.errors import UndefinedMetric


class Reduction(NamedTuple):
    """How sequences are averaged: in words, and the variable of scores that weighs them."""

    words: str
    weights: str | None


REDUCTIONS = {
    "valid-pixels": Reduction("mean over sequences, weighted by valid pixels", "n_pixels"),
    "sequence-mean": Reduction("plain mean over sequences", None),
    "frame-pooled": Reduction("mean over the frames of all sequences together", "n_frames"),
}


@dataclass(frozen=True)
class Average:
    """A mean over sequences and what went into it.

    Attributes
    ----------
    value : float
        The mean.
    reduction : str
        How it was weighted.
    n_sequences, n_valid : int
        Sequences asked for, and those with a value.
    skipped : tuple of str
        The sequences without a value, in order.
    """

    value: float
    reduction: str
    n_sequences: int
    n_valid: int
    skipped: tuple[str, ...]


def average_sequences(
    values: Mapping[str, float | None],
    reduction: str = "sequence-mean",
    weights: Mapping[str, float] | None = None,
) -> Average:
    """Average a metric over sequences; a value of None or NaN marks a sequence that was skipped.

    Parameters
    ----------
    values : mapping
        Sequence name to value.
    reduction : {"valid-pixels", "sequence-mean", "frame-pooled"}
        Weighted by valid pixels, not weighted, or weighted by frames.
    weights : mapping, optional
        Sequence name to its number of valid pixels or frames; needed unless ``"sequence-mean"``.

    Raises
    ------
    InvalidArgument
        An unknown reduction, or weights that are missing, superfluous or not positive.
    UndefinedMetric
        No sequence has a value.

    Examples
    --------
    >>> values, pixels = {"alley_1": 0.1, "cave_2": 0.4}, {"alley_1": 300, "cave_2": 100}
    >>> average_sequences(values, "valid-pixels", pixels).value
    0.175
    """
    one_of("reduction", reduction, REDUCTIONS)
    if (weights is None) != (REDUCTIONS[reduction].weights is None):
        raise InvalidArgument(
            f"reduction={reduction!r} {'needs' if weights is None else 'takes no'} weights "
            "per sequence"
        )
    valid = {name: float(v) for name, v in values.items() if v is not None and not np.isnan(v)}
    skipped = tuple(name for name in values if name not in valid)
    if not valid:
        raise UndefinedMetric(f"none of {len(values)} sequences has a value to average")
    share = np.ones(len(valid))
    if weights is not None:
        share = np.array([float(weights.get(name, 0)) for name in valid])
        lacking = [name for name, w in zip(valid, share, strict=True) if not w > 0]
        if lacking:
            raise InvalidArgument(f"no positive weight for {', '.join(lacking)}")
    mean = float(np.average(list(valid.values()), weights=share))
    return Average(mean, reduction, len(values), len(valid), skipped)
