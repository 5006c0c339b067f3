"""Whatever ends a run, its store opens and says truthfully how many frames are whole."""

import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import xarray as xr

import mut3r_analysis as m3
from mut3r_analysis.errors import MissingFile, StoreError, UnreadableFile

SCRIPT = """
import numpy as np, sys
import mut3r_analysis as m3
frames = np.random.default_rng(0).integers(0, 256, (1000, 48, 64, 3), dtype=np.uint8)
capture = m3.Capture(statistics=["entropy", "received"], sites=["image_self"])
m3.run(m3.load_backbone("random:small"), m3.open_sequence(frames), progress=False,
       outputs=("pose",), capture=capture, out=sys.argv[1])
"""


def frames_complete(out) -> int:
    try:
        return json.loads((out / "zarr.json").read_text())["attributes"]["frames_complete"]
    except FileNotFoundError:
        return 0


def start_and_stop(out, number):
    """Run in another process and send it a signal once some blocks are written."""
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(
        [sys.executable, "-c", SCRIPT, str(out)], env=environment, stderr=subprocess.DEVNULL
    )
    deadline = time.monotonic() + 120
    with process:
        while frames_complete(out) < 60:
            assert process.poll() is None, "the run ended before it could be interrupted"
            assert time.monotonic() < deadline
            time.sleep(0.02)
        process.send_signal(number)
    return process.returncode


@pytest.fixture(scope="module")
def whole():
    frames = np.random.default_rng(0).integers(0, 256, (1000, 48, 64, 3), dtype=np.uint8)
    backbone = m3.load_backbone("random:small")
    return m3.run(
        backbone,
        m3.open_sequence(frames[:64]),
        progress=False,
        outputs=("pose",),
        capture=m3.Capture(statistics=["entropy"], sites=["image_self"]),
    )


@pytest.mark.parametrize("name", ["SIGKILL", "SIGTERM", "SIGINT"])
def test_a_stopped_process_leaves_whole_frames(tmp_path, whole, name):
    out = tmp_path / "run.zarr"
    code = start_and_stop(out, getattr(signal, name))
    assert code != 0
    with pytest.warns(UserWarning, match="was interrupted"):
        run = m3.open_run(out)
    done = run.attrs["frames_complete"]
    assert 60 <= done < 1000
    assert not run.attrs["complete"]
    for node in run.subtree:
        if "frame" in node.sizes:
            assert node.sizes["frame"] == done
    compared = min(done, 64)
    for path in ("prediction/pose", "attention/image_self/entropy"):
        np.testing.assert_allclose(
            run[path].isel(frame=slice(0, compared)),
            whole[path].isel(frame=slice(0, compared)),
            rtol=1e-5,
            atol=1e-5,
        )
    assert run["attention/image_self/received"].notnull().all()


def test_an_unreadable_frame_keeps_those_before(tmp_path):
    from PIL import Image

    folder = tmp_path / "frames"
    folder.mkdir()
    for t in range(5):
        noise = np.random.default_rng(t).integers(0, 256, (48, 64, 3), dtype=np.uint8)
        Image.fromarray(noise).save(folder / f"{t}.png")
    damaged = folder / "3.png"
    damaged.write_bytes(damaged.read_bytes()[:2000])
    sequence = m3.open_sequence(folder)
    out = tmp_path / "run.zarr"
    with pytest.raises(UnreadableFile, match=r"3\.png"):
        m3.run(m3.load_backbone("random:small"), sequence, progress=False, out=out)
    with pytest.warns(UserWarning, match="3 of 5 frames are whole"):
        run = m3.open_run(out)
    assert run["prediction/pose"].sizes["frame"] == 3


def test_a_full_disk_is_reported_and_keeps_whole_blocks(tmp_path):
    script = SCRIPT.replace(
        "m3.run(",
        """
import resource, signal
from mut3r_analysis.running import store
write = store.BlockWriter.flush
def flush(self):
    if self.complete:
        # No file may grow beyond a few bytes any more: the system refuses as on a full disk.
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))
    write(self)
store.BlockWriter.flush = flush
m3.run(""",
    )
    out = tmp_path / "run.zarr"
    done = subprocess.run(
        [sys.executable, "-c", script, str(out)],
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    block = frames_complete(out)
    assert f"StoreError: could not write frames {block} to" in done.stderr
    assert f"The first {block} frames are whole" in done.stderr
    with pytest.warns(UserWarning, match=f"{block} of 1000 frames are whole"):
        run = m3.open_run(out)
    assert run["attention/image_self/entropy"].notnull().all()


def test_what_is_no_run_is_refused(tmp_path):
    with pytest.raises(MissingFile, match="no run at"):
        m3.open_run(tmp_path / "nothing.zarr")
    (tmp_path / "folder").mkdir()
    with pytest.raises(StoreError, match="not the Zarr store of a run"):
        m3.open_run(tmp_path / "folder")
    dataset = xr.Dataset({"a": ("x", [1.0])})
    dataset.to_zarr(tmp_path / "other.zarr", consolidated=False)
    with pytest.raises(StoreError, match="no format version"):
        m3.open_run(tmp_path / "other.zarr")
