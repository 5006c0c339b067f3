"""Many scenes as plain arrays: what the generator draws and both renderers read."""

from dataclasses import dataclass, fields
from typing import Any

import numpy as np

from mut3r_analysis.errors import InvalidArgument
from mut3r_analysis.foundation.fields import whole
from mut3r_analysis.scenes.paths import evaluate_poses

SHAPES = ("sphere", "box")
PATTERNS = ("noise", "checker", "stripes")
ROOM_SURFACES = ("walls", "floor", "ceiling")

PATTERN, SCALE, CONTRAST = range(3)
COLORS = slice(3, 12)
"""Columns of a texture: pattern, scale (m), contrast, then three RGB colours in [0, 1]."""

AMBIENT = 0
LIGHT = slice(1, 4)
FOG_LENGTH = 4
FOG_COLOR = slice(5, 8)
"""Columns of the lighting: ambient share, position of the lamp (m), fog length (m), fog colour."""

ABSENT = -1


def image_size(field: str, size: Any) -> tuple[int, int]:
    """Return a valid image size (width, height) in px, or raise `InvalidArgument`."""
    try:
        width, height = (whole(field, each, 2, 8192) for each in size)
    except (TypeError, ValueError, InvalidArgument):
        raise InvalidArgument(
            f"{field}={size!r}; give (width, height) in px, each from 2 to 8192."
        ) from None
    return width, height


@dataclass(frozen=True, eq=False)
class SceneArrays:
    """Scenes of one batch, structure of arrays; the leading dim of everything is `clip`.

    Attributes
    ----------
    room : ndarray (clip, xyz)
        Half sizes of the rooms, m; a room is centred on the origin, its floor at ``y = +half``.
    tangent : ndarray (clip,)
        Half the image width over the focal length: ``tan(fov / 2)``.
    camera_position, camera_angles : ndarray (clip, parameter, xyz)
        Paths of the camera.
    camera_target : ndarray (clip, xyz)
        Where it looks, or NaN.
    shape : ndarray (clip, object)
        Index into `SHAPES`, or `ABSENT`.
    half_size : ndarray (clip, object, xyz)
        Semi-axes of a sphere, half extents of a box, m.
    object_position, object_angles : ndarray (clip, object, parameter, xyz)
        Paths of the objects.
    texture : ndarray (clip, surface, column)
        Textures of walls, floor, ceiling, then of the objects.
    texture_seed : ndarray (clip, surface), int64
        Seeds of the textures, below 2**32.
    light : ndarray (clip, column)
        Lighting and fog; the fog length is infinite where there is none.
    """

    room: np.ndarray
    tangent: np.ndarray
    camera_position: np.ndarray
    camera_angles: np.ndarray
    camera_target: np.ndarray
    shape: np.ndarray
    half_size: np.ndarray
    object_position: np.ndarray
    object_angles: np.ndarray
    texture: np.ndarray
    texture_seed: np.ndarray
    light: np.ndarray

    def __len__(self) -> int:
        return len(self.room)

    def take(self, clips: slice) -> "SceneArrays":
        """Return some of the scenes."""
        parts = {each.name: getattr(self, each.name)[clips] for each in fields(self)}
        return SceneArrays(**{name: np.ascontiguousarray(part) for name, part in parts.items()})

    def camera_poses(self, frames: int) -> np.ndarray:
        """Camera-to-world poses `(clip, frame, 3, 4)`."""
        return evaluate_poses(self.camera_position, self.camera_angles, frames, self.camera_target)

    def object_poses(self, frames: int) -> np.ndarray:
        """Object-to-world poses `(clip, frame, object, 3, 4)`."""
        poses = evaluate_poses(self.object_position, self.object_angles, frames)
        return np.ascontiguousarray(poses.swapaxes(1, 2))
