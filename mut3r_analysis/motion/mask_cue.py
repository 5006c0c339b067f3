"""What cues share that end in a mask of pixels: patches by cluster, cut by Otsu's threshold."""

from collections.abc import Iterable
from dataclasses import dataclass

from mut3r_analysis.errors import InvalidArgument
from mut3r_analysis.foundation.fields import Checked, shown, whole
from mut3r_analysis.foundation.specification import Specification


def _classes(field: str, given: Iterable[int]) -> tuple[int, ...]:
    if not isinstance(given, Iterable) or isinstance(given, str) or not (chosen := list(given)):
        raise InvalidArgument(
            f"{field} must be numbers of classes such as (2, 3), got {shown(given)}"
        )
    return tuple(sorted({whole(field, count, 2, 8) for count in chosen}))


@dataclass(frozen=True, kw_only=True)
class MaskCue(Specification):
    """How a map of motion becomes a mask of pixels.

    Parameters
    ----------
    clusters : int, optional
        Of k-means on the encoder tokens of all frames; every patch then has its cluster's mean.
        None leaves the map as it is.
    seed : int
        Of k-means.
    classes : collection of int
        Numbers of classes among which Otsu's threshold chooses.

    Raises
    ------
    InvalidArgument
        When the specification cannot mean anything.
    """

    clusters: int | None = 64
    seed: int = 42
    classes: Checked[Iterable[int], tuple[int, ...]] = Checked(_classes, (2, 3, 4))

    def __post_init__(self) -> None:
        if self.clusters is not None:
            whole("clusters", self.clusters, 1)
        whole("seed", self.seed, 0)
