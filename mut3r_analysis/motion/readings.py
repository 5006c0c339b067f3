"""Readings: the ways in which attention, or a mask, becomes one number per patch."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mut3r_analysis.attention.sites import PATCH_STREAMS, SITE_KINDS
from mut3r_analysis.attention.statistics import STATISTICS, Statistic, compute
from mut3r_analysis.errors import InvalidArgument
from mut3r_analysis.foundation.fields import one_of
from mut3r_analysis.motion.cross_frame import CROSS_FRAME
from mut3r_analysis.motion.ray_map import RAY_MAP

if TYPE_CHECKING:
    from torch import Tensor

    from mut3r_analysis.attention.tokens import TokenAxis

_COLLISION = Statistic(
    "collision", "query", "sum of the squared attention weights", "1",
    of_tile=lambda tile: tile.p.square().sum(dim=-1),
)  # fmt: skip
_MAX_LOGIT = Statistic("max_logit", "query", "largest logit", "nat", of_tile=lambda tile: tile.peak)


@dataclass(frozen=True)
class Reading:
    """One reading: a statistic of attention, and how it becomes evidence of motion.

    Attributes
    ----------
    name, code : str
        The code is the one used in comparisons of readings (R1 ... R8; R3a and R3b are variants).
    statistic : Statistic
        What is measured; its side is the tokens that the reading describes.
    sign : {1, -1}
        +1 where a high value indicates motion, -1 where a low one does.
    formula, units : str
        z are logits, p weights, i queries, j keys, M the number of keys.
    convert : callable
        From the statistic and the number M of keys, those left out not counted.
    """

    name: str
    code: str
    statistic: Statistic
    sign: int
    formula: str
    units: str
    convert: Callable[[Tensor, int], Tensor] = lambda values, keys: values

    @property
    def side(self) -> str:
        """The tokens it describes, "query" or "key"; the other side is reduced."""
        return self.statistic.side

    @property
    def closed_form(self) -> bool:
        """Whether it follows from means and covariances of queries and keys alone."""
        return self.statistic.closed_form


READINGS = {
    item.name: item
    for item in (
        Reading("logit_key_mean", "R1", STATISTICS["logit_mean"], -1, "mean_j z_ij", "nat"),
        Reading(
            "received", "R2", STATISTICS["received"], -1, "M mean_i p_ij", "1",
            lambda values, keys: values * keys,
        ),
        Reading(
            "entropy", "R3", STATISTICS["entropy"], 1, "-sum_j p_ij log p_ij / log M", "1",
            lambda values, keys: values / math.log(keys),
        ),
        Reading(
            "peak_complement", "R3a", STATISTICS["max_weight"], 1, "1 - max_j p_ij", "1",
            lambda values, keys: 1 - values,
        ),
        Reading(
            "collision_complement", "R3b", _COLLISION, 1, "1 - sum_j p_ij^2", "1",
            lambda values, keys: 1 - values,
        ),
        Reading("logit_query_mean", "R4", STATISTICS["received_logit"], -1, "mean_i z_ij", "nat"),
        Reading(
            "pose_complement", "R6", STATISTICS["pose_weight"], -1, "(1 - p_i,pose) / (M - 1)", "1",
            lambda values, keys: (1 - values) / (keys - 1),
        ),
        Reading(
            "logit_key_std", "R7", STATISTICS["logit_variance"], 1, "std_j z_ij", "nat",
            lambda values, keys: values.sqrt(),
        ),
        Reading("maxpool_similarity", "R8", _MAX_LOGIT, -1, "max_j z_ij", "nat"),
    )
}  # fmt: skip
"""Readings of one frame's attention. None of them forms the query x key map."""

INSTABILITY = "instability"
"""R5: standard deviation over frames of another reading at the same patch; high is dynamic."""

MASK = "mask"
"""A variable of the sequence instead of attention: ground truth, or any mask of the caller's."""

STEADY = ("logit_key_mean", "received", "logit_query_mean")
"""Readings whose instability is defined."""

_CONSTANT = ("weight_key_mean", "literal")


def cue_sites() -> tuple[str, ...]:
    """Return the kinds of site with image patches on at least one side, which a cue may read."""
    return tuple(
        kind.name
        for kind in SITE_KINDS.values()
        if kind.captured and {kind.queries, kind.keys} & set(PATCH_STREAMS)
    )


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
    one_of("reading", name, (*READINGS, *CROSS_FRAME, INSTABILITY, MASK, RAY_MAP))


def check_site(reading: Reading, site: str) -> None:
    """Refuse a site at which a reading does not describe image patches.

    Raises
    ------
    InvalidArgument
    """
    allowed = [kind for kind in cue_sites() if describes_patches(reading, kind)]
    if site not in allowed:
        raise InvalidArgument(
            f"reading {reading.name!r} describes the {reading.side} side of a site, which at "
            f"{site!r} does not hold image patches (or lacks what the reading needs); "
            f"use one of {', '.join(allowed)}"
        )


def check_cross_frame(reading: str, site: str) -> None:
    """Refuse a site at which a reading across frames does not compare image patches.

    Raises
    ------
    InvalidArgument
    """
    row, allowed = CROSS_FRAME[reading], []
    for name in cue_sites():
        streams = {"query": SITE_KINDS[name].queries, "key": SITE_KINDS[name].keys}
        if {streams[row.own], streams[row.other]} <= set(PATCH_STREAMS):
            allowed.append(name)
    if site not in allowed:
        raise InvalidArgument(
            f"reading {reading!r} compares image patches of frames, which {site!r} does not hold "
            f"on the sides it needs; use one of {', '.join(allowed)}"
        )


def units_of(reading: str) -> str:
    """Return the units of a reading, within a frame or across frames."""
    return CROSS_FRAME[reading].units if reading in CROSS_FRAME else READINGS[reading].units


def describes_patches(reading: Reading, site: str) -> bool:
    """Whether a reading at a site kind gives one number per image patch."""
    kind = SITE_KINDS[site]
    if reading.statistic.needs_pose:
        return site == "image_self"  # the one whose keys hold a pose token
    return (kind.queries if reading.side == "query" else kind.keys) in PATCH_STREAMS


def patch_values(
    reading: str,
    q: Tensor,
    k: Tensor,
    queries: TokenAxis,
    keys: TokenAxis,
    *,
    pose: bool = True,
    diagonal: bool = True,
) -> Tensor:
    """Take a reading at one site, for the patches on the side that it describes.

    Parameters
    ----------
    reading : str
        Key of :data:`READINGS`.
    q, k : Tensor
        ``(batch, head, query | key, channel)``, after rotary embedding and before scaling.
    queries, keys : TokenAxis
        What they are.
    pose : bool
        Whether special tokens of the image take part; without them the site is read as if they
        were absent.
    diagonal : bool
        Whether entries of a token with itself take part.

    Returns
    -------
    Tensor
        ``(batch, head, patch)``, float32 (float64 for float64 inputs).
    """
    row = READINGS[reading]
    own = queries if row.side == "query" else keys
    if not pose:
        q = q[..., queries.patches, :] if queries.holds_patches else q
        k = k[..., keys.patches, :] if keys.holds_patches else k
    pose_key = keys.first("pose") if pose else None
    found = compute([row.statistic], q, k, pose_key=pose_key, diagonal=diagonal)
    values = row.convert(found[row.statistic.name], _counted(row, k, diagonal))
    return values[..., own.patches] if pose else values


def _counted(row: Reading, k: Tensor, diagonal: bool) -> int:
    """Keys among which a query's weights are shared out; shares received are relative to all."""
    return k.shape[-2] - (not diagonal and row.side == "query")
