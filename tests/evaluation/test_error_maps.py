"""Errors by pixel and patch, and their change: planted, and found where they were planted."""

from dataclasses import replace

import numpy as np
import pytest
from known_runs import a_run, a_sequence

import mut3r_analysis as m3
from mut3r_analysis.errors import InvalidArgument
from mut3r_analysis.evaluation import errors_of, harms, patch_harm, worst_frames
from mut3r_analysis.evaluation.error_maps import over_patches

SEQUENCE = a_sequence(indices=range(10, 14), size=(32, 48))
SEQUENCE["depth"][:, 16:, 32:] = 20.0
"""Two by three patches of 16 px; the last is so far that its errors do not move the median."""


def changed(scale=1.0, frame=None, factor=1.0):
    """A run that predicts the truth, but for a scale and for a patch (1, 2) of one frame."""

    def change(prediction):
        depth = (prediction["depth"] * scale).copy()
        if frame is not None:
            depth.loc[{"frame": frame}][16:, 32:] *= factor
        return prediction.assign(depth=depth)

    return a_run(SEQUENCE, change=change)


def test_an_error_is_taken_after_the_alignment_of_the_score():
    run = changed(scale=2.0, frame=12, factor=1.5)
    found = errors_of(run)
    expected = np.zeros((4, 32, 48))
    expected[2, 16:, 32:] = 0.5
    np.testing.assert_allclose(found["error"], expected, atol=1e-6)
    assert found["frame"].values.tolist() == [10, 11, 12, 13]
    assert found["patch_error"].sel(frame=12).values.tolist() == pytest.approx(
        np.array([[0, 0, 0], [0, 0, 0.5]]), abs=1e-6
    )
    raw = errors_of(run, "default:depth:metric", frames=[11])["error"]
    np.testing.assert_allclose(raw, np.ones((1, 32, 48)), rtol=1e-6)


def test_the_mean_of_a_frame_is_its_score_under_maximum_and_clip():
    protocol = replace(
        m3.metrics.protocol("default:depth:scale_median"), id="mine", maximum=6.0, clip=5.0
    )
    run = changed(frame=12, factor=1.5)
    found = errors_of(run, protocol)["error"]
    scores = m3.evaluate(run, protocol)
    frames = scores["frame_abs_rel"].isel(sequence=0)
    np.testing.assert_allclose(found.mean(["y", "x"]), frames, rtol=1e-5)
    assert (found.isnull() == (SEQUENCE["depth"].values >= 6)).all()
    given = errors_of(run, protocol, scores=scores)["error"]
    np.testing.assert_array_equal(given, found)


def test_a_protocol_without_depth_is_refused():
    with pytest.raises(InvalidArgument, match="scores no depth"):
        errors_of(changed(), "default:pose:sim3")


def test_means_of_patches_leave_out_what_is_not_known():
    pixels = SEQUENCE["depth"][:1].copy(data=np.ones((1, 32, 48)))
    pixels[0, :16, :16] = np.nan
    pixels[0, :8, 16:32] = np.nan
    pixels[0, 8:16, 16:32] = 3
    found = over_patches(pixels, (2, 3))[0]
    np.testing.assert_array_equal(found, [[np.nan, 3, 1], [1, 1, 1]])


def test_harm_is_found_in_the_frame_and_patch_where_it_was_planted():
    plain, gated = changed(), changed(scale=3.0, frame=12, factor=1.5)
    found = harms(m3.evaluate(plain), m3.evaluate(gated))
    assert found.attrs["metric"] == "abs_rel"
    worst = worst_frames(found, 1)
    assert worst["frame"].tolist() == [12]
    # One of six patches of the frame is wrong by a half.
    assert worst["harm"].tolist() == pytest.approx([0.5 / 6])
    where = patch_harm(plain, gated)
    expected = np.zeros((4, 2, 3))
    expected[2, 1, 2] = 50
    np.testing.assert_allclose(where, expected, atol=1e-4)
    assert where.attrs["units"] == "% of the true depth"


def test_without_truth_patches_tell_how_far_the_runs_differ():
    runs = [changed(), changed(frame=11, factor=np.e)]
    for run in runs:
        del run["truth"]
    where = patch_harm(*runs)
    expected = np.zeros((4, 2, 3))
    expected[1, 1, 2] = 100
    np.testing.assert_allclose(where, expected, atol=1e-4)
    assert "no true depth" in where.attrs["comment"]
