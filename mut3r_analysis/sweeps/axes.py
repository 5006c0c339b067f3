"""What varies in a sweep: a grid or a list of configurations, with the labels of its result."""

import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from numbers import Integral, Real
from typing import Any

import numpy as np

from mut3r_analysis.errors import InvalidArgument
from mut3r_analysis.foundation.fields import one_of
from mut3r_analysis.foundation.layers import range_label, with_pairs_as_ranges
from mut3r_analysis.motion.cue import Cue
from mut3r_analysis.motion.gate import Gate
from mut3r_analysis.running.commit import Commit
from mut3r_analysis.running.configuration import Configuration

_PARTS: dict[str, type] = {"cue": Cue, "gate": Gate, "commit": Commit}
Label = str | float | int
Grid = Mapping[str, Mapping[Any, Any] | Iterable[Any]]
"""Name of a part or of its field -> the values it takes, or labels of one's own -> values."""
Configurations = (
    Mapping[str, Configuration | Mapping[str, Any]] | Sequence[Configuration | Mapping[str, Any]]
)

_SETTLED = {"cue.reading": ("sign", "of"), "gate.layers": ("of_depth",)}
"""Fields that another value leaves to their default: a reading's own sign, and the depth in which
the layers of ``Gate.mut3r()`` are counted, so that a range means the backbone's own layers."""


@dataclass(frozen=True)
class Axes:
    """The configurations of a sweep, in the order of a grid.

    Attributes
    ----------
    labels : dict of str to tuple
        Name of each dimension, and its labels.
    configurations : tuple of Configuration
        As many as the grid has cells, the last dimension fastest.
    """

    labels: dict[str, tuple[Label, ...]]
    configurations: tuple[Configuration, ...]

    @classmethod
    def of(
        cls,
        base: Configuration,
        *,
        grid: Grid | None = None,
        configurations: Configurations | None = None,
    ) -> "Axes":
        """Build from what a person gives; see :func:`~mut3r_analysis.sweep`.

        Raises
        ------
        InvalidArgument
            For a key that names nothing, an axis without values, two values of one label, or a
            value that a cue, gate or commit refuses.
        """
        if grid is not None and configurations is not None:
            raise InvalidArgument("give grid= or configurations=, not both")
        if configurations is not None:
            chosen = _labelled("configurations", configurations)
            listed = tuple(Configuration.of(value) for value in chosen.values())
            return cls({"configuration": tuple(chosen)}, listed)
        if not grid:
            return cls({}, (base,))
        names = {key: key.replace(".", "_") for key in grid}
        choices = {key: _labelled(key, values) for key, values in grid.items()}
        # A whole cue or gate is put in place before its fields are changed.
        order = sorted(grid, key=lambda key: "." in key)
        found = []
        for cell in itertools.product(*(choices[key].items() for key in grid)):
            values = {key: value for key, (_, value) in zip(grid, cell, strict=True)}
            found.append(_configured(base, {key: values[key] for key in order}))
        return cls({names[key]: tuple(choices[key]) for key in grid}, tuple(found))


def label_of(value: Any, *, layers: bool = False) -> Label | None:
    """Return the label of a value of an axis; None where it needs one to be given.

    A pair is a half-open range where it names `layers`, and a list of two anywhere else.
    """
    if value is None:
        return "none"
    if isinstance(value, str | bool | np.bool_):
        return str(value)
    if isinstance(value, Integral):
        return int(value)
    if isinstance(value, Real):
        # The shortest number that is the same one in its own precision: 0.2, not 0.2000000030.
        return float(str(value))
    if isinstance(value, range) and value.step == 1:
        return range_label(value.start, value.stop)
    if layers and isinstance(value, tuple | list) and len(value) == 2:
        return range_label(*value)
    text = str(value)
    return text if len(text) <= 24 else None


def _labelled(key: str, values: Any) -> dict[Label, Any]:
    if isinstance(values, Mapping):
        found = dict(values)
    elif isinstance(values, Iterable) and not isinstance(values, str):
        listed = list(values)
        labels = [label_of(value, layers=key.endswith(".layers")) for value in listed]
        labels = [f"{key} {i}" if text is None else text for i, text in enumerate(labels)]
        repeated = sorted({str(text) for text in labels if labels.count(text) > 1})
        if repeated:
            raise InvalidArgument(
                f"{key}: {', '.join(repeated)} appears more than once; leave it out, or give "
                "{label: value} with labels of your own"
            )
        found = dict(zip(labels, listed, strict=True))
    else:
        raise InvalidArgument(f"{key} needs a list of values or {{label: value}}, got {values!r}")
    if not found:
        raise InvalidArgument(f"{key} has no values; give at least one, or leave it out")
    if not all(isinstance(text, Real) for text in found):
        found = {str(text): value for text, value in found.items()}
    return found


def _configured(base: Configuration, values: Mapping[str, Any]) -> Configuration:
    """Put the values of one cell of a grid into the base configuration."""
    parts: dict[str, Any] = {name: getattr(base, name) for name in _PARTS}
    for key, value in values.items():
        name, _, field = key.partition(".")
        if name not in _PARTS or (field and name == "commit"):
            known = ["cue", "gate", "commit", "cue.<field>", "gate.<field>"]
            raise InvalidArgument(f"a grid cannot vary {key!r}; it can: {', '.join(known)}")
        if not field:
            parts[name] = value
            continue
        kind: Any = _PARTS[name]
        one_of(f"{key!r}: a field of a {name}", field, [item.name for item in fields(kind)])
        if parts[name] is None:
            if name in values:
                continue  # this cell says: none at all
            parts[name] = kind.mut3r()
        settled = {
            other: None for other in _SETTLED.get(key, ()) if f"{name}.{other}" not in values
        }
        parts[name] = replace(parts[name], **settled, **with_pairs_as_ranges({field: value}))
    if parts["gate"] is not None and parts["cue"] is None:
        parts["cue"] = Cue.mut3r()
    return Configuration(**parts)
