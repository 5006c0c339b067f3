"""What ``mut3r doctor --deep`` tries on a machine: devices, kernels, storage, a killed run."""

import getpass
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
import xarray as xr

from mut3r_analysis.attention.seam import attend
from mut3r_analysis.attention.sites import Site
from mut3r_analysis.attention.statistics import site_statistics
from mut3r_analysis.backbones.loading import load_backbone
from mut3r_analysis.errors import StoreError
from mut3r_analysis.running.agreement import differences
from mut3r_analysis.running.checking import check_store
from mut3r_analysis.running.claiming import progress_of
from mut3r_analysis.running.opening import open_run
from mut3r_analysis.running.streaming import run
from mut3r_analysis.sequences.frames import lazy_frames
from mut3r_analysis.sequences.opening import open_sequence

FRAMES, KILLED_AT = 40, 30
ON_DEVICE = 1e-3
KERNEL = 1e-4


class Finding(NamedTuple):
    """What was tried, what was found, and whether it is as it should be."""

    name: str
    found: str
    holds: bool


def examine() -> Iterator[Finding]:
    """Try everything, one after the other; what raises is a finding, too."""
    with tempfile.TemporaryDirectory() as folder:
        for name, trial in _trials(Path(folder)):
            began = time.perf_counter()
            try:
                found, holds = trial()
            except Exception as error:
                found, holds = f"{type(error).__name__}: {error}", False
            spent = time.perf_counter() - began
            yield Finding(name, f"{anonymous(found)} ({spent:.1f} s)", holds)


def anonymous(text: str) -> str:
    """Return a text without the paths and the name by which a person would be known."""
    named = ((tempfile.gettempdir(), "TEMP"), (str(Path.home()), "~"), (_user(), "USER"))
    for private, public in named:
        text = text.replace(private, public) if len(private) > 1 else text
    return text


def _user() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError):  # a machine that does not know who works on it
        return ""


def _trials(folder: Path) -> Iterator[tuple[str, Callable[[], tuple[str, bool]]]]:
    devices = [torch.device("cpu")]
    devices += [torch.device("cuda", index) for index in range(torch.cuda.device_count())]
    for device in devices:
        yield f"kernels, {device}", partial(kernels, device)
        yield f"a run, {device}", partial(as_on_cpu, device)
    yield "storage", partial(storage, folder)
    yield "a killed run", partial(killed_and_resumed, folder)


def kernels(device: torch.device) -> tuple[str, bool]:
    """Compare attention and its statistics with their definition in float64."""
    generator = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(1, 4, 193, 32, generator=generator).to(device) for _ in range(3))
    logits = q.double() @ k.double().mT / q.shape[-1] ** 0.5
    weights = logits.softmax(-1)
    expected = {
        "attention": weights @ v.double(),
        "entropy": -(weights * weights.log()).sum(-1),
        "received": weights.mean(-2),
        "logit_variance": logits.var(-1, unbiased=False),
    }
    found = {"attention": attend(Site("image_self", 0), q, k, v)}
    found |= site_statistics([name for name in expected if name != "attention"], q, k)
    worst = {
        name: float((found[name].double() - value).abs().max() / value.abs().max())
        for name, value in expected.items()
    }
    name = max(worst, key=lambda each: worst[each])
    return f"at most {worst[name]:.1e} from float64 ({name})", worst[name] <= KERNEL


def as_on_cpu(device: torch.device) -> tuple[str, bool]:
    """Run the bundled model on a device and, of the same frames, on the CPU."""
    sequence = open_sequence("scenes/orbit-03", stop=4)
    one, other = (
        run(load_backbone("tiny", device=place), sequence, progress=False)
        for place in (device, "cpu")
    )
    apart = max(differences(one, other).values())
    same = "again" if device.type == "cpu" else "on the CPU"
    return f"at most {apart:.1e} from the same {same}", apart <= ON_DEVICE * (device.type != "cpu")


def storage(folder: Path) -> tuple[str, bool]:
    """Write a run, read all of it, and see that one wrong bit is found."""
    out = folder / "stored"
    sequence = open_sequence("scenes/orbit-03", stop=4)
    run(load_backbone("tiny", device="cpu"), sequence, out=out, progress=False)
    problems = check_store(out)
    if problems:
        return f"what was written is not what is read: {problems[0]}", False
    file = next(path for path in (out / "prediction" / "pose").rglob("c/**/*") if path.is_file())
    content = bytearray(file.read_bytes())
    content[8] ^= 1
    file.write_bytes(content)
    try:
        open_run(out)["prediction/pose"].load()
    except StoreError:
        return "whole when read; a wrong bit is found", True
    return "a wrong bit is not found", False


def killed_and_resumed(folder: Path) -> tuple[str, bool]:
    """Let a process that writes a run be killed, go on with the run, and compare."""
    out, threads = folder / "killed", torch.get_num_threads()
    program = f"from mut3r_analysis.cli.deep import write_and_die; write_and_die({str(out)!r})"
    done = subprocess.run(
        [sys.executable, "-c", program],
        env=os.environ | {"OMP_NUM_THREADS": str(threads), "CUDA_VISIBLE_DEVICES": ""},
        capture_output=True,
        text=True,
        timeout=300,
    )
    kept, _ = progress_of(out)
    if not 0 < kept < KILLED_AT:
        said = (done.stderr.strip().splitlines() or ["it said nothing"])[-1]
        return f"{kept} frames were kept of a process that died at {KILLED_AT}: {said}", False
    backbone = load_backbone("tiny", device="cpu")
    resumed = run(backbone, _frames(), out=out, resume=True, progress=False)
    undisturbed = run(backbone, _frames(), progress=False)
    differing = [name for name, apart in differences(resumed, undisturbed).items() if apart]
    said = ", ".join(differing) or f"{kept} of {FRAMES} frames kept, then as if never killed"
    return said, not differing


class _Fatal:
    """Frames of which one ends the process that reads it."""

    def __init__(self, pixels: np.ndarray) -> None:
        self.shape: Any = pixels.shape
        self._pixels = pixels

    def read(self, position: int) -> np.ndarray:
        if position == KILLED_AT:
            os.kill(os.getpid(), getattr(signal, "SIGKILL", signal.SIGTERM))
        return self._pixels[position]


def _frames() -> xr.Dataset:
    pixels = np.random.default_rng(0).integers(0, 256, (FRAMES, 48, 64, 3), np.uint8)
    return open_sequence(pixels, name="noise")


def write_and_die(out: str) -> None:
    """Write a run, and be killed in the middle of it."""
    sequence = _frames()
    sequence["image"].variable.data = lazy_frames(_Fatal(sequence["image"].values))
    run(load_backbone("tiny", device="cpu"), sequence, out=out, progress=False)
