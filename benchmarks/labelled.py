"""Keep the labelled numbers of a notebook: this part of `findings.py` runs in its kernel."""

import ast
import hashlib
import json
import re
import sys
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import fields, is_dataclass
from numbers import Real
from pathlib import Path
from types import FunctionType
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

FINDING_MIME = "application/vnd.mut3r.finding+json"
PACKAGE = "mut3r_analysis"
LIMIT = 20_000

_CLOCK_UNITS = ("s", "ms", "us", "ns", "1/s", "Hz")
_CLOCK = re.compile(r"(^|[\W_])(seconds|per.second|(wall|cpu).?time|elapsed|dates?|peak.memory)$")
_DEEPEST, _DEEPEST_PLAIN = 6, 2


def telling(values: np.ndarray) -> np.ndarray:
    """Return the values that are hardly met by chance: finite, and no whole numbers."""
    return values[np.isfinite(values) & (values != np.round(values))]


def is_clock(path: str) -> bool:
    """Whether the last name of a path is of what is another one at every execution."""
    return _CLOCK.search(path.lower()) is not None


class Calls(ast.NodeTransformer):
    """Keep what functions of the package return to the cells of a notebook."""

    def __init__(self) -> None:
        self.returned: dict[str, Any] = {}
        self._counts: Counter[str] = Counter()

    def visit_Call(self, node: ast.Call) -> ast.Call:
        self.generic_visit(node)
        if isinstance(node.func, ast.Name | ast.Attribute):
            name = ast.Constant(ast.unparse(node.func))
            keep = ast.Name("_keep_returned", ast.Load())
            node.func = ast.copy_location(ast.Call(keep, [name, node.func], []), node.func)
        return ast.fix_missing_locations(node)

    def keep(self, name: str, function: Any) -> Any:
        """Return the function, so wrapped that its values are kept if it is the package's."""
        if not isinstance(function, FunctionType) or not function.__module__.startswith(PACKAGE):
            return function

        def kept(*args: Any, **options: Any) -> Any:
            value = function(*args, **options)
            self._counts[name] += 1
            self.returned[f"{name}()#{self._counts[name]}"] = value
            return value

        return kept


def start(namespace: dict[str, Any]) -> None:
    """Begin keeping, in the namespace of a notebook that has not run yet."""
    calls = Calls()
    namespace |= {"_calls": calls, "_keep_returned": calls.keep}
    namespace["get_ipython"]().ast_transformers.append(calls)


def collect(namespace: Mapping[str, Any], out: str) -> None:
    """Write what was kept and what the namespace and the displayed values hold, as JSON."""
    named = {name: value for name, value in namespace.items() if re.match(r"(?!_|In$|Out$)", name)}
    shown = {f"Out[{count}]": value for count, value in namespace["Out"].items()}
    found = Collection()
    for name, value in (named | shown | namespace["_calls"].returned).items():
        # A whole number that stands alone is mostly a setting.
        if not isinstance(value, Real) or telling(np.asarray(float(value))).size:
            found.add(name, value)
    package = sys.modules.get(PACKAGE)
    origin = str(Path(package.__file__ or "").parent) if package else None
    Path(out).write_text(
        json.dumps({"package": origin, "numbers": found.numbers, "skipped": found.skipped}),
        encoding="utf-8",
    )


class Collection:
    """Labelled numbers by path, and what was left out, with the reason."""

    def __init__(self) -> None:
        self.numbers: dict[str, dict[str, Any]] = {}
        self.skipped: dict[str, str] = {}
        self._seen: set[int] = set()

    def add(self, path: str, value: Any, depth: int = 0) -> None:
        """Take in a value and what it holds; what was taken in under another path is not again."""
        value = value.data if type(value).__name__ == "Styler" else value
        if isinstance(value, xr.DataTree):
            self.skipped[path] = "a run"
        elif isinstance(value, Real) or _are_numbers(value):
            if depth <= _DEEPEST_PLAIN and not isinstance(value, bool):
                self._keep(path, xr.DataArray(np.asarray(value, float)))
        elif depth <= _DEEPEST and id(value) not in self._seen and not _is_finding(value):
            self._seen.add(id(value))
            for name, part in _parts(value):
                if isinstance(part, xr.DataArray):
                    self._keep(f"{path}.{name}" if name else path, part)
                else:
                    self.add(f"{path}.{name}", part, depth + 1)

    def _keep(self, path: str, values: xr.DataArray) -> None:
        if is_clock(path) or values.attrs.get("units") in _CLOCK_UNITS:
            self.skipped[path] = "time"
        elif {"y", "x"} <= set(values.dims):
            self.skipped[path] = "frames"
        elif values.dtype.kind in "mM":
            self.skipped[path] = "time"
        elif (numbers := _as_numbers(values)) is None:
            self.skipped[path] = "text"
        else:
            self.numbers[path] = entry = {
                "dims": [str(dim) for dim in values.dims],
                "coords": {
                    str(dim): [_label(each) for each in values[dim].values.tolist()]
                    for dim in values.dims
                    if dim in values.coords
                },
            }
            if numbers.size <= LIMIT:
                entry["values"] = numbers.tolist()
            else:
                self.skipped[path] = f"{numbers.size:,} numbers, digest only"
                entry["sha256"] = hashlib.sha256(numbers.tobytes()).hexdigest()


def _parts(value: Any) -> Iterator[tuple[Any, Any]]:
    """Yield what a value holds, by name; labelled numbers as DataArrays."""
    if isinstance(value, xr.DataArray):
        yield "", value
    elif isinstance(value, xr.Dataset):
        yield from ((name, value[name]) for name in value.variables if name not in value.dims)
    elif isinstance(value, pd.DataFrame | pd.Series):
        table = value.to_frame("values") if isinstance(value, pd.Series) else value
        rows = {"row": [str(_label(label)) for label in table.index]}
        for at, name in enumerate(table.columns):
            yield _label(name), xr.DataArray(table.iloc[:, at].to_numpy(), rows, ["row"])
    elif isinstance(value, Mapping):
        yield from ((_label(name), part) for name, part in value.items())
    elif hasattr(value, "_fields"):
        yield from zip(value._fields, value, strict=True)
    elif isinstance(value, list | tuple):
        yield from enumerate(value)
    elif is_dataclass(value) and not isinstance(value, type):
        parts = ((field.name, getattr(value, field.name, None)) for field in fields(value))
        # Plain numbers of an object are settings.
        yield from (part for part in parts if not isinstance(part[1], Real | list | tuple))


def _is_finding(value: Any) -> bool:
    """Whether the outputs of the notebook hold it already."""
    if isinstance(value, type) or not is_dataclass(value):
        return False
    return FINDING_MIME in getattr(value, "_repr_mimebundle_", dict)()


def _are_numbers(value: Any) -> bool:
    plain = isinstance(value, list | tuple) and not hasattr(value, "_fields")
    return plain and bool(value) and all(isinstance(each, Real) for each in value)


def _as_numbers(values: xr.DataArray) -> np.ndarray | None:
    if values.dtype.kind in "US":
        return None
    try:
        return np.asarray(values.values, float)
    except (TypeError, ValueError):
        return None


def _label(value: Any) -> Any:
    if isinstance(value, tuple):
        return ", ".join(map(str, value))
    return value if isinstance(value, str | int | float) else str(value)
