"""Alignment of predicted depth to ground truth: one scale, and perhaps one shift, per sequence.

"Per-sequence scale" in the literature means several different fits, and the numbers depend on which
one was used. Each fit here has its own name; the three that released scorers run (``scale_irls``,
``scale_shift_adam``, ``scale_median``) reproduce those scorers' update rules in float64.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mut3r_analysis.foundation.fields import one_of
from mut3r_analysis.metrics.errors import UndefinedMetric
from mut3r_analysis.metrics.pairs import depth_vectors

Vector = NDArray[np.float64]


@dataclass(frozen=True)
class DepthAlignment:
    """The map ``scale * depth + shift`` and how it was found.

    Attributes
    ----------
    name : str
        One of `ALIGNMENTS`.
    scale, shift : float
        Dimensionless; metres.
    steps : int
        Iterations taken; 0 for a closed form.
    pixels : int
        Number of valid pixels fitted.
    """

    name: str
    scale: float
    shift: float
    steps: int
    pixels: int

    def apply(self, depth: ArrayLike) -> NDArray[np.float64]:
        """Return the aligned depth, any shape."""
        return self.scale * np.asarray(depth, dtype=np.float64) + self.shift


def align_depth(truth: ArrayLike, prediction: ArrayLike, name: str) -> DepthAlignment:
    """Fit a named alignment on corresponding valid depths.

    Parameters
    ----------
    truth, prediction : array_like
        (pixel), metres, every valid pixel of a whole sequence; the truth is positive.
    name : str
        - ``metric``: nothing.
        - ``scale_irls``: L1 scale by 10 reweighted least-squares rounds, weights
          ``1 / (|s p - g| + 1e-8)``, from the ratio of means, at least 1e-3. CUT3R ``scale``. The
          released code does this in float32, where it does not reproduce itself (`irreproducible`).
        - ``scale_lad``: the L1 optimum in scale, which ``scale_irls`` is after.
        - ``scale_median``: ratio of lower medians.
        - ``scale_shift_adam``: at most 1000 Adam steps of 1e-4 on the summed L1 loss from the ratio
          of lower medians and no shift, until the loss changes by less than 1e-6. CUT3R
          ``scale&shift``. Steps stay near 1e-4, so neither parameter moves by much more than 0.1:
          in general this is not the L1 optimum.
          The released code adds up in float32: over few pixels, whose losses are small, steps stop
          changing the loss by 1e-6 long before those of float64 do.
        - ``scale_shift_lad``: the L1 optimum in scale and shift.
        - ``scale_shift_lstsq``: the least-squares optimum in scale and shift.

    Raises
    ------
    InvalidArgument
        An unknown name, or vectors that do not correspond.
    UndefinedMetric
        No pixels, values that are not finite, or a prediction without the mean, the median or the
        spread that the fit divides by.

    Examples
    --------
    >>> align_depth([1.0, 2.0, 4.0], [0.5, 1.0, 2.0], "scale_median").scale
    2.0
    """
    one_of("alignment", name, ALIGNMENTS)
    g, p = depth_vectors(truth, prediction)
    scale, shift, steps = _FITS[name](g, p)
    return DepthAlignment(name, float(scale), float(shift), steps, g.size)


def lower_median(values: Vector) -> float:
    """Return the median, the lower of the two middle values for an even count (as torch does)."""
    middle = (values.size - 1) // 2
    return float(np.partition(values, middle)[middle])


def scale_irls(g: Vector, p: Vector) -> tuple[float, float, int]:
    """Fit ``scale_irls`` in the precision of the arrays; give scale, no shift, and rounds."""
    rounds = 10
    mean = p.mean()
    if mean == 0:
        raise UndefinedMetric("the predicted depth has mean zero, so no scale can be fitted")
    scale = g.mean() / mean
    for _ in range(rounds):
        weighted = p / (np.abs(scale * p - g) + 1e-8)
        scale = (weighted @ g) / (weighted @ p)
    return max(float(scale), 1e-3), 0.0, rounds


def _scale_lad(g: Vector, p: Vector) -> tuple[float, float, int]:
    """Take the median of the ratios, each with the weight of its prediction."""
    known = p != 0
    if not known.any():
        raise UndefinedMetric("the predicted depth is zero, so no scale can be fitted")
    ratios, weights = g[known] / p[known], np.abs(p[known])
    order = np.argsort(ratios, kind="stable")
    passed = np.cumsum(weights[order])
    middle = int(np.searchsorted(passed, passed[-1] / 2))
    return float(ratios[order][middle]), 0.0, 0


def _scale_median(g: Vector, p: Vector) -> tuple[float, float, int]:
    middle = lower_median(p)
    if middle == 0:
        raise UndefinedMetric(
            "the median of the predicted depth is zero, so no scale can be fitted"
        )
    return lower_median(g) / middle, 0.0, 0


def _scale_shift_adam(g: Vector, p: Vector) -> tuple[float, float, int]:
    rate, decay_mean, decay_square, epsilon = 1e-4, 0.9, 0.999, 1e-8
    limit, tolerance = 1000, 1e-6
    kernel = _l1_kernel()
    parameters = np.array([_scale_median(g, p)[0], 0.0])
    mean, square = np.zeros(2), np.zeros(2)
    previous = np.inf
    for step in range(1, limit + 1):
        loss, *slopes = kernel(g, p, *parameters)
        gradient = np.array(slopes)
        mean = decay_mean * mean + (1 - decay_mean) * gradient
        square = decay_square * square + (1 - decay_square) * gradient**2
        deviation = np.sqrt(square) / np.sqrt(1 - decay_square**step) + epsilon
        parameters = parameters - rate / (1 - decay_mean**step) * mean / deviation
        if abs(previous - loss) < tolerance:
            break
        previous = loss
    return float(parameters[0]), float(parameters[1]), step


@cache
def _l1_kernel() -> Callable[[Vector, Vector, float, float], tuple[float, float, float]]:
    """Compile the L1 loss and its gradient in (scale, shift), which is 0 at a residual of 0.

    A thousand passes over tens of millions of pixels take minutes as array expressions and seconds
    as one loop.
    """
    import numba

    @numba.njit
    def loss(g: Vector, p: Vector, scale: float, shift: float) -> tuple[float, float, float]:
        total, by_scale, by_shift = 0.0, 0.0, 0.0
        for index in range(g.size):
            residual = scale * p[index] + shift - g[index]
            sign = float((residual > 0) - (residual < 0))
            total += sign * residual
            by_scale += sign * p[index]
            by_shift += sign
        return total, by_scale, by_shift

    return loss


def _scale_shift_lstsq(g: Vector, p: Vector) -> tuple[float, float, int]:
    mean_p, mean_g = p.mean(), g.mean()
    centred = p - mean_p
    variance = centred @ centred
    if variance <= p.size * (np.finfo(np.float64).eps * np.abs(p).max()) ** 2:
        raise UndefinedMetric(
            "the predicted depth is constant, so scale and shift cannot be told apart"
        )
    scale = (centred @ (g - mean_g)) / variance
    return float(scale), float(mean_g - scale * mean_p), 0


def _scale_shift_lad(g: Vector, p: Vector) -> tuple[float, float, int]:
    """Bisect on the slope of the loss in the scale, the shift at its optimum: a median.

    The loss, minimised over the shift, is convex in the scale, so the sign of one subgradient says
    on which side the optimum lies; the interval is halved down to neighbouring floats.
    """
    middle = _scale_shift_lstsq(g, p)[0]
    width = max(abs(middle), float(np.ptp(g) / np.ptp(p)), 1e-12)
    low, high, steps = middle - width, middle + width, 0
    while _slope(g, p, low) > 0:
        low, width, steps = low - 2 * width, 2 * width, steps + 1
    while _slope(g, p, high) < 0:
        high, width, steps = high + 2 * width, 2 * width, steps + 1
    while low < (scale := 0.5 * (low + high)) < high:
        slope, steps = _slope(g, p, scale), steps + 1
        if slope == 0:
            break
        low, high = (scale, high) if slope < 0 else (low, scale)
    return scale, lower_median(g - scale * p), steps


def _slope(g: Vector, p: Vector, scale: float) -> float:
    """Return a subgradient, in the scale, of the L1 loss minimised over the shift.

    Pixels that the shift passes through share the weight that balances the signs of the others,
    which makes the subgradient in the shift zero; on other pixels the sign is the residual's.
    """
    residual = scale * p - g
    shift = lower_median(residual)
    sign = np.sign(residual - shift)
    through = sign == 0
    sign[through] = -sign.sum() / np.count_nonzero(through)
    return float(sign @ p)


_FITS: dict[str, Callable[[Vector, Vector], tuple[float, float, int]]] = {
    "metric": lambda g, p: (1.0, 0.0, 0),
    "scale_irls": scale_irls,
    "scale_lad": _scale_lad,
    "scale_median": _scale_median,
    "scale_shift_adam": _scale_shift_adam,
    "scale_shift_lad": _scale_shift_lad,
    "scale_shift_lstsq": _scale_shift_lstsq,
}
ALIGNMENTS = tuple(_FITS)

_IRREPRODUCIBLE = {("scale_irls", "abs_rel"): 0.006, ("scale_irls", "delta_1"): 0.008}
"""Measured by `order_spread` on rendered depth with noise, the largest of 27 cases, rounded up."""


def irreproducible(align: str, metric: str) -> float:
    """Return the share of a metric by which the released fit differs from itself.

    The released ``scale`` iterates in float32 with weights of up to 1e8 on pixels that it has just
    met exactly: the same pixels in another order give another scale. 0 for fits that say again what
    they have said. `mut3r_analysis.metrics.depth.order_spread` measures it on any depths.
    """
    return _IRREPRODUCIBLE.get((align, metric), 0.0)
