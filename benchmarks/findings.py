"""Keep every number that the study notebooks compute, and say which of them a change moved.

``dump OUT.json`` executes the notebooks as they are committed, each in a fresh kernel and a fresh
folder, so that no run stored before is taken up, and writes for each of them

- its findings: question and values, as the outputs of the notebook hold them;
- every labelled number: variables of Datasets, DataArrays and columns of DataFrames, in variables
  of the notebook, in dicts, lists and tuples there, among its displayed values, and in what
  functions of the package return to a cell (figures are often given these without a name), as
  ``{path: {dims, coords, values}}``; numbers without labels beside them, where they are not deep
  inside. Of more than 20,000 numbers only a digest is kept, which still tells equal from changed.
  What is left out (runs, frames, texts, times) is named under ``skipped``.

``compare BEFORE.json AFTER.json`` matches numbers by name, then by equal values under another name.
It exits with 1 when a point estimate differs in any bit or is found under no name, when a bound
moves by more than a tenth of its interval's width, or when a notebook failed or is missing.

Nothing here imports the package, so that one script serves two editions of it; the folder of the
one that the kernel imported (``PYTHONPATH``) is in the file. NaN is written as Python does.
"""

import argparse
import asyncio
import json
import math
import os
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from labelled import FINDING_MIME, is_clock, telling

STUDIES = ["01", "02", "03", "04", "05", "06", "07", "08", "09", "10", "11", "13"]
TOLERANCE = 0.1
"""How far a bound may move, in widths of its interval."""
FAILURES = ("differs", "missing", "interval too far")
_BOUNDS = ("lower", "upper")


def dump(out: Path, numbers: Sequence[str], folder: Path, jobs: int) -> int:
    """Execute notebooks; after each, write all that is known. Return how many failed."""
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # sums depend on how many threads share them
    found = json.loads(out.read_text(encoding="utf-8")) if out.exists() else {}
    paths = {number: path for number in numbers for path in folder.glob(f"{number}_*.ipynb")}
    if absent := [number for number in numbers if number not in paths]:
        raise SystemExit(f"{folder} has no notebook {', '.join(absent)}")
    failed = 0
    with ThreadPoolExecutor(jobs) as pool:
        running = {pool.submit(execute, path): number for number, path in paths.items()}
        for done in as_completed(running):
            notebook = found[running[done]] = done.result()
            partial = out.with_suffix(".partial")
            partial.write_text(json.dumps(dict(sorted(found.items()))), encoding="utf-8")
            partial.replace(out)
            failed += "error" in notebook
            said = notebook.get("error") or (
                f"{len(notebook['findings'])} findings, {len(notebook['numbers'])} labelled, "
                f"left out: {_reasons(notebook)}; package of {notebook['package']}"
            )
            print(f"{notebook['file']}: {notebook['seconds']:.0f} s, {said}", flush=True)
    return failed


def _reasons(notebook: Mapping[str, Any]) -> str:
    counts = Counter(reason.split(", ")[-1] for reason in notebook["skipped"].values())
    return ", ".join(f"{count} {reason}" for reason, count in counts.items()) or "nothing"


def execute(path: Path) -> dict[str, Any]:
    """Execute one notebook in a folder of its own; return its findings and numbers."""
    import nbformat
    from nbclient import NotebookClient

    notebook = nbformat.read(path, as_version=4)
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        kept = Path(folder) / "kept.json"
        here = str(Path(__file__).resolve().parent)
        first = f"import sys; sys.path.append({here!r})\nimport labelled as _kept\n"
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
            found = json.loads(kept.read_text(encoding="utf-8"))
        except Exception as error:  # the other notebooks go on
            found = {"error": str(error), "numbers": {}, "skipped": {}, "package": None}
    outputs = [output for each in notebook.cells for output in each.get("outputs", [])]
    told = [
        data[FINDING_MIME] for each in outputs if FINDING_MIME in (data := each.get("data", {}))
    ]
    words = ("question", "answer", "headline")
    findings = [
        {
            "question": each.get("question", ""),
            "values": each.get("values", {k: v for k, v in each.items() if k not in words}),
        }
        for each in told
    ]
    seconds = round(time.monotonic() - began, 1)
    return {"file": path.name, "seconds": seconds, "findings": findings} | found


def differences(before: Mapping[str, Any], after: Mapping[str, Any]) -> dict[str, list[str]]:
    """Say what became of every number of one notebook: lines by kind, `FAILURES` among them."""
    (first, texts), (second, other_texts) = named_numbers(before), named_numbers(after)
    names = {name: name for name in first if name in second} | _renamed(first, second)
    found: dict[str, list[str]] = {}
    for name in first:
        if name not in names:
            kind, line = _lost(name, first, second)
        else:
            kind, line = _judged(name, first, second[names[name]])
        if names.get(name, name) != name:
            kind, line = "renamed" if kind == "equal" else kind, f"{line} (now {names[name]})"
        found.setdefault(kind, []).append(line)
    found["new"] = sorted(set(second) - set(names.values()))
    found["other text"] = [
        f"{name}: {text!r}, now {other_texts.get(name)!r}"
        for name, text in texts.items()
        if other_texts.get(name) != text
    ]
    return {kind: lines for kind, lines in found.items() if lines}


def _renamed(first: Mapping[str, xr.DataArray], second: Mapping[str, xr.DataArray]) -> dict:
    """Match names that are gone with new ones of equal values; bounds go with their values."""
    fresh: dict[Any, list[str]] = {}
    for name in second.keys() - first.keys():
        fresh.setdefault((second[name].shape, second[name].values.tobytes()), []).append(name)
    gone = [name for name in first if name not in second]
    names: dict[str, str] = {}
    for name in gone:
        equal = fresh.get((first[name].shape, first[name].values.tobytes()), [])
        alike = [other for other in equal if _last(other) == _last(name)]
        if alike or (equal and telling(first[name].values).size):
            names[name] = min(alike or equal)
            equal.remove(names[name])
    for name in gone:
        other = names.get(_beside(name, "value"), "")
        if name not in names and _last(name) in _BOUNDS and _beside(other, _last(name)) in second:
            names[name] = _beside(other, _last(name))
    return names


def _last(name: str) -> str:
    return name.rpartition(".")[2]


def _beside(name: str, last: str) -> str:
    return f"{name.rpartition('.')[0]}.{last}"


def _judged(name: str, first: Mapping[str, xr.DataArray], after: xr.DataArray) -> tuple[str, str]:
    """Return the kind of a difference and a line that says how large it is."""
    before = first[name]
    other = _in_order_of(before, after)
    if other is None:
        return "differs", f"{name}: {dict(before.sizes)} is now {dict(after.sizes)}"
    same = (before.values == other) | (np.isnan(before.values) & np.isnan(other))
    if same.all():
        return "equal", name
    moved = np.abs(other - before.values)[~same]
    line = f"{name}: {moved.size} of {same.size}, by at most {moved.max():.3g}"
    widths = _widths(name, first)
    if widths is None:
        return "differs", line
    share = moved / np.broadcast_to(widths, same.shape)[~same]
    kind = "interval moved" if (share <= TOLERANCE).all() else "interval too far"  # or NaN
    return kind, f"{line}, {100 * share.max():.2g} % of the interval"


def _widths(name: str, numbers: Mapping[str, xr.DataArray]) -> np.ndarray | None:
    """Return the widths of the intervals that a bound belongs to; None for what is no bound."""
    ends = [numbers.get(_beside(name, end)) for end in _BOUNDS]
    if _last(name) not in _BOUNDS or ends[0] is None or ends[1] is None:
        return None
    return (ends[1] - ends[0]).values


def _lost(name: str, first: Mapping[str, Any], second: Mapping[str, Any]) -> tuple[str, str]:
    """Say of a number without a match whether its values stand among those of another one."""
    values = telling(first[name].values)
    for other, after in second.items():
        if values.size and np.isin(values, after.values).all():
            return "found elsewhere", f"{name}: in {other}"
    return "missing" if _widths(name, first) is None else "bound missing", name


def _in_order_of(before: xr.DataArray, after: xr.DataArray) -> np.ndarray | None:
    """Return the values of `after` at the labels of `before`; None where it lacks some."""
    if set(before.dims) == set(after.dims):
        after = after.transpose(*before.dims)
    for dim in set(before.coords) & set(after.coords):
        here, there = before.get_index(dim), after.get_index(dim)
        # As many labels, but other words: the same ones, renamed.
        if here.is_unique and there.is_unique and set(here) <= set(there):
            after = after.sel({dim: here})
    return after.values if after.shape == before.shape else None


def named_numbers(notebook: Mapping[str, Any]) -> tuple[dict[str, xr.DataArray], dict[str, str]]:
    """Return the numbers of a notebook by name, and the texts among the values of its findings.

    A digest stands as a number made from it: equal digests are equal numbers.
    """
    numbers, texts = {}, {}
    for name, entry in notebook["numbers"].items():
        if "sha256" in entry:
            entry = {"dims": [], "coords": {}, "values": int(entry["sha256"][:12], 16) + 0.5}
        values = np.asarray(entry["values"], float) + 0.0  # -0.0 is 0.0
        numbers[name] = xr.DataArray(values, entry["coords"], entry["dims"])
    for found in notebook["findings"]:
        for name, value in _flat("", found["values"]):
            if isinstance(value, str):
                texts[found["question"] + name] = value
            elif not is_clock(name):
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


def compare(before: Path, after: Path) -> int:
    """Print what became of the numbers of every notebook; return how many are not as they were."""
    first, second = (json.loads(path.read_text(encoding="utf-8")) for path in (before, after))
    failures = 0
    for number, notebook in first.items():
        other = second.get(number, {"error": "it is not there"})
        if errors := [each["error"] for each in (notebook, other) if "error" in each]:
            print(f"{notebook['file']}: {'; '.join(errors)}")
            failures += 1
            continue
        found = differences(notebook, other)
        print(f"{notebook['file']}: {', '.join(f'{len(v)} {k}' for k, v in found.items())}")
        times = [name for name, reason in notebook["skipped"].items() if reason == "time"]
        print(f"    left out: {_reasons(notebook)}; times: {', '.join(times) or 'none'}")
        for kind in sorted(found.keys() - {"equal"}, key=lambda kind: kind not in FAILURES):
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
