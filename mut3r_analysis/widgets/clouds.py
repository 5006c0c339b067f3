"""Point clouds and camera frusta of a run, in the world of its first camera."""

from dataclasses import dataclass

import numpy as np
import xarray as xr

from mut3r_analysis.errors import InvalidArgument
from mut3r_analysis.figures.seen import true_poses

TRUTH = "truth"
"""Name under which the true cloud stands beside the runs."""


@dataclass(frozen=True, eq=False)
class Cloud:
    """Points of one frame.

    Attributes
    ----------
    positions : numpy.ndarray
        float32 ``(point, xyz)``, metres: x right, y down, z forward of the first camera.
    pixels : numpy.ndarray
        int64 ``(point,)``, where each comes from on the prediction grid, row by row.
    """

    positions: np.ndarray
    pixels: np.ndarray


NO_POINTS = Cloud(np.zeros((0, 3), np.float32), np.zeros(0, np.int64))


def predicted_cloud(
    run: xr.DataTree, frame: int, stride: int, least_confidence: float = 0.0
) -> Cloud:
    """Return the predicted points of a frame, every `stride`-th pixel along both axes.

    Parameters
    ----------
    run : xarray.DataTree
    frame : int
        Label.
    stride : int
    least_confidence : float
        Share in [0, 1) of the frame's least confident points that are left out.

    Raises
    ------
    InvalidArgument
        When the run holds no points of the world.
    """
    prediction = run["prediction"].to_dataset()
    if "points_world" not in prediction:
        raise InvalidArgument(
            "this run holds no points of the world; run again with outputs=None, or with "
            "outputs=('pose', 'points_world') or more"
        )
    points = prediction["points_world"].sel(frame=frame).transpose("y", "x", "xyz").values
    keep = _grid(points.shape[:2], stride) & np.isfinite(points).all(-1)
    if least_confidence:
        confidence = prediction["confidence_world"].sel(frame=frame).values
        keep &= confidence >= np.quantile(confidence, least_confidence)
    return Cloud(points[keep].astype(np.float32), np.flatnonzero(keep))


def true_cloud(run: xr.DataTree, frame: int, stride: int) -> Cloud | None:
    """Return the true points of a frame, moved rigidly so that first poses coincide; not scaled.

    Returns
    -------
    Cloud or None
        None when depth, pose or intrinsics are not known; without points where the camera of this
        frame was lost.
    """
    if TRUTH not in run.children:
        return None
    truth = run[TRUTH].to_dataset()
    if not {"depth", "pose", "intrinsics"} <= set(truth):
        return None
    depth = truth["depth"].sel(frame=frame).values.astype(np.float64)
    matrix = truth["intrinsics"].sel(frame=frame).values.astype(np.float64)
    pose = true_poses(run)
    if pose is None:
        return None
    keep = _grid(depth.shape, stride) & np.isfinite(depth) & (depth > 0)
    row, column = np.nonzero(keep)
    rays = np.stack([column, row, np.ones_like(row)], -1) @ np.linalg.inv(matrix).T
    camera = pose[list(truth["frame"].values).index(frame)]
    if not np.isfinite(camera).all():
        return NO_POINTS
    points = (rays * depth[keep][:, None]) @ camera[:3, :3].T + camera[:3, 3]
    return Cloud(points.astype(np.float32), np.flatnonzero(keep))


def known_edges(edges: np.ndarray) -> np.ndarray:
    """Return the edges ``(edge, end, xyz)`` of frusta that touch no frame whose camera was lost."""
    flat = edges.reshape(-1, 2, 3)
    return flat[np.isfinite(flat).all(axis=(1, 2))]


def frusta(poses: np.ndarray, slopes: tuple[float, float], reach: float) -> np.ndarray:
    """Return the edges of camera frusta as line segments.

    Parameters
    ----------
    poses : numpy.ndarray
        ``(frame, row, col)`` camera-to-world.
    slopes : (float, float)
        Tangents of half the field of view, across and down.
    reach : float
        Length of the edges, metres.

    Returns
    -------
    numpy.ndarray
        float32 ``(frame, segment, end, xyz)``: four edges from the centre, four of the image, and
        the way from the frame before.
    """
    across, down = slopes
    corners = np.array([[-1, -1, 1], [1, -1, 1], [1, 1, 1], [-1, 1, 1]]) * [across, down, 1]
    # Edges of wide fields stay as long as those of narrow ones.
    corners = reach * corners / np.linalg.norm(corners, axis=1, keepdims=True)
    centres = poses[:, :3, 3]
    world = corners @ poses[:, :3, :3].transpose(0, 2, 1) + centres[:, None]
    edges = np.stack([np.broadcast_to(centres[:, None], world.shape), world], 2)
    rim = np.stack([world, np.roll(world, -1, axis=1)], 2)
    way = np.stack([np.concatenate([centres[:1], centres[:-1]]), centres], 1)[:, None]
    return np.concatenate([edges, rim, way], 1).astype(np.float32)


def _grid(shape: tuple[int, ...], stride: int) -> np.ndarray:
    keep = np.zeros(shape, bool)
    keep[stride // 2 :: stride, stride // 2 :: stride] = True
    return keep
