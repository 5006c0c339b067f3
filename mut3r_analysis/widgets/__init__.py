"""Explorers for notebooks: click a patch, see who looks at it; click a number, see why.

An explorer asks Python for one row, frame or map at a time, over the notebook's own connection: no
server, nothing fetched from elsewhere, and a page that does not grow with the run. Each has
``figure()`` for papers and ``save_html(path)`` for readers without a kernel.
"""

from typing import TYPE_CHECKING

from mut3r_analysis.lazy import lazy_names

if TYPE_CHECKING:
    from mut3r_analysis.widgets.attention_explorer import AttentionExplorer
    from mut3r_analysis.widgets.attention_rows import AttentionRows
    from mut3r_analysis.widgets.cloud_files import write_glb, write_ply
    from mut3r_analysis.widgets.failure_explorer import FailureExplorer
    from mut3r_analysis.widgets.gate_playground import GatePlayground
    from mut3r_analysis.widgets.scene_view import SceneView

__all__ = [
    "AttentionExplorer",
    "AttentionRows",
    "FailureExplorer",
    "GatePlayground",
    "SceneView",
    "write_glb",
    "write_ply",
]

__getattr__ = lazy_names(
    __name__,
    {
        "AttentionExplorer": "mut3r_analysis.widgets.attention_explorer",
        "AttentionRows": "mut3r_analysis.widgets.attention_rows",
        "FailureExplorer": "mut3r_analysis.widgets.failure_explorer",
        "GatePlayground": "mut3r_analysis.widgets.gate_playground",
        "SceneView": "mut3r_analysis.widgets.scene_view",
        "write_glb": "mut3r_analysis.widgets.cloud_files",
        "write_ply": "mut3r_analysis.widgets.cloud_files",
    },
)


def __dir__() -> list[str]:
    return __all__
