"""Folders of results are scored as released scripts leave them."""

import json
from pathlib import Path

import numpy as np
import pytest
from known_folders import write_pose
from test_evaluate_command import run_command

import mut3r_analysis as m3
from mut3r_analysis.errors import MissingFile
from mut3r_analysis.evaluation.folders import prediction_folders
from mut3r_analysis.metrics.catalogue import TUM_8
from mut3r_analysis.sequences import export_sequence


@pytest.fixture(scope="module")
def scene():
    return m3.open_sequence("scenes/orbit-03", stop=9).load()


def means(path: Path) -> dict[str, float]:
    held = json.loads(path.read_text(encoding="utf-8"))
    return {name: each["value"] for name, each in held["means"].items()}


def test_a_pose_run_is_pointed_at_as_it_lies_there(scene, tmp_path, capsys) -> None:
    results = tmp_path / "eval_results" / "relpose" / "tum_ours"
    for name in TUM_8:
        export_sequence(scene, tmp_path / "tum", "tum", name=name)
        write_pose(results / f"rgbd_dataset_{name}", scene["pose"].values[::3])
        (results / f"rgbd_dataset_{name}" / "pred_intrinsics.txt").unlink()
        (results / f"rgbd_dataset_{name}_eval_metric.txt").write_text("ATE ...")
        (results / f"rgbd_dataset_{name}.png").write_bytes(b"picture")
    (results / "_error_log.txt").write_text("tum-... | ATE: 0.1")
    (results / "unfinished").mkdir()
    words = ["--protocol", "pose:tum8-stride3-90:sim3", "--truth", f"tum:{tmp_path / 'tum'}"]
    files = ["--json", str(tmp_path / "s.json"), "--quaternion", "wxyz"]
    # Three of 90 frames each, so that is not the protocol's number, and it is said.
    assert run_command(str(results), *words, *files) == 1
    assert means(tmp_path / "s.json")["ate"] == pytest.approx(0, abs=1e-5)
    printed = capsys.readouterr().out
    assert "mean of 8" in printed
    assert "24 of 720 frames" in printed


def test_a_depth_run_of_more_sequences_gives_those_of_the_protocol(scene, tmp_path) -> None:
    results = tmp_path / "video_depth" / "sintel_ours"
    export_sequence(scene, tmp_path / "sintel", "sintel", name="alley_2")
    for name in ("alley_1", "alley_2"):
        (results / name).mkdir(parents=True)
        for index, plane in enumerate(scene["depth"].values):
            large = plane.repeat(8, axis=0).repeat(8, axis=1)
            np.save(results / name / f"frame_{index:04d}.npy", large)
    (results / "result_scale.json").write_text("{}")
    # alley_1 has no truth here; the list of 14 sequences does not have it, so nobody asks.
    words = [
        "--protocol",
        "video-depth:sintel14:metric",
        "--truth",
        f"sintel:{tmp_path / 'sintel'}",
    ]
    assert run_command(str(results), *words, "--json", str(tmp_path / "s.json")) == 1
    assert means(tmp_path / "s.json")["abs_rel"] == pytest.approx(0, abs=1e-6)


def test_single_frames_of_nyu_lie_in_one_folder(scene, tmp_path) -> None:
    results = tmp_path / "monodepth" / "nyu_ours"
    results.mkdir(parents=True)
    export_sequence(scene, tmp_path / "nyu", "nyu", name="val")
    for index, plane in enumerate(scene["depth"].values):
        # Each in units of its own, which a fit per frame undoes.
        large = plane.repeat(8, axis=0).repeat(8, axis=1) * (index + 1)
        np.save(results / f"{index:05d}depth.npy", large)
    words = ["--protocol", "mono-depth:nyu:scale_median", "--truth", f"nyu:{tmp_path / 'nyu'}"]
    assert run_command(str(results), *words, "--json", str(tmp_path / "s.json")) == 1
    found = means(tmp_path / "s.json")
    assert found["abs_rel"] == pytest.approx(0, abs=1e-6)
    assert found["delta_1"] == 1


def test_stores_of_runs_are_no_results_of_other_code(scene, tmp_path) -> None:
    store = tmp_path / "orbit.zarr"
    m3.run("random:small", scene.isel(frame=slice(0, 2)), out=store, progress=False)
    with pytest.raises(MissingFile, match="no predictions in a known layout"):
        prediction_folders(store)
    with pytest.raises(MissingFile, match="one folder per sequence"):
        prediction_folders(tmp_path / "nowhere")
