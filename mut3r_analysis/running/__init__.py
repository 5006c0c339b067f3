"""Runs: one backbone on one sequence, priced, streamed to a store, opened again."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

_HOME = {
    "Plan": "mut3r_analysis.running.planning",
    "open_run": "mut3r_analysis.running.opening",
    "plan": "mut3r_analysis.running.planning",
    "run": "mut3r_analysis.running.streaming",
}

__all__ = list(_HOME)  # noqa: PLE0605

if TYPE_CHECKING:
    from mut3r_analysis.running.opening import open_run
    from mut3r_analysis.running.planning import Plan, plan
    from mut3r_analysis.running.streaming import run


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(import_module(_HOME[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
