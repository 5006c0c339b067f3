"""Figures: labelled data in, a matplotlib figure out, no global state touched.

Those of a run take it first, name the reduction they apply and state their source. Those of a
study (``interval_dots``, ``curves``, ``matrix``) take its labelled results. All label axes and
colour bars from the data's own ``long_name`` and ``units``, and show themselves in notebooks;
nothing here uses pyplot.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

_HOME = {
    "camera_path": "mut3r_analysis.figures.camera",
    "curves": "mut3r_analysis.figures.lines",
    "depth_maps": "mut3r_analysis.figures.depth",
    "interval_dots": "mut3r_analysis.figures.intervals",
    "layer_heads": "mut3r_analysis.figures.layers",
    "matrix": "mut3r_analysis.figures.cells",
    "overlay": "mut3r_analysis.figures.patches",
    "save": "mut3r_analysis.figures.saving",
    "state_updates": "mut3r_analysis.figures.state",
    "style": "mut3r_analysis.figures.styling",
    "timing": "mut3r_analysis.figures.clock",
}

__all__ = [
    "camera_path",
    "curves",
    "depth_maps",
    "interval_dots",
    "layer_heads",
    "matrix",
    "overlay",
    "save",
    "state_updates",
    "style",
    "timing",
]

if TYPE_CHECKING:
    from mut3r_analysis.figures.camera import camera_path
    from mut3r_analysis.figures.cells import matrix
    from mut3r_analysis.figures.clock import timing
    from mut3r_analysis.figures.depth import depth_maps
    from mut3r_analysis.figures.intervals import interval_dots
    from mut3r_analysis.figures.layers import layer_heads
    from mut3r_analysis.figures.lines import curves
    from mut3r_analysis.figures.patches import overlay
    from mut3r_analysis.figures.saving import save
    from mut3r_analysis.figures.state import state_updates
    from mut3r_analysis.figures.styling import style


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(import_module(_HOME[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
