"""WindowCue and WindowGate: a motion mask from all frames read together, and a second reading."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

from mut3r_analysis.errors import InvalidArgument
from mut3r_analysis.foundation.fields import Checked, names, shown
from mut3r_analysis.foundation.layers import Consecutive, consecutive_layers
from mut3r_analysis.foundation.specification import LayeredSpecification
from mut3r_analysis.motion.mask_cue import MaskCue

JOINT_SITES = ("frame_self", "global_self")
"""Sites of a model that reads all frames together: within a frame, and over all of them."""


class GramFactor(NamedTuple):
    """One factor of the cue: products of tokens of a frame with those of the frames around it.

    Products are of queries or keys as they enter ``global_self``, not divided by the root of their
    width, averaged over heads and layers. No weight is involved.

    Attributes
    ----------
    name : str
    own, other : {"query", "key"}
        What is taken of the frame's patches, and of those of the frames around it.
    layers : range
    statistic : {"mean", "std"}
        Mean over all patches of all frames around it; or the unbiased standard deviation over
        patches of the mean over these frames.
    complement : bool
        Whether 1 minus the stretched factor is multiplied.
    """

    name: str
    own: str
    other: str
    layers: range
    statistic: str
    complement: bool


GRAM_FACTORS = (
    GramFactor("mean1", "query", "query", range(3, 8), "mean", True),
    GramFactor("std1", "query", "query", range(18, 20), "std", True),
    GramFactor("mean2", "query", "query", range(17, 22), "mean", False),
    GramFactor("mean3", "key", "key", range(1), "mean", True),
    GramFactor("std3", "query", "key", range(1), "std", False),
)
"""VGGT4D's factors, in its order."""


def _offsets(field: str, given: Iterable[int]) -> tuple[int, ...]:
    if not isinstance(given, Iterable) or isinstance(given, str) or not (chosen := list(given)):
        raise InvalidArgument(f"{field} must be whole numbers of frames, got {shown(given)}")
    if any(isinstance(each, bool) or not isinstance(each, int) or each == 0 for each in chosen):
        raise InvalidArgument(
            f"{field} must be whole numbers of frames other than 0, got {shown(given)}"
        )
    return tuple(sorted(set(chosen)))


@dataclass(frozen=True, kw_only=True)
class WindowCue(MaskCue):
    """How a motion mask of every frame is made from all frames read together.

    VGGT4D's rule; the defaults are its own. Each of :data:`GRAM_FACTORS` is stretched to [0, 1]
    within a frame; their product, stretched again, is smoothed by clusters of encoder tokens, taken
    to pixels and cut by Otsu's threshold.

    Parameters
    ----------
    offsets : collection of int
        Frames around a frame with which its patches are multiplied, as far as there are any. A
        frame without any has no score (NaN), as in the official code, and no mask.
    clusters : int, optional
        Of k-means on the encoder tokens of all frames; None leaves the map as it is.
    seed : int
        Of k-means.
    classes : collection of int
        Numbers of classes among which Otsu's threshold chooses.

    Raises
    ------
    InvalidArgument
        When the specification cannot mean anything.

    Examples
    --------
    >>> WindowCue(offsets=(-1, 1)).offsets
    (-1, 1)
    """

    offsets: Checked[Iterable[int], tuple[int, ...]] = Checked(_offsets, (-6, -4, -2, 2, 4, 6))


@dataclass(frozen=True, kw_only=True)
class WindowGate(LayeredSpecification):
    """Which keys are removed in a second reading of all frames.

    Keys of dynamic patches are removed for all queries, of their own and of other frames; camera
    and register tokens never are. The softmax is over those that are left.

    Parameters
    ----------
    sites : collection of str
        ``frame_self``, ``global_self`` or both.
    layers : range or (int, int), optional
        Half-open, 0-based; the default is VGGT4D's, the first five. None is all.

    Raises
    ------
    InvalidArgument
        When the specification cannot mean anything.

    Examples
    --------
    >>> WindowGate().layers
    range(0, 5)
    """

    sites: Checked[str | Iterable[str], tuple[str, ...]] = Checked(
        lambda field, given: names(field, given, JOINT_SITES), JOINT_SITES
    )
    layers: Consecutive = Checked(consecutive_layers, (0, 5))
