"""Runs: one backbone on one sequence, priced, streamed to a store, opened again."""

from typing import TYPE_CHECKING

from mut3r_analysis.lazy import lazy_names

if TYPE_CHECKING:
    from mut3r_analysis.running.opening import open_run
    from mut3r_analysis.running.planning import Plan, plan
    from mut3r_analysis.running.streaming import run

__all__ = [
    "Plan",
    "open_run",
    "plan",
    "run",
]

__getattr__ = lazy_names(
    __name__,
    {
        "Plan": "mut3r_analysis.running.planning",
        "open_run": "mut3r_analysis.running.opening",
        "plan": "mut3r_analysis.running.planning",
        "run": "mut3r_analysis.running.streaming",
    },
)
