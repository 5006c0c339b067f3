"""Time and memory of alternatives, measured in turn in one process."""

import ctypes
import gc
import platform
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import psutil
import torch


@dataclass
class Measurement:
    """Median wall and processor seconds of some repetitions, and peak memory above the start."""

    wall: float
    cpu: float
    peak_bytes: int


_M_MMAP_THRESHOLD = -3


def pin_allocator() -> None:
    """Give every large block its own mapping, so that resident size follows what is alive.

    Otherwise the C library adapts: it keeps freed blocks, and the peak depends on what ran before.
    """
    if platform.system() == "Linux":
        ctypes.CDLL(None).mallopt(_M_MMAP_THRESHOLD, 64 * 1024)


def measure(alternatives: dict[str, Callable[[], Any]], repetitions: int) -> dict[str, Measurement]:
    """Run every alternative in turn, A B C A B C ..., so that a drifting machine favours none.

    Memory is the peak resident size during the call minus the size before it.
    """
    wall: dict[str, list[float]] = {name: [] for name in alternatives}
    cpu: dict[str, list[float]] = {name: [] for name in alternatives}
    peak: dict[str, list[int]] = {name: [] for name in alternatives}
    for _ in range(repetitions):
        for name, call in alternatives.items():
            before = _settle()
            began, began_cpu = time.perf_counter(), time.process_time()
            call()
            wall[name].append(time.perf_counter() - began)
            cpu[name].append(time.process_time() - began_cpu)
            peak[name].append(_peak_resident() - before)
    return {
        name: Measurement(median(wall[name]), median(cpu[name]), max(peak[name]))
        for name in alternatives
    }


def machine() -> dict[str, Any]:
    """Class of machine, without its name."""
    return {
        "processor": platform.machine(),
        "cores": psutil.cpu_count(),
        "threads": torch.get_num_threads(),
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu",
        "torch": torch.__version__,
    }


def _settle() -> int:
    """Return freed memory to the system and the resident size; reset the high-water mark."""
    gc.collect()
    if platform.system() == "Linux":
        ctypes.CDLL(None).malloc_trim(0)
        Path("/proc/self/clear_refs").write_text("5")
    return psutil.Process().memory_info().rss


def _peak_resident() -> int:
    if platform.system() != "Linux":
        return psutil.Process().memory_info().rss
    status = Path("/proc/self/status").read_text()
    line = next(line for line in status.splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) * 1024
