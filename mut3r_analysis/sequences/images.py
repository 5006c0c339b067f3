"""A folder of images as a source of frames."""

import io
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from hashlib import sha256
from pathlib import Path

import numpy as np
from PIL import ExifTags, Image, ImageOps

from mut3r_analysis.errors import InvalidArgument, UnreadableFile
from mut3r_analysis.sequences.frames import Selection

# Pillow names these but cannot turn them into pixels on its own.
_WITHOUT_PIXELS = {"BUFR", "EPS", "GRIB", "HDF5", "IPTC", "MPEG", "WMF"}
_SIXTEEN_BIT = 65535


@dataclass(frozen=True)
class ImageFiles:
    """Images of one size, decoded one at a time; a frame source.

    Files are opened, read and closed within each call.
    """

    files: tuple[Path, ...]
    indices: tuple[int, ...]
    height: int
    width: int
    sha256: str

    @property
    def size(self) -> tuple[int, int]:
        """(y, x)."""
        return self.height, self.width

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """(frame, y, x, rgb)."""
        return len(self.files), *self.size, 3

    def read(self, position: int) -> np.ndarray:
        """Decode one frame, uint8 (y, x, rgb).

        Raises
        ------
        UnreadableFile
            If the pixels cannot be decoded, or are no longer of the size found when opening.
        """
        file, index = self.files[position], self.indices[position]
        pixels = _decode(_read_bytes(file, index), file, index)
        if pixels.shape[:2] != (self.height, self.width):
            raise UnreadableFile(
                f"{file} (frame {index}) is {pixels.shape[1]} x {pixels.shape[0]} pixels, but was "
                f"{self.width} x {self.height} when the sequence was opened; open it again"
            )
        return pixels


def open_images(folder: Path, selection: Selection) -> ImageFiles:
    """Find the images of a folder, check their headers and hash their contents.

    Images are those with a suffix Pillow can decode, in natural order of their names; other files
    and hidden ones are ignored. No pixels are decoded.

    Raises
    ------
    InvalidArgument
        If the folder holds no image, the selection no frame, or the images differ in size.
    UnreadableFile
        If a selected file is not the image its suffix promises.
    """
    found = _find_images(folder)
    indices = selection.indices(len(found), f"folder {folder}")
    files = [found[index] for index in indices]
    return survey_images(
        files, indices, [f"{i} {f.name}" for i, f in zip(indices, files, strict=True)]
    )


def survey_images(
    files: Sequence[Path], indices: Iterable[int], hashed: Iterable[str]
) -> ImageFiles:
    """Check the headers of image files and hash their contents; no pixels are decoded.

    Parameters
    ----------
    files, indices
        Images, and the frames of the source that they are.
    hashed
        What stands for each file in the digest, before its contents.

    Raises
    ------
    InvalidArgument
        The images differ in size.
    UnreadableFile
        A file is not the image that its suffix promises.
    """
    indices = tuple(map(int, indices))
    digest = sha256()
    sizes = []
    for file, index, words in zip(files, indices, hashed, strict=True):
        content = _read_bytes(file, index)
        digest.update(f"{words} {len(content)}\n".encode())
        digest.update(content)
        sizes.append(_header_size(content, file, index))
    if len(set(sizes)) > 1:
        raise InvalidArgument(_mixed_sizes(files, sizes))
    width, height = sizes[0]
    return ImageFiles(tuple(files), indices, height, width, digest.hexdigest())


@cache
def image_suffixes() -> frozenset[str]:
    """List the suffixes of formats Pillow can decode, lower case with their dot."""
    Image.init()
    return frozenset(
        suffix
        for suffix, form in Image.registered_extensions().items()
        if form in Image.OPEN and form not in _WITHOUT_PIXELS
    )


def natural_key(name: str) -> tuple[list[tuple[int, int, str]], str]:
    """Make a sort key that puts ``frame2`` before ``frame10``, whatever their case."""
    parts = [part for part in re.split(r"([0-9]+)", name.casefold()) if part]
    # Digits sort before text; the name itself settles ties such as "1" and "01".
    return [(0, int(part), "") if part[0] in "0123456789" else (1, 0, part) for part in parts], name


def to_rgb(image: Image.Image) -> np.ndarray:
    """Turn a Pillow image of any mode into uint8 (y, x, rgb).

    Alpha is dropped and palettes are looked up as ``Image.convert("RGB")`` does. 16-bit gray is
    scaled to 8 bit and rounded, not clipped; of 16-bit colour Pillow delivers the high bytes. Float
    gray is taken to lie in [0, 1].

    Raises
    ------
    ValueError
        If integer or float gray leaves the range that has a known white.
    """
    if image.mode.startswith("I") or image.mode == "F":
        levels = np.asarray(image).astype(np.float64)
        white = 1.0 if image.mode == "F" else float(_SIXTEEN_BIT)
        if not (levels.min() >= 0 and levels.max() <= white):
            raise ValueError(
                f"its values span {levels.min():g} to {levels.max():g}; images with one "
                f"{'float' if image.mode == 'F' else 'wide integer'} channel must lie in "
                f"[0, {white:g}]"
            )
        gray = np.rint(levels * (255 / white)).astype(np.uint8)
        return np.repeat(gray[..., None], 3, axis=2)
    # Which palette entry is transparent does not matter to RGB, but Pillow would warn about it.
    image.info.pop("transparency", None)
    return np.array(image.convert("RGB"))


def _find_images(folder: Path) -> list[Path]:
    """Find the image files of a folder, in natural order."""
    visible = [path for path in folder.iterdir() if path.is_file() and path.name[0] != "."]
    images = [path for path in visible if path.suffix.lower() in image_suffixes()]
    if images:
        return sorted(images, key=lambda path: natural_key(path.name))
    suffixes = Counter(path.suffix.lower() or "no suffix" for path in visible)
    seen = ", ".join(f"{count} x {suffix}" for suffix, count in suffixes.most_common())
    inner = sorted(path.name for path in folder.iterdir() if path.is_dir())
    folders = f" and the folders {', '.join(inner[:5])}" if inner else ""
    raise InvalidArgument(
        f"folder {folder} holds no image; seen were {seen or 'no files'}{folders}. Give the folder "
        "that holds the frames themselves, as .png, .jpg or any other format Pillow reads"
    )


def _read_bytes(file: Path, index: int) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        raise UnreadableFile(f"{file} (frame {index}) cannot be read: {error}") from error


def _header_size(content: bytes, file: Path, index: int) -> tuple[int, int]:
    """Read (width, height) after EXIF orientation, without decoding pixels.

    Raises
    ------
    UnreadableFile
        If the header is not that of an image.
    """
    try:
        with Image.open(io.BytesIO(content)) as image:
            width, height = image.size
            # Pillow's TIFF sizes are already upright.
            turned = image.format != "TIFF" and _orientation(image, content) >= 5
            return (height, width) if turned else (width, height)
    except Exception as error:
        raise UnreadableFile(_unreadable(file, index, error)) from error


def _orientation(image: Image.Image, content: bytes) -> int:
    """Read the EXIF orientation, 1 (upright) to 8; from 5 on, rows and columns are exchanged."""
    # A PNG may keep EXIF behind its pixels, which Pillow decodes to look there.
    if image.format == "PNG" and b"eXIf" not in content:
        exif = Image.Image.getexif(image)
    else:
        exif = image.getexif()
    return exif.get(ExifTags.Base.Orientation, 1)


def _decode(content: bytes, file: Path, index: int) -> np.ndarray:
    """Decode one file, upright, uint8 (y, x, rgb).

    Raises
    ------
    UnreadableFile
        If they cannot be decoded.
    """
    try:
        with Image.open(io.BytesIO(content)) as image:
            return to_rgb(ImageOps.exif_transpose(image))
    # Decoders of damaged data raise whatever they stumble over, SyntaxError and struct.error too.
    except Exception as error:
        raise UnreadableFile(_unreadable(file, index, error)) from error


def _unreadable(file: Path, index: int, error: Exception) -> str:
    return (
        f"{file} (frame {index}) cannot be decoded: {error or type(error).__name__}. Replace the "
        "file, leave it out by moving it to another folder, or stop before it with "
        f"stop={index} or begin after it with start={index + 1}"
    )


def _mixed_sizes(files: Sequence[Path], sizes: list[tuple[int, int]]) -> str:
    def examples() -> Iterator[str]:
        for (width, height), count in Counter(sizes).most_common():
            first = files[sizes.index((width, height))].name
            yield f"{width} x {height}: {count} files, the first is {first}"

    return (
        f"the images of {files[0].parent} differ in size (width x height):\n  - "
        + "\n  - ".join(list(examples())[:6])
        + "\nFrames of one sequence must share one size: move the odd ones to another folder, "
        "resize them, or select frames of one size with start=, stop= and stride="
    )
