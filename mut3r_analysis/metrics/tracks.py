"""Points that move: where they are predicted to be, and how they are predicted to have moved.

A model of point maps says where in the world is what a pixel shows. It does not say where a point
of an earlier frame has gone. So the truth gives the pixels: of two frames, those that show the same
point. Scored is where the model puts that point in the second frame, and by how much it moves from
the first to the second. Finding the pixels again, and points while they are hidden, are not scored.

Error and shares within 5 and 10 cm are those that Shape of Motion's released evaluation computes on
DyCheck's keypoints; the error of the displacement is the end-point error of scene flow.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from itertools import pairwise, product
from operator import itemgetter
from typing import NamedTuple

import numpy as np
import xarray as xr
from numpy.typing import ArrayLike, NDArray

from mut3r_analysis.errors import InvalidArgument
from mut3r_analysis.foundation.fields import one_of
from mut3r_analysis.metrics.choices import TRACK_ALIGNMENTS
from mut3r_analysis.metrics.depth import valid_depth
from mut3r_analysis.metrics.errors import UndefinedMetric
from mut3r_analysis.metrics.metric import Metric, rows
from mut3r_analysis.metrics.pairs import check_frames
from mut3r_analysis.metrics.reconstruction import unproject
from mut3r_analysis.metrics.similarity import Similarity, fit_similarity

MISSES = 0.01
"""Where flow leads, what is seen may miss the moved point by this part of its depth; else the point
is hidden, or lies at an edge."""

SAME_POINT = (("track_pixel", "track_visible"), ("flow", "scene_flow"))
"""Variables of a truth that say which pixels show the same point: either of these."""

_KEPT = 16

Points = NDArray[np.float64]

TRACK_METRICS = rows(
    (
        Metric("track_error", "3D track error", "distance from the predicted to the true place of "
               "a point, in the second of two frames that show it", "m", "mean",
               itemgetter("error")),
        *(
            Metric(f"track_within_{reach}cm", f"3D tracks within {reach} cm",
                   f"share of points that are predicted within {reach} cm of their place", "1",
                   "mean", itemgetter(f"within_{reach}cm"), higher_is_better=True)
            for reach in (5, 10)
        ),
        Metric("scene_flow_error", "scene flow error", "distance between the predicted and the "
               "true displacement of a point, from one frame that shows it to another", "m",
               "mean", itemgetter("flow")),
        Metric("scene_flow_error_moving", "scene flow error of what moves", "the same, of points "
               "that move in the world", "m", "mean", itemgetter("moving")),
    )
)  # fmt: skip
"""Errors of aligned points, means over pairs of frames of the mean over points."""


class Pair(NamedTuple):
    """Two frames, by position, and the pixels (point, uv) of both that show the same points.

    `moving` (point) bool says which points move in the world from the first to the second; None
    where that is not known.
    """

    first: int
    second: int
    pixels: tuple[Points, Points]
    moving: NDArray[np.bool_] | None = None


def sample(plane: ArrayLike, pixels: ArrayLike) -> Points:
    """Interpolate a map (y, x, value) between the centres of four pixels, at pixels (point, uv).

    Returns
    -------
    ndarray
        (point, value); NaN outside, and where one of the four is not finite.

    Examples
    --------
    >>> sample([[[0.0], [1.0]], [[2.0], [3.0]]], [[0.5, 0.5], [1, 0], [1.5, 0]]).ravel()
    array([1.5, 1. , nan])
    """
    values, places = np.asarray(plane, np.float64), np.asarray(pixels, np.float64)
    height, width = values.shape[:2]
    last = np.array([width - 1, height - 1])
    inside = _inside(places, last)
    at = np.where(inside[:, None], places, 0)
    # The last pixel is interpolated from the cell before it, if there is one.
    column, row = np.minimum(at.astype(int), np.maximum(last - 1, 0)).T
    u, v = (at - np.stack([column, row], axis=1)).T[..., None]
    right, below = np.minimum(column + 1, width - 1), np.minimum(row + 1, height - 1)
    found = (1 - v) * ((1 - u) * values[row, column] + u * values[row, right]) + v * (
        (1 - u) * values[below, column] + u * values[below, right]
    )
    found[~(inside & np.isfinite(found).all(axis=1))] = np.nan
    return found


def _inside(pixels: Points, last: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Say which pixels (point, uv) lie between the centres of the first and the last one."""
    return np.asarray(((pixels >= 0) & (pixels <= last)).all(axis=1))


def true_pairs(truth: xr.Dataset) -> Iterator[Pair]:
    """Find the pixels that show the same points, in pairs of frames.

    Parameters
    ----------
    truth : Dataset
        Either ``track_pixel`` (frame, track, uv) px and ``track_visible`` (frame, track): pairs are
        all two frames with tracks, in both orders and each with itself, as in Shape of Motion's
        evaluation. Or ``flow`` (frame, y, x, uv) px and ``scene_flow`` (frame, y, x, xyz) m, both
        to the next frame, with ``depth``, ``pose`` and ``intrinsics``: pairs are neighbouring
        frames, and a pixel counts where what is seen at its end is the moved point (`MISSES`).

    Raises
    ------
    InvalidArgument
        There is neither.
    """
    if set(SAME_POINT[0]) <= set(truth):
        pixels = truth["track_pixel"].transpose("frame", "track", "uv").values.astype(np.float64)
        seen = truth["track_visible"].transpose("frame", "track").values.astype(bool)
        seen &= np.isfinite(pixels).all(axis=2)
        for first, second in product(np.flatnonzero(seen.any(axis=1)), repeat=2):
            both = seen[first] & seen[second]
            yield Pair(int(first), int(second), (pixels[first][both], pixels[second][both]))
    elif set(SAME_POINT[1]) <= set(truth):
        yield from _along_flow(truth)
    else:
        raise InvalidArgument(
            "truth says of no pixels that they show the same point: it needs track_pixel and "
            "track_visible, as DyCheck's keypoints are read, or flow and scene_flow, as scenes have"
        )


def _along_flow(truth: xr.Dataset) -> Iterator[Pair]:
    labels = truth["frame"].values if "frame" in truth.coords else np.arange(truth.sizes["frame"])
    y, x = np.indices((truth.sizes["y"], truth.sizes["x"]), np.float64)
    here = np.stack([x, y], axis=-1)
    for first, second in pairwise(range(len(labels))):
        if labels[second] - labels[first] != 1:
            continue
        flow, motion = (
            truth[name].isel(frame=first).transpose("y", "x", ...).values.astype(np.float64)
            for name in ("flow", "scene_flow")
        )
        depth = truth["depth"].isel(frame=first).transpose("y", "x").values
        moved = world_points(truth, first) + motion
        known = (np.isfinite(moved) & np.isfinite(motion)).all(axis=-1)
        known &= np.isfinite(flow).all(axis=-1)
        there = (here + flow)[known]
        missed = np.linalg.norm(sample(world_points(truth, second), there) - moved[known], axis=1)
        seen = missed <= MISSES * depth[known]
        moving = (motion[known] != 0).any(axis=1)
        yield Pair(first, second, (here[known][seen], there[seen]), moving[seen])


def world_points(truth: xr.Dataset, frame: int) -> Points:
    """Return the true points (y, x, xyz) of a frame, in the world; NaN where depth is not known."""
    one = truth.isel(frame=frame)
    depth = one["depth"].transpose("y", "x").values.astype(np.float64)
    depth = np.where(valid_depth(depth), depth, np.nan)
    return unproject(depth, one["intrinsics"].values, one["pose"].transpose("row", "col").values)


class _Compared(NamedTuple):
    """Places (point, xyz) of the points of a pair: of each frame the true and the predicted ones.

    `apart` says whether the frames are two; `moving` (point) is that of `Pair`.
    """

    places: tuple[tuple[Points, Points], tuple[Points, Points]]
    moving: NDArray[np.bool_] | None
    apart: bool


def _compared(
    truth: xr.Dataset, prediction: xr.Dataset, to_prediction: ArrayLike | None
) -> Iterator[_Compared]:
    """Find the points of every pair that both clouds know, not aligned yet."""
    move = np.eye(3) if to_prediction is None else np.asarray(to_prediction, np.float64)
    last = np.array([prediction.sizes["x"], prediction.sizes["y"]]) - 1

    @lru_cache(_KEPT)
    def clouds(frame: int) -> tuple[Points, Points]:
        predicted = prediction["points_world"].isel(frame=frame).transpose("y", "x", "xyz")
        return world_points(truth, frame), predicted.values

    def places(frame: int, pixels: Points) -> tuple[Points, Points, NDArray[np.bool_]]:
        """Return true and predicted places (point, xyz) of pixels, and which of them count."""
        there = pixels @ move[:2, :2].T + move[:2, 2]
        true, given = (sample(*each) for each in zip(clouds(frame), (pixels, there), strict=True))
        counted = np.isfinite(true).all(axis=1) & _inside(there, last)
        if not np.isfinite(given[counted]).all():
            raise UndefinedMetric(
                "predicted points are NaN or infinite at pixels of tracks; a score over the rest "
                "would hide them"
            )
        return true, given, counted

    for pair in true_pairs(truth):
        first = places(pair.first, pair.pixels[0])
        second = places(pair.second, pair.pixels[1])
        both = first[2] & second[2]
        if both.any():
            yield _Compared(
                ((first[0][both], first[1][both]), (second[0][both], second[1][both])),
                None if pair.moving is None else pair.moving[both],
                pair.first != pair.second,
            )


def _aligned(pair: _Compared, similarity: Similarity) -> Iterator[tuple[Points, Points]]:
    """Return true and aligned predicted places, of the first frame and of the second."""
    for true, given in pair.places:
        yield true, similarity.apply_to_points(given)


def score_tracks(
    truth: xr.Dataset,
    prediction: xr.Dataset,
    align: str = "sim3",
    to_prediction: ArrayLike | None = None,
) -> xr.Dataset:
    """Score where points of a moving scene are predicted to be, and how they move.

    Both clouds are interpolated between pixels, so that a perfect prediction has no error.

    Parameters
    ----------
    truth : Dataset
        ``depth`` (frame, y, x) m, ``pose`` (frame, row, col) camera-to-world, ``intrinsics``
        (frame, 3, 3), and which pixels show the same point (`true_pairs`).
    prediction : Dataset
        ``points_world`` (frame, y, x, xyz) and ``pose``, corresponding frame by frame.
    align : {"sim3", "se3", "none", "sim3_points"}
        Alignment of the predicted camera path, or of the compared points.
    to_prediction : array_like, optional
        (row, col), 3x3: pixels of the truth to pixels of the prediction; by default the same.

    Returns
    -------
    Dataset
        `TRACK_METRICS`, NaN for a displacement that no pair of frames has; ``points``, how many
        pairs of pixels were compared; and the alignment.

    Raises
    ------
    InvalidArgument
        Missing variables or frames that do not correspond.
    UndefinedMetric
        No two frames show the same point, a prediction that is not finite where they do, or a path
        that cannot be aligned.

    Examples
    --------
    >>> scene = m3.open_sequence("scenes/orbit-03", stop=4)
    >>> clouds = [world_points(scene, frame) for frame in range(4)]
    >>> perfect = scene[["pose"]].assign(points_world=(("frame", "y", "x", "xyz"), clouds))
    >>> float(score_tracks(scene, perfect)["track_error"]) < 1e-12
    True
    """
    for name, dataset, needed in (
        ("truth", truth, ("depth", "pose", "intrinsics")),
        ("prediction", prediction, ("points_world", "pose")),
    ):
        if missing := [each for each in needed if each not in dataset]:
            raise InvalidArgument(f"{name} lacks {', '.join(missing)}")
    check_frames(truth, prediction)
    one_of("align", align, TRACK_ALIGNMENTS)
    compared = list(_compared(truth, prediction, to_prediction))
    if not compared:
        raise UndefinedMetric("no two frames are known to show the same point")
    if align == "sim3_points":
        given, true = (
            np.concatenate([each.places[1][side] for each in compared]) for side in (1, 0)
        )
        similarity = fit_similarity(given, true)
    else:
        given, true = (
            each["pose"].transpose("frame", "row", "col").values[:, :3, 3]
            for each in (prediction, truth)
        )
        similarity = fit_similarity(given, true, align)
    measured: dict[str, list[float]] = {
        key: [] for key in ("error", "within_5cm", "within_10cm", "flow", "moving")
    }
    for pair in compared:
        first, second = (given - true for true, given in _aligned(pair, similarity))
        error, flow = (np.linalg.norm(each, axis=1) for each in (second, second - first))
        measured["error"].append(float(error.mean()))
        measured["within_5cm"].append(float((error < 0.05).mean()))
        measured["within_10cm"].append(float((error < 0.1).mean()))
        if pair.apart:
            measured["flow"].append(float(flow.mean()))
        if pair.apart and pair.moving is not None and pair.moving.any():
            measured["moving"].append(float(flow[pair.moving].mean()))
    count = sum(len(pair.places[1][0]) for pair in compared)
    units = {"units": truth["depth"].attrs.get("units", "m")}
    scores = xr.Dataset(attrs={"align": align})
    for name, row in TRACK_METRICS.items():
        values = row.values(measured)
        attrs = row.attrs | (units if row.units == "m" else {})
        scores[name] = ((), row.pool(values) if values else np.nan, attrs)
    scores["points"] = ((), count, {"long_name": "pairs of pixels compared"})
    return scores.assign(similarity.to_variables(units)).assign_coords(axis=["x", "y", "z"])
