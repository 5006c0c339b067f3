"""Which pixels move in the world: true optical flow against the flow of the camera alone.

MonST3R makes motion labels for Sintel this way: every pixel is unprojected with its true depth,
taken to rest, and projected into the next camera; where the true flow differs from that by more
than a threshold, the pixel moves.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

THRESHOLD = 0.1
"""MonST3R's threshold for its precise labels, px."""


def camera_flow(
    depth: NDArray[np.floating],
    pose: NDArray[np.floating],
    next_pose: NDArray[np.floating],
    intrinsics: NDArray[np.floating],
    next_intrinsics: NDArray[np.floating],
) -> NDArray[np.float64]:
    """Optical flow (y, x, uv), px, that a resting world shows.

    Parameters
    ----------
    depth
        (y, x), metres; the flow is NaN where it is.
    pose, next_pose
        (row, col), 4x4 camera-to-world.
    intrinsics, next_intrinsics
        (row, col), 3x3.
    """
    v, u = np.indices(depth.shape, dtype=np.float64)
    pixels = np.stack([u, v, np.ones_like(u)], axis=-1)
    points = depth[..., None] * (pixels @ np.linalg.inv(intrinsics).T)
    move = np.linalg.inv(next_pose) @ pose
    projected = (points @ move[:3, :3].T + move[:3, 3]) @ np.asarray(next_intrinsics).T
    with np.errstate(divide="ignore", invalid="ignore"):
        return projected[..., :2] / projected[..., 2:] - pixels[..., :2]


def moving_pixels(
    flow: NDArray[np.floating], camera: NDArray[np.floating], threshold: float = THRESHOLD
) -> NDArray[np.bool_]:
    """Mark pixels (y, x) whose flow differs from the camera's by more than `threshold` px.

    Pixels whose flow or depth is not known do not count as moving.
    """
    with np.errstate(invalid="ignore"):
        return np.linalg.norm(flow - camera, axis=-1) > threshold


def moving_speeds(sequence: xr.Dataset, position: int) -> NDArray[np.float64]:
    """Return how fast each moving pixel of a frame moves beyond what the camera explains, px/frame.

    Pixels whose flow or depth is not known are left out.

    Parameters
    ----------
    sequence : Dataset
        With ``flow``, ``depth``, ``pose``, ``intrinsics`` and ``motion_mask``.
    position : int
        Of a frame that has a next one.
    """
    mask = sequence["motion_mask"][position].values.astype(bool)
    depth, flow = (sequence[name][position].values.astype(float) for name in ("depth", "flow"))
    poses, cameras = (
        sequence[name][position : position + 2].values.astype(float)
        for name in ("pose", "intrinsics")
    )
    speeds = np.linalg.norm(flow - camera_flow(depth, *poses, *cameras), axis=-1)[mask]
    return speeds[np.isfinite(speeds)]


@dataclass(frozen=True, eq=False)
class MotionFromFlow:
    """Motion masks (frame, y, x) computed when they are read; a source of planes.

    At frames without flow, the last one above all, motion is not known; the mask is empty there.
    """

    depth: Callable[[int], NDArray[np.floating]]
    flow: Callable[[int], NDArray[np.floating]]
    known: NDArray[np.bool_]
    pose: NDArray[np.float64]
    intrinsics: NDArray[np.float64]
    plane_shape: tuple[int, int]
    threshold: float = THRESHOLD

    @property
    def dtype(self) -> np.dtype[Any]:
        """Masks."""
        return np.dtype(bool)

    @property
    def shape(self) -> tuple[int, ...]:
        """Frames first."""
        return len(self.known), *self.plane_shape

    def read(self, position: int) -> NDArray[np.bool_]:
        """Compare the flows of one frame."""
        if not self.known[position]:
            return np.zeros(self.plane_shape, bool)
        camera = camera_flow(
            self.depth(position).astype(np.float64),
            *self.pose[position : position + 2],
            *self.intrinsics[position : position + 2],
        )
        return moving_pixels(self.flow(position), camera, self.threshold)
