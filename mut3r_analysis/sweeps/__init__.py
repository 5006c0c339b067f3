"""Sweeps: many runs as one labelled result, resumable, on one machine or a cluster."""

from typing import TYPE_CHECKING

from mut3r_analysis.lazy import lazy_names

if TYPE_CHECKING:
    from mut3r_analysis.sweeps.pricing import SweepPlan, plan
    from mut3r_analysis.sweeps.results import gather, open_sweep
    from mut3r_analysis.sweeps.sweeping import sweep

__all__ = ["SweepPlan", "gather", "open_sweep", "plan", "sweep"]

__getattr__ = lazy_names(
    __name__,
    {
        "SweepPlan": "mut3r_analysis.sweeps.pricing",
        "gather": "mut3r_analysis.sweeps.results",
        "open_sweep": "mut3r_analysis.sweeps.results",
        "plan": "mut3r_analysis.sweeps.pricing",
        "sweep": "mut3r_analysis.sweeps.sweeping",
    },
)
