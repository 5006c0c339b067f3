"""Supervision of the cue: arms differ in one term, and the finding follows the numbers."""

import math
from dataclasses import replace

import nbformat
import numpy as np
import pytest
import torch
import xarray as xr

import mut3r_analysis as m3
from mut3r_analysis.errors import InvalidArgument
from mut3r_analysis.motion import Cue, Gate
from mut3r_analysis.notebooks.execution import execute_notebook, find_notebook
from mut3r_analysis.running import Configuration
from mut3r_analysis.scenes import SceneDistribution
from mut3r_analysis.studies import measures
from mut3r_analysis.studies.finding import HIGHER, LOWER, TOO_FEW, findings_of
from mut3r_analysis.studies.supervision import scores as supervision_scores
from mut3r_analysis.studies.supervision.fine_tuning import (
    ARMS,
    CONTROL,
    ORIGINAL,
    SUPERVISED,
    FineTuning,
    evidence_of,
    fine_tune,
    moving_share,
    spread,
    supervision,
)
from mut3r_analysis.training.clip_cues import KINDS, areas, scored
from mut3r_analysis.training.rollout import roll_out
from mut3r_analysis.training.validation import held_out_clips, score_clips

NOTEBOOK = "06_cue_as_supervision"
POINTS = supervision_scores.ERRORS[supervision_scores.PRIMARY][0]
SCENES = SceneDistribution(movers=(1, 2))
TINY = FineTuning(steps=1, clips=2, frames=2, scenes=SCENES)


@pytest.fixture(scope="module")
def backbone():
    return m3.load_backbone("random:small")


@pytest.fixture(scope="module")
def clips():
    return held_out_clips(SCENES, (64, 48), 4, 3, seed=11)


def cue(layer=2, **changes):
    return Cue.mut3r(layers=(layer, layer + 1), **changes)


def test_the_term_is_the_cross_entropy_of_the_standardised_cue():
    rng = np.random.default_rng(0)
    evidence, share = rng.normal(size=(2, 3, 12)), (rng.random((2, 3, 12)) < 0.3).astype(float)
    share[..., 0], share[..., 1] = 1, 0
    expected = []
    for x, y in zip(evidence.reshape(-1, 12), share.reshape(-1, 12), strict=True):
        score = 1 / (1 + np.exp(-(x - x.mean()) / x.std()))
        moving, resting = -np.log(score[y == 1]).mean(), -np.log(1 - score[y == 0]).mean()
        expected.append((moving + resting) / 2)
    found = supervision(torch.from_numpy(evidence), torch.from_numpy(share))
    assert float(found) == pytest.approx(np.mean(expected), rel=1e-9)


def test_the_term_falls_when_the_cue_follows_the_mask_and_ignores_still_frames():
    share = torch.zeros(1, 1, 8)
    share[..., :2] = 1
    blind = torch.tensor([1.0, -1.0] * 4)[None, None]
    assert float(supervision(share, share)) < math.log(2) < float(supervision(-share, share))
    assert float(supervision(blind, share)) > float(supervision(share, share))
    both = torch.cat([share, torch.zeros_like(share)])
    assert torch.equal(supervision(both, both), supervision(share, share))
    assert float(supervision(blind, torch.zeros_like(share))) == 0


def test_the_spread_is_the_deviation_over_patches_and_does_not_see_offsets():
    evidence = torch.randn(
        3, 2, 40, dtype=torch.float64, generator=torch.Generator().manual_seed(0)
    )
    expected = evidence.numpy().std(axis=-1).mean()
    assert float(spread(evidence)) == pytest.approx(expected, rel=1e-6)
    assert float(spread(3 * evidence + 5)) == pytest.approx(3 * expected, rel=1e-6)


def test_the_reader_changes_nothing_and_has_gradients(backbone, clips):
    training = m3.load_backbone("random:small").requires_grad_(True)
    watched = roll_out(training, clips.image, configuration=Configuration(cue=cue()))
    plain = roll_out(backbone, clips.image).prediction
    assert torch.equal(watched.prediction.points_world.detach(), plain.points_world)
    supervision(evidence_of(watched, cue())[:, :1], moving_share(clips, 8)[:, :1]).backward()
    projection = training.dec_blocks[2].attn.qkv.weight.grad
    assert float(projection.abs().max()) > 0


def test_a_walk_reads_the_cue_of_a_run(backbone):
    sequence = m3.open_sequence("scenes/orbit-03", stop=3)
    images = torch.stack(
        [torch.from_numpy(backbone.preparation.image(each)) for each in sequence.image.values]
    )[None]
    moving = torch.zeros(1, 3, *images.shape[-2:], dtype=torch.bool)
    clips = replace(held_out_clips(SCENES, (64, 48), 1, 3), image=images, moving=moving)
    gate = Gate.mut3r(beta=2.0)
    for chosen in (None, gate):
        run = m3.run(backbone, sequence, cue=cue(), gate=chosen, progress=False)
        scores, _ = scored(backbone, clips, cue(), gate=chosen)
        np.testing.assert_allclose(scores[0].numpy(), run["cue/motion"].values, atol=2e-5)


def test_replayed_gates_repeat_the_gated_walk(backbone, clips):
    gate = Gate.mut3r(beta=1.0)
    scores, _ = scored(backbone, clips, Cue.oracle(), gate=gate)
    shares = torch.nn.functional.avg_pool2d(clips.moving.flatten(0, 1)[:, None].float(), 8)
    torch.testing.assert_close(scores.flatten(0, 1), shares[:, 0])
    repeated = Configuration(cue=Cue.oracle("score"), gate=gate)

    def depth(given):
        found = score_clips(backbone, clips, configuration=repeated, masks={"score": given})
        return found.errors["depth"]

    none = score_clips(backbone, clips).errors["depth"]
    zero, some = depth(0 * scores), depth(scores)
    np.testing.assert_allclose(zero, none, rtol=1e-5)
    assert not np.allclose(some, none, rtol=1e-5)


def test_the_area_is_one_for_the_mask_and_a_half_for_a_constant(clips):
    mask, _ = scored(m3.load_backbone("random:small"), clips, Cue.oracle())
    perfect, blind = (areas(each, clips, 8) for each in (mask, torch.zeros_like(mask)))
    assert perfect.dims == ("kind", "clip")
    known = perfect.notnull()
    assert known.any()
    assert (perfect.where(known, 1) == 1).all()
    assert (blind.where(known, 0.5) == 0.5).all()
    still = replace(clips, moving=torch.zeros_like(clips.moving))
    assert areas(mask, still, 8).isnull().all()


def test_a_cue_that_has_no_gradient_is_refused(backbone):
    for bad in (Cue.oracle(), cue(control="shuffle"), Cue(site="encoder_self", layers=(0, 1))):
        with pytest.raises(InvalidArgument, match="cue term needs"):
            fine_tune(backbone, bad, TINY, progress=False)
    with pytest.raises(InvalidArgument, match="arms must be among original"):
        fine_tune(backbone, cue(), TINY, arms=("nonsense",), progress=False)


@pytest.fixture(scope="module")
def tuned(backbone):
    before = {name: value.clone() for name, value in backbone.state_dict().items()}
    models, log = fine_tune(backbone, cue(), TINY, progress=False)
    assert all(torch.equal(before[name], each) for name, each in backbone.state_dict().items())
    return models, log


def test_arms_start_equal_and_part_by_their_term_alone(backbone, tuned):
    models, log = tuned
    assert list(models) == list(ARMS)
    assert models[ORIGINAL] is backbone
    first = log.isel(step=0)
    assert (first.loss == first.loss[0]).all()
    assert (first.spread == first.spread[0]).all()
    weights = {
        arm: model.state_dict()["dec_blocks.2.attn.qkv.weight"] for arm, model in models.items()
    }
    for arm in weights:
        others = [weights[other] for other in weights if other != arm]
        assert not any(torch.equal(weights[arm], other) for other in others)
    assert len({model.origin.sha256 for model in models.values()}) == len(ARMS)
    again, repeated = fine_tune(backbone, cue(), TINY, arms=(CONTROL,), progress=False)
    assert torch.equal(
        again[CONTROL].state_dict()["dec_blocks.2.attn.qkv.weight"], weights[CONTROL]
    )
    np.testing.assert_array_equal(repeated.loss[0], log.loss.sel(arm=CONTROL))


def test_scores_and_strategies_are_labelled_and_paired(tuned, clips):
    models = {arm: tuned[0][arm] for arm in (CONTROL, SUPERVISED)}
    gate = Gate.mut3r(beta=1.0)
    scores = supervision_scores.score_arms(models, clips, cue(), gate)
    assert scores.depth.dims == ("arm", "inference", "clip")
    assert scores.auc_layer.sizes["layer"] == 4
    # One layer by itself is the declared cue where the declared cue is that layer.
    plain = scores.auc.sel(inference="plain", drop=True)
    xr.testing.assert_allclose(plain, scores.auc_layer.isel(layer=2, drop=True), atol=1e-6)
    changes = supervision_scores.strategies(scores)
    reference = changes.sel(arm=CONTROL, inference="plain")
    assert (reference[["value", "lower", "upper"]].to_array() == 0).all()
    controls = supervision_scores.score_controls(models[CONTROL], clips, cue(), gate)
    shown = supervision_scores.gate_controls(scores, controls)
    assert list(shown.inference.values) == ["own cue", "own cue, shuffled", "true mask"]
    own = changes.value.sel(arm=CONTROL, drop=True)
    xr.testing.assert_allclose(shown.value.sel(inference="own cue"), own.sel(inference="own cue"))


def synthetic(supervised=0.0, gated=0.0, auc=0.0, clips=24, arms=tuple(ARMS), trained=0.0):
    """Scores in which supervision, gating and training on scale errors by known factors."""
    rng = np.random.default_rng(1)
    base = 1 + 0.1 * rng.random(clips)
    factor = xr.DataArray(
        np.ones((len(arms), 2)), {"arm": list(arms), "inference": ["plain", "own cue"]}
    )
    factor.loc[{"inference": "own cue"}] *= 1 + gated
    factor.loc[{"arm": [arm for arm in arms if arm != ORIGINAL]}] *= 1 + trained
    if SUPERVISED in arms:
        factor.loc[{"arm": SUPERVISED}] *= 1 + supervised
    noise = xr.DataArray(
        1 + 0.001 * rng.standard_normal((len(arms), 2, clips)), dims=("arm", "inference", "clip")
    )
    error = factor * xr.DataArray(base, dims="clip") * noise
    scores = xr.Dataset({name: error.copy() for name in supervision_scores.ERRORS})
    areas_ = xr.DataArray(
        0.6 + 0.01 * rng.standard_normal((len(arms), 2, 2, clips)),
        {"arm": list(arms), "inference": ["plain", "own cue"], "kind": list(KINDS)},
        ("arm", "inference", "kind", "clip"),
    )
    if SUPERVISED in arms:
        areas_.loc[{"arm": SUPERVISED}] += auc
    return scores.assign(auc=areas_)


@pytest.mark.parametrize(
    ("given", "verdicts"),
    [
        ({"supervised": -0.1, "gated": 0.2}, [LOWER, HIGHER, HIGHER]),
        ({"supervised": -0.1, "gated": -0.2}, [LOWER, LOWER, LOWER]),
        ({"supervised": 0.1, "gated": 0.1}, [HIGHER, HIGHER, HIGHER]),
        ({"supervised": 0.1, "gated": 0.1, "clips": 4}, [TOO_FEW, TOO_FEW, TOO_FEW]),
    ],
)
def test_the_finding_follows_the_scores(given, verdicts):
    found = supervision_scores.finding(synthetic(**given))
    assert [each.verdict for each in found.rows[: found.lead]] == verdicts


def test_the_finding_tells_what_became_of_the_cue():
    name = f"AUC of the cue, {KINDS[1]}, {SUPERVISED}"
    told = [supervision_scores.finding(synthetic(auc=x)).row(name).verdict for x in (0.1, -0.1)]
    assert told == [HIGHER, LOWER]


def test_what_training_on_does_to_every_arm_is_told_beside_what_their_terms_do():
    effect = "training on without the term, against the original"
    worse, same = (supervision_scores.finding(synthetic(trained=by)) for by in (0.1, 0.0))
    assert worse.row(effect).value == pytest.approx(10, abs=0.5)
    assert worse.row(effect).verdict == HIGHER
    # Against the control, nothing of it is to be seen.
    assert worse.row(f"{POINTS} with both").value == pytest.approx(
        same.row(f"{POINTS} with both").value
    )
    untold = supervision_scores.finding(synthetic(arms=(CONTROL, SUPERVISED)))
    assert not any(each.effect == effect for each in untold.rows)


def test_the_finding_answers_only_for_the_gate_where_nothing_was_trained():
    said = supervision_scores.finding(synthetic(gated=-0.2, arms=(ORIGINAL,)))
    assert "No arm was trained" in said.answer
    assert said.row(f"{POINTS} with gating alone").value == pytest.approx(-20, abs=0.5)


def test_the_price_counts_passes_and_copies(backbone):
    priced = supervision_scores.price(backbone, TINY)
    frame = m3.open_sequence(np.zeros((1, 48, 64, 3), np.uint8), name="frame")
    forward = sum(m3.plan(backbone, frame).flops.values())
    assert float(priced.operations) == 3 * forward * 1 * 2 * 2 * 4
    count = sum(weight.numel() for weight in backbone.parameters())
    assert float(priced.memory) == 20 * count
    said = supervision_scores.not_run(priced, largest=10)
    assert "Not answered here" in said.answer
    assert f"{count / 1e6:,.1f} million" in said.answer


def test_without_truth_only_departures_are_known(tuned, tmp_path):
    models = {arm: tuned[0][arm] for arm in (ORIGINAL, CONTROL)}
    bare = m3.open_sequence(m3.open_sequence("scenes/orbit-03", stop=2)[["image"]])
    runs = supervision_scores.run_arms(
        models, bare, cue(), Gate.mut3r(), out=tmp_path, progress=False
    )
    assert measures.errors({"default": runs}).sizes["measure"] == 0
    found = supervision_scores.transfer(runs)
    same = found.sel(arm=ORIGINAL, inference="plain").squeeze()
    np.testing.assert_allclose(same, [0, 0, 1])
    assert (found.sel(arm=CONTROL, measure="depth changed") > 0).all()


def test_the_notebook_is_committed_clean():
    notebook = nbformat.read(find_notebook(NOTEBOOK), as_version=nbformat.NO_CONVERT)
    nbformat.validate(notebook)
    code = [each for each in notebook.cells if each.cell_type == "code"]
    assert all(not each.outputs and each.execution_count is None for each in code)


FAST = {
    "steps": 1,
    "clips": 2,
    "clip_frames": 2,
    "held_out_clips": 6,
    "held_out_frames": 2,
    "frames": 2,
    "progress": False,
}


@pytest.mark.slow
def test_the_notebook_answers_on_scenes(tmp_path):
    given = {**FAST, "sequences": ["scenes/orbit-03"], "out": tmp_path}
    notebook = execute_notebook(find_notebook(NOTEBOOK), given)
    (found,) = findings_of(notebook)
    assert found.question == supervision_scores.QUESTION
    assert found.row(f"{POINTS} with both").n == 6


@pytest.mark.slow
def test_the_notebook_prices_what_it_does_not_train_and_runs_without_truth(shared, tmp_path):
    notebook = execute_notebook(
        find_notebook(NOTEBOOK),
        {
            **FAST,
            "backbone": "random:small",
            "largest": 1000,
            "out": tmp_path,
            "sequences": [str(shared / "frames" / "walking_woman")],
        },
    )
    (found,) = findings_of(notebook)
    assert "Not answered here" in found.answer
    (said,) = (each for each in notebook.cells if each.id == "run-sequences")
    assert "are shown: walking_woman." in said.outputs[-1].data["text/markdown"]
