"""A run that is stopped at any moment leaves nothing in the way, and goes on bit for bit."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import torch

import mut3r_analysis as m3
from mut3r_analysis.cli.main import main
from mut3r_analysis.errors import AlreadyExists, InvalidArgument, StoreError
from mut3r_analysis.running import chunks

FRAMES = 11


@pytest.fixture(autouse=True)
def short_blocks(monkeypatch):
    monkeypatch.setattr(chunks, "MOST_FRAMES", 4)


@pytest.fixture(scope="module")
def sequence():
    return m3.open_sequence("scenes/orbit-03", stop=FRAMES)


SAMPLES = {
    "a gate by the frame before": (
        "random:small", "cut3r",
        {"cue": m3.Cue.mut3r(source="previous"), "gate": m3.Gate.mut3r(),
         "commit": "rw.gg reset.5"},
    ),
    "a write rule that remembers": ("random:small", "ttsa3r", {}),
    "a memory that grows": ("random:point3r-small", "cut3r", {}),
    "a model that looks ahead": ("random:spann3r-small", "cut3r", {}),
    "caches": ("random:vggt-small", "cut3r", {}),
    "frames beside an anchor": ("random:dust3r-small", "cut3r", {}),
}  # fmt: skip


def stopped(backbone, sequence, after, **arguments):
    """Run, and be interrupted in the frame after so many."""
    calls = []

    def stop(*_):
        calls.append(1)
        if len(calls) > after:
            raise KeyboardInterrupt

    # Once a frame, in whatever model.
    encode, backbone.encode = backbone.encode, lambda *a, **k: (stop(), encode(*a, **k))[1]
    try:
        with pytest.raises(KeyboardInterrupt):
            m3.run(backbone, sequence, progress=False, **arguments)
    finally:
        del backbone.encode


def assert_same(found, expected):
    for path, node in expected.subtree_with_keys:
        if path != "timing":
            for name, values in node.data_vars.items():
                np.testing.assert_array_equal(found[path][name], values, err_msg=f"{path}/{name}")
    assert found.attrs["complete"]


@pytest.mark.parametrize("after", [5, 8])
@pytest.mark.parametrize("sample", SAMPLES)
def test_a_resumed_run_equals_an_undisturbed_one_bit_for_bit(tmp_path, sequence, sample, after):
    name, update, configuration = SAMPLES[sample]
    backbone = m3.load_backbone(name, update=update)
    arguments = {
        "capture": m3.Capture(statistics=["entropy"], sites=["encoder_self"], frames=[0, 4, 9]),
        **configuration,
    }
    out = tmp_path / "run.zarr"
    stopped(backbone, sequence, after, out=out, **arguments)
    assert whole_frames(out) == after - backbone.looks_ahead
    found = m3.run(backbone, sequence, out=out, resume=True, progress=False, **arguments)
    assert_same(found, m3.run(backbone, sequence, progress=False, **arguments))
    assert not [file for file in out.rglob("*") if file.name.startswith(".")]


def test_resuming_begins_or_opens_where_there_is_nothing_to_go_on_with(tmp_path, sequence):
    backbone, out = m3.load_backbone("random:small"), tmp_path / "run.zarr"
    arguments = {"out": out, "resume": True, "progress": False, "outputs": ("pose",)}
    first = m3.run(backbone, sequence, **arguments)
    before = {file: file.stat().st_mtime_ns for file in out.rglob("*")}
    assert_same(m3.run(backbone, sequence, **arguments), first)
    assert {file: file.stat().st_mtime_ns for file in out.rglob("*")} == before


def test_only_the_same_run_is_resumed(tmp_path, sequence):
    backbone, out = m3.load_backbone("random:small"), tmp_path / "run.zarr"
    stopped(backbone, sequence, 5, out=out)
    again = {"out": out, "resume": True, "progress": False}
    with pytest.raises(InvalidArgument, match=r"different run: cue .* differ"):
        m3.run(backbone, sequence, cue=m3.Cue.mut3r(), **again)
    with pytest.raises(InvalidArgument, match=r"different run: sequence .* differ"):
        m3.run(backbone, sequence.isel(frame=slice(1, None)), **again)
    with pytest.raises(InvalidArgument, match=r"different run: backbone .* differ"):
        m3.run(m3.load_backbone("random:small", seed=1), sequence, **again)
    with pytest.raises(AlreadyExists, match=r"stopped after 5 frames.*resume=True"):
        m3.run(backbone, sequence, out=out, progress=False)
    with pytest.raises(InvalidArgument, match="name it with out="):
        m3.run(backbone, sequence, resume=True)
    shutil.rmtree(out / ".unfinished")
    with pytest.raises(StoreError, match="does not hold the state after its 5 whole frames"):
        m3.run(backbone, sequence, **again)
    with pytest.warns(UserWarning, match="5 of 11 frames are whole"):
        m3.open_run(out)


@pytest.mark.parametrize("moment", ["create_store", "_frames", "provenance"])
def test_an_interrupt_before_the_first_frame_leaves_nothing(
    tmp_path, sequence, monkeypatch, moment
):
    from mut3r_analysis.running import streaming

    backbone, out = m3.load_backbone("random:small"), tmp_path / "run.zarr"
    whole = getattr(streaming, moment)

    def interrupted(*arguments):
        if moment != "_frames":
            whole(*arguments)
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(streaming, moment, interrupted)
        with pytest.raises(KeyboardInterrupt):
            m3.run(backbone, sequence, out=out, outputs=("pose",), progress=False)
    assert list(tmp_path.iterdir()) == []
    assert m3.run(backbone, sequence, out=out, outputs=("pose",), progress=False).attrs["complete"]


@pytest.mark.parametrize("left", ["a store of no frames", "half a store", "an empty folder"])
def test_a_store_of_no_frames_never_blocks_the_next_try(tmp_path, sequence, left):
    backbone, out = m3.load_backbone("random:small"), tmp_path / "run.zarr"
    arguments = {"out": out, "outputs": ("pose",), "progress": False}
    out.mkdir()
    if left == "half a store":
        (out / ".unfinished").mkdir()
        (out / "prediction").mkdir()
        (out / "prediction" / "zarr.json").write_text("{}")
    elif left == "a store of no frames":
        attributes = {"format_version": 1, "frames_complete": 0}
        described = {"zarr_format": 3, "node_type": "group", "attributes": attributes}
        (out / "zarr.json").write_text(json.dumps(described))
    assert m3.run(backbone, sequence, **arguments).attrs["complete"]


@pytest.mark.parametrize("kind", ["a file", "a folder with a file", "a damaged store", "a run"])
def test_what_is_not_ours_to_replace_is_left_as_it_is(tmp_path, sequence, kind):
    backbone, out = m3.load_backbone("random:small"), tmp_path / "run.zarr"
    arguments = {"out": out, "outputs": ("pose",), "progress": False}
    if kind == "a file":
        out.write_text("mine")
    elif kind == "a run":
        m3.run(backbone, sequence, **arguments)
    else:
        (out / ".unfinished").mkdir(parents=True) if kind == "a damaged store" else out.mkdir()
        (out / "zarr.json").write_text("mine")
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(AlreadyExists, match="exists and was not changed"):
        m3.run(backbone, sequence, **arguments)
    assert [path for path in sorted(tmp_path.rglob("*")) if ".unfinished" not in str(path)] == [
        path for path in before if ".unfinished" not in str(path)
    ]


SCRIPT = """
import sys, time
import mut3r_analysis as m3
from mut3r_analysis.running import chunks
chunks.MOST_FRAMES = 4
backbone = m3.load_backbone("random:small")
encode = backbone.encode
backbone.encode = lambda *a, **k: (time.sleep(float(sys.argv[2])), encode(*a, **k))[1]
m3.run(backbone, m3.open_sequence("scenes/orbit-03", stop=11), cue=m3.Cue.mut3r(),
       gate=m3.Gate.mut3r(), outputs=("pose",), progress=False, out=sys.argv[1])
"""


def started(out, pause):
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", SCRIPT, str(out), str(pause)]
    return subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True)


def wait_until(condition, seconds=300):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def whole_frames(out):
    try:
        return json.loads((out / "zarr.json").read_text())["attributes"]["frames_complete"]
    except (FileNotFoundError, KeyError):
        return 0


@pytest.mark.parametrize("name", ["SIGKILL", "SIGTERM", "SIGINT"])
def test_a_killed_process_is_resumed_bit_for_bit(tmp_path, sequence, name):
    out = tmp_path / "run.zarr"
    with started(out, 0.3) as process:
        wait_until(lambda: whole_frames(out) >= 4)
        process.send_signal(getattr(signal, name))
        process.stderr.read()
    assert 4 <= whole_frames(out) < FRAMES
    backbone = m3.load_backbone("random:small")
    arguments = {"cue": m3.Cue.mut3r(), "gate": m3.Gate.mut3r(), "outputs": ("pose",)}
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        found = m3.run(backbone, sequence, out=out, resume=True, progress=False, **arguments)
        assert_same(found, m3.run(backbone, sequence, progress=False, **arguments))
    finally:
        torch.set_num_threads(threads)
    assert not [file for file in out.rglob("*") if ".partial" in file.name]


def test_of_two_processes_with_one_store_one_wins_and_the_other_hears_so(tmp_path):
    out = tmp_path / "run.zarr"
    with started(out, 0.3) as one, started(out, 0.3) as other:
        errors = [one.stderr.read(), other.stderr.read()]
    assert sorted([one.returncode, other.returncode]) == [0, 1]
    (error,) = [text for text in errors if text]
    assert "AlreadyExists" in error
    assert "another process is writing" in error or "exists and was not changed" in error
    assert m3.open_run(out).attrs["complete"]


def test_the_command_line_resumes(tmp_path, sequence, capsys):
    out = tmp_path / "run.zarr"
    arguments = ["run", "scenes/orbit-03", "--backbone", "random:small", "--frames", f"0:{FRAMES}",
                 "--outputs", "pose", "--statistics", "--out", str(out), "--quiet"]  # fmt: skip
    capture = m3.Capture(statistics=[])
    stopped(m3.load_backbone("random:small"), sequence, 5, out=out, outputs=("pose",),
            capture=capture)  # fmt: skip
    assert main(arguments) == 1
    assert "--resume" in capsys.readouterr().err
    assert main([*arguments, "--resume"]) == 0
    assert f"{FRAMES} frames in {out}" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("parameter", "site"),
    [("enc_blocks.1.attn.qkv.weight", ("encoder_self", 1)),
     ("dec_blocks.2.attn.qkv.weight", ("image_self", 2)),
     ("dec_blocks_state.0.cross_attn.projq.weight", ("state_to_image", 0)),
     ("downstream_head.pose_head.mlp.fc1.weight", None)],
)  # fmt: skip
def test_the_first_number_that_is_none_is_named_by_frame_site_and_layer(
    sequence, parameter, site, tmp_path
):
    backbone = m3.load_backbone("random:small")
    frame = sequence["frame"].values[2]
    encode, seen = backbone.encode, []

    def damaged(*arguments, **options):
        seen.append(1)
        if len(seen) == 3:  # the weights go bad in the third frame
            dict(backbone.named_parameters())[parameter].data.view(-1)[0] = np.nan
        return encode(*arguments, **options)

    backbone.encode = damaged
    with pytest.warns(UserWarning, match=f"NaN or infinite from frame {frame} on") as warned:
        run = m3.run(backbone, sequence, progress=False, out=tmp_path / "run.zarr")
    assert len(warned) == 1
    found = run.attrs["not_finite"]
    assert (found["frame"], found["position"]) == (frame, 2)
    assert found["variable"].startswith("prediction/")
    assert site is None or (found["site"], found["layer"]) == site
    assert site is not None or "site" not in found
    assert m3.open_run(tmp_path / "run.zarr").attrs["not_finite"] == found


def test_a_run_of_numbers_says_nothing(sequence):
    run = m3.run(m3.load_backbone("random:small"), sequence, outputs=("pose",), progress=False)
    assert run.attrs["not_finite"] is None
