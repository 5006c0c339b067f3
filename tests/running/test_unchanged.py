"""What changes between opening and running is noticed: weights in memory, frames on disk."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image

import mut3r_analysis as m3
from mut3r_analysis.backbones.in_memory import weights_digest
from mut3r_analysis.errors import InvalidArgument, UnreadableFile
from mut3r_analysis.sweeps.sources import BackboneSource

QUIET = {"outputs": ("pose",), "progress": False}


@pytest.fixture
def backbone():
    return m3.load_backbone("random:small", device="cpu")


@pytest.fixture
def sequence():
    return m3.open_sequence("scenes/orbit-03", stop=2)


def negate_one(tensor):
    tensor.view(-1)[-1].neg_()


def swap_rows(tensor):
    tensor[[0, 1]] = tensor[[1, 0]]


def swap_two(tensor):
    flat = tensor.view(-1)
    flat[[0, 2]] = flat[[2, 0]].clone()


def last_bit(tensor):
    tensor.view(-1).view(torch.int32)[7] ^= 1


@pytest.mark.parametrize("change", [negate_one, swap_rows, swap_two, last_bit])
@pytest.mark.parametrize("name", ["dec_blocks.1.attn.qkv.weight", "enc_norm.bias"])
def test_any_change_of_weights_changes_their_digest(backbone, change, name):
    tensor = backbone.state_dict()[name]
    if name.endswith("bias"):
        tensor.copy_(torch.linspace(0, 1, len(tensor)))
    before = weights_digest(backbone)
    assert weights_digest(backbone) == before
    change(tensor if tensor.ndim > 1 else tensor[:, None])
    assert weights_digest(backbone) != before


def test_the_digest_is_that_of_the_contents_alone(backbone):
    again = m3.load_backbone("random:small", device="cpu")
    assert weights_digest(again) == weights_digest(backbone) == backbone.origin.weights
    # Tensors of a checkpoint lie anywhere in its file.
    apart = torch.nn.Linear(3, 700)
    before = weights_digest(apart)
    file = torch.empty(apart.weight.numel() + 1)
    file[1:] = apart.weight.detach().flatten()
    apart.weight = torch.nn.Parameter(file[1:].view(700, 3))
    assert weights_digest(apart) == before


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_the_digest_is_the_same_on_a_device():
    backbone = m3.load_backbone("tiny", device="cpu")
    assert weights_digest(backbone.to("cuda")) == backbone.origin.weights


def test_a_run_records_the_weights_that_it_had(backbone, sequence, tmp_path):
    plain = m3.run(backbone, sequence, out=tmp_path / "plain", **QUIET)
    assert plain.attrs["backbone"]["sha256"] == backbone.origin.sha256
    backbone.dec_blocks[0].mlp.fc1.weight.data.mul_(1.5)
    with pytest.warns(UserWarning, match="changed in memory after they were loaded"):
        changed = m3.run(backbone, sequence, **QUIET)
    recorded = changed.attrs["backbone"]
    assert recorded["sha256"] != backbone.origin.sha256
    assert "changed in memory" in recorded["report"][-1]
    assert not np.array_equal(changed["prediction/pose"], plain["prediction/pose"])
    with (
        pytest.warns(UserWarning, match="changed in memory"),
        pytest.raises(InvalidArgument, match="not of"),
    ):
        m3.fork(plain, 0, backbone=backbone, sequence=sequence)


def test_a_stopped_run_is_not_resumed_with_other_weights(backbone, sequence, tmp_path):
    out = tmp_path / "run"
    m3.run(backbone, sequence, out=out, **QUIET)
    described = json.loads((out / "zarr.json").read_text())
    described["attributes"] |= {"complete": False, "frames_complete": 1}
    (out / "zarr.json").write_text(json.dumps(described))
    backbone.enc_norm.bias.data.add_(1)
    with (
        pytest.warns(UserWarning, match="changed in memory"),
        pytest.raises(InvalidArgument, match="backbone"),
    ):
        m3.run(backbone, sequence, out=out, resume=True, **QUIET)


def test_a_sweep_does_not_take_runs_of_other_weights_for_its_own(backbone):
    before = BackboneSource.of(backbone)
    backbone.enc_norm.bias.data.add_(1)
    with pytest.warns(UserWarning, match="changed in memory"):
        after = BackboneSource.of(backbone)
    assert after.identity() != before.identity()


def write(folder, position, value):
    Image.fromarray(np.full((48, 64, 3), value, np.uint8)).save(folder / f"{position}.png")


def test_a_run_over_frames_that_were_replaced_stops_with_those_before(backbone, tmp_path):
    for position in range(3):
        write(tmp_path, position, 50 * position)
    sequence = m3.open_sequence(tmp_path)
    write(tmp_path, 2, 7)
    with pytest.raises(UnreadableFile, match=r"2\.png was changed or replaced after"):
        m3.run(backbone, sequence, out=tmp_path / "run", **QUIET)
    with pytest.warns(UserWarning, match="2 of 3 frames"):
        assert m3.open_run(tmp_path / "run").attrs["frames_complete"] == 2
    os.utime(tmp_path / "1.png")  # the same frame, touched
    assert sequence["image"][1].max() == 50


PROCESS = """
import sys, numpy as np, torch
import mut3r_analysis as m3
torch.set_num_threads(int(sys.argv[1]))
run = m3.run(m3.load_backbone("tiny", device="cpu"), m3.open_sequence("scenes/orbit-03", stop=6),
             cue=m3.Cue.mut3r(), gate=m3.Gate.mut3r(), progress=False, out=sys.argv[2])
"""


def predictions(threads, out):
    """Run in a process of its own with so many threads."""
    command = [sys.executable, "-c", PROCESS, str(threads), str(out)]
    environment = os.environ | {"OMP_NUM_THREADS": str(threads)}
    subprocess.run(command, env=environment, check=True)
    return m3.open_run(out)


def test_processes_with_as_many_threads_agree_bit_for_bit(tmp_path):
    first, second = (predictions(1, tmp_path / name) for name in "ab")
    for group in ("prediction", "state", "cue"):
        for name, values in first[group].data_vars.items():
            np.testing.assert_array_equal(values, second[group][name], err_msg=name)
    other = predictions(2, tmp_path / "c")
    for name, values in first["prediction"].data_vars.items():
        apart = float(np.abs(other["prediction"][name] - values).max())
        assert apart <= 1e-3 * float(np.abs(values).max()), name
    assert (first.attrs["threads"], other.attrs["threads"]) == (1, 2)
