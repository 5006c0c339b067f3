"""Metrics and the protocols that make their numbers comparable.

Array functions take plain arrays and work in float64; the ``score_...`` functions take labelled
data and return a Dataset that holds the alignment next to the scores.
"""

from mut3r_analysis.metrics.alignment import ALIGNMENTS, DepthAlignment, align_depth
from mut3r_analysis.metrics.bootstrap import (
    Interval,
    PairedComparison,
    bootstrap_frames,
    bootstrap_sequences,
    compare_paired,
)
from mut3r_analysis.metrics.catalogue import PROTOCOLS, protocol, protocols
from mut3r_analysis.metrics.depth import depth_metrics, score_depth, valid_depth
from mut3r_analysis.metrics.errors import UndefinedMetric
from mut3r_analysis.metrics.protocols import FrameSelection, Protocol
from mut3r_analysis.metrics.reconstruction import (
    check_reconstruction,
    point_distances,
    score_reconstruction,
)
from mut3r_analysis.metrics.reductions import Average, average_sequences
from mut3r_analysis.metrics.segmentation import (
    boundary_accuracy,
    region_similarity,
    roc_auc,
    score_masks,
)
from mut3r_analysis.metrics.similarity import Similarity, fit_similarity
from mut3r_analysis.metrics.trajectory import (
    absolute_errors,
    compare_trajectories,
    relative_errors,
    score_trajectory,
)
from mut3r_analysis.metrics.trajectory_files import Trajectory, associate, read_trajectory

__all__ = [
    "ALIGNMENTS",
    "PROTOCOLS",
    "Average",
    "DepthAlignment",
    "FrameSelection",
    "Interval",
    "PairedComparison",
    "Protocol",
    "Similarity",
    "Trajectory",
    "UndefinedMetric",
    "absolute_errors",
    "align_depth",
    "associate",
    "average_sequences",
    "bootstrap_frames",
    "bootstrap_sequences",
    "boundary_accuracy",
    "check_reconstruction",
    "compare_paired",
    "compare_trajectories",
    "depth_metrics",
    "fit_similarity",
    "point_distances",
    "protocol",
    "protocols",
    "read_trajectory",
    "region_similarity",
    "relative_errors",
    "roc_auc",
    "score_depth",
    "score_masks",
    "score_reconstruction",
    "score_trajectory",
    "valid_depth",
]
