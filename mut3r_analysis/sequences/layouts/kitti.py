"""KITTI: driving, with sparse depth accumulated from LiDAR (data_depth_annotated).

::

    {val,train}/<drive>_sync/proj_depth/groundtruth/image_02/<10 digits>.png
    <date>/<drive>_sync/image_02/data/<10 digits>.png   <date>/calib_cam_to_cam.txt

Images that released preparation code gathered are found too:
``depth_selection/val_selection_cropped/{image,groundtruth_depth}_gathered/<drive>_sync_02/``.
Depth is 16-bit, 256 steps per metre.
"""

from functools import partial
from pathlib import Path

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from mut3r_analysis.errors import UnreadableFile
from mut3r_analysis.foundation.text_files import read_text
from mut3r_analysis.sequences.images import ImageFiles, visible
from mut3r_analysis.sequences.layouts import formats
from mut3r_analysis.sequences.layouts.files import INTRINSICS, SequenceFiles, planes
from mut3r_analysis.sequences.layouts.layout import Contents, Layout, Options, Variables, subfolders
from mut3r_analysis.sequences.layouts.rgbd import one_camera

STEPS_PER_METRE = 256
SPLITS = ("val", "train")

_TRUTH = Path("proj_depth", "groundtruth", "image_02")
_GATHERED = Path("depth_selection", "val_selection_cropped")
_CALIBRATION = "calib_cam_to_cam.txt"


def read(files: SequenceFiles, images: ImageFiles, options: Options) -> Contents:
    """Read the frames of camera 2 of ``ROOT#2011_09_26_drive_0002`` that have depth.

    Depth is NaN where LiDAR saw nothing, most of the image. There are `intrinsics` where the
    calibration of the day is there. Poses are not read.
    """
    decode = partial(formats.read_depth_png, steps_per_metre=STEPS_PER_METRE)
    variables: Variables = {"depth": planes(files.truth["depth"], decode, images.size)}
    if "intrinsics" in files.truth:
        matrix = _read_calibration(_day(files.folder, files.name) / _CALIBRATION)
        variables["intrinsics"] = (INTRINSICS, np.tile(matrix, (len(files.images), 1, 1)))
    return variables, {}


def find(root: Path) -> dict[str, Path]:
    """Find drives: short name to the folder of their depth images."""
    gathered = subfolders(root / _GATHERED / "groundtruth_depth_gathered")
    folders = {folder.name.removesuffix("_sync_02"): folder for folder in gathered}
    for split in reversed(SPLITS):
        for folder in subfolders(root / split):
            folders[folder.name.removesuffix("_sync")] = folder / _TRUTH
    return {name: folder for name, folder in folders.items() if visible(folder, "*.png")}


def list_files(folder: Path, name: str, options: Options) -> SequenceFiles:
    """List the files of a drive from the folder of its depth images."""
    depth = visible(folder, "*.png")
    images = _image_folder(folder, name)
    truth: dict[str, tuple[Path | None, ...]] = {"depth": tuple(depth)}
    calibration = _day(folder, name) / _CALIBRATION
    if calibration.is_file():
        truth["intrinsics"] = (calibration,) * len(depth)
    return SequenceFiles("kitti", name, folder, tuple(images / file.name for file in depth), truth)


def write(sequence: xr.Dataset, root: Path, name: str) -> None:
    """Write a sequence as a drive of the split val, with its day's calibration."""
    depth_folder = root / "val" / f"{name}_sync" / _TRUTH
    day = _day(depth_folder, name)
    image_folder = day / f"{name}_sync" / "image_02" / "data"
    for folder in (depth_folder, image_folder):
        folder.mkdir(parents=True)
    for index in range(sequence.sizes["frame"]):
        frame = sequence.isel(frame=index)
        file = f"{index:010d}.png"
        formats.write_image(image_folder / file, frame["image"].values)
        formats.write_depth_png(depth_folder / file, frame["depth"].values, STEPS_PER_METRE)
    projection = np.zeros((3, 4))
    projection[:, :3] = one_camera(sequence)
    numbers = " ".join(f"{number:.17g}" for number in projection.ravel())
    (day / _CALIBRATION).write_text(f"P_rect_02: {numbers}\n", encoding="utf-8")


def _root(folder: Path) -> Path:
    """Folder of the data set, from that of a drive's depth images."""
    return folder.parents[4] if folder.parts[-3:] == _TRUTH.parts else folder.parents[3]


def _day(folder: Path, name: str) -> Path:
    return _root(folder) / name.partition("_drive_")[0]


def _image_folder(folder: Path, name: str) -> Path:
    gathered = _root(folder) / _GATHERED / "image_gathered" / f"{name}_sync_02"
    raw = _day(folder, name) / f"{name}_sync" / "image_02" / "data"
    return gathered if gathered.is_dir() and not raw.is_dir() else raw


def _read_calibration(path: Path) -> NDArray[np.float64]:
    """Read the intrinsics (row, col) of the rectified camera 2."""
    for line in read_text(path).splitlines():
        name, _, numbers = line.partition(":")
        if name.strip() == "P_rect_02":
            try:
                return np.array(numbers.split(), np.float64).reshape(3, 4)[:, :3]
            except ValueError as error:
                raise UnreadableFile(f"{path}: P_rect_02 is not 3 x 4 numbers: {error}") from error
    raise UnreadableFile(f"{path} has no line P_rect_02; copy the calibration of the day again")


_SITE = "KITTI, https://www.cvlibs.net/datasets/kitti"
LAYOUT = Layout(
    "kitti", find, list_files, read, write,
    needs=("image", "depth", "intrinsics"),
    looks_like="val/<drive>_sync/proj_depth/groundtruth/image_02/<10 digits>.png",
    obtain={
        "image": f"{_SITE}: raw data, synced and rectified, of every drive",
        "depth": f"{_SITE}: depth prediction, annotated depth maps (data_depth_annotated)",
    },
    suffixes=("_sync_02", "_sync"),
)  # fmt: skip
