"""Cameras of a COLMAP reconstruction in its binary files.

COLMAP measures pixels from the corner of the image, so that the centre of the first one is
(0.5, 0.5); a sequence has it at (0, 0). Principal points are shifted by half a pixel both ways.
"""

import struct
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from mut3r_analysis.errors import InvalidArgument, UnreadableFile
from mut3r_analysis.foundation.text_files import read_bytes
from mut3r_analysis.sequences.layouts.formats import invert_rigid

HALF_PIXEL = 0.5
_PINHOLE = 1
_POINT = np.dtype(
    [("number", "<u8"), ("position", "<f8", 3), ("color", "u1", 3), ("error", "<f8"),
     ("track", "<u8")]
)  # fmt: skip
# Model number: how many parameters it has, and how many of them are focal lengths.
_MODELS = {0: (3, 1), 1: (4, 2), 2: (4, 1), 3: (5, 1), 4: (8, 2), 5: (8, 2), 6: (12, 2)}


class Registered(NamedTuple):
    """One registered image: pose (4, 4) camera-to-world, intrinsics (3, 3)."""

    pose: NDArray[np.float64]
    intrinsics: NDArray[np.float64]


def read_sparse(folder: Path) -> dict[str, Registered]:
    """Read ``cameras.bin`` and ``images.bin``: image name to camera. Distortion is left aside.

    Raises
    ------
    MissingFile, UnreadableFile
        A file that is not there, ends early, or names a camera or model that is not known.
    """
    intrinsics = _read_cameras(folder / "cameras.bin")
    reader = _Reader(folder / "images.bin")
    registered = {}
    for _ in range(reader.take("<Q")[0]):
        numbers = reader.take("<i7di")
        name = reader.text()
        reader.skip(24 * reader.take("<Q")[0])
        if numbers[8] not in intrinsics:
            raise UnreadableFile(
                f"{reader.path}: image {name!r} was taken by camera {numbers[8]}, which "
                "cameras.bin does not hold"
            )
        if not 0 < np.linalg.norm(numbers[1:5]) < np.inf:
            raise UnreadableFile(
                f"{reader.path}: the quaternion of image {name!r} is no rotation: {numbers[1:5]}"
            )
        extrinsics = np.empty((3, 4))
        extrinsics[:, :3] = Rotation.from_quat(np.roll(numbers[1:5], -1)).as_matrix()
        extrinsics[:, 3] = numbers[5:8]
        registered[name] = Registered(invert_rigid(extrinsics, reader.path), intrinsics[numbers[8]])
    return registered


def write_sparse(
    folder: Path,
    cameras: dict[str, Registered],
    width: int,
    height: int,
    points: tuple[NDArray[np.floating], NDArray[np.uint8]] | None = None,
) -> None:
    """Write cameras as a reconstruction, one pinhole camera per image.

    Parameters
    ----------
    folder : Path
        Made here.
    cameras : dict
        Image name to camera.
    width, height : int
        Of every image, px.
    points : (ndarray, ndarray), optional
        Positions (point, xyz) and colours (point, rgb); none of them is tracked in an image.
    """
    for camera in cameras.values():
        if camera.intrinsics[0, 1] != 0:
            raise InvalidArgument("a COLMAP camera has no skew; these intrinsics have")
    camera_bytes = [struct.pack("<Q", len(cameras))]
    image_bytes = [struct.pack("<Q", len(cameras))]
    for number, (name, (pose, matrix)) in enumerate(cameras.items(), start=1):
        parameters = matrix[[0, 1, 0, 1], [0, 1, 2, 2]] + [0, 0, HALF_PIXEL, HALF_PIXEL]
        camera_bytes.append(
            struct.pack("<iiQQ4d", number, _PINHOLE, width, height, *parameters.tolist())
        )
        extrinsics = np.linalg.inv(pose)
        quaternion = np.roll(Rotation.from_matrix(extrinsics[:3, :3]).as_quat(), 1)
        image_bytes.append(
            struct.pack("<i7di", number, *quaternion, *extrinsics[:3, 3], number)
            + name.encode()
            + b"\0"
            + struct.pack("<Q", 0)
        )
    folder.mkdir(parents=True)
    (folder / "cameras.bin").write_bytes(b"".join(camera_bytes))
    (folder / "images.bin").write_bytes(b"".join(image_bytes))
    positions, colors = points or (np.zeros((0, 3)), np.zeros((0, 3), np.uint8))
    listed = np.zeros(len(positions), _POINT)
    listed["number"] = np.arange(1, len(positions) + 1)
    listed["position"], listed["color"] = positions, colors
    (folder / "points3D.bin").write_bytes(struct.pack("<Q", len(listed)) + listed.tobytes())


def _read_cameras(path: Path) -> dict[int, NDArray[np.float64]]:
    reader = _Reader(path)
    found = {}
    for _ in range(reader.take("<Q")[0]):
        number, model, _, _ = reader.take("<iiQQ")
        if model not in _MODELS:
            raise UnreadableFile(
                f"{path}: camera {number} has model {model}; perspective models 0 to 6 are read"
            )
        count, focals = _MODELS[model]
        parameters = reader.take(f"<{count}d")
        matrix = np.eye(3)
        matrix[[0, 1], [0, 1]] = parameters[0], parameters[focals - 1]
        matrix[:2, 2] = np.array(parameters[focals : focals + 2]) - HALF_PIXEL
        found[number] = matrix
    return found


class _Reader:
    """Takes values from the front of a binary file."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._content = read_bytes(path)
        self._at = 0

    def take(self, form: str) -> tuple:
        size = struct.calcsize(form)
        self._need(size)
        values = struct.unpack_from(form, self._content, self._at)
        self._at += size
        return values

    def text(self) -> str:
        end = self._content.find(b"\0", self._at)
        self._need(end - self._at if end >= 0 else len(self._content) + 1)
        text = self._content[self._at : end].decode("utf-8", "replace")
        self._at = end + 1
        return text

    def skip(self, size: int) -> None:
        self._need(size)
        self._at += size

    def _need(self, size: int) -> None:
        if self._at + size > len(self._content):
            raise UnreadableFile(
                f"{self.path} ends early, after {len(self._content)} bytes: copy it again"
            )
