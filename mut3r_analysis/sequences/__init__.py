"""Sequences: ordered frames, with whatever ground truth exists, as one lazy xarray Dataset."""

from mut3r_analysis.sequences.model import check_sequence
from mut3r_analysis.sequences.opening import open_sequence

__all__ = ["check_sequence", "open_sequence"]
