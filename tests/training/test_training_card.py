"""What ships beside the checkpoint is measured from it and written from the measurement alone."""

import json

import pytest
import torch
from test_training_loop import SMALL

from mut3r_analysis.backbones import load_backbone
from mut3r_analysis.errors import MissingFile
from mut3r_analysis.foundation.bundled import data_path
from mut3r_analysis.training.card import ship
from mut3r_analysis.training.card_words import card_text
from mut3r_analysis.training.loop import read_table, train
from mut3r_analysis.training.recipe import Recipe, read_recipe


@pytest.fixture(scope="module")
def card():
    return json.loads(data_path("checkpoints", "tiny.json").read_text())


def test_the_bundled_card_is_what_its_json_says(card):
    assert data_path("checkpoints", "tiny.md").read_text() == card_text(card)


def test_the_bundled_card_is_of_the_bundled_checkpoint_and_recipe(card):
    backbone = load_backbone("tiny", device="cpu")
    assert backbone.origin.sha256 == card["file"]["sha256"]
    recipe = read_recipe(data_path("training", "tiny.yaml"))
    assert card["training"]["recipe_sha256"] == recipe.sha256
    assert Recipe.from_dict(card["training"]["recipe"]) == recipe
    assert backbone.config == recipe.model
    assert card["training"]["frames"] == recipe.frames_until(card["training"]["steps"])


def test_the_bundled_checkpoint_is_small_and_runs(card):
    path = data_path("checkpoints", "tiny.safetensors")
    assert path.stat().st_size <= 16e6
    assert card["config"]["dec_depth"] >= 6
    assert card["cost"]["load_seconds"] < 1
    assert card["cost"]["frames_per_second"] >= 10
    backbone = load_backbone(path, device="cpu")
    assert all(torch.isfinite(each).all() for each in backbone.state_dict().values())


def test_every_target_of_the_card_follows_from_its_numbers(card):
    assert len(card["targets"]) >= 12
    pair = card["scores"]["moving"]["2"]["model"]
    depth = next(each for each in card["targets"] if each["target"].startswith("depth"))
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
