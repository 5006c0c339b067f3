"""Long runs and many readers: blocks cost the same, readers see what is whole."""

import json
import os
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from zarr.storage import LocalStore

import mut3r_analysis as m3
from mut3r_analysis.errors import StoreError
from mut3r_analysis.running import chunks, inventory
from mut3r_analysis.running.store import BlockWriter
from mut3r_analysis.sequences.frames import lazy_frames

BLOCK = 4
NOISE = np.random.default_rng(0).integers(0, 256, (240, 48, 64, 3), np.uint8)


def short_run(out, frames):
    sequence = m3.open_sequence("scenes/orbit-03", stop=frames)
    capture = m3.Capture(statistics=["entropy"], sites=["image_self"])
    return m3.run(m3.load_backbone("random:small"), sequence, capture=capture, out=out,
                  progress=False)  # fmt: skip


def test_every_block_costs_what_the_one_before_did(tmp_path, monkeypatch):
    monkeypatch.setattr(chunks, "MOST_FRAMES", BLOCK)
    done, blocks, kept, attributes = Counter(), [], [], []
    for name in ("get", "set"):
        method = getattr(LocalStore, name)

        async def counted(self, *args, name=name, method=method, **kwargs):
            done[name] += 1
            return await method(self, *args, **kwargs)

        monkeypatch.setattr(LocalStore, name, counted)
    flush = BlockWriter.flush

    def flushed(self):
        before = Counter(done)
        flush(self)
        if done != before:
            blocks.append(dict(done - before))
            kept.append(len(list((tmp_path / "run" / ".unfinished").glob("*.pt"))))
            attributes.append((tmp_path / "run" / "zarr.json").stat().st_size)

    monkeypatch.setattr(BlockWriter, "flush", flushed)
    short_run(tmp_path / "run", 5 * BLOCK)
    assert len(blocks) == 5
    # The first block opens its arrays.
    assert blocks[1:] == blocks[1:2] * 4
    assert max(kept) <= 2
    assert max(attributes) - min(attributes) <= 2  # 4 and 20 have one and two digits


class CountedFrames:
    """Frames that count how often each is read."""

    shape = (6, 48, 64, 3)

    def __init__(self):
        self.times = Counter()

    def read(self, position):
        self.times[position] += 1
        return NOISE[position]


def test_every_frame_is_read_once():
    frames = CountedFrames()
    sequence = m3.open_sequence(NOISE[:6])
    sequence["image"].variable.data = lazy_frames(frames)
    m3.run(m3.load_backbone("random:small"), sequence, outputs=("pose",), progress=False)
    assert frames.times == dict.fromkeys(range(6), 1)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(chunks, "MOST_FRAMES", BLOCK)
        out = tmp_path_factory.mktemp("runs") / "whole"
        short_run(out, 2 * BLOCK)
    return out


def then_whole(whole, store, listed=inventory.files_in):
    """List the files of a store, which is finished right after that."""

    def goes_on(*args):
        files = listed(*args)
        shutil.copytree(whole, store, dirs_exist_ok=True)
        return files

    return goes_on


def test_a_run_that_goes_on_while_it_is_opened_shows_what_was_whole(whole, tmp_path, monkeypatch):
    early = Path(shutil.copytree(whole, tmp_path / "run"))
    for second in [*early.rglob("c/1"), *early.rglob("c/1/*")]:
        shutil.rmtree(second) if second.is_dir() else second.unlink(missing_ok=True)
    root = json.loads((early / "zarr.json").read_text())
    root["attributes"] |= {"frames_complete": BLOCK, "complete": False}
    (early / "zarr.json").write_text(json.dumps(root))
    monkeypatch.setattr(inventory, "files_in", then_whole(whole, early))
    with pytest.warns(UserWarning, match="4 of 8 frames"):
        run = m3.open_run(early)
    pose = m3.open_run(whole)["prediction/pose"].isel(frame=slice(BLOCK))
    np.testing.assert_array_equal(run["prediction/pose"], pose)


def test_a_store_that_is_being_created_is_not_called_damaged(whole, tmp_path, monkeypatch):
    young = Path(shutil.copytree(whole, tmp_path / "run"))
    root = json.loads((young / "zarr.json").read_text())
    del root["attributes"]["checksums"], root["attributes"]["grown"]
    root["attributes"]["complete"] = False
    (young / "zarr.json").write_text(json.dumps(root))
    shutil.rmtree(young / "state")
    with pytest.raises(StoreError, match="is being created by a run"):
        m3.open_run(young)
    # Its root is written last: here it appears once the other files were looked for, and the run
    # is over by then.
    (young / "zarr.json").unlink()
    monkeypatch.setattr(inventory, "files_in", then_whole(whole, young))
    with pytest.raises(StoreError, match="is being created by a run"):
        m3.open_run(young)
    monkeypatch.undo()
    shutil.rmtree(young)
    young.mkdir()
    with pytest.raises(StoreError, match="empty, unless one is just being created"):
        m3.open_run(young)
    (young / ".unfinished").mkdir()
    with pytest.raises(StoreError, match="is being created by a run"):
        m3.open_run(young)
    (young / ".unfinished").rename(young / "notes")
    with pytest.raises(StoreError, match="not the Zarr store of a run"):
        m3.open_run(young)


READERS = """
import json, multiprocessing, sys, time, warnings
import numpy as np
from mut3r_analysis.errors import MissingFile, StoreError
from mut3r_analysis.running.opening import open_run

def read(_):
    warnings.simplefilter("ignore")
    opened, poses, complete = 0, np.empty((0, 4, 4), np.float32), False
    while not complete:
        try:
            run = open_run(sys.argv[1])
        except (MissingFile, StoreError) as error:
            if opened or "no run" not in str(error) and "being created" not in str(error):
                raise
            time.sleep(0.05)
            continue
        now = run["prediction/pose"].values
        assert len(now) == run.attrs["frames_complete"], (len(now), run.attrs["frames_complete"])
        assert np.array_equal(now[:len(poses)], poses)
        opened, poses, complete = opened + 1, now, run.attrs["complete"]
        time.sleep(0.2)
    return opened, poses.sum().item()

with multiprocessing.get_context("fork").Pool(8) as pool:
    print("ready", flush=True)
    print(json.dumps(pool.map(read, range(8), chunksize=1)))
"""


@pytest.mark.skipif(sys.platform == "win32", reason="the readers are forked, which is quick")
def test_eight_readers_beside_one_writer_see_whole_frames_and_no_others(tmp_path, monkeypatch):
    monkeypatch.setattr(chunks, "MOST_FRAMES", BLOCK)
    out = tmp_path / "run"
    readers = subprocess.Popen(
        [sys.executable, "-c", READERS, str(out)],
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    backbone = m3.load_backbone("tiny")
    assert readers.stdout.readline() == b"ready\n"
    run = m3.run(
        backbone, m3.open_sequence(NOISE), outputs=("pose",), out=out,
        progress=False,
    )  # fmt: skip
    answer, trouble = readers.communicate(timeout=120)
    assert readers.returncode == 0, trouble.decode()
    whole = run["prediction/pose"].values.sum().item()
    found = json.loads(answer)
    assert len(found) == 8
    assert all(total == whole for _, total in found)
    assert all(opened > 1 for opened, _ in found)
