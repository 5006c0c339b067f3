"""One door for every kind of sequence: :func:`open_sequence`."""

import os
from difflib import get_close_matches
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from mut3r_analysis.errors import InvalidArgument, MissingFile
from mut3r_analysis.foundation.paths import user_path
from mut3r_analysis.sequences.arrays import open_array
from mut3r_analysis.sequences.frames import Selection, lazy_frames
from mut3r_analysis.sequences.images import ImageFiles, open_images, open_pages, pages_of
from mut3r_analysis.sequences.model import check_sequence, label
from mut3r_analysis.sequences.prefixes import find_opener, split_prefix

IMAGE_DIMS = ("frame", "y", "x", "rgb")


def open_sequence(
    source: Any,
    *,
    start: int = 0,
    stop: int | None = None,
    stride: int = 1,
    name: str | None = None,
) -> xr.Dataset:
    """Open frames, and what is known about them, as one Dataset.

    Frames of folders and videos are decoded when they are read and are not kept; read them one at
    a time, ``sequence.image[3].values``, and memory stays that of one frame.

    Parameters
    ----------
    source
        - a folder of images: any format Pillow decodes, in natural order of the names, turned
          upright by EXIF; alpha is dropped, gray, palette and 16-bit images become 8-bit RGB;
          other files in the folder are ignored, but one that stands for a lost frame is refused
        - one file of several images: an animated GIF, PNG or WebP, a TIFF file with pages
        - a video file
        - an array (frame, y, x, rgb), numpy or torch: uint8, or floating point in [0, 1]
        - a Dataset that holds such a sequence already
        - a name with a prefix: ``"scenes/orbit-03"`` is bundled;
          ``"sintel:/data/sintel/training#alley_2"`` and likewise ``tum:``, ``bonn:``, ``kitti:``,
          ``scannet:``, ``dycheck:``, ``davis:``, ``sevenscenes:``, ``nrgbd:`` and ``nyu:`` read
          data sets where they lie
    start, stop, stride
        Frames to take, counted from 0; `stop` is the first one left out, and may lie beyond the
        end.
    name
        Name of the sequence; by default that of the folder, file, scene or Dataset.

    Returns
    -------
    xarray.Dataset
        ``image`` (frame, y, x, rgb) uint8 at source size, and what else the source knows. The
        coordinate ``frame`` is the index in the source; ``file`` names the images of a folder, and
        ``page`` the place in a file of several; ``time`` is in seconds for videos. Attributes:
        ``name``, ``kind``, ``source`` and ``sha256``, a digest of the contents and the frames
        taken; ``left_out`` says what was lost of a damaged video.

    Raises
    ------
    InvalidArgument
        If the source holds no frame, its frames differ in size, its values are no colours, or the
        range of frames is empty.
    MissingFile
        If the path does not exist.
    UnreadableFile
        If a file is not the image or video it should be. A frame whose header is whole but whose
        pixels are not is found when it is read.

    Examples
    --------
    >>> frames = np.zeros((8, 48, 64, 3), np.uint8)
    >>> open_sequence(frames, start=1, stride=3).frame.values
    array([1, 4, 7])
    """
    selection = Selection(start, stop, stride)
    if isinstance(source, str | Path) and not os.path.exists(source):
        prefixed = split_prefix(str(source))
        if prefixed is not None:
            opened = find_opener(prefixed.prefix)(prefixed.rest)
            opened.attrs.setdefault("kind", prefixed.prefix)
            return _from_dataset(opened, selection, name, digest=opened.attrs.get("sha256"))
    if isinstance(source, xr.Dataset):
        return _from_dataset(source, selection, name)
    if isinstance(source, str | Path):
        return _from_path(user_path(_as_named_on_disk(source)), selection, name)
    if isinstance(source, np.ndarray) or hasattr(source, "detach"):
        frames = open_array(source, selection)
        attrs = {"name": name or "array", "kind": "array", "source": "array in memory"}
        return _sequence(frames.pixels, {"frame": frames.indices}, attrs, frames.sha256)
    raise InvalidArgument(
        f"a {type(source).__name__} is not a sequence; give the path of an image folder or a video "
        "file, an array (frame, y, x, 3), a Dataset, or a name such as 'scenes/orbit-03'"
    )


def take(opened: xr.Dataset, selection: Selection) -> xr.Dataset:
    """Select frames of a sequence of a data set or of scenes, opened whole.

    The same as opening it with the selection, without reading its files once more.
    """
    return _from_dataset(opened, selection, None, digest=opened.attrs["sha256"])


def _from_path(path: Path, selection: Selection, name: str | None) -> xr.Dataset:
    """Open a folder of images or a video file."""
    if not os.path.exists(path):
        raise MissingFile(_missing(path))
    # What is read later must not depend on the working directory then.
    path = Path(os.path.abspath(path))
    if path.is_dir():
        return _from_images(open_images(path, selection), path, name or _readable(path.name))
    pages = pages_of(path)
    if len(pages) > 1:
        return _from_images(open_pages(path, selection), path, name or _readable(path.stem))
    if pages:
        raise InvalidArgument(
            f"{path} is a single image; give its folder, {path.parent}, and choose frames with "
            "start=, stop= and stride="
        )
    # PyAV takes longer to import than a folder of images takes to open.
    from mut3r_analysis.sequences.video import open_video

    video = open_video(path, selection)
    attrs = {"name": name or _readable(path.stem), "kind": "video", "source": str(path)}
    attrs |= video.notes
    coords = {"frame": video.indices, "time": video.seconds}
    sequence = _sequence(lazy_frames(video), coords, attrs, video.sha256)
    sequence.set_close(video.close)
    return sequence


def _from_images(images: ImageFiles, path: Path, name: str) -> xr.Dataset:
    """Label the frames of image files."""
    # Objects, because text of fixed width has no settled place in Zarr.
    files = np.array([file.name for file in images.files], dtype=object)
    coords = {"frame": np.array(images.indices), "file": files}
    if any(images.pages):
        coords["page"] = np.array(images.pages)
    attrs = {"name": name, "kind": "images", "source": str(path)}
    return _sequence(lazy_frames(images), coords, attrs, images.sha256)


def _from_dataset(
    dataset: xr.Dataset, selection: Selection, name: str | None, digest: str | None = None
) -> xr.Dataset:
    """Check and select from a Dataset; without a trusted `digest`, read all of it once."""
    check_sequence(dataset)
    taken = selection.indices(dataset.sizes["frame"], "the Dataset")
    if "frame" not in dataset.coords:
        dataset = dataset.assign_coords(frame=np.arange(dataset.sizes["frame"]))
    chosen = dataset.isel(frame=slice(taken[0], taken[-1] + 1, selection.stride))
    attrs = {
        "name": name or str(dataset.attrs.get("name", "dataset")),
        "kind": str(dataset.attrs.get("kind", "dataset")),
        "source": str(dataset.attrs.get("source", "dataset in memory")),
    }
    if digest is None:
        hashed = sha256(f"{chosen.frame.values.tolist()}\n".encode())
        for key in sorted(chosen.data_vars, key=str):
            hashed.update(f"{key} {chosen[key].dtype} {chosen[key].sizes}\n".encode())
            # Without labels, which would cost more to take apart than the frames to read.
            variable = chosen[key].variable
            parts = [variable]
            if "frame" in variable.dims:
                parts = [variable.isel(frame=frame) for frame in range(chosen.sizes["frame"])]
            for part in parts:
                hashed.update(np.ascontiguousarray(part.values).tobytes())
        digest = hashed.hexdigest()
    elif len(taken) < dataset.sizes["frame"]:
        digest = sha256(f"{digest} {taken.tolist()}\n".encode()).hexdigest()
    labelled = label(chosen, attrs["source"])
    return labelled.assign_attrs({**attrs, "sha256": digest})


def _sequence(
    pixels: Any, coords: dict[str, Any], attrs: dict[str, str], digest: str
) -> xr.Dataset:
    """Label pixels and coordinates along frames."""
    dataset = xr.Dataset(
        {"image": (IMAGE_DIMS, pixels)},
        coords={coord: ("frame", values) for coord, values in coords.items()},
        attrs={**attrs, "sha256": digest},
    )
    return label(dataset, attrs["source"])


def _as_named_on_disk(path: str | Path) -> str:
    """Spell a path so that a system whose locale is not UTF-8 finds it, too."""
    text = str(path)
    try:
        os.fsencode(text)
    except UnicodeEncodeError:
        return os.fsdecode(text.encode("utf-8", "surrogateescape"))
    return text


def _readable(name: str) -> str:
    return os.fsencode(name).decode("utf-8", "surrogateescape")


def _missing(path: Path) -> str:
    """Say what does not exist, and what has a similar name beside the first missing part."""
    existing = next(parent for parent in path.absolute().parents if os.path.exists(parent))
    lost = path.absolute().relative_to(existing).parts[0]
    names = [inner.name for inner in existing.iterdir()] if existing.is_dir() else []
    near = get_close_matches(lost, names, n=3, cutoff=0.5)
    advice = f"did you mean {' or '.join(near)}?" if near else "check the path"
    return f"{path} does not exist: {existing} holds no {lost!r}; {advice}"
