"""Sequences: ordered frames, with whatever ground truth exists, as one lazy xarray Dataset."""

from typing import TYPE_CHECKING

from mut3r_analysis.lazy import lazy_names

if TYPE_CHECKING:
    from mut3r_analysis.sequences.layouts import check_dataset, export_sequence
    from mut3r_analysis.sequences.model import check_sequence
    from mut3r_analysis.sequences.opening import open_sequence

__all__ = [
    "check_dataset",
    "check_sequence",
    "export_sequence",
    "open_sequence",
]

__getattr__ = lazy_names(
    __name__,
    {
        "check_dataset": "mut3r_analysis.sequences.layouts",
        "check_sequence": "mut3r_analysis.sequences.model",
        "export_sequence": "mut3r_analysis.sequences.layouts",
        "open_sequence": "mut3r_analysis.sequences.opening",
    },
)
