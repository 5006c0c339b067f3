"""The reconstruction test holds errors against baselines as its protocol declares."""

import argparse
import json
from functools import partial

import pytest
import torch
import yaml
from test_training_loop import SMALL

from mut3r_analysis.backbones import Frame, load_backbone
from mut3r_analysis.errors import InvalidArgument
from mut3r_analysis.foundation.bundled import data_path
from mut3r_analysis.scenes import SceneDistribution
from mut3r_analysis.training import card as cards
from mut3r_analysis.training import cue_trial
from mut3r_analysis.training.card import ship
from mut3r_analysis.training.card_words import card_text, reconstruction_text
from mut3r_analysis.training.command import add_parser
from mut3r_analysis.training.declared import read_protocol
from mut3r_analysis.training.loop import train
from mut3r_analysis.training.recipe import Recipe
from mut3r_analysis.training.reconstruction_trial import reconstruction_test
from mut3r_analysis.training.rollout import clips_at_once, roll_out
from mut3r_analysis.training.validation import held_out_clips, score_clips

BUNDLED = data_path("training", "tiny-pointers_protocol.yaml")
POINTERS = {
    name: value for name, value in SMALL["model"].items() if not name.startswith(("state_", "ray_"))
} | {"family": "point3r", "memory_dec_num_heads": 2, "value_depth": 1, "value_num_heads": 2}


@pytest.fixture
def protocol():
    return read_protocol(BUNDLED) | {"clips": 5}


@pytest.fixture(scope="module")
def tiny():
    return load_backbone("tiny", device="cpu")


def test_errors_stand_beside_baselines_and_reference(tiny, protocol):
    found = reconstruction_test(tiny, tiny, protocol)
    scenes = held_out_clips(
        SceneDistribution.from_dict(protocol["scenes"]), (64, 48), 5, 8, seed=720008
    )
    errors = score_clips(tiny, scenes).errors
    ratio = errors["depth"].mean() / errors["depth_constant"].mean()
    assert found["baseline"]["8"]["depth"][0] == pytest.approx(ratio)
    assert all(row == [1, 1, 1] for rows in found["reference"].values() for row in rows.values())
    assert "ate" in found["baseline"]["8"]
    assert "ate" not in found["baseline"]["2"]
    assert len(found["conditions"]) == 7
    assert "| tiny | 8 | 1.000 [1.000, 1.000] |" in reconstruction_text(found)


def test_a_condition_is_held_against_the_upper_end(tiny, protocol):
    found = reconstruction_test(tiny, tiny, protocol, clips=5)
    _, _, high = found["baseline"]["2"]["depth"]
    for bound, reached in ((high, False), (high + 1e-6, True)):
        (row,) = reconstruction_test(
            tiny, tiny, protocol | {"seeds": {2: 720002}, "conditions": {2: {"depth": bound}}}
        )["conditions"]
        assert row["reached"] is reached


def test_a_model_that_knows_nothing_is_no_go(tiny, protocol):
    untrained = load_backbone(tiny.config, device="cpu", seed=0)
    found = reconstruction_test(untrained, tiny, protocol)
    assert not any(row["reached"] for row in found["conditions"])


def test_each_command_takes_the_protocol_of_its_own_test(tmp_path, protocol, capsys):
    file = tmp_path / "protocol.yaml"
    file.write_text(yaml.safe_dump(protocol))
    parser = argparse.ArgumentParser()
    add_parser(parser.add_subparsers())
    words = ["tiny", "--protocol", str(file), "--clips", "2"]
    args = parser.parse_args(["reconstruction-test", *words])
    assert args.run(args) == 0
    assert "depth error over the baseline's, T = 2: upper end below 0.7" in capsys.readouterr().out
    args = parser.parse_args(["motion-test", *words])
    with pytest.raises(InvalidArgument, match="declares a reconstruction test"):
        args.run(args)
    file.write_text("test: else\n")
    with pytest.raises(InvalidArgument, match=r"test = 'else'; choose among .*reconstruction"):
        read_protocol(file)


def test_clips_rolled_out_together_give_what_each_gives_by_itself():
    model = load_backbone(Recipe.from_dict({**SMALL, "model": POINTERS}).model, device="cpu")
    images = torch.rand(3, 4, 3, 24, 32, generator=torch.Generator().manual_seed(0)) * 2 - 1
    together = roll_out(model, images)
    for clip, frames in enumerate(images):
        state = None
        for time, image in enumerate(frames):
            step = model.step(Frame(image[None]), state)
            state = step.state
            for name in ("pose", "points_world"):
                found = getattr(together.prediction, name)[clip * 4 + time]
                wanted = getattr(step.prediction, name)[0]
                torch.testing.assert_close(found, wanted, rtol=1e-3, atol=1e-4)
    # what a batch pads is not read where attention is watched or gated
    assert clips_at_once(model, plain=True) > 1
    assert clips_at_once(model, plain=False) == 1


@pytest.mark.slow
def test_a_model_with_pointers_ships_with_card_and_cue_test(tmp_path, monkeypatch):
    model = {**POINTERS, "dec_depth": 5, "enc_embed_dim": 32}
    recipe = Recipe.from_dict({**SMALL, "model": model, "objective": {"matching": 0.0}})
    train(recipe, steps=2, out=tmp_path, progress=False)
    protocol = yaml.safe_load(BUNDLED.read_text()) | {"clips": 3, "size": [32, 24]}
    (tmp_path / "small_protocol.yaml").write_text(yaml.safe_dump(protocol))
    monkeypatch.setattr(cue_trial, "RESAMPLES", 10)
    fewer = {"cue_test": {"clips": 8}, "gating_test": {"clips": 8}}
    for name, size in {**fewer, "long_test": {"scenes": 1, "edges": (1, 3, 4)}}.items():
        test = getattr(cards, name)
        monkeypatch.setattr(cards, name, partial(test, **size))
    target = ship(tmp_path, tmp_path, tmp_path, clips=3)
    made = json.loads(target.with_suffix(".json").read_text())
    assert made["kind"] == "Point3R"
    assert [row["set"] for row in made["targets"]][:8] == ["before training"] * 7 + [
        "for the start"
    ]
    text = target.with_suffix(".md").read_text()
    assert text == card_text(made)
    assert "A small Point3R trained" in text
    assert "pointers that grow in number, 4 memory slots" in text
    assert text.count("## Reconstruction test") == text.count("## Cue test") == 1
    kinds = {cell["kind"] for cell in made["cue_test"]["by_statistic"]}
    assert kinds == {"encoder_self", "image_self", "image_to_state", "state_to_image"}
    assert torch.isfinite(torch.tensor(made["cue_test"]["best"]["objects"])).all()


def test_a_model_of_pairs_ships_without_the_tests_of_sites_that_it_lacks(tmp_path):
    pairs = {
        name: value
        for name, value in SMALL["model"].items()
        if not name.startswith(("state_", "ray_", "local_"))
    } | {"family": "dust3r"}
    recipe = Recipe.from_dict({**SMALL, "model": pairs, "objective": {"matching": 0.0}})
    train(recipe, steps=2, out=tmp_path, progress=False)
    protocol = read_protocol(data_path("training", "tiny-pairs_protocol.yaml"))
    protocol |= {"clips": 3, "size": [32, 24]}
    (tmp_path / "small_protocol.yaml").write_text(yaml.safe_dump(protocol))
    target = ship(tmp_path, tmp_path, tmp_path, clips=3)
    made = json.loads(target.with_suffix(".json").read_text())
    assert made["kind"] == "DUSt3R"
    assert made["lacking_sites"] == ["image_self", "image_to_state", "state_to_image"]
    assert not {"cue_test", "gating_test", "long_test"} & set(made)
    assert [row["set"] for row in made["targets"][:4]] == ["before training"] * 3 + [
        "for the start"
    ]
    text = target.with_suffix(".md").read_text()
    assert "It is a true DUSt3R (the code of the full size)" in text
    assert "memory slots" not in text
    assert "a frame is read beside another one" in text
    assert "image_to_state, state_to_image, which this kind of model has not" in text
    assert text.count("## Reconstruction test") == 1
    assert "## Cue test" not in text
