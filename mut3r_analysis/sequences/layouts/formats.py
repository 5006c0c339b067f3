"""The file formats data sets keep their truth in: Sintel's binary files and PNG planes.

Sintel's files are little-endian and begin with the float32 number 202021.25. Depth PNGs are 16-bit
gray, a whole number of steps each, 0 where nothing was measured.
"""

import io
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from mut3r_analysis.errors import InvalidArgument, MissingFile, UnreadableFile
from mut3r_analysis.foundation.text_files import read_bytes, read_text
from mut3r_analysis.sequences.images import open_picture

TAG = np.float32(202021.25)
UNKNOWN_FLOW = 1e9
"""Flow components, px, from which on a ``.flo`` file means that the motion is not known."""

_HEADER = np.dtype([("tag", "<f4"), ("width", "<i4"), ("height", "<i4")])
_CAMERA = np.dtype([("tag", "<f4"), ("intrinsics", "<f8", (3, 3)), ("extrinsics", "<f8", (3, 4))])
_CHANNELS = {".dpt": 1, ".flo": 2}
_LARGEST_STEP = 65535
_LOSSY = {"AVIF", "JPEG", "JPEG2000", "MPO", "WEBP"}


def read_dpt(path: Path) -> NDArray[np.float32]:
    """Read a ``.dpt`` depth map (y, x), metres; NaN where the file has no positive finite number.

    Raises
    ------
    MissingFile, UnreadableFile
        No file, a wrong tag, or another length than its header announces.
    """
    return valid_or_nan(_read_tagged(path)[..., 0])


def write_dpt(path: Path, depth: NDArray[np.floating]) -> None:
    """Write a depth map (y, x), metres; 0 where it is not known."""
    _write_tagged(path, np.where(np.isfinite(depth), depth, 0)[..., None])


def read_flo(path: Path) -> NDArray[np.float32]:
    """Read a ``.flo`` file (y, x, uv), px; NaN where the motion is not known.

    Raises
    ------
    MissingFile, UnreadableFile
        As `read_dpt`.
    """
    flow = _read_tagged(path)
    known = (np.abs(flow) < UNKNOWN_FLOW).all(axis=-1, keepdims=True)
    return np.where(known, flow, np.float32(np.nan))


def write_flo(path: Path, flow: NDArray[np.floating]) -> None:
    """Write optical flow (y, x, uv), px."""
    _write_tagged(path, np.where(np.isfinite(flow), flow, 10 * UNKNOWN_FLOW))


def read_cam(path: Path) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Read a ``.cam`` file: intrinsics (3, 3), and camera-to-world pose (4, 4) from its inverse.

    Raises
    ------
    MissingFile, UnreadableFile
        As `read_dpt`; and a rotation that cannot be inverted.
    """
    content = read_bytes(path)
    if len(content) != _CAMERA.itemsize:
        raise UnreadableFile(
            f"{path} has {len(content)} bytes, a .cam file has {_CAMERA.itemsize}; it is truncated "
            "or not a Sintel camera: copy it again"
        )
    camera = np.frombuffer(content, _CAMERA)[0]
    _check_tag(path, camera["tag"])
    return camera["intrinsics"].copy(), invert_rigid(camera["extrinsics"], path)


def write_cam(path: Path, intrinsics: NDArray[np.floating], pose: NDArray[np.floating]) -> None:
    """Write intrinsics (3, 3) and a camera-to-world pose (4, 4)."""
    camera = np.zeros((), _CAMERA)
    camera["tag"] = TAG
    camera["intrinsics"] = intrinsics
    camera["extrinsics"] = np.linalg.inv(pose)[:3]
    path.write_bytes(camera.tobytes())


def read_depth_png(path: Path, steps_per_metre: float) -> NDArray[np.float32]:
    """Read a 16-bit depth PNG (y, x), metres; NaN where it holds 0.

    Raises
    ------
    MissingFile, UnreadableFile
        No file, not a PNG, or one of another bit depth.
    """
    steps = _read_plane(path, ("I;16",), "16-bit gray, as depth is stored")
    return valid_or_nan((steps / steps_per_metre).astype(np.float32))


def write_depth_png(path: Path, depth: NDArray[np.floating], steps_per_metre: float) -> None:
    """Write depth (y, x), metres, rounded to steps; 0 where it is not known.

    Raises
    ------
    InvalidArgument
        A depth beyond what 16 bits can hold, or too small to be told from 0.
    """
    known = np.isfinite(depth) & (depth > 0)
    steps = np.rint(np.where(known, depth, 0).astype(np.float64) * steps_per_metre)
    outside = known & ((steps < 1) | (steps > _LARGEST_STEP))
    if outside.any():
        raise InvalidArgument(
            f"{np.count_nonzero(outside)} depths of {path.name} lie outside what this layout can "
            f"hold, {0.5 / steps_per_metre:g} m to {_LARGEST_STEP / steps_per_metre:g} m (they "
            f"span {depth[known].min():g} m to {depth[known].max():g} m); set them to NaN, which "
            "means not measured, or choose another layout: 'sintel' holds any depth"
        )
    Image.fromarray(steps.astype(np.uint16)).save(path)


def read_map(path: Path) -> NDArray[np.floating]:
    """Open a ``.npy`` file of floats (y, x); a first or last axis of one entry is dropped.

    Raises
    ------
    MissingFile, UnreadableFile
        No file, one that is not whole, or one of another shape or type.
    """
    if not path.is_file():
        raise MissingFile(f"{path} does not exist")
    try:
        found = np.load(path, mmap_mode="r", allow_pickle=False)
    # A damaged header is read as Python, which may stumble in any way.
    except Exception as error:
        raise UnreadableFile(f"{path} is not a whole .npy file: {error}; copy it again") from error
    if found.ndim == 3 and 1 in (found.shape[0], found.shape[2]):
        found = found[0] if found.shape[0] == 1 else found[..., 0]
    if found.ndim != 2 or found.dtype.kind != "f":
        raise UnreadableFile(f"{path} holds {found.dtype} {found.shape}, expected floats (y, x)")
    return found


def write_image(path: Path, pixels: NDArray[np.uint8]) -> None:
    """Write colours (y, x, rgb) as what the suffix says; JPEG is lossy at any quality."""
    # Other formats ignore what only JPEG knows.
    Image.fromarray(pixels).save(path, quality=95, subsampling=0)


def read_labels(path: Path) -> NDArray[np.uint8]:
    """Read a label PNG (y, x) of up to 255 labels: gray levels, palette indices, or 0 and 1.

    Raises
    ------
    MissingFile, UnreadableFile
        No file, not an image, one in colour or compressed with loss, or a label beyond 255.
    """
    labels = _read_labels(path)
    if labels.max(initial=0) > np.iinfo(np.uint8).max:
        raise UnreadableFile(f"{path} has labels up to {labels.max()}; renumber them from 0 to 255")
    return labels.astype(np.uint8)


def read_mask(path: Path) -> NDArray[np.bool_]:
    """Read a mask (y, x), one plane of any depth: true wherever it is not 0."""
    return _read_labels(path) > 0


def write_mask(path: Path, mask: NDArray[np.bool_]) -> None:
    """Write a mask (y, x) as 0 and 255."""
    Image.fromarray(mask.astype(np.uint8) * np.uint8(255)).save(path)


def read_numbers(path: Path, shape: tuple[int, ...]) -> NDArray[np.float64]:
    """Read a text file of numbers of a fixed shape.

    Raises
    ------
    MissingFile, UnreadableFile
        No file, words that are no numbers, or too few or too many of them.
    """
    try:
        numbers = np.array(read_text(path).split(), np.float64)
        return numbers.reshape(shape)
    except ValueError as error:
        expected = " x ".join(map(str, shape))
        raise UnreadableFile(f"{path} does not hold {expected} numbers: {error}") from error


def check_file(path: Path) -> None:
    """Check what can be checked without decoding pixels: tag, size, PNG header and bit depth.

    Raises
    ------
    MissingFile, UnreadableFile
        As the reader of this kind of file would.
    """
    if path.suffix in _CHANNELS:
        with _opened(path) as file:
            _check_header(path, file.read(_HEADER.itemsize), path.stat().st_size)
    elif path.suffix == ".cam":
        read_cam(path)
    elif path.suffix in (".png", ".jpg", ".npy"):
        _check_plane(path)
    elif not path.is_file():
        raise MissingFile(f"{path} does not exist")


def depth_png_problem(path: Path) -> str | None:
    """Say why a PNG cannot be a depth map, from its header; None if it can."""
    with _opened(path) as file, open_picture(file) as image:
        return None if image.mode == "I;16" else _wrong_mode(path, image.mode, "16-bit gray")


def invert_rigid(world_to_camera: NDArray[np.floating], path: Path) -> NDArray[np.float64]:
    """Invert a world-to-camera transform (3, 4) read from `path` into a pose (4, 4)."""
    full = np.eye(4)
    full[:3] = world_to_camera
    try:
        return np.asarray(np.linalg.inv(full), np.float64)
    except np.linalg.LinAlgError as error:
        raise UnreadableFile(f"{path} holds a camera whose rotation is singular") from error


def valid_or_nan(depth: NDArray[np.floating]) -> NDArray[np.float32]:
    """Turn every depth that is not a positive finite number into NaN, the sign of no measurement.

    Metrics ignore NaN as they ignore 0; a mean or a plot does not mistake it for a distance.
    """
    valid = np.isfinite(depth) & (depth > 0)
    return np.where(valid, depth, np.nan).astype(np.float32)


def _opened(path: Path) -> io.BufferedReader:
    try:
        return path.open("rb")
    except FileNotFoundError as error:
        raise MissingFile(f"{path} does not exist") from error
    except OSError as error:
        raise UnreadableFile(f"{path} cannot be read: {error}") from error


def _check_plane(path: Path) -> None:
    with _opened(path) as file:
        try:
            if path.suffix == ".npy":
                # Mapping a file compares its length with its header.
                np.load(path, mmap_mode="r", allow_pickle=False)
            else:
                open_picture(file).close()
        except Exception as error:
            raise UnreadableFile(
                f"{path} is not a whole {path.suffix} file: {error}; copy it again"
            ) from error


def _read_tagged(path: Path) -> NDArray[np.float32]:
    content = read_bytes(path)
    height, width = _check_header(path, content[: _HEADER.itemsize], len(content))
    values = np.frombuffer(content, "<f4", offset=_HEADER.itemsize)
    return values.reshape(height, width, -1).astype(np.float32)


def _check_header(path: Path, header: bytes, size: int) -> tuple[int, int]:
    """Check tag and length of a ``.dpt`` or ``.flo`` file; return height and width."""
    if len(header) < _HEADER.itemsize:
        raise UnreadableFile(f"{path} has {size} bytes, too few for a header: copy it again")
    fields = np.frombuffer(header, _HEADER)[0]
    _check_tag(path, fields["tag"])
    height, width = int(fields["height"]), int(fields["width"])
    if height < 1 or width < 1:
        raise UnreadableFile(f"{path} announces {width} x {height} pixels: copy it again")
    expected = _HEADER.itemsize + 4 * _CHANNELS[path.suffix] * height * width
    if size != expected:
        state = "truncated" if size < expected else "too long"
        raise UnreadableFile(
            f"{path} is {state}: {size} bytes, {expected} for {width} x {height} pixels; "
            "copy it again"
        )
    return height, width


def _check_tag(path: Path, tag: np.float32) -> None:
    if tag != TAG:
        swapped = " (its bytes are in big-endian order)" if tag.byteswap() == TAG else ""
        raise UnreadableFile(
            f"{path} begins with {tag:g} instead of {TAG:.2f}{swapped}: not a Sintel "
            f"{path.suffix} file"
        )


def _write_tagged(path: Path, values: NDArray[np.floating]) -> None:
    header = np.array((TAG, values.shape[1], values.shape[0]), _HEADER)
    path.write_bytes(header.tobytes() + values.astype("<f4").tobytes())


def _read_plane(path: Path, modes: tuple[str, ...], wanted: str) -> NDArray[Any]:
    content = read_bytes(path)
    try:
        with open_picture(content) as image:
            form, mode, plane = image.format, image.mode, np.asarray(image)
    # Decoders of damaged data raise whatever they stumble over, SyntaxError and struct.error too.
    except Exception as error:
        raise UnreadableFile(f"{path} cannot be decoded: {error}; copy it again") from error
    if form in _LOSSY:
        raise UnreadableFile(
            f"{path} is {form} by what it holds, whatever it is called, and {form} is not exact; "
            "copy the original"
        )
    if mode not in modes:
        raise UnreadableFile(_wrong_mode(path, mode, wanted))
    return plane


def _read_labels(path: Path) -> NDArray[Any]:
    wanted = "8-bit or 16-bit gray, or palette, as masks are stored"
    plane = _read_plane(path, ("1", "L", "LA", "P", "I", "I;16"), wanted)
    if plane.ndim == 3:
        if (plane[..., 1] != np.iinfo(np.uint8).max).any():
            raise UnreadableFile(f"{path} has a second plane, its opacity; save it without")
        plane = plane[..., 0]
    # Gray of 2 or 4 bits is spread over 0 to 255 by what decodes it. A PNG says its bits here.
    header = read_bytes(path)[:26]
    if header[:4] == b"\x89PNG" and header[25] == 0 and header[24] in (2, 4):
        plane = plane // (255 // (2 ** header[24] - 1))
    return plane


def _wrong_mode(path: Path, mode: str, wanted: str) -> str:
    found = {"L": "8-bit gray", "P": "8-bit palette", "RGB": "8-bit colour", "I;16": "16-bit gray"}
    return (
        f"{path} is {found.get(mode, f'of mode {mode}')}, not {wanted}; was it converted or "
        "replaced by a preview? Copy the original"
    )
