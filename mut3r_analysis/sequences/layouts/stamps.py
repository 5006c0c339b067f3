"""Time stamps: the lists of files and poses in the layout of the TUM RGB-D benchmark."""

from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from mut3r_analysis.errors import UnreadableFile
from mut3r_analysis.foundation.text_files import read_text

MAX_DIFFERENCE = 0.02
"""Stamps closer than this belong together, seconds."""

UNITS = {1e3: "milliseconds", 1e6: "microseconds", 1e9: "nanoseconds"}
"""Parts of a second by how many of them it has."""

_QUATERNION_TOLERANCE = 0.01
_SHORTEST = 1e-3


class PoseRows(NamedTuple):
    """What a file of poses holds.

    Attributes
    ----------
    numbers : ndarray
        (pose, 8), ``stamp tx ty tz q q q q``, sorted by stamp; a pose that is not finite is NaN
        behind its stamp. Rows of one stamp are all there, in the order of the file.
    comments : list of str
        Lines that begin with ``#``.
    notes : tuple of str
        What was odd about the file, with counts.
    """

    numbers: NDArray[np.float64]
    comments: list[str]
    notes: tuple[str, ...]


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
    entries, _, notes = _read_entries(path, columns)
    return {entry.stamp: entry.words for entry in entries}, notes


def read_rows(path: Path) -> PoseRows:
    """Read a file of poses, ``stamp tx ty tz q q q q`` a line, by whoever wants to know it.

    As evo reads it: stamps may repeat and need not be sorted, poses may be NaN. Commas may separate
    the numbers, and more columns may follow. All of that is in the notes.

    Raises
    ------
    MissingFile, UnreadableFile
        No file, a line that is not of this form, a quaternion not of unit length, or no pose.
    """
    entries, comments, notes = _read_entries(path, 7)
    numbers = np.empty((len(entries), 8))
    for row, (stamp, words, line) in zip(numbers, entries, strict=True):
        try:
            row[:] = [stamp, *map(float, words[:7])]
        except ValueError as error:
            raise UnreadableFile(
                f"{path}, line {line}: {error}; a pose is stamp tx ty tz qx qy qz qw"
            ) from error
        norm = np.linalg.norm(row[4:])
        if not np.isfinite(row).all():
            row[1:] = np.nan
        elif abs(norm - 1) > _QUATERNION_TOLERANCE:
            raise UnreadableFile(
                f"{path}, line {line}: the last four numbers have norm {norm:.4g}, and a "
                "quaternion has norm 1; are the columns stamp tx ty tz qx qy qz qw?"
            )
    lost = int(np.isnan(numbers[:, 1]).sum())
    if lost == len(numbers):
        raise UnreadableFile(
            f"{path}, line {entries[0].line}: NaN or infinity, as in each of its {lost} poses"
        )
    longer = sum(len(entry.words) > 7 for entry in entries)
    more = {"poses with NaN or infinity": lost, "lines with more than 8 numbers": longer}
    return PoseRows(
        numbers, comments, (*notes, *(f"{path.name}: {what}: {n}" for what, n in more.items() if n))
    )


def read_poses(
    path: Path,
) -> tuple[NDArray[np.float64], NDArray[np.float64], tuple[str, ...]]:
    """Read a trajectory ``stamp tx ty tz qx qy qz qw``; of poses with one stamp, the last.

    Returns
    -------
    tuple
        Stamps (pose), poses (pose, row, col) camera-to-world, and notes as `read_rows` has.
        A pose that is not finite is NaN.

    Raises
    ------
    MissingFile, UnreadableFile
        As `read_rows`.
    """
    numbers, _, notes = read_rows(path)
    kept = numbers[np.append(np.diff(numbers[:, 0]) > 0, True)]
    return kept[:, 0], poses_from_rows(kept), notes


def poses_from_rows(rows: NDArray[np.float64], quaternion: str = "xyzw") -> NDArray[np.float64]:
    """Turn rows ``stamp tx ty tz q q q q`` into poses (frame, row, col); NaN stays NaN."""
    poses = np.full((len(rows), 4, 4), np.nan)
    known = np.isfinite(rows).all(axis=1)
    columns = rows[known, 4:8]
    columns = columns if quaternion == "xyzw" else np.roll(columns, -1, axis=1)
    poses[known] = np.eye(4)
    poses[known, :3, :3] = Rotation.from_quat(columns).as_matrix()
    poses[known, :3, 3] = rows[known, 1:4]
    return poses


class _Entry(NamedTuple):
    stamp: float
    words: list[str]
    line: int


def _read_entries(path: Path, columns: int) -> tuple[list[_Entry], list[str], tuple[str, ...]]:
    """Read entries sorted by stamp, comment lines, and notes about what was odd."""
    entries: list[_Entry] = []
    comments, commas = [], 0
    for number, line in enumerate(read_text(path).splitlines(), start=1):
        words = line.replace(",", " ").split()
        if not words:
            continue
        if words[0].startswith("#"):
            comments.append(line)
            continue
        try:
            stamp = float(words[0])
        except ValueError as error:
            raise UnreadableFile(
                f"{path}, line {number}: {words[0]!r} is no time stamp: {error}"
            ) from error
        if not np.isfinite(stamp) or len(words) <= columns:
            raise UnreadableFile(
                f"{path}, line {number}: {len(words)} numbers or names, expected a time stamp and "
                f"{columns} more words, got {line.strip()!r}"
            )
        entries.append(_Entry(stamp, words[1:], number))
        commas += "," in line
    if not entries:
        what = "poses" if columns > 1 else "entries"
        raise UnreadableFile(f"{path} holds no {what}, only blank lines and comments")
    steps = np.diff([entry.stamp for entry in entries])
    entries.sort(key=lambda entry: entry.stamp)
    backwards, repeated = int((steps < 0).sum()), len(entries) - len({e.stamp for e in entries})
    notes = []
    if backwards:
        notes.append(f"{path.name} was sorted by time; stamps that ran backwards: {backwards}")
    if repeated:
        notes.append(f"{path.name}: entries that repeat a stamp: {repeated}")
    if commas:
        notes.append(f"{path.name}: lines with commas: {commas}")
    return entries, comments, tuple(notes)


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


def unit_factor(first: NDArray[np.float64], second: NDArray[np.float64]) -> float | None:
    """Return the power of 1,000 by which `second` counts time in other units, None if in the same.

    Named only where dividing by it lays the one stretch of time on the other.
    """
    for factor in (f for unit in UNITS for f in (unit, 1 / unit)):
        scaled = second / factor
        overlap = min(first.max(), scaled.max()) - max(first.min(), scaled.min())
        if overlap >= 0.1 * max(np.ptp(first), np.ptp(scaled), _SHORTEST):
            return factor
    return None
