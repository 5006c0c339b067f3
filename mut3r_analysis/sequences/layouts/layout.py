"""A layout: how one data set lies on disk, for loading, writing and checking it."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from mut3r_analysis.sequences.layouts.files import SequenceFiles


@dataclass(frozen=True)
class Layout:
    """One data set's way of keeping sequences.

    Attributes
    ----------
    name : str
        Prefix in ``open_sequence("name:ROOT#sequence")``.
    find : callable
        Folder to the sequences in it: short name to the folder `list_files` wants.
    list_files : callable
        That folder and a short name to the files of the sequence, under default options.
    poses : callable
        Files to camera-to-world poses (frame, row, col), or None where there are none.
    open : callable
        What follows the prefix to the sequence.
    write : callable
        Write a sequence into an empty root under a short name.
    needs : tuple of str
        Variables without which `write` cannot make the layout. ``"a|b"`` means either.
    looks_like : str
        The files a folder must hold to be recognised.
    obtain : dict
        Part of the data set, by variable, to where it comes from.
    """

    name: str
    find: Callable[[Path], dict[str, Path]]
    list_files: Callable[[Path, str], SequenceFiles]
    poses: Callable[[SequenceFiles], NDArray[np.float64] | None]
    open: Callable[[str], xr.Dataset]
    write: Callable[[xr.Dataset, Path, str], None]
    needs: tuple[str, ...]
    looks_like: str
    obtain: dict[str, str]


def no_poses(files: SequenceFiles) -> None:
    """Poses of a layout that has none."""


def subfolders(folder: Path) -> list[Path]:
    """Folders in a folder, sorted by name; none if it does not exist."""
    if not folder.is_dir():
        return []
    return sorted(path for path in folder.iterdir() if path.is_dir() and path.name[0] != ".")
