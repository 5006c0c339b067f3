"""The attention seam: named sites, statistics without maps, and what a run records of them."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

_HOME = {
    "Capture": "mut3r_analysis.attention.capture",
    "DECODER_KINDS": "mut3r_analysis.attention.sites",
    "Recorder": "mut3r_analysis.attention.recorder",
    "SITE_KINDS": "mut3r_analysis.attention.sites",
    "STATISTICS": "mut3r_analysis.attention.catalogue",
    "Site": "mut3r_analysis.attention.sites",
    "attend": "mut3r_analysis.attention.seam",
    "logits": "mut3r_analysis.attention.seam",
    "site_statistics": "mut3r_analysis.attention.statistics",
}

__all__ = list(_HOME)  # noqa: PLE0605

if TYPE_CHECKING:
    from mut3r_analysis.attention.capture import Capture
    from mut3r_analysis.attention.catalogue import STATISTICS
    from mut3r_analysis.attention.recorder import Recorder
    from mut3r_analysis.attention.seam import attend, logits
    from mut3r_analysis.attention.sites import DECODER_KINDS, SITE_KINDS, Site
    from mut3r_analysis.attention.statistics import site_statistics


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(import_module(_HOME[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
