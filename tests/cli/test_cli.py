"""The command line does what the package does, and fails in one clear line."""

import contextlib
import re
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import mut3r_analysis as m3
from mut3r_analysis.cli import main
from mut3r_analysis.cli.main import as_options
from mut3r_analysis.errors import InvalidArgument
from mut3r_analysis.motion import Cue, Gate
from mut3r_analysis.running import inputs
from mut3r_analysis.sequences.frames import Selection


@pytest.fixture
def frames(tmp_path):
    folder = tmp_path / "frames"
    folder.mkdir()
    for t in range(4):
        noise = np.random.default_rng(t).integers(0, 256, (48, 64, 3), dtype=np.uint8)
        Image.fromarray(noise).save(folder / f"{t}.png")
    return str(folder)


def test_run_and_open(frames, tmp_path, capsys):
    out = str(tmp_path / "run.zarr")
    arguments = ["--backbone", "random:small", "--statistics", "entropy", "--layers", "0:2"]
    assert main(["run", frames, *arguments, "--frames", "0:4:2", "--out", out, "--quiet"]) == 0
    printed = capsys.readouterr().out
    assert "2 frames in" in printed
    assert "random weights" in printed
    run = m3.open_run(out)
    assert run["attention/image_self/entropy"].sizes["layer"] == 2
    assert list(run["prediction"].frame.values) == [0, 2]


def test_run_without_capture(frames, tmp_path):
    out = str(tmp_path / "run.zarr")
    arguments = ["--backbone", "random:small", "--statistics", "--outputs", "pose"]
    assert main(["run", frames, *arguments, "--out", out, "--quiet"]) == 0
    assert "attention" not in m3.open_run(out).children


def test_warnings_are_in_the_words_of_the_command(frames, capsys):
    inputs._announce.cache_clear()
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        assert main(["plan", frames, "--backbone", "tiny"]) == 0
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("mut3r: warning: 'tiny' is a specimen")


def test_plan_writes_nothing(frames, tmp_path, capsys):
    before = sorted(tmp_path.rglob("*"))
    assert main(["plan", frames, "--backbone", "random:small"]) == 0
    assert "FLOP per frame" in capsys.readouterr().out
    assert sorted(tmp_path.rglob("*")) == before


def test_doctor_checks_parity(capsys):
    assert main(["doctor"]) == 0
    printed = capsys.readouterr().out
    assert "matches the official implementation" in printed
    assert "torch" in printed


def test_doctor_fails_when_numbers_differ(capsys, monkeypatch):
    from mut3r_analysis.backbones import parity

    monkeypatch.setattr(parity, "parity", lambda: [parity.Agreement("pose", float("nan"), 1e-5)])
    assert main(["doctor"]) == 1
    assert "does NOT match" in capsys.readouterr().out


def test_convert(tmp_path, capsys):
    from mut3r_analysis.backbones import write_checkpoint

    backbone = m3.load_backbone("random:small")
    source, target = tmp_path / "a.safetensors", tmp_path / "b.safetensors"
    write_checkpoint(source, backbone.state_dict(), backbone.config)
    assert main(["convert", str(source), str(target), "--dtype", "float16"]) == 0
    assert "wrote" in capsys.readouterr().out
    assert target.stat().st_size < 0.6 * source.stat().st_size
    assert m3.load_backbone(target).config == backbone.config


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["run", "nowhere", "--out", "x.zarr"], "does not exist"),
        (["plan", "{frames}", "--backbone", "tinny"], "no checkpoint 'tinny'"),
        (["run", "scenes/orbit-03", "--backbone", "random:small", "--out", "x.zarr",
          "--protocol", "pose:sintel14:sim3"], "the sequence is of 'scenes'"),
        (["plan", "{frames}", "--backbone", "random:small", "--protocol", "pose:sintle14:sim3"],
         "did you mean pose:sintel14:sim3?"),
        (["plan", "{frames}", "--backbone", "random:small", "--frames", "a:b"], "START:STOP"),
        (["plan", "{frames}", "--backbone", "random:small", "--layers", "3"], "half-open range"),
        (["plan", "{frames}", "--backbone", "random:small", "--sites", "self"], "image_self"),
        (["convert", "no.pth", "b.safetensors"], "no checkpoint at no.pth"),
    ],
)  # fmt: skip
def test_errors_are_one_line_and_exit_with_1(frames, capsys, arguments, message):
    assert main([argument.format(frames=frames) for argument in arguments]) == 1
    error = capsys.readouterr().err
    assert error.startswith("mut3r: error: ")
    assert message in error
    assert "Traceback" not in error


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["doctr"], "did you mean 'doctor'?"),
        (["run", "frames", "--out", "x.zarr", "--stop", "8"], "--frames START:STOP:STRIDE"),
        (["evaluate", "x.zarr", "--protocl", "default"], "did you mean '--protocol'?"),
        (["train", "--recipe", "tinny"], "no recipe 'tinny' (did you mean 'tiny'?); bundled are"),
    ],
)
def test_a_wrong_name_is_answered_with_the_one_that_is_meant(arguments, said, capsys):
    with contextlib.suppress(SystemExit):  # argparse's own way out
        assert main(arguments) == 1
    assert said in capsys.readouterr().err


def test_the_truth_that_is_lacking_is_asked_for_as_an_option(frames, tmp_path, capsys):
    store = str(tmp_path / "run.zarr")
    assert main(["run", str(frames), "--backbone", "random:small", "--out", store, "--quiet"]) == 0
    assert main(["evaluate", store]) == 1
    said = capsys.readouterr().err
    assert "pass --truth, a sequence that does" in said
    assert "truth=" not in said


def test_what_the_library_says_of_its_arguments_is_said_of_options():
    told = {
        "run again with outputs=('pose', 'depth')": "run again with --outputs pose depth",
        "run it with commit='rw.gg reset.1'": "run it with --commit 'rw.gg reset.1'",
        "name it with out=": "name it with --out",
        "go on with resume=True": "go on with --resume",
        "depth=1 of a file": "depth=1 of a file",
        "in Python replace(one, out='x') does": "in Python replace(one, out='x') does",
    }
    known = ("outputs", "commit", "out", "resume")
    assert {said: as_options(said, known) for said in told} == told


def test_help_names_every_verb(capsys):
    with pytest.raises(SystemExit):
        main(["--help"])
    printed = capsys.readouterr().out
    for verb in ("run", "plan", "convert", "doctor", "demo"):
        assert verb in printed


@pytest.mark.parametrize(
    ("text", "parts"), [("::", (0, None, 1)), ("3:", (3, None, 1)), ("2:9:3", (2, 9, 3))]
)
def test_frame_ranges(text, parts):
    assert Selection.parse(text) == Selection(*parts)
    with pytest.raises(InvalidArgument):
        Selection.parse("5")


def test_gates_are_options(frames, tmp_path, capsys):
    out = tmp_path / "gated.zarr"
    arguments = ["run", frames, "--backbone", "random:small", "--out", str(out), "--quiet"]
    cue = Cue(reading="entropy", layers=(0, 2))
    gating = ["--cue", cue.to_json(), "--gate", "mut3r", "--beta", "2", "--commit", "rw.gp"]
    assert main([*arguments, "--outputs", "pose", *gating]) == 0
    run = m3.open_run(out)
    assert Cue.from_json(run.attrs["cue"]) == cue
    assert Gate.from_json(run.attrs["gate"]) == Gate.mut3r(beta=2.0)
    assert "gp" in str(m3.Configuration.of_run(run.attrs).commit)
    assert run["cue/motion"].dims == ("frame", "patch_row", "patch_col")


@pytest.mark.parametrize(
    ("gating", "words"),
    [
        (["--gate", "strong"], "easi3r"),
        (["--beta", "2"], "--gate"),
        (["--gate", "mut3r", "--beta", "-1"], "beta"),
        (["--commit", "rw.gp"], "gate"),
        (["--cue", '{"reading": "weight_key_mean"}'], "contrast"),
    ],
)
def test_gates_that_cannot_mean_anything_are_refused(frames, tmp_path, capsys, gating, words):
    out = tmp_path / "gated.zarr"
    assert main(["run", frames, "--backbone", "random:small", "--out", str(out), *gating]) == 1
    assert words in capsys.readouterr().err
    assert not out.exists()


def test_the_command_is_installed():
    done = subprocess.run(
        [sys.executable, "-m", "mut3r_analysis", "--version"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.startswith("mut3r ")


def test_a_demo_that_cannot_start_leaves_what_an_earlier_one_made(tmp_path, capsys):
    store = tmp_path / "quickstart.zarr"
    sequence = m3.open_sequence(np.zeros((1, 48, 64, 3), np.uint8))
    m3.run(m3.load_backbone("tiny"), sequence, outputs=("pose",), out=store, progress=False)
    for arguments in (["--backbone", "nobody"], ["--sequence", "nowhere"]):
        assert main(["demo", "--out", str(tmp_path), *arguments]) == 1
        assert arguments[1] in capsys.readouterr().err
    assert m3.open_run(store).attrs["complete"]


def test_scores_are_printed_before_a_file_that_cannot_be_written(tmp_path, capsys):
    sequence = m3.open_sequence("scenes/orbit-03", stop=3)
    store = tmp_path / "run.zarr"
    m3.run(m3.load_backbone("tiny"), sequence, outputs=("pose",), out=store, progress=False)
    assert main(["evaluate", str(store), "--csv", str(tmp_path)]) == 1
    printed = capsys.readouterr()
    assert "orbit-03" in printed.out
    assert printed.err.startswith("mut3r: error: ")


def test_a_deep_report_tries_the_machine_and_names_nobody(capsys, monkeypatch):
    from mut3r_analysis.backbones import parity

    monkeypatch.setattr(parity, "parity", list)
    assert main(["doctor", "--deep"]) == 0
    printed = capsys.readouterr().out
    for tried in ("kernels, cpu", "a run, cpu", "storage", "a killed run"):
        assert re.search(rf"{tried} .*  ok\n", printed), printed
    assert "then as if never killed" in printed
    assert str(Path.home()) not in printed


def test_a_deep_report_says_what_is_wrong(monkeypatch):
    from mut3r_analysis.cli import deep

    def broken(device):
        raise OSError(f"no space left in {Path.home()}/runs")

    monkeypatch.setattr(deep, "_trials", lambda folder: iter([("storage", lambda: broken("cpu"))]))
    (finding,) = deep.examine()
    assert not finding.holds
    assert finding.found.startswith("OSError: no space left in ~/runs")
