"""Point clouds as files that other programs open: PLY and binary glTF (GLB)."""

import json
import struct
from pathlib import Path
from typing import Any

import numpy as np

from mut3r_analysis.errors import InvalidArgument
from mut3r_analysis.foundation.paths import user_path

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

    Examples
    --------
    >>> positions = np.random.default_rng(0).normal(size=(10, 3))
    >>> write_ply("cloud.ply", positions, np.zeros((10, 3), np.uint8)).name
    'cloud.ply'
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
    return _write(path, header.encode("ascii") + vertices.tobytes())


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

    Examples
    --------
    >>> cloud = np.random.default_rng(0).normal(size=(10, 3)), np.zeros((10, 3), np.uint8)
    >>> write_glb("cloud.glb", {"cloud": cloud}, {}).name
    'cloud.glb'
    """
    every = [(name, *cloud, _POINTS) for name, cloud in clouds.items()]
    for name, (ends, color) in lines.items():
        flat = np.asarray(ends).reshape(-1, 3)
        every.append((name, flat, np.tile(np.array(color, np.uint8), (len(flat), 1)), _LINES))
    meshes: list[dict[str, Any]] = []
    accessors: list[dict[str, Any]] = []
    views: list[dict[str, Any]] = []
    buffer = bytearray()

    def add(array: np.ndarray, **about: Any) -> int:
        data = array.tobytes()
        place = {"buffer": 0, "byteOffset": len(buffer), "byteLength": len(data)}
        views.append(place | {"target": _ARRAY_BUFFER})
        buffer.extend(data + bytes(-len(data) % 4))
        accessors.append({"bufferView": len(views) - 1, "count": len(array)} | about)
        return len(accessors) - 1

    for name, *given, mode in every:
        positions, colors = _checked(*given)
        if not len(positions):
            continue
        # Four channels, because attributes start at multiples of four bytes.
        opaque = np.concatenate([colors, np.full((len(colors), 1), 255, np.uint8)], axis=1)
        bounds = {"min": positions.min(0).tolist(), "max": positions.max(0).tolist()}
        attributes = {
            "POSITION": add(positions, componentType=_FLOAT, type="VEC3", **bounds),
            "COLOR_0": add(opaque, componentType=_BYTE, normalized=True, type="VEC4"),
        }
        meshes.append({"name": name, "primitives": [{"attributes": attributes, "mode": mode}]})
    if not meshes:
        raise InvalidArgument("there are no points and no lines to write")
    return _write(path, _packed(meshes, accessors, views, bytes(buffer)))


def _packed(meshes: list[Any], accessors: list[Any], views: list[Any], buffer: bytes) -> bytes:
    """Return a binary glTF: the document as JSON, then the buffer that holds its arrays."""
    turned = [1.0, 0.0, 0.0, 0.0]
    document = {
        "asset": {"version": "2.0", "generator": "mut3r_analysis"},
        "scene": 0,
        "scenes": [{"nodes": list(range(len(meshes)))}],
        "nodes": [
            {"mesh": at, "name": mesh["name"], "rotation": turned} for at, mesh in enumerate(meshes)
        ],
        "meshes": meshes,
        "accessors": accessors,
        "bufferViews": views,
        "buffers": [{"byteLength": len(buffer)}],
    }
    text = json.dumps(document, separators=(",", ":"), allow_nan=False).encode()
    text += b" " * (-len(text) % 4)
    parts = ((b"JSON", text), (b"BIN\0", buffer))
    chunks = b"".join(struct.pack("<I4s", len(data), kind) + data for kind, data in parts)
    return struct.pack("<4sII", b"glTF", 2, 12 + len(chunks)) + chunks


def _write(path: str | Path, content: bytes) -> Path:
    path = user_path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


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
