"""Sites: every attention operation of a backbone has a name and known tokens on both sides."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple, Self

from mut3r_analysis.errors import InvalidArgument
from mut3r_analysis.foundation.fields import meant


@dataclass(frozen=True)
class SiteKind:
    """One kind of site, read query -> key.

    Attributes
    ----------
    name : str
        For example ``"state_to_image"``: state queries read image keys.
    queries, keys : str
        Token streams; which tokens they hold is the backbone's word
        (:meth:`~mut3r_analysis.backbones.Backbone.axes`).
    part : {"decoder", "encoder", "head", "memory"}
        The part of a model that it belongs to. A capture takes the decoder's unless told.
    captured : bool
        Whether it is passed exactly once per layer in every frame, so that a capture may name it.
        What a frame by its nature lacks, the backbone says
        (:meth:`~mut3r_analysis.backbones.Backbone.unpassed`).
    plain : bool
        Whether it computes a softmax over values and nothing more, so that a gate may stand for it.
    """

    name: str
    queries: str
    keys: str
    part: str = "decoder"
    captured: bool = True
    plain: bool = True


SITE_KINDS = {
    kind.name: kind
    for kind in (
        SiteKind("image_self", "image", "image"),
        SiteKind("image_to_state", "image", "state"),
        SiteKind("state_self", "state", "state"),
        SiteKind("state_to_image", "state", "image"),
        SiteKind("view1_self", "patches", "patches"),
        SiteKind("view1_to_view2", "patches", "partner"),
        SiteKind("view2_self", "partner", "partner"),
        SiteKind("view2_to_view1", "partner", "patches"),
        SiteKind("anchored_view1_self", "partner", "partner"),
        SiteKind("anchored_view1_to_view2", "partner", "patches"),
        SiteKind("anchored_view2_self", "patches", "patches"),
        SiteKind("anchored_view2_to_view1", "patches", "partner"),
        SiteKind("bank_read", "patches", "bank", plain=False),
        SiteKind("frame_self", "image", "image"),
        SiteKind("global_self", "image", "frames"),
        SiteKind("encoder_self", "patches", "patches", "encoder"),
        SiteKind("ray_encoder_self", "patches", "patches", "encoder", captured=False),
        SiteKind("head_self", "patches", "patches", "head"),
        SiteKind("value_self", "patches", "patches", "memory"),
        SiteKind("camera_self", "camera", "camera", "head", captured=False),
        SiteKind("memory_read_self", "summary", "summary", "memory", captured=False),
        SiteKind("memory_read", "summary", "memory", "memory", captured=False),
        SiteKind("memory_write_self", "memory", "memory", "memory", captured=False),
        SiteKind("memory_write", "memory", "summary", "memory", captured=False),
    )
}

PATCH_STREAMS = ("image", "patches")
"""Streams that hold the patches of the frame at hand. View 1 of a pair is that frame; the patches
of view 2, the stream ``partner``, are of another one. In a pair at ``anchored_...`` it is view 2,
and view 1 is the frame in whose camera the world is."""

DECODER_KINDS = ("image_self", "image_to_state", "state_self", "state_to_image")
"""The four sites of a decoder layer of CUT3R and Point3R; ``state_to_image`` updates the state."""


@dataclass(frozen=True, order=True)
class Site:
    """One attention operation: a kind and a 0-based layer."""

    kind: str
    layer: int

    def __post_init__(self) -> None:
        if self.kind not in SITE_KINDS:
            raise InvalidArgument(
                f"unknown site kind {self.kind!r}{meant([self.kind], SITE_KINDS)}; known: "
                f"{', '.join(SITE_KINDS)}"
            )

    def __str__(self) -> str:
        return f"{self.kind}.{self.layer}"


class SiteSize(NamedTuple):
    """How many layers and heads a site kind has in a backbone, and how many channels a head."""

    layers: int
    heads: int
    channels: int

    @classmethod
    def of(cls, layers: int, heads: int, width: int) -> Self:
        """Return the size of sites whose heads share a width."""
        return cls(layers, heads, width // heads)


Sites = Mapping[str, SiteSize]
"""The kinds of site that a backbone has."""


def check_kinds(field: str, kinds: tuple[str, ...], sites: Sites) -> None:
    """Refuse kinds of site that a backbone lacks.

    Raises
    ------
    InvalidArgument
        Naming them, and those it has.
    """
    lacking = [kind for kind in kinds if kind not in sites]
    if lacking:
        raise InvalidArgument(
            f"{field} names {', '.join(lacking)}, which this backbone "
            f"lacks{meant(lacking, sites)}; it has: {', '.join(sites)}"
        )
