"""Policies: how many layers are gated on a frame, decided from what its probe pass shows."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from mut3r_analysis.errors import InvalidArgument
from mut3r_analysis.motion import Gate

Array = NDArray[np.float64]

CRITERIA = {
    "depth": ("depth error", "1"),
    "rotation": ("rotation error to the previous frame", "degree"),
    "translation": ("translation error to the previous frame", "m"),
}
"""Errors of a single frame. Depth is absolute relative after one median scale; the motion since the
frame before is compared in the camera of that frame, without any alignment."""


@dataclass(frozen=True, eq=False)
class Policy:
    """How a depth is chosen.

    Attributes
    ----------
    propose : callable
        From the spread ``(layer,)`` of the cue in the probe pass and the frame's position, one or
        more depths.
    criterion : str
        Where more than one is proposed, the depth with the lowest error of :data:`CRITERIA` is
        taken: that needs the truth and is a bound, not a method. Of equals, and where the
        criterion has no value yet (motion on a first frame), the first proposed.
    """

    propose: Callable[[Array, int], Sequence[int]]
    criterion: str = "depth"


def fixed(depth: int) -> Policy:
    """Gate the same layers in every frame."""
    return Policy(lambda spread, position: (depth,))


def drawn(depths: Sequence[int], seed: Sequence[int] = (0,)) -> Policy:
    """Draw each frame's depth from a list, whatever the frame shows; repeatable by the seed."""

    def propose(spread: Array, position: int) -> tuple[int]:
        return (int(np.random.default_rng([*seed, position]).choice(np.asarray(depths))),)

    return Policy(propose)


def oracle(depths: Sequence[int], criterion: str) -> Policy:
    """Try all depths on every frame and take the one with the lowest error there.

    It looks at one frame at a time: what the choice does to later frames through the state it
    does not see.
    """
    if criterion not in CRITERIA:
        raise InvalidArgument(f"criterion {criterion!r}; choose one of {', '.join(CRITERIA)}")
    return Policy(lambda spread, position: tuple(depths), criterion)


def leading(thresholds: Array, depths: Sequence[int], *, wide: bool = True) -> Policy:
    """Gate the leading layers in which the cue spreads widely, and stop at the first that does not.

    Parameters
    ----------
    thresholds : ndarray (layer,)
    depths : sequence of int
        Depths there are, 0 among them; the largest that the rule allows is taken.
    wide : bool
        False gates leading layers whose spread does not exceed the threshold instead.
    """
    offered = sorted(depths)

    def propose(spread: Array, position: int) -> tuple[int]:
        stops = spread < thresholds if wide else spread > thresholds
        allowed = int(np.argmax(stops)) if stops.any() else len(stops)
        return (max(depth for depth in offered if depth <= allowed),)

    return Policy(propose)


def thresholds(spread: xr.DataArray, quantile: float, *, wide: bool = True) -> Array:
    """Return each layer's quantile of the spread ``(..., layer)`` over everything else.

    Of the opposite rule it is counted from the other end, so that small quantiles gate much with
    both.
    """
    others = [dim for dim in spread.dims if dim != "layer"]
    found = spread.quantile(quantile if wide else 1 - quantile, dim=others, skipna=True)
    return np.asarray(found.values, np.float64)


def candidate_depths(layers: int, most: int = 7) -> tuple[int, ...]:
    """Depths to choose among: none, all, MUT3R's, and evenly spaced ones between."""
    spaced = np.linspace(0, layers, min(most, layers + 1)).round().astype(int)
    return tuple(sorted({*spaced.tolist(), paper_depth(layers)}))


def paper_depth(layers: int) -> int:
    """Return how many layers MUT3R gates in a decoder of so many."""
    return Gate.mut3r().layer_range(layers).stop
