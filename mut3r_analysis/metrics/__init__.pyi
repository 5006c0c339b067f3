from .alignment import (
    ALIGNMENTS as ALIGNMENTS,
)
from .alignment import (
    DepthAlignment as DepthAlignment,
)
from .alignment import (
    align_depth as align_depth,
)
from .bootstrap import (
    Interval as Interval,
)
from .bootstrap import (
    PairedComparison as PairedComparison,
)
from .bootstrap import (
    bootstrap_frames as bootstrap_frames,
)
from .bootstrap import (
    bootstrap_sequences as bootstrap_sequences,
)
from .bootstrap import (
    compare_paired as compare_paired,
)
from .bootstrap import (
    sequences_needed as sequences_needed,
)
from .catalogue import (
    DEFAULT as DEFAULT,
)
from .catalogue import (
    PROTOCOLS as PROTOCOLS,
)
from .catalogue import (
    list_protocols as list_protocols,
)
from .catalogue import (
    protocol as protocol,
)
from .depth import (
    depth_metrics as depth_metrics,
)
from .depth import (
    score_depth as score_depth,
)
from .depth import (
    valid_depth as valid_depth,
)
from .errors import UndefinedMetric as UndefinedMetric
from .metric import Metric as Metric
from .multiview import compare_clouds as compare_clouds
from .multiview import score_multiview as score_multiview
from .protocols import METRICS as METRICS
from .protocols import FrameSelection as FrameSelection
from .protocols import Protocol as Protocol
from .protocols import find_metric as find_metric
from .reconstruction import (
    check_reconstruction as check_reconstruction,
)
from .reconstruction import (
    point_distances as point_distances,
)
from .reconstruction import (
    score_reconstruction as score_reconstruction,
)
from .reductions import Average as Average
from .reductions import average_sequences as average_sequences
from .segmentation import (
    boundary_accuracy as boundary_accuracy,
)
from .segmentation import (
    region_similarity as region_similarity,
)
from .segmentation import (
    roc_auc as roc_auc,
)
from .segmentation import (
    score_masks as score_masks,
)
from .similarity import Similarity as Similarity
from .similarity import fit_similarity as fit_similarity
from .temporal import score_temporal as score_temporal
from .tracks import score_tracks as score_tracks
from .trajectory import (
    absolute_errors as absolute_errors,
)
from .trajectory import (
    compare_trajectories as compare_trajectories,
)
from .trajectory import (
    relative_errors as relative_errors,
)
from .trajectory import (
    score_trajectory as score_trajectory,
)
from .trajectory_files import (
    Trajectory as Trajectory,
)
from .trajectory_files import (
    associate as associate,
)
from .trajectory_files import (
    detect_order as detect_order,
)
from .trajectory_files import (
    read_trajectory as read_trajectory,
)
