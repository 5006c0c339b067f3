"""``mut3r sweep``: declared in a file, priced, run, reported."""

import pytest
from PIL import Image

from mut3r_analysis.cli import main
from mut3r_analysis.errors import InvalidArgument, MissingFile, UnreadableFile
from mut3r_analysis.motion import Cue, Gate
from mut3r_analysis.sweeps.specification import read_specification

SPECIFICATION = """
backbone: tiny
sequences: [scenes/orbit-03]
frames: "0:3"
outputs: [pose, depth]
cue: mut3r
grid:
  gate: {none: null, mut3r: mut3r, keys: {image_self: key_bias}}
  gate.beta: [0.5, 2.0]
"""


@pytest.fixture
def specification(tmp_path):
    path = tmp_path / "sweep.yaml"
    path.write_text(SPECIFICATION)
    return path


def test_a_file_reads_as_the_arguments_of_a_sweep(specification):
    found = read_specification(specification)
    assert found["cue"] == Cue.mut3r()
    gates = found["grid"]["gate"]
    assert gates == {"none": None, "mut3r": Gate.mut3r(), "keys": Gate(image_self="key_bias")}
    assert found["grid"]["gate.beta"] == [0.5, 2.0]


def test_a_sweep_is_priced_run_and_reported(specification, tmp_path, capsys):
    out = str(tmp_path / "out")
    assert main(["sweep", str(specification), "--out", out, "--plan"]) == 0
    # two of the six cells have no gate and are one run
    assert "5 runs in 1 units, 0 done" in capsys.readouterr().out
    assert not (tmp_path / "out").exists()
    assert main(["sweep", str(specification), "--out", out, "--quiet"]) == 0
    printed = capsys.readouterr().out
    assert "6 done" in printed
    assert "rpe_rotation" in printed
    assert "n_pixels" not in printed
    rows = (tmp_path / "out" / "table.csv").read_text().splitlines()
    assert len(rows) == 1 + 6
    assert main(["sweep", "--out", out, "--status"]) == 0
    assert "6 done" in capsys.readouterr().out
    assert main(["sweep", str(specification), "--out", out, "--plan"]) == 0
    assert "5 done, 0 left" in capsys.readouterr().out


def test_a_run_that_failed_is_named_and_decides_the_exit_status(tmp_path, capsys):
    (tmp_path / "clip").mkdir()
    for frame in range(2):
        Image.new("RGB", (64, 48)).save(tmp_path / "clip" / f"{frame}.png")
    path = tmp_path / "sweep.yaml"
    path.write_text(
        f"backbone: tiny\nsequences: [scenes/orbit-03, {tmp_path / 'clip'}]\nframes: '0:2'\n"
        "outputs: [pose]\ncue: {reading: mask, normaliser: raw}\ngate: mut3r\n"
        f"out: {tmp_path / 'out'}\n"
    )
    status = main(["sweep", str(path), "--quiet"])
    printed = capsys.readouterr().out
    assert status == 1
    assert "1 done, 1 failed" in printed
    assert "motion_mask" in printed


@pytest.mark.parametrize(
    ("text", "error", "words"),
    [
        ("sequences: [a]", InvalidArgument, "backbone"),
        ("- a", InvalidArgument, "named values"),
        ("backbone: tiny\nsequences: [a]\nbetas: [1]", InvalidArgument, "betas"),
        ("backbone: tiny\nsequences: [a]\ngate: strong", InvalidArgument, "easi3r"),
        ("backbone: tiny\nsequences: [a]\ncapture: all", InvalidArgument, "named values"),
        ("a: [", UnreadableFile, "cannot read"),
    ],
)
def test_a_file_that_declares_no_sweep_is_refused(tmp_path, text, error, words):
    path = tmp_path / "sweep.yaml"
    path.write_text(text)
    with pytest.raises(error, match=words):
        read_specification(path)


def test_what_is_missing_is_named(tmp_path, capsys):
    with pytest.raises(MissingFile):
        read_specification(tmp_path / "nothing.yaml")
    assert main(["sweep", "--status"]) == 1
    assert "--out" in capsys.readouterr().err
    assert main(["sweep", "--out", str(tmp_path)]) == 1
    assert "YAML" in capsys.readouterr().err
