"""The attention seam: named sites, statistics without maps, and what a run records of them."""

from typing import TYPE_CHECKING

from mut3r_analysis.lazy import lazy_names

if TYPE_CHECKING:
    from mut3r_analysis.attention.capture import Capture
    from mut3r_analysis.attention.catalogue import STATISTICS
    from mut3r_analysis.attention.recorder import Recorder
    from mut3r_analysis.attention.seam import attend, logits
    from mut3r_analysis.attention.sites import DECODER_KINDS, SITE_KINDS, Site
    from mut3r_analysis.attention.statistics import site_statistics

__all__ = [
    "DECODER_KINDS",
    "SITE_KINDS",
    "STATISTICS",
    "Capture",
    "Recorder",
    "Site",
    "attend",
    "logits",
    "site_statistics",
]

__getattr__ = lazy_names(
    __name__,
    {
        "Capture": "mut3r_analysis.attention.capture",
        "DECODER_KINDS": "mut3r_analysis.attention.sites",
        "Recorder": "mut3r_analysis.attention.recorder",
        "SITE_KINDS": "mut3r_analysis.attention.sites",
        "STATISTICS": "mut3r_analysis.attention.catalogue",
        "Site": "mut3r_analysis.attention.sites",
        "attend": "mut3r_analysis.attention.seam",
        "logits": "mut3r_analysis.attention.seam",
        "site_statistics": "mut3r_analysis.attention.statistics",
    },
)
