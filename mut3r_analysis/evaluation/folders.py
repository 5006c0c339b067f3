"""Folders of predictions as released code writes them: which layout, and what is in the files."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray
from PIL import Image

from mut3r_analysis.errors import MissingFile, UnreadableFile
from mut3r_analysis.metrics.trajectory_files import detect_order, read_trajectory
from mut3r_analysis.sequences.layouts.files import lazy_planes

Variables = dict[str, tuple[tuple[str, ...], Any]]
"""Name to dimensions and values, the frame first."""

_GRID = ("frame", "y", "x")


@dataclass(frozen=True)
class _Maps:
    """Maps (frame, y, x), one ``.npy`` each, read one at a time."""

    files: tuple[Path, ...]
    plane: tuple[int, int]
    dtype: np.dtype[Any]

    @property
    def shape(self) -> tuple[int, ...]:
        return len(self.files), *self.plane

    def read(self, position: int) -> np.ndarray:
        found = _load_map(self.files[position])
        if found.shape != self.plane:
            raise UnreadableFile(
                f"{self.files[position]} has shape {found.shape}, {self.files[0].name} has "
                f"{self.plane}; all maps of a sequence must share one size"
            )
        return np.asarray(found, self.dtype)


def _demo(
    folder: Path, quaternion: str | None, sequence: xr.Dataset | None
) -> tuple[Variables, dict[str, str]]:
    variables: Variables = {}
    for part, variable in (("depth", "depth"), ("conf", "confidence_self")):
        files = _numbered(folder / part, r"(\d+)\.npy")
        if files:
            variables[variable] = (_GRID, _maps(files))
    cameras = [_load_camera(file) for file in _numbered(folder / "camera", r"(\d+)\.npz")]
    if cameras:
        variables["pose"] = (("frame", "row", "col"), np.stack([pose for pose, _ in cameras]))
        variables["focal"] = (("frame",), np.array([matrix[0, 0] for _, matrix in cameras]))
    return variables, {}


def _evaluation(
    folder: Path, quaternion: str | None, sequence: xr.Dataset | None
) -> tuple[Variables, dict[str, str]]:
    variables: Variables = {}
    notes: dict[str, str] = {}
    for pattern, variable in (
        (r"frame_(\d+)\.npy", "depth"),
        (r"conf_(\d+)\.npy", "confidence_self"),
    ):
        files = _numbered(folder, pattern)
        if files:
            variables[variable] = (_GRID, _maps(files))
    masks = _numbered(folder, r"dynamic_mask_(\d+)\.png")
    if masks:
        variables["motion_mask"] = (_GRID, np.stack([_load_mask(file) for file in masks]))
    path = folder / "pred_traj.txt"
    if path.is_file():
        order, evidence = quaternion, "declared"
        if order is None:
            known = None if sequence is None or "pose" not in sequence else sequence["pose"].values
            order, evidence = detect_order(path, known)
        variables["pose"] = (("frame", "row", "col"), read_trajectory(path, order).poses)
        notes = {"quaternion": order, "quaternion_evidence": evidence}
    focal = _focal(folder)
    if focal is not None:
        variables["focal"] = (("frame",), focal)
    return variables, notes


READERS: dict[
    str, Callable[[Path, str | None, xr.Dataset | None], tuple[Variables, dict[str, str]]]
] = {"cut3r-demo": _demo, "cut3r-depth": _evaluation, "cut3r-pose": _evaluation}

EXPECTED = {
    "cut3r-demo": "depth/000000.npy, conf/000000.npy, camera/000000.npz",
    "cut3r-depth": "frame_0000.npy",
    "cut3r-pose": "pred_traj.txt, frame_0000.npy",
}


def recognise(folder: Path) -> str:
    """Tell the layout of a folder by its files.

    Raises
    ------
    MissingFile
        It has the files of none.
    """
    if (folder / "camera").is_dir() or (folder / "depth").is_dir():
        return "cut3r-demo"
    if (folder / "pred_traj.txt").is_file():
        return "cut3r-pose"
    if any(folder.glob("frame_*.npy")):
        return "cut3r-depth"
    listed = "; ".join(f"{layout}: {files}" for layout, files in EXPECTED.items())
    raise MissingFile(
        f"{folder} holds no predictions in a known layout ({listed}); give the folder of one "
        "sequence"
    )


def _numbered(folder: Path, pattern: str) -> tuple[Path, ...]:
    """List files numbered from 0 without gaps, in order; none where there is none.

    Raises
    ------
    UnreadableFile
        A number is missing: every later frame would be scored against another one's truth.
    """
    found = {}
    for file in folder.iterdir() if folder.is_dir() else ():
        match = re.fullmatch(pattern, file.name)
        if match:
            found[int(match[1])] = file
    gaps = sorted(set(range(max(found, default=-1) + 1)) - set(found))
    if gaps:
        raise UnreadableFile(
            f"{folder}: of the files like {next(iter(found.values())).name} number {gaps[0]} is "
            f"missing ({len(gaps)} of {max(found) + 1} are); predictions are numbered from 0 "
            "without gaps"
        )
    return tuple(found[number] for number in sorted(found))


def _maps(files: tuple[Path, ...]) -> Any:
    first = _load_map(files[0])
    return lazy_planes(_Maps(files, (first.shape[0], first.shape[1]), first.dtype))


def _load_map(file: Path) -> np.ndarray:
    """Open a map (y, x); a leading axis of one is dropped."""
    try:
        found = np.load(file, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise UnreadableFile(f"{file} is not a whole .npy file: {error}") from error
    found = found[0] if found.ndim == 3 and found.shape[0] == 1 else found
    if found.ndim != 2 or found.dtype.kind != "f":
        raise UnreadableFile(
            f"{file} holds {found.dtype} of shape {found.shape}, expected floating point (y, x)"
        )
    return found


def _load_mask(file: Path) -> NDArray[np.bool_]:
    try:
        with Image.open(file) as image:
            return np.asarray(image.convert("L")) > 0
    except OSError as error:
        raise UnreadableFile(f"{file} is not an image: {error}") from error


def _load_camera(file: Path) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    try:
        with np.load(file, allow_pickle=False) as held:
            pose, matrix = (np.asarray(held[key], np.float64) for key in ("pose", "intrinsics"))
    except (OSError, ValueError, EOFError, KeyError) as error:
        raise UnreadableFile(
            f"{file} is not an .npz file with pose and intrinsics: {error}"
        ) from error
    if pose.shape != (4, 4) or matrix.shape != (3, 3):
        raise UnreadableFile(
            f"{file} has a pose of shape {pose.shape} and intrinsics of shape {matrix.shape}, "
            "expected (4, 4) and (3, 3)"
        )
    return pose, matrix


def _focal(folder: Path) -> NDArray[np.float64] | None:
    """Focal length (frame), px, of ``pred_focal.txt``, else of ``pred_intrinsics.txt``."""
    for file, columns in (("pred_focal.txt", 1), ("pred_intrinsics.txt", 9)):
        path = folder / file
        if not path.is_file():
            continue
        try:
            numbers = np.loadtxt(path, ndmin=2)
        except ValueError as error:
            raise UnreadableFile(f"{path}: {error}") from error
        if columns == 1:
            numbers = numbers.reshape(-1, 1)
        if numbers.shape[1] != columns:
            raise UnreadableFile(f"{path} has {numbers.shape[1]} numbers a line, not {columns}")
        return numbers[:, 0]
    return None
