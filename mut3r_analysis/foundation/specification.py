"""What declared things share, a capture, a cue, a gate or a commit: JSON, and field checks."""

import json
import math
import numbers
import operator
from collections.abc import Iterable
from dataclasses import asdict, fields
from typing import Any, Self

import numpy as np

from mut3r_analysis.errors import InvalidArgument


class Specification:
    """A frozen dataclass that round-trips through JSON."""

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON-ready values."""
        values = asdict(self)  # type: ignore[call-overload]
        return {
            name: list(value) if isinstance(value, tuple) else value
            for name, value in values.items()
        }

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Self:
        """Build from :meth:`to_dict`'s output.

        Raises
        ------
        InvalidArgument
            For a field that does not exist, or a value that is not allowed.
        """
        known = [field.name for field in fields(cls)]  # type: ignore[arg-type]
        unknown = sorted(set(values) - set(known))
        if unknown:
            name = cls.__name__.lower()
            raise InvalidArgument(f"unknown {name} field(s) {unknown}; known: {', '.join(known)}")
        try:
            return cls(**values)
        except TypeError as error:
            raise InvalidArgument(f"not a {cls.__name__.lower()}: {error}") from error

    def to_json(self) -> str:
        """Return the specification as one line of JSON."""
        return json.dumps(self.to_dict(), sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Build from :meth:`to_json`'s output.

        Raises
        ------
        InvalidArgument
            For a text that is no JSON object, and as :meth:`from_dict`.
        """
        try:
            values = json.loads(text)
        except (TypeError, ValueError) as error:
            raise InvalidArgument(
                f"{text!r} is not the JSON of a {cls.__name__.lower()}: {error}"
            ) from error
        if not isinstance(values, dict):
            raise InvalidArgument(
                f"the JSON of a {cls.__name__.lower()} is an object of its fields, got {text!r}"
            )
        return cls.from_dict(values)


def one_of(field: str, given: Any, known: Iterable[Any]) -> None:
    """Refuse a value that is not among the known ones."""
    known = tuple(known)
    if given not in known:
        raise InvalidArgument(f"{field} must be one of {', '.join(map(str, known))}; got {given!r}")


def names(field: str, given: Any, known: tuple[str, ...]) -> tuple[str, ...]:
    """Return known names in their own order: some, ``"all"``, or none for None."""
    if given is None:
        return ()
    try:
        chosen = {given} if isinstance(given, str) else set(given)
    except TypeError:
        raise InvalidArgument(
            f"{field} must be 'all', a name or a collection of names, got {given!r}; "
            f"known: {', '.join(known)}"
        ) from None
    if chosen == {"all"}:
        return known
    unknown = sorted(map(str, chosen - set(known)))
    if unknown:
        raise InvalidArgument(f"unknown {field} {unknown}; known: {', '.join(known)} (or 'all')")
    return tuple(name for name in known if name in chosen)


def flag(field: str, given: Any) -> bool:
    """Return a truth value as a plain bool."""
    if not isinstance(given, bool | np.bool_):
        raise InvalidArgument(f"{field} must be True or False, got {given!r}")
    return bool(given)


def whole(field: str, given: Any, low: int) -> int:
    """Return a whole number from `low` on, as a plain int."""
    if isinstance(given, bool) or not isinstance(given, numbers.Integral) or given < low:
        raise InvalidArgument(f"{field} must be a whole number from {low} on, got {given!r}")
    return int(given)


def number(field: str, given: Any, low: float, high: float = math.inf, *, open_high: bool) -> float:
    """Return a finite number within bounds, as a float."""
    try:
        value = float(given)
    except (TypeError, ValueError):
        value = math.nan
    inside = low <= value and (value < high if open_high else value <= high)
    if not (inside and math.isfinite(value)):
        bracket = ")" if open_high else "]"
        raise InvalidArgument(
            f"{field} must be a number in [{low:g}, {high:g}{bracket}; got {given!r}"
        )
    return value


def layer_range(given: Any) -> tuple[int, int] | None:
    """Return a half-open range of layers as (start, stop); None stays None and means all."""
    if given is None:
        return None
    try:
        if isinstance(given, range):
            start, stop, step = given.start, given.stop, given.step
        else:
            (start, stop), step = map(operator.index, given), 1
    except (TypeError, ValueError):
        start, stop, step = 0, -1, 1
    if step != 1 or not 0 <= start <= stop:
        raise InvalidArgument(
            "layers must be None (all), a range or a pair (start, stop) with 0 <= start <= stop, "
            f"half-open and 0-based: range(0, 6) is layers 0 to 5; got {given!r}"
        )
    return start, stop


def range_label(start: int, stop: int) -> str:
    """Write a half-open range of layers, such as ``"[0, 3)"``."""
    return f"[{start}, {stop})"


def head_indices(given: Any) -> tuple[int, ...] | None:
    """Return sorted head indices; None stays None and means all."""
    if given is None:
        return None
    try:
        indices = sorted({operator.index(index) for index in given})
    except TypeError:
        indices = []
    if not indices or indices[0] < 0:
        raise InvalidArgument(
            f"heads must be None (all) or a collection of indices from 0 on; got {given!r}"
        )
    return tuple(indices)


def within(field: str, layers: tuple[int, int] | None, depth: int) -> range:
    """Return the layers of a site that has `depth`, refusing a range that reaches outside."""
    start, stop = (0, depth) if layers is None else layers
    if stop > depth:
        raise InvalidArgument(
            f"{field} = range({start}, {stop}) reaches outside the {depth} layers of this "
            f"backbone; allowed: 0 <= start <= stop <= {depth}"
        )
    return range(start, stop)


def known_heads(field: str, heads: tuple[int, ...] | None, count: int) -> None:
    """Refuse head indices that a site does not have."""
    if heads is not None and heads[-1] >= count:
        raise InvalidArgument(
            f"{field} = {list(heads)} names heads this backbone lacks: there are {count} "
            f"(0 to {count - 1}) at this site"
        )
