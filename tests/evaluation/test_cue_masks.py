"""Motion cues are scored as segmentations, beside published ones."""

from dataclasses import replace

import numpy as np
import pytest
import xarray as xr
from known_runs import a_run, a_sequence

import mut3r_analysis as m3
from mut3r_analysis.backbones.preparation import Preparation
from mut3r_analysis.backbones.random_weights import NAMED_CONFIGS, random_backbone
from mut3r_analysis.errors import InvalidArgument
from mut3r_analysis.evaluation.cue_masks import motion_masks
from mut3r_analysis.metrics import UndefinedMetric

PATCHES = ("frame", "patch_row", "patch_col")


def with_score(name, motion, moving):
    """A run of DAVIS whose cue scored patches of 2 px, without masks of its own."""
    frames = len(motion)
    sequence = a_sequence(name, frames, size=moving.shape[1:]).assign_attrs(kind="davis")
    sequence["motion_mask"].values[:] = moving
    run = a_run(sequence, change=lambda p: p.drop_vars("motion_mask"))
    run["cue"] = xr.Dataset({"motion": (PATCHES, motion)}, {"frame": np.arange(frames)})
    return run


def halves(frames=3, rows=3, columns=4):
    """The left half moves: scores of patches, and the mask of their pixels."""
    score = np.zeros((frames, rows, columns))
    score[..., : columns // 2] = 1
    return score, score.repeat(2, axis=1).repeat(2, axis=2) > 0


def test_a_score_is_cut_half_way_between_what_moves_and_what_does_not():
    score, moving = halves()
    run = with_score("dog", score, moving)
    found = motion_masks(run, np.arange(3), moving.shape[1:])
    np.testing.assert_array_equal(found, moving)
    scores = m3.evaluate(run, "motion:davis16:frame-pooled")
    assert float(scores["mean_region_mean"]) == float(scores["mean_boundary_mean"]) == 1


def test_one_threshold_cuts_all_frames_and_a_frame_without_a_score_is_empty():
    score, moving = halves()
    score[0] = np.nan
    score[2] *= 0.1
    found = motion_masks(with_score("dog", score, moving), np.arange(3), moving.shape[1:])
    assert not found[0].any()
    np.testing.assert_array_equal(found[1], moving[1])
    assert not found[2].any()
    scores = m3.evaluate(with_score("dog", score, moving), "motion:davis16:frame-pooled")
    assert float(scores["mean_region_mean"]) == pytest.approx(1 / 3)
    assert float(scores["mean_region_recall"]) == pytest.approx(1 / 3)


def test_a_flat_score_has_no_mask():
    score, moving = halves()
    with pytest.raises(InvalidArgument, match="the map is flat"):
        motion_masks(with_score("dog", np.ones_like(score), moving), np.arange(3), (6, 8))


def test_masks_of_pairs_are_scored_as_they_are():
    scene = m3.open_sequence("scenes/orbit-03", stop=3)
    cue = m3.PairCue.easi3r(clusters=8)
    backbone = m3.load_backbone("random:dust3r-small")
    run = m3.run_pairs(backbone, scene, graph="complete", cue=cue, progress=False)
    scores = m3.evaluate(run, "default:motion:masks")
    mask, true = run["cue/mask"].values, run["truth/motion_mask"].values
    both, either = (mask & true).sum((1, 2)), (mask | true).sum((1, 2))
    np.testing.assert_allclose(scores["frame_region"][0], both / either)


def test_masks_of_frames_read_together_are_scored_as_they_are():
    """VGGT4D's masks, by a narrow model as deep as their cue needs."""
    small = replace(NAMED_CONFIGS["vggt-small"], enc_embed_dim=16, dec_embed_dim=16, dec_depth=22)
    scene = m3.open_sequence("scenes/orbit-03", stop=4).assign_attrs(name="dog", kind="davis")
    cue = m3.WindowCue(offsets=(-1, 1), clusters=8)
    found = m3.reconstruct(random_backbone(small).eval(), scene, cue=cue)
    # Weights that were not trained find anything; the left half is what moves here.
    scene["motion_mask"][:] = False
    scene["motion_mask"][..., : scene.sizes["x"] // 2] = True
    scores = m3.evaluate(found, "default:motion:masks", truth=scene)
    preparation = Preparation(56, "width", 14)
    true = np.stack([preparation.mask(mask) for mask in scene["motion_mask"].values])
    mask = found["mask"].values
    both, either = (mask & true).sum((1, 2)), (mask | true).sum((1, 2))
    assert both.any()
    np.testing.assert_allclose(scores["frame_region"][0], both / either)
    np.testing.assert_allclose(scores["mean_region_mean"], (both / either).mean())
    assert 0 < float(scores["mean_boundary_mean"]) < 1
    # Poses and depth are there too; a published protocol names the input that it wants.
    assert float(m3.evaluate(found, "default:pose:sim3", truth=scene)["mean_ate"]) > 0
    with pytest.raises(UndefinedMetric, match=r"prepared its frames with size=56"):
        m3.evaluate(found, "motion:davis16:frame-pooled", truth=scene)
    with pytest.raises(UndefinedMetric, match="pass truth="):
        m3.evaluate(found, "default:motion:masks")


def test_own_numbers_stand_beside_the_published_ones():
    score, moving = halves()
    runs = [with_score(name, score, moving) for name in ("dog", "camel")]
    scores = m3.evaluate(runs, "motion:davis16:frame-pooled")
    # Two of 20 sequences are not the protocol, and no comparison is made of them.
    assert "2 of 20 sequences" in scores.attrs["incomplete"]
    with pytest.raises(
        InvalidArgument, match=r"2 of 20 sequences.* the published number is of all"
    ):
        m3.compare(scores)
    rows = m3.published(protocol="motion:davis16:frame-pooled", metric="region_mean")
    assert {"Easi3R_monst3r", "MonST3R (flow)"} <= set(rows["system"])


def test_a_run_without_masks_and_without_a_cue_says_what_to_do():
    score, moving = halves()
    run = with_score("dog", score, moving)
    del run["cue"]
    with pytest.raises(UndefinedMetric, match="run it with cue="):
        m3.evaluate(run, "motion:davis16:frame-pooled")
