"""Neural RGB-D: rendered videos of static rooms with exact depth.

::

    <scene>/images/img0.png  depth/depth0.png  poses.txt

Depth is 16-bit, millimetres; what lies beyond 10 m is none. ``poses.txt`` has four lines of four
numbers per frame, camera-to-world, for cameras that look along -z with y up, as in OpenGL.
"""

import re
from pathlib import Path

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from mut3r_analysis.errors import UnreadableFile
from mut3r_analysis.foundation.text_files import read_text
from mut3r_analysis.sequences.images import ImageFiles, visible
from mut3r_analysis.sequences.layouts import formats
from mut3r_analysis.sequences.layouts.files import POSE, SequenceFiles, existing, planes
from mut3r_analysis.sequences.layouts.layout import Contents, Layout, Options, Variables, subfolders
from mut3r_analysis.sequences.layouts.rgbd import calibration, write_calibration
from mut3r_analysis.sequences.layouts.sevenscenes import STEPS_PER_METRE, read_depth

_CAMERA = (554.2562584220408, 554.2562584220408, 320.0, 240.0)
_FLIPPED = np.array([1.0, -1.0, -1.0, 1.0])
"""From a camera that looks along -z with y up to one that looks along z with y down, and back."""


def read(files: SequenceFiles, images: ImageFiles, options: Options) -> Contents:
    """Read all frames of ``ROOT#kitchen``; a pose that is not known is NaN."""
    variables: Variables = {}
    if "depth" in files.truth:
        variables["depth"] = planes(files.truth["depth"], read_depth, images.size)
    pose = _poses(files)
    if pose is not None:
        variables["pose"] = (POSE, pose)
    return variables | calibration(files.folder, _CAMERA, images), {}


def find(root: Path) -> dict[str, Path]:
    """Find scenes: name to folder."""
    return {
        folder.name: folder
        for folder in (root, *subfolders(root))
        if any((folder / "images").glob("img*.png"))
    }


def list_files(folder: Path, name: str, options: Options) -> SequenceFiles:
    """List the files of a scene, in the order of their numbers."""
    images = visible(folder / "images", "img*.png")
    for file in images:
        if not re.fullmatch(r"img[0-9]+", file.stem):
            raise UnreadableFile(f"{file} is not named by the number of its frame; move it away")
    images.sort(key=_number)
    count = len(images)
    truth = {
        "depth": existing(folder / "depth" / f"depth{_number(image)}.png" for image in images),
        "pose": existing([folder / "poses.txt"] * count),
    }
    complete = {"depth": count}
    return SequenceFiles("nrgbd", name, folder, tuple(images), truth, complete=complete)


def write(sequence: xr.Dataset, root: Path, name: str) -> None:
    """Write a scene; intrinsics, where there are any, beside it."""
    folder = root / name
    for kind in ("images", "depth"):
        (folder / kind).mkdir(parents=True)
    for index in range(sequence.sizes["frame"]):
        frame = sequence.isel(frame=index)
        depth = folder / "depth" / f"depth{index}.png"
        formats.write_image(folder / "images" / f"img{index}.png", frame["image"].values)
        formats.write_depth_png(depth, frame["depth"].values, STEPS_PER_METRE)
    poses = sequence["pose"].transpose("frame", ...).values * _FLIPPED
    np.savetxt(folder / "poses.txt", poses.reshape(-1, 4), fmt="%.17g")
    write_calibration(folder, sequence)


def read_poses(path: Path) -> NDArray[np.float64]:
    """Read poses (frame, row, col), camera-to-world; one that is not finite is all NaN.

    Raises
    ------
    MissingFile, UnreadableFile
        No file, or not four lines of four numbers to a pose.
    """
    try:
        rows = [[float(word) for word in line.split()] for line in read_text(path).splitlines()]
        poses = np.array([row for row in rows if row], np.float64).reshape(-1, 4, 4) * _FLIPPED
    except ValueError as error:
        raise UnreadableFile(f"{path} is not lines of four numbers, four to a pose") from error
    poses[~np.isfinite(poses).all(axis=(1, 2))] = np.nan
    return poses


def _number(file: Path) -> int:
    return int(file.stem.removeprefix("img"))


def _poses(files: SequenceFiles) -> NDArray[np.float64] | None:
    if "pose" not in files.truth:
        return None
    path = files.folder / "poses.txt"
    poses = read_poses(path)
    # Frames are their numbers: one that is missing has its lines all the same.
    numbers = [_number(image) for image in files.images]
    if len(poses) <= max(numbers):
        raise UnreadableFile(
            f"{path} has {len(poses)} poses, but there is an image number {max(numbers)}"
        )
    return poses[numbers]


_SITE = "Neural RGB-D, http://kaldir.vc.in.tum.de/neural_rgbd/neural_rgbd_data.zip"
LAYOUT = Layout(
    "nrgbd", find, list_files, read, write,
    needs=("image", "depth", "pose"),
    looks_like="<scene>/images/img0.png",
    obtain={"image": _SITE, "depth": _SITE, "pose": _SITE},
    poses=_poses,
    constants=("intrinsics",),
)  # fmt: skip
