"""Motion-mask measures on cases worked out by hand and against plain definitions."""

import numpy as np
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from sklearn.metrics import roc_auc_score

from mut3r_analysis.errors import InvalidArgument
from mut3r_analysis.metrics import (
    UndefinedMetric,
    average_sequences,
    boundary_accuracy,
    region_similarity,
    roc_auc,
    score_masks,
)
from mut3r_analysis.metrics.segmentation import mask_boundary

masks = arrays(bool, (7, 9))


def square(top: int, left: int, side: int = 4, size: int = 20) -> np.ndarray:
    mask = np.zeros((size, size), dtype=bool)
    mask[top : top + side, left : left + side] = True
    return mask


class TestRegion:
    def test_hand_counted_overlap(self) -> None:
        assert region_similarity(square(2, 2), square(2, 4)) == pytest.approx(8 / 24)

    def test_empty_masks_agree_and_one_empty_mask_does_not(self) -> None:
        nothing = np.zeros((20, 20), dtype=bool)
        assert region_similarity(nothing, nothing) == 1
        assert region_similarity(square(2, 2), nothing) == 0
        assert region_similarity(nothing, square(2, 2)) == 0

    @given(masks, masks)
    @settings(max_examples=50, deadline=None)
    def test_it_equals_the_definition_on_sets(self, a: np.ndarray, b: np.ndarray) -> None:
        first, second = set(zip(*np.nonzero(a), strict=True)), set(zip(*np.nonzero(b), strict=True))
        union = first | second
        expected = len(first & second) / len(union) if union else 1.0
        assert region_similarity(a, b) == pytest.approx(expected)


class TestBoundary:
    def test_the_boundary_of_a_square_lies_above_left_and_inside_below_right(self) -> None:
        expected = np.zeros((6, 6), dtype=bool)
        expected[1, 1:5] = expected[1:5, 1] = True
        expected[4, 1:5] = expected[1:5, 4] = True
        expected[1, 1] = True
        assert np.array_equal(mask_boundary(square(2, 2, 3, 6)), expected)

    def test_the_frame_is_no_boundary(self) -> None:
        assert not mask_boundary(np.ones((5, 5), dtype=bool)).any()
        half = np.zeros((4, 4), dtype=bool)
        half[:, 2:] = True
        assert np.array_equal(np.nonzero(mask_boundary(half))[1], [1, 1, 1, 1])

    def test_shifts_within_the_tolerance_are_free_and_beyond_cost(self) -> None:
        truth = square(6, 6)
        assert boundary_accuracy(truth, square(6, 7), tolerance=1) == 1
        assert boundary_accuracy(truth, square(6, 8), tolerance=2) == 1
        assert boundary_accuracy(truth, square(6, 8), tolerance=1) < 1
        assert boundary_accuracy(truth, square(6, 15, 3), tolerance=1) == 0

    def test_a_vertical_edge_counted_by_hand(self) -> None:
        truth = np.zeros((10, 12), dtype=bool)
        truth[:, 6:] = True
        prediction = truth.copy()
        prediction[:5, 3:6] = True
        # The predicted edge runs at column 2 in rows 0 to 4 (row 4 bends along columns 2 to 5) and
        # at column 5 in rows 5 to 9: 5 + 3 + 5 pixels. Within 1 pixel of the true edge at column 5
        # lie columns 4 and 5 of the bend and the 5 below: 7 of 13. Of the true edge's 10 pixels,
        # rows 4 to 9 lie on the predicted edge and row 3 lies one above it: 7 of 10.
        precision, recall = 7 / 13, 7 / 10
        expected = 2 * precision * recall / (precision + recall)
        assert boundary_accuracy(truth, prediction, tolerance=1) == pytest.approx(expected)

    def test_the_tolerance_is_a_fraction_of_the_diagonal_rounded_up(self) -> None:
        truth, prediction = np.zeros((2, 288, 512), dtype=bool)
        truth[:, 200:] = True
        for shift, expected in ((5, 1.0), (6, 0.0)):
            prediction[:] = False
            prediction[:, 200 + shift :] = True
            assert boundary_accuracy(truth, prediction) == expected

    def test_empty_boundaries(self) -> None:
        nothing = np.zeros((20, 20), dtype=bool)
        assert boundary_accuracy(nothing, nothing) == 1
        assert boundary_accuracy(nothing, square(2, 2)) == 0
        assert boundary_accuracy(square(2, 2), nothing) == 0

    @given(masks, masks, st.integers(1, 4))
    @settings(max_examples=50, deadline=None)
    def test_it_equals_a_search_over_all_pairs(
        self, a: np.ndarray, b: np.ndarray, reach: int
    ) -> None:
        first, second = np.argwhere(mask_boundary(a)), np.argwhere(mask_boundary(b))
        if not (len(first) and len(second)):
            return
        near = ((first[:, None] - second[None]) ** 2).sum(-1) <= reach**2
        recall, precision = near.any(axis=1).mean(), near.any(axis=0).mean()
        total = precision + recall
        expected = 2 * precision * recall / total if total else 0.0
        assert boundary_accuracy(a, b, tolerance=reach) == pytest.approx(expected)


class TestRocArea:
    @given(st.integers(0, 2**32 - 1), st.integers(2, 60))
    @settings(max_examples=50, deadline=None)
    def test_it_equals_scikit_learn_with_ties(self, seed: int, pixels: int) -> None:
        rng = np.random.default_rng(seed)
        truth = rng.random(pixels) < 0.4
        truth[:2] = [True, False]
        score = rng.integers(0, 6, pixels) / 5
        assert roc_auc(truth, score) == pytest.approx(roc_auc_score(truth, score), rel=1e-12)

    def test_a_constant_score_is_chance(self) -> None:
        assert roc_auc([True, False, False], [0.3, 0.3, 0.3]) == 0.5

    def test_one_class_has_no_curve(self) -> None:
        with pytest.raises(UndefinedMetric, match="2 moving and 0 still"):
            roc_auc([True, True], [0.1, 0.2])
        with pytest.raises(UndefinedMetric, match="NaN"):
            roc_auc([True, False], [0.1, np.nan])
        with pytest.raises(InvalidArgument, match="do not correspond"):
            roc_auc([True, False], [0.1])


def sequence(*frames: np.ndarray) -> xr.DataArray:
    return xr.DataArray(np.stack(frames), dims=("frame", "y", "x"))


def test_recall_counts_frames_above_one_half() -> None:
    truth = sequence(*[square(2, 2)] * 4)
    nothing = np.zeros((20, 20), dtype=bool)
    half = square(2, 2)
    half[2:4] = False
    found = score_masks(truth, sequence(square(2, 2), nothing, half, square(2, 3)))
    np.testing.assert_allclose(found["frame_region"], [1, 0, 0.5, 12 / 20])
    assert found["region_recall"] == 0.5
    assert found["region_mean"] == pytest.approx(2.1 / 4)


@given(arrays(bool, (3, 5, 5)), arrays(bool, (3, 5, 5)))
@settings(max_examples=30, deadline=None)
def test_recall_is_a_fraction_of_frames(truth: np.ndarray, prediction: np.ndarray) -> None:
    found = score_masks(sequence(*truth), sequence(*prediction))
    for name in ("region_recall", "boundary_recall"):
        assert min(abs(float(found[name]) - k / 3) for k in range(4)) < 1e-12


def test_both_reductions_of_two_sequences() -> None:
    means = {"long": 0.9, "short": 0.3}
    frames = {"long": 3, "short": 1}
    assert average_sequences(means, "frame-pooled", frames).value == pytest.approx(0.75)
    assert average_sequences(means, "sequence-mean").value == pytest.approx(0.6)


def test_masks_must_be_boolean_and_of_equal_shape() -> None:
    labels = np.zeros((4, 4), dtype=np.uint8)
    with pytest.raises(InvalidArgument, match="dtype uint8, expected bool"):
        region_similarity(labels, labels.astype(bool))
    with pytest.raises(InvalidArgument, match="nearest neighbour"):
        region_similarity(labels.astype(bool), np.zeros((4, 5), dtype=bool))
    with pytest.raises(InvalidArgument, match="expected"):
        score_masks(sequence(labels > 0)[0], sequence(labels > 0))
    with pytest.raises(InvalidArgument, match="tolerance"):
        boundary_accuracy(labels > 0, labels > 0, tolerance=0)
