"""Examples in docstrings do what they say."""

import doctest
import inspect
import sys

import numpy as np
import pytest

import mut3r_analysis as m3

FIRST_HOUR = {
    "Capture", "evaluate", "load_backbone", "open_run", "open_sequence", "paired", "run", "table",
}  # fmt: skip
"""Names whose docstrings must have an example."""


def examples(name: str) -> doctest.DocTest:
    found = getattr(m3, name)
    names = vars(sys.modules[found.__module__]) | {"m3": m3, "np": np}
    return doctest.DocTestParser().get_doctest(inspect.getdoc(found), names, name, None, None)


WITH_EXAMPLES = [
    name for name in sorted(m3.__all__) if callable(getattr(m3, name)) and examples(name).examples
]


def test_what_the_first_hour_needs_has_an_example():
    assert set(WITH_EXAMPLES) >= FIRST_HOUR


@pytest.mark.parametrize("name", WITH_EXAMPLES)
def test_the_example_of_a_public_name_runs(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    said: list[str] = []
    flags = doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS
    result = doctest.DocTestRunner(optionflags=flags).run(examples(name), out=said.append)
    assert result.attempted
    assert not result.failed, "".join(said)
