"""Memory does not grow with the number of frames: not the process's, not the device's."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest
import torch

import mut3r_analysis as m3

# A C library that keeps freed blocks would hide or invent growth; large blocks are mapped alone.
SCRIPT = """
import ctypes, json, sys, tempfile
from pathlib import Path
import numpy as np, torch
import mut3r_analysis as m3
ctypes.CDLL(None).mallopt(-3, 64 * 1024)
torch.set_num_threads(1)
scene = m3.open_sequence("scenes/orbit-01")[["image"]]
count = int(sys.argv[1])
order = np.arange(count) % 4
looped = scene.isel(frame=order).assign_coords(frame=np.arange(count))
capture = m3.Capture(statistics=["entropy"], sites=["image_self"], layers=[0], heads=[0])
with tempfile.TemporaryDirectory() as folder:
    run = m3.run(m3.load_backbone("tiny", device="cpu"), looped, outputs=("pose",),
                 capture=capture, out=Path(folder) / "run", progress=False)
    whole = run["attention/image_self/entropy"].sizes["frame"]
peak = int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0])
print(json.dumps({"frames": whole, "peak": 1024 * peak}))
"""


def peak_of(frames: int) -> int:
    """Run that many frames in a process of its own and return its peak memory."""
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(frames)],
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["frames"] == frames
    return found["peak"]


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads the peak that Linux keeps per process")
def test_a_thousand_frames_need_no_more_memory_than_a_hundred() -> None:
    hundred, thousand = peak_of(100), peak_of(1000)
    assert thousand <= 1.05 * hundred


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_device_memory_is_the_same_for_any_number_of_frames(tmp_path) -> None:
    backbone = m3.load_backbone("random:small", device="cuda")
    capture = m3.Capture(statistics="all", maps=["image_self"], sites=["image_self"])

    def peak(frames: int) -> int:
        pixels = np.random.default_rng(0).integers(0, 256, (frames, 48, 64, 3), dtype=np.uint8)
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        m3.run(
            backbone, m3.open_sequence(pixels), capture=capture, out=tmp_path / str(frames),
            progress=False,
        )  # fmt: skip
        return torch.cuda.max_memory_allocated()

    peak(2)
    few, many = peak(8), peak(80)
    assert many == few
