"""What a protocol does not score is refused in words, before anything is computed."""

import dataclasses

import numpy as np
import pytest
import xarray as xr
from known_runs import a_run, a_sequence

from mut3r_analysis.errors import InvalidArgument
from mut3r_analysis.evaluation import evaluate
from mut3r_analysis.metrics import UndefinedMetric, protocol
from mut3r_analysis.running import Commit
from mut3r_analysis.sequences import prefixes

SINTEL_POSE = "pose:sintel14:sim3"
SINTEL_DEPTH = "video-depth:sintel14:metric"
TUM_POSE = "pose:tum8-stride3-90:sim3"
BONN_DEPTH = "video-depth:bonn5:metric"


def refusal(runs, id: str, **kwargs) -> str:
    with pytest.raises(UndefinedMetric) as caught:
        evaluate(runs, id, **kwargs)
    return str(caught.value)


def test_depth_wants_resized_frames_and_pose_cropped_ones() -> None:
    sequence = a_sequence("alley_2", size=(109, 256))
    cropped, resized = (a_run(sequence, rule=rule) for rule in ("crop", "resize"))
    assert "with the rule 'crop', video-depth:sintel14:metric takes 'resize'" in refusal(
        cropped, SINTEL_DEPTH, truth=sequence
    )
    assert "with the rule 'resize', pose:sintel14:sim3 takes 'crop'" in refusal(
        resized, SINTEL_POSE, truth=sequence
    )
    assert evaluate(resized, SINTEL_DEPTH, truth=sequence).attrs["n_valid"] == 1
    assert evaluate(cropped, SINTEL_POSE, truth=sequence).attrs["n_valid"] == 1


def test_of_several_systems_the_one_that_is_refused_is_named() -> None:
    sequence = a_sequence("alley_2", size=(109, 256))
    runs = {rule: a_run(sequence, rule=rule) for rule in ("resize", "crop")}
    assert refusal(runs, SINTEL_DEPTH, truth=sequence).startswith("crop: nothing could be scored")


def test_a_run_of_another_data_set_is_refused_even_where_no_sequences_are_listed() -> None:
    frames = np.arange(0, 60, 10)
    run = a_run(a_sequence("spin", frames))
    assert evaluate(run, "pose:dycheck-stride10:sim3").attrs["n_valid"] == 1
    run.attrs["sequence"] |= {"kind": "tum"}
    assert "the run is of 'tum', pose:dycheck-stride10:sim3 scores 'dycheck'" in refusal(
        run, "pose:dycheck-stride10:sim3"
    )


def test_where_nothing_is_cut_either_rule_is_accepted_if_the_source_size_is_known() -> None:
    sequence = a_sequence("alley_2", size=(96, 128))
    run = a_run(sequence, rule="crop")
    assert evaluate(run, SINTEL_DEPTH, truth=sequence).attrs["n_valid"] == 1
    resized = a_run(sequence, rule="resize")
    assert "'crop'" in refusal(resized, SINTEL_POSE)
    assert evaluate(resized, SINTEL_POSE, truth=sequence).attrs["n_valid"] == 1


def test_a_run_at_another_size_is_refused_with_the_way_to_score_it_anyway() -> None:
    run = a_run(a_sequence("alley_2"), size=64)
    assert "size=64" in refusal(run, SINTEL_POSE)
    own = dataclasses.replace(protocol(SINTEL_POSE), id="mine", preparation="given")
    scores = evaluate(run, own)
    assert scores.attrs["protocol"] == "mine"


def test_a_run_that_does_not_say_how_it_was_prepared_is_refused() -> None:
    run = a_run(a_sequence("alley_2"), backbone={"name": "unknown"})
    assert "does not say how its frames were prepared" in refusal(run, SINTEL_POSE)
    assert evaluate(run, "default:pose:sim3").attrs["n_valid"] == 1


@pytest.mark.parametrize(
    ("frames", "words"),
    [
        (np.arange(0, 90), "frame number 1 of the run is 1 of the source where the protocol has 3"),
        (np.arange(3, 273, 3), "frame number 0 of the run is 3 of the source"),
        (np.arange(0, 120, 3), "90 frames here; the run has the first 40 of them and lacks 50"),
    ],
)
def test_frames_that_are_not_the_protocols_are_refused(frames: np.ndarray, words: str) -> None:
    source = a_sequence("freiburg3_walking_xyz", 300)
    run = a_run(source.sel(frame=frames))
    assert words in refusal(run, TUM_POSE, truth=source)


def test_a_longer_run_counts_with_its_first_frames() -> None:
    source = a_sequence("freiburg3_walking_xyz", 300)
    run = a_run(source.isel(frame=slice(0, None, 3)))
    scores = evaluate(run, TUM_POSE, truth=source)
    assert int(scores["n_frames"][0]) == 90
    assert int(scores["frame"].max()) == 267


def test_a_run_that_ends_with_a_short_source_counts_and_an_interrupted_one_does_not() -> None:
    source = a_sequence("freiburg3_walking_xyz", 100)
    frames = source.isel(frame=slice(0, None, 3))
    assert int(evaluate(a_run(frames), TUM_POSE)["n_frames"][0]) == 34
    cut = a_run(frames, frames=90)
    assert "interrupted after 34 frames" in refusal(cut, TUM_POSE)


def test_bonn_counts_from_its_thirtieth_frame() -> None:
    source = a_sequence("balloon2", 200)
    run = a_run(source.isel(frame=slice(30, 140)), rule="resize")
    scores = evaluate(run, BONN_DEPTH, truth=source)
    assert int(scores["n_frames"][0]) == 110
    assert scores.attrs["missing"] == "crowd2, crowd3, person_tracking2, synchronous"
    assert "is 0 of the source" in refusal(
        a_run(source.isel(frame=slice(0, 140)), rule="resize"), BONN_DEPTH, truth=source
    )


def test_depth_under_a_published_protocol_needs_truth_at_its_own_size() -> None:
    run = a_run(a_sequence("alley_2"), rule="resize")
    assert "at its own size" in refusal(run, SINTEL_DEPTH)


def test_predictions_are_resized_to_the_truth() -> None:
    # A constant depth is constant at every size, so only the resizing itself could change it.
    source = a_sequence("alley_2", size=(40, 64))
    source["depth"].values[:] = 3.0
    small = a_sequence("alley_2", size=(12, 16))
    small["depth"].values[:] = 3.0
    scores = evaluate(a_run(small, rule="resize"), SINTEL_DEPTH, truth=source)
    assert float(scores["mean_abs_rel"]) == pytest.approx(0, abs=1e-9)
    assert int(scores["n_pixels"][0]) == 12 * 40 * 64


def test_truth_that_lacks_frames_is_refused() -> None:
    source = a_sequence("one", 12)
    words = refusal(a_run(source), "default:pose:sim3", truth=source.isel(frame=slice(0, 8)))
    assert "4 of 12 frames are not there, the first is frame 8" in words


def test_sequences_of_no_protocol_are_skipped_beside_those_that_are() -> None:
    runs = [a_run(a_sequence("alley_2")), a_run(a_sequence("alley_1"))]
    scores = evaluate(runs, SINTEL_POSE)
    assert scores.attrs["n_valid"] == 1
    assert "alley_1 is not among" in str(scores["skipped"].sel(sequence="alley_1").values)


def test_runs_of_two_systems_or_of_one_sequence_are_no_benchmark() -> None:
    first, second = a_run(a_sequence("a")), a_run(a_sequence("b"), gate="another")
    with pytest.raises(InvalidArgument, match="2 systems"):
        evaluate([first, second])
    with pytest.raises(InvalidArgument, match="two runs are of the sequence 'a'"):
        evaluate([first, a_run(a_sequence("a"))])
    with pytest.raises(InvalidArgument, match="no runs"):
        evaluate([])


def test_what_is_no_run_no_truth_or_no_protocol_is_refused() -> None:
    run = a_run(a_sequence())
    with pytest.raises(InvalidArgument, match="is not a run"):
        evaluate(a_sequence())
    with pytest.raises(InvalidArgument, match="needs a group 'prediction'"):
        evaluate(xr.DataTree())
    with pytest.raises(InvalidArgument, match="truth is a int"):
        evaluate(run, truth=3)
    with pytest.raises(InvalidArgument, match="one truth was given for 2 runs"):
        evaluate([run, a_run(a_sequence("b"))], truth=a_sequence())
    with pytest.raises(InvalidArgument, match="but the runs are of one"):
        evaluate(run, truth={"another": a_sequence()})
    with pytest.raises(InvalidArgument, match="did you mean pose:sintel14:sim3"):
        evaluate(run, "pose:sintel")


def test_a_changed_protocol_cannot_keep_the_id_of_the_one_it_was_made_from() -> None:
    changed = dataclasses.replace(protocol(SINTEL_POSE), preparation="given")
    with pytest.raises(InvalidArgument, match="give it an id of its own"):
        evaluate(a_run(a_sequence("alley_2")), changed)


def test_a_data_set_gives_every_run_its_truth_by_name(monkeypatch) -> None:
    opened = []

    def open_fake(rest: str) -> xr.Dataset:
        opened.append(rest)
        return a_sequence(rest.split("#")[1].split("?")[0])

    monkeypatch.setattr("known_runs.open_fake", open_fake, raising=False)
    monkeypatch.setitem(prefixes.OPENERS, "fake", "known_runs:open_fake")
    runs = [a_run(a_sequence(name), truth=(), rule="resize") for name in ("alley_2", "cave_2")]
    scores = evaluate(runs, SINTEL_DEPTH, truth="fake:/data?pass=final")
    assert opened == ["/data#alley_2?pass=final", "/data#cave_2?pass=final"]
    assert scores.attrs["n_valid"] == 2


def test_parts_between_resets_are_no_one_path() -> None:
    commit = Commit(reset=4).to_json()
    with pytest.raises(UndefinedMetric, match="was reset after every 4 frames"):
        evaluate(a_run(a_sequence(indices=12), commit=commit), "default:pose:sim3")
    within = a_run(a_sequence(indices=4), commit=commit)
    assert float(evaluate(within, "default:pose:sim3")["mean_ate"]) == pytest.approx(0, abs=1e-9)
    scores = evaluate(a_run(a_sequence(indices=12), commit=commit))  # depth knows no path
    assert float(scores["mean_abs_rel"]) == 0
