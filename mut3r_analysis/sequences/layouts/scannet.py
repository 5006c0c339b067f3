"""ScanNet: hand-held scans of rooms, as its reader exports them.

::

    <scene>/color/<i>.jpg  depth/<i>.png  pose/<i>.txt  intrinsic/intrinsic_{color,depth}.txt

Depth is 16-bit, millimetres. Its grid is smaller than that of the colour images.
"""

import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from mut3r_analysis.errors import UnreadableFile
from mut3r_analysis.sequences.images import ImageFiles, visible
from mut3r_analysis.sequences.layouts import formats
from mut3r_analysis.sequences.layouts.files import (
    INTRINSICS,
    POSE,
    SequenceFiles,
    existing,
    planes,
)
from mut3r_analysis.sequences.layouts.layout import Contents, Layout, Options, Variables, subfolders
from mut3r_analysis.sequences.layouts.rgbd import one_camera, pose_files

STEPS_PER_METRE = 1000


def read(files: SequenceFiles, images: ImageFiles, options: Options) -> Contents:
    """Read all frames of ``ROOT#scene0707_00``.

    Depth is taken to the grid of the colour image: every colour pixel has the nearest depth pixel
    along its ray, NaN where that lies outside. A pose that is not finite, where tracking was lost,
    is NaN.
    """
    color, depth = (_read_intrinsics(files.folder, kind) for kind in ("color", "depth"))
    variables: Variables = {}
    if "depth" in files.truth:
        decode = DepthOnColor(images.size, color, depth)
        variables["depth"] = planes(files.truth["depth"], decode, images.size)
    pose = pose_files(files)
    if pose is not None:
        variables["pose"] = (POSE, pose)
    if color is not None:
        variables["intrinsics"] = (INTRINSICS, np.tile(color, (len(files.images), 1, 1)))
    return variables, {}


@dataclass(frozen=True, eq=False)
class DepthOnColor:
    """Reads depth images onto the grid of the colour images, nearest pixel; metres."""

    size: tuple[int, int]
    color: NDArray[np.float64] | None
    depth: NDArray[np.float64] | None

    def __call__(self, path: Path) -> NDArray[np.float32]:
        """Read (y, x), metres."""
        plane = formats.read_depth_png(path, STEPS_PER_METRE)
        rows, cols = (self._positions(axis, plane.shape[axis]) for axis in (0, 1))
        inside_rows, inside_cols = _inside(rows, plane.shape[0]), _inside(cols, plane.shape[1])
        resampled = np.full(self.size, np.nan, np.float32)
        resampled[np.ix_(inside_rows, inside_cols)] = plane[
            np.ix_(rows[inside_rows], cols[inside_cols])
        ]
        return resampled

    def _positions(self, axis: int, available: int) -> NDArray[np.intp]:
        """Index into the depth image of each row (axis 0) or column (axis 1) of the colour's."""
        pixels = np.arange(self.size[axis], dtype=np.float64)
        if self.color is None or self.depth is None:
            # Without calibration both images are taken to show the same field of view.
            placed = (pixels + 0.5) * (available / self.size[axis]) - 0.5
        else:
            place = 1 - axis
            ray = (pixels - self.color[place, 2]) / self.color[place, place]
            placed = ray * self.depth[place, place] + self.depth[place, 2]
        return np.rint(placed).astype(np.intp)


def _inside(positions: NDArray[np.intp], available: int) -> NDArray[np.bool_]:
    return (positions >= 0) & (positions < available)


def find(root: Path) -> dict[str, Path]:
    """Find scenes: name to folder."""
    return {
        folder.name: folder
        for folder in (root, *subfolders(root))
        if (folder / "color").is_dir() and (folder / "pose").is_dir()
    }


def list_files(folder: Path, name: str, options: Options) -> SequenceFiles:
    """List the files of a scene, in the order of their numbers."""
    images = visible(folder / "color", "*.jpg") + visible(folder / "color", "*.png")
    for file in images:
        if not re.fullmatch(r"[0-9]+", file.stem):
            raise UnreadableFile(f"{file} is not named by the number of its frame; move it away")
    images.sort(key=lambda file: int(file.stem))
    calibration = folder / "intrinsic" / "intrinsic_color.txt"
    truth = {
        "depth": existing(folder / "depth" / f"{image.stem}.png" for image in images),
        "pose": existing(folder / "pose" / f"{image.stem}.txt" for image in images),
        "intrinsics": existing([calibration] * len(images)),
    }
    count = len(images)
    complete = {"depth": count, "pose": count}
    return SequenceFiles("scannet", name, folder, tuple(images), truth, complete=complete)


def write(sequence: xr.Dataset, root: Path, name: str) -> None:
    """Write a scene; colour becomes JPEG, which is lossy, and depth keeps the colour's grid."""
    folder = root / name
    for kind in ("color", "depth", "pose", "intrinsic"):
        (folder / kind).mkdir(parents=True)
    for index in range(sequence.sizes["frame"]):
        frame = sequence.isel(frame=index)
        depth = folder / "depth" / f"{index}.png"
        formats.write_image(folder / "color" / f"{index}.jpg", frame["image"].values)
        formats.write_depth_png(depth, frame["depth"].values, STEPS_PER_METRE)
        np.savetxt(folder / "pose" / f"{index}.txt", frame["pose"].values, fmt="%.12g")
    matrix = np.eye(4)
    matrix[:3, :3] = one_camera(sequence)
    for kind in ("color", "depth"):
        np.savetxt(folder / "intrinsic" / f"intrinsic_{kind}.txt", matrix, fmt="%.12g")


def _read_intrinsics(folder: Path, kind: str) -> NDArray[np.float64] | None:
    path = folder / "intrinsic" / f"intrinsic_{kind}.txt"
    return formats.read_numbers(path, (4, 4))[:3, :3] if path.is_file() else None


_SITE = "ScanNet, http://www.scan-net.org (terms of use to be signed)"
LAYOUT = Layout(
    "scannet", find, list_files, read, write,
    needs=("image", "depth", "pose", "intrinsics"),
    looks_like="<scene>/color/0.jpg with <scene>/pose/",
    obtain={
        "image": f"{_SITE}: the scenes' .sens files, exported with the project's own reader",
        "pose": f"{_SITE}: the scenes' .sens files, exported with the project's own reader",
    },
    poses=pose_files,
)  # fmt: skip
