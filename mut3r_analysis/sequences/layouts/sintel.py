"""MPI Sintel: rendered film with exact depth, cameras and optical flow.

``ROOT`` is the folder ``training`` (or the one around it)::

    {final,clean}/<sequence>/frame_0001.png
    depth/<sequence>/frame_0001.dpt  camdata_left/<sequence>/frame_0001.cam
    flow/<sequence>/frame_0001.flo   [dynamic_label_perfect/<sequence>/frame_0001.png]
"""

from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from mut3r_analysis.errors import InvalidArgument, MissingFile
from mut3r_analysis.sequences.images import ImageFiles
from mut3r_analysis.sequences.layouts import formats
from mut3r_analysis.sequences.layouts.ego_motion import THRESHOLD, MotionFromFlow
from mut3r_analysis.sequences.layouts.files import (
    GRID,
    INTRINSICS,
    POSE,
    PlaneFiles,
    SequenceFiles,
    existing,
    lazy_planes,
    planes,
)
from mut3r_analysis.sequences.layouts.layout import Contents, Layout, Options, Variables, subfolders

PASSES = ("final", "clean")
LABELS = "dynamic_label_perfect"


def read(files: SequenceFiles, images: ImageFiles, options: Options) -> Contents:
    """Read all frames of ``ROOT#alley_2``.

    Options: ``pass=final|clean``; ``motion=flow`` computes motion masks from flow, depth and
    cameras when they are read (`ego_motion`; ``threshold=0.1`` px), ``motion=labels`` reads the
    ones that MonST3R's preparation wrote, ``auto`` takes flow where there is any. The coordinate
    ``motion_known`` is false where a frame has no mask, the last one.
    """
    threshold = _positive(options["threshold"] or str(THRESHOLD))
    size = images.size
    variables: Variables = {}
    attrs: dict[str, Any] = {"pass": options["pass"]}
    depth = PlaneFiles(files.truth.get("depth", ()), formats.read_dpt, size)
    flow = PlaneFiles(files.truth.get("flow", ()), formats.read_flo, (*size, 2))
    if depth.files:
        variables["depth"] = (GRID, lazy_planes(depth))
    if flow.files:
        variables["flow"] = ((*GRID, "uv"), lazy_planes(flow))
    if "pose" in files.truth:
        intrinsics, pose = read_cameras(files)
        variables |= {"pose": (POSE, pose), "intrinsics": (INTRINSICS, intrinsics)}
    if "motion_mask" in files.truth:
        masks = files.truth["motion_mask"]
        if masks == files.truth.get("flow"):
            attrs["motion_threshold_px"] = threshold
            known = np.array([file is not None for file in masks])
            source = MotionFromFlow(depth.read, flow.read, known, pose, intrinsics, size, threshold)
            variables["motion_mask"] = (GRID, lazy_planes(source))
        else:
            variables["motion_mask"] = planes(masks, formats.read_mask, size, bool, absent=False)
    return variables, attrs


def find(root: Path) -> dict[str, Path]:
    """Find sequences: name to the folder that holds the passes."""
    return {
        folder.name: base
        for base in (root / "training", root)
        for kind in PASSES
        for folder in subfolders(base / kind)
        if any(folder.glob("frame_*.png"))
    }


def list_files(base: Path, name: str, options: Options) -> SequenceFiles:
    """List the files of a sequence."""
    render, motion = options["pass"], options["motion"]
    folder = base / render / name
    images = sorted(folder.glob("frame_*.png"))
    if not images:
        there = " and ".join(kind for kind in PASSES if (base / kind / name).is_dir())
        raise MissingFile(f"{folder} holds no frames; {name} exists in the pass {there}: ?pass=")
    depth, cameras, flow, labels = (
        existing(base / kind / name / f"{image.stem}.{suffix}" for image in images)
        for kind, suffix in (
            ("depth", "dpt"), ("camdata_left", "cam"), ("flow", "flo"), (LABELS, "png"),
        )
    )  # fmt: skip
    computable = any(flow) and any(depth) and any(cameras)
    if motion == "auto":
        motion = "flow" if computable else "labels"
    if motion == "flow" and not computable:
        raise MissingFile(
            f"motion=flow needs flow, depth and camdata_left of {name} in {base}; one is not there"
        )
    truth = {
        "depth": depth, "pose": cameras, "intrinsics": cameras, "flow": flow,
        "motion_mask": flow if motion == "flow" else labels,
    }  # fmt: skip
    every, pairs = len(images), len(images) - 1
    complete = {"depth": every, "pose": every, "flow": pairs, "motion_mask": pairs}
    return SequenceFiles("sintel", name, folder, tuple(images), truth, complete=complete)


def read_cameras(files: SequenceFiles) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Read intrinsics (frame, row, col) and poses (frame, row, col)."""
    cameras = [formats.read_cam(file) for file in files.truth["pose"] if file]
    return np.stack([matrix for matrix, _ in cameras]), np.stack([pose for _, pose in cameras])


def write(sequence: xr.Dataset, root: Path, name: str) -> None:
    """Write final pass, depth and cameras; flow and motion labels where the sequence has them."""
    if "flow" in sequence and (np.diff(sequence["frame"].values) != 1).any():
        raise InvalidArgument(
            "the sequence leaves out frames of its source, so its flow does not lead from one of "
            "its frames to the next; drop the variable flow, or export all frames"
        )
    kinds = ["final", "depth", "camdata_left"]
    kinds += ["flow"] * ("flow" in sequence) + [LABELS] * ("motion_mask" in sequence)
    for kind in kinds:
        (root / kind / name).mkdir(parents=True)
    last = sequence.sizes["frame"] - 1
    for index in range(last + 1):
        frame = sequence.isel(frame=index)
        stem = f"{name}/frame_{index + 1:04d}"
        formats.write_image(root / "final" / f"{stem}.png", frame["image"].values)
        formats.write_dpt(root / "depth" / f"{stem}.dpt", frame["depth"].values)
        formats.write_cam(
            root / "camdata_left" / f"{stem}.cam", frame["intrinsics"].values, frame["pose"].values
        )
        if "flow" in sequence and index < last:
            formats.write_flo(root / "flow" / f"{stem}.flo", frame["flow"].values)
        if "motion_mask" in sequence and index < last:
            formats.write_mask(root / LABELS / f"{stem}.png", frame["motion_mask"].values)


def _positive(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 < value < np.inf:
        raise InvalidArgument(f"sintel: threshold={text!r}; give a positive number of pixels")
    return value


def _poses(files: SequenceFiles) -> NDArray[np.float64] | None:
    return read_cameras(files)[1] if "pose" in files.truth else None


_SITE = "MPI Sintel, http://sintel.is.tue.mpg.de"
LAYOUT = Layout(
    "sintel", find, list_files, read, write,
    needs=("image", "depth", "pose", "intrinsics"),
    looks_like="final/<sequence>/frame_0001.png or clean/..., as in the folder training",
    obtain={
        "image": f"{_SITE}: the training images",
        "depth": f"{_SITE}, page Depth: the training set of depth and cameras",
        "pose": f"{_SITE}, page Depth: the training set of depth and cameras",
        "motion_mask": f"{_SITE}: the training flow; with depth and cameras it gives the masks",
    },
    poses=_poses,
    options={"pass": PASSES, "motion": ("auto", "flow", "labels"), "threshold": ()},
)  # fmt: skip
