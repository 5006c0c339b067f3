"""PairCue and PairGate: declared rules from attention in pairs to motion masks, and back."""

from dataclasses import dataclass
from typing import Any, Self

from mut3r_analysis.foundation.fields import Checked, flag, names, number, one_of, whole
from mut3r_analysis.foundation.layers import Consecutive, consecutive_layers
from mut3r_analysis.foundation.specification import LayeredSpecification
from mut3r_analysis.motion.mask_cue import MaskCue

PAIR_SITES = ("view1_self", "view1_to_view2", "view2_self", "view2_to_view1")
"""Sites of a pair's decoders."""


def _sites(field: str, given: Any) -> tuple[str, ...]:
    return names(field, given, PAIR_SITES)


@dataclass(frozen=True, kw_only=True)
class PairCue(MaskCue):
    """How a motion mask of every frame is made from the pairs that it is in.

    Easi3R's rule; the defaults are its own. Of every pair the mean logit that each key patch
    receives is taken at every layer and head (the statistic ``received_logit``), where view 1 reads
    view 2 and where view 2 reads view 1. Over the partners of a frame that gives four aggregates,
    mean and standard deviation as view 2 and as view 1, each stretched to [0, 1] over all frames,
    patches, layers and heads, averaged over layers and heads, and stretched again. The dynamic map
    is ``(1 - mean2) std2 mean1 (1 - std1)``, stretched per frame; it is smoothed by clusters of
    encoder tokens, taken to pixels and cut by Otsu's threshold.

    The score of a frame depends on all other frames, so there is no such cue of a stream; what one
    partner tells is ``Cue.easi3r()``.

    Parameters
    ----------
    clusters : int, optional
        Of k-means on the encoder tokens of all frames; every patch then has its cluster's mean.
        None leaves the map as it is.
    seed : int
        Of k-means.
    classes : collection of int
        Numbers of classes among which Otsu's threshold chooses.
    corner : bool
        Whether the first patch, which behaves like a register, is replaced by the mean of the patch
        to its right and the one below.
    single : {"refuse", "official"}
        What a frame with a single partner does. Its standard deviation is 0 / 0; in official code
        every map of every frame is then NaN, and the threshold fails. Here ``official`` gives these
        maps and an empty mask.
    batch : int
        Pairs that are measured at once. Official code is right for 1 alone: above it layers, pairs
        and places are mixed, and a larger number here gives those maps.

    Raises
    ------
    InvalidArgument
        When the specification cannot mean anything; the message says what is allowed.

    Examples
    --------
    >>> PairCue.easi3r().classes
    (2, 3, 4)
    """

    corner: Checked[bool, bool] = Checked(flag, True)
    single: str = "refuse"
    batch: int = 1

    def __post_init__(self) -> None:
        one_of("single", self.single, ("refuse", "official"))
        super().__post_init__()
        whole("batch", self.batch, 1)

    @classmethod
    def easi3r(cls, **changes: Any) -> Self:
        """Return Easi3R's cue, with fields that differ."""
        return cls(**changes)


@dataclass(frozen=True, kw_only=True)
class PairGate(LayeredSpecification):
    """What masks of both views of a pair do: static patches get nothing from dynamic ones.

    After the softmax the weight of a static query and a dynamic key is set to 0, and the others are
    not divided by their sum again; dynamic queries keep everything. The defaults are Easi3R's: view
    1 reading view 2, in all layers.

    Parameters
    ----------
    sites : collection of str
        Among ``view1_self``, ``view1_to_view2``, ``view2_self``, ``view2_to_view1``.
    layers : range or (int, int), optional
        Consecutive layers, half-open and 0-based; None is all.
    threshold : float
        Score in (0, 1] above which a patch counts as dynamic.

    Raises
    ------
    InvalidArgument
        When the specification cannot mean anything.

    Examples
    --------
    >>> PairGate.easi3r().sites
    ('view1_to_view2',)
    """

    sites: Checked[Any, tuple[str, ...]] = Checked(_sites, ("view1_to_view2",))
    layers: Consecutive = Checked(consecutive_layers, None)
    threshold: float = 0.5

    def __post_init__(self) -> None:
        value = number("threshold", self.threshold, 1e-6, 1)
        object.__setattr__(self, "threshold", value)

    @classmethod
    def easi3r(cls, **changes: Any) -> Self:
        """Return Easi3R's gate, with fields that differ."""
        return cls(**changes)
