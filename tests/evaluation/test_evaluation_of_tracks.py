"""Tracks are scored of real runs: on scenes along their flow, on DyCheck at its keypoints."""

from dataclasses import replace

import numpy as np
import pytest

import mut3r_analysis as m3
from mut3r_analysis.backbones import CUT3RConfig
from mut3r_analysis.backbones.random_weights import NAMED_CONFIGS, random_backbone
from mut3r_analysis.cli import main
from mut3r_analysis.metrics import UndefinedMetric, protocol, score_tracks

OUTPUTS = ("pose", "points_world")
KEYPOINTS = "tracks:dycheck-keypoints:sim3"


@pytest.fixture(scope="module")
def run_of_scene(tmp_path_factory):
    out = tmp_path_factory.mktemp("runs") / "run.zarr"
    scene = m3.open_sequence("scenes/orbit-03", stop=5)
    return m3.run("tiny", scene, outputs=OUTPUTS, out=out, progress=False), scene, out


def test_a_run_of_a_scene_is_scored_along_its_flow(run_of_scene, capsys):
    run, scene, out = run_of_scene
    scores = m3.evaluate(run, "default:tracks:sim3", truth=scene)
    prediction = run["prediction"].to_dataset()
    own = score_tracks(scene, prediction)
    for name in protocol("default:tracks:sim3").metrics:
        assert float(scores[f"mean_{name}"]) == pytest.approx(float(own[name]), rel=1e-9)
    assert float(scores["mean_track_error"]) > 0
    assert scores["n_pixels"].item() == int(own["points"]) > 4000
    words = ["evaluate", str(out), "--protocol", "default:tracks:sim3"]
    assert main([*words, "--truth", "scenes/orbit-03"]) == 0
    assert "track_within_5cm" in capsys.readouterr().out
    with pytest.raises(UndefinedMetric, match="pass truth="):
        m3.evaluate(run, "default:tracks:sim3")
    with pytest.raises(UndefinedMetric, match="neither track_pixel and track_visible nor flow"):
        m3.evaluate(run, "default:tracks:sim3", truth=scene.drop_vars("flow"))


def test_keypoints_of_dycheck_are_scored_in_metres(tmp_path):
    scene = m3.open_sequence("scenes/orbit-03", stop=4)
    pixels = np.random.default_rng(0).uniform(8, (55, 39), (4, 6, 2))
    seen = np.ones((4, 6), bool)
    pixels[2], seen[2] = np.nan, False
    tracked = scene.assign(track_pixel=(("frame", "track", "uv"), pixels),
                           track_visible=(("frame", "track"), seen))  # fmt: skip
    name = m3.export_sequence(tracked, tmp_path / "data", "dycheck")
    small = NAMED_CONFIGS["small"]
    assert isinstance(small, CUT3RConfig)
    model = random_backbone(replace(small, img_size=(512, 512), patch_size=16, rgb_head=False))
    run = m3.run(model, m3.open_sequence(name), protocol=KEYPOINTS, progress=False)
    scores = m3.evaluate(run, KEYPOINTS, truth=f"{name}?depth=lidar")
    # Three frames with keypoints make nine pairs of six points.
    assert scores["n_pixels"].item() == 9 * 6
    assert np.isfinite(float(scores["mean_track_error"]))
    assert float(scores["mean_scene_flow_error"]) > 0
    with pytest.raises(UndefinedMetric, match=r"\?depth=lidar"):
        m3.evaluate(run, KEYPOINTS, truth=name)
