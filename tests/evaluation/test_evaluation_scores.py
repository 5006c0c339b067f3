"""Scores of runs whose errors are known: perfect, perturbed, averaged, and labelled."""

import json

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from known_runs import a_run, a_sequence
from scipy.spatial.transform import Rotation

import mut3r_analysis as m3
from mut3r_analysis.errors import InvalidArgument
from mut3r_analysis.evaluation import evaluate
from mut3r_analysis.evaluation.averages import metric_names
from mut3r_analysis.literature import compare
from mut3r_analysis.metrics import Protocol, UndefinedMetric, protocol
from mut3r_analysis.metrics.catalogue import SINTEL_23, TUM_8

DEPTH = ("abs_rel", "sq_rel", "rmse", "log_rmse", "delta_1", "delta_2", "delta_3")
POSE = ("ate", "rpe_translation", "rpe_rotation")
"""What the default protocol scores."""


def scaled(factor: float):
    return lambda prediction: prediction.assign(depth=prediction["depth"] * factor)


def test_a_perfect_prediction_scores_perfectly() -> None:
    scores = evaluate(a_run(a_sequence()))
    assert metric_names(scores) == [*DEPTH, *POSE]
    for name in DEPTH:
        assert float(scores[f"mean_{name}"]) == (1.0 if name.startswith("delta") else 0.0)
    for name in POSE:
        assert float(scores[f"mean_{name}"]) == pytest.approx(0, abs=1e-6)
    assert scores["skipped"].values.tolist() == [""]
    assert scores.attrs["protocol"] == "default"
    assert scores["n_frames"].values == 12
    assert float(scores["depth_alignment_scale"][0]) == 1.0


def test_a_scaled_depth_is_a_known_error_without_alignment_and_none_with() -> None:
    run = a_run(a_sequence(), change=scaled(1.1))
    metric = evaluate(run, "default:depth:metric")
    assert float(metric["mean_abs_rel"]) == pytest.approx(0.1)
    assert float(metric["mean_delta_1"]) == 1.0
    np.testing.assert_allclose(metric["frame_abs_rel"], 0.1)
    aligned = evaluate(run, "default:depth:scale_median")
    assert float(aligned["mean_abs_rel"]) == pytest.approx(0, abs=1e-12)
    assert float(aligned["depth_alignment_scale"][0]) == pytest.approx(1 / 1.1)


def test_a_moved_path_is_found_by_the_alignment_and_a_turned_camera_by_the_rotation() -> None:
    turn = np.eye(4)
    turn[:3, :3] = Rotation.from_euler("z", 10, degrees=True).as_matrix()

    def moved(prediction: xr.Dataset) -> xr.Dataset:
        poses = prediction["pose"].values.copy()
        poses[:, :3, 3] *= 2
        return prediction.assign(pose=(("frame", "row", "col"), turn @ poses))

    scores = evaluate(a_run(a_sequence(), change=moved), "default:pose:sim3")
    assert float(scores["mean_ate"]) == pytest.approx(0, abs=1e-12)
    assert float(scores["pose_alignment_scale"][0]) == pytest.approx(0.5)
    np.testing.assert_allclose(scores["pose_alignment_rotation"][0], turn[:3, :3].T, atol=1e-9)

    def jolted(prediction: xr.Dataset) -> xr.Dataset:
        poses = prediction["pose"].values.copy()
        poses[5] = poses[5] @ turn
        return prediction.assign(pose=(("frame", "row", "col"), poses))

    scores = evaluate(a_run(a_sequence(), change=jolted), "default:pose:sim3")
    per_frame = scores["frame_rpe_rotation"][0].values
    np.testing.assert_allclose(per_frame[[4, 5]], 10)
    np.testing.assert_allclose(np.delete(per_frame, [4, 5, 11]), 0, atol=1e-5)
    assert np.isnan(per_frame[11])
    assert float(scores["mean_rpe_rotation"]) == pytest.approx(np.sqrt(2 * 100 / 11))


def test_values_per_frame_make_up_the_value_of_the_sequence() -> None:
    rng = np.random.default_rng(0)

    def noisy(prediction: xr.Dataset) -> xr.Dataset:
        depth = prediction["depth"] * rng.uniform(0.6, 1.5, prediction["depth"].shape)
        poses = prediction["pose"].values + 0
        poses[:, :3, 3] += rng.normal(0, 0.1, (len(poses), 3))
        return prediction.assign(depth=depth, pose=(("frame", "row", "col"), poses))

    sequence = a_sequence()
    sequence["depth"].values[3, :4] = np.nan
    sequence["depth"].values[7] = 0
    scores = evaluate(a_run(sequence, change=noisy)).isel(sequence=0)
    pixels = scores["frame_pixels"].values
    assert pixels.tolist() == [48] * 3 + [16] + [48] * 3 + [0] + [48] * 4
    assert int(scores["n_pixels"]) == pixels.sum()
    for name in DEPTH:
        power = 2 if name in ("rmse", "log_rmse") else 1
        values = np.nan_to_num(scores[f"frame_{name}"].values) ** power
        assert float(scores[name]) ** power == pytest.approx((values @ pixels) / pixels.sum())
    for name in POSE:
        values = scores[f"frame_{name}"].values
        assert float(scores[name]) ** 2 == pytest.approx(np.nanmean(values**2))


def test_sequences_of_other_frames_stand_at_their_own_frames() -> None:
    first = a_run(a_sequence("a", [0, 2, 4, 6]))
    second = a_run(a_sequence("b", [3, 4, 5], seed=1))
    scores = evaluate([first, second])
    assert scores["frame"].values.tolist() == [0, 2, 3, 4, 5, 6]
    there = np.isfinite(scores["frame_abs_rel"])
    assert there.sel(sequence="a").values.tolist() == [True, True, False, True, False, True]
    assert scores["n_frames"].values.tolist() == [4, 3]
    assert scores["frame_pixels"].sel(sequence="b").values.tolist() == [0, 0, 48, 48, 48, 0]


def test_the_mean_is_the_protocols_and_lies_in_its_interval() -> None:
    runs = []
    for seed in range(8):
        sequence = a_sequence(f"s{seed}", 12, seed)
        sequence["depth"].values[:, : seed % 5] = 0
        runs.append(a_run(sequence, change=scaled(1 + seed / 20)))
    plain = evaluate(runs, "default:depth:metric")
    errors = np.arange(8) / 20
    assert float(plain["mean_abs_rel"]) == pytest.approx(errors.mean())
    own = Protocol.from_dict(
        protocol("default:depth:metric").to_dict() | {"id": "mine", "reduction": "valid-pixels"}
    )
    weighted = evaluate(runs, own)
    share = weighted["n_pixels"].values
    assert len(set(share.tolist())) == 5
    assert float(weighted["mean_abs_rel"]) == pytest.approx((errors @ share) / share.sum())
    assert weighted.attrs["protocol"] == "mine"
    for scores in (plain, weighted):
        low, high = scores["interval_abs_rel"].values
        assert low < float(scores["mean_abs_rel"]) < high
        assert scores.attrs["verdict"] == "8 sequences scored"
    few = evaluate(runs[:3], "default:depth:metric")
    assert few.attrs["verdict"].startswith("too few sequences to tell")
    alone = evaluate(runs[0], "default:depth:metric")
    assert np.isnan(alone["interval_abs_rel"]).all()


def test_a_sequence_without_a_value_is_skipped_named_and_left_out_of_the_mean() -> None:
    still = a_sequence("still", seed=1)
    still["pose"].values[:] = np.eye(4)
    scores = evaluate([a_run(a_sequence("moving")), a_run(still)], "default:pose:sim3")
    assert scores["skipped"].sel(sequence="moving") == ""
    assert "still" in str(scores["skipped"].sel(sequence="still").values)
    assert np.isnan(scores["ate"].sel(sequence="still"))
    assert float(scores["mean_ate"]) == pytest.approx(0, abs=1e-12)
    assert scores["mean_ate"].attrs["n_valid"] == scores.attrs["n_valid"] == 1
    both = evaluate([a_run(a_sequence("moving")), a_run(still)])
    assert str(both["skipped"].sel(sequence="still").values).startswith("pose: ")
    assert float(both["abs_rel"].sel(sequence="still")) == 0


def test_a_prediction_with_nan_is_skipped_and_not_scored_on_the_rest() -> None:
    def holes(prediction: xr.Dataset) -> xr.Dataset:
        return prediction.assign(depth=prediction["depth"].where(prediction["depth"] < 5))

    with pytest.raises(UndefinedMetric, match=r"one: the prediction of frame 0 has NaN"):
        evaluate(a_run(a_sequence(), change=holes), "default:depth:metric")


def test_a_protocol_can_ask_to_raise_on_the_first_failure() -> None:
    still = a_sequence("still")
    still["pose"].values[:] = np.eye(4)
    fields = protocol("default:pose:sim3").to_dict() | {"id": "strict", "on_failure": "raise"}
    with pytest.raises(UndefinedMetric):
        evaluate([a_run(still), a_run(a_sequence())], Protocol.from_dict(fields))


def test_the_default_scores_what_there_is_and_says_what_there_is_not() -> None:
    scores = evaluate(a_run(a_sequence(), truth=("pose",)))
    assert metric_names(scores) == list(POSE)
    assert "default:depth:scale_median: the truth has no depth" in scores.attrs["not_scored"]
    with pytest.raises(UndefinedMetric, match="the run holds no ground truth") as none:
        evaluate(a_run(a_sequence(), truth=()))
    assert "the run holds no ground truth for pose; pass truth=" in str(none.value)


def test_scores_carry_their_protocol_and_where_the_runs_come_from() -> None:
    scores = evaluate(a_run(a_sequence()))
    held = [Protocol.from_dict(one) for one in json.loads(scores.attrs["protocols"])]
    assert held == [protocol("default:depth:scale_median"), protocol("default:pose:sim3")]
    assert scores["mean_ate"].attrs["protocol"] == "default:pose:sim3"
    assert scores["ate"].attrs["units"] == scores["mean_ate"].attrs["units"] == "m"
    (run,) = json.loads(scores.attrs["runs"])
    assert run["backbone"]["sha256"] == "1" * 64
    again = evaluate(a_run(a_sequence()))
    assert again.attrs["runs_sha256"] == scores.attrs["runs_sha256"]
    other = evaluate(a_run(a_sequence(), gate="harder"))
    assert other.attrs["runs_sha256"] != scores.attrs["runs_sha256"]


def test_a_motion_score_is_ranked_on_its_patches() -> None:
    sequence = a_sequence()
    blocks = np.random.default_rng(0).random((12, 3, 4)) < 0.4
    sequence["motion_mask"].values[:] = blocks.repeat(2, axis=1).repeat(2, axis=2)
    run = a_run(sequence)
    motion = blocks.astype(float)
    motion[0] = np.nan
    run["cue"] = xr.Dataset(
        {"motion": (("frame", "patch_row", "patch_col"), motion)}, {"frame": np.arange(12)}
    )
    scores = evaluate(run, "default:motion:roc")
    assert float(scores["mean_roc_auc"]) == 1
    assert int(scores["n_frames"][0]) == 11
    with pytest.raises(UndefinedMetric, match="holds no motion score"):
        evaluate(a_run(sequence), "default:motion:roc")


def test_masks_are_pooled_over_frames_or_over_sequences() -> None:
    def emptied(prediction: xr.Dataset) -> xr.Dataset:
        return prediction.assign(motion_mask=prediction["motion_mask"] & False)

    names = protocol("motion:davis16:frame-pooled").sequences
    runs = [
        a_run(a_sequence(names[0], 9)),
        a_run(a_sequence(names[1], 3, seed=1), change=emptied),
    ]
    pooled = evaluate(runs, "motion:davis16:frame-pooled")
    assert float(pooled["mean_region_mean"]) == pytest.approx(9 / 12)
    assert float(pooled["mean_region_recall"]) == pytest.approx(9 / 12)
    separate = evaluate(runs, "motion:davis16:sequence-mean")
    assert float(separate["mean_region_mean"]) == pytest.approx(1 / 2)
    assert pooled.attrs["missing"].split(", ") == list(names[2:])


def test_sintel_masks_are_scored_where_they_are_known() -> None:
    known = [True] * 11 + [False]
    # 512 x 208 is its own prepared size under the rule of the protocol.
    sequence = a_sequence("alley_2", 12, size=(208, 512)).assign_coords(
        motion_known=("frame", known)
    )
    run = a_run(sequence.isel(frame=slice(0, 12)))
    with pytest.raises(UndefinedMetric, match="which frames have a true mask"):
        evaluate(run, "motion:sintel14:sequence-mean")
    scores = evaluate(run, "motion:sintel14:sequence-mean", truth=sequence)
    assert int(scores["n_frames"][0]) == 11
    assert float(scores["mean_boundary_mean"]) == 1


def test_points_of_a_perfect_run_lie_where_they_should() -> None:
    sequence = a_sequence("spin", np.arange(0, 60, 10), size=(64, 48))
    source = sequence.reindex(frame=np.arange(51), method="ffill")
    # The network's size is taken at its word, so that the clouds stay small.
    run = a_run(sequence)
    scores = evaluate(run, "reconstruction:dycheck-stride10:sim3", truth=source)
    for name in ("accuracy", "completion", "distance"):
        assert float(scores[f"mean_{name}_mean"]) == pytest.approx(0, abs=1e-9)
    assert int(scores["n_pixels"][0]) == 6 * 64 * 48


def test_own_pose_scores_stand_beside_the_published_ones() -> None:
    frames = np.arange(0, 270, 3)
    runs = [a_run(a_sequence(name, frames, seed)) for seed, name in enumerate(TUM_8)]
    scores = evaluate(runs, "pose:tum8-stride3-90:sim3")
    assert (scores.attrs["n_valid"], scores.attrs["missing"]) == (8, "")
    beside = compare(scores)
    row = beside.loc[("ate", "CUT3R")]
    assert row["own"] == pytest.approx(0, abs=1e-9)
    assert row["minimum"] > 0.01
    assert beside.attrs["n_valid"] == {"own": 8}


def test_own_depth_scores_are_converted_to_the_literatures_percent() -> None:
    runs, truths = [], {}
    lengths = protocol("video-depth:sintel23:metric").lengths
    for seed, (name, length) in enumerate(zip(SINTEL_23, lengths, strict=True)):
        truths[name] = a_sequence(name, length, seed)
        runs.append(a_run(truths[name], rule="resize", change=scaled(1.1)))
    scores = evaluate(runs, "video-depth:sintel23:metric", truth=truths)
    beside = compare({"scaled": scores})
    assert beside.loc[("delta_1", "CUT3R"), "scaled"] == pytest.approx(100)
    assert beside.loc[("abs_rel", "CUT3R"), "scaled"] == pytest.approx(0.1)
    with pytest.raises(InvalidArgument, match="published"):
        compare(evaluate(runs[0]))


def test_a_number_of_fewer_frames_is_not_the_protocols() -> None:
    frames = np.arange(0, 270, 3)
    runs = [a_run(a_sequence(name, frames, seed)) for seed, name in enumerate(TUM_8)]
    cut = a_run(a_sequence(TUM_8[0], frames[:40]))
    scores = evaluate([cut, *runs[1:]], "pose:tum8-stride3-90:sim3")
    words = f"670 of 720 frames ({TUM_8[0]} has 40 of 90): not this protocol"
    assert scores.attrs["incomplete"] == words
    assert scores.attrs["verdict"].startswith(words)
    with pytest.raises(InvalidArgument, match="670 of 720 frames"):
        compare(scores)
    few = evaluate(runs[:2], "pose:tum8-stride3-90:sim3").attrs["incomplete"]
    assert few == "180 of 720 frames, 2 of 8 sequences: not this protocol"


def test_a_sequence_without_a_value_is_left_out_as_the_released_code_does() -> None:
    frames = np.arange(0, 270, 3)
    sequences = [a_sequence(name, frames, seed) for seed, name in enumerate(TUM_8)]
    sequences[0]["pose"].values[:] = np.eye(4)  # a camera at rest has no scale
    scores = evaluate([a_run(each) for each in sequences], "pose:tum8-stride3-90:sim3")
    assert scores["undefined"].values.tolist() == [True] + 7 * [False]
    assert (scores.attrs["n_valid"], scores.attrs["incomplete"]) == (7, "")


def test_scores_survive_a_file(tmp_path) -> None:
    scores = evaluate([a_run(a_sequence("a")), a_run(a_sequence("b", 5))])
    scores.to_netcdf(tmp_path / "scores.nc", engine="scipy")
    with xr.open_dataset(tmp_path / "scores.nc", engine="scipy") as again:
        xr.testing.assert_equal(again["mean_ate"].load(), scores["mean_ate"])
        assert again.attrs["protocols"] == scores.attrs["protocols"]


def test_a_run_of_a_backbone_on_a_bundled_scene_is_scored_from_its_store(tmp_path) -> None:
    backbone = m3.load_backbone("random:small")
    sequence = m3.open_sequence("scenes/orbit-03", stop=6)
    m3.run(backbone, sequence, out=tmp_path / "run.zarr", progress=False)
    scores = evaluate(tmp_path / "run.zarr")
    assert scores["sequence"].values.tolist() == ["orbit-03"]
    assert all(np.isfinite(scores[f"mean_{name}"]) for name in (*DEPTH, *POSE))


def test_truth_that_is_given_is_brought_to_the_grid_as_the_run_brings_its_own() -> None:
    backbone = m3.load_backbone("random:small")
    sequence = m3.open_sequence("scenes/orbit-01", stop=4)
    run = m3.run(backbone, sequence, progress=False)
    own, given = evaluate(run), evaluate(run, truth="scenes/orbit-01")
    xr.testing.assert_allclose(own["abs_rel"], given["abs_rel"])
    xr.testing.assert_allclose(own["ate"], given["ate"])
    assert int(own["n_pixels"][0]) == int(given["n_pixels"][0])


def test_a_mapping_of_runs_is_scored_run_by_run_and_tabled_as_one() -> None:
    runs = {
        name: m3.run("tiny", m3.open_sequence("scenes/orbit-01", stop=stop), progress=False)
        for name, stop in (("short", 3), ("long", 4))
    }
    scores = m3.evaluate(runs)
    assert list(scores) == ["short", "long"]
    for name, run in runs.items():
        xr.testing.assert_identical(scores[name], m3.evaluate(run))
    table = m3.table(scores)
    assert table.index.names == ["run", "sequence"]
    pd.testing.assert_frame_equal(table.loc["long"], m3.table(scores["long"]), check_names=False)
    assert table.attrs["units"]["ate"] == "m"
    pose = m3.evaluate(runs["short"], "default:pose:sim3")
    with pytest.raises(InvalidArgument, match="several protocols"):
        m3.table({"short": pose, "long": scores["long"]})
