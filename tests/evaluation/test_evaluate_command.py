"""``mut3r evaluate``: a table to read, files for programs, a status for scripts."""

import argparse
import csv
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from known_folders import FRAMES, depth_maps, write_demo, write_pose
from known_runs import a_run, a_sequence, camera_path
from rich.console import Console

import mut3r_analysis as m3
from mut3r_analysis.cli import main
from mut3r_analysis.errors import InvalidArgument
from mut3r_analysis.evaluation import command, evaluate, table
from mut3r_analysis.evaluation.report import print_scores
from mut3r_analysis.evaluation.tables import format_value, record


@pytest.fixture(scope="module")
def stores(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    folder = tmp_path_factory.mktemp("runs")
    backbone = m3.load_backbone("random:small")
    paths = []
    for name in ("orbit-01", "orbit-03"):
        paths.append(str(folder / f"{name}.zarr"))
        sequence = m3.open_sequence(f"scenes/{name}", stop=5)
        m3.run(backbone, sequence, out=paths[-1], progress=False)
    return paths


def run_command(*words: str) -> int:
    parser = argparse.ArgumentParser()
    command.add_parser(parser.add_subparsers())
    args = parser.parse_args(["evaluate", *words])
    return args.run(args)


def test_runs_are_printed_and_written(stores, tmp_path: Path, capsys) -> None:
    files = [tmp_path / "new" / name for name in ("s.csv", "f.csv", "s.json")]
    words = zip(("--csv", "--csv-frames", "--json"), map(str, files), strict=True)
    assert run_command(*stores, *(word for pair in words for word in pair)) == 0
    printed = capsys.readouterr().out
    for word in ("default:depth:scale_median", "orbit-01", "mean of 2", "ate", "too few"):
        assert word in printed
    with files[0].open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [row["sequence"] for row in rows] == ["orbit-01", "orbit-03", "mean", "lower", "upper"]
    with files[1].open(newline="", encoding="utf-8") as file:
        assert len(list(csv.DictReader(file))) == 10
    held = json.loads(files[2].read_text(encoding="utf-8"))
    assert held["protocol"] == "default"
    assert held["means"]["ate"]["value"] == pytest.approx(float(rows[2]["ate"]))
    assert held["sequences"]["orbit-03"]["n_frames"] == 5
    assert len(held["runs"]) == 2


def test_systems_are_told_apart_by_name(stores, tmp_path: Path, monkeypatch, capsys) -> None:
    out = tmp_path / "beta=2.zarr"
    sequence = m3.open_sequence("scenes/orbit-03", stop=5)
    gating = {"cue": m3.Cue.mut3r(), "gate": m3.Gate.mut3r(beta=2.0)}
    gated = m3.run("random:small", sequence, **gating, out=out, progress=False)
    files = [tmp_path / name for name in ("s.csv", "s.json")]
    pattern = str(Path(stores[0]).parent / "*.zarr")
    words = [f"plain={pattern}", f"gated={out}", "--csv", str(files[0]), "--json", str(files[1])]
    assert run_command(*words) == 0
    printed = capsys.readouterr().out
    for word in ("plain", "gated", "mean of 2", "mean of 1", "gated: too few"):
        assert word in printed
    assert printed.count("default:depth:scale_median") == 1
    with files[0].open(newline="", encoding="utf-8") as file:
        rows = {(row["run"], row["sequence"]): row for row in csv.DictReader(file)}
    assert ("plain", "orbit-01") in rows
    assert ("gated", "orbit-01") not in rows
    alone = evaluate(gated)
    assert float(rows["gated", "orbit-03"]["abs_rel"]) == pytest.approx(alone["abs_rel"].item())
    held = json.loads(files[1].read_text(encoding="utf-8"))
    assert held["gated"]["means"]["ate"]["value"] == pytest.approx(float(alone["mean_ate"]))
    with pytest.raises(InvalidArgument, match=r"beta=2.zarr has no name, and other runs have one"):
        run_command(f"plain={stores[1]}", str(out))
    with pytest.raises(InvalidArgument, match=r"NAME=RUN on the command line"):
        run_command(stores[1], str(out))
    monkeypatch.chdir(tmp_path)
    assert run_command("beta=2.zarr") == 0


def test_nothing_valid_is_a_failure_that_says_why(stores, monkeypatch, capsys) -> None:
    monkeypatch.setattr(
        sys.modules["mut3r_analysis.cli.main"], "_COMMANDS", ("mut3r_analysis.evaluation.command",)
    )
    assert main(["evaluate", *stores]) == 0
    capsys.readouterr()
    assert main(["evaluate", *stores, "--protocol", "pose:sintel14:sim3"]) == 1
    printed = capsys.readouterr()
    assert not printed.out
    assert "orbit-01 is not among the sequences of pose:sintel14:sim3" in printed.err
    assert main(["evaluate", *stores, "--protocol", "pose:sintle"]) == 1
    assert "did you mean pose:sintel14:sim3?" in capsys.readouterr().err
    assert main(["evaluate", "nowhere.zarr"]) == 1


def test_folders_of_other_code_are_scored_with_a_layout(tmp_path: Path, capsys) -> None:
    write_demo(tmp_path / "orbit-03", depth_maps(), camera_path(FRAMES))
    with pytest.raises(InvalidArgument, match="the sequence 24"):
        run_command(str(tmp_path / "orbit-03"), "--layout", "auto", "--truth", "scenes/orbit-03")
    sequence = m3.open_sequence("scenes/orbit-03")
    write_demo(tmp_path / "all" / "orbit-03", sequence["depth"].values, sequence["pose"].values)
    words = ["--layout", "auto", "--truth", "scenes/orbit-03", "--json", str(tmp_path / "s.json")]
    assert run_command(str(tmp_path / "all" / "orbit-03"), *words) == 0
    held = json.loads((tmp_path / "s.json").read_text(encoding="utf-8"))
    assert held["means"]["abs_rel"]["value"] == pytest.approx(0, abs=1e-6)
    assert held["means"]["ate"]["value"] == pytest.approx(0, abs=1e-6)
    with pytest.raises(InvalidArgument, match="belong to predictions of other code"):
        run_command("run.zarr", "--quaternion", "wxyz")


def test_what_was_skipped_is_printed_with_its_reason(capsys) -> None:
    still = a_sequence("still")
    still["pose"].values[:] = np.eye(4)
    scores = evaluate([a_run(a_sequence()), a_run(still)], "default:pose:sim3")
    print_scores(scores, Console(width=100))
    printed = capsys.readouterr().out
    assert "skipped still: " in printed
    assert "mean of 1" in printed
    assert record(scores)["sequences"]["still"]["ate"] is None
    assert table(scores).loc["still", "skipped"]


def test_tables_have_a_row_per_sequence_or_per_frame() -> None:
    scores = evaluate([a_run(a_sequence("a", 4)), a_run(a_sequence("b", 6))])
    rows = table(scores)
    assert rows.index.tolist() == ["a", "b", "mean", "lower", "upper"]
    assert rows.loc["mean", "n_frames"] == 10
    assert rows.attrs["units"]["rpe_rotation"] == "degree"
    assert "<table" in rows._repr_html_()
    frames = table(scores, per="frame")
    assert frames.loc["b"].index.tolist() == [0, 1, 2, 3, 4, 5]
    assert len(frames) == 10
    with pytest.raises(InvalidArgument, match="one of sequence, frame"):
        table(scores, per="pixel")


def test_numbers_are_written_so_that_small_ones_are_seen() -> None:
    assert [format_value(v) for v in (0.0, 0.12345, 2e-5, float("nan"))] == [
        "0.0000", "0.1235", "2e-05", "–",
    ]  # fmt: skip


def test_the_parser_is_made_without_importing_what_computes() -> None:
    code = (
        "import sys, mut3r_analysis.evaluation.command, mut3r_analysis.cli.trajectory;"
        "print(sorted({'numpy', 'scipy', 'xarray', 'pandas', 'torch', 'rich'} & set(sys.modules)))"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


def test_a_data_set_on_disk_gives_the_truth_of_published_protocols(tmp_path: Path, capsys) -> None:
    scene = m3.open_sequence("scenes/orbit-03", stop=4)
    m3.sequences.export_sequence(scene, tmp_path / "sintel", "sintel", name="alley_2")
    folder = tmp_path / "depth" / "alley_2"
    folder.mkdir(parents=True)
    for index, plane in enumerate(scene["depth"].values):
        # 8 x 8 equal pixels, whose bicubic resize to the truth's 64 x 48 is exact.
        np.save(folder / f"frame_{index:04d}.npy", plane.repeat(8, axis=0).repeat(8, axis=1))
    words = ["--layout", "auto", "--truth", f"sintel:{tmp_path / 'sintel'}"]
    files = ["--json", str(tmp_path / "depth.json")]
    depth = ["--protocol", "video-depth:sintel23:metric"]
    # One sequence is not the protocol's number: shown, and not called done.
    assert run_command(str(folder), *words, *depth, *files) == 1
    held = json.loads((tmp_path / "depth.json").read_text(encoding="utf-8"))
    assert held["means"]["abs_rel"]["value"] == pytest.approx(0, abs=1e-6)
    assert held["n_valid"] == 1
    assert len(held["missing"].split(", ")) == 22
    printed = capsys.readouterr().out
    assert "missing: alley_1" in printed
    assert "4 of 1064 frames, 1 of 23 sequences (alley_2 has 4 of 50): not this protocol" in printed


def test_a_tum_recording_gives_the_frames_and_the_truth_of_its_protocol(
    tmp_path: Path, capsys
) -> None:
    scene = m3.open_sequence("scenes/orbit-03")
    name = "freiburg3_walking_xyz"
    m3.sequences.export_sequence(scene, tmp_path / "tum", "tum", name=name)
    folder = tmp_path / "pose" / f"rgbd_dataset_{name}"
    write_pose(folder, scene["pose"].values[::3])
    (folder / "pred_intrinsics.txt").unlink()
    protocol = ["--protocol", "pose:tum8-stride3-90:sim3", "--json", str(tmp_path / "pose.json")]
    truth = ["--layout", "cut3r-pose", "--truth", f"tum:{tmp_path / 'tum'}"]
    assert run_command(str(folder), *truth, *protocol, "--quaternion", "wxyz") == 1
    held = json.loads((tmp_path / "pose.json").read_text(encoding="utf-8"))
    assert held["means"]["ate"]["value"] == pytest.approx(0, abs=1e-5)
    assert held["sequences"][name]["n_frames"] == 8
    assert held["runs"][0]["imported"]["quaternion_evidence"] == "declared"
