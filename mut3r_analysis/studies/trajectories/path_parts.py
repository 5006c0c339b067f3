"""The error of a camera path in parts that add up: misplaced, scaled, bent, and jittering."""

import numpy as np
import xarray as xr
from numpy.typing import NDArray
from scipy.fft import dct
from scipy.spatial.transform import Rotation

from mut3r_analysis.foundation.labelling import described
from mut3r_analysis.metrics import UndefinedMetric, fit_similarity, relative_errors

PARTS = ("placement", "scale", "bend", "jitter")
"""Parts of the mean squared distance to the true path, the first poses laid on each other."""

_MEANINGS = {
    "placement": "a rigid motion of the whole path takes it away",
    "scale": "one scale for the whole path takes it away",
    "bend": "stays after alignment, over more than 6 frames",
    "jitter": "stays after alignment, within 6 frames",
}
_WORDS = {
    "mean_square": ("mean squared error of the path", "m²"),
    "drift": ("distance to the true camera", "m"),
    "aligned": ("distance to the true camera after Sim(3) alignment", "m"),
    "ate": ("absolute trajectory error", "m"),
    "path_scale": ("scale in the alignment", "1"),
    "accumulation": ("ATE over RPE", "1"),
    "early": ("error in the first third, anchored at the first pose", "m"),
    "late": ("error in the last third, anchored at the first pose", "m"),
}
_FEWEST = 3


def path_parts(pose: xr.DataArray, true_pose: xr.DataArray) -> xr.Dataset:
    """Split the error of camera paths by what would take it away, and by how long it lasts.

    The estimate is first moved rigidly so that its first pose is the true one. Its mean squared
    distance to the true centres is then split by three fits, each of which contains the one before
    and so can only lower it: as it is, rigid, and similarity. What is left after the similarity is
    the squared ATE; a discrete cosine transform over the frames splits it by period, exactly.

    Periods are divided at 6 frames, because that is where the two errors weigh alike: an error with
    a period of T frames, in the squared step from frame to frame (the relative error), counts
    4 sin²(pi / T) times what it counts in position. Bending beyond 6 frames raises the ATE and
    hardly touches the relative error; jitter within 6 frames does the reverse.

    Parameters
    ----------
    pose : DataArray
        (..., frame, row, col), camera-to-world, m.
    true_pose : DataArray
        (..., frame, row, col), broadcast against `pose`.

    Returns
    -------
    Dataset
        ``mean_square`` (..., part) m², which adds up to the squared error of the anchored path;
        ``ate`` (...) m; ``path_scale`` (...), by which the estimate is multiplied in the alignment;
        ``accumulation`` (...), ATE over RPE of the aligned path, the steps over which a step's
        error adds up; ``early`` and ``late`` (...) m, the anchored error (root mean square) over
        the first and the last third of the frames; ``drift`` and ``aligned`` (..., frame) m, the
        distance of anchored and of aligned centres. Frames where either pose is missing are left
        out; where the alignment is not determined, what follows from it is NaN.
    """
    found = xr.apply_ufunc(
        _parts_of_path,
        pose,
        true_pose,
        input_core_dims=[["frame", "row", "col"]] * 2,
        output_core_dims=[["part"], ["number"], ["frame"], ["frame"]],
        vectorize=True,
    )
    parts, numbers, drift, aligned = found
    result = xr.Dataset({"mean_square": parts.assign_coords(part=list(PARTS)), "drift": drift})
    result["aligned"] = aligned
    result["meaning"] = ("part", [_MEANINGS[name] for name in PARTS])
    for position, name in enumerate(("ate", "path_scale", "accumulation", "early", "late")):
        result[name] = numbers.isel(number=position)
    return described(result, _WORDS)


def apart(pose: xr.DataArray, other: xr.DataArray) -> xr.Dataset:
    """Return how far two predictions of the same cameras are from each other.

    Parameters
    ----------
    pose, other : DataArray
        (..., row, col), camera-to-world, in the same world.

    Returns
    -------
    Dataset
        ``translation`` (...) m and ``rotation`` (...) degrees.
    """
    matrix = [["row", "col"]]
    translation, rotation = xr.apply_ufunc(
        _apart, pose, other, input_core_dims=matrix * 2, output_core_dims=[[], []]
    )
    words = {
        "translation": ("distance between camera positions", "m"),
        "rotation": ("angle between camera orientations", "degree"),
    }
    return described(xr.Dataset({"translation": translation, "rotation": rotation}), words)


def anchored(poses: NDArray[np.float64], first: NDArray[np.float64]) -> NDArray[np.float64]:
    """Move poses (frame, row, col) rigidly so that the first of them is `first` (row, col)."""
    return first @ np.linalg.inv(poses[0]) @ poses


def _parts_of_path(
    pose: NDArray[np.float64], truth: NDArray[np.float64]
) -> tuple[NDArray[np.float64], ...]:
    frames = len(pose)
    nothing = [np.full(n, np.nan) for n in (len(PARTS), 5, frames, frames)]
    known = np.isfinite(pose).all((1, 2)) & np.isfinite(truth).all((1, 2))
    if known.sum() < _FEWEST:
        return tuple(nothing)
    given, wanted = (np.asarray(each, np.float64)[known] for each in (pose, truth))
    given, target = anchored(given, wanted[0]), wanted[:, :3, 3]
    centres = given[:, :3, 3]
    parts, numbers, drift, aligned = nothing
    drift[known] = np.linalg.norm(centres - target, axis=1)
    third = max(1, len(given) // 3)
    numbers[3:] = [
        np.sqrt((some**2).mean()) for some in (drift[known][:third], drift[known][-third:])
    ]
    try:
        rigid, similar = (fit_similarity(centres, target, kind) for kind in ("se3", "sim3"))
    except UndefinedMetric:
        return parts, numbers, drift, aligned
    left = [fit.apply_to_points(centres) - target for fit in (rigid, similar)]
    squares = [float((each**2).sum(axis=1).mean()) for each in (centres - target, *left)]
    parts[:] = [squares[0] - squares[1], squares[1] - squares[2], *_slow_and_fast(left[1])]
    aligned[known] = np.linalg.norm(left[1], axis=1)
    ate = np.sqrt(squares[2])
    step, _ = relative_errors(wanted, similar.apply_to_poses(given))
    step_error = float(np.sqrt((step**2).mean()))
    numbers[:3] = ate, similar.scale, ate / step_error if step_error else np.nan
    return parts, numbers, drift, aligned


def _slow_and_fast(errors: NDArray[np.float64]) -> tuple[float, float]:
    """Split the mean square of errors (frame, xyz) at a period of 6 frames."""
    energy = (dct(errors, type=2, norm="ortho", axis=0) ** 2).sum(axis=1) / len(errors)
    # Component k has a period of 2 n / k frames.
    slow = 3 * np.arange(len(errors)) < len(errors)
    return float(energy[slow].sum()), float(energy[~slow].sum())


def _apart(
    one: NDArray[np.float64], other: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    one, other = np.broadcast_arrays(*(np.asarray(each, np.float64) for each in (one, other)))
    translation = np.linalg.norm(one[..., :3, 3] - other[..., :3, 3], axis=-1)
    rotation = np.full(translation.shape, np.nan)
    known = np.isfinite(one).all((-1, -2)) & np.isfinite(other).all((-1, -2))
    if known.any():
        between = Rotation.from_matrix(one[known][:, :3, :3]).inv() * Rotation.from_matrix(
            other[known][:, :3, :3]
        )
        rotation[known] = np.degrees(between.magnitude())
    return translation, rotation
