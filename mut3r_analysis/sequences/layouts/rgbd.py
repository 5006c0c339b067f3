"""What TUM RGB-D and Bonn RGB-D have in common: stamped images, depth images and a trajectory.

::

    rgb/<stamp>.png  depth/<stamp>.png  rgb.txt  depth.txt  groundtruth.txt  [intrinsics.txt]

Depth is 16-bit, 5000 steps per metre. ``intrinsics.txt`` (fx fy cx cy) is not part of either data
set; exports have it, and it is preferred to the published calibration.
"""

from pathlib import Path

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from mut3r_analysis.errors import InvalidArgument, UnreadableFile
from mut3r_analysis.sequences.images import ImageFiles, visible
from mut3r_analysis.sequences.layouts import formats
from mut3r_analysis.sequences.layouts.files import INTRINSICS, POSE, SequenceFiles, planes
from mut3r_analysis.sequences.layouts.layout import Variables
from mut3r_analysis.sequences.layouts.stamps import (
    UNITS,
    pair_stamps,
    read_poses,
    read_stamped,
    unit_factor,
    write_poses,
)

STEPS_PER_METRE = 5000
CALIBRATED_SIZE = (480, 640)
"""Height and width of the images that published calibrations belong to."""

_FIRST_STAMP = 1000.0
_FRAMES_PER_SECOND = 30.0


def listed_files(folder: Path, kind: str) -> tuple[dict[float, Path], tuple[str, ...]]:
    """Read ``<kind>.txt``: stamp to file, and notes; without that file, names are the stamps."""
    index = folder / f"{kind}.txt"
    if index.is_file():
        entries, notes = read_stamped(index, 1)
        return {stamp: folder / words[0] for stamp, words in entries.items()}, notes
    return named_files(folder, kind), ()


def named_files(folder: Path, kind: str) -> dict[float, Path]:
    """Find ``<kind>/<stamp>.png``: stamp to file, sorted."""
    found = {}
    for file in visible(folder / kind, "*.png"):
        try:
            found[float(file.stem)] = file
        except ValueError as error:
            raise UnreadableFile(
                f"{file} is not named by its time stamp; move it out of this folder"
            ) from error
    return dict(sorted(found.items()))


def read_depth(path: Path) -> NDArray[np.float32]:
    """Read a depth image (y, x), metres."""
    return formats.read_depth_png(path, STEPS_PER_METRE)


def stamps_of(files: dict[float, Path]) -> NDArray[np.float64]:
    """Stamps (file), seconds, sorted."""
    return np.array(list(files), np.float64)


def closest_files(stamps: NDArray[np.float64], files: dict[float, Path]) -> tuple[Path | None, ...]:
    """Give each frame (frame) the file whose stamp is closest, within 0.02 s, or None."""
    found: list[Path | None] = [None] * len(stamps)
    listed = list(files.values())
    for frame, index in zip(*pair_stamps(stamps, stamps_of(files)), strict=True):
        found[frame] = listed[index]
    return tuple(found)


def read(
    files: SequenceFiles,
    images: ImageFiles,
    published: tuple[float, float, float, float] | None,
) -> Variables:
    """Make the variables `depth`, `pose` and `intrinsics` as far as their files exist."""
    variables: Variables = {}
    if "depth" in files.truth:
        variables["depth"] = planes(files.truth["depth"], read_depth, images.size)
    pose = associated_poses(files)
    if pose is not None:
        variables["pose"] = (POSE, pose)
    return variables | calibration(files.folder, published, images)


def associated_poses(files: SequenceFiles) -> NDArray[np.float64] | None:
    """Read the pose (frame, row, col) within 0.02 s of each frame, NaN where there is none."""
    pose_stamps, poses, _ = trajectory(files.folder)
    if not len(poses) or files.stamps is None:
        return None
    frames, partner = pair_stamps(files.stamps, pose_stamps)
    found = np.full((len(files.stamps), 4, 4), np.nan)
    found[frames] = poses[partner]
    return found


def calibration(
    folder: Path,
    published: tuple[float, float, float, float] | None,
    images: ImageFiles,
) -> Variables:
    """Make the variable `intrinsics`, with its source, or nothing where they are not known.

    They come from ``intrinsics.txt``, else, for images of 640 x 480, from the published numbers.
    """
    own = folder / "intrinsics.txt"
    if own.is_file():
        numbers, source = tuple(formats.read_numbers(own, (4,))), str(own)
    elif published is not None and images.size == CALIBRATED_SIZE:
        numbers, source = published, "calibration published with the data set"
    else:
        return {}
    fx, fy, cx, cy = numbers
    matrix = np.array([[fx, 0, cx], [0, fy, cy], [0, 0, 1.0]])
    frames = np.tile(matrix, (len(images.files), 1, 1))
    return {"intrinsics": (INTRINSICS, frames, {"source": source})}


def trajectory(folder: Path) -> tuple[NDArray[np.float64], NDArray[np.float64], tuple[str, ...]]:
    """Read ``groundtruth.txt``; no stamps and no poses where there is none."""
    file = folder / "groundtruth.txt"
    return read_poses(file) if file.is_file() else (np.empty(0), np.empty((0, 4, 4)), ())


def refuse_other_units(
    folder: Path, stamps: NDArray[np.float64], pose_stamps: NDArray[np.float64]
) -> None:
    """Refuse poses of which none is close to a frame because they count time in other units.

    Raises
    ------
    UnreadableFile
        Naming the units.
    """
    if not (stamps.size and pose_stamps.size) or pair_stamps(stamps, pose_stamps)[0].size:
        return
    if (factor := unit_factor(stamps, pose_stamps)) is not None:
        finer = max(factor, 1 / factor)
        unit = next(unit for unit in UNITS if np.isclose(unit, finer))
        what, other = ("its stamps", "those of the images")[:: 1 if factor > 1 else -1]
        raise UnreadableFile(
            f"{folder / 'groundtruth.txt'}: {what} count time in {UNITS[unit]} and {other} in "
            f"seconds; divide {what} by {unit:.0e}"
        )


def write(sequence: xr.Dataset, root: Path, name: str, *, prefix: str) -> None:
    """Write images, depth, their lists and the trajectory; intrinsics where there are any.

    The folder is `name` behind `prefix`. Stamps are the sequence's own (coordinate ``stamp``, else
    ``time``), else 30 frames a second.
    """
    stamps, folder = _stamps(sequence), root / f"{prefix}{name}"
    for kind in ("rgb", "depth"):
        (folder / kind).mkdir(parents=True)
    lists: dict[str, list[str]] = {
        "rgb": ["# timestamp filename"], "depth": ["# timestamp filename"],
    }  # fmt: skip
    for index, stamp in enumerate(stamps):
        frame = sequence.isel(frame=index)
        file = f"{stamp:.6f}.png"
        formats.write_image(folder / "rgb" / file, frame["image"].values)
        formats.write_depth_png(folder / "depth" / file, frame["depth"].values, STEPS_PER_METRE)
        for kind, lines in lists.items():
            lines.append(f"{stamp:.6f} {kind}/{file}")
    for kind, lines in lists.items():
        (folder / f"{kind}.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    write_poses(folder / "groundtruth.txt", stamps, sequence["pose"].values)
    write_calibration(folder, sequence)


def write_calibration(folder: Path, sequence: xr.Dataset) -> None:
    """Write ``intrinsics.txt`` (fx fy cx cy), where the sequence has intrinsics."""
    if "intrinsics" in sequence:
        matrix = one_camera(sequence)
        numbers = matrix[[0, 1, 0, 1], [0, 1, 2, 2]]
        np.savetxt(folder / "intrinsics.txt", numbers[None], fmt="%.17g")


def pose_files(files: SequenceFiles) -> NDArray[np.float64] | None:
    """Poses (frame, row, col) of a file per frame; one that is not there or not finite is NaN."""
    if "pose" not in files.truth:
        return None
    poses = np.full((len(files.images), 4, 4), np.nan)
    for index, file in enumerate(files.truth["pose"]):
        if file is not None:
            pose = formats.read_numbers(file, (4, 4))
            poses[index] = pose if np.isfinite(pose).all() else np.nan
    return poses


def one_camera(sequence: xr.Dataset) -> NDArray[np.float64]:
    """Intrinsics (row, col) that all frames share.

    Raises
    ------
    InvalidArgument
        Frames differ, or there is skew, neither of which these layouts can say.
    """
    matrices = sequence["intrinsics"].values.astype(np.float64)
    if not np.array_equal(matrices, np.broadcast_to(matrices[0], matrices.shape)):
        raise InvalidArgument(
            "intrinsics differ between frames, but this layout has one camera per sequence; "
            "choose layout='sintel' or 'dycheck', or drop the variable intrinsics"
        )
    if matrices[0, 0, 1] != 0:
        raise InvalidArgument("this layout has no skew, but the intrinsics do; use 'sintel'")
    return matrices[0]


def _stamps(sequence: xr.Dataset) -> NDArray[np.float64]:
    if "stamp" in sequence.coords:
        stamps = sequence["stamp"].values.astype(np.float64)
    elif "time" in sequence.coords:
        stamps = _FIRST_STAMP + sequence["time"].values.astype(np.float64)
    else:
        stamps = _FIRST_STAMP + np.arange(sequence.sizes["frame"]) / _FRAMES_PER_SECOND
    # Files are named by microseconds.
    stamps = np.round(stamps, 6)
    if not np.isfinite(stamps).all() or (np.diff(stamps) <= 0).any():
        raise InvalidArgument(
            "the stamps of the sequence are not finite and increasing by microseconds; sort the "
            "frames by time and keep one per stamp, or drop the coordinates 'stamp' and 'time'"
        )
    return stamps
