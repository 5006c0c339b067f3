"""A microscope for streaming 3D transformers.

Names are loaded on first use, so that importing the package costs milliseconds: torch and
matplotlib are imported by what needs them.
"""

from typing import TYPE_CHECKING

from mut3r_analysis.lazy import lazy_names

if TYPE_CHECKING:
    from mut3r_analysis import (
        attention,
        backbones,
        errors,
        evaluation,
        figures,
        metrics,
        motion,
        running,
        scenes,
        sequences,
        studies,
        sweeps,
        widgets,
    )
    from mut3r_analysis.attention import Capture
    from mut3r_analysis.backbones import load_backbone
    from mut3r_analysis.evaluation import evaluate, import_predictions, paired, table
    from mut3r_analysis.literature import compare, conflicts, headlines, published
    from mut3r_analysis.motion import Cue, Gate
    from mut3r_analysis.running import Commit, Configuration, fork, open_run, run, run_batch
    from mut3r_analysis.sequences import check_dataset, export_sequence, open_sequence
    from mut3r_analysis.sweeps import open_sweep, plan, sweep

__version__ = "0.1.0"

__all__ = [
    "Capture",
    "Commit",
    "Configuration",
    "Cue",
    "Gate",
    "__version__",
    "attention",
    "backbones",
    "check_dataset",
    "compare",
    "conflicts",
    "errors",
    "evaluate",
    "evaluation",
    "export_sequence",
    "figures",
    "fork",
    "headlines",
    "import_predictions",
    "load_backbone",
    "metrics",
    "motion",
    "open_run",
    "open_sequence",
    "open_sweep",
    "paired",
    "plan",
    "published",
    "run",
    "run_batch",
    "running",
    "scenes",
    "sequences",
    "studies",
    "sweep",
    "sweeps",
    "table",
    "widgets",
]

__getattr__ = lazy_names(
    __name__,
    {
        "Capture": "mut3r_analysis.attention",
        "Commit": "mut3r_analysis.running",
        "Configuration": "mut3r_analysis.running",
        "Cue": "mut3r_analysis.motion",
        "Gate": "mut3r_analysis.motion",
        "attention": "mut3r_analysis.attention",
        "backbones": "mut3r_analysis.backbones",
        "check_dataset": "mut3r_analysis.sequences",
        "compare": "mut3r_analysis.literature",
        "conflicts": "mut3r_analysis.literature",
        "errors": "mut3r_analysis.errors",
        "evaluate": "mut3r_analysis.evaluation",
        "evaluation": "mut3r_analysis.evaluation",
        "export_sequence": "mut3r_analysis.sequences",
        "figures": "mut3r_analysis.figures",
        "fork": "mut3r_analysis.running",
        "headlines": "mut3r_analysis.literature",
        "import_predictions": "mut3r_analysis.evaluation",
        "load_backbone": "mut3r_analysis.backbones",
        "metrics": "mut3r_analysis.metrics",
        "motion": "mut3r_analysis.motion",
        "open_run": "mut3r_analysis.running",
        "open_sequence": "mut3r_analysis.sequences",
        "open_sweep": "mut3r_analysis.sweeps",
        "paired": "mut3r_analysis.evaluation",
        "plan": "mut3r_analysis.sweeps",
        "published": "mut3r_analysis.literature",
        "run": "mut3r_analysis.running",
        "run_batch": "mut3r_analysis.running",
        "running": "mut3r_analysis.running",
        "scenes": "mut3r_analysis.scenes",
        "sequences": "mut3r_analysis.sequences",
        "studies": "mut3r_analysis.studies",
        "sweep": "mut3r_analysis.sweeps",
        "sweeps": "mut3r_analysis.sweeps",
        "table": "mut3r_analysis.evaluation",
        "widgets": "mut3r_analysis.widgets",
    },
)


def __dir__() -> list[str]:
    return __all__
