"""The layouts that are known, and which of them a folder is in."""

from pathlib import Path

from mut3r_analysis.errors import InvalidArgument, MissingFile
from mut3r_analysis.sequences.layouts import bonn, davis, dycheck, kitti, scannet, sintel, tum
from mut3r_analysis.sequences.layouts.layout import Layout

LAYOUTS: dict[str, Layout] = {
    module.LAYOUT.name: module.LAYOUT
    for module in (sintel, bonn, tum, kitti, scannet, dycheck, davis)
}


def find_layout(name: str) -> Layout:
    """Return the layout of this name, or raise `InvalidArgument`."""
    if name not in LAYOUTS:
        raise InvalidArgument(f"layout={name!r}; give one of {', '.join(LAYOUTS)}")
    return LAYOUTS[name]


def recognise(path: Path) -> Layout:
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
    found = [layout for layout in LAYOUTS.values() if layout.find(path)]
    if len(found) == 1:
        return found[0]
    if found:
        names = ", ".join(layout.name for layout in found)
        raise InvalidArgument(f"{path} holds sequences of {names}; say which with layout=")
    inner = ", ".join(sorted(each.name for each in path.iterdir())[:8]) or "nothing"
    looks = "\n".join(f"  {layout.name:<8} {layout.looks_like}" for layout in LAYOUTS.values())
    raise MissingFile(
        f"{path} holds no sequence in a known layout; it holds {inner}. Looked for were\n{looks}"
    )
