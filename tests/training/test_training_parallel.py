"""A training in several processes is the training in one."""

import csv
import os
import signal
import socket
import subprocess
import sys
import time

import pytest
import torch
import yaml

from mut3r_analysis.errors import InvalidArgument
from mut3r_analysis.foundation.bundled import data_path
from mut3r_analysis.training.loop import train
from mut3r_analysis.training.parallel import Peers, own_device
from mut3r_analysis.training.recipe import Recipe, read_recipe

VALUES = {
    **read_recipe(data_path("training", "tiny.yaml")).to_dict(),
    "name": "shared",
    "size": [32, 24],
    "stages": [{"name": "one", "steps": 6, "clips": [4, 2], "frames": [2, 3]}],
    # means over visible pixels are taken over each share, so they are left out of the comparison
    "objective": {"flow": 0.0, "matching": 0.0},
    "reports": {"log": 1, "validate": 6, "save": 3, "clips": 4, "frames": [2]},
}


def started(recipe, out, processes=2):
    """Start ``mut3r train`` in processes that find each other as ``torchrun`` arranges it."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "mut3r_analysis", "train", "--recipe", str(recipe)]
    command += ["--out", str(out), "--device", "cpu", "--quiet"]
    together = {"WORLD_SIZE": str(processes), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    return [
        subprocess.Popen(
            command,
            env={**os.environ, **together, "RANK": str(rank), "LOCAL_RANK": str(rank)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for rank in range(processes)
    ]


def terms(folder):
    with (folder / "log.csv").open(newline="") as file:
        return [
            [float(value) for name, value in row.items() if name not in ("stage", "seconds")]
            for row in csv.DictReader(file)
        ]


def test_two_processes_take_the_steps_of_one_and_one_goes_on_where_two_stopped(tmp_path):
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(yaml.safe_dump(VALUES))
    for rank, process in enumerate(started(recipe, tmp_path / "two")):
        printed, _ = process.communicate(timeout=120)
        assert process.returncode == 0, printed
        assert ("averaged weights" in printed) == (rank == 0)
    train(recipe, out=tmp_path / "one", device="cpu", progress=False)
    assert len(terms(tmp_path / "one")) == 6
    for one, two in zip(terms(tmp_path / "one"), terms(tmp_path / "two"), strict=True):
        assert two == pytest.approx(one, rel=2e-3)
    train(recipe, steps=8, out=tmp_path / "two", device="cpu", progress=False)
    assert len(terms(tmp_path / "two")) == 8


def test_when_one_process_dies_the_others_stop_with_a_whole_state(tmp_path):
    recipe = tmp_path / "recipe.yaml"
    endless = {**VALUES["stages"][0], "steps": 100_000}
    recipe.write_text(yaml.safe_dump({**VALUES, "stages": [endless]}))
    first, second = started(recipe, tmp_path / "out")
    state = tmp_path / "out" / "state.pt"
    deadline = time.monotonic() + 100
    while not state.is_file() and time.monotonic() < deadline:
        time.sleep(0.05)
    second.send_signal(signal.SIGKILL)
    second.communicate()
    first.communicate(timeout=60)
    assert first.returncode != 0
    assert torch.load(state, weights_only=True)["step"] % 3 == 0


def test_batches_that_cannot_be_shared_evenly_are_refused():
    recipe = Recipe.from_dict(VALUES)
    Peers(0, 2).require_even_shares(recipe, 0, 6)
    with pytest.raises(InvalidArgument, match="2 clips per batch, which 4 processes"):
        Peers(0, 4).require_even_shares(recipe, 0, 6)
    Peers(0, 4).require_even_shares(recipe, 0, 1)


def test_alone_there_is_nothing_to_share(monkeypatch):
    weight = torch.ones(2, requires_grad=True)
    (3 * weight).sum().backward()
    assert Peers().average([weight], [torch.tensor(2.0)]) == [2.0]
    assert weight.grad.tolist() == [3, 3]
    assert Peers().share is None
    assert [list(range(6))[Peers(rank, 3).share] for rank in range(3)] == [[0, 3], [1, 4], [2, 5]]
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert own_device("cpu") == torch.device("cpu")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
def test_each_process_takes_a_gpu_of_its_own(monkeypatch):
    monkeypatch.setenv("LOCAL_RANK", str(torch.cuda.device_count()))
    assert own_device() == torch.device("cuda", 0)
    assert own_device("cuda:0") == torch.device("cuda", 0)
