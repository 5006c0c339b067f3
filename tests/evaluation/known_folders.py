"""Folders of predictions, written as the released code writes them."""

from pathlib import Path

import numpy as np
from PIL import Image
from scipy.spatial.transform import Rotation

SIZE = (48, 64)
FRAMES = 5


def depth_maps(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).uniform(1, 9, (FRAMES, *SIZE)).astype(np.float32)


def write_demo(folder: Path, depth: np.ndarray, poses: np.ndarray) -> None:
    for part in ("depth", "conf", "color", "camera"):
        (folder / part).mkdir(parents=True)
    matrix = np.array([[70, 0, 32], [0, 70, 24], [0, 0, 1]], np.float32)
    for index, (plane, pose) in enumerate(zip(depth, poses, strict=True)):
        np.save(folder / "depth" / f"{index:06d}.npy", plane)
        np.save(folder / "conf" / f"{index:06d}.npy", plane + 1)
        Image.fromarray(np.zeros((*SIZE, 3), np.uint8)).save(folder / "color" / f"{index:06d}.png")
        np.savez(folder / "camera" / f"{index:06d}.npz", pose=pose, intrinsics=matrix)


def write_pose(
    folder: Path, poses: np.ndarray, order: str = "wxyz", depth: np.ndarray | None = None
) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    quaternions = Rotation.from_matrix(poses[:, :3, :3]).as_quat()
    if order == "wxyz":
        quaternions = np.roll(quaternions, 1, axis=1)
    stamps = np.arange(len(poses), dtype=float)[:, None]
    np.savetxt(folder / "pred_traj.txt", np.hstack([stamps, poses[:, :3, 3], quaternions]))
    np.savetxt(folder / "pred_focal.txt", np.full(len(poses), 70.0))
    np.savetxt(folder / "pred_intrinsics.txt", np.tile([70, 0, 32, 0, 70, 24, 0, 0, 1], (5, 1)))
    for index, plane in enumerate([] if depth is None else depth):
        np.save(folder / f"frame_{index:04d}.npy", plane)
        np.save(folder / f"conf_{index}.npy", plane + 1)
        Image.fromarray((plane > 5).astype(np.uint8) * 255).save(
            folder / f"dynamic_mask_{index}.png"
        )
