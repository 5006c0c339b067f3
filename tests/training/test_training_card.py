"""What ships beside the checkpoint is measured from it and written from the measurement alone."""

import json

import pytest
import torch
import yaml
from test_training_loop import SMALL

from mut3r_analysis.backbones import load_backbone
from mut3r_analysis.errors import MissingFile
from mut3r_analysis.foundation.bundled import data_path
from mut3r_analysis.training import card as cards
from mut3r_analysis.training import card_words
from mut3r_analysis.training.card import ship
from mut3r_analysis.training.card_words import card_text
from mut3r_analysis.training.loop import read_table, train
from mut3r_analysis.training.recipe import Recipe, read_recipe

BUNDLED = sorted(data_path("checkpoints").glob("*.safetensors"))


@pytest.fixture(scope="module", params=[path.stem for path in BUNDLED])
def card(request):
    return json.loads(data_path("checkpoints", f"{request.param}.json").read_text())


def test_bundled_checkpoints_take_little_room():
    assert sum(path.stat().st_size for path in BUNDLED) <= 40e6


def test_the_bundled_card_is_what_its_json_says(card):
    assert data_path("checkpoints", f"{card['name']}.md").read_text() == card_text(card)


def test_the_bundled_card_is_of_the_bundled_checkpoint_and_recipe(card):
    backbone = load_backbone(card["name"], device="cpu")
    assert backbone.origin.sha256 == card["file"]["sha256"]
    recipe = read_recipe(data_path("training", f"{card['name']}.yaml"))
    assert card["training"]["recipe_sha256"] == recipe.sha256
    assert Recipe.from_dict(card["training"]["recipe"]) == recipe
    assert backbone.config == recipe.model
    assert card["training"]["frames"] == recipe.frames_until(card["training"]["steps"])


def test_the_bundled_checkpoint_is_small_and_runs(card):
    path = data_path("checkpoints", f"{card['name']}.safetensors")
    assert path.stat().st_size <= 16e6
    assert card["config"]["dec_depth"] >= 6
    assert card["cost"]["load_seconds"] < 1
    assert card["cost"]["frames_per_second"] >= 10
    backbone = load_backbone(path, device="cpu")
    assert all(torch.isfinite(each).all() for each in backbone.state_dict().values())


def test_every_target_of_the_card_follows_from_its_numbers(card):
    assert len(card["targets"]) >= 12
    pair = card["scores"]["moving"]["2"]["model"]
    depth = next(
        each for each in card["targets"] if each["target"].startswith("depth error at most")
    )
    assert depth["value"] == pair["depth_ratio"]
    assert depth["reached"] == (depth["value"][0] <= 0.5)
    for each in card["targets"]:
        value, low, high = each["value"]
        assert low <= value <= high, each


def test_a_training_is_shipped_with_its_card_and_curve(tmp_path):
    recipe = Recipe.from_dict(SMALL)
    train(recipe, steps=7, out=tmp_path / "run", progress=False)
    target = ship(tmp_path / "run", tmp_path, tmp_path, notes=["a note"], clips=3, cues=False)
    assert target == tmp_path / "small.safetensors"
    made = json.loads((tmp_path / "small.json").read_text())
    text = (tmp_path / "small.md").read_text()
    assert card_text(made) == text
    assert "- a note" in text
    assert made["training"]["steps"] == 7
    assert made["training"]["frames"] == 6 * 2 * 2 + 2 * 3
    assert [stage["steps"] for stage in made["training"]["stages"]] == [6, 1]
    assert made["file"]["sha256"] == load_backbone(target, device="cpu").origin.sha256
    assert not all(each["reached"] for each in made["targets"])
    curve = read_table(tmp_path / "small_curve.csv")
    assert curve["frames"].tolist() == [24, 24, 30, 30]
    assert len(made["curve"]) == 4
    with pytest.raises(MissingFile, match="no recipe"):
        ship(tmp_path / "nothing", tmp_path, tmp_path)


def test_what_a_protocol_declares_are_the_targets_of_the_card(tmp_path, monkeypatch):
    train(Recipe.from_dict(SMALL), steps=2, out=tmp_path / "run", progress=False)
    protocol = yaml.safe_load(data_path("training", "tiny-static_protocol.yaml").read_text())
    (tmp_path / "small_protocol.yaml").write_text(yaml.safe_dump(protocol))
    (tmp_path / "small_notes.yaml").write_text("- said by the trainer\n")
    condition = {"target": "declared", "value": [1, 0, 2], "bound": 3, "above": False}
    asked = []

    def measured(model, reference, declared, *, keep):
        asked.append((model.origin.sha256, reference.origin.name, declared["rest"]["clips"], keep))
        return {"conditions": [{**condition, "reached": True}]}

    monkeypatch.setattr(cards, "motion_test", measured)
    monkeypatch.setattr(card_words, "motion_text", lambda test: "## Motion test")
    target = ship(tmp_path / "run", tmp_path, tmp_path, clips=3, cues=False)
    made = json.loads((tmp_path / "small.json").read_text())
    assert asked == [(made["file"]["sha256"], "tiny", 512, tmp_path / "run" / "motion_test.json")]
    first, *others = made["targets"]
    assert (first["target"], first["set"]) == ("declared", "before training")
    assert {row["set"] for row in others} == {"for the start"}
    text = target.with_suffix(".md").read_text()
    assert "1 of 1 targets set before training are reached" in text
    assert "- said by the trainer" in text


def test_a_card_of_a_training_at_rest_is_measured_where_things_move(tmp_path):
    rest = {"movers": [0, 0], "fog": 6.0}
    stages = [{**SMALL["stages"][0], "scenes": [rest]}]
    train(Recipe.from_dict({**SMALL, "stages": stages}), steps=2, out=tmp_path, progress=False)
    ship(tmp_path, tmp_path, tmp_path, clips=4, cues=False)
    scores = json.loads((tmp_path / "small.json").read_text())["scores"]
    assert scores["moving"]["8"] != scores["resting"]["8"]
