"""Intervals repeat, cover, widen with dependence, and admit when they cannot tell."""

import json
from dataclasses import asdict

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mut3r_analysis.errors import InvalidArgument
from mut3r_analysis.metrics import (
    UndefinedMetric,
    average_sequences,
    bootstrap_frames,
    bootstrap_sequences,
    compare_paired,
)
from mut3r_analysis.metrics.bootstrap import TOO_FEW, block_length


def errors(seed: int, sequences: int, frames: int = 20) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    return {
        f"sequence {i}": np.abs(rng.normal(rng.uniform(0.5, 2), 0.2, frames))
        for i in range(sequences)
    }


def test_an_interval_repeats_with_its_seed_and_changes_with_another() -> None:
    values = errors(0, 1)["sequence 0"]
    assert bootstrap_frames(values, seed=3) == bootstrap_frames(values, seed=3)
    assert bootstrap_frames(values, seed=3).low != bootstrap_frames(values, seed=4).low
    table = errors(1, 5)
    assert bootstrap_sequences(table, seed=3) == bootstrap_sequences(table, seed=3)


@given(st.integers(0, 2**32 - 1), st.sampled_from(["mean", "rmse", "median"]))
@settings(max_examples=25, deadline=None)
def test_the_interval_lies_within_the_data_and_holds_its_order(seed: int, statistic: str) -> None:
    values = errors(seed, 1, frames=15)["sequence 0"]
    found = bootstrap_frames(values, statistic, resamples=100)
    assert values.min() <= found.low <= found.high <= values.max()


def test_single_frame_blocks_give_the_known_standard_error() -> None:
    values = np.random.default_rng(0).normal(size=400)
    found = bootstrap_frames(values, block=1, resamples=4000)
    half_width = 1.96 * values.std() / 20
    assert found.value == pytest.approx(values.mean())
    assert found.high - found.low == pytest.approx(2 * half_width, rel=0.05)


def test_blocks_widen_the_interval_of_dependent_frames() -> None:
    rng = np.random.default_rng(0)
    walk = np.repeat(rng.normal(size=40), 10)
    single = bootstrap_frames(walk, block=1)
    blocked = bootstrap_frames(walk, block=20)
    assert blocked.high - blocked.low > 2 * (single.high - single.low)


def test_a_block_as_long_as_the_sequence_leaves_nothing_to_draw() -> None:
    values = errors(2, 1)["sequence 0"]
    found = bootstrap_frames(values, block=100)
    assert found.low == pytest.approx(found.value) == pytest.approx(found.high)


def test_the_usual_block_is_the_cube_root() -> None:
    assert [block_length(n) for n in (1, 8, 27, 110, 1000)] == [1, 2, 3, 5, 10]


def test_differences_between_sequences_widen_the_interval() -> None:
    alike = {f"{i}": np.linspace(0.9, 1.1, 30) for i in range(8)}
    apart = {f"{i}": np.linspace(0.9, 1.1, 30) * (1 + i) for i in range(8)}
    narrow, wide = bootstrap_sequences(alike), bootstrap_sequences(apart)
    assert wide.high - wide.low > 10 * (narrow.high - narrow.low)
    assert wide.n_sequences == 8
    assert wide.n_frames == 240


def test_hierarchical_intervals_cover_at_about_their_level() -> None:
    rng = np.random.default_rng(0)
    hits = 0
    for trial in range(150):
        centres = rng.normal(1.0, 0.3, 20)
        table = {f"{i}": c + rng.normal(0, 0.3, 10) for i, c in enumerate(centres)}
        found = bootstrap_sequences(table, block=1, resamples=300, seed=trial)
        hits += found.low <= 1.0 <= found.high
    assert 0.88 <= hits / 150 <= 1.0


class TestPairedComparison:
    def test_a_clear_gain_on_enough_sequences_is_told(self) -> None:
        first = errors(0, 8)
        second = {name: values - 0.1 for name, values in first.items()}
        found = compare_paired(first, second)
        assert found.verdict == "second is better"
        assert found.difference.value == pytest.approx(-0.1)
        assert found.difference.low == pytest.approx(-0.1) == pytest.approx(found.difference.high)
        assert compare_paired(second, first).verdict == "first is better"
        assert compare_paired(first, second, lower_is_better=False).verdict == "first is better"

    @pytest.mark.parametrize("sequences", range(1, 6))
    def test_five_sequences_that_agree_are_too_few(self, sequences: int) -> None:
        first = errors(0, sequences)
        second = {name: values - 0.1 for name, values in first.items()}
        found = compare_paired(first, second)
        assert found.verdict == TOO_FEW == "too few sequences to tell"
        assert "6 are needed at 95%" in found.reason

    def test_noise_is_not_a_gain(self) -> None:
        found = compare_paired(errors(0, 14), errors(1, 14))
        assert found.verdict == TOO_FEW
        assert "holds zero" in found.reason

    def test_pairing_removes_what_both_runs_share(self) -> None:
        rng = np.random.default_rng(0)
        first = {name: v * 10 for name, v in errors(0, 10).items()}
        second = {n: v - 0.05 + rng.normal(0, 0.01, v.size) for n, v in first.items()}
        found = compare_paired(first, second)
        alone = bootstrap_sequences(first)
        assert found.verdict == "second is better"
        assert found.difference.high - found.difference.low < 0.01 * (alone.high - alone.low)

    def test_the_order_of_names_does_not_matter(self) -> None:
        first, second = errors(0, 6), errors(1, 6)
        turned = dict(reversed(second.items()))
        assert compare_paired(first, second) == compare_paired(first, turned)

    def test_runs_must_share_sequences_and_frames(self) -> None:
        first = errors(0, 3)
        with pytest.raises(InvalidArgument, match="only one of the runs has sequence 2"):
            compare_paired(first, errors(0, 2))
        short = first | {"sequence 1": np.ones(3)}
        with pytest.raises(InvalidArgument, match="different numbers of frames in sequence 1"):
            compare_paired(first, short)

    def test_results_are_ready_for_json(self) -> None:
        found = compare_paired(errors(0, 6), errors(1, 6))
        assert json.loads(json.dumps(asdict(found)))["verdict"] == found.verdict


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"statistic": "mode"}, "must be one of mean, rmse, median"),
        ({"level": 95}, "between 0 and 1"),
        ({"resamples": 0}, "one or more"),
        ({"block": 0}, "one frame or more"),
    ],
)
def test_bad_options_are_refused(options: dict, words: str) -> None:
    with pytest.raises(InvalidArgument, match=words):
        bootstrap_frames([1.0, 2.0], **options)


def test_values_that_are_missing_are_refused() -> None:
    with pytest.raises(UndefinedMetric, match="b: expected finite"):
        bootstrap_sequences({"a": [1.0], "b": [np.nan]})
    with pytest.raises(UndefinedMetric, match="no sequences"):
        bootstrap_sequences({})


class TestAverage:
    def test_weights_follow_the_reduction(self) -> None:
        values, pixels = {"a": 1.0, "b": 4.0}, {"a": 300, "b": 100}
        assert average_sequences(values, "valid-pixels", pixels).value == 1.75
        assert average_sequences(values).value == 2.5

    def test_skipped_sequences_are_named(self) -> None:
        found = average_sequences({"a": 1.0, "b": None, "c": float("nan"), "d": 2.0})
        assert (found.value, found.n_sequences, found.n_valid) == (1.5, 4, 2)
        assert found.skipped == ("b", "c")
        assert json.loads(json.dumps(asdict(found)))["skipped"] == ["b", "c"]

    def test_nonsense_is_refused(self) -> None:
        with pytest.raises(UndefinedMetric, match="none of 2"):
            average_sequences({"a": None, "b": None})
        with pytest.raises(InvalidArgument, match="needs weights"):
            average_sequences({"a": 1.0}, "valid-pixels")
        with pytest.raises(InvalidArgument, match="takes no weights"):
            average_sequences({"a": 1.0}, "sequence-mean", {"a": 1})
        with pytest.raises(InvalidArgument, match="no positive weight for a"):
            average_sequences({"a": 1.0}, "frame-pooled", {"b": 1})
        with pytest.raises(InvalidArgument, match="must be one of"):
            average_sequences({"a": 1.0}, "mean")


@given(st.integers(0, 2**32 - 1), st.sampled_from(["mean", "rmse"]))
@settings(max_examples=15, deadline=None)
def test_weights_make_the_value_that_of_all_pixels_and_sequences_counted(
    seed: int, statistic: str
) -> None:
    values = errors(seed, 5, frames=9)
    rng = np.random.default_rng(seed)
    pixels = {name: rng.uniform(1, 9, 9) for name in values}
    shares = {name: float(pixels[name].sum()) for name in values}
    found = bootstrap_sequences(
        values, statistic, resamples=50, frame_weights=pixels, sequence_weights=shares
    )
    power = 2 if statistic == "rmse" else 1
    each = [
        np.average(values[name] ** power, weights=pixels[name]) ** (1 / power) for name in values
    ]
    assert found.value == pytest.approx(np.average(each, weights=list(shares.values())))
    assert found.low <= found.high


def test_equal_weights_change_nothing() -> None:
    values = errors(2, 4)
    ones = {name: np.full(20, 3.0) for name in values}
    plain = bootstrap_sequences(values)
    weighted = bootstrap_sequences(
        values, frame_weights=ones, sequence_weights=dict.fromkeys(values, 2.0)
    )
    assert (weighted.low, weighted.high) == pytest.approx((plain.low, plain.high), rel=1e-12)


def test_a_sequence_that_weighs_more_pulls_the_interval_to_itself() -> None:
    values = {"light": np.array([0.0]), "heavy": np.array([1.0])}
    found = bootstrap_sequences(values, sequence_weights={"light": 1.0, "heavy": 9.0})
    assert found.value == pytest.approx(0.9)


def test_weights_that_mean_nothing_are_refused() -> None:
    values = errors(3, 2)
    with pytest.raises(InvalidArgument, match="20 positive weights"):
        bootstrap_sequences(values, frame_weights={"sequence 0": np.ones(20)})
    with pytest.raises(InvalidArgument, match="no positive weight for sequence 1"):
        bootstrap_sequences(values, sequence_weights={"sequence 0": 1.0, "sequence 1": 0.0})
    with pytest.raises(InvalidArgument, match="median"):
        bootstrap_sequences(values, "median", frame_weights={n: np.ones(20) for n in values})


def test_paired_runs_are_weighted_alike() -> None:
    first = {f"s{i}": np.full(4, 1.0) for i in range(7)}
    second = {name: values + i for i, (name, values) in enumerate(first.items())}
    shares = {name: float(i + 1) for i, name in enumerate(first)}
    found = compare_paired(first, second, sequence_weights=shares, resamples=200)
    assert found.difference.value == pytest.approx(
        np.average(np.arange(7), weights=np.arange(1, 8))
    )
