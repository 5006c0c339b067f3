"""Bonn RGB-D Dynamic: indoor recordings with moving people, depth and motion capture.

``ROOT`` is ``rgbd_bonn_dataset`` (or the folder around it) and holds ``rgbd_bonn_<sequence>/``; the
files are those of `rgbd`.
"""

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
    named_files,
    read_depth,
    stamps_of,
    trajectory,
    write_rgbd,
)
from mut3r_analysis.sequences.layouts.stamps import MAX_DIFFERENCE, pair_stamps

PREFIX = "rgbd_bonn_"
CALIBRATION = (542.822841, 542.576870, 315.593520, 237.756098)
"""fx, fy, cx, cy of the colour camera, px, as published; its small distortion is left aside."""

OPTIONS = {"pairing": ("order", "time")}


def open_bonn(rest: str) -> xr.Dataset:
    """Open ``ROOT#balloon2``: all rgb images.

    Options: ``pairing=order`` pairs depth and rgb images by their rank among the sorted files, as
    the released video-depth protocol does; ``pairing=time`` by stamps within 0.02 s.

    Returns
    -------
    Dataset
        `image`, `depth` (NaN throughout at frames without a depth image), `intrinsics`, and `pose`:
        the motion-capture pose within 0.02 s, NaN where there is none. It is the one of the
        tracked body on the camera, as the data set has it, not calibrated to the lens.

    Raises
    ------
    MissingFile, UnreadableFile, InvalidArgument
        Unknown sequence or option, or damaged files.
    """
    location = parse_location("bonn", rest)
    pairing = location.choices(OPTIONS)["pairing"]
    found = find(location.root)
    name = location.choose(found)
    files = list_files(found[name], name, pairing)
    files.require_complete()
    images = open_frames(files.images)
    size = (images.height, images.width)
    stamps = np.array([float(file.stem) for file in files.images])
    variables: dict = {}
    if "depth" in files.truth:
        variables["depth"] = (GRID, lazy_planes(PlaneFiles(files.truth["depth"], read_depth, size)))
    pose = _poses(files)
    if pose is not None:
        variables["pose"] = (POSE, pose)
    variables |= intrinsics_variable(found[name], CALIBRATION, images)
    return assemble(files, images, variables, attrs={"pairing": pairing}, stamps=stamps)


def find(root: Path) -> dict[str, Path]:
    """Find sequences: short name to folder."""
    folders = [*subfolders(root / "rgbd_bonn_dataset"), root, *subfolders(root)]
    return {
        folder.name.removeprefix(PREFIX): folder
        for folder in folders
        if folder.name.startswith(PREFIX) and (folder / "rgb").is_dir()
    }


def list_files(folder: Path, name: str, pairing: str = "order") -> SequenceFiles:
    """List the files of a sequence."""
    rgb, depth = named_files(folder, "rgb"), named_files(folder, "depth")
    depth_files: list[Path | None] = [None] * len(rgb)
    listed = list(depth.values())
    if pairing == "order":
        common = min(len(rgb), len(depth))
        depth_files[:common] = listed[:common]
    else:
        for frame, index in zip(*pair_stamps(stamps_of(rgb), stamps_of(depth)), strict=True):
            depth_files[frame] = listed[index]
    notes = []
    if depth and pairing == "order" and len(depth) != len(rgb):
        notes.append(
            f"{len(rgb)} rgb and {len(depth)} depth images are paired by order; later pairs drift "
            "apart where one is missing (?pairing=time pairs by stamps)"
        )
    pose_stamps, _, pose_notes = trajectory(folder)
    posed = set(pair_stamps(stamps_of(rgb), pose_stamps)[0].tolist())
    file = folder / "groundtruth.txt"
    truth = {
        "depth": tuple(depth_files),
        "pose": tuple(file if frame in posed else None for frame in range(len(rgb))),
    }
    if pose_stamps.size and len(posed) < len(rgb):
        notes.append(
            f"{len(rgb) - len(posed)} frames have no pose within {MAX_DIFFERENCE:g} s: NaN"
        )
    return SequenceFiles("bonn", name, folder, tuple(rgb.values()), truth, (*notes, *pose_notes))


def write(sequence: xr.Dataset, root: Path, name: str) -> None:
    """Write a sequence as ``rgbd_bonn_<name>``."""
    write_rgbd(sequence, root / f"{PREFIX}{name}")


def _poses(files: SequenceFiles) -> NDArray[np.float64] | None:
    pose_stamps, poses, _ = trajectory(files.folder)
    if not len(poses):
        return None
    stamps = np.array([float(file.stem) for file in files.images])
    frames, partner = pair_stamps(stamps, pose_stamps)
    found = np.full((len(stamps), 4, 4), np.nan)
    found[frames] = poses[partner]
    return found


_SITE = "Bonn RGB-D Dynamic Dataset, https://www.ipb.uni-bonn.de/data/rgbd-dynamic-dataset"
LAYOUT = Layout(
    name="bonn",
    find=find,
    list_files=list_files,
    poses=_poses,
    open=open_bonn,
    write=write,
    needs=("image", "depth", "pose"),
    looks_like="rgbd_bonn_<sequence>/rgb/<stamp>.png",
    obtain={
        "image": f"{_SITE}: one archive per sequence, or all of them in one",
        "depth": f"{_SITE}: depth/ of the sequence's archive",
    },
)
