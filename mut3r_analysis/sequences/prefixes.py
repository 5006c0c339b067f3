"""Sequence names with a prefix, such as ``"scenes:orbit-03"``, and who opens them."""

import re
from collections.abc import Callable
from importlib import import_module
from typing import NamedTuple

import xarray as xr

from mut3r_analysis.errors import InvalidArgument
from mut3r_analysis.foundation.fields import meant
from mut3r_analysis.sequences.layouts.catalogue import LAYOUTS, find_layout

OPENERS: dict[str, str] = {"scenes": "mut3r_analysis.scenes:open_scene"}
"""Prefix -> ``"module:function"`` of sources that are no data set in a layout. The function takes
what follows the prefix and returns a sequence; its module is imported when first asked for."""

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
    """Return the function that opens the sequences of `prefix`: a data set's, or another's.

    Raises
    ------
    InvalidArgument
        If no such prefix is known; the message lists those that are.
    """
    if prefix in LAYOUTS:
        return find_layout(prefix).open
    if prefix not in OPENERS:
        near = meant([prefix], [*OPENERS, *LAYOUTS])
        known = ", ".join(f'"{known}:"' for known in sorted({*OPENERS, *LAYOUTS}))
        raise InvalidArgument(
            f'"{prefix}:" is not a known kind of sequence{near}; known are {known}, and '
            "paths of image folders and video files"
        )
    module, function = OPENERS[prefix].split(":")
    return getattr(import_module(module), function)
