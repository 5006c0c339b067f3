"""TUM RGB-D: Kinect recordings with depth and a motion-capture trajectory.

``ROOT`` holds ``rgbd_dataset_<sequence>/``, or is such a folder; the files are those of `rgbd`.
"""

import re
from pathlib import Path

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from mut3r_analysis.sequences.layouts.files import (
    GRID,
    POSE,
    PlaneFiles,
    SequenceFiles,
    assemble,
    lazy_planes,
    open_frames,
)
from mut3r_analysis.sequences.layouts.layout import Layout, subfolders
from mut3r_analysis.sequences.layouts.location import parse_location
from mut3r_analysis.sequences.layouts.rgbd import (
    intrinsics_variable,
    listed_files,
    read_depth,
    stamps_of,
    trajectory,
    write_rgbd,
)
from mut3r_analysis.sequences.layouts.stamps import MAX_DIFFERENCE, pair_stamps

PREFIX = "rgbd_dataset_"
CALIBRATION = {
    "freiburg1": (517.3, 516.5, 318.6, 255.3),
    "freiburg2": (520.9, 521.0, 325.1, 249.7),
    "freiburg3": (535.4, 539.2, 320.1, 247.6),
}
"""fx, fy, cx, cy of the colour camera, px; images of freiburg1 and 2 are not undistorted."""


def open_tum(rest: str) -> xr.Dataset:
    """Open ``ROOT#freiburg3_walking_xyz``: the rgb frames that have a pose.

    Frames are rgb images with a ground-truth pose within 0.02 s, paired one to one, the closest
    first: what the pose protocols count. Depth is that of the closest depth image within 0.02 s,
    NaN throughout where there is none. Without ``groundtruth.txt`` all rgb images are frames.

    Returns
    -------
    Dataset
        `image`, `pose`, `depth`, `intrinsics`; the coordinate ``stamp`` is the rgb image's.

    Raises
    ------
    MissingFile, UnreadableFile, InvalidArgument
        Unknown sequence or option, lists that cannot be read, or files they name that do not exist.
    """
    location = parse_location("tum", rest)
    location.choices({})
    found = find(location.root)
    name = location.choose(found)
    files, stamps, pose = _associate(found[name], name)
    files.require_complete()
    images = open_frames(files.images)
    size = (images.height, images.width)
    variables: dict = {}
    if "depth" in files.truth:
        variables["depth"] = (GRID, lazy_planes(PlaneFiles(files.truth["depth"], read_depth, size)))
    if pose is not None:
        variables["pose"] = (POSE, pose)
    variables |= intrinsics_variable(found[name], _published(found[name].name), images)
    return assemble(files, images, variables, stamps=stamps)


def find(root: Path) -> dict[str, Path]:
    """Find sequences: short name to folder."""
    folders = [
        folder
        for folder in (root, *subfolders(root))
        if (folder / "rgb.txt").is_file() and not folder.name.startswith("rgbd_bonn_")
    ]
    return {folder.name.removeprefix(PREFIX): folder for folder in folders}


def list_files(folder: Path, name: str) -> SequenceFiles:
    """List the files of a sequence."""
    return _associate(folder, name)[0]


def write(sequence: xr.Dataset, root: Path, name: str) -> None:
    """Write a sequence as ``rgbd_dataset_<name>``."""
    write_rgbd(sequence, root / f"{PREFIX}{name}")


def _associate(
    folder: Path, name: str
) -> tuple[SequenceFiles, NDArray[np.float64], NDArray[np.float64] | None]:
    """List files, and give stamps (frame) and poses (frame, row, col)."""
    rgb, rgb_notes = listed_files(folder, "rgb")
    depth, depth_notes = listed_files(folder, "depth")
    pose_stamps, poses, pose_notes = trajectory(folder)
    notes = [*rgb_notes, *depth_notes, *pose_notes]
    stamps, images = stamps_of(rgb), list(rgb.values())
    truth: dict[str, tuple[Path | None, ...]] = {}
    if len(poses):
        kept, partner = pair_stamps(stamps, pose_stamps)
        if len(kept) < len(stamps):
            notes.append(
                f"{len(stamps) - len(kept)} of {len(stamps)} rgb frames have no pose within "
                f"{MAX_DIFFERENCE:g} s"
            )
        stamps, poses = stamps[kept], poses[partner]
        images = [images[index] for index in kept]
        truth["pose"] = (folder / "groundtruth.txt",) * len(kept)
    depth_files: list[Path | None] = [None] * len(images)
    frames, partner = pair_stamps(stamps, stamps_of(depth))
    listed = list(depth.values())
    for frame, index in zip(frames, partner, strict=True):
        depth_files[frame] = listed[index]
    if depth and len(frames) < len(images):
        notes.append(
            f"{len(images) - len(frames)} frames have no depth image within {MAX_DIFFERENCE:g} s"
        )
    truth["depth"] = tuple(depth_files)
    files = SequenceFiles("tum", name, folder, tuple(images), truth, tuple(notes))
    return files, stamps, poses if len(poses) else None


def _published(folder: str) -> tuple[float, float, float, float] | None:
    match = re.search(r"freiburg[123]", folder)
    return CALIBRATION[match[0]] if match else None


def _poses(files: SequenceFiles) -> NDArray[np.float64] | None:
    return _associate(files.folder, files.name)[2]


_SITE = "TUM RGB-D benchmark, https://cvg.cit.tum.de/data/datasets/rgbd-dataset"
LAYOUT = Layout(
    name="tum",
    find=find,
    list_files=list_files,
    poses=_poses,
    open=open_tum,
    write=write,
    needs=("image", "depth", "pose"),
    looks_like="rgbd_dataset_<sequence>/rgb.txt",
    obtain={
        "image": f"{_SITE}: one archive per sequence, those of category Dynamic Objects",
        "pose": f"{_SITE}: groundtruth.txt of the sequence's archive",
        "depth": f"{_SITE}: depth/ and depth.txt of the sequence's archive",
    },
)
