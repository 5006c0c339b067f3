"""Scores of runs under named protocols, for our runs and for predictions that other code wrote."""

from typing import TYPE_CHECKING

from mut3r_analysis.lazy import lazy_names

if TYPE_CHECKING:
    from mut3r_analysis.evaluation.pairing import paired
    from mut3r_analysis.evaluation.predictions import import_predictions
    from mut3r_analysis.evaluation.scores import evaluate
    from mut3r_analysis.evaluation.tables import table

__all__ = ["evaluate", "import_predictions", "paired", "table"]

__getattr__ = lazy_names(
    __name__,
    {
        "evaluate": "mut3r_analysis.evaluation.scores",
        "import_predictions": "mut3r_analysis.evaluation.predictions",
        "paired": "mut3r_analysis.evaluation.pairing",
        "table": "mut3r_analysis.evaluation.tables",
    },
)
