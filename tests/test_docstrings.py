"""Every public function has an example in its docstring, and examples do what they say."""

import doctest
import inspect
import sys
from types import ModuleType
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pytest

import mut3r_analysis as m3


def public() -> dict[str, Any]:
    """Functions and classes by the name under which they are used, each once."""
    rooms = [each for name in m3.__all__ if isinstance(each := getattr(m3, name), ModuleType)]
    found = {f"m3.{name}": getattr(m3, name) for name in m3.__all__}
    for room in rooms:
        known = set(map(id, found.values()))
        label = room.__name__.replace("mut3r_analysis", "m3")
        names = room.__all__ if hasattr(room, "__all__") else []
        found |= {
            f"{label}.{name}": each
            for name in names
            if id(each := getattr(room, name)) not in known
        }
    return {name: each for name, each in found.items() if callable(each)}


PUBLIC = public()
FUNCTIONS = [name for name, each in PUBLIC.items() if inspect.isroutine(each)]
DECLARED = ["m3.Capture", "m3.Cue", "m3.Gate", "m3.Patch", "m3.Tokens", "m3.Configuration"]
"""Classes that are made by hand, which an example shows."""
EXPLORERS = [f"m3.widgets.{name}" for name in m3.widgets.__all__ if name[0].isupper()]


def examples(name: str, given: dict[str, Any] | None = None) -> doctest.DocTest:
    found = PUBLIC[name]
    names = (given or {}) | vars(sys.modules[found.__module__]) | {"m3": m3, "np": np}
    return doctest.DocTestParser().get_doctest(inspect.getdoc(found), names, name, None, None)


@pytest.fixture(scope="module")
def given() -> dict[str, Any]:
    """What examples may use without making it: a sequence, a plain run of it and a gated one."""
    sequence = m3.open_sequence("scenes/orbit-03", stop=3)
    capture = m3.Capture(statistics=["entropy", "received"], state=True)
    cue, gate = m3.Cue.mut3r(), m3.Gate.mut3r()
    run = m3.run("tiny", sequence, capture=capture, progress=False)
    gated = m3.run("tiny", sequence, cue=cue, gate=gate, capture=capture, progress=False)
    return {"sequence": sequence, "run": run, "gated": gated}


def test_every_public_function_has_an_example() -> None:
    assert len(FUNCTIONS) > 80
    named = [*FUNCTIONS, *DECLARED, *EXPLORERS]
    assert [name for name in named if not examples(name).examples] == []


@pytest.mark.parametrize("name", [name for name in PUBLIC if examples(name).examples])
def test_the_example_of_a_public_name_runs(name, given, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    said: list[str] = []
    flags = doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS
    result = doctest.DocTestRunner(optionflags=flags).run(examples(name, given), out=said.append)
    plt.close("all")
    assert result.attempted
    assert not result.failed, "".join(said)
