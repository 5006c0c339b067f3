"""Sequence names with a prefix, such as ``"scenes:orbit-03"``, and who opens them."""

import re
from collections.abc import Callable
from importlib import import_module
from typing import NamedTuple

import xarray as xr

from mut3r_analysis.errors import InvalidArgument

OPENERS: dict[str, str] = {
    "scenes": "mut3r_analysis.scenes:open_scene",
    "sintel": "mut3r_analysis.sequences.layouts.sintel:open_sintel",
    "bonn": "mut3r_analysis.sequences.layouts.bonn:open_bonn",
    "tum": "mut3r_analysis.sequences.layouts.tum:open_tum",
    "kitti": "mut3r_analysis.sequences.layouts.kitti:open_kitti",
    "scannet": "mut3r_analysis.sequences.layouts.scannet:open_scannet",
    "dycheck": "mut3r_analysis.sequences.layouts.dycheck:open_dycheck",
    "davis": "mut3r_analysis.sequences.layouts.davis:open_davis",
}
"""Prefix -> ``"module:function"``. The function takes what follows the prefix and returns a
sequence; its module is imported when first asked for."""

# A single letter is a drive, not a prefix.
_PREFIXED = re.compile(r"(?P<prefix>[A-Za-z][A-Za-z0-9_]+):(?P<rest>.*)", re.DOTALL)
_BUNDLED = re.compile(r"(?P<prefix>scenes)/(?P<rest>.+)", re.DOTALL)


class Prefixed(NamedTuple):
    """The two parts of a sequence's name."""

    prefix: str
    rest: str


def split_prefix(source: str) -> Prefixed | None:
    """Split `source` into prefix and rest; None where it is an ordinary path.

    ``"scenes/orbit-03"`` and ``"scenes:orbit-03"`` mean the same. Whether a path of that spelling
    exists, in which case it is meant, is for the caller to see.
    """
    match = _BUNDLED.fullmatch(source) or _PREFIXED.fullmatch(source)
    return Prefixed(match["prefix"], match["rest"]) if match else None


def find_opener(prefix: str) -> Callable[[str], xr.Dataset]:
    """Import and return the function that opens the sequences of `prefix`.

    Raises
    ------
    InvalidArgument
        If no such prefix is known; the message lists those that are.
    """
    if prefix not in OPENERS:
        known = ", ".join(f'"{known}:"' for known in sorted(OPENERS))
        raise InvalidArgument(
            f'"{prefix}:" is not a known kind of sequence; known are {known}, and paths of image '
            "folders and video files"
        )
    module, function = OPENERS[prefix].split(":")
    return getattr(import_module(module), function)
