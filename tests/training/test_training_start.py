"""A training may go on from trained weights: those that its recipe names, and no others."""

import argparse
from dataclasses import fields, replace

import numpy as np
import pytest
import torch
from test_training_loop import SMALL, same, weights

from mut3r_analysis.backbones import load_backbone
from mut3r_analysis.errors import InvalidArgument, MissingFile
from mut3r_analysis.foundation.bundled import data_path
from mut3r_analysis.training.clips import clips_at
from mut3r_analysis.training.command import add_parser
from mut3r_analysis.training.loop import Training, read_table, train
from mut3r_analysis.training.objective import objective_terms, world_points
from mut3r_analysis.training.recipe import Recipe, read_recipe
from mut3r_analysis.training.rollout import roll_out
from mut3r_analysis.training.validation import score_clips

CPU = torch.device("cpu")
STAGES = [
    {"name": "helpers", "train": "helpers", "steps": 3, "clips": 2, "frames": 2},
    {"name": "all", "steps": 100, "clips": 2, "frames": 3},
]


@pytest.fixture(scope="module")
def start(tmp_path_factory):
    """A small trained model."""
    folder = tmp_path_factory.mktemp("start")
    return train(Recipe.from_dict(SMALL), steps=2, out=folder, progress=False)


def recipe_from(checkpoint, **changes):
    sha256 = load_backbone(checkpoint, device="cpu").origin.sha256
    start = {"checkpoint": str(checkpoint), "sha256": sha256}
    return Recipe.from_dict({**SMALL, "stages": STAGES, "start": start, **changes})


def test_a_training_starts_from_the_weights_its_recipe_names(start):
    training = Training.begin(recipe_from(start), CPU)
    wanted = load_backbone(start, device="cpu").state_dict()
    assert same(wanted, training.model.state_dict())
    assert same(wanted, training.average.state_dict())


def test_only_the_helpers_learn_while_the_model_is_frozen(start):
    training = Training.begin(recipe_from(start), CPU)
    began = {name: value.clone() for name, value in training.model.state_dict().items()}
    heads = {name: value.clone() for name, value in training.helpers.state_dict().items()}
    for step in range(3):
        training.advance(clips_at(training.recipe, step))
    assert same(began, training.model.state_dict())
    assert same(began, training.average.state_dict())
    assert not torch.equal(
        heads["flow.fc2.weight"], training.helpers.state_dict()["flow.fc2.weight"]
    )
    training.advance(clips_at(training.recipe, 3))
    assert not same(began, training.model.state_dict())


def test_stopping_and_going_on_from_given_weights_changes_nothing(start, tmp_path):
    recipe = recipe_from(start)
    train(recipe, steps=6, out=tmp_path / "whole", progress=False)
    for steps in (2, 5, 6):
        train(recipe, steps=steps, out=tmp_path / "parts", progress=False)
    assert same(weights(tmp_path / "whole"), weights(tmp_path / "parts"))


def test_other_weights_than_the_recipe_names_are_refused(start, tmp_path):
    recipe = recipe_from(start)
    other = replace(recipe, start=replace(recipe.start, sha256="0" * 64))
    with pytest.raises(InvalidArgument, match=r"starts from .* with sha256 0000.* have sha256"):
        train(other, steps=1, out=tmp_path, progress=False)
    deeper = {**SMALL["model"], "dec_depth": 3}
    with pytest.raises(InvalidArgument, match="describes another model than its start"):
        train(recipe_from(start, model=deeper), steps=1, out=tmp_path, progress=False)
    missing = replace(recipe, start=replace(recipe.start, checkpoint="nowhere"))
    with pytest.raises(MissingFile, match="no checkpoint 'nowhere'"):
        train(missing, steps=1, out=tmp_path, progress=False)
    assert not list(tmp_path.glob("*.safetensors"))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"start": {"checkpoint": "tiny"}}, "start .*sha256"),
        ({"start": {"checkpoint": "tiny", "sha256": "abc"}}, "64 hex digits"),
        ({"start": {"checkpoint": "", "sha256": "0" * 64}}, "start.checkpoint must be"),
        ({"stages": [{**STAGES[0], "train": "heads"}]}, "choose 'all' or 'helpers'"),
    ],
)
def test_a_start_that_cannot_mean_anything_is_refused(change, message):
    with pytest.raises(InvalidArgument, match=message):
        Recipe.from_dict({**SMALL, **change})


def test_a_recipe_with_a_start_round_trips_and_others_keep_their_identity(start):
    recipe = recipe_from(start)
    assert Recipe.from_dict(recipe.to_dict()) == recipe
    assert recipe.sha256 != replace(recipe, start=None).sha256
    plain = Recipe.from_dict(SMALL).to_dict()
    assert "start" not in plain
    assert all("train" not in stage for stage in plain["stages"])


def test_the_static_recipe_goes_on_from_tiny_and_shows_nothing_that_moves():
    recipe = read_recipe(data_path("training", "tiny-static.yaml"))
    tiny = read_recipe(data_path("training", "tiny.yaml"))
    assert recipe.model == tiny.model
    assert recipe.start.sha256 == load_backbone("tiny", device="cpu").origin.sha256
    assert recipe.objective_at(recipe.steps - 1) == tiny.objective_at(tiny.steps - 1)
    assert {scenes.movers for stage in recipe.stages for scenes in stage.scenes} == {(0, 0)}


def test_another_kind_of_model_takes_what_fits_in_name_and_shape():
    training = Training.begin(read_recipe(data_path("training", "tiny-pointers.yaml")), CPU)
    tiny = load_backbone("tiny", device="cpu").state_dict()
    own = training.model.state_dict()
    for name, old in {
        "enc_blocks.1.mlp.fc1.weight": "enc_blocks.1.mlp.fc1.weight",
        "dec_blocks.3.cross_attn.projq.weight": "dec_blocks.3.cross_attn.projq.weight",
        "dec_blocks_memory.5.norm1.bias": "dec_blocks_state.5.norm1.bias",
        "downstream_head.cross_proj.fc2.weight": "downstream_head.cross_proj.fc2.weight",
        "pts_patch_embed.proj.weight": "patch_embed.proj.weight",
    }.items():
        assert torch.equal(own[name], tiny[old])
    assert not torch.equal(own["dec_blocks.0.attn.qkv.bias"], tiny["dec_blocks.0.attn.qkv.bias"])
    report = training.average.origin.report
    assert len(report) == len(own)
    assert "memory_attn_head.0.weight (128, 128): new" in report
    assert "dec_norm_memory.bias (64,): from dec_norm_state.bias" in report


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"sha256": "0" * 64}, "have sha256"),
        ({"renamed": {"dec_blocks_memory.": "nothing."}}, "fits what start says of .*memory"),
        ({"new": ["value_encoder.*"]}, "fits what start says of .*value_encoder"),
    ],
)
def test_a_start_that_another_kind_of_model_cannot_take_is_refused(change, message):
    recipe = read_recipe(data_path("training", "tiny-pointers.yaml"))
    with pytest.raises(InvalidArgument, match=message):
        Training.begin(replace(recipe, start=replace(recipe.start, **change)), CPU)


def test_gradients_of_a_late_frame_reach_what_wrote_the_pointers_of_the_first():
    training = Training.begin(read_recipe(data_path("training", "tiny-pointers.yaml")), CPU)
    images = clips_at(replace(training.recipe, seed=5), 2).image[:2, :3].clone().requires_grad_()
    found = roll_out(training.model, images)
    found.final[:, 2].sum().backward()
    # the memory is the only way from frame to frame
    assert images.grad[:, 0].abs().sum() > 0
    assert images.grad[:, 1].abs().sum() > 0
    writer = training.model.get_submodule("memory_attn_head")
    assert all(each.grad.abs().sum() > 0 for each in writer.parameters())
    assert training.model.value_out.weight.grad.abs().sum() > 0


@pytest.mark.slow
def test_pointers_are_trained_in_parts_as_in_one_go_and_load_by_file(tmp_path):
    recipe = read_recipe(data_path("training", "tiny-pointers.yaml"))
    stage = replace(recipe.stages[0], clips=2, frames=3)
    small = replace(recipe, stages=(stage,), reports=replace(recipe.reports, clips=2))
    made = train(small, steps=4, out=tmp_path / "whole", progress=False)
    for steps in (2, 4):
        train(small, steps=steps, out=tmp_path / "parts", progress=False)
    assert same(weights(tmp_path / "whole"), weights(tmp_path / "parts"))
    assert load_backbone(made, device="cpu").config == recipe.model
    assert "memory_attn_head.2.bias (64,): new" in (tmp_path / "parts" / "start.txt").read_text()


@pytest.mark.slow
def test_steps_of_the_recipe_of_pointers_from_the_command_line(tmp_path, capsys):
    parser = argparse.ArgumentParser()
    add_parser(parser.add_subparsers())
    out = tmp_path / "out"
    words = ["train", "--recipe", "tiny-pointers", "--steps", "4", "--out", str(out), "--quiet"]
    args = parser.parse_args(words)
    assert args.run(args) == 0
    assert "tiny-pointers.safetensors" in capsys.readouterr().out
    log = read_table(out / "log.csv")
    assert log["frames"].tolist() == [2 * 128 + 64 + 128]
    model = load_backbone(out / "tiny-pointers.safetensors", device="cpu")
    assert model.state_grows


def test_matching_is_refused_for_a_memory_that_grows():
    recipe = read_recipe(data_path("training", "tiny-pointers.yaml"))
    recipe = replace(recipe, objective=replace(recipe.objective, matching=0.5))
    with pytest.raises(InvalidArgument, match=r"Set objective\.matching to 0"):
        Training.begin(recipe, CPU).advance(clips_at(recipe, 2))


@pytest.mark.slow
def test_fifty_steps_of_the_static_recipe_from_the_command_line(tmp_path, capsys):
    parser = argparse.ArgumentParser()
    add_parser(parser.add_subparsers())
    out = tmp_path / "out"
    words = ["train", "--recipe", "tiny-static", "--steps", "50", "--out", str(out), "--quiet"]
    args = parser.parse_args(words)
    assert args.run(args) == 0
    assert "tiny-static.safetensors" in capsys.readouterr().out
    log = read_table(out / "log.csv")
    assert log["flow"].iloc[-1] < 0.5 * log["flow"].iloc[0]
    made = load_backbone(out / "tiny-static.safetensors", device="cpu").state_dict()
    assert same(made, load_backbone("tiny", device="cpu").state_dict())


def pairs_recipe(**changes):
    recipe = read_recipe(data_path("training", "tiny-pairs.yaml"))
    stage = replace(recipe.stages[0], clips=2)
    return replace(recipe, stages=(stage,), reports=replace(recipe.reports, clips=2), **changes)


def test_a_model_of_pairs_starts_with_the_image_decoder_in_both_views():
    training = Training.begin(pairs_recipe(), CPU)
    tiny, own = load_backbone("tiny", device="cpu").state_dict(), training.model.state_dict()
    for name in ("dec_blocks.4.cross_attn.projk.weight", "dec_blocks.0.mlp.fc2.bias"):
        assert torch.equal(own[name], tiny[name])
        assert torch.equal(own[name.replace("dec_blocks", "dec_blocks2")], tiny[name])
    new = [line for line in training.average.origin.report if line.endswith(": new")]
    assert {line.split()[0].split(".")[0] for line in new} == {
        "mask_token", "downstream_head1", "downstream_head2",
    }  # fmt: skip


def test_the_error_of_the_pose_teaches_heads_and_decoders_of_both_pairs():
    recipe = pairs_recipe()
    nothing = dict.fromkeys(("points_self", "points_world", "depth", "flow", "middle_flow"), 0.0)
    objective = replace(recipe.objective, **nothing, pooled_pose=0.0)
    training = Training.begin(replace(recipe, objective=objective), CPU)
    before = {name: value.clone() for name, value in training.model.state_dict().items()}
    training.advance(clips_at(recipe, 0))
    after = training.model.state_dict()
    for name in (
        "downstream_head1.proj.weight", "downstream_head2.proj.weight",
        "dec_blocks.0.cross_attn.projv.weight", "dec_blocks2.0.cross_attn.projv.weight",
    ):  # fmt: skip
        assert not torch.equal(before[name], after[name])
        assert after[name].isfinite().all()


def test_a_model_of_pairs_from_scratch_sees_all_at_the_distance_its_recipe_names():
    recipe = replace(pairs_recipe(), start=None)
    model = Training.begin(recipe, CPU).model
    depth = roll_out(model, clips_at(recipe, 0).image, ("depth",)).prediction.points_self[..., 2]
    assert depth.median().item() == pytest.approx(recipe.initialisation.depth, rel=0.15)


@pytest.mark.slow
def test_pairs_are_trained_in_parts_as_in_one_go_and_load_by_file(tmp_path):
    small = pairs_recipe()
    made = train(small, steps=4, out=tmp_path / "whole", progress=False)
    for steps in (2, 4):
        train(small, steps=steps, out=tmp_path / "parts", progress=False)
    assert same(weights(tmp_path / "whole"), weights(tmp_path / "parts"))
    assert load_backbone(made, device="cpu").config == small.model


def bank_recipe(**changes):
    recipe = read_recipe(data_path("training", "tiny-bank.yaml"))
    stages = tuple(replace(stage, clips=2, frames=4) for stage in recipe.stages)
    return replace(recipe, stages=stages, reports=replace(recipe.reports, clips=2), **changes)


def test_a_model_with_a_bank_starts_with_queries_that_are_what_was_seen():
    training = Training.begin(bank_recipe(), CPU)
    pairs, own = load_backbone("tiny-pairs", device="cpu").state_dict(), training.model.state_dict()
    for name, weight in pairs.items():
        assert torch.equal(own[f"dust3r.{name}"], weight)
    width = training.model.config.enc_embed_dim
    tokens = torch.randn(2, 5, width + training.model.config.dec_embed_dim)
    query = training.model.get_submodule("attn_head_2")(tokens)
    torch.testing.assert_close(query, tokens[..., :width], rtol=0, atol=1e-5)


def test_clips_of_a_batch_have_banks_of_their_own_and_late_frames_teach_what_was_written():
    training = Training.begin(bank_recipe(), CPU)
    images = clips_at(training.recipe, 2).image
    with torch.no_grad():
        together = roll_out(training.model, images, ("points_world",)).prediction.points_world
        alone = [
            roll_out(training.model, images[[clip]], ("points_world",)).prediction.points_world
            for clip in range(2)
        ]
    torch.testing.assert_close(together, torch.cat(alone), rtol=1e-4, atol=1e-4)
    images = images.clone().requires_grad_()
    roll_out(training.model, images, ("points_world",)).final[:, 2].sum().backward()
    assert images.grad[:, 0].abs().sum() > 0
    writer = training.model.get_submodule("value_out")
    assert all(each.grad.abs().sum() > 0 for each in writer.parameters())


def test_the_pose_that_true_points_are_carried_by_teaches_the_predicted_ones():
    recipe = bank_recipe()
    training = Training.begin(recipe, CPU)
    clips = clips_at(recipe, 0)
    found = roll_out(training.model, clips.image, ("points_world",))
    _, world = world_points(clips)
    weights = recipe.objective_at(0)
    exact = replace(found.prediction, points_world=world.flatten(0, 1))
    terms = [
        objective_terms(each, training.helpers, clips, weights, recipe.model)["aligned_pose"]
        for each in (replace(found, prediction=exact), found)
    ]
    assert terms[0] < 1e-6 < terms[1]
    terms[1].backward()
    for name in ("downstream_head1.proj.weight", "downstream_head2.proj.weight"):
        gradient = training.model.get_parameter(f"dust3r.{name}").grad
        assert gradient.isfinite().all()
        assert gradient.abs().sum() > 0


def test_a_model_with_a_bank_is_scored_as_it_runs_one_clip_at_a_time(tmp_path):
    made = train(bank_recipe(), steps=2, out=tmp_path, progress=False)
    model = load_backbone(made, device="cpu")
    assert model.preparation.shape(48, 64) == (48, 64)
    clips = clips_at(bank_recipe(), 0)
    scores = score_clips(model, clips)
    assert np.isfinite(scores.errors["rpe_rotation"]).all()
    first = score_clips(model, replace(clips, **{
        each.name: getattr(clips, each.name)[:1] for each in fields(clips)
    }))  # fmt: skip
    np.testing.assert_allclose(scores.errors["depth"][:1], first.errors["depth"], rtol=1e-5)
