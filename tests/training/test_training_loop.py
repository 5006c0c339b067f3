"""A training can be killed at any moment and goes on to the very same numbers."""

import csv
import os
import signal
import subprocess
import sys
import time

import pytest
import torch
import yaml

from mut3r_analysis.backbones import load_backbone
from mut3r_analysis.errors import InvalidArgument, UnreadableFile
from mut3r_analysis.foundation.bundled import data_path
from mut3r_analysis.training.command import add_parser
from mut3r_analysis.training.loop import Training, append_rows, train, trim_table
from mut3r_analysis.training.optimisation import Diverged
from mut3r_analysis.training.recipe import Recipe, read_recipe

SMALL = {
    "name": "small",
    "seed": 4,
    "size": [32, 24],
    "model": {
        "img_size": [32, 32],
        "patch_size": 8,
        "enc_embed_dim": 64,
        "enc_depth": 1,
        "enc_num_heads": 4,
        "dec_embed_dim": 32,
        "dec_depth": 2,
        "dec_num_heads": 2,
        "state_dec_num_heads": 2,
        "state_size": 16,
        "local_mem_size": 4,
        "ray_enc_depth": 1,
        "head_type": "linear",
        "mlp_ratio": 1.0,
    },
    "stages": [
        {"name": "one", "steps": 6, "clips": 2, "frames": 2, "objective": {"pooled_pose": 1.0}},
        {"name": "two", "steps": 1000, "clips": 2, "frames": 3},
    ],
    "reports": {"log": 2, "validate": 6, "save": 3, "clips": 4, "frames": [2, 4]},
}


def rows(path):
    with path.open(newline="") as file:
        return [
            {name: value for name, value in row.items() if name != "seconds"}
            for row in csv.DictReader(file)
        ]


def weights(folder):
    state = torch.load(folder / "state.pt", weights_only=True)
    return {
        f"{part}.{name}": value
        for part in ("model", "average", "helpers")
        for name, value in state[part].items()
    }


def same(first, second):
    return first.keys() == second.keys() and all(torch.equal(first[k], second[k]) for k in first)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    train(Recipe.from_dict(SMALL), steps=14, out=folder, progress=False)
    return folder


def test_stopping_and_going_on_changes_nothing(whole, tmp_path):
    recipe = Recipe.from_dict(SMALL)
    for steps in (5, 14):
        train(recipe, steps=steps, out=tmp_path, progress=False)
    assert same(weights(whole), weights(tmp_path))


def test_a_training_killed_at_any_moment_goes_on_to_the_same_numbers(whole, tmp_path):
    file = tmp_path / "recipe.yaml"
    file.write_text(yaml.safe_dump(SMALL))
    out = tmp_path / "out"
    code = (
        "import sys; from mut3r_analysis.training.loop import train; "
        "train(sys.argv[1], out=sys.argv[2], progress=False)"
    )
    victim = subprocess.Popen(
        [sys.executable, "-W", "ignore", "-c", code, str(file), str(out)],
        env={**os.environ, "OMP_NUM_THREADS": str(torch.get_num_threads())},
    )
    deadline = time.monotonic() + 60
    while not (out / "state.pt").is_file() and time.monotonic() < deadline:
        time.sleep(0.02)
    victim.send_signal(signal.SIGKILL)
    victim.wait()
    reached = torch.load(out / "state.pt", weights_only=True)["step"]
    if reached > 14:
        pytest.skip(f"the process was killed too late, at step {reached}")
    train(file, steps=14, out=out, progress=False)
    assert same(weights(whole), weights(out))
    wanted = [row for row in rows(whole / "log.csv") if int(row["step"]) <= 12]
    assert [row for row in rows(out / "log.csv") if int(row["step"]) <= 12] == wanted
    assert rows(out / "curve.csv") == rows(whole / "curve.csv")


def test_what_a_training_leaves_behind_is_complete(whole):
    assert read_recipe(whole / "recipe.yaml") == Recipe.from_dict(SMALL)
    names = {path.name for path in whole.iterdir()}
    assert names == {
        "recipe.yaml", "state.pt", "log.csv", "curve.csv", "curve.png", "small.safetensors"
    }  # fmt: skip
    backbone = load_backbone(whole / "small.safetensors", device="cpu")
    average = torch.load(whole / "state.pt", weights_only=True)["average"]
    assert same(backbone.state_dict(), average)
    log = rows(whole / "log.csv")
    assert [int(row["step"]) for row in log] == [2, 3, 4, 6, 8, 9, 10, 12, 14]
    assert log[0]["pooled_pose"]
    assert not log[-1]["pooled_pose"]
    assert {row["length"] for row in rows(whole / "curve.csv")} == {"2", "4"}


def test_a_folder_belongs_to_one_recipe(whole, tmp_path):
    with pytest.raises(InvalidArgument, match="another recipe"):
        train(Recipe.from_dict({**SMALL, "seed": 5}), out=whole, progress=False)
    (tmp_path / "state.pt").write_bytes(b"not a state")
    with pytest.raises(UnreadableFile, match="begin again"):
        train(Recipe.from_dict(SMALL), out=tmp_path, progress=False)
    torch.save([1, 2], tmp_path / "state.pt")
    with pytest.raises(UnreadableFile, match="not the state of a training"):
        train(Recipe.from_dict(SMALL), out=tmp_path, progress=False)
    with pytest.raises(InvalidArgument, match="at least 1"):
        train(Recipe.from_dict(SMALL), steps=0, out=tmp_path, progress=False)


def test_the_same_clips_teach(tmp_path):
    from mut3r_analysis.training.clips import clips_at

    recipe = Recipe.from_dict(SMALL)
    training = Training.begin(recipe, torch.device("cpu"))
    clips = clips_at(recipe, 0)
    losses = [training.advance(clips)["loss"] for _ in range(25)]
    assert losses[-1] < 0.8 * losses[0]


def test_gradients_that_are_no_numbers_change_no_weight():
    from mut3r_analysis.training.clips import clips_at

    recipe = Recipe.from_dict(SMALL)
    training = Training.begin(recipe, torch.device("cpu"))
    before = {name: value.clone() for name, value in training.model.state_dict().items()}
    clips = clips_at(recipe, 0)
    clips.image[0, 0, 0, 0, 0] = float("nan")
    with pytest.raises(Diverged, match="step 0 are not finite"):
        training.advance(clips)
    assert same(before, training.model.state_dict())


def test_every_kind_of_batch_teaches_every_pixel(monkeypatch):
    from mut3r_analysis.training import loop
    from mut3r_analysis.training.clips import clips_at

    stage = {"name": "turns", "steps": 9, "clips": [2, 1], "frames": [2, 3]}
    recipe = Recipe.from_dict({**SMALL, "stages": [stage]})
    training = Training.begin(recipe, torch.device("cpu"))
    seen = []

    def noted(rollout, helpers, clips, weights, config, step):
        stride = weights.pixel_stride
        seen.append((clips.image.shape[1], step % stride, step // stride % stride))
        return objective_terms(rollout, helpers, clips, weights, config, step)

    objective_terms = loop.objective_terms
    monkeypatch.setattr(loop, "objective_terms", noted)
    for step in range(8):
        training.advance(clips_at(recipe, step))
    assert set(seen) == {(frames, y, x) for frames in (2, 3) for y in (0, 1) for x in (0, 1)}


def test_matrices_may_follow_muon():
    values = {**SMALL, "optimiser": {"matrices": "muon"}}
    recipe = Recipe.from_dict(values)
    training = Training.begin(recipe, torch.device("cpu"))
    from mut3r_analysis.training.clips import clips_at

    clips = clips_at(recipe, 0)
    losses = [training.advance(clips)["loss"] for _ in range(8)]
    assert losses[-1] < losses[0]


def test_weights_that_only_ray_maps_use_stay_as_they_began(whole):
    recipe = Recipe.from_dict(SMALL)
    began = Training.begin(recipe, torch.device("cpu")).model.state_dict()
    ended = load_backbone(whole / "small.safetensors", device="cpu").state_dict()
    kept = [name for name in began if torch.equal(began[name], ended[name])]
    assert {name for name in kept if "ray_map" in name} == {n for n in began if "ray_map" in n}
    assert not any("dec_blocks" in name for name in kept)


def test_tables_widen_and_forget_what_came_after_a_step(tmp_path):
    table = tmp_path / "t.csv"
    append_rows(table, [{"step": 1, "a": 0.123456789}])
    append_rows(table, [{"step": 2, "a": 1.0, "b": 2.0}])
    append_rows(table, [{"step": 3, "a": 1.0}])
    assert table.read_text() == "step,a,b\n1,0.123457,\n2,1,2\n3,1,\n"
    trim_table(table, 1)
    assert table.read_text() == "step,a,b\n1,0.123457,\n"
    trim_table(table, 0)
    assert not table.exists()


def test_the_bundled_recipe_takes_steps_from_the_command_line(tmp_path, capsys):
    import argparse

    parser = argparse.ArgumentParser()
    add_parser(parser.add_subparsers())
    recipe = data_path("training", "tiny.yaml")
    out = tmp_path / "out"
    arguments = ["train", "--recipe", str(recipe), "--steps", "2", "--out", str(out), "--quiet"]
    args = parser.parse_args(arguments)
    assert args.run(args) == 0
    assert "tiny.safetensors" in capsys.readouterr().out
    assert load_backbone(out / "tiny.safetensors", device="cpu").config == read_recipe(recipe).model


@pytest.mark.slow
def test_fifty_steps_of_the_bundled_recipe_take_less_than_three_minutes(tmp_path):
    started = time.monotonic()
    train(read_recipe(data_path("training", "tiny.yaml")), steps=50, out=tmp_path, progress=False)
    assert time.monotonic() - started < 180
    loss = [float(row["loss"]) for row in rows(tmp_path / "log.csv")]
    assert loss[-1] < loss[0]
