"""Keep every number that the study notebooks compute, and say which of them a change moved.

``dump OUT.json`` executes the notebooks as they are committed, each in a fresh kernel and a fresh
folder, so that no run stored before is taken up, and writes for each of them

- its findings: question and values, as the outputs of the notebook hold them;
- every labelled number: variables of Datasets, DataArrays and columns of DataFrames, in variables
  of the notebook, in dicts, lists and tuples there, among its displayed values, and in what
  functions of the package return to a cell (figures are often given these without a name), as
  ``{path: {dims, coords, values}}``; numbers without labels beside them, where they are not deep
  inside. Of more than `LIMIT` numbers only a digest is kept, which still tells equal from changed.
  What is left out (runs, frames, texts, times) is named under ``skipped``.

``compare BEFORE.json AFTER.json`` matches numbers by name, then by equal values under another name.
It exits with 1 when a point estimate differs in any bit or is found under no name, when a bound
moves by more than a tenth of its interval's width, or when a notebook failed or is missing.

Nothing here imports the package, so that one script serves two editions of it; the folder of the
one that the kernel imported (``PYTHONPATH``) is in the file. NaN is written as Python does.
"""

import argparse
import ast
import asyncio
import hashlib
import json
import math
import os
import re
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor, as_completed
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
STUDIES = ["01", "02", "03", "04", "05", "06", "07", "08", "09", "10", "11", "13"]
LIMIT = 20_000
TOLERANCE = 0.1
"""How far a bound may move, in widths of its interval."""

_BOUNDS = ("lower", "upper")
_CLOCK = re.compile(r"(^|[\W_])(seconds?|wall|cpu|clock|elapsed|dates?|time|created|peak)($|[\W_])")
_CLOCK_UNITS = ("s", "ms", "us", "ns", "1/s", "Hz")
_DEEPEST, _DEEPEST_PLAIN = 6, 2


# Collecting, in the kernel of the notebook.


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
        json.dumps({"package": origin, "numbers": found.numbers, "skipped": found.skipped})
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
        if _CLOCK.search(path.lower()) or values.attrs.get("units") in _CLOCK_UNITS:
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
                self.skipped[path] = f"{numbers.size:,} numbers, only their digest is kept"
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


# Dumping.


def dump(out: Path, numbers: Iterable[str], folder: Path, jobs: int) -> int:
    """Execute notebooks; after each, write all that is known. Return how many failed."""
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # sums depend on how many threads share them
    found = json.loads(out.read_text()) if out.exists() else {}
    paths = {number: next(folder.glob(f"{number}_*.ipynb")) for number in numbers}
    failed = 0
    with ThreadPoolExecutor(jobs) as pool:
        running = {pool.submit(execute, path): number for number, path in paths.items()}
        for done in as_completed(running):
            notebook = found[running[done]] = done.result()
            partial = out.with_suffix(".partial")
            partial.write_text(json.dumps(dict(sorted(found.items()))))
            partial.replace(out)
            failed += "error" in notebook
            said = notebook.get("error") or (
                f"{len(notebook['findings'])} findings, {len(notebook['numbers'])} labelled, "
                f"{len(notebook['skipped'])} left out {dict(_reasons(notebook))}, "
                f"package of {notebook['package']}"
            )
            print(f"{notebook['file']}: {notebook['seconds']:.0f} s, {said}", flush=True)
    return failed


def _reasons(notebook: Mapping[str, Any]) -> Counter[str]:
    return Counter(reason.split(", ")[-1] for reason in notebook["skipped"].values())


def execute(path: Path) -> dict[str, Any]:
    """Execute one notebook in a folder of its own; return its findings and numbers."""
    import nbformat
    from nbclient import NotebookClient

    notebook = nbformat.read(path, as_version=4)
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        kept = Path(folder) / "kept.json"
        here = str(Path(__file__).resolve().parent)
        first = f"import sys; sys.path.append({here!r})\nimport findings as _kept\n"
        first, last = f"{first}_kept.start(globals())", f"_kept.collect(globals(), {str(kept)!r})"
        cell = nbformat.v4.new_code_cell
        notebook.cells = [cell(first), *notebook.cells, cell(last)]
        client = NotebookClient(
            notebook,
            timeout=None,
            kernel_name="python3",
            extra_arguments=["--log-level=40"],
            resources={"metadata": {"path": folder}},
        )
        try:
            asyncio.run(client.async_execute())
            found = json.loads(kept.read_text())
        except Exception as error:  # the other notebooks go on
            found = {"error": str(error), "numbers": {}, "skipped": {}, "package": None}
    outputs = [output for each in notebook.cells for output in each.get("outputs", [])]
    told = [output["data"][FINDING_MIME] for output in outputs if _holds_finding(output)]
    words = ("question", "answer", "brief")
    findings = [
        {
            "question": each.get("question", ""),
            "values": each.get("values", {k: v for k, v in each.items() if k not in words}),
        }
        for each in told
    ]
    seconds = round(time.monotonic() - began, 1)
    return {"file": path.name, "seconds": seconds, "findings": findings} | found


def _holds_finding(output: Mapping[str, Any]) -> bool:
    return FINDING_MIME in output.get("data", {})


# Comparing.

FAILURES = ("differs", "missing", "interval too far")


def telling(values: np.ndarray) -> np.ndarray:
    """Return the values that are hardly met by chance: finite, and no whole numbers."""
    return values[np.isfinite(values) & (values != np.round(values))]


class Comparison:
    """What became of every number of one notebook.

    ``found`` holds a line per number, by kind; kinds in `FAILURES` are what must not be.
    """

    def __init__(self, before: Mapping[str, Any], after: Mapping[str, Any]) -> None:
        self.found: dict[str, list[str]] = {}
        self._before, texts = named_numbers(before)
        self._after, other_texts = named_numbers(after)
        self._names = {name: name for name in self._before if name in self._after}
        self._find_renamed()
        for name, array in self._before.items():
            if name in self._names:
                self._judge(name, array)
            else:
                self._say(*self._lost(name, array))
        for name in sorted(set(self._after) - set(self._names.values())):
            self._say("new", name)
        for name, text in texts.items():
            if (other := other_texts.get(name)) != text:
                self._say("other text", f"{name}: {text!r}, now {other!r}")

    def _say(self, kind: str, line: str) -> None:
        self.found.setdefault(kind, []).append(line)

    def _find_renamed(self) -> None:
        """Match names that are gone with new ones of equal values, then bounds by their values."""
        fresh: dict[Any, list[str]] = {}
        for name in self._after:
            if name not in self._names:
                fresh.setdefault(_identity(self._after[name]), []).append(name)
        gone = [name for name in self._before if name not in self._names]
        for name in gone:
            last = name.rpartition(".")[2]
            names = fresh.get(_identity(self._before[name]), [])
            same = [each for each in names if each.rpartition(".")[2] == last]
            if same or (names and telling(self._before[name].values).size):
                self._names[name] = (same or names)[0]
                names.remove(self._names[name])
        for name in gone:
            stem, _, last = name.rpartition(".")
            other = self._names.get(f"{stem}.value", "").rpartition(".")[0]
            if last in _BOUNDS and name not in self._names and f"{other}.{last}" in self._after:
                self._names[name] = f"{other}.{last}"

    def _judge(self, name: str, before: xr.DataArray) -> None:
        other = self._names[name]
        label = name if name == other else f"{name} (now {other})"
        after, lost = _aligned(before, self._after[other])
        if after is None or lost:
            self._say("differs", f"{label}: {lost or f'shape {before.shape}'} not there any more")
            return
        same = (before.values == after) | (np.isnan(before.values) & np.isnan(after))
        if same.all():
            self._say("equal" if name == other else "renamed", label)
            return
        moved = np.abs(after - before.values)[~same]
        text = f"{label}: {(~same).sum()} of {same.size}, by at most {moved.max():.3g}"
        if (width := self._width(name)) is None or width.shape != same.shape:
            self._say("differs", text)
            return
        share = moved / width[~same]
        far = not (share <= TOLERANCE).all()  # nor is NaN
        text += f", {100 * share.max():.2g} % of the interval"
        self._say("interval too far" if far else "interval moved", text)

    def _width(self, name: str) -> np.ndarray | None:
        """Widths of the intervals that a bound belongs to; None for what is no bound."""
        stem, _, last = name.rpartition(".")
        ends = [self._before.get(f"{stem}.{end}") for end in _BOUNDS]
        if last not in _BOUNDS or any(end is None for end in ends):
            return None
        return ends[1].values - ends[0].values

    def _lost(self, name: str, before: xr.DataArray) -> tuple[str, str]:
        """Say of a number without a match whether its values stand in other ones."""
        values = telling(before.values)
        holders = [
            other
            for other, after in self._after.items()
            if values.size and np.isin(values, after.values).all()
        ]
        if holders:
            return "found elsewhere", f"{name}: in {holders[0]}"
        return ("missing" if self._width(name) is None else "bound missing"), name


def named_numbers(notebook: Mapping[str, Any]) -> tuple[dict[str, xr.DataArray], dict[str, str]]:
    """Return the numbers of a notebook by name, and the texts among the values of its findings.

    A digest stands as a number made from it: equal digests are equal numbers.
    """
    numbers, texts = {}, {}
    for name, entry in notebook["numbers"].items():
        if "sha256" in entry:
            entry = {"dims": [], "coords": {}, "values": int(entry["sha256"][:12], 16) + 0.5}
        numbers[name] = xr.DataArray(entry["values"], entry["coords"], entry["dims"]).astype(float)
    for found in notebook["findings"]:
        for name, value in _flat("", found["values"]):
            if isinstance(value, str):
                texts[found["question"] + name] = value
            elif not _CLOCK.search(name.lower()):
                number = math.nan if value is None else float(value)
                numbers[found["question"] + name] = xr.DataArray(number)
    return numbers, texts


def _flat(path: str, value: Any) -> Iterator[tuple[str, Any]]:
    """Yield single values by path; three numbers are a value and its interval where they fit."""
    if isinstance(value, Mapping):
        items: Iterable[tuple[Any, Any]] = value.items()
    elif isinstance(value, list):
        three = len(value) == 3 and all(isinstance(each, float) for each in value)
        interval = three and value[1] <= value[0] <= value[2] and value[1] < value[2]
        items = zip(("value", *_BOUNDS), value, strict=True) if interval else enumerate(value)
    else:
        yield path, value
        return
    for name, part in items:
        yield from _flat(f"{path}.{name}", part)


def _identity(array: xr.DataArray) -> tuple[Any, ...]:
    return array.shape, (array.values + 0.0).tobytes()  # -0.0 is 0.0


def _aligned(before: xr.DataArray, after: xr.DataArray) -> tuple[np.ndarray | None, list[str]]:
    """Return `after` in the order of `before`, by dims and labels, and the labels that it lacks."""
    if set(before.dims) == set(after.dims):
        after = after.transpose(*before.dims)
    for dim in before.dims:
        if dim not in before.coords or dim not in after.coords:
            continue
        here, there = before.get_index(dim), after.get_index(dim)
        if not (here.is_unique and there.is_unique):
            continue
        if set(here) <= set(there):
            after = after.sel({dim: here})
        elif len(here) != len(there):  # as many other labels are the same ones, renamed
            return None, [f"{dim} {label!r}" for label in here if label not in there]
    return (after.values if after.shape == before.shape else None), []


def compare(before: Path, after: Path) -> int:
    """Print what became of the numbers of every notebook; return how many are not as they were."""
    first, second = (json.loads(path.read_text()) for path in (before, after))
    failures = 0
    for number, notebook in first.items():
        other = second.get(number, {"error": "it is not there"})
        if errors := [each["error"] for each in (notebook, other) if "error" in each]:
            print(f"{notebook['file']}: {'; '.join(errors)}")
            failures += 1
            continue
        found = Comparison(notebook, other).found
        print(f"{notebook['file']}: {', '.join(f'{len(v)} {k}' for k, v in found.items())}")
        print(f"    left out of both or either: {dict(_reasons(notebook) | _reasons(other))}")
        for kind in sorted(set(found) - {"equal"}, key=lambda kind: kind not in FAILURES):
            print("\n".join(f"    {kind}: {line}" for line in found[kind]))
        failures += sum(len(found.get(kind, [])) for kind in FAILURES)
    print(f"{failures} not as before" if failures else "all as before")
    return failures


def main() -> int:
    """Read the command line; return the exit status."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    commands = parser.add_subparsers(required=True, dest="command")
    dumping = commands.add_parser("dump", help="execute notebooks and keep their numbers")
    dumping.add_argument("out", type=Path, help="JSON; notebooks that it holds and are not asked "
                         "for stay")  # fmt: skip
    dumping.add_argument("--notebooks", nargs="+", default=STUDIES, metavar="NUMBER")
    dumping.add_argument("--folder", type=Path, default=Path(__file__).parents[1] / "notebooks")
    dumping.add_argument("--jobs", type=int, default=1, help="notebooks at a time")
    comparing = commands.add_parser("compare", help="say which numbers are other ones")
    comparing.add_argument("before", type=Path)
    comparing.add_argument("after", type=Path)
    given = parser.parse_args()
    if given.command == "dump":
        return bool(dump(given.out, given.notebooks, given.folder, given.jobs))
    return bool(compare(given.before, given.after))


if __name__ == "__main__":
    sys.exit(main())
