"""Static scenes and single frames: runs are scored under their protocols, or refused."""

import json
from dataclasses import replace

import numpy as np
import pytest
from known_runs import a_run, a_sequence

from mut3r_analysis.evaluation import evaluate
from mut3r_analysis.evaluation.tasks import SINGLE_FRAMES
from mut3r_analysis.metrics import protocol
from mut3r_analysis.metrics.reconstruction import unproject
from mut3r_analysis.running import run as run_backbone
from mut3r_analysis.scenes import open_scene


def with_points(sequence, scale=1.0, **fields):
    """A run whose world points are the true ones in the first camera, times a scale."""
    poses = sequence["pose"].values
    relative = np.linalg.inv(poses[0]) @ poses
    parts = (sequence["depth"].values, sequence["intrinsics"].values, relative)
    points = scale * np.stack([unproject(*each) for each in zip(*parts, strict=True)])
    return a_run(
        sequence,
        change=lambda p: p.assign(points_world=(("frame", "y", "x", "xyz"), points)),
        **fields,
    )


def test_true_points_in_other_units_have_no_error_under_the_protocol():
    sequence = a_sequence("room", 3, size=(12, 16))
    run = with_points(sequence, 0.1, truth=("depth", "pose", "intrinsics"))
    scores = evaluate(run, "default:multiview:median_icp")
    assert float(scores["mean_accuracy_mean"]) == pytest.approx(0, abs=1e-9)
    assert float(scores["mean_normal_consistency_mean"]) == pytest.approx(1, abs=1e-9)
    assert float(scores["pose_alignment_scale"][0]) == pytest.approx(10)
    assert int(scores["n_pixels"][0]) <= 3 * 12 * 16


def test_step_of_a_short_scene_depends_on_its_length():
    whole = a_sequence("room", 9, size=(384, 512)).assign_attrs(kind="nrgbd")
    one = protocol("multiview:nrgbd-stride500:median_icp-1cm")
    taken = whole.isel(frame=[0, 4, 8])
    run = with_points(taken, size=512, rule="crop")
    small = replace(one, id="mine", voxel=2.0)
    scores = evaluate(run, small, truth=whole)
    assert scores["n_frames"].values.tolist() == [3]
    with pytest.raises(Exception, match="depends on how many frames"):
        evaluate(run, small)
    with pytest.raises(Exception, match=r"frame number 1 of the run is 1 .* has 4"):
        evaluate(with_points(whole.isel(frame=[0, 1, 2]), size=512), small, truth=whole)


def test_frames_of_their_own_scale_have_no_error_one_by_one_and_have_together():
    sequence = a_sequence("shots", 4)
    scales = np.array([0.5, 1, 2, 4.0])[:, None, None]
    run = a_run(sequence, change=lambda p: p.assign(depth=p["depth"] * scales))
    alone = evaluate(run, "default:mono-depth:scale_median")
    assert float(alone["mean_abs_rel"]) == pytest.approx(0, abs=1e-12)
    np.testing.assert_allclose(alone["frame_alignment_scale"][0], 1 / scales.ravel())
    together = evaluate(run, "default:depth:scale_median")
    assert float(together["mean_abs_rel"]) > 0.3


def test_frames_weigh_by_their_valid_pixels():
    sequence = a_sequence("shots", 2)
    sequence["depth"].values[1, 2:] = 0
    error = np.where(np.arange(8) % 2, 1.1, 1 / 1.1)
    run = a_run(
        sequence,
        change=lambda p: p.assign(depth=p["depth"] * np.stack([np.ones(8), error])[:, None]),
    )
    scores = evaluate(run, "default:mono-depth:scale_median")
    parts = scores["frame_abs_rel"][0].values
    pixels = scores["frame_pixels"][0].values
    assert float(scores["abs_rel"][0]) == pytest.approx((parts * pixels).sum() / pixels.sum())
    assert parts[0] == pytest.approx(0)
    assert len(set(pixels.tolist())) == 2


def test_a_run_that_carries_its_memory_is_no_run_of_single_frames():
    scene = open_scene("orbit-03").isel(frame=slice(0, 2))
    asked = {"outputs": ("pose", "depth"), "progress": False}
    alone = run_backbone("tiny", scene, commit=SINGLE_FRAMES, **asked)
    first, second = (run_backbone("tiny", scene.isel(frame=[i]), **asked) for i in (0, 1))
    np.testing.assert_array_equal(alone["prediction/depth"][1], second["prediction/depth"][0])
    assert evaluate(alone, "default:mono-depth:scale_median").attrs["n_valid"] == 1
    assert evaluate(first, "default:mono-depth:scale_median").attrs["n_valid"] == 1
    for commit in ("rw.gg", "rw.gg reset.1"):
        carried = run_backbone("tiny", scene, commit=commit, **asked)
        assert json.loads(carried.attrs["commit"])["reset_pose"] is None
        with pytest.raises(Exception, match="predicted one by one"):
            evaluate(carried, "default:mono-depth:scale_median")
