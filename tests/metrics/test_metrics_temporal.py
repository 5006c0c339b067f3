"""The temporal alignment error is what depth disagrees with itself by, and nothing else."""

from itertools import pairwise

import numpy as np
import pytest
import xarray as xr

import mut3r_analysis as m3
from mut3r_analysis.metrics import UndefinedMetric, score_temporal

NEEDED = ["depth", "pose", "intrinsics"]


@pytest.fixture(scope="module")
def resting():
    return m3.open_sequence("scenes:seed=7,movers=0", stop=6)[NEEDED].load()


@pytest.fixture(scope="module")
def moving():
    return m3.open_sequence("scenes/orbit-03", stop=6)[NEEDED].load()


def flat(depths, steps, size=(24, 32)):
    """A wall seen by a camera that walks towards it, and to the side: all depths are exact."""
    count = len(depths)
    poses = np.tile(np.eye(4), (count, 1, 1))
    poses[:, :3, 3] = np.asarray(steps, float)
    matrix = np.array([[size[1], 0, size[1] // 2], [0, size[1], size[0] // 2], [0, 0, 1.0]])
    planes = np.asarray(depths, float)[:, None, None] * np.ones((1, *size))
    return xr.Dataset(
        {
            "depth": (("frame", "y", "x"), planes),
            "pose": (("frame", "row", "col"), poses),
            "intrinsics": (("frame", "camera_row", "camera_col"), np.tile(matrix, (count, 1, 1))),
        }
    )


WALL = flat([4.0, 3.5, 3.0, 2.5], [(0.1 * i, 0.0, 0.5 * i) for i in range(4)])


def test_exact_depth_of_a_wall_agrees_with_itself():
    scores = score_temporal(WALL, WALL, "metric")
    for name in ("tae", "tae_all", "tae_self"):
        assert float(scores[name]) == pytest.approx(0, abs=1e-12)
        assert np.isnan(scores[f"frame_{name}"].values[-1])


def test_depth_of_a_wall_that_is_wrong_in_one_frame_gives_the_closed_form():
    factor = xr.DataArray([1.0, 1.0, 1.2, 1.0], dims="frame")
    wrong = WALL.assign(depth=WALL["depth"] * factor)
    scores = score_temporal(WALL, wrong, "metric")
    depths, steps = WALL["depth"].values[:, 0, 0] * factor.values, 0.5
    expected = [
        np.mean([abs(a - steps - b) / b, abs(b + steps - a) / a]) for a, b in pairwise(depths)
    ]
    assert scores["frame_tae"].values[:-1] == pytest.approx(expected)
    assert float(scores["tae"]) == pytest.approx(np.mean(expected))


def test_exact_depth_of_a_resting_scene_gives_only_what_resampling_does(resting):
    scores = score_temporal(resting, resting, "metric")
    assert float(scores["tae"]) < 0.01
    assert float(scores["tae_self"]) == pytest.approx(float(scores["tae"]), rel=1e-6)


def test_a_scale_that_flickers_by_a_tenth_is_an_error_of_a_tenth(resting):
    factor = xr.DataArray(np.where(np.arange(6) % 2, 1.1, 1.0), dims="frame")
    flickering = resting.assign(depth=resting["depth"] * factor)
    found = float(score_temporal(resting, flickering, "metric")["tae"])
    assert found == pytest.approx((0.1 + 0.1 / 1.1) / 2, abs=0.02)
    steady = resting.assign(depth=resting["depth"] * 1.1)
    assert float(score_temporal(resting, steady, "scale_median")["tae"]) < 0.01


def test_motion_counts_where_all_pixels_do(moving):
    scores = score_temporal(moving, moving, "metric")
    assert float(scores["tae"]) < 0.01
    assert float(scores["tae_all"]) > 2 * float(scores["tae"])


def test_own_cameras_are_another_question(resting):
    rng = np.random.default_rng(0)
    poses = resting["pose"].values.copy()
    poses[:, :3, 3] += 0.1 * rng.normal(size=(6, 3))
    lost = resting.assign(pose=(resting["pose"].dims, poses))
    scores, exact = (score_temporal(resting, each, "metric") for each in (lost, resting))
    assert float(scores["tae"]) == float(exact["tae"])
    assert float(scores["tae_self"]) > 2 * float(exact["tae_self"])
    # A similarity of the path, with its depth, changes nothing.
    turned = resting.assign(
        pose=(resting["pose"].dims, m3.metrics.fit_similarity(
            poses[:, :3, 3], 2 * poses[::-1, :3, 3]).apply_to_poses(resting["pose"].values)),
        depth=3 * resting["depth"],
    )  # fmt: skip
    again = score_temporal(resting, turned, "scale_median")
    assert float(again["tae_self"]) == pytest.approx(float(exact["tae_self"]), rel=1e-3)


def test_one_frame_agrees_with_nothing(resting):
    with pytest.raises(UndefinedMetric, match="a single frame"):
        score_temporal(resting.isel(frame=[0]), resting.isel(frame=[0]), "metric")


def test_a_run_is_scored_under_the_protocol():
    sequence = m3.open_sequence("scenes/orbit-03", stop=4)
    run = m3.run("tiny", sequence, outputs=("pose", "depth"), progress=False)
    scores = m3.evaluate(run, "default:temporal-depth:scale_median")
    assert 0 < float(scores["mean_tae"]) < 1
    assert int(scores["n_frames"][0]) == 4
    assert scores["frame_tae"].sizes["frame"] == 4
