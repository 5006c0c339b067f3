"""A layout: how one data set lies on disk, for loading, writing, naming and checking it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from mut3r_analysis.sequences.images import (
    ImageFiles,
    refuse_lost_frames,
    survey_images,
    visible,
)
from mut3r_analysis.sequences.layouts.files import SequenceFiles, assemble
from mut3r_analysis.sequences.layouts.location import parse_location

# What other systems add to copies: a Mac to archives, a network disk for its thumbnails.
_OF_SYSTEMS = ("__MACOSX", "@eaDir")

Options = Mapping[str, str]
Variables = dict[str, tuple[Any, ...]]
"""Name to dimensions, values (lazy or not) and, if need be, attributes."""
Contents = tuple[Variables, dict[str, Any]]
"""Variables of a sequence, and its attributes."""


@dataclass(frozen=True)
class Layout:
    """One data set's way of keeping sequences.

    Attributes
    ----------
    name : str
        Prefix in ``open_sequence("name:ROOT#sequence?option=value")``.
    find : callable
        Folder to the sequences in it: short name to the folder `list_files` wants.
    list_files : callable
        That folder, a short name and a value of every option to the files of the sequence.
    read : callable
        Files, their images and the options to variables and attributes of the sequence.
    write : callable
        Write a sequence into an empty root under a short name.
    needs : tuple of str
        Variables without which `write` cannot make the layout. ``"a|b"`` means either.
    looks_like : str
        The files a folder must hold to be recognised.
    obtain : dict
        Part of the data set, by variable, to where it comes from.
    poses : callable or None
        Files to camera-to-world poses (frame, row, col), or to None; where a layout has any.
    options : dict
        Option to its values, the first one by default. One that lists no values takes any.
    constants : tuple of str
        Variables that were published once for the data set and are in no file of a sequence.
    prefix, suffixes : str, tuple of str
        What names of folders carry around a sequence's short name.
    """

    name: str
    find: Callable[[Path], dict[str, Path]]
    list_files: Callable[[Path, str, Options], SequenceFiles]
    read: Callable[[SequenceFiles, ImageFiles, Options], Contents]
    write: Callable[[xr.Dataset, Path, str], None]
    needs: tuple[str, ...]
    looks_like: str
    obtain: dict[str, str]
    poses: Callable[[SequenceFiles], NDArray[np.float64] | None] | None = None
    options: dict[str, tuple[str, ...]] = field(default_factory=dict)
    constants: tuple[str, ...] = ()
    prefix: str = ""
    suffixes: tuple[str, ...] = ()

    def short_name(self, name: str) -> str:
        """Strip what the names of the data set's folders carry around a short name."""
        name = name.removeprefix(self.prefix)
        for suffix in self.suffixes:
            name = name.removesuffix(suffix)
        return name

    def defaults(self) -> dict[str, str]:
        """Return every option with the value it has where none is given."""
        return {name: values[0] if values else "" for name, values in self.options.items()}

    def open(self, rest: str) -> xr.Dataset:
        """Open ``ROOT#sequence?option=value``, all frames; pixels and planes stay on disk.

        Raises
        ------
        MissingFile, UnreadableFile, InvalidArgument
            Unknown sequence or option, incomplete truth, or damaged files.
        """
        location = parse_location(self.name, rest)
        options = self.defaults() | location.choices(self.options)
        found = self.find(location.root)
        name = location.choose(found, self.short_name(location.sequence))
        files = self.list_files(found[name], name, options)
        files.require_complete()
        for folder in {image.parent for image in files.images}:
            refuse_lost_frames(folder, [each for each in files.images if each.parent == folder])
        count = range(len(files.images))
        images = survey_images(files.images, count, [file.name for file in files.images])
        variables, attrs = self.read(files, images, options)
        return assemble(files, images, variables, attrs)


def subfolders(folder: Path) -> list[Path]:
    """Folders in a folder, sorted by name; none if it does not exist."""
    if not folder.is_dir():
        return []
    return [path for path in visible(folder) if path.is_dir() and path.name not in _OF_SYSTEMS]
