"""Sites: every attention operation of a backbone has a name and a known token layout."""

from dataclasses import dataclass

from mut3r_analysis.errors import InvalidArgument


@dataclass(frozen=True)
class SiteKind:
    """What the queries and the keys of one kind of site are.

    Attributes
    ----------
    name : str
        For example ``"state_to_image"``: state queries read image keys.
    queries, keys : str
        Token streams: ``"image"`` (one pose token, then patches row by row), ``"patches"``
        (patches only), ``"state"``, ``"memory"`` (pose-memory slots) or ``"summary"`` (the single
        token with which the pose memory is read and written).
    """

    name: str
    queries: str
    keys: str


SITE_KINDS = {
    kind.name: kind
    for kind in (
        SiteKind("image_self", "image", "image"),
        SiteKind("image_to_state", "image", "state"),
        SiteKind("state_self", "state", "state"),
        SiteKind("state_to_image", "state", "image"),
        SiteKind("encoder_self", "patches", "patches"),
        SiteKind("ray_encoder_self", "patches", "patches"),
        SiteKind("head_self", "patches", "patches"),
        SiteKind("value_self", "patches", "patches"),
        SiteKind("memory_read_self", "summary", "summary"),
        SiteKind("memory_read", "summary", "memory"),
        SiteKind("memory_write_self", "memory", "memory"),
        SiteKind("memory_write", "memory", "summary"),
    )
}

DECODER_KINDS = ("image_self", "image_to_state", "state_self", "state_to_image")
"""The four sites of a decoder layer; ``state_to_image`` is the one that updates the memory."""

CAPTURED_KINDS = (*DECODER_KINDS, "encoder_self", "head_self")
"""Kinds that a :class:`~mut3r_analysis.attention.Capture` may name."""


@dataclass(frozen=True, order=True)
class Site:
    """One attention operation: a kind and a 0-based layer."""

    kind: str
    layer: int

    def __post_init__(self) -> None:
        if self.kind not in SITE_KINDS:
            raise InvalidArgument(
                f"unknown site kind {self.kind!r}; known: {', '.join(SITE_KINDS)}"
            )

    def __str__(self) -> str:
        return f"{self.kind}.{self.layer}"
