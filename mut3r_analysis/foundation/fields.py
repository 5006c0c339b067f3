"""Fields of declared things: what may be given, what is held, and words for what is refused."""

import math
import numbers
import operator
from collections.abc import Callable, Iterable, Mapping
from dataclasses import fields
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any, Generic, TypeVar, cast

import numpy as np

from mut3r_analysis.errors import InvalidArgument

Given = TypeVar("Given")
Held = TypeVar("Held")
Made = TypeVar("Made")
_REQUIRED: Any = object()


class Checked(Generic[Given, Held]):
    """A field of a frozen dataclass that may be given in several forms and is held in one.

    ``layers: Checked[Iterable[int] | None, Layers | None] = Checked(chosen_layers, None)`` takes
    what the first type allows and gives back the second.

    Parameters
    ----------
    check : callable
        (name of the field, what is given) -> what is held; refuses the rest. It takes what it
        returned, too, because copies are made of it.
    default
        Without one the field must be given.
    """

    if not TYPE_CHECKING:

        def __class_getitem__(cls, types: Any) -> Any:
            """Return what may be given: signatures in notebooks show that alone."""
            return types[0]

    def __init__(self, check: Callable[[str, Given], Held], default: Given = _REQUIRED) -> None:
        self._check, self._default = check, default

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name

    def __get__(self, instance: object | None, owner: type | None = None) -> Held:
        if instance is None:
            if self._default is _REQUIRED:
                raise AttributeError(self._name)  # so that a dataclass knows no default
            # As it was written: what "all" names may have grown by the time one is made.
            return cast("Held", self._default)
        held: Held = vars(instance)[self._name]
        return held

    def __set__(self, instance: object, given: Given) -> None:
        vars(instance)[self._name] = self._check(self._name, given)


_LONGEST = 200
Indices = Checked[Iterable[int] | int | None, tuple[int, ...] | None]


def shown(given: Any) -> str:
    """Write a value for a message, short whatever it is."""
    try:
        text = repr(given)
    # Python spells out no number of thousands of digits, and nothing nested as deep.
    except (ValueError, RecursionError):
        return f"a {type(given).__name__} too long to write out"
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 40]}... ({len(text)} characters)"


def meant(given: Iterable[Any], known: Iterable[Any]) -> str:
    """Say which known name each given one is likely meant to be; empty where none is near."""
    names = [each for each in known if isinstance(each, str)]
    wrong = [each for each in given if isinstance(each, str)]
    near = [repr(found) for each in wrong for found in get_close_matches(each, names, n=1)]
    return f" (did you mean {' and '.join(near)}?)" if near else ""


def made_of(where: str, kind: type[Made], given: Any) -> Made:
    """Return a dataclass given as one, or as a mapping of its fields; refuse unknown names."""
    if isinstance(given, kind):
        return given
    if not isinstance(given, Mapping):
        raise InvalidArgument(f"{where}: give a mapping of named values, got {shown(given)}")
    known = [each.name for each in fields(kind)]  # type: ignore[arg-type]
    unknown = sorted(str(name) for name in given if name not in known)
    if unknown:
        raise InvalidArgument(
            f"{where}: unknown {shown(unknown)}{meant(unknown, known)}; choose among "
            f"{', '.join(known)}"
        )
    try:
        return kind(**given)
    except TypeError as error:
        raise InvalidArgument(f"{where} is incomplete: {str(error).split('() ')[-1]}") from error


def optional(check: Callable[[str, Any], Held]) -> Callable[[str, Any], Held | None]:
    """Return a check that leaves None as it is."""
    return lambda field, given: None if given is None else check(field, given)


def instance_of(field: str, given: Any, kind: type[Made], advice: str = "") -> Made:
    """Return what is of a kind already, and refuse another; `advice` follows the kind's name."""
    if not isinstance(given, kind):
        raise InvalidArgument(f"{field} must be a {kind.__name__}{advice}, got {shown(given)}")
    return given


def one_of(field: str, given: Any, known: Iterable[Any]) -> Any:
    """Return a value that is among the known ones, and refuse another."""
    known = tuple(known)
    if given not in known:
        choices = ", ".join(map(str, known))
        several = "one of " if len(known) > 1 else ""
        raise InvalidArgument(
            f"{field} must be {several}{choices}; got {shown(given)}{meant([given], known)}"
        )
    return given


def some_of(field: str, given: Iterable[Any], known: Iterable[Any]) -> None:
    """Refuse values that are not among the known ones, and refuse none at all."""
    given, known = list(given), tuple(known)
    unknown = [each for each in given if each not in known]
    if unknown or not given:
        got = shown(unknown) if unknown else "none"
        raise InvalidArgument(
            f"{field} must be among {', '.join(map(str, known))}; got {got}{meant(unknown, known)}"
        )


def names(field: str, given: Any, known: tuple[str, ...]) -> tuple[str, ...]:
    """Return known names in their own order: some, ``"all"``, or none for None."""
    if given is None:
        return ()
    try:
        chosen = {given} if isinstance(given, str) else set(given)
    except TypeError:
        raise InvalidArgument(
            f"{field} must be 'all', a name or a collection of names, got {shown(given)}; "
            f"known: {', '.join(known)}"
        ) from None
    if chosen == {"all"}:
        return known
    unknown = sorted(map(str, chosen - set(known)))
    if unknown:
        raise InvalidArgument(
            f"unknown {field} {shown(unknown)}{meant(unknown, known)}; known: {', '.join(known)} "
            "(or 'all')"
        )
    return tuple(name for name in known if name in chosen)


def flag(field: str, given: Any) -> bool:
    """Return a truth value as a plain bool."""
    if not isinstance(given, bool | np.bool_):
        raise InvalidArgument(f"{field} must be True or False, got {shown(given)}")
    return bool(given)


def whole(field: str, given: Any, low: int, high: int | None = None) -> int:
    """Return a whole number from `low` on, as a plain int."""
    integral = isinstance(given, numbers.Integral) and not isinstance(given, bool)
    if not integral or given < low or (high is not None and given > high):
        most = "on" if high is None else f"to {high}"
        raise InvalidArgument(
            f"{field} must be a whole number from {low} {most}, got {shown(given)}"
        )
    return int(given)


def number(
    field: str,
    given: Any,
    low: float = -math.inf,
    high: float = math.inf,
    *,
    open_high: bool = False,
) -> float:
    """Return a finite number within bounds, as a float."""
    try:
        value = math.nan if isinstance(given, bool | str) else float(given)
    except (TypeError, ValueError, OverflowError):
        value = math.nan
    inside = low <= value and (value < high if open_high else value <= high)
    if not (inside and math.isfinite(value)):
        bracket = ")" if open_high or math.isinf(high) else "]"
        raise InvalidArgument(
            f"{field} must be a number in [{low:g}, {high:g}{bracket}; got {shown(given)}"
        )
    return value


def indices(field: str, given: Iterable[int] | int | None) -> tuple[int, ...] | None:
    """Return indices from 0 on, ascending; None stays None and means all."""
    if given is None:
        return None
    try:
        values = (given,) if isinstance(given, int) else given
        found = sorted({operator.index(value) for value in values})
    except TypeError:
        found = []
    if not found or found[0] < 0:
        raise InvalidArgument(
            f"{field} must be None (all) or a collection of at least one index from 0 on; "
            f"got {shown(given)}"
        )
    return tuple(found)


def known_heads(field: str, heads: tuple[int, ...] | None, count: int) -> None:
    """Refuse head indices that a site does not have."""
    if heads is not None and heads[-1] >= count:
        raise InvalidArgument(
            f"{field} = {list(heads)} names heads this backbone lacks: there are {count} "
            f"(0 to {count - 1}) at this site"
        )
