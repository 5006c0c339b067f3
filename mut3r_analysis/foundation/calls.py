"""The text form of a choice that may carry a number: ``"name"`` or ``"name(0.5)"``."""

import math
import re

from mut3r_analysis.errors import InvalidArgument
from mut3r_analysis.foundation.fields import shown


def parse_call(text: str) -> tuple[str, float | None]:
    """Split ``"name"`` or ``"name(number)"``.

    Raises
    ------
    InvalidArgument
    """
    match = re.fullmatch(r"\s*(\w+)\s*(?:\(\s*([^()]+?)\s*\))?\s*", text)
    if match is not None:
        try:
            value = None if match[2] is None else float(match[2])
        except ValueError:
            value = math.nan
        if value is None or math.isfinite(value):
            return match[1], value
    raise InvalidArgument(
        f"expected a name or name(number), for example 'iterate(2)'; got {shown(text)}"
    )


def shortest(value: float) -> str:
    """Write a number so that it reads back the same."""
    return short if float(short := f"{value:g}") == value else repr(value)
