"""A recipe says everything, refuses nonsense, and survives a round trip."""

import copy

import pytest
import yaml

from mut3r_analysis.data import data_path
from mut3r_analysis.errors import InvalidArgument, MissingFile, UnreadableFile
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
        ({"optimiser": {"matrices": "lion"}}, "choose 'adamw' or 'muon'"),
        ({"optimiser": {"average": 1.0}}, "average must be in"),
        ({"initialisation": {"depth": float("nan")}}, "initialisation.depth"),
        ({"reports": {"frames": [1]}}, "reports.frames"),
        ({"stages": [{"name": "a", "steps": 1, "clips": 1}]}, "frames"),
        ({"stages": [{"name": "a", "steps": 1, "clips": 1, "frames": 1}]}, "at least 2"),
        (
            {"stages": [{"name": "a", "steps": 1, "clips": 1, "frames": 2, "lattice": 3}]},
            "lattice must be even",
        ),
        (
            {"stages": [{"name": "a", "steps": 1, "clips": 1, "frames": 2, "scenes": []}]},
            "one or more scene distributions",
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
    whole = sum(stage.steps * stage.clips * stage.frames for stage in recipe.stages)
    assert recipe.frames_until(recipe.steps) == whole
    assert recipe.frames_until(recipe.steps + 1) == whole + last.clips * last.frames


def test_the_rate_rises_stays_and_falls_and_does_not_depend_on_later_stages(values):
    recipe = Recipe.from_dict(values)
    rates = [recipe.rate_at(step) for step in range(recipe.steps)]
    warmup, cooldown = recipe.optimiser.warmup, recipe.stages[-1].cooldown
    assert rates[0] > 0
    assert rates[: warmup + 1] == sorted(rates[: warmup + 1])
    assert rates[warmup] == recipe.stages[0].rate
    assert rates[-cooldown:] == sorted(rates[-cooldown:], reverse=True)
    longer = Recipe.from_dict({**values, "stages": [*values["stages"], values["stages"][-1]]})
    assert [longer.rate_at(step) for step in range(recipe.steps)] == rates
    assert longer.rate_at(recipe.steps) == longer.stages[-1].rate


def test_a_stage_may_change_weights_of_the_loss(values):
    values["stages"][0]["objective"] = {"flow": 7.0}
    recipe = Recipe.from_dict(values)
    assert recipe.objective_at(0).flow == 7.0
    assert recipe.objective_at(recipe.stages[0].steps).flow == recipe.objective.flow
