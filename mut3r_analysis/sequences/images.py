"""A folder of images as a source of frames."""

import io
import re
from bisect import bisect
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from hashlib import sha256
from pathlib import Path
from threading import Lock
from typing import IO

import google_crc32c
import numpy as np
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError

from mut3r_analysis.errors import InvalidArgument, UnreadableFile
from mut3r_analysis.sequences.frames import Selection

# Pillow names these but cannot turn them into pixels on its own; for EPS it starts an interpreter.
_WITHOUT_PIXELS = {"BUFR", "EPS", "FPX", "GRIB", "HDF5", "IPTC", "MIC", "MPEG", "WMF"}
# What else such a file holds are previews and layers, not further frames.
_ONE_PICTURE = {"ICNS", "ICO", "MPO", "PSD"}
# Pictures of cameras and renderers, some of which a build of Pillow may read.
_PICTURES = {
    ".arw", ".avif", ".cr2", ".cr3", ".dng", ".exr", ".hdr", ".heic", ".heif", ".hif", ".jxl",
    ".jxr", ".nef", ".orf", ".pef", ".raf", ".rw2", ".srw", ".wdp",
}  # fmt: skip
_SIXTEEN_BIT = 65535
_NUMBERED = re.compile(r"^(.*?)([0-9]+)([^0-9]*)$")
_TURNS = Lock()


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
    pages: tuple[int, ...]
    contents: tuple[int, ...]
    """CRC-32C of each file as it was when the sequence was opened."""

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
            If the pixels cannot be decoded, or the file is no longer what was opened.
        """
        file, index, page = self.files[position], self.indices[position], self.pages[position]
        if page:
            pixels = _decode_page(file, index, page, self.contents[position])
        else:
            content = _read_bytes(file, index)
            _check_contents(content, self.contents[position], file)
            pixels = _decode(content, file, index)
        if pixels.shape[:2] != (self.height, self.width):
            raise UnreadableFile(
                f"{file} (frame {index}) is {pixels.shape[1]} x {pixels.shape[0]} pixels, but its "
                f"header says {self.width} x {self.height}"
            )
        return pixels


def open_images(folder: Path, selection: Selection) -> ImageFiles:
    """Find the images of a folder, check their headers and hash their contents.

    Images are those with a suffix Pillow can decode, in natural order of their names, each image of
    an animation or a file of several pages for itself; other files and hidden ones are ignored. No
    pixels are decoded.

    Raises
    ------
    InvalidArgument
        If the folder holds no image, the selection no frame, or the images differ in size.
    UnreadableFile
        If a frame is there by name only: a dangling link, a part of a download, or a picture in a
        format that is not read, among others that are; or if a selected file is no image.
    """
    found = _find_images(folder)
    refuse_lost_frames(folder, found)
    return _select(
        [(file, page) for file in found for page in pages_of(file) or (0,)],
        selection,
        f"folder {folder}",
    )


def open_pages(file: Path, selection: Selection) -> ImageFiles:
    """Open an animation or a file of several pages as frames, as `open_images` opens a folder."""
    return _select([(file, page) for page in pages_of(file)], selection, f"file {file}")


def _select(found: list[tuple[Path, int]], selection: Selection, source: str) -> ImageFiles:
    indices = selection.indices(len(found), source)
    files, pages = zip(*(found[index] for index in indices), strict=True)
    words = [
        f"{index} {file.name}" + (f" page {page}" if page else "")
        for index, file, page in zip(indices, files, pages, strict=True)
    ]
    return survey_images(files, indices, words, pages)


def open_picture(source: bytes | IO[bytes]) -> Image.Image:
    """Open an image by what it holds, in formats of pixels only; no pixels are decoded."""
    file = io.BytesIO(source) if isinstance(source, bytes) else source
    return Image.open(file, formats=_pixel_formats())


def pages_of(file: Path) -> tuple[int, ...]:
    """List the images of a file that are frames, by their places in it; none if it is no image.

    One, unless the file is an animation or has pages; reduced copies and masks of a TIFF file, and
    what an animated PNG shows where it cannot be animated, are no frames.
    """
    try:
        with file.open("rb") as content, open_picture(content) as image:
            count = 1 if image.format in _ONE_PICTURE else getattr(image, "n_frames", 1)
            pages = list(range(count))
            if image.format == "TIFF" and count > 1:
                pages = [page for page in pages if not _is_copy(image, page)]
            return tuple(pages[1:] if getattr(image, "default_image", False) else pages)
    # Decoders of damaged data raise whatever they stumble over.
    except Exception:
        return ()


def _is_copy(image: Image.Image, page: int) -> bool:
    """Whether a page of a TIFF file is a reduced copy (1) or a mask (4) of another."""
    image.seek(page)
    return bool(image.getexif().get(ExifTags.Base.NewSubfileType, 0) & 5)


def survey_images(
    files: Sequence[Path],
    indices: Iterable[int],
    hashed: Iterable[str],
    pages: Sequence[int] | None = None,
) -> ImageFiles:
    """Check the headers of image files and hash their contents; no pixels are decoded.

    Parameters
    ----------
    files, indices
        Images, and the frames of the source that they are.
    hashed
        What stands for each file in the digest, before its contents.
    pages
        Which of a file's images each frame is; the first by default.

    Raises
    ------
    InvalidArgument
        The images differ in size, or a name is not in UTF-8, as every store keeps names.
    UnreadableFile
        A file is not the image that its suffix promises.
    """
    indices = tuple(map(int, indices))
    pages = tuple(pages or [0] * len(indices))
    digest = sha256()
    sizes: list[tuple[int, int]] = []
    read, content = None, b""
    contents: list[int] = []
    for file, index, words, page in zip(files, indices, hashed, pages, strict=True):
        _check_name(file)
        content = _read_bytes(file, index) if file != read else content
        digest.update(f"{words} {len(content)}\n".encode())
        digest.update(b"" if file == read else content)
        sizes.append(_header_size(content, file, index, page))
        contents.append(google_crc32c.value(content) if file != read else contents[-1])
        read = file
    if len(set(sizes)) > 1:
        raise InvalidArgument(_mixed_sizes(files, sizes))
    width, height = sizes[0]
    return ImageFiles(
        tuple(files), indices, height, width, digest.hexdigest(), pages, tuple(contents)
    )


@cache
def image_suffixes() -> frozenset[str]:
    """List the suffixes of formats Pillow can decode, lower case with their dot."""
    readable = _pixel_formats()
    known = Image.registered_extensions().items()
    return frozenset(suffix for suffix, form in known if form in readable)


@cache
def _pixel_formats() -> tuple[str, ...]:
    Image.init()
    return tuple(form for form in Image.OPEN if form not in _WITHOUT_PIXELS)


def natural_key(name: str) -> tuple[list[tuple[int, int, str]], str]:
    """Make a sort key that puts ``frame2`` before ``frame10``, whatever their case."""
    # Without their zeros in front, of numbers the longer one is the larger.
    parts = [part for part in re.split(r"0*([0-9]+)", name.casefold()) if part]
    # Digits sort before text; the name itself settles ties such as "1" and "01".
    return [
        (0, len(part), part) if part[0] in "0123456789" else (1, 0, part) for part in parts
    ], name


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


def visible(folder: Path, pattern: str = "*") -> list[Path]:
    """List what a folder holds but for hidden files, such as a Mac leaves beside each."""
    return sorted(path for path in folder.glob(pattern) if path.name[0] != ".")


def refuse_lost_frames(folder: Path, images: Iterable[Path]) -> None:
    """Refuse a folder in which a frame among `images` is there by name only.

    Raises
    ------
    UnreadableFile
        Naming the first one: every later frame would stand in its place.
    """
    stems = {path.stem for path in images}
    numbered: dict[tuple[str, str], list[int]] = {}
    for stem in stems:
        for before, number, after in _NUMBERED.findall(stem):
            numbered.setdefault((before, after), []).append(int(number))
    for path in sorted(folder.iterdir(), key=lambda path: natural_key(path.name)):
        if path.name.endswith(".icloud"):
            whole = Path(path.name.removeprefix(".").removesuffix(".icloud"))
        elif path.name[0] == ".":
            continue
        else:
            whole = Path(path.stem)
        suffix, in_part = path.suffix.lower(), whole.suffix.lower() in image_suffixes()
        if suffix in image_suffixes():
            why = "" if path.is_file() else "is a link to nothing, or no file"
        elif suffix in _PICTURES:
            why = "" if path.stem in stems else "is in a format that cannot be read here"
        else:
            why = "is a part of a download" if in_part and whole.stem not in stems else ""
            if not why and path.is_file() and path.stem not in stems and _fills_gap(path, numbered):
                why = "is no image by its suffix and has the number of a missing one"
        if why and stems:
            raise UnreadableFile(
                f"{path} {why}, but lies among {len(stems)} images, and leaving it out would shift "
                "every later frame. Convert it to the format of the others, or move it to another "
                "folder"
            )


def _fills_gap(path: Path, numbered: dict[tuple[str, str], list[int]]) -> bool:
    """Whether a file has a number at which the numbers of images leave out one or more steps."""
    for before, number, after in _NUMBERED.findall(path.stem):
        numbers = sorted(numbered.get((before, after), ()))
        steps = np.diff(np.array(numbers, dtype=object))
        place = bisect(numbers, int(number))
        if 0 < place < len(numbers) and steps[place - 1] > min(steps):
            return (int(number) - numbers[place - 1]) % min(steps) == 0
    return False


def _check_name(file: Path) -> None:
    try:
        file.name.encode()
    except UnicodeEncodeError:
        raise InvalidArgument(
            f"the name of the file {file.name!a} in {str(file.parent)!a} is not UTF-8; "
            "rename it, for instance with convmv"
        ) from None


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


def _check_contents(content: bytes, opened: int, file: Path) -> None:
    if google_crc32c.value(content) != opened:
        raise UnreadableFile(replaced(file))


def state_of(path: Path) -> tuple[int, int, int] | None:
    """Return what changes when a file is written to or replaced; None where there is none."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_size, found.st_mtime_ns, found.st_ino


def replaced(file: Path) -> str:
    """Say that a file is not what it was."""
    return (
        f"{file} was changed or replaced after the sequence was opened; open the sequence again, "
        "and what was computed from it before is of other frames"
    )


def _header_size(content: bytes, file: Path, index: int, page: int) -> tuple[int, int]:
    """Read (width, height) after EXIF orientation, without decoding pixels.

    Raises
    ------
    UnreadableFile
        If the header is not that of an image.
    """
    try:
        with open_picture(content) as image:
            if page and image.format == "TIFF":
                # Images of an animation share one size, and to go to one is to decode it.
                image.seek(page)
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
        with open_picture(content) as image:
            return to_rgb(ImageOps.exif_transpose(image))
    # Decoders of damaged data raise whatever they stumble over, SyntaxError and struct.error too.
    except Exception as error:
        raise UnreadableFile(_unreadable(file, index, error)) from error


def _decode_page(file: Path, index: int, page: int, opened: int) -> np.ndarray:
    """Decode one image of several in a file, as `_decode` does."""
    try:
        # Images of an animation build on the one before, so the file stays open at the last one.
        with _TURNS:
            image = _animation(file, file.stat().st_mtime_ns, opened)
            if page < image.tell():
                # Not every kind of animation can be wound back.
                _animation.cache_clear()
                image = _animation(file, file.stat().st_mtime_ns, opened)
            image.seek(page)
            return to_rgb(ImageOps.exif_transpose(image))
    except UnreadableFile:
        raise
    except Exception as error:
        raise UnreadableFile(_unreadable(file, index, error)) from error


@lru_cache(maxsize=1)
def _animation(file: Path, changed: int, opened: int) -> Image.Image:
    content = file.read_bytes()
    _check_contents(content, opened, file)
    return open_picture(content)


def _unreadable(file: Path, index: int, error: Exception) -> str:
    unknown = isinstance(error, UnidentifiedImageError)
    reason = "it is in no image format that is known" if unknown else error or type(error).__name__
    return (
        f"{file} (frame {index}) cannot be decoded: {reason}. Replace the "
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
