"""Time stamps: the lists of files and poses in the layout of the TUM RGB-D benchmark."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from mut3r_analysis.errors import UnreadableFile
from mut3r_analysis.sequences.layouts.formats import read_bytes

MAX_DIFFERENCE = 0.02
"""Stamps closer than this belong together, seconds."""

_QUATERNION_TOLERANCE = 0.01


def read_stamped(path: Path, columns: int) -> tuple[dict[float, list[str]], tuple[str, ...]]:
    """Read lines ``stamp word word ...``, sorted by stamp; ``#`` begins a comment line.

    Stamps that are not sorted are sorted, and of entries with the same stamp the last one counts,
    as in the released preparation; both are said in the notes.

    Parameters
    ----------
    path
        Text file.
    columns
        Words after the stamp; a line with fewer is an error.

    Returns
    -------
    tuple
        Stamp in seconds to the words after it, and notes.

    Raises
    ------
    MissingFile, UnreadableFile
        No file, a line that is not of this form, or no line at all.
    """
    try:
        lines = read_bytes(path).decode("utf-8").splitlines()
    except UnicodeDecodeError as error:
        raise UnreadableFile(f"{path} is not a text file: {error}") from error
    entries: list[tuple[float, list[str]]] = []
    for number, line in enumerate(lines, start=1):
        words = line.replace(",", " ").split()
        if not words or words[0].startswith("#"):
            continue
        try:
            stamp = float(words[0])
        except ValueError as error:
            raise UnreadableFile(f"{path}, line {number}: {words[0]!r} is no time stamp") from error
        if not np.isfinite(stamp) or len(words) <= columns:
            raise UnreadableFile(
                f"{path}, line {number}: expected a time stamp and {columns} more words, got "
                f"{line.strip()!r}"
            )
        entries.append((stamp, words[1:]))
    if not entries:
        raise UnreadableFile(f"{path} holds no entries, only blank lines and comments")
    merged = dict(sorted(entries, key=lambda entry: entry[0]))
    notes = []
    stamps = [stamp for stamp, _ in entries]
    backwards = int((np.diff(stamps) < 0).sum())
    if backwards:
        notes.append(f"{path.name} was sorted by time; stamps that ran backwards: {backwards}")
    if len(merged) < len(entries):
        notes.append(
            f"{path.name}: entries that repeat a stamp: {len(entries) - len(merged)}; the last of "
            "each was kept"
        )
    return merged, tuple(notes)


def read_poses(
    path: Path,
) -> tuple[NDArray[np.float64], NDArray[np.float64], tuple[str, ...]]:
    """Read a trajectory ``stamp tx ty tz qx qy qz qw``.

    Returns
    -------
    tuple
        Stamps (pose), poses (pose, row, col) camera-to-world, and notes as `read_stamped` has.
        A pose that is not finite is NaN.

    Raises
    ------
    MissingFile, UnreadableFile
        As `read_stamped`; and words that are no numbers, or quaternions not of unit length.
    """
    entries, notes = read_stamped(path, 7)
    try:
        numbers = np.array([words[:7] for words in entries.values()], np.float64)
    except ValueError as error:
        raise UnreadableFile(f"{path}: {error}; a pose is stamp tx ty tz qx qy qz qw") from error
    poses = np.full((len(numbers), 4, 4), np.nan)
    known = np.isfinite(numbers).all(axis=1)
    norms = np.linalg.norm(numbers[known, 3:], axis=1)
    if (np.abs(norms - 1) > _QUATERNION_TOLERANCE).any():
        worst = norms[np.abs(norms - 1).argmax()]
        raise UnreadableFile(
            f"{path}: a quaternion has length {worst:.4g} instead of 1; are the columns "
            "stamp tx ty tz qx qy qz qw?"
        )
    poses[known] = np.eye(4)
    poses[known, :3, :3] = Rotation.from_quat(numbers[known, 3:]).as_matrix()
    poses[known, :3, 3] = numbers[known, :3]
    return np.array(list(entries)), poses, notes


def write_poses(path: Path, stamps: NDArray[np.float64], poses: NDArray[np.floating]) -> None:
    """Write poses (frame, row, col) as a trajectory, leaving out those that are not finite."""
    lines = ["# timestamp tx ty tz qx qy qz qw"]
    for stamp, pose in zip(stamps, poses, strict=True):
        if np.isfinite(pose).all():
            numbers = [*pose[:3, 3], *Rotation.from_matrix(pose[:3, :3]).as_quat()]
            lines.append(" ".join([f"{stamp:.6f}", *(f"{number:.12g}" for number in numbers)]))
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def pair_stamps(
    first: NDArray[np.float64], second: NDArray[np.float64], max_difference: float = MAX_DIFFERENCE
) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Pair sorted stamps one to one, the closest pair first, as the TUM benchmark does.

    Of equally close pairs the earlier one is taken. Pairs `max_difference` apart or more are none.

    Returns
    -------
    tuple of ndarray
        Indices into `first` and into `second`, sorted by the stamps of `first`.
    """
    low = np.searchsorted(second, first - max_difference, side="left")
    high = np.searchsorted(second, first + max_difference, side="right")
    counts = high - low
    left = np.repeat(np.arange(len(first)), counts)
    within = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
    right = np.repeat(low, counts) + within
    difference = np.abs(first[left] - second[right])
    partner: dict[int, int] = {}
    taken: set[int] = set()
    for candidate in np.lexsort((right, left, difference)):
        a, b = int(left[candidate]), int(right[candidate])
        if difference[candidate] < max_difference and a not in partner and b not in taken:
            partner[a] = b
            taken.add(b)
    chosen = np.array(sorted(partner), np.intp)
    return chosen, np.array([partner[int(a)] for a in chosen], np.intp)
