"""From cue to gain: degraded masks, own cues, and the AUC from which on gating helps."""

import math

import numpy as np
import pytest
import torch
import xarray as xr

import mut3r_analysis as m3
from mut3r_analysis.motion import Gate
from mut3r_analysis.notebooks.execution import execute_notebook, find_notebook
from mut3r_analysis.scenes import SceneDistribution
from mut3r_analysis.studies.finding import NOT_MEASURED, findings_of
from mut3r_analysis.studies.gain import measure as gain
from mut3r_analysis.training.clip_cues import areas
from mut3r_analysis.training.cue_trial import scenes_with_twins
from mut3r_analysis.training.motion_trial import patch_shares, soft_scores
from mut3r_analysis.training.validation import held_out_clips

MIXED = SceneDistribution(objects=6, movers=(2, 3), mover_speed=(0.4, 1.0), fog=6.0)


@pytest.fixture(scope="module")
def clips():
    return held_out_clips(MIXED, (64, 48), 6, 4, seed=571_000)


@pytest.fixture(scope="module")
def model():
    return m3.load_backbone("tiny")


def auc(scores, clips) -> float:
    return float(np.nanmean(areas(scores, clips, 8).values[0]))


def test_flips_lower_the_auc_by_their_share(clips):
    shares = patch_shares(clips.moving, 8)
    assert auc(gain.flipped(shares, 0.0), clips) == 1
    for part in (0.1, 0.3, 0.5):  # both classes lose the same share
        assert auc(gain.flipped(shares, part), clips) == pytest.approx(1 - part, abs=0.08)


def test_noise_takes_the_auc_from_perfect_to_chance(clips):
    shares = patch_shares(clips.moving, 8)
    found = [auc(gain.noisy(shares, noise), clips) for noise in gain.NOISE]
    assert found[0] > 0.99
    assert found[-1] == pytest.approx(0.5, abs=0.08)
    assert found[0] > found[3] > found[6] > found[7] - 0.08


def test_soft_scores_are_standardised_per_frame(clips):
    shares = patch_shares(clips.moving, 8)[0, 2]
    expected = torch.sigmoid(2 * (shares - shares.mean()) / shares.std(correction=0))
    torch.testing.assert_close(soft_scores(shares[None, None], 2.0)[0, 0], expected)


def test_every_reading_is_a_cue_where_it_describes_patches(model):
    cues = gain.own_cues(model)
    assert cues["logit_query_mean at state_to_image"].layers == range(3, 6)
    assert "pose_complement at image_to_state" not in cues  # the state has no pose token
    assert {cue.reading for cue in cues.values()} == {*m3.motion.READINGS, "instability"}


def test_a_gate_that_is_off_changes_nothing(model, clips):
    off = Gate(image_self="pair_bias", state_to_image=None, image_to_state=None, beta=0.0)
    perfect = gain.flipped(patch_shares(clips.moving, 8), 0.0)
    found = gain.gains(
        model, clips, [gain.Score(gain.HARD, "off", 0.0, perfect, off)], progress=False
    )
    assert not found["change"].any()
    assert found["auc"].item() == 1
    assert found.attrs["clips"] == 6


def test_worse_masks_gain_less(model, clips):
    shares = patch_shares(clips.moving, 8)
    given = [
        gain.Score(gain.HARD, f"{part}", part, gain.flipped(shares, part), gain.GATE)
        for part in (0.0, 0.5)
    ]
    found = gain.gains(model, clips, given, total=2, progress=False)
    perfect, worthless = found["change"].sel(metric="rpe_translation").values
    assert perfect < 10 < worthless


def made(upper: list[float]) -> xr.Dataset:
    """Five degrees of degradation, of AUC .9 to .5, with these upper bounds."""
    aucs = np.array([0.7, 0.9, 0.8, 0.6, 0.5])
    bounds = np.array(upper)[[2, 0, 1, 3, 4], None]
    return xr.Dataset(
        {"auc": ("score", aucs), "change_upper": (("score", "metric"), bounds)},
        coords={"metric": ["ate"], "family": ("score", [gain.HARD] * 5)},
    )


@pytest.mark.parametrize(
    ("upper", "least"),
    [
        ([-3, -2, -1, 1, 2], 0.7),
        ([-3, 1, -1, -1, -1], 0.9),  # what helps below a worse gap is luck
        ([1, -2, -2, -2, -2], math.nan),
        ([-3, -3, -3, -3, -3], 0.5),
    ],
)
def test_the_least_auc_is_that_from_which_on_all_scores_help(upper, least):
    found = gain.least_auc(made(upper), gain.HARD, "ate")
    assert found == least or (math.isnan(found) and math.isnan(least))


@pytest.mark.slow
def test_the_notebook_answers(model):
    notebook = execute_notebook(
        find_notebook("14_cue_to_gain"),
        {
            "backbones": ["tiny-static"],
            "clips": 4,
            "frames": 3,
            "metrics": ["rpe_translation"],
            "progress": False,
        },
    )
    answer, own, *editions = findings_of(notebook)
    assert answer.question == gain.QUESTION
    assert own.question == "Does gating by the own cues of tiny-static help?"
    assert len(own.rows) == len(gain.own_cues(model))
    assert NOT_MEASURED not in {row.verdict for row in own.rows}
    assert [each.question for each in editions] == [
        f"What do MUT3R's cue and gates do in tiny-static, {side}?"
        for side in ("moving", "at rest")
    ]


def test_editions_are_compared_with_their_controls_where_objects_move_and_where_nothing_does(model):
    pair = scenes_with_twins((MIXED,), (64, 48), 3, 3, first=21_000)
    found = gain.compare_editions(model, *pair, progress=False)
    assert list(found) == ["moving", "at rest"]
    labels = found["moving"]["label"].values.tolist()
    assert labels == ["own cue, edition 2", "own cue, edition 1", "another clip's scores",
                      "shuffled", "inverted", "all objects", "true share"]  # fmt: skip
    auc = found["moving"].set_index(score="label")["auc"]
    assert auc.sel(score="inverted").item() == pytest.approx(1 - auc.sel(score=labels[0]).item())
    assert auc.sel(score="true share").item() > 0.99
    moving, resting = (found[side]["change"].isel(score=0) for side in found)
    assert (moving != resting).all()
