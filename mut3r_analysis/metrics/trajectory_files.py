"""Camera paths in TUM text files: reading, quaternion order, association by time.

A TUM file holds ``stamp tx ty tz qx qy qz qw`` per line. Evaluation code of the CUT3R family
writes files that look the same with ``qw`` first. Both readings give unit quaternions and the same
relative rotation *angles* (reading one as the other inverts every rotation, up to a fixed change of
frames), so a smooth path stays smooth and nothing in its bare numbers settles the order. What can:
the caller, a comment that names the columns, a first pose that is the identity in one reading only,
or agreement with another path. The evidence that was found travels with the path.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.spatial.transform import Rotation

from mut3r_analysis.errors import InvalidArgument, MissingFile, UnreadableFile
from mut3r_analysis.metrics.choices import ORDERS

LARGEST_STEP_DIFFERENCE_DEGREES = 1.0
"""Two readings whose rotations differ by less than this from the truth cannot be told apart."""


@dataclass(frozen=True, eq=False)
class Trajectory:
    """A camera path over time.

    Attributes
    ----------
    stamps : ndarray
        (frame), seconds, strictly increasing.
    poses : ndarray
        (frame, row, col), 4x4 camera-to-world.
    quaternion : str
        The order the file was read in, ``"xyzw"`` or ``"wxyz"``.
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
    """Read a TUM trajectory file; lines that start with ``#`` are comments.

    Parameters
    ----------
    path : str or Path
        Text file of eight numbers a line.
    quaternion : {"xyzw", "wxyz"}, optional
        The declared order. By default the order of the TUM format, ``xyzw``, which is refused when
        the file itself says otherwise.

    Raises
    ------
    MissingFile, UnreadableFile
        No such file, or a line that is not a pose; stamps that repeat or run backwards.
    InvalidArgument
        The declared order contradicts the column names in the file, or none was declared and the
        first pose is the identity only when read ``wxyz``.
    """
    if quaternion is not None and quaternion not in ORDERS:
        raise InvalidArgument(f"quaternion={quaternion!r}; declare 'xyzw' or 'wxyz'")
    file = Path(path)
    rows, named = _read(file)
    if quaternion is not None and named is not None and named != quaternion:
        raise InvalidArgument(
            f"quaternion={quaternion!r} was declared, but a comment in {file} names the columns "
            f"in the order {named}; declare {named!r} or correct the file"
        )
    identity = order_of_identity(rows[0])
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
    return Trajectory(rows[:, 0], poses_from_rows(rows, order), order, evidence, str(file))


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
    """
    file = Path(path)
    rows, named = _read(file)
    found = {
        "columns named in the file": named,
        "first pose is the identity": order_of_identity(rows[0]),
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


def poses_from_rows(rows: NDArray[np.float64], quaternion: str) -> NDArray[np.float64]:
    """Turn rows ``stamp tx ty tz q q q q`` into poses (frame, row, col)."""
    columns = rows[:, 4:8] if quaternion == "xyzw" else np.roll(rows[:, 4:8], -1, axis=1)
    poses = np.zeros((len(rows), 4, 4))
    poses[:, :3, :3] = Rotation.from_quat(columns).as_matrix()
    poses[:, :3, 3] = rows[:, 1:4]
    poses[:, 3, 3] = 1.0
    return poses


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
    """
    first = check_stamps(truth, "truth")
    second = check_stamps(estimate, "estimate")
    if not (np.isfinite(max_difference) and max_difference >= 0):
        raise InvalidArgument(f"max_difference={max_difference}; give seconds, zero or more")
    truth_is_short = len(second) > len(first)
    short, long = (first, second) if truth_is_short else (second, first)
    after = np.clip(np.searchsorted(long, short, side="right"), 0, len(long) - 1)
    before = np.maximum(after - 1, 0)
    nearest = np.where(np.abs(short - long[before]) <= np.abs(long[after] - short), before, after)
    kept = np.flatnonzero(np.abs(long[nearest] - short) <= max_difference)
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


def _read(file: Path) -> tuple[NDArray[np.float64], str | None]:
    """Rows (frame, column) of a file, and the order that a comment in it names."""
    if not file.exists():
        raise MissingFile(f"no trajectory file at {file}")
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UnreadableFile(f"{file} cannot be read as text: {error}") from error
    return _rows(file, lines), _order_in_comments(lines)


def _rows(file: Path, lines: list[str]) -> NDArray[np.float64]:
    rows = []
    for number, line in enumerate(lines, start=1):
        text = line.strip()
        if not text or text.startswith("#"):
            continue
        words = text.split()
        try:
            values = [float(word) for word in words]
        except ValueError as error:
            raise UnreadableFile(f"{file}, line {number}: {error}") from error
        if len(values) != 8:
            raise UnreadableFile(
                f"{file}, line {number}: {len(values)} numbers, a TUM pose has 8 "
                "(stamp tx ty tz qx qy qz qw)"
            )
        if not np.isfinite(values).all():
            raise UnreadableFile(f"{file}, line {number}: NaN or infinity in a pose")
        norm = float(np.linalg.norm(values[4:]))
        if abs(norm - 1) > 0.01:
            raise UnreadableFile(
                f"{file}, line {number}: the last four numbers have norm {norm:.4g}, "
                "a rotation quaternion has 1"
            )
        rows.append(values)
    if not rows:
        raise UnreadableFile(f"{file} holds no poses, only blank lines and comments")
    array = np.array(rows)
    try:
        check_stamps(array[:, 0])
    except InvalidArgument as error:
        raise UnreadableFile(f"{file}: {error}") from error
    return array


def _order_in_comments(lines: list[str]) -> str | None:
    for line in lines:
        if line.strip().startswith("#"):
            words = line.replace("#", " ").replace(",", " ").lower().split()
            if "qw" in words and "qx" in words:
                return "xyzw" if words.index("qx") < words.index("qw") else "wxyz"
    return None
