"""Camera paths in text files: reading, quaternion order, association by time.

A TUM file holds ``stamp tx ty tz qx qy qz qw`` per line. Evaluation code of the CUT3R family
writes files that look the same with ``qw`` first. Both readings give unit quaternions and the same
relative rotation *angles* (reading one as the other inverts every rotation, up to a fixed change of
frames), so a smooth path stays smooth and nothing in its bare numbers settles the order. What can:
the caller, a comment that names the columns, a first pose that is the identity in one reading only,
or agreement with another path. The evidence that was found travels with the path.
"""

from __future__ import annotations

import re
import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.spatial.transform import Rotation

from mut3r_analysis.errors import InvalidArgument, MissingFile
from mut3r_analysis.foundation.fields import one_of
from mut3r_analysis.foundation.paths import user_path
from mut3r_analysis.foundation.text_files import read_text
from mut3r_analysis.metrics.choices import ORDERS
from mut3r_analysis.sequences.layouts.stamps import UNITS, poses_from_rows, read_rows, unit_factor

LARGEST_STEP_DIFFERENCE_DEGREES = 1.0
"""Two readings whose rotations differ by less than this from the truth cannot be told apart."""


LONGEST_STEP = 1000.0
"""Stamps further apart than this, typically, are not in seconds."""


_NANOSECONDS = 1e9
_LATEST = 1e12
"""Stamps from here on are no seconds of any clock."""
_ORTHOGONAL = 0.01
"""Most that rows of a rotation may miss of being orthogonal and of unit length."""


@dataclass(frozen=True, eq=False)
class Trajectory:
    """A camera path over time.

    Attributes
    ----------
    stamps : ndarray
        (frame), seconds, sorted; some may repeat.
    poses : ndarray
        (frame, row, col), 4x4 camera-to-world; NaN where the file has no finite pose.
    quaternion : str
        The order the file was read in, ``"xyzw"`` or ``"wxyz"``; ``"none"`` of matrices.
    evidence : str
        Why that order was used.
    name : str
        Where the path comes from, for messages.
    """

    stamps: NDArray[np.float64]
    poses: NDArray[np.float64]
    quaternion: str
    evidence: str
    name: str

    def __len__(self) -> int:
        return len(self.stamps)


def read_trajectory(path: str | Path, quaternion: str | None = None) -> Trajectory:
    """Read a trajectory file of TUM, KITTI or EuRoC; lines that start with ``#`` are comments.

    KITTI's are known by twelve numbers a line, which make a rigid transform, and are stamped by
    their order; EuRoC's by the names of their columns, and their stamps are nanoseconds. A TUM file
    is read as evo reads it: NaN rows and repeated stamps are kept, unsorted ones sorted, and
    commas and further columns passed over. A warning counts what was odd.

    Parameters
    ----------
    path : str or Path
        Text file, in UTF-8.
    quaternion : {"xyzw", "wxyz"}, optional
        The declared order. By default what EuRoC's header says, else the order of the TUM format,
        ``xyzw``, which is refused when the file itself says otherwise.

    Raises
    ------
    MissingFile, UnreadableFile
        No such file, a line that is not a pose, or no finite pose at all.
    InvalidArgument
        The declared order contradicts the column names in the file, or none was declared and the
        first pose is the identity only when read ``wxyz``.

    Examples
    --------
    >>> np.savetxt("path.txt", [[t, t, 0, 0, 0, 0, 0, 1] for t in range(2)])
    >>> read_trajectory("path.txt").poses.shape
    (2, 4, 4)
    """
    one_of("quaternion", quaternion, (None, *ORDERS))
    file = user_path(path)
    if not file.exists():
        raise MissingFile(f"no trajectory file at {file}")
    if (kitti := _kitti_poses(file)) is not None:
        stamps = np.arange(len(kitti), dtype=np.float64)
        return Trajectory(stamps, kitti, "none", "KITTI: matrices", str(file))
    rows, comments, notes = read_rows(file)
    named = _order_in_comments(comments)
    if quaternion is None and any("p_RS_R" in line for line in comments):
        if rows[0, 0] > _LATEST:
            rows[:, 0] /= _NANOSECONDS
        order = named or "wxyz"
        return Trajectory(
            rows[:, 0], poses_from_rows(rows, order), order, "EuRoC: named columns", str(file)
        )
    if quaternion is not None and named is not None and named != quaternion:
        raise InvalidArgument(
            f"quaternion={quaternion!r} was declared, but a comment in {file} names the columns "
            f"in the order {named}; declare {named!r} or correct the file"
        )
    identity = order_of_identity(_first_known(rows))
    if quaternion is not None:
        order, evidence = quaternion, "declared"
    elif named == "wxyz" or (named is None and identity == "wxyz"):
        why, otherwise = (
            ("a comment names qw first", "correct the comment")
            if named
            else ("its first pose is the identity only as wxyz", "quaternion='xyzw' to insist")
        )
        raise InvalidArgument(
            f"{file} is not in TUM order: {why}, where TUM has qx qy qz qw; "
            f"declare quaternion='wxyz' to read it so, or {otherwise}"
        )
    elif named is not None:
        order, evidence = named, "columns named in the file"
    elif identity is not None:
        order, evidence = identity, "first pose is the identity"
    else:
        order, evidence = "xyzw", "TUM format, unconfirmed by the file"
    if notes:
        warnings.warn(f"{file.parent}: {'; '.join(notes)}", stacklevel=2)
    return Trajectory(rows[:, 0], poses_from_rows(rows, order), order, evidence, str(file))


def _kitti_poses(file: Path) -> NDArray[np.float64] | None:
    """Return poses (frame, row, col) of a file of 3x4 matrices, row by row; None of another."""
    words = [line.split() for line in read_text(file).splitlines() if line.strip()]
    if not words or {len(each) for each in words} != {12}:
        return None
    try:
        matrices = np.array(words, dtype=np.float64).reshape(-1, 3, 4)
    except ValueError:
        return None
    turned = matrices[:, :, :3]
    if np.abs(turned @ turned.transpose(0, 2, 1) - np.eye(3)).max() > _ORTHOGONAL:
        return None
    last = np.broadcast_to([0.0, 0.0, 0.0, 1.0], (len(matrices), 1, 4))
    return np.concatenate([matrices, last], axis=1)


def detect_order(path: str | Path, truth: NDArray[np.float64] | None = None) -> tuple[str, str]:
    """Find the quaternion order of a file that looks like TUM's and need not be in its order.

    Parameters
    ----------
    path : str or Path
        Text file of eight numbers a line.
    truth : ndarray, optional
        (frame, row, col), the true path, where its poses correspond to the file's line by line.

    Returns
    -------
    tuple of str
        ``"xyzw"`` or ``"wxyz"``, and the evidence for it.

    Raises
    ------
    MissingFile, UnreadableFile
        As `read_trajectory`.
    InvalidArgument
        Nothing in the file, or between file and truth, tells the order, or the evidence contradicts
        itself.

    Examples
    --------
    >>> poses = [[t, t, 0, 0, 1, 0, 0, 0] for t in range(2)]
    >>> np.savetxt("path.txt", poses, header="t tx ty tz qw qx qy qz")
    >>> detect_order("path.txt")
    ('wxyz', 'columns named in the file; first pose is the identity')
    """
    file = user_path(path)
    rows, comments, _ = read_rows(file)
    found = {
        "columns named in the file": _order_in_comments(comments),
        "first pose is the identity": order_of_identity(_first_known(rows)),
    }
    if truth is not None and len(truth) == len(rows):
        agreeing = order_that_agrees(truth, poses_from_rows(rows, "xyzw"))
        found["its rotations agree with the truth"] = agreeing
    evidence = {why: order for why, order in found.items() if order is not None}
    if len(set(evidence.values())) == 1:
        return next(iter(evidence.values())), "; ".join(evidence)
    if evidence:
        sides = "; ".join(f"{order}: {why}" for why, order in evidence.items())
        problem = f"contradicts itself ({sides})"
    else:
        problem = "is missing: no comment names the columns, the first pose is no identity"
        problem += "" if truth is None else ", and the rotations do not tell"
    raise InvalidArgument(
        f"evidence for the quaternion order of {file} {problem}; "
        "declare quaternion='wxyz' or quaternion='xyzw'"
    )


def _first_known(rows: NDArray[np.float64]) -> NDArray[np.float64]:
    return rows[np.isfinite(rows).all(axis=1)][0]


def order_of_identity(row: ArrayLike) -> str | None:
    """Say in which order a first pose at the origin is the identity rotation, or None for neither.

    The tolerance (5 degrees, and 5 cm or units of the path) admits the nearly-identity first pose
    that a network predicts.
    """
    values = np.asarray(row, dtype=np.float64)
    threshold = np.cos(np.radians(5.0) / 2)
    if np.linalg.norm(values[1:4]) > 0.05:
        return None
    unit = np.abs(values[4:8]) / np.linalg.norm(values[4:8])
    if unit[3] >= threshold:
        return "xyzw"
    return "wxyz" if unit[0] >= threshold else None


def order_that_agrees(truth: NDArray[np.float64], estimate: NDArray[np.float64]) -> str | None:
    """Say which order of the estimate's file its rotations fit, given that it was read as xyzw.

    Rotations between frames a third of the path apart are compared with the truth's. An order is
    named only when its median residual is less than half of the other's and the other's is above a
    degree; otherwise None: the rotations cannot tell.

    Parameters
    ----------
    truth, estimate : ndarray
        (frame, row, col), associated frame by frame. Frames where either holds a number that is
        not finite, as where a camera was lost, are left out.
    """
    known = np.isfinite(truth).all(axis=(1, 2)) & np.isfinite(estimate).all(axis=(1, 2))
    truth, estimate = truth[known], estimate[known]
    lag = max(1, len(truth) // 3)
    if len(truth) <= lag:
        return None
    wanted = Rotation.from_matrix(truth[:, :3, :3])
    as_xyzw = Rotation.from_matrix(estimate[:, :3, :3])
    as_wxyz = Rotation.from_quat(np.roll(as_xyzw.as_quat(), -1, axis=1))
    step = wanted[:-lag].inv() * wanted[lag:]
    residuals = {}
    for order, read in (("xyzw", as_xyzw), ("wxyz", as_wxyz)):
        moved = read[:-lag].inv() * read[lag:]
        residuals[order] = float(np.degrees(np.median((step.inv() * moved).magnitude())))
    better, worse = sorted(residuals, key=lambda order: residuals[order])
    decided = residuals[worse] > max(2 * residuals[better], LARGEST_STEP_DIFFERENCE_DEGREES)
    return better if decided else None


def associate(
    truth: ArrayLike, estimate: ArrayLike, max_difference: float = 0.01
) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Pair two lists of stamps: each stamp of the shorter list with the nearest of the longer.

    As evo pairs them: the estimate's stamps are looked up when both lists are equally long, a tie
    goes to the earlier stamp, and a stamp of the longer list may serve two of the shorter when it
    is nearest to both.

    Parameters
    ----------
    truth, estimate : array_like
        (frame), seconds, strictly increasing.
    max_difference : float
        Largest difference of a pair, seconds.

    Returns
    -------
    tuple of ndarray
        Indices into `truth` and into `estimate`, of equal length.

    Raises
    ------
    InvalidArgument
        Stamps are empty, unsorted, duplicate or not finite, or no pair is close enough.

    Examples
    --------
    >>> associate([0.0, 0.1, 0.2], [0.004, 0.201])
    (array([0, 2]), array([0, 1]))
    """
    return _nearest(
        check_stamps(truth, "truth"), check_stamps(estimate, "estimate"), max_difference
    )


def associate_known(
    truth: Trajectory, estimate: Trajectory, max_difference: float = 0.01
) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Pair the finite poses of two paths as `associate` pairs stamps, which may repeat here.

    A warning says where the stamps of both can hardly be seconds.

    Returns
    -------
    tuple of ndarray
        Indices into the poses of `truth` and of `estimate`, of equal length.

    Raises
    ------
    InvalidArgument
        No pair is close enough, or the two count time in different units.
    """
    known = [np.flatnonzero(np.isfinite(path.poses).all((1, 2))) for path in (truth, estimate)]
    first, second = truth.stamps[known[0]], estimate.stamps[known[1]]
    if min(_typical_step(first), _typical_step(second)) > LONGEST_STEP:
        warnings.warn(
            f"poses of {truth.name} and {estimate.name} lie {_typical_step(first):g} apart: these "
            f"stamps are not seconds, and max_difference={max_difference:g} counts in their unit; "
            "write them in seconds",
            stacklevel=3,
        )
    pairs = _nearest(first, second, max_difference)
    return known[0][pairs[0]], known[1][pairs[1]]


def _nearest(
    first: NDArray[np.float64], second: NDArray[np.float64], max_difference: float
) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Pair sorted stamps of the truth and of the estimate, or say why none fits."""
    if not (np.isfinite(max_difference) and max_difference >= 0):
        raise InvalidArgument(f"max_difference={max_difference}; give seconds, zero or more")
    truth_is_short = len(second) > len(first)
    short, long = (first, second) if truth_is_short else (second, first)
    after = np.clip(np.searchsorted(long, short, side="right"), 0, len(long) - 1)
    before = np.maximum(after - 1, 0)
    nearest = np.where(short - long[before] <= long[after] - short, before, after)
    kept = np.flatnonzero(np.abs(long[nearest] - short) <= max_difference)
    factor = unit_factor(first, second)
    if factor is not None and len(kept) < len(short) / 2:
        unit = round(max(factor, 1 / factor))
        raise InvalidArgument(
            f"only {len(kept)} stamps lie within {max_difference:g} s of each other: the "
            f"{'estimate' if factor > 1 else 'truth'} counts time in units 1e{len(str(unit)) - 1} "
            f"times as fine as the other's, as {UNITS[unit]} are; write the stamps of both in "
            "seconds"
        )
    if not kept.size:
        gap = float(np.abs(long[nearest] - short).min())
        raise InvalidArgument(
            f"no stamps within {max_difference:g} s of each other: truth spans {first[0]:.6f} to "
            f"{first[-1]:.6f}, estimate {second[0]:.6f} to {second[-1]:.6f}, the closest are "
            f"{gap:.6g} s apart; if the estimate counts frames, give it the truth's stamps first"
        )
    return (kept, nearest[kept]) if truth_is_short else (nearest[kept], kept)


def check_stamps(stamps: ArrayLike, name: str = "stamps") -> NDArray[np.float64]:
    """Return stamps as float64, refusing those that are empty, not finite, repeated or unsorted."""
    array = np.asarray(stamps, dtype=np.float64)
    if array.ndim != 1 or not array.size or not np.isfinite(array).all():
        raise InvalidArgument(f"{name}: expected a non-empty list of finite stamps (frame)")
    steps = np.diff(array)
    if (steps == 0).any():
        at = int(np.flatnonzero(steps == 0)[0])
        raise InvalidArgument(
            f"{name}: stamp {array[at]:.6f} appears twice (entries {at} and {at + 1}); "
            "keep one pose per stamp"
        )
    if (steps < 0).any():
        at = int(np.flatnonzero(steps < 0)[0])
        raise InvalidArgument(
            f"{name}: stamps are not sorted, {array[at + 1]:.6f} follows {array[at]:.6f} "
            f"(entries {at} and {at + 1}); sort the poses by time"
        )
    return array


def _typical_step(stamps: NDArray[np.float64]) -> float:
    """Return the median distance between stamps (frame) that follow each other; 0 for one."""
    return float(np.median(np.diff(stamps))) if len(stamps) > 1 else 0.0


def _order_in_comments(lines: list[str]) -> str | None:
    """Tell the order in which a comment names the columns, ``qw`` or EuRoC's ``q_RS_w []``."""
    for line in lines:
        named = re.findall(r"\bq(?:\w*_)?([wxyz])\b", line.lower())
        if {"w", "x"} <= set(named):
            return "xyzw" if named.index("x") < named.index("w") else "wxyz"
    return None
