"""Errors of the cloud of a static scene seen from several views: how far, how complete, how turned.

The measures of the released multi-view evaluation of CUT3R, which is that of Spann3R and, with
voxels, that of TTT3R. The predicted cloud is brought to the true one by one shift along the axis of
the first camera and one scale, both from medians, then by rigid ICP. From there on the clouds may
have any numbers of points.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

import numpy as np
import pandas as pd
import xarray as xr
from numpy.typing import ArrayLike, NDArray
from scipy.spatial import cKDTree

from mut3r_analysis.errors import InvalidArgument
from mut3r_analysis.metrics.alignment import lower_median
from mut3r_analysis.metrics.depth import valid_depth
from mut3r_analysis.metrics.errors import UndefinedMetric
from mut3r_analysis.metrics.metric import Metric, rows
from mut3r_analysis.metrics.pairs import check_frames
from mut3r_analysis.metrics.reconstruction import (
    RECONSTRUCTION_METRICS,
    as_cloud,
    nearest,
    unproject,
)
from mut3r_analysis.metrics.similarity import Similarity, fit_similarity

CENTRE = 224
"""Edge, px, of the square in the middle of every frame whose points are compared."""
ICP_DISTANCE = 0.1
"""Points that are farther from their nearest true one do not take part in ICP, metres."""
NEIGHBOURS = 30
"""Points, itself among them, whose plane gives a point its normal."""

_ICP_STEPS = 30
_ICP_CHANGE = 1e-6
_AT_ONCE = 1 << 16

Points = NDArray[np.float64]


def _chamfer(measured: Mapping[str, Points]) -> float:
    return float(measured["accuracy"].mean() + measured["completion"].mean()) / 2


def _consistency(measured: Mapping[str, Points], pooled: str) -> float:
    pool = np.mean if pooled == "mean" else np.median
    return float(pool(measured["accuracy_normals"]) + pool(measured["completion_normals"])) / 2


MULTIVIEW_METRICS = {
    name: RECONSTRUCTION_METRICS[name]
    for name in ("accuracy_mean", "accuracy_median", "completion_mean", "completion_median")
} | rows(
    [
        *(
            Metric(
                f"normal_consistency_{pooled}", f"normal consistency, {pooled}",
                "absolute cosine between the normals of nearest points, mean of both directions",
                "1", "together", partial(_consistency, pooled=pooled), higher_is_better=True,
            )
            for pooled in ("mean", "median")
        ),
        Metric(
            "chamfer", "Chamfer distance", "mean of mean accuracy and mean completion", "m",
            "together", _chamfer,
        ),
    ]
)  # fmt: skip
"""Errors of an aligned cloud that need not correspond to the true one point by point."""


def fit_medians(points: ArrayLike, truth: ArrayLike) -> Similarity:
    """Fit a scale and a shift along z that bring medians of one cloud to those of another.

    Median z goes to median z; around its median point (per axis), each cloud has a median distance,
    and the scale is their ratio. Medians are the lower of two middle values, as torch takes them.

    Parameters
    ----------
    points, truth : array_like
        (point, xyz), in the frame of the first camera; any numbers of points.

    Raises
    ------
    UndefinedMetric
        An empty cloud, or one that lies in a single point.
    """
    spreads, depths = [], []
    for cloud in (as_cloud("points", points), as_cloud("truth", truth)):
        middle = np.array([lower_median(axis) for axis in cloud.T])
        depths.append(middle[2])
        spreads.append(lower_median(np.linalg.norm(cloud - middle, axis=1)))
    if not min(spreads) > 0:
        raise UndefinedMetric("half of a cloud lies in one point, so no scale can be fitted")
    # The released code keeps the spread of a prediction within these bounds.
    scale = spreads[1] / np.clip(spreads[0], 1e-3, 1e3)
    return Similarity(np.eye(3), np.array([0.0, 0.0, depths[1] - scale * depths[0]]), scale)


def register(
    points: ArrayLike, truth: ArrayLike, distance: float = ICP_DISTANCE, workers: int = 1
) -> Similarity:
    """Bring a cloud rigidly to another one by point-to-point ICP.

    Each point is paired with the nearest true one if that is closer than `distance`, the rigid
    motion that fits the pairs best is applied, and so on for at most 30 steps, until neither the
    share of paired points nor the root mean square of their distances changes by 1e-6. These are
    the defaults of Open3D. Where too few points are paired to fit a motion, the cloud stays.

    Parameters
    ----------
    points, truth : array_like
        (point, xyz), metres.
    distance : float
        Metres.
    workers : int
        Threads of the nearest-neighbour search.
    """
    moved, target = as_cloud("points", points), as_cloud("truth", truth)
    tree = cKDTree(target)
    whole, last = np.eye(4), np.full(2, np.nan)
    for step in range(_ICP_STEPS + 1):
        far, nearest = tree.query(moved, distance_upper_bound=distance, workers=workers)
        paired = np.isfinite(far)
        now = np.array([paired.mean(), np.sqrt(np.mean(far[paired] ** 2)) if paired.any() else 0])
        if step == _ICP_STEPS or (np.abs(now - last) < _ICP_CHANGE).all():
            break
        try:
            motion = fit_similarity(moved[paired], target[nearest[paired]], "se3", line=True)
        except UndefinedMetric:
            break
        moved, whole, last = motion.apply_to_points(moved), motion.apply_to_poses(whole), now
    return Similarity(whole[:3, :3], whole[:3, 3], 1.0)


def thin(points: ArrayLike, voxel: float, beside: ArrayLike | None = None) -> Points:
    """Replace the points in each cube of a grid by their mean.

    Parameters
    ----------
    points : array_like
        (point, xyz).
    voxel : float
        Edge of the cubes, in the units of the points. The smallest coordinates lie in the middle of
        the first cube, as in Open3D.
    beside : array_like, optional
        (point, value), such as colours, of which means are taken too.

    Returns
    -------
    ndarray
        (point, xyz), in the order in which cubes are met; values follow as further columns.
    """
    cloud = as_cloud("points", points)
    if not voxel > 0:
        raise InvalidArgument(f"voxel={voxel} must be a length above 0")
    cube = np.floor((cloud - cloud.min(axis=0)) / voxel + 0.5)
    values = cloud if beside is None else np.hstack([cloud, np.asarray(beside, np.float64)])
    return pd.DataFrame(values).groupby(list(cube.T), sort=False).mean().to_numpy()


def estimate_normals(points: ArrayLike, workers: int = 1) -> Points:
    """Fit a plane to the 30 points nearest to each point and return its unit normal (point, xyz).

    Either of the two directions: the sign of a normal means nothing.
    """
    cloud = as_cloud("points", points)
    if len(cloud) < 3:
        raise UndefinedMetric(f"{len(cloud)} points have no plane; at least 3 are needed")
    tree = cKDTree(cloud)
    found = np.empty_like(cloud)
    for start in range(0, len(cloud), _AT_ONCE):
        part = slice(start, start + _AT_ONCE)
        _, near = tree.query(cloud[part], min(NEIGHBOURS, len(cloud)), workers=workers)
        around = cloud[near] - cloud[near].mean(axis=1, keepdims=True)
        found[part] = np.linalg.eigh(np.einsum("pni,pnj->pij", around, around))[1][..., 0]
    return found


def compare_clouds(truth: ArrayLike, prediction: ArrayLike, workers: int = 1) -> dict[str, Points]:
    """Measure two clouds of any sizes against each other.

    Parameters
    ----------
    truth, prediction : array_like
        (point, xyz), in the same units and frame.
    workers : int
        Threads of the nearest-neighbour search.

    Returns
    -------
    dict
        ``accuracy`` (predicted point): distance to the nearest true point; ``completion`` (true
        point): distance to the nearest predicted one; ``accuracy_normals``,
        ``completion_normals``: absolute cosines between the normals of these pairs.

    Examples
    --------
    >>> truth = np.random.default_rng(0).normal(size=(100, 3))
    >>> float(compare_clouds(truth, truth)["accuracy"].max())
    0.0
    """
    true, given = as_cloud("truth", truth), as_cloud("prediction", prediction)
    normals = estimate_normals(true, workers), estimate_normals(given, workers)
    (accuracy, of_true), (completion, of_given) = nearest(true, given, workers)
    return {
        "accuracy": accuracy,
        "completion": completion,
        "accuracy_normals": np.abs((normals[0][of_true] * normals[1]).sum(axis=1)),
        "completion_normals": np.abs((normals[0] * normals[1][of_given]).sum(axis=1)),
    }


def score_multiview(
    truth: xr.Dataset, points: xr.DataArray, voxel: float | None = None, workers: int = 1
) -> xr.Dataset:
    """Score the predicted points of all frames of a static scene together.

    Medians are taken over all pixels whose true depth is known (`fit_medians`); the 224 x 224
    pixels in the middle of each frame are registered (`register`) and compared (`compare_clouds`).

    Parameters
    ----------
    truth : Dataset
        ``depth`` (frame, y, x) m, ``pose`` (frame, row, col) camera-to-world and ``intrinsics``
        (frame, 3, 3), on the grid of the prediction.
    points : DataArray
        (frame, y, x, xyz), in one frame of any origin and scale whose z is the optical axis of the
        first camera.
    voxel : float, optional
        Both clouds are thinned to one point per cube of this edge (`thin`), metres, which bounds
        the time that many frames take.
    workers : int
        Threads of the nearest-neighbour search.

    Returns
    -------
    Dataset
        `MULTIVIEW_METRICS`, ``points`` and ``true_points`` compared, and the alignment of the
        prediction to the true world.

    Raises
    ------
    InvalidArgument
        Missing variables, or frames and grids that do not correspond.
    UndefinedMetric
        No valid pixel, a true pose or a prediction that is not finite there.

    Examples
    --------
    >>> truth = run["truth"].to_dataset()
    >>> scores = score_multiview(truth, run["prediction/points_world"], voxel=0.05)
    >>> sorted(scores.data_vars)[:3]
    ['accuracy_mean', 'accuracy_median', 'alignment_rotation']
    """
    true, given, valid, first = _clouds(truth, points)
    fitted = fit_medians(given[valid], true[valid])
    middle = valid & _centre(valid.shape)
    # Voxels have the axes of the world, as in the released code.
    target = Similarity(first[:3, :3], first[:3, 3], 1.0)
    clouds = [
        target.apply_to_points(each)
        for each in (true[middle], fitted.apply_to_points(given[middle]))
    ]
    if not middle.any():
        raise UndefinedMetric("no pixel in the middle of a frame has a known true depth")
    if voxel is not None:
        clouds = [thin(cloud, voxel) for cloud in clouds]
    icp = register(clouds[1], clouds[0], workers=workers)
    measured = compare_clouds(clouds[0], icp.apply_to_points(clouds[1]), workers)
    whole = icp.apply_to_poses(target.apply_to_poses(np.eye(4)))
    shift = whole[:3, :3] @ fitted.translation + whole[:3, 3]
    scores = xr.Dataset(attrs={"voxel": voxel})
    for name, row in MULTIVIEW_METRICS.items():
        together = row.pooling == "together"
        values = row.values(measured)
        scores[name] = ((), values if together else row.pool(values), row.attrs)
    scores["points"] = ((), len(clouds[1]), {"long_name": "predicted points compared"})
    scores["true_points"] = ((), len(clouds[0]), {"long_name": "true points compared"})
    alignment = Similarity(whole[:3, :3], shift, fitted.scale)
    found = scores.assign(alignment.to_variables({"units": "m"}))
    return found.assign_coords(axis=["x", "y", "z"])


def _clouds(
    truth: xr.Dataset, points: xr.DataArray
) -> tuple[Points, Points, NDArray[np.bool_], Points]:
    """Return true and predicted points (frame, y, x, xyz), which count, the first true pose."""
    if missing := [v for v in ("depth", "pose", "intrinsics") if v not in truth]:
        raise InvalidArgument(f"truth lacks {', '.join(missing)}")
    check_frames(truth, points)
    depth = truth["depth"].transpose("frame", "y", "x").values
    given = points.transpose("frame", "y", "x", "xyz").values.astype(np.float64)
    if depth.shape != given.shape[:3]:
        raise InvalidArgument(f"true depth is {depth.shape}, points are {given.shape[:3]}")
    poses = truth["pose"].transpose("frame", "row", "col").values.astype(np.float64)
    if not np.isfinite(poses).all():
        raise UndefinedMetric("a true pose is not known, so the true cloud is not either")
    valid = valid_depth(depth)
    if not valid.any():
        raise UndefinedMetric("no pixel has a known true depth")
    if not np.isfinite(given[valid]).all():
        raise UndefinedMetric(
            "predicted points are NaN or infinite where the truth is valid; a score over the rest "
            "would hide them"
        )
    relative = np.linalg.inv(poses[0]) @ poses
    matrices = truth["intrinsics"].values
    true = [unproject(*each) for each in zip(depth, matrices, relative, strict=True)]
    return np.stack(true), given, valid, poses[0]


def _centre(shape: tuple[int, ...]) -> NDArray[np.bool_]:
    """Mark the middle square of every frame (frame, y, x); all of it where frames are smaller."""
    inside = np.zeros(shape, bool)
    rows, columns = (
        slice(max(side // 2 - CENTRE // 2, 0), side // 2 + CENTRE // 2) for side in shape[1:]
    )
    inside[:, rows, columns] = True
    return inside
