"""What a sequence in a data set consists of, frame by frame, and how it becomes a Dataset."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from hashlib import file_digest, sha256
from pathlib import Path
from typing import Any, Protocol, cast

import numpy as np
import xarray as xr
from numpy.typing import NDArray
from xarray.core import indexing

from mut3r_analysis.errors import MissingFile, UnreadableFile
from mut3r_analysis.sequences.frames import FrameSource, LazyFrames
from mut3r_analysis.sequences.images import ImageFiles, replaced, state_of

GRID = ("frame", "y", "x")
POSE = ("frame", "row", "col")
INTRINSICS = ("frame", "camera_row", "camera_col")


@dataclass(frozen=True)
class SequenceFiles:
    """The files of one sequence, as listed before any of them is opened.

    Attributes
    ----------
    layout, name : str
        Prefix, and name of the sequence in its short form.
    folder : Path
        Where it is, for labels and messages.
    images : tuple of Path
        One per frame.
    truth : dict
        Variable to the file of each frame that holds it; None at frames without one. A variable
        without any file is left out.
    left_out : tuple of str
        What the layout holds but the frames do not include, and why, in words.
    complete : dict
        Variables of which the data set has either all files or none, so that a gap is damage, to
        the number of leading frames that have one.
    stamps : ndarray or None
        (frame), seconds on the clock of the data set, where it has one.
    """

    layout: str
    name: str
    folder: Path
    images: tuple[Path, ...]
    truth: dict[str, tuple[Path | None, ...]]
    left_out: tuple[str, ...] = ()
    complete: dict[str, int] = field(default_factory=dict)
    stamps: NDArray[np.float64] | None = None

    def __post_init__(self) -> None:
        held = {name: files for name, files in self.truth.items() if any(files)}
        object.__setattr__(self, "truth", held)

    def require_complete(self) -> None:
        """Refuse gaps where the data set has none.

        Raises
        ------
        MissingFile
            Naming the first missing file of each kind.
        """
        gaps = self.gaps()
        if gaps:
            raise MissingFile(
                f"{self.layout} sequence {self.name} in {self.folder} is not complete: "
                + "; ".join(gaps)
                + ". Copy what is missing, or move all files of that kind away"
            )

    def gaps(self) -> list[str]:
        """Say which images, and which files of variables that should be complete, are missing."""
        found = []
        if not self.images:
            found.append("; ".join(("no frame is left", *self.left_out)))
        missing = [file for file in self.images if not file.is_file()]
        if missing:
            found.append(f"images that do not exist: {len(missing)}, first {missing[0]}")
        for name, expected in self.complete.items():
            files = self.truth.get(name, ())[:expected]
            lacking = [frame for frame, file in enumerate(files) if file is None]
            if lacking:
                first = self.images[lacking[0]].name
                found.append(
                    f"{name} is missing at {len(lacking)} of {len(files)} frames, first at {first}"
                )
        return found


def existing(candidates: Iterable[Path]) -> tuple[Path | None, ...]:
    """Keep the files that exist, None for the others.

    Raises
    ------
    MissingFile
        One is a link to nothing.
    """
    found = []
    for file in candidates:
        if file.is_symlink() and not file.exists():
            raise MissingFile(f"{file} is a link to nothing; copy what it leads to, or remove it")
        found.append(file if file.is_file() else None)
    return tuple(found)


class PlaneSource(Protocol):
    """Anything that can produce its planes, one per frame, one at a time."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Frames first."""

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of every plane."""

    def read(self, position: int) -> np.ndarray:
        """Read one plane."""


@dataclass(frozen=True)
class PlaneFiles:
    """Planes of truth, one file each; `absent` fills frames without a file."""

    files: tuple[Path | None, ...]
    decode: Callable[[Path], np.ndarray]
    plane_shape: tuple[int, ...]
    dtype: np.dtype[Any] = field(default_factory=lambda: np.dtype(np.float32))
    absent: float = np.nan
    opened_as: tuple[tuple[int, ...] | None, ...] = field(init=False)

    def __post_init__(self) -> None:
        states = tuple(file and state_of(file) for file in self.files)
        object.__setattr__(self, "opened_as", states)

    @property
    def shape(self) -> tuple[int, ...]:
        """Frames first."""
        return len(self.files), *self.plane_shape

    def read(self, position: int) -> np.ndarray:
        """Read one plane.

        Raises
        ------
        UnreadableFile
            If it is not of the size of the images, or no longer the file that was opened.
        """
        file = self.files[position]
        if file is None:
            return np.full(self.plane_shape, self.absent, self.dtype)
        if state_of(file) != self.opened_as[position]:
            raise UnreadableFile(replaced(file))
        plane = self.decode(file)
        if plane.shape != self.plane_shape:
            height, width = self.plane_shape[:2]
            raise UnreadableFile(
                f"{file} has shape {plane.shape}, but the images have {height} rows of {width} "
                "pixels; all planes of a sequence share one size"
            )
        return plane.astype(self.dtype, copy=False)


class _LazyPlanes(LazyFrames):
    """Planes of any shape and type behind xarray's lazy indexing."""

    def __init__(self, source: PlaneSource) -> None:
        super().__init__(cast(FrameSource, source))
        self.dtype = source.dtype


def lazy_planes(source: PlaneSource) -> indexing.LazilyIndexedArray:
    """Wrap `source` for an xarray Variable that reads nothing until it is asked for."""
    return indexing.LazilyIndexedArray(_LazyPlanes(source))


def planes(
    files: tuple[Path | None, ...],
    decode: Callable[[Path], np.ndarray],
    plane_shape: tuple[int, ...],
    dtype: Any = np.float32,
    absent: float = np.nan,
) -> tuple[tuple[str, ...], indexing.LazilyIndexedArray]:
    """Make a variable of planes (y, x) or (y, x, uv), one file each, read when they are used."""
    dims = (*GRID, "uv")[: 1 + len(plane_shape)]
    return dims, lazy_planes(PlaneFiles(files, decode, plane_shape, np.dtype(dtype), absent))


def assemble(
    files: SequenceFiles,
    images: ImageFiles,
    variables: Mapping[str, tuple],
    attrs: Mapping[str, Any],
) -> xr.Dataset:
    """Make the Dataset of a sequence; pixels and planes stay on disk.

    Parameters
    ----------
    files, images
        What the sequence consists of.
    variables
        Name to dimensions, values (lazy or not) and, if need be, attributes.
    attrs
        Options and notes of the layout, kept with the sequence.

    Returns
    -------
    Dataset
        With a coordinate ``motion_known`` where some frames have no motion mask; it is empty there.
    """
    kept = dict(attrs)
    if files.left_out:
        kept["left_out"] = "; ".join(files.left_out)
    digest = sha256(f"{files.layout} {sorted(kept.items())} {images.sha256}".encode())
    for name, held in sorted(files.truth.items()):
        digest.update(f"{name} {[file and file.name for file in held]}\n".encode())
        # One file may hold the truth of every frame.
        for file in filter(None, existing(dict.fromkeys(filter(None, held)))):
            with file.open("rb") as content:
                digest.update(file_digest(content, "sha256").digest())
    for name, (_, values, *_) in sorted(variables.items()):
        if isinstance(values, np.ndarray):
            digest.update(f"{name} {values.dtype} {values.shape}\n".encode() + values.tobytes())
    dataset = xr.Dataset(
        {
            "image": ((*GRID, "rgb"), indexing.LazilyIndexedArray(LazyFrames(images))),
            **variables,
        },
        coords={
            "frame": np.arange(len(files.images)),
            "file": ("frame", [file.name for file in files.images]),
        },
        attrs={
            "name": files.name,
            "kind": files.layout,
            "source": str(files.folder),
            "sha256": digest.hexdigest(),
            **kept,
        },
    )
    if files.stamps is not None:
        label = {"long_name": "time on the clock of the data set", "units": "s"}
        stamps = files.stamps
        dataset = dataset.assign_coords(
            time=("frame", stamps - stamps[0]), stamp=("frame", stamps, label)
        )
    known = np.array([file is not None for file in files.truth.get("motion_mask", ())])
    if not known.all():
        label = {"long_name": "whether the motion mask is known", "units": "1"}
        dataset = dataset.assign_coords(motion_known=("frame", known, label))
    if "flow" in dataset:
        dataset["flow"].attrs |= {"long_name": "optical flow to the next frame", "units": "px"}
    return dataset
