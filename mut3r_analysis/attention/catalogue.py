"""The statistics of attention that can be asked for by name."""

from collections.abc import Collection
from dataclasses import dataclass

from mut3r_analysis.foundation.fields import names


@dataclass(frozen=True)
class Statistic:
    """What one statistic is.

    Attributes
    ----------
    name : str
    side : {"query", "key"}
        Which token dimension it keeps; the other is reduced.
    long_name : str
    units : str
        "nat" for logarithms, "1" for probabilities and pure numbers.
    closed_form : bool
        Whether it follows from means and covariances alone.
    """

    name: str
    side: str
    long_name: str
    units: str
    closed_form: bool


STATISTICS = {
    item.name: item
    for item in (
        Statistic("logit_mean", "query", "mean logit over keys", "nat", True),
        Statistic("logit_variance", "query", "variance of the logits over keys", "nat2", True),
        Statistic("logsumexp", "query", "log of the sum of exponentiated logits", "nat", False),
        Statistic("entropy", "query", "entropy of the attention weights", "nat", False),
        Statistic("max_weight", "query", "largest attention weight", "1", False),
        Statistic("pose_weight", "query", "attention weight on the pose token", "1", False),
        Statistic("received", "key", "mean attention weight received over queries", "1", False),
        Statistic("received_logit", "key", "mean logit over queries", "nat", True),
    )
}


def check_statistics(given: Collection[str] | None) -> tuple[str, ...]:
    """Return known statistic names in canonical order; one may be given alone, ``"all"`` is all.

    Raises
    ------
    InvalidArgument
        For an unknown name; the message lists the known ones.
    """
    return names("statistics", given, tuple(STATISTICS))
