"""Small sequences and runs with known errors."""

from collections.abc import Callable
from typing import Any

import numpy as np
import xarray as xr
from scipy.spatial.transform import Rotation

GRID = ("frame", "y", "x")
POSE = ("frame", "row", "col")


def camera_path(frames: int, seed: int = 0) -> np.ndarray:
    """A smooth path (frame, row, col) that turns and does not stand still."""
    rng = np.random.default_rng(seed)
    time = np.linspace(0, 1, frames)
    poses = np.tile(np.eye(4), (frames, 1, 1))
    turns = rng.normal(size=(1, 3)) * time[:, None]
    poses[:, :3, :3] = Rotation.from_rotvec(turns).as_matrix()
    phase = rng.uniform(0, 6, 3)
    poses[:, :3, 3] = np.sin(3 * time[:, None] + phase) - np.sin(phase)
    return poses


def a_sequence(
    name: str = "one", indices: Any = 12, seed: int = 0, size: tuple[int, int] = (6, 8)
) -> xr.Dataset:
    """A sequence with images of noise, depth, pose, intrinsics and motion masks."""
    indices = np.arange(indices) if np.ndim(indices) == 0 else np.asarray(indices)
    rng = np.random.default_rng(seed)
    shape = (len(indices), *size)
    matrix = np.array([[size[1], 0, size[1] // 2], [0, size[1], size[0] // 2], [0, 0, 1.0]])
    return xr.Dataset(
        {
            "image": ((*GRID, "rgb"), rng.integers(0, 255, (*shape, 3), dtype=np.uint8)),
            "depth": (GRID, rng.uniform(1, 9, shape)),
            "pose": (POSE, camera_path(len(indices), seed)),
            "intrinsics": (
                ("frame", "camera_row", "camera_col"), np.tile(matrix, (len(indices), 1, 1)),
            ),
            "motion_mask": (GRID, rng.random(shape) < 0.3),
        },
        coords={"frame": indices},
        attrs={"name": name, "kind": "dataset", "source": "test", "sha256": "0" * 64},
    )  # fmt: skip


def a_run(
    sequence: xr.Dataset,
    *,
    change: Callable[[xr.Dataset], xr.Dataset] = lambda prediction: prediction,
    rule: str = "crop",
    size: int = 512,
    truth: tuple[str, ...] = ("depth", "pose", "motion_mask"),
    **attrs: Any,
) -> xr.DataTree:
    """A run that predicted the truth of a sequence, then changed."""
    frames = sequence.sizes["frame"]
    prediction = sequence[["depth", "pose", "motion_mask"]].assign(
        focal=("frame", sequence["intrinsics"].values[:, 0, 0])
    )
    root = {
        "backbone": {
            "name": "perfect",
            "sha256": "1" * 64,
            "preparation": {"size": size, "rule": rule, "patch": 16},
        },
        "sequence": {name: sequence.attrs[name] for name in ("name", "kind", "source", "sha256")},
        "frames": frames,
        "frames_complete": frames,
        "complete": True,
    }
    groups = {"/": xr.Dataset(attrs=root | attrs), "/prediction": change(prediction)}
    if truth:
        groups["/truth"] = sequence[list(truth)]
    return xr.DataTree.from_dict(groups, name=sequence.attrs["name"])
