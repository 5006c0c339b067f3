"""Point-cloud errors of a dynamic reconstruction: accuracy, completion, correspondence distance.

The measures of the released DyCheck scorer of Easi3R. Its "distance" is taken between points of the
same pixel; it is neither a symmetric nor a Chamfer distance. Since the point of the same pixel is
one candidate of either nearest-neighbour search, accuracy and completion can never exceed it.
"""

from __future__ import annotations

from collections.abc import Mapping
from operator import itemgetter
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import ArrayLike, NDArray
from scipy.spatial import cKDTree

from mut3r_analysis.errors import InvalidArgument
from mut3r_analysis.metrics.depth import valid_depth
from mut3r_analysis.metrics.errors import UndefinedMetric
from mut3r_analysis.metrics.metric import Metric, rows
from mut3r_analysis.metrics.pairs import check_frames
from mut3r_analysis.metrics.resampling import resize_bicubic
from mut3r_analysis.metrics.similarity import fit_similarity

MEASURES = ("accuracy", "completion", "distance")

RECONSTRUCTION_METRICS = rows(
    Metric(
        f"{measure}_{pooling}", f"{measure}, {pooling}", words, "m", pooling, itemgetter(measure)
    )
    for measure, words in (
        ("accuracy", "distance from a predicted point to the nearest true one"),
        ("completion", "distance from a true point to the nearest predicted one"),
        ("distance", "distance between the points of the same pixel"),
    )
    for pooling in ("mean", "median")
)
"""Errors of an aligned cloud, over all its points."""


def as_cloud(name: str, points: ArrayLike) -> NDArray[np.float64]:
    """Return points (point, xyz), known to be comparable."""
    found = np.asarray(points, dtype=np.float64)
    if found.ndim != 2 or found.shape[1] != 3:
        raise InvalidArgument(f"{name} has shape {found.shape}, expected (point, 3)")
    if not len(found):
        raise UndefinedMetric(f"{name} holds no points to compare")
    if not np.isfinite(found).all():
        raise UndefinedMetric(f"{name} holds NaN or infinity; leave those points out")
    return found


def nearest(
    truth: NDArray[np.float64], prediction: NDArray[np.float64], workers: int
) -> tuple[tuple[NDArray[Any], NDArray[Any]], tuple[NDArray[Any], NDArray[Any]]]:
    """Return distances and indices of the nearest true points, then of the nearest predicted."""
    return (
        cKDTree(truth).query(prediction, workers=workers),
        cKDTree(prediction).query(truth, workers=workers),
    )


def point_distances(
    truth: ArrayLike, prediction: ArrayLike, workers: int = 1
) -> dict[str, NDArray[np.float64]]:
    """Measure the distances between two clouds whose points correspond row by row.

    Parameters
    ----------
    truth, prediction : array_like
        (point, xyz), in the same units and frame.
    workers : int
        Threads of the nearest-neighbour search.

    Returns
    -------
    dict
        All (point). ``accuracy``: from every predicted point to the nearest true one;
        ``completion``: from every true point to the nearest predicted one; ``distance``: between
        the points of the same row.

    Examples
    --------
    >>> found = point_distances([[0, 0, 0], [1, 0, 0]], [[1, 0, 0], [1, 0, 0]])
    >>> found["completion"], found["distance"]
    (array([1., 0.]), array([1., 0.]))
    """
    g, p = as_cloud("truth", truth), as_cloud("prediction", prediction)
    if len(g) != len(p):
        raise InvalidArgument(
            f"truth {g.shape} and prediction {p.shape} must both be (point, 3), row by row"
        )
    (accuracy, _), (completion, _) = nearest(g, p, workers)
    distances = {
        "accuracy": accuracy,
        "completion": completion,
        "distance": np.linalg.norm(g - p, axis=1),
    }
    for name in ("accuracy", "completion"):
        if (distances[name] > distances["distance"] * (1 + 1e-9)).any():
            raise AssertionError(f"{name} exceeds the correspondence distance of the same point")
    return distances


def check_reconstruction(scores: Mapping[str, float]) -> list[str]:
    """List why three numbers found elsewhere cannot come from one scorer.

    Parameters
    ----------
    scores : mapping
        ``accuracy``, ``completion`` and ``distance``, all means or all medians of one scene or of a
        mean over the same scenes.

    Returns
    -------
    list of str
        Empty when accuracy and completion do not exceed the distance.

    Examples
    --------
    >>> check_reconstruction({"accuracy": 0.02, "completion": 0.02, "distance": 0.03})
    []
    """
    missing = [name for name in MEASURES if name not in scores]
    if missing:
        raise InvalidArgument(f"scores lack {', '.join(missing)}; all of {MEASURES} are needed")
    return [
        f"{name} {scores[name]:g} exceeds distance {scores['distance']:g}, although the "
        "corresponding point is one candidate of the nearest-neighbour search"
        for name in ("accuracy", "completion")
        if scores[name] > scores["distance"]
    ]


def unproject(
    depth: ArrayLike, intrinsics: ArrayLike, pose: ArrayLike | None = None
) -> NDArray[np.float64]:
    """Lift a depth map (y, x) to points (y, x, xyz), in the world when `pose` is given.

    Parameters
    ----------
    depth : array_like
        (y, x), metres along the optical axis.
    intrinsics : array_like
        (row, col), 3x3, pixels; the centre of the first pixel is at (0, 0).
    pose : array_like, optional
        (row, col), 4x4 camera-to-world.
    """
    z = np.asarray(depth, dtype=np.float64)
    matrix = np.asarray(intrinsics, dtype=np.float64)
    if z.ndim != 2 or matrix.shape != (3, 3):
        raise InvalidArgument(
            f"depth {z.shape} must be (y, x) and intrinsics {matrix.shape} (3, 3)"
        )
    y, x = np.indices(z.shape)
    rays = np.stack([x, y, np.ones(z.shape)], axis=-1) @ np.linalg.inv(matrix).T
    points = rays * z[..., None]
    if pose is None:
        return points
    world = np.asarray(pose, dtype=np.float64)
    return points @ world[:3, :3].T + world[:3, 3]


def score_reconstruction(
    truth: xr.Dataset, prediction: xr.Dataset, align: str = "sim3", workers: int = 1
) -> xr.Dataset:
    """Score the points of all frames of a scene together, after aligning the camera paths.

    The alignment is fitted on camera centres; its scale multiplies the predicted depth. True depth
    of another size is resized to the prediction's, bicubic, with its intrinsics. Pixels whose true
    depth is finite and positive count, moving or not, whatever the confidence.

    Parameters
    ----------
    truth, prediction : Dataset
        ``depth`` (frame, y, x) m, ``pose`` (frame, row, col) camera-to-world and ``intrinsics``
        (frame, 3, 3) with two dims of any other name (a Dataset cannot hold 3 rows and 4 rows
        under one), corresponding frame by frame.
    align : {"sim3", "se3", "none"}
        Alignment of the predicted camera path.
    workers : int
        Threads of the nearest-neighbour search.

    Returns
    -------
    Dataset
        ``<measure>_mean`` and ``<measure>_median`` of accuracy, completion and distance, the number
        of ``points``, and the alignment.

    Raises
    ------
    InvalidArgument
        Missing variables or frames that do not correspond.
    UndefinedMetric
        No valid pixel, a prediction that is not finite, or a path that cannot be aligned.

    Examples
    --------
    >>> truth = run["truth"].to_dataset()
    >>> score_reconstruction(truth, truth)["distance_mean"].item() < 1e-9
    True
    """
    for name, dataset in (("truth", truth), ("prediction", prediction)):
        missing = [v for v in ("depth", "pose", "intrinsics") if v not in dataset]
        if missing:
            raise InvalidArgument(f"{name} lacks {', '.join(missing)}")
    check_frames(truth, prediction)
    true_poses = truth["pose"].transpose("frame", "row", "col").values
    poses = prediction["pose"].transpose("frame", "row", "col").values
    similarity = fit_similarity(poses[:, :3, 3], true_poses[:, :3, 3], align)
    poses = similarity.apply_to_poses(poses)
    size = (prediction.sizes["y"], prediction.sizes["x"])
    resize = np.diag([size[1] / truth.sizes["x"], size[0] / truth.sizes["y"], 1.0])
    true_points, points = [], []
    for index in range(truth.sizes["frame"]):
        wanted, given = truth.isel(frame=index), prediction.isel(frame=index)
        depth = resize_bicubic(wanted["depth"].transpose("y", "x").values, size)
        valid = valid_depth(depth)
        true_matrix = resize @ wanted["intrinsics"].values
        matrix = given["intrinsics"].values
        given_depth = similarity.scale * given["depth"].transpose("y", "x").values
        true_points.append(unproject(depth, true_matrix, true_poses[index])[valid])
        points.append(unproject(given_depth, matrix, poses[index])[valid])
    distances = point_distances(np.concatenate(true_points), np.concatenate(points), workers)
    units = {"units": truth["depth"].attrs.get("units", "m")}
    scores = xr.Dataset(attrs={"align": align})
    for name, row in RECONSTRUCTION_METRICS.items():
        scores[name] = ((), row.pool(row.values(distances)), row.attrs | units)
    scores["points"] = ((), len(distances["distance"]), {"long_name": "points compared"})
    return scores.assign(similarity.to_variables(units)).assign_coords(axis=["x", "y", "z"])
