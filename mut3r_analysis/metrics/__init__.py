"""Metrics and the protocols that make their numbers comparable.

Array functions take plain arrays and work in float64; the ``score_...`` functions take labelled
data and return a Dataset that holds the alignment next to the scores.
"""

from typing import TYPE_CHECKING

from mut3r_analysis.lazy import lazy_names

if TYPE_CHECKING:
    from mut3r_analysis.metrics.alignment import ALIGNMENTS, DepthAlignment, align_depth
    from mut3r_analysis.metrics.bootstrap import (
        Interval,
        PairedComparison,
        bootstrap_frames,
        bootstrap_sequences,
        compare_paired,
        sequences_needed,
    )
    from mut3r_analysis.metrics.catalogue import DEFAULT, PROTOCOLS, list_protocols, protocol
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
    from mut3r_analysis.metrics.trajectory_files import (
        Trajectory,
        associate,
        detect_order,
        read_trajectory,
    )

__all__ = [
    "ALIGNMENTS",
    "DEFAULT",
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
    "detect_order",
    "fit_similarity",
    "list_protocols",
    "point_distances",
    "protocol",
    "read_trajectory",
    "region_similarity",
    "relative_errors",
    "roc_auc",
    "score_depth",
    "score_masks",
    "score_reconstruction",
    "score_trajectory",
    "sequences_needed",
    "valid_depth",
]

__getattr__ = lazy_names(
    __name__,
    {
        "ALIGNMENTS": "mut3r_analysis.metrics.alignment",
        "DEFAULT": "mut3r_analysis.metrics.catalogue",
        "PROTOCOLS": "mut3r_analysis.metrics.catalogue",
        "Average": "mut3r_analysis.metrics.reductions",
        "DepthAlignment": "mut3r_analysis.metrics.alignment",
        "FrameSelection": "mut3r_analysis.metrics.protocols",
        "Interval": "mut3r_analysis.metrics.bootstrap",
        "PairedComparison": "mut3r_analysis.metrics.bootstrap",
        "Protocol": "mut3r_analysis.metrics.protocols",
        "Similarity": "mut3r_analysis.metrics.similarity",
        "Trajectory": "mut3r_analysis.metrics.trajectory_files",
        "UndefinedMetric": "mut3r_analysis.metrics.errors",
        "absolute_errors": "mut3r_analysis.metrics.trajectory",
        "align_depth": "mut3r_analysis.metrics.alignment",
        "associate": "mut3r_analysis.metrics.trajectory_files",
        "average_sequences": "mut3r_analysis.metrics.reductions",
        "bootstrap_frames": "mut3r_analysis.metrics.bootstrap",
        "bootstrap_sequences": "mut3r_analysis.metrics.bootstrap",
        "boundary_accuracy": "mut3r_analysis.metrics.segmentation",
        "check_reconstruction": "mut3r_analysis.metrics.reconstruction",
        "compare_paired": "mut3r_analysis.metrics.bootstrap",
        "compare_trajectories": "mut3r_analysis.metrics.trajectory",
        "depth_metrics": "mut3r_analysis.metrics.depth",
        "detect_order": "mut3r_analysis.metrics.trajectory_files",
        "fit_similarity": "mut3r_analysis.metrics.similarity",
        "point_distances": "mut3r_analysis.metrics.reconstruction",
        "protocol": "mut3r_analysis.metrics.catalogue",
        "list_protocols": "mut3r_analysis.metrics.catalogue",
        "read_trajectory": "mut3r_analysis.metrics.trajectory_files",
        "region_similarity": "mut3r_analysis.metrics.segmentation",
        "relative_errors": "mut3r_analysis.metrics.trajectory",
        "roc_auc": "mut3r_analysis.metrics.segmentation",
        "score_depth": "mut3r_analysis.metrics.depth",
        "score_masks": "mut3r_analysis.metrics.segmentation",
        "score_reconstruction": "mut3r_analysis.metrics.reconstruction",
        "score_trajectory": "mut3r_analysis.metrics.trajectory",
        "sequences_needed": "mut3r_analysis.metrics.bootstrap",
        "valid_depth": "mut3r_analysis.metrics.depth",
    },
)
