"""Camera-path errors: absolute trajectory error and relative pose error.

Definitions of Sturm et al., "A Benchmark for the Evaluation of RGB-D SLAM Systems" (2012), with the
alignment of Umeyama before either; the numbers equal those of evo's ``ape`` (translation part) and
``rpe`` (frame delta, all pairs).
"""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import xarray as xr
from numpy.typing import ArrayLike, NDArray
from scipy.spatial.transform import Rotation

from mut3r_analysis.errors import InvalidArgument
from mut3r_analysis.metrics.errors import UndefinedMetric
from mut3r_analysis.metrics.metric import Metric, rows
from mut3r_analysis.metrics.pairs import OTHER_UNITS, in_order
from mut3r_analysis.metrics.similarity import fit_similarity, on_a_line
from mut3r_analysis.metrics.trajectory_files import (
    associate_known,
    order_that_agrees,
    read_trajectory,
)

_CLEARLY = 0.25
"""Poses are said to be inverted if their inverses have at most this part of their errors."""
_RIGID = 0.05
"""Most that the determinant of a rotation may differ from one."""

STATISTICS = ("rmse", "mean", "median", "std", "min", "max", "sse")

POSE_METRICS = rows(
    Metric(name, label, long_name, units, "rmse", values, frames=name)
    for name, label, long_name, units, values in (
        ("ate", "ATE", "absolute trajectory error", "m",
         lambda truth, estimate, delta: absolute_errors(truth, estimate)),
        ("rpe_translation", "RPE translation", "relative translation error", "m",
         lambda truth, estimate, delta: relative_errors(truth, estimate, delta)[0]),
        ("rpe_rotation", "RPE rotation", "relative rotation error", "degree",
         lambda truth, estimate, delta: relative_errors(truth, estimate, delta)[1]),
    )
)  # fmt: skip
"""Errors of an aligned camera path."""
_OF_PAIRS = ("rpe_translation", "rpe_rotation")


def absolute_errors(truth: ArrayLike, estimate: ArrayLike) -> NDArray[np.float64]:
    """Distance between corresponding camera centres, per frame, without any alignment.

    Parameters
    ----------
    truth, estimate : array_like
        (frame, row, col), 4x4 camera-to-world.

    Examples
    --------
    >>> truth = np.tile(np.eye(4), (2, 1, 1))
    >>> estimate = truth.copy()
    >>> estimate[1, :3, 3] = 3, 0, 4
    >>> absolute_errors(truth, estimate)
    array([0., 5.])
    """
    wanted, given = _pose_pair(truth, estimate)
    return np.linalg.norm(given[:, :3, 3] - wanted[:, :3, 3], axis=1)


def relative_errors(
    truth: ArrayLike, estimate: ArrayLike, delta: int = 1
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Error of the motion between frames `delta` apart, over all such pairs, without any alignment.

    With truth Q and estimate P the error of a pair is
    ``E = (Q[i]^-1 Q[i+delta])^-1 (P[i]^-1 P[i+delta])``.

    Parameters
    ----------
    truth, estimate : array_like
        (frame, row, col), 4x4 camera-to-world.
    delta : int
        Frames between the two poses of a pair.

    Returns
    -------
    tuple of ndarray
        (pair) length of the translation of E, in the truth's units; (pair) rotation angle of E,
        degrees.

    Raises
    ------
    InvalidArgument
        Shapes do not correspond, or `delta` is below one.
    UndefinedMetric
        Too few frames for a single pair, or poses that are not finite.

    Examples
    --------
    >>> truth = np.tile(np.eye(4), (3, 1, 1))
    >>> estimate = truth.copy()
    >>> estimate[1:, 0, 3] = 0.5
    >>> translation, rotation = relative_errors(truth, estimate)
    >>> translation, rotation
    (array([0.5, 0. ]), array([0., 0.]))
    """
    wanted, given = _pose_pair(truth, estimate)
    if delta < 1:
        raise InvalidArgument(f"delta={delta}; give one frame or more")
    if len(wanted) <= delta:
        frames = f"{delta} frame{'s' * (delta != 1)}"
        raise UndefinedMetric(f"{len(wanted)} poses make no pair {frames} apart")
    error = _relative(
        _relative(wanted[:-delta], wanted[delta:]), _relative(given[:-delta], given[delta:])
    )
    angles = np.degrees(Rotation.from_matrix(error[:, :3, :3]).magnitude())
    return np.linalg.norm(error[:, :3, 3], axis=1), angles


def error_statistics(errors: ArrayLike) -> NDArray[np.float64]:
    """Summarise errors (frame) as (statistic), in the order of `STATISTICS`."""
    values = np.asarray(errors, dtype=np.float64)
    squares = float(np.sum(values**2))
    return np.array(
        [
            np.sqrt(squares / len(values)),
            values.mean(),
            np.median(values),
            values.std(),
            values.min(),
            values.max(),
            squares,
        ]
    )


def score_trajectory(
    truth: xr.DataArray,
    estimate: xr.DataArray,
    align: str = "sim3",
    delta: int = 1,
    *,
    all_pairs: bool = True,
) -> xr.Dataset:
    """Score a camera path under one alignment, fitted on all camera centres.

    Parameters
    ----------
    truth, estimate : DataArray
        (frame, row, col), 4x4 camera-to-world, corresponding frame by frame.
    align : {"sim3", "se3", "none"}
        Applied to the estimate before both errors. A rigid alignment leaves relative errors as they
        are, so ``"se3"`` gives the unaligned relative error.
    delta : int
        Frames between the poses of a relative error.
    all_pairs : bool
        Whether pairs begin at every frame, as in the released evaluations, or at every `delta`-th.

    Returns
    -------
    Dataset
        Every metric of `POSE_METRICS`, each the root mean square; ``frame_<metric>`` (frame), where
        an error of a pair stands at its first frame and others are NaN; ``statistics``
        (error, statistic); the alignment. Of a camera that moves on a straight line the rotation
        about that line is not determined, and no error depends on it: the attribute
        ``undetermined`` says so, and is empty elsewhere.

    Raises
    ------
    InvalidArgument
        Shapes do not correspond.
    UndefinedMetric
        There is no alignment, for instance because the camera stands still.

    Warns
    -----
    UserWarning
        The paths seem to be in different units, or the poses of one to be world-to-camera.

    Examples
    --------
    >>> scores = score_trajectory(run["truth/pose"], run["prediction/pose"], "sim3")
    >>> scores["frame_ate"].dims
    ('frame',)
    """
    paths = in_order(("frame", "row", "col"), truth=truth, estimate=estimate)
    wanted, given = _pose_pair(*(poses.values for poses in paths))
    centres = given[:, :3, 3], wanted[:, :3, 3]
    similarity = fit_similarity(*centres, align, line=True)
    straight = align != "none" and on_a_line(*centres)
    aligned = similarity.apply_to_poses(given)
    _warn_of_nonsense(wanted, given, aligned, align)
    errors = {
        name: np.asarray(row.values(wanted, aligned, delta), np.float64)
        for name, row in POSE_METRICS.items()
    }
    starts = slice(None, None, 1 if all_pairs else delta)
    errors |= {name: errors[name][starts] for name in _OF_PAIRS}
    scores = xr.Dataset(
        {
            "n": ((), len(wanted), {"long_name": "poses scored"}),
            "statistics": (
                ("error", "statistic"), np.stack([error_statistics(e) for e in errors.values()]),
            ),
            **similarity.to_variables({"units": "m"}),
        },
        coords={"error": list(errors), "statistic": list(STATISTICS), "axis": ["x", "y", "z"]},
        attrs={
            "align": align,
            "delta": delta,
            "pairs": "all" if all_pairs else "consecutive",
            "undetermined": "rotation of the alignment about a straight path" if straight else "",
        },
    )  # fmt: skip
    for name, values in errors.items():
        row = POSE_METRICS[name]
        scores[name] = ((), row.pool(values), row.attrs)
        padded = np.full(len(wanted), np.nan)
        taken = padded[: -delta if name in _OF_PAIRS else None]
        taken[starts if name in _OF_PAIRS else slice(None)] = values
        scores[f"frame_{row.frames}"] = ("frame", padded, row.attrs)
    if "frame" in truth.coords:
        scores = scores.assign_coords(frame=truth["frame"])
    return scores


def compare_trajectories(
    truth_path: str | Path,
    estimate_path: str | Path,
    align: str = "sim3",
    max_difference: float = 0.01,
    quaternion: str | None = None,
    truth_quaternion: str | None = None,
    *,
    delta: int = 1,
    all_pairs: bool = True,
) -> xr.Dataset:
    """Score one trajectory file against another.

    Parameters
    ----------
    truth_path, estimate_path : str or Path
        Files as `read_trajectory` takes them. One without stamps, of KITTI, is scored against
        another such, frame by frame.
    align : {"sim3", "se3", "none"}
        Alignment of the estimate.
    max_difference : float
        Largest difference of associated stamps, seconds.
    quaternion, truth_quaternion : {"xyzw", "wxyz"}, optional
        Declared order of either file. By default the TUM order, refused when evidence in the files,
        or between them, speaks for the other one.
    delta, all_pairs
        As for `score_trajectory`.

    Returns
    -------
    Dataset
        As `score_trajectory`, with stamps as coordinates, the camera centres that were compared,
        ``true_position`` and the aligned ``position`` (frame, axis), and the association and the
        quaternion order of both files, with the evidence for it, in the attributes.

    Raises
    ------
    MissingFile, UnreadableFile, InvalidArgument, UndefinedMetric
        As `read_trajectory`, `associate_known` and `score_trajectory`.

    Examples
    --------
    >>> for name, scale in (("truth", 1.0), ("own", 0.5)):
    ...     poses = [[t, t * scale, t % 3 * scale, 0, 0, 0, 0, 1] for t in range(6)]
    ...     np.savetxt(f"{name}.txt", poses)
    >>> scores = compare_trajectories("truth.txt", "own.txt", align="sim3")
    >>> round(float(scores["ate"]), 6), round(float(scores["alignment_scale"]), 6)
    (0.0, 2.0)
    """
    truth = read_trajectory(truth_path, truth_quaternion)
    estimate = read_trajectory(estimate_path, quaternion)
    matrices = [path.quaternion == "none" for path in (truth, estimate)]
    if any(matrices) and (not all(matrices) or len(truth) != len(estimate)):
        raise InvalidArgument(
            f"{truth.name} has {len(truth)} poses and {estimate.name} {len(estimate)}, and files "
            "of KITTI have no stamps to pair them by: both must be KITTI's and equally long"
        )
    kept_truth, kept_estimate = associate_known(truth, estimate, max_difference)
    wanted, given = truth.poses[kept_truth], estimate.poses[kept_estimate]
    evidence = estimate.evidence
    if quaternion is None and not any(matrices):
        agreeing = order_that_agrees(wanted, given)
        if agreeing == "wxyz":
            raise InvalidArgument(
                f"the rotations in {estimate.name} agree with {truth.name} when its quaternions "
                "are read wxyz, not in TUM order (xyzw); declare quaternion='wxyz' for the "
                "estimate, or quaternion='xyzw' to insist"
            )
        if agreeing == "xyzw":
            evidence = f"{evidence}; rotations agree with the truth"
    scores = score_trajectory(
        xr.DataArray(wanted, dims=("frame", "row", "col")),
        xr.DataArray(given, dims=("frame", "row", "col")),
        align,
        delta,
        all_pairs=all_pairs,
    )
    scores = _with_positions(scores, wanted[:, :3, 3], given[:, :3, 3])
    reused = len(wanted) - min(len(np.unique(kept_truth)), len(np.unique(kept_estimate)))
    return scores.assign_coords(
        stamp=("frame", truth.stamps[kept_truth], {"units": "s"}),
        estimate_stamp=("frame", estimate.stamps[kept_estimate], {"units": "s"}),
    ).assign_attrs(
        truth=truth.name,
        estimate=estimate.name,
        n_truth=len(truth),
        n_estimate=len(estimate),
        n_reused=reused,
        max_difference=max_difference,
        quaternion=estimate.quaternion,
        quaternion_evidence=evidence,
        truth_quaternion=truth.quaternion,
        truth_quaternion_evidence=truth.evidence,
    )


def _with_positions(
    scores: xr.Dataset, wanted: NDArray[np.float64], given: NDArray[np.float64]
) -> xr.Dataset:
    """Add true and aligned camera centres (frame, axis)."""
    turned = given @ scores["alignment_rotation"].values.T
    aligned = float(scores["alignment_scale"]) * turned + scores["alignment_translation"].values
    return scores.assign(
        true_position=(("frame", "axis"), wanted, {"units": "m"}),
        position=(("frame", "axis"), aligned, {"units": "m"}),
    )


def _warn_of_nonsense(
    wanted: NDArray[np.float64],
    given: NDArray[np.float64],
    aligned: NDArray[np.float64],
    align: str,
) -> None:
    """Say what an alignment hides: other units of length, and poses the other way round."""
    sizes = [np.linalg.norm(np.std(poses[:, :3, 3], axis=0)) for poses in (given, wanted)]
    ratio = sizes[0] / sizes[1] if min(sizes) > 0 else 1.0
    if not 1 / OTHER_UNITS < ratio < OTHER_UNITS:
        warnings.warn(
            f"the estimated path is {ratio:.3g} times as large as the true one: are both in "
            "metres? Millimetres are 1,000 times as many",
            stacklevel=4,
        )
    own = _rms_errors(wanted, aligned)
    for name, truth, estimate in (
        ("estimated", wanted, _inverse(given)), ("true", _inverse(wanted), given)
    ):  # fmt: skip
        try:
            fitted = fit_similarity(estimate[:, :3, 3], truth[:, :3, 3], align)
        except UndefinedMetric:
            continue
        turned = _rms_errors(truth, fitted.apply_to_poses(estimate))
        if all(better < _CLEARLY * worse for better, worse in zip(turned, own, strict=True)):
            warnings.warn(
                f"with the {name} poses inverted, the paths differ by {turned[0]:.3g} instead of "
                f"{own[0]:.3g}: the {name} poses seem to be world-to-camera, and poses are "
                "camera-to-world here; invert them",
                stacklevel=4,
            )
            return


def _inverse(poses: NDArray[np.float64]) -> NDArray[np.float64]:
    return _relative(poses, np.broadcast_to(np.eye(4), poses.shape))


def _rms_errors(truth: NDArray[np.float64], estimate: NDArray[np.float64]) -> list[float]:
    """Root mean squares of the absolute error and, degrees, of the relative rotation error."""
    errors = absolute_errors(truth, estimate), relative_errors(truth, estimate)[1]
    return [float(np.sqrt(np.mean(each**2))) for each in errors]


def _relative(start: NDArray[np.float64], end: NDArray[np.float64]) -> NDArray[np.float64]:
    """Motion (pair, row, col) from poses `start` to poses `end`, by the rigid inverse."""
    back = start[:, :3, :3].transpose(0, 2, 1)
    moved = np.zeros_like(start)
    moved[:, :3, :3] = back @ end[:, :3, :3]
    moved[:, :3, 3] = (back @ (end[:, :3, 3] - start[:, :3, 3])[:, :, None])[:, :, 0]
    moved[:, 3, 3] = 1.0
    return moved


def _pose_pair(
    truth: ArrayLike, estimate: ArrayLike
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    pair = []
    for name, poses in (("truth", truth), ("estimate", estimate)):
        array = np.asarray(poses, dtype=np.float64)
        if array.ndim != 3 or array.shape[1:] != (4, 4):
            raise InvalidArgument(f"{name} has shape {array.shape}, expected (frame, 4, 4)")
        if not np.isfinite(array).all():
            bad = np.flatnonzero(~np.isfinite(array).all(axis=(1, 2)))
            raise UndefinedMetric(
                f"{name} has NaN or infinity in {len(bad)} of {len(array)} poses, first at frame "
                f"{bad[0]}; leave those frames or the sequence out"
            )
        turned = np.linalg.det(array[:, :3, :3])
        if not (np.abs(turned - 1) < _RIGID).all():
            worst = int(np.abs(turned - 1).argmax())
            raise UndefinedMetric(
                f"{name} has poses that are no rigid transforms: the rotation at frame {worst} has "
                f"determinant {turned[worst]:g}"
            )
        pair.append(array)
    if len(pair[0]) != len(pair[1]):
        raise InvalidArgument(
            f"truth has {len(pair[0])} poses and estimate {len(pair[1])}; they must correspond "
            "frame by frame: associate them by stamp, or cut both to the same frames"
        )
    return pair[0], pair[1]
