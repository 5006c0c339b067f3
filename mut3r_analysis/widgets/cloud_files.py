"""Point clouds as files that other programs open: PLY and binary glTF (GLB)."""

import json
import struct
from pathlib import Path
from typing import Any

import numpy as np

from mut3r_analysis.errors import InvalidArgument

_FLOAT, _BYTE = 5126, 5121
_POINTS, _LINES = 0, 1
_ARRAY_BUFFER = 34962


def write_ply(path: str | Path, positions: np.ndarray, colors: np.ndarray) -> Path:
    """Write points as binary little-endian PLY.

    Parameters
    ----------
    path : str or Path
    positions : numpy.ndarray
        ``(point, xyz)``.
    colors : numpy.ndarray
        uint8 ``(point, rgb)``.

    Raises
    ------
    InvalidArgument
        When the arrays do not belong together.
    """
    positions, colors = _checked(positions, colors)
    header = "\n".join(
        [
            "ply",
            "format binary_little_endian 1.0",
            "comment metres; x right, y down, z forward of the first camera",
            f"element vertex {len(positions)}",
            *(f"property float {axis}" for axis in "xyz"),
            *(f"property uchar {channel}" for channel in ("red", "green", "blue")),
            "end_header\n",
        ]
    )
    vertices = np.empty(len(positions), [("position", "<f4", 3), ("color", "u1", 3)])
    vertices["position"], vertices["color"] = positions, colors
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(header.encode("ascii") + vertices.tobytes())
    return path


def write_glb(
    path: str | Path,
    clouds: dict[str, tuple[np.ndarray, np.ndarray]],
    lines: dict[str, tuple[np.ndarray, tuple[int, int, int]]],
) -> Path:
    """Write named clouds and named line segments as one binary glTF 2.0 file.

    Parameters
    ----------
    path : str or Path
    clouds : dict
        Name -> positions ``(point, xyz)`` and uint8 colours ``(point, rgb)``.
    lines : dict
        Name -> ends of segments ``(..., end, xyz)`` and one colour.

    Notes
    -----
    glTF has y up and looks along -z; each node turns by half a turn about x, the numbers stay.

    Raises
    ------
    InvalidArgument
        When arrays do not belong together, or there is nothing to write.
    """
    scene = _Gltf()
    for name, (positions, colors) in clouds.items():
        scene.add_mesh(name, positions, colors, _POINTS)
    for name, (ends, color) in lines.items():
        flat = np.asarray(ends).reshape(-1, 3)
        scene.add_mesh(name, flat, np.tile(np.array(color, np.uint8), (len(flat), 1)), _LINES)
    if not scene.meshes:
        raise InvalidArgument("there are no points and no lines to write")
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(scene.to_bytes())
    return path


class _Gltf:
    """A glTF document while it is put together: meshes, and the buffer that holds their arrays."""

    def __init__(self) -> None:
        self.meshes: list[dict[str, Any]] = []
        self._accessors: list[dict[str, Any]] = []
        self._views: list[dict[str, Any]] = []
        self._buffer = b""

    def add_mesh(self, name: str, positions: np.ndarray, colors: np.ndarray, mode: int) -> None:
        """Add points or lines; none at all add nothing."""
        positions, colors = _checked(positions, colors)
        if not len(positions):
            return
        # Four channels, because attributes start at multiples of four bytes.
        opaque = np.concatenate([colors, np.full((len(colors), 1), 255, np.uint8)], axis=1)
        bounds = {side: getattr(positions, side)(0).tolist() for side in ("min", "max")}
        attributes = {
            "POSITION": self._add(positions, componentType=_FLOAT, type="VEC3", **bounds),
            "COLOR_0": self._add(opaque, componentType=_BYTE, normalized=True, type="VEC4"),
        }
        self.meshes.append({"name": name, "primitives": [{"attributes": attributes, "mode": mode}]})

    def _add(self, array: np.ndarray, **about: Any) -> int:
        data = array.tobytes()
        place = {"buffer": 0, "byteOffset": len(self._buffer), "byteLength": len(data)}
        self._views.append(place | {"target": _ARRAY_BUFFER})
        self._buffer += data + bytes(-len(data) % 4)
        self._accessors.append({"bufferView": len(self._views) - 1, "count": len(array)} | about)
        return len(self._accessors) - 1

    def to_bytes(self) -> bytes:
        """Return the binary file: the document as JSON, then the buffer."""
        turned = [1.0, 0.0, 0.0, 0.0]
        nodes = [
            {"mesh": at, "name": mesh["name"], "rotation": turned}
            for at, mesh in enumerate(self.meshes)
        ]
        document = {
            "asset": {"version": "2.0", "generator": "mut3r_analysis"},
            "scene": 0,
            "scenes": [{"nodes": list(range(len(nodes)))}],
            "nodes": nodes,
            "meshes": self.meshes,
            "accessors": self._accessors,
            "bufferViews": self._views,
            "buffers": [{"byteLength": len(self._buffer)}],
        }
        text = json.dumps(document, separators=(",", ":"), allow_nan=False).encode()
        text += b" " * (-len(text) % 4)
        parts = ((b"JSON", text), (b"BIN\0", self._buffer))
        chunks = b"".join(struct.pack("<I4s", len(data), kind) + data for kind, data in parts)
        return struct.pack("<4sII", b"glTF", 2, 12 + len(chunks)) + chunks


def _checked(positions: Any, colors: Any) -> tuple[np.ndarray, np.ndarray]:
    positions, colors = np.ascontiguousarray(positions, "<f4"), np.asarray(colors)
    if positions.ndim != 2 or positions.shape[1] != 3 or colors.shape != positions.shape:
        raise InvalidArgument(
            f"positions are (point, xyz) and colours (point, rgb) of the same points, got "
            f"{positions.shape} and {colors.shape}"
        )
    if colors.dtype != np.uint8:
        raise InvalidArgument(f"colours are uint8, got {colors.dtype}")
    return positions, np.ascontiguousarray(colors)
