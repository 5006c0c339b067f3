"""Sequences of published data sets: loading, writing and checking them in their own layouts."""

from typing import TYPE_CHECKING

from mut3r_analysis.lazy import lazy_names

if TYPE_CHECKING:
    from mut3r_analysis.sequences.layouts.catalogue import LAYOUTS
    from mut3r_analysis.sequences.layouts.check import check_dataset
    from mut3r_analysis.sequences.layouts.export import export_sequence

__all__ = ["LAYOUTS", "check_dataset", "export_sequence"]

__getattr__ = lazy_names(
    __name__,
    {
        "LAYOUTS": "mut3r_analysis.sequences.layouts.catalogue",
        "check_dataset": "mut3r_analysis.sequences.layouts.check",
        "export_sequence": "mut3r_analysis.sequences.layouts.export",
    },
)
