"""Names a caller chooses among, where a command can list them without importing any arithmetic."""

ALIGN_KINDS = ("sim3", "se3", "none")
"""Alignments of a camera path: rotation, translation and scale; without scale; nothing."""

CLOUD_ALIGNMENTS = ("median_icp",)
"""Alignments of the cloud of a static scene: scale and shift from medians, then rigid ICP."""

TRACK_ALIGNMENTS = (*ALIGN_KINDS, "sim3_points")
"""Alignments of tracked points: those of the camera path, or a Sim(3) fitted on the points."""

ORDERS = ("xyzw", "wxyz")
"""Orders of the four numbers of a quaternion in a file."""
