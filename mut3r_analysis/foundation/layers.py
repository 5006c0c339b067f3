"""Layers of a model, counted from 0: chosen ones, or consecutive ones.

``[0, 3]`` are layers 0 and 3, ``range(0, 3)`` layers 0, 1 and 2. A pair ``(0, 3)`` could be read
either way: where only consecutive layers can be meant, as in cues and gates, it is the range; where
any may be chosen, as in captures, it is refused. JSON and YAML know lists only, so they write what
a cue or gate acts on as ``[start, stop]``.
"""

import operator
from collections.abc import Iterable, Mapping
from typing import Any

from mut3r_analysis.errors import InvalidArgument
from mut3r_analysis.foundation.fields import Checked, indices, shown


class Layers(tuple[int, ...]):
    """Chosen layers, ascending."""

    __slots__ = ()

    def __repr__(self) -> str:
        return repr(list(self))


Chosen = Checked[Iterable[int] | int | None, Layers | None]
Consecutive = Checked[range | tuple[int, int] | None, range | None]


def chosen_layers(field: str, given: Iterable[int] | int | None) -> Layers | None:
    """Return layers given as a list, a set or a range; None stays None and means all."""
    if type(given) is tuple and len(given) == 2:
        start, stop = given
        raise InvalidArgument(
            f"{field} = {shown(given)} could be two layers or all in between; write "
            f"[{start}, {stop}] for these two, or range({start}, {stop})"
        )
    found = indices(field, given)
    return None if found is None else Layers(found)


def consecutive_layers(field: str, given: range | tuple[int, int] | None) -> range | None:
    """Return a range given as one or as (start, stop); None stays None and means all."""
    if given is None:
        return None
    try:
        if isinstance(given, range):
            start, stop, step = given.start, given.stop, given.step
        elif isinstance(given, tuple):
            (start, stop), step = map(operator.index, given), 1
        else:
            raise TypeError
    except (TypeError, ValueError):
        start, stop, step = 0, -1, 1
    if step != 1 or not 0 <= start <= stop:
        raise InvalidArgument(
            f"{field} must be None (all), a range or a pair (start, stop) with 0 <= start <= stop, "
            f"half-open and 0-based: range(0, 6) is layers 0 to 5; got {shown(given)}"
        )
    return range(start, stop)


def with_pairs_as_ranges(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return fields of a cue or gate as JSON and YAML hold them, their layers no more a list."""
    layers = values.get("layers")
    return {**values, "layers": tuple(layers)} if isinstance(layers, list) else dict(values)


def range_label(start: int, stop: int) -> str:
    """Write a half-open range of layers, such as ``"[0, 3)"``."""
    return f"[{start}, {stop})"


def within(field: str, layers: range | None, depth: int) -> range:
    """Return the layers of a site that has `depth`, refusing a range that reaches outside."""
    layers = range(depth) if layers is None else layers
    if layers.stop > depth:
        raise InvalidArgument(
            f"{field} = {layers} reaches outside the {depth} layers of this "
            f"backbone; allowed: 0 <= start <= stop <= {depth}"
        )
    return layers
