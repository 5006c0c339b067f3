"""Paths as people write them, at every door."""

import os
from pathlib import Path

import pytest

import mut3r_analysis as m3
from mut3r_analysis.errors import InvalidArgument
from mut3r_analysis.foundation.paths import user_path

DOORS = {
    "sequence": m3.open_sequence,
    "data set": lambda path: m3.open_sequence(f"tum:{path}"),
    "option of a data set": lambda path: m3.open_sequence(f"tum:{path}?pass=clean"),
    "run": m3.open_run,
    "backbone": m3.load_backbone,
    "sweep": lambda path: m3.sweep("tiny", "scenes/orbit-03", configurations=[{}], out=path),
    "trajectory": m3.metrics.read_trajectory,
    "store": lambda path: m3.run(
        "random:small", m3.open_sequence("scenes/orbit-03"), out=path, progress=False
    ),
}


WRONG = {
    "~no\0body": "null character",
    "clip\0": "null character",
    "\0": "null character",
    "x" * 5000: "too long",
    "/".join(["folder"] * 2000): "too long",
}


@pytest.mark.parametrize("path", WRONG, ids=range(len(WRONG)))
@pytest.mark.parametrize("door", DOORS.values(), ids=DOORS)
def test_what_no_path_can_be_is_told_in_words(door, path) -> None:
    with pytest.raises(InvalidArgument, match=WRONG[path]) as told:
        door(path)
    assert len(str(told.value)) < 1000


def test_a_tilde_is_the_home_folder_and_no_more_than_a_name_elsewhere(monkeypatch) -> None:
    monkeypatch.setenv("HOME", os.path.join(os.sep, "home", "somebody"))
    assert user_path("~/clips") == Path("/home/somebody/clips")
    assert user_path("~nobody-of-that-name/clips") == Path("~nobody-of-that-name/clips")
    assert user_path("a/~") == Path("a/~")
