"""The cue test measures what it says, and finds what is there and nothing else."""

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score
from test_training_loop import SMALL

from mut3r_analysis.errors import InvalidArgument
from mut3r_analysis.metrics.bootstrap import drawn_counts, percentile_bounds, resampled_means
from mut3r_analysis.metrics.ranking import auc_interval, weighted_auc
from mut3r_analysis.scenes import SceneDistribution
from mut3r_analysis.training.cue_trial import (
    DECLARED,
    DECLARED_LATER,
    Halves,
    cue_test,
    scenes_with_twins,
)
from mut3r_analysis.training.evidence import without
from mut3r_analysis.training.gating_trial import METRICS, gating_test
from mut3r_analysis.training.patches import observe, patch_truth
from mut3r_analysis.training.recipe import Recipe
from mut3r_analysis.training.starting import initial_model

RECIPE = Recipe.from_dict({**SMALL, "model": {**SMALL["model"], "dec_depth": 5}})


@pytest.fixture(scope="module")
def model():
    return initial_model(RECIPE.model, RECIPE.initialisation, seed=1).eval()


@pytest.fixture(scope="module")
def pair():
    return scenes_with_twins((SceneDistribution(movers=(1, 2)),), (64, 48), clips=6, frames=3)


def test_the_area_equals_sklearns_with_ties_and_weights():
    rng = np.random.default_rng(0)
    score = rng.integers(0, 12, 300).astype(float)
    positive = rng.random(300) < 0.3
    assert weighted_auc(score, positive) == pytest.approx(roc_auc_score(positive, score), abs=1e-12)
    weights = rng.integers(0, 4, (5, 300)).astype(float)
    expected = [roc_auc_score(positive, score, sample_weight=each) for each in weights]
    assert weighted_auc(score, positive, weights) == pytest.approx(expected, abs=1e-12)
    assert np.isnan(weighted_auc(score, np.zeros(300, bool)))


def test_intervals_hold_what_they_should():
    rng = np.random.default_rng(1)
    sequence = np.repeat(np.arange(200), 10)
    positive = rng.random(2000) < 0.5
    draws = drawn_counts(200, 300)
    assert (draws.sum(axis=1) == 200).all()
    value, low, high = auc_interval(rng.normal(size=2000) + positive, positive, sequence, draws)
    assert low < value < high
    assert low < 0.7602 < high  # Phi(1 / sqrt 2)
    values = rng.normal(2, 1, 200)
    means = resampled_means(np.r_[values[:-1], np.nan], draws)
    assert means.mean() == pytest.approx(values[:-1].mean(), abs=0.02)
    low, high = percentile_bounds(means)
    assert high - low == pytest.approx(2 * 1.96 / np.sqrt(200), rel=0.3)


def test_a_regression_takes_out_what_it_is_given_and_no_more():
    rng = np.random.default_rng(2)
    nuisance, signal = rng.normal(size=(2, 500))
    rest = without(3 * nuisance + signal + 5, nuisance[:, None], np.arange(500) < 250)
    assert abs(np.corrcoef(rest, nuisance)[0, 1]) < 0.2
    assert np.corrcoef(rest, signal)[0, 1] > 0.97


def test_twins_show_the_same_last_frame_with_nothing_moving(pair):
    moving, frozen = pair
    assert torch.equal(moving.image[:, -1], frozen.image[:, -1])
    assert torch.equal(moving.depth[:, -1], frozen.depth[:, -1])
    assert not torch.equal(moving.image[:, 0], frozen.image[:, 0])
    assert moving.moving[:, -1].any()
    assert not frozen.moving[:, -1].any()


def test_patch_labels_are_shares_of_pixels(pair):
    clips, _ = pair
    truth = patch_truth(clips, 8)
    clip, patch = np.argwhere(truth.moving)[0]
    row, column = divmod(patch, 8)
    tile = (clip, -1, slice(8 * row, 8 * row + 8), slice(8 * column, 8 * column + 8))
    assert clips.moving[tile].float().mean() >= 0.5
    assert (clips.instance[tile] > 0).float().mean() >= 0.5
    assert truth.nuisances["depth"][clip, patch] == pytest.approx(clips.depth[tile].mean().item())
    contrast = clips.image[clip, -1][:, tile[2], tile[3]].mean(0).std(correction=0).item()
    assert truth.nuisances["contrast"][clip, patch] == pytest.approx(contrast, rel=1e-3)
    assert not (truth.moving & truth.resting).any()
    assert not ((truth.moving | truth.resting) & truth.background).any()


def test_an_observation_has_every_cell_and_an_encoder_sees_no_history(model, pair):
    moving, frozen = (observe(model, each.image) for each in pair)
    layers, heads = RECIPE.model.dec_depth, RECIPE.model.dec_num_heads + 1
    encoder = RECIPE.model.enc_depth * (RECIPE.model.enc_num_heads + 1) * 7
    assert len(moving.cells) == layers * heads * (8 + 5 + 2) + encoder
    change = np.abs(moving.scores - frozen.scores).max(axis=(1, 2))
    history = np.array([cell.kind != "encoder_self" for cell in moving.cells])
    assert (change[~history] == 0).all()
    assert (change[history] > 0).mean() > 0.9


def test_the_halves_share_no_clip(pair):
    truth = patch_truth(pair[0], 8)
    halves = Halves(truth, truth.moving.shape[1])
    assert not set(halves.sequence[halves.choose]) & set(halves.sequence[halves.report])


def test_the_cue_test_finds_nothing_in_an_untrained_model(model):
    control = initial_model(RECIPE.model, RECIPE.initialisation, seed=2).eval()
    found = cue_test(model, control, clips=12, frames=2)
    assert len(found["declared"]) == len(DECLARED)
    tables = (found["declared"], found["declared_later"])
    single = (found["best"], found["again"], found["untrained"]["best"])
    for row in (*tables[0], *tables[1], *single):
        value, low, high = row["twin"]
        assert low <= value <= high
        assert abs(value - 0.5) < 0.2
    cell = ("kind", "statistic", "layer", "head", "sign")
    assert all(found["again"][name] == found["best"][name] for name in cell)
    assert found["again"]["objects"] != found["best"]["objects"]
    for row, (later, sign) in zip(tables[1], DECLARED_LATER, strict=True):
        declared = (later.kind, later.statistic, later.layer, "mean", sign)
        assert tuple(row[name] for name in cell) == declared
    encoder = [row for row in found["by_statistic"] if row["kind"] == "encoder_self"]
    assert all(row["twin"][0] == 0.5 and row["twin_change"][0] == 0 for row in encoder)
    assert len(found["probe"]) == RECIPE.model.dec_depth


def test_cells_declared_later_are_measured_on_other_scenes(model, monkeypatch):
    monkeypatch.setattr("mut3r_analysis.training.cue_trial.DECLARED_LATER", DECLARED)
    found = cue_test(model, model, clips=6, frames=2)
    for first, later in zip(found["declared"], found["declared_later"], strict=True):
        assert (first["kind"], first["statistic"]) == (later["kind"], later["statistic"])
        assert first["objects"] != later["objects"]


def test_the_cue_test_refuses_a_model_without_its_layers(model):
    shallow = {**SMALL["model"], "dec_depth": 3}
    control = initial_model(
        Recipe.from_dict({**SMALL, "model": shallow}).model, RECIPE.initialisation, seed=2
    )
    with pytest.raises(InvalidArgument, match="layers 0 to 4; this model has only 3"):
        cue_test(control, control, clips=4, frames=2)


def test_gates_change_errors_by_percents_of_the_ungated(model):
    found = gating_test(model, clips=6, frames=2)
    for gate in found["gates"].values():
        assert set(gate) == set(METRICS)
        for each in gate.values():
            difference = each["oracle"][0] - each["shuffled"][0]
            assert each["difference"][0] == pytest.approx(difference, abs=1e-4)


def test_clips_without_a_previous_frame_have_no_flow(pair):
    assert not pair[0].visible[:, 0].any()
    assert not pair[0].flow[:, 0].any()
