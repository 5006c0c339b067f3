"""A recipe says everything, refuses nonsense, and survives a round trip."""

import copy

import pytest
import torch
import yaml

from mut3r_analysis.errors import InvalidArgument, MissingFile, UnreadableFile
from mut3r_analysis.foundation.bundled import data_path
from mut3r_analysis.training.clips import clips_at
from mut3r_analysis.training.recipe import Recipe, read_recipe


@pytest.fixture
def values():
    return read_recipe(data_path("training", "tiny.yaml")).to_dict()


def test_the_bundled_recipe_round_trips_and_keeps_its_identity(values):
    recipe = Recipe.from_dict(values)
    again = Recipe.from_dict(yaml.safe_load(yaml.safe_dump(recipe.to_dict())))
    assert again == recipe
    assert again.sha256 == recipe.sha256
    changed = copy.deepcopy(values)
    changed["seed"] += 1
    assert Recipe.from_dict(changed).sha256 != recipe.sha256


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"stages": []}, "at least one stage"),
        ({"size": [60, 48]}, "multiples of the patch size"),
        ({"seed": -1}, "seed must be a whole number"),
        ({"seeds": 1}, "unknown \\['seeds'\\]"),
        ({"objective": {"flow": -1}}, "objective.flow must be a number"),
        ({"objective": {"flow_scale": [1, 0]}}, "2 positive numbers"),
        ({"optimiser": {"matrices": "lion"}}, "must be one of adamw, muon"),
        ({"optimiser": {"average": 1.0}}, "average must be a number in"),
        ({"initialisation": {"depth": float("nan")}}, "initialisation.depth"),
        ({"reports": {"frames": [1]}}, "reports.frames"),
        ({"stages": [{"name": "a", "steps": 1, "clips": 1}]}, "frames"),
        ({"stages": [{"name": "a", "steps": 1, "clips": 1, "frames": 1}]}, "from 2 on"),
        (
            {"stages": [{"name": "a", "steps": 1, "clips": 1, "frames": 2, "lattice": 3}]},
            "lattice must be even",
        ),
        (
            {"stages": [{"name": "a", "steps": 1, "clips": 1, "frames": 2, "scenes": []}]},
            "one or more scene distributions",
        ),
        (
            {"stages": [{"name": "a", "steps": 1, "clips": [4, 2], "frames": 2}]},
            "as many clips as frames",
        ),
        ({"stages": [{"name": "a", "steps": 1, "clips": [], "frames": []}]}, "as many clips"),
        (
            {"stages": [{"name": "a", "steps": 1, "clips": 1, "frames": 2, "rate": [1, 2, 3]}]},
            "one number or two",
        ),
        (
            {
                "stages": [
                    {"name": "a", "steps": 1, "clips": 1, "frames": 2, "objective": {"flo": 1}}
                ]
            },
            "unknown \\['flo'\\]",
        ),
    ],
)
def test_a_recipe_that_cannot_mean_anything_is_refused(values, change, message):
    with pytest.raises(InvalidArgument, match=message):
        Recipe.from_dict({**values, **change})


def test_files_that_are_no_recipe_are_refused(tmp_path):
    with pytest.raises(MissingFile, match="no recipe"):
        read_recipe(tmp_path / "none.yaml")
    file = tmp_path / "bad.yaml"
    file.write_text("a: [")
    with pytest.raises(UnreadableFile, match="cannot read"):
        read_recipe(file)
    file.write_text("- 1")
    with pytest.raises(InvalidArgument, match="not named values"):
        read_recipe(file)


def test_stages_follow_each_other_and_the_last_one_has_no_end(values):
    recipe = Recipe.from_dict(values)
    first, last = recipe.stages[0], recipe.stages[-1]
    assert recipe.stage_at(0) == first
    assert recipe.stage_at(first.steps - 1) == first
    assert recipe.stage_at(first.steps) == recipe.stages[1]
    assert recipe.stage_at(recipe.steps + 10) == last
    assert recipe.frames_until(first.steps) == first.steps * first.clips * first.frames


def test_batches_of_a_stage_take_turns_and_their_frames_are_counted(values):
    stage = {"name": "mixed", "steps": 5, "clips": [8, 3], "frames": [2, 9]}
    recipe = Recipe.from_dict({**values, "stages": [stage]})
    batches = [recipe.stage_at(step).batch_at(step) for step in range(7)]
    assert batches == [(8, 2), (3, 9), (8, 2), (3, 9), (8, 2), (3, 9), (8, 2)]
    assert [recipe.frames_until(step) for step in (0, 1, 2, 5, 7)] == [0, 16, 43, 102, 145]
    assert Recipe.from_dict(yaml.safe_load(yaml.safe_dump(recipe.to_dict()))) == recipe
    shapes = [clips_at(recipe, step).image.shape[:2] for step in (0, 1)]
    assert shapes == [(8, 2), (3, 9)]
    part = clips_at(recipe, 1, share=slice(1, None, 2))
    assert torch.equal(part.image, clips_at(recipe, 1).image[1::2])
    assert torch.equal(part.flow, clips_at(recipe, 1).flow[1::2])


def test_the_rate_rises_stays_and_falls_and_does_not_depend_on_later_stages(values):
    recipe = Recipe.from_dict(values)
    rates = [recipe.rate_at(step) for step in range(recipe.steps)]
    warmup, cooldown = recipe.optimiser.warmup, recipe.stages[-1].cooldown
    assert rates[0] > 0
    assert rates[: warmup + 1] == sorted(rates[: warmup + 1])
    assert rates[warmup] == recipe.stages[0].rate
    assert rates[-cooldown:] == sorted(rates[-cooldown:], reverse=True)
    further = {**values["stages"][-1], "cooldown": 0}
    longer = Recipe.from_dict({**values, "stages": [*values["stages"], further]})
    assert [longer.rate_at(step) for step in range(recipe.steps)] == rates
    assert longer.rate_at(recipe.steps) == longer.stages[-1].rates[0]


def test_the_rate_of_a_stage_may_fall_linearly(values):
    stages = [
        {"name": "a", "steps": 4, "clips": 1, "frames": 2, "rate": [0.8, 0.4]},
        {"name": "b", "steps": 2, "clips": 1, "frames": 2, "rate": 0.4},
    ]
    values["optimiser"]["warmup"] = 0
    recipe = Recipe.from_dict({**values, "stages": stages})
    rates = [recipe.rate_at(step) for step in range(6)]
    assert rates == pytest.approx([0.8, 0.7, 0.6, 0.5, 0.4, 0.4])


def test_a_stage_may_have_an_average_of_its_own(values):
    for stage in values["stages"]:
        stage["average"] = None
    values["stages"][-1]["average"] = 0.9
    recipe = Recipe.from_dict(values)
    last = recipe.steps - recipe.stages[-1].steps
    found = [recipe.average_at(step) for step in (0, last - 1, last)]
    assert found == [0.1, recipe.optimiser.average, 0.9]
    values["stages"][-1]["average"] = 1
    with pytest.raises(InvalidArgument, match="average must be a number in"):
        Recipe.from_dict(values)


def test_a_stage_may_change_weights_of_the_loss(values):
    values["stages"][0]["objective"] = {"flow": 7.0}
    recipe = Recipe.from_dict(values)
    assert recipe.objective_at(0).flow == 7.0
    assert recipe.objective_at(recipe.stages[0].steps).flow == recipe.objective.flow
