"""Temporal alignment error: whether depth agrees with itself from one frame to the next.

After the definition of Video Depth Anything: the depth of a frame is carried into the next one by
the cameras and compared with the depth there, forwards and backwards. What the paper leaves open is
said where it is decided.
"""

from typing import NamedTuple

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from mut3r_analysis.metrics.depth import score_depth, valid_depth
from mut3r_analysis.metrics.errors import UndefinedMetric
from mut3r_analysis.metrics.metric import Metric, rows
from mut3r_analysis.metrics.pairs import check_frames
from mut3r_analysis.metrics.reconstruction import unproject
from mut3r_analysis.metrics.resampling import resize_bicubic
from mut3r_analysis.metrics.similarity import fit_similarity

MISSES = 0.05
"""True depth that, carried the same way, misses the true depth there by more than this part of it
is hidden or moves."""

_EMPTY = np.iinfo(np.int64).max


def _relative(carried: NDArray[np.float64], there: NDArray[np.float64]) -> float:
    if not carried.size:
        return float("nan")
    return float((np.abs(carried - there) / there).mean())


TEMPORAL_METRICS = rows(
    Metric(name, label, long_name, "1", "mean", _relative, frames=name)
    for name, label, long_name in (
        ("tae", "TAE", "temporal alignment error, true cameras, what rests and is seen"),
        ("tae_all", "TAE with motion", "temporal alignment error, true cameras, all pixels"),
        ("tae_self", "TAE, own cameras", "temporal alignment error, predicted cameras, what rests"),
    )
)
"""Errors of aligned depth carried to the next frame and back."""


class _Frame(NamedTuple):
    """A frame's aligned depth (y, x), its true depth, where that counts, and its cameras."""

    depth: NDArray[np.float64]
    truth: NDArray[np.float64]
    valid: NDArray[np.bool_]
    matrix: NDArray[np.float64]
    pose: NDArray[np.float64]
    own_pose: NDArray[np.float64]


def score_temporal(
    truth: xr.Dataset,
    prediction: xr.Dataset,
    alignment: str,
    maximum: float | None = None,
    clip: float | None = None,
) -> xr.Dataset:
    """Score how well depth agrees with itself over time.

    Parameters
    ----------
    truth : Dataset
        ``depth`` (frame, y, x) m, ``pose`` (frame, row, col) camera-to-world and ``intrinsics``
        (frame, 3, 3), px.
    prediction : Dataset
        ``depth`` and ``pose``, corresponding frame by frame; depth of another size is resized to
        the truth's, bicubic.
    alignment, maximum, clip
        As for `score_depth`: one fit of depth per sequence.

    Returns
    -------
    Dataset
        ``tae``, ``tae_all`` and ``tae_self`` (no dims), means over pairs of frames, and
        ``frame_<metric>`` (frame), the mean of both directions at the first frame of each pair.
        ``pixels`` (frame), and the alignment of depth.

    Raises
    ------
    UndefinedMetric
        A single frame, no pixel that is seen in two, or what `score_depth` refuses.

    Notes
    -----
    A pixel lands on the nearest one; where several land the nearest depth wins. True depth must be
    valid at source and landing pixel. Hidden and moving pixels are those whose true depth, carried
    by the true cameras, misses by more than `MISSES`; ``tae_all`` keeps them. ``tae_self`` carries
    by the predicted cameras, after their similarity to the true ones.

    Examples
    --------
    >>> truth, prediction = (run[group].to_dataset() for group in ("truth", "prediction"))
    >>> score_temporal(truth, prediction, "scale_median")["frame_tae"].dims
    ('frame',)
    """
    check_frames(truth, prediction)
    count = truth.sizes["frame"]
    if count < 2:
        raise UndefinedMetric("a single frame agrees with nothing; score two or more")
    fitted = score_depth(truth["depth"], prediction["depth"], alignment, maximum, clip)
    frames = _aligned(truth, prediction, fitted, maximum, clip)
    values = {name: np.full(count, np.nan) for name in TEMPORAL_METRICS}
    for index in range(count - 1):
        both = [_carried(frames[a], frames[b]) for a, b in ((index, index + 1), (index + 1, index))]
        for name, held in values.items():
            held[index] = np.mean([each[name] for each in both])
    scores = fitted[["pixels", "alignment_scale", "alignment_shift"]]
    for name, held in values.items():
        if not (there := held[np.isfinite(held)]).size:
            raise UndefinedMetric(f"{name}: no pixel is seen in two frames that follow each other")
        row = TEMPORAL_METRICS[name]
        scores[name] = ((), row.pool(there), row.attrs)
        scores[f"frame_{name}"] = ("frame", held, row.attrs)
    return scores


def _aligned(
    truth: xr.Dataset,
    prediction: xr.Dataset,
    fitted: xr.Dataset,
    maximum: float | None,
    clip: float | None,
) -> list[_Frame]:
    """Return every frame with aligned depth at the truth's size and aligned cameras."""
    poses = truth["pose"].transpose("frame", "row", "col").values.astype(np.float64)
    own = prediction["pose"].transpose("frame", "row", "col").values.astype(np.float64)
    # Motion between frames does not depend on a rotation of the whole path.
    similarity = fit_similarity(own[:, :3, 3], poses[:, :3, 3], "sim3", line=True)
    own = similarity.apply_to_poses(own)
    size = truth.sizes["y"], truth.sizes["x"]
    scale, shift = float(fitted["alignment_scale"]), float(fitted["alignment_shift"])
    frames = []
    for index in range(len(poses)):
        wanted = truth["depth"].isel(frame=index).transpose("y", "x").values.astype(np.float64)
        given = prediction["depth"].isel(frame=index).transpose("y", "x").values
        depth = scale * resize_bicubic(given, size) + shift
        depth = depth if clip is None else np.minimum(depth, clip)
        valid = valid_depth(wanted, maximum) & (depth > 0)
        matrix = truth["intrinsics"].isel(frame=index).values.astype(np.float64)
        frames.append(_Frame(depth, wanted, valid, matrix, poses[index], own[index]))
    return frames


def _carried(source: _Frame, target: _Frame) -> dict[str, float]:
    """Carry the depth of a frame into another one and compare it with the depth there."""
    rests = _rests(source, target)
    errors = {}
    for name, own, kept in (
        ("tae", False, rests), ("tae_all", False, source.valid), ("tae_self", True, rests)
    ):  # fmt: skip
        depth, landing = _landed(source.depth, source, target, own=own)
        seen = _nearest(depth, landing, source.valid) & kept.ravel()
        there = target.depth.ravel()[landing[seen]]
        known = target.valid.ravel()[landing[seen]]
        errors[name] = _relative(depth[seen][known], there[known])
    return errors


def _rests(source: _Frame, target: _Frame) -> NDArray[np.bool_]:
    """Mark pixels (y, x) whose true depth is found where the true cameras carry it."""
    depth, landing = _landed(np.where(source.valid, source.truth, 1.0), source, target, own=False)
    there = target.truth.ravel()[np.where(landing == _EMPTY, 0, landing)]
    known = (landing != _EMPTY) & target.valid.ravel()[np.where(landing == _EMPTY, 0, landing)]
    with np.errstate(invalid="ignore", divide="ignore"):
        near = np.abs(depth - there) <= MISSES * there
    return (near & known).reshape(source.valid.shape) & source.valid


def _landed(
    depth: NDArray[np.float64], source: _Frame, target: _Frame, *, own: bool
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Return, per source pixel, its depth in the target and the pixel it lands on, or `_EMPTY`."""
    poses = (source.own_pose, target.own_pose) if own else (source.pose, target.pose)
    points = unproject(depth, source.matrix, np.linalg.inv(poses[1]) @ poses[0]).reshape(-1, 3)
    z = points[:, 2]
    height, width = target.depth.shape
    with np.errstate(invalid="ignore", divide="ignore"):
        seen = points @ target.matrix.T
        x, y = (np.rint(seen[:, axis] / seen[:, 2]) for axis in (0, 1))
        inside = (z > 0) & (x >= 0) & (x < width) & (y >= 0) & (y < height)
    landing = np.full(z.shape, _EMPTY)
    landing[inside] = (y[inside] * width + x[inside]).astype(np.int64)
    return z, landing


def _nearest(
    depth: NDArray[np.float64], landing: NDArray[np.int64], valid: NDArray[np.bool_]
) -> NDArray[np.bool_]:
    """Mark the source pixels that are nearest of all that land on their pixel."""
    there = valid.ravel() & (landing != _EMPTY)
    closest = np.full(valid.size, np.inf)
    np.minimum.at(closest, landing[there], depth[there])
    won = np.zeros(valid.size, bool)
    won[there] = depth[there] == closest[landing[there]]
    return won
