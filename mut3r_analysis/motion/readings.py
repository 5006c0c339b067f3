"""Readings: the ways in which attention, or a mask, becomes one number per patch."""

from dataclasses import dataclass

from mut3r_analysis.attention.sites import SITE_KINDS
from mut3r_analysis.errors import InvalidArgument


@dataclass(frozen=True)
class Reading:
    """What one reading is.

    Attributes
    ----------
    name, code : str
        The code is the one used in comparisons of readings (R1 ... R8; R3a and R3b are variants).
    side : {"query", "key"}
        The tokens it describes; the other side is reduced.
    sign : {1, -1}
        +1 where a high value speaks for motion, -1 where a low one does.
    formula : str
        z are logits, p weights, i queries, j keys, M the number of keys.
    closed_form : bool
        Whether it follows from means and covariances of queries and keys alone; the others are
        computed in tiles of query rows. None of them forms the query x key map.
    """

    name: str
    code: str
    side: str
    sign: int
    formula: str
    closed_form: bool = False


READINGS = {
    item.name: item
    for item in (
        Reading("logit_key_mean", "R1", "query", -1, "mean_j z_ij", closed_form=True),
        Reading("received", "R2", "key", -1, "M mean_i p_ij"),
        Reading("entropy", "R3", "query", 1, "-sum_j p_ij log p_ij / log M"),
        Reading("peak_complement", "R3a", "query", 1, "1 - max_j p_ij"),
        Reading("collision_complement", "R3b", "query", 1, "1 - sum_j p_ij^2"),
        Reading("logit_query_mean", "R4", "key", -1, "mean_i z_ij", closed_form=True),
        Reading("pose_complement", "R6", "query", -1, "(1 - p_i,pose) / (M - 1)"),
        Reading("logit_key_std", "R7", "query", 1, "std_j z_ij", closed_form=True),
        Reading("maxpool_similarity", "R8", "query", -1, "max_j z_ij"),
    )
}
"""Readings of one frame's attention."""

INSTABILITY = "instability"
"""R5: standard deviation over frames of another reading at the same patch; high is dynamic."""

MASK = "mask"
"""A variable of the sequence instead of attention: ground truth, or any mask of the caller's."""

STEADY = ("logit_key_mean", "received", "logit_query_mean")
"""Readings whose instability is defined."""

CUE_SITES = ("image_self", "image_to_state", "state_to_image", "encoder_self", "head_self")
"""Site kinds with image patches on at least one side."""

_CONSTANT = ("weight_key_mean", "literal")


def check_reading(name: str) -> None:
    """Refuse a reading that does not exist, or that cannot carry a cue.

    Raises
    ------
    InvalidArgument
    """
    if name in _CONSTANT:
        raise InvalidArgument(
            "averaging attention weights over their keys is a cue without contrast: a softmax row "
            "sums to 1, so the average is 1 / keys for every patch, and gates built on it change "
            "nothing (normalising it would amplify rounding noise into a random mask). Average "
            "logits instead (reading='logit_key_mean'), or read the row's shape ('entropy') or "
            "the column ('received')"
        )
    if name not in (*READINGS, INSTABILITY, MASK):
        raise InvalidArgument(
            f"unknown reading {name!r}; known: {', '.join((*READINGS, INSTABILITY, MASK))}"
        )


def check_site(reading: Reading, site: str) -> None:
    """Refuse a site at which a reading does not describe image patches.

    Raises
    ------
    InvalidArgument
    """
    allowed = [kind for kind in CUE_SITES if describes_patches(reading, kind)]
    if site not in allowed:
        raise InvalidArgument(
            f"reading {reading.name!r} describes the {reading.side} side of a site, which at "
            f"{site!r} does not hold image patches (or lacks what the reading needs); "
            f"use one of {', '.join(allowed)}"
        )


def describes_patches(reading: Reading, site: str) -> bool:
    """Whether a reading at a site kind gives one number per image patch."""
    kind = SITE_KINDS[site]
    if reading.name == "pose_complement":
        return kind.queries == kind.keys == "image"
    return (kind.queries if reading.side == "query" else kind.keys) in ("image", "patches")
