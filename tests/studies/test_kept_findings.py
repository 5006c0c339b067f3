"""The numbers of notebooks are kept, and it is told which of them a change moved."""

import json
import subprocess
import sys
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import nbformat
import pytest

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "findings.py"
CELLS = [
    """
from dataclasses import dataclass

import numpy as np
import pandas as pd
import xarray as xr

@dataclass
class Told:
    values: dict

    def _repr_mimebundle_(self, **_):
        payload = {"question": "Does it?", "answer": "Yes.", "values": self.values}
        return {"text/plain": "", "application/vnd.mut3r.finding+json": payload}

def counted():
    return pd.Series([0.5, 1.5], ["a", "b"])

counted.__module__ = "mut3r_analysis.somewhere"

table = xr.Dataset(
    {"value": ("row", [1.25, np.nan]), "seconds": ("row", [3.1, 3.2]), "name": ("row", ["p", "q"])},
    {"row": ["first", "second"]},
)
held = {"large": xr.DataArray(np.zeros(30_000)), "image": xr.DataArray([[1.0]], dims=("y", "x"))}
whole, share = 3, 0.75
""",
    "print(len(counted()))\nTold({'best': 'first', 'effect': [0.5, 0.25, 0.75]})",
]


def start(*arguments: Any) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, SCRIPT, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True)


@pytest.mark.slow
def test_a_dump_holds_findings_and_labelled_numbers_and_names_what_it_leaves_out(
    tmp_path: Path,
) -> None:
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(each) for each in CELLS])
    nbformat.write(notebook, tmp_path / "01_fake.ipynb")
    out = tmp_path / "found.json"
    done = start("dump", out, "--notebooks", "01", "--folder", tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads(out.read_text())["01"]
    values = {"best": "first", "effect": [0.5, 0.25, 0.75]}
    assert found["findings"] == [{"question": "Does it?", "values": values}]
    numbers = found["numbers"]
    assert set(numbers) == {"table.value", "held.large", "share", "counted()#1.values"}
    assert numbers["table.value"]["coords"] == {"row": ["first", "second"]}
    assert numbers["table.value"]["values"][0] == 1.25
    assert numbers["counted()#1.values"]["values"] == [0.5, 1.5]
    assert "values" not in numbers["held.large"]
    assert set(found["skipped"]) == {"table.seconds", "table.name", "held.large", "held.image"}
    assert start("compare", out, out).returncode == 0
    failed = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("1 / 0")])
    nbformat.write(failed, tmp_path / "02_fails.ipynb")
    assert start("dump", out, "--notebooks", "02", "--folder", tmp_path).returncode == 1
    kept = json.loads(out.read_text())
    assert kept["01"] == found
    assert "ZeroDivisionError" in kept["02"]["error"]


def entry(values: list[float], labels: list[str], dim: str = "row") -> dict[str, Any]:
    return {"dims": [dim], "coords": {dim: labels}, "values": values}


BEFORE = {
    "found.value": entry([1.5, 2.5], ["a", "b"]),
    "found.lower": entry([1.0, 2.0], ["a", "b"]),
    "found.upper": entry([2.0, 3.0], ["a", "b"]),
    "found.n": entry([8.0, 8.0], ["a", "b"]),
}


@pytest.fixture
def compared(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., tuple[int, str]]:
    monkeypatch.syspath_prepend(SCRIPT.parent)
    script = import_module("findings")
    told = (0.5, 0.25, 0.75)

    def compare(numbers: dict[str, Any], effect: Any = told) -> tuple[int, str]:
        files = []
        for label, each, values in (("before", BEFORE, told), ("after", numbers, effect)):
            findings = [{"question": "Does it?", "values": {"effect": list(values)}}]
            notebook = {"file": "01_fake.ipynb", "findings": findings, "numbers": each}
            files.append(tmp_path / f"{label}.json")
            files[-1].write_text(json.dumps({"01": notebook | {"skipped": {}}}))
        return script.compare(*files), capsys.readouterr().out

    return compare


UNMOVED = {
    "the same": BEFORE,
    "in another order": BEFORE | {"found.value": entry([2.5, 1.5], ["b", "a"])},
    "with another row": BEFORE | {"found.value": entry([7.5, 1.5, 2.5], ["c", "a", "b"])},
    "under other labels": BEFORE | {"found.value": entry([1.5, 2.5], ["A", "B"])},
    "a little wider": BEFORE | {"found.lower": entry([0.91, 2.0], ["a", "b"])},
    "renamed, a little wider": {
        "other.value": BEFORE["found.value"],
        "other.lower": entry([0.91, 2.0], ["a", "b"]),
        "other.upper": BEFORE["found.upper"],
        "other.n": BEFORE["found.n"],
    },
    "taken apart": {name: array for name, array in BEFORE.items() if name != "found.value"}
    | {"one": entry([1.5, 4.5, 2.5], ["x", "y", "z"], "of")},
}
MOVED = {
    "in the last bit": BEFORE | {"found.value": entry([1.5000000000000002, 2.5], ["a", "b"])},
    "the labels exchanged": BEFORE | {"found.value": entry([1.5, 2.5], ["b", "a"])},
    "a row gone": BEFORE | {"found.value": entry([1.5], ["a"])},
    "gone": {name: array for name, array in BEFORE.items() if name != "found.value"},
    "no value any more": BEFORE | {"found.value": entry([1.5, float("nan")], ["a", "b"])},
    "much wider": BEFORE | {"found.lower": entry([0.89, 2.0], ["a", "b"])},
    "other counts": BEFORE | {"found.n": entry([8.0, 7.0], ["a", "b"])},
}


@pytest.mark.parametrize("numbers", UNMOVED.values(), ids=UNMOVED)
def test_the_same_numbers_are_found_again(compared: Any, numbers: dict[str, Any]) -> None:
    count, said = compared(numbers)
    assert count == 0, said


@pytest.mark.parametrize("numbers", MOVED.values(), ids=MOVED)
def test_other_numbers_are_told(compared: Any, numbers: dict[str, Any]) -> None:
    count, said = compared(numbers)
    assert count == 1
    assert "found." in said


def test_findings_are_compared_as_values_with_intervals(compared: Any) -> None:
    assert compared(BEFORE, (0.5, 0.24, 0.75))[0] == 0
    assert compared(BEFORE, (0.5, 0.15, 0.75))[0] == 1
    assert compared(BEFORE, (0.51, 0.25, 0.75))[0] == 1
