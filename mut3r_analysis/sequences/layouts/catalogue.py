"""The layouts that are known, and which of them a folder is in."""

from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

from mut3r_analysis.errors import InvalidArgument, MissingFile
from mut3r_analysis.foundation.fields import one_of

if TYPE_CHECKING:
    from mut3r_analysis.sequences.layouts.layout import Layout

LAYOUTS: dict[str, str] = {
    name: f"mut3r_analysis.sequences.layouts.{name}"
    for name in (
        "sintel",
        "bonn",
        "tum",
        "kitti",
        "scannet",
        "dycheck",
        "davis",
        "sevenscenes",
        "nrgbd",
        "nyu",
    )
}
"""Data set, the prefix of its sequences' names, to the module whose `LAYOUT` is its row. Modules
are imported when first asked for, so that a command can list data sets without loading arrays."""

WITHOUT_LAYOUT = ("any", "adt")
"""What protocols score beside: sequences that are given, and predictions of other code."""


def find_layout(name: str) -> "Layout":
    """Return the layout of this name, or raise `InvalidArgument`."""
    return import_module(LAYOUTS[one_of("layout", name, LAYOUTS)]).LAYOUT


def canonical_sequence(dataset: str, name: str) -> str:
    """Return the short name of a sequence of a data set; without a layout, its name.

    Raises
    ------
    InvalidArgument
        A data set that is not known.
    """
    return name if dataset in WITHOUT_LAYOUT else find_layout(dataset).short_name(name)


def recognise(path: Path) -> "Layout":
    """Return the one layout whose sequences a folder holds.

    Raises
    ------
    MissingFile
        The folder does not exist, or holds no sequence in any layout.
    InvalidArgument
        It holds sequences in several.
    """
    if not path.is_dir():
        raise MissingFile(f"{path} is not a folder; give the folder of a data set")
    layouts = [find_layout(name) for name in LAYOUTS]
    found = [layout for layout in layouts if layout.find(path)]
    if len(found) == 1:
        return found[0]
    if found:
        names = ", ".join(layout.name for layout in found)
        raise InvalidArgument(f"{path} holds sequences of {names}; say which with layout=")
    inner = ", ".join(sorted(each.name for each in path.iterdir())[:8]) or "nothing"
    looks = "\n".join(f"  {layout.name:<8} {layout.looks_like}" for layout in layouts)
    raise MissingFile(
        f"{path} holds no sequence in a known layout; it holds {inner}. Looked for were\n{looks}"
    )
