"""Runs: one backbone on one sequence, priced, streamed to a store, opened again."""

from typing import TYPE_CHECKING

from mut3r_analysis.lazy import lazy_names

if TYPE_CHECKING:
    from mut3r_analysis.running.commit import Commit
    from mut3r_analysis.running.configuration import Configuration
    from mut3r_analysis.running.forking import fork
    from mut3r_analysis.running.opening import open_run
    from mut3r_analysis.running.planning import Plan, plan
    from mut3r_analysis.running.streaming import run, run_batch

__all__ = [
    "Commit",
    "Configuration",
    "Plan",
    "fork",
    "open_run",
    "plan",
    "run",
    "run_batch",
]

__getattr__ = lazy_names(
    __name__,
    {
        "Commit": "mut3r_analysis.running.commit",
        "Configuration": "mut3r_analysis.running.configuration",
        "Plan": "mut3r_analysis.running.planning",
        "fork": "mut3r_analysis.running.forking",
        "open_run": "mut3r_analysis.running.opening",
        "plan": "mut3r_analysis.running.planning",
        "run": "mut3r_analysis.running.streaming",
        "run_batch": "mut3r_analysis.running.streaming",
    },
)
