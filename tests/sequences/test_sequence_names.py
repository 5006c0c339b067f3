"""Names and paths find their sequence, or say what is near."""

import os
import subprocess
import sys
import types

import numpy as np
import pytest
from PIL import Image

from mut3r_analysis.errors import InvalidArgument, MissingFile
from mut3r_analysis.sequences import check_sequence, open_sequence
from mut3r_analysis.sequences.prefixes import OPENERS, split_prefix


@pytest.fixture
def toy(monkeypatch):
    """A prefix whose module records what it was asked for."""
    module = types.ModuleType("toy_sequences")
    module.asked = []

    def open_toy(rest):
        module.asked.append(rest)
        frames = np.arange(4, dtype=np.uint8)[:, None, None, None] * np.ones((1, 2, 2, 3), np.uint8)
        return open_sequence(frames, name=rest)

    module.open_toy = open_toy
    monkeypatch.setitem(sys.modules, "toy_sequences", module)
    monkeypatch.setitem(OPENERS, "toy", "toy_sequences:open_toy")
    return module


def test_a_prefix_is_opened_by_its_own_module(toy):
    sequence = open_sequence("toy:/data/set#clip", start=1, stride=2)
    assert toy.asked == ["/data/set#clip"]
    assert sequence.attrs["name"] == "/data/set#clip"
    assert sequence.frame.values.tolist() == [1, 3]
    assert sequence.image.values[:, 0, 0, 0].tolist() == [1, 3]


def test_digests_of_named_sequences_follow_the_frames_taken(toy):
    digests = {
        open_sequence("toy:clip", **selection).attrs["sha256"]
        for selection in ({}, {"stop": 2}, {"start": 2}, {"stride": 2})
    }
    assert len(digests) == 4
    assert open_sequence("toy:clip").attrs["sha256"] == toy.open_toy("clip").attrs["sha256"]


@pytest.mark.parametrize("name", ["scenes/{}", "scenes:{}"])
def test_bundled_scenes_open_by_name_with_their_truth(name):
    sequence = open_sequence(name.format("seed=7,frames=4,size=64x48"), stop=3)
    check_sequence(sequence)
    assert sequence.attrs["kind"] == "scenes"
    assert sequence.image.shape == (3, 48, 64, 3)
    assert {"depth", "pose", "intrinsics", "motion_mask"} <= set(sequence.data_vars)


@pytest.mark.parametrize(
    ("source", "parts"),
    [
        ("scenes/orbit-03", ("scenes", "orbit-03")),
        ("scenes:orbit-03", ("scenes", "orbit-03")),
        ("sintel:/data/sintel/training#alley_2", ("sintel", "/data/sintel/training#alley_2")),
        ("./scenes/orbit-03", None),
        ("frames/clip.mp4", None),
        (r"C:\frames", None),
        ("scenes", None),
    ],
)
def test_names_split_into_prefix_and_rest(source, parts):
    assert split_prefix(source) == parts


def test_an_unknown_prefix_lists_the_known_ones(toy):
    with pytest.raises(InvalidArgument, match=r'"sintell:" is not a known.*"scenes:".*"toy:"'):
        open_sequence("sintell:/data#alley_2")


def test_an_existing_path_is_never_taken_for_a_prefix(toy, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "toy:frames"
    folder.mkdir()
    Image.new("RGB", (4, 4)).save(folder / "0.png")
    assert open_sequence("toy:frames").attrs["kind"] == "images"
    assert toy.asked == []


def test_a_missing_path_suggests_near_names(tmp_path):
    (tmp_path / "static_room").mkdir()
    with pytest.raises(MissingFile, match=r"static_rom.*did you mean static_room\?"):
        open_sequence(tmp_path / "static_rom" / "rgb")
    with pytest.raises(MissingFile, match="holds no 'zzz'; check the path"):
        open_sequence(str(tmp_path / "zzz"))


def test_a_path_may_begin_at_home_or_be_relative(tmp_path, monkeypatch):
    Image.new("RGB", (4, 4)).save(tmp_path / "0.png")
    monkeypatch.setenv("HOME", str(tmp_path.parent))
    monkeypatch.chdir(tmp_path)
    assert open_sequence(f"~/{tmp_path.name}").attrs["name"] == tmp_path.name
    sequence = open_sequence(".")
    assert sequence.attrs["name"] == tmp_path.name
    monkeypatch.chdir("/")
    assert sequence.image.values.shape == (1, 4, 4, 3)


@pytest.mark.parametrize("name", ["данные", "größe", "日本"])
def test_a_path_in_a_declaration_is_found_in_any_locale(tmp_path, name):
    (tmp_path / name).mkdir()
    Image.new("RGB", (8, 6)).save(tmp_path / name / "0.png")
    text = f"backbone: tiny\nsequences: ['{tmp_path / name}']\ngrid: {{gate.beta: [1e-1, 2E0]}}\n"
    (tmp_path / "a.yaml").write_text(text, encoding="utf-8")
    code = (
        "import sys, mut3r_analysis as m3; "
        "from mut3r_analysis.sweeps.specification import read_specification; "
        "found = read_specification(sys.argv[1]); "
        "opened = m3.open_sequence(found['sequences'][0]); "
        "print(found['grid']['gate.beta'], opened.sizes['frame'], ascii(opened.attrs['name']))"
    )
    locale = {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"}
    done = subprocess.run(
        [sys.executable, "-c", code, tmp_path / "a.yaml"],
        capture_output=True, text=True, check=True, env={**os.environ, **locale},
    )  # fmt: skip
    assert done.stdout.strip() == f"[0.1, 2.0] 1 {name!a}"
