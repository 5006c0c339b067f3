"""Folders of predictions as released code writes them: which layout, and what is in the files."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from mut3r_analysis.errors import MissingFile, UnreadableFile
from mut3r_analysis.foundation.text_files import read_text
from mut3r_analysis.metrics.trajectory_files import detect_order, read_trajectory
from mut3r_analysis.sequences.layouts.files import GRID, POSE, planes
from mut3r_analysis.sequences.layouts.formats import read_map, read_mask
from mut3r_analysis.sequences.layouts.layout import Variables

_SINGLE = "*depth.npy"
_FOCAL = {"long_name": "focal length", "units": "px"}


def _demo(
    folder: Path, quaternion: str | None, sequence: xr.Dataset | None
) -> tuple[Variables, dict[str, str]]:
    variables = _maps(folder / "depth", r"(\d+)\.npy", folder / "conf", r"(\d+)\.npy")
    cameras = [_load_camera(file) for file in _numbered(folder / "camera", r"(\d+)\.npz")]
    if cameras:
        variables["pose"] = (POSE, np.stack([pose for pose, _ in cameras]))
        variables["focal"] = ("frame", np.array([matrix[0, 0] for _, matrix in cameras]), _FOCAL)
    return variables, {}


def _evaluation(
    folder: Path, quaternion: str | None, sequence: xr.Dataset | None
) -> tuple[Variables, dict[str, str]]:
    variables = _maps(folder, r"frame_(\d+)\.npy", folder, r"conf_(\d+)\.npy")
    notes: dict[str, str] = {}
    masks = _numbered(folder, r"dynamic_mask_(\d+)\.png")
    if masks:
        variables["motion_mask"] = (GRID, np.stack([read_mask(file) for file in masks]))
    path = folder / "pred_traj.txt"
    if path.is_file():
        order, evidence = quaternion, "declared"
        if order is None:
            known = None if sequence is None or "pose" not in sequence else sequence["pose"].values
            order, evidence = detect_order(path, known)
        variables["pose"] = (POSE, read_trajectory(path, order).poses)
        notes = {"quaternion": order, "quaternion_evidence": evidence}
    focal = _focal(folder)
    if focal is not None:
        variables["focal"] = ("frame", focal, _FOCAL)
    return variables, notes


def _single_frames(
    folder: Path, quaternion: str | None, sequence: xr.Dataset | None
) -> tuple[Variables, dict[str, str]]:
    files = tuple(sorted(folder.glob(_SINGLE)))
    first = read_map(files[0])
    return {"depth": (*planes(files, read_map, first.shape, first.dtype), {})}, {}


class PredictionLayout(NamedTuple):
    """How released code leaves the predictions of one sequence.

    Attributes
    ----------
    files : str
        What a folder holds, for messages.
    rule : str
        How that code prepares frames.
    fits : callable
        Whether a folder looks like it.
    read : callable
        Folder, declared order of quaternions and the frames predicted, if known, to variables and
        notes.
    """

    files: str
    rule: str
    fits: Callable[[Path], bool]
    read: Callable[[Path, str | None, xr.Dataset | None], tuple[Variables, dict[str, str]]]


PREDICTION_LAYOUTS = {
    "cut3r-demo": PredictionLayout(
        "depth/000000.npy, conf/000000.npy, camera/000000.npz", "crop",
        # Stores of runs have folders of these names too, with other files.
        lambda folder: any(folder.glob("camera/*.npz")) or any(folder.glob("depth/*.npy")), _demo,
    ),
    "cut3r-depth": PredictionLayout(
        "frame_0000.npy", "resize",
        lambda folder: any(folder.glob("frame_*.npy")) and not _has_path(folder), _evaluation,
    ),
    "cut3r-pose": PredictionLayout(
        "pred_traj.txt, frame_0000.npy, dynamic_mask_0.png", "crop",
        lambda folder: _has_path(folder) or any(folder.glob("dynamic_mask_*.png")), _evaluation,
    ),
    "cut3r-mono": PredictionLayout(
        "<name of the image>depth.npy", "resize",
        lambda folder: any(folder.glob(_SINGLE)), _single_frames,
    ),
}  # fmt: skip


def recognise(folder: Path) -> str:
    """Tell the layout of a folder by its files.

    Raises
    ------
    MissingFile
        It has the files of none.
    """
    if name := _layout_of(folder):
        return name
    listed = "; ".join(f"{name}: {layout.files}" for name, layout in PREDICTION_LAYOUTS.items())
    raise MissingFile(
        f"{folder} holds no predictions in a known layout ({listed}); give the folder of one "
        "sequence, or a folder that holds one folder per sequence"
    )


def prediction_folders(path: Path) -> list[Path]:
    """List the folders of single sequences in a folder of results: itself, or those within.

    Logs, pictures and empty folders that released scripts leave beside them are passed over.

    Raises
    ------
    MissingFile
        There is none.
    """
    if path.is_dir() and not _layout_of(path):
        found = [folder for folder in sorted(path.iterdir()) if _layout_of(folder)]
        if found:
            return found
    recognise(path)
    return [path]


def _layout_of(folder: Path) -> str | None:
    if not folder.is_dir():
        return None
    return next((name for name, each in PREDICTION_LAYOUTS.items() if each.fits(folder)), None)


def _has_path(folder: Path) -> bool:
    return (folder / "pred_traj.txt").is_file()


def _numbered(folder: Path, pattern: str) -> tuple[Path, ...]:
    """List files numbered from 0 without gaps, in order; none where there is none.

    Raises
    ------
    UnreadableFile
        A number is missing: every later frame would be scored against another one's truth.
    """
    found: dict[int, Path] = {}
    for file in folder.iterdir() if folder.is_dir() else ():
        match = re.fullmatch(pattern, file.name)
        if match:
            number = int(match[1])
            if number in found:
                raise UnreadableFile(f"{file} and {found[number].name} have one number; keep one")
            found[number] = file
    count = max(found, default=-1) + 1
    if len(found) < count:
        first = next(number for number, given in enumerate(sorted(found)) if number != given)
        raise UnreadableFile(
            f"{folder}: of the files like {found[max(found)].name} number {first} is missing "
            f"({count - len(found)} of {count} are); predictions are numbered from 0 "
            "without gaps"
        )
    return tuple(found[number] for number in sorted(found))


def _maps(depth: Path, depth_files: str, confidence: Path, confidence_files: str) -> Variables:
    """Make variables (frame, y, x) of maps, one file each, as far as there are files."""
    words = {"long_name": "confidence of points_self", "units": "1"}
    found: Variables = {}
    for name, files, attrs in (
        ("depth", _numbered(depth, depth_files), {}),
        ("confidence_self", _numbered(confidence, confidence_files), words),
    ):
        if files:
            first = read_map(files[0])
            found[name] = (*planes(files, read_map, first.shape, first.dtype), attrs)
    return found


def _load_camera(file: Path) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    try:
        with np.load(file, allow_pickle=False) as held:
            pose, matrix = (np.asarray(held[key], np.float64) for key in ("pose", "intrinsics"))
    # A damaged archive or header may stumble in any way.
    except Exception as error:
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
            numbers = np.loadtxt(read_text(path).splitlines(), ndmin=2)
        except ValueError as error:
            raise UnreadableFile(f"{path}: {error}") from error
        if columns == 1:
            numbers = numbers.reshape(-1, 1)
        if numbers.shape[1] != columns:
            raise UnreadableFile(f"{path} has {numbers.shape[1]} numbers a line, not {columns}")
        return numbers[:, 0]
    return None
