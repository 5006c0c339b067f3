"""7-Scenes: hand-held Kinect videos of seven static rooms.

::

    <scene>/seq-01/frame-000000.color.png  frame-000000.pose.txt
                   frame-000000.depth.proj.png  frame-000000.depth.png

A sequence is named by both folders, ``chess_seq-03``. Depth is 16-bit, millimetres; 65535 and what
lies beyond 10 m is none. ``depth.png`` is the original, seen by the Kinect's infrared camera;
``depth.proj.png`` is what evaluations use, seen by its colour camera, as the preprocessing of
SimpleRecon makes it.
"""

import re
from pathlib import Path

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from mut3r_analysis.sequences.images import ImageFiles, visible
from mut3r_analysis.sequences.layouts import formats
from mut3r_analysis.sequences.layouts.files import POSE, SequenceFiles, existing, planes
from mut3r_analysis.sequences.layouts.layout import Contents, Layout, Options, Variables, subfolders
from mut3r_analysis.sequences.layouts.rgbd import calibration, pose_files, write_calibration

STEPS_PER_METRE = 1000
FARTHEST = 10.0
"""Depths beyond this are none to the released evaluations, metres."""

_COLOR = ".color.png"
_DEPTH = {"registered": ".depth.proj.png", "raw": ".depth.png"}
_CAMERA = {"registered": (525.0, 525.0, 320.0, 240.0), "raw": (585.0, 585.0, 320.0, 240.0)}
"""Focal lengths and principal point, px, that evaluations take for either camera."""
_NUMBERED = re.compile("seq-[0-9]+")


def read_depth(path: Path) -> NDArray[np.float32]:
    """Read a depth image (y, x), metres; NaN where there is none, and beyond 10 m."""
    depth = formats.read_depth_png(path, STEPS_PER_METRE)
    return np.where(depth > FARTHEST, np.float32(np.nan), depth)


def read(files: SequenceFiles, images: ImageFiles, options: Options) -> Contents:
    """Read all frames of ``ROOT#chess_seq-03``.

    ``?depth=raw`` takes the original depth, whose camera is not that of the images.
    """
    variables: Variables = {}
    if "depth" in files.truth:
        variables["depth"] = planes(files.truth["depth"], read_depth, images.size)
    pose = pose_files(files)
    if pose is not None:
        variables["pose"] = (POSE, pose)
    return variables | calibration(files.folder, _CAMERA[options["depth"]], images), {}


def find(root: Path) -> dict[str, Path]:
    """Find sequences: ``<scene>_<sequence>`` to folder."""
    scenes = subfolders(root)
    folders = [root, *scenes, *(folder for scene in scenes for folder in subfolders(scene))]
    return {_name(folder): folder for folder in folders if any(folder.glob(f"frame-*{_COLOR}"))}


def _name(folder: Path) -> str:
    within = f"{folder.parent.name}_" if _NUMBERED.fullmatch(folder.name) else ""
    return within + folder.name


def list_files(folder: Path, name: str, options: Options) -> SequenceFiles:
    """List the files of a sequence, in the order of their numbers."""
    images = tuple(visible(folder, f"frame-*{_COLOR}"))
    frames = [folder / image.name.removesuffix(_COLOR) for image in images]
    truth = {
        "depth": existing(Path(f"{frame}{_DEPTH[options['depth']]}") for frame in frames),
        "pose": existing(Path(f"{frame}.pose.txt") for frame in frames),
    }
    complete = {"depth": len(images), "pose": len(images)}
    return SequenceFiles("sevenscenes", name, folder, images, truth, complete=complete)


def write(sequence: xr.Dataset, root: Path, name: str) -> None:
    """Write a sequence; intrinsics, where there are any, beside it."""
    folder = root / name
    folder.mkdir(parents=True)
    for index in range(sequence.sizes["frame"]):
        frame, start = sequence.isel(frame=index), f"frame-{index:06d}"
        formats.write_image(folder / f"{start}{_COLOR}", frame["image"].values)
        depth = folder / f"{start}{_DEPTH['registered']}"
        formats.write_depth_png(depth, frame["depth"].values, STEPS_PER_METRE)
        np.savetxt(folder / f"{start}.pose.txt", frame["pose"].values, fmt="%.17g")
    write_calibration(folder, sequence)


_SITE = "https://www.microsoft.com/en-us/research/project/rgb-d-dataset-7-scenes"
LAYOUT = Layout(
    "sevenscenes", find, list_files, read, write,
    needs=("image", "depth", "pose"),
    looks_like="<scene>/seq-01/frame-000000.color.png",
    obtain={
        "image": f"7-Scenes, {_SITE}",
        "depth": "depth.proj.png: made from the original depth by the preprocessing of SimpleRecon "
        "(https://github.com/nianticlabs/simplerecon, data_scripts)",
        "pose": f"7-Scenes, {_SITE}",
    },
    poses=pose_files,
    constants=("intrinsics",),
    options={"depth": ("registered", "raw")},
)  # fmt: skip
