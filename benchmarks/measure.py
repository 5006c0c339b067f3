"""Time and memory of alternatives, measured in turn in one process."""

import ctypes
import gc
import json
import platform
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from random import Random
from statistics import mean, median
from typing import Any

import psutil
import torch
from torch.nn.modules.module import register_module_forward_pre_hook


@dataclass
class Measurement:
    """Median wall and processor seconds of some repetitions, and peak memory above the start.

    Whatever else a machine does only adds to a time: between alternatives a few percent apart, the
    least processor seconds tell more than the median.
    """

    wall: float
    cpu: float
    least_cpu: float
    peak_bytes: int


_M_MMAP_THRESHOLD, _M_ARENA_MAX = -3, -8


def pin_allocator() -> None:
    """Give every large block its own mapping, so that resident size follows what is alive.

    Otherwise the C library adapts: it keeps freed blocks, and the peak depends on what ran before.
    """
    if platform.system() == "Linux":
        ctypes.CDLL(None).mallopt(_M_MMAP_THRESHOLD, 64 * 1024)


def measure(
    alternatives: dict[str, Callable[[], Any]],
    repetitions: int,
    prepare: Callable[[], Any] | None = None,
) -> dict[str, Measurement]:
    """Run every alternative once per repetition, in an order drawn anew for each.

    So neither a drifting machine nor what the alternative before left behind favours any.
    Memory is the peak resident size during the call minus the size before it. What `prepare` does
    comes before every call and is not measured.
    """
    wall: dict[str, list[float]] = {name: [] for name in alternatives}
    cpu: dict[str, list[float]] = {name: [] for name in alternatives}
    peak: dict[str, list[int]] = {name: [] for name in alternatives}
    for repetition in range(repetitions):
        for name in Random(repetition).sample(list(alternatives), len(alternatives)):
            call = alternatives[name]
            if prepare is not None:
                prepare()
            before = _settle()
            began, began_cpu = time.perf_counter(), time.process_time()
            call()
            wall[name].append(time.perf_counter() - began)
            cpu[name].append(time.process_time() - began_cpu)
            peak[name].append(_peak_resident() - before)
    return {
        name: Measurement(median(wall[name]), median(cpu[name]), min(cpu[name]), max(peak[name]))
        for name in alternatives
    }


SLICE = 0.1
"""Processor seconds for which an alternative computes before it hands over."""


def side_by_side(alternatives: dict[str, Callable[[], Any]], repetitions: int) -> dict[str, float]:
    """Run alternatives that hand over to each other within a call, on one core.

    A machine's speed changes by more than a few percent, from one second to the next. So every
    alternative has a thread, of which one computes at a time: at the first module that it comes to
    after :data:`SLICE` seconds, it hands over to the next, and all see the same machine. One that
    is done early begins anew, until each was called often enough.

    Returns
    -------
    dict of str to float
        Processor seconds per call: the mean of those that were completed, `repetitions` or more.
    """
    if platform.system() == "Linux":
        # Else each thread has a pool of memory of its own, and one may fault where others do not.
        ctypes.CDLL(None).mallopt(_M_ARENA_MAX, 1)
    turns = _Turns(list(alternatives), repetitions)
    hook = register_module_forward_pre_hook(turns.hand_over)
    try:
        with ThreadPoolExecutor(len(alternatives)) as pool:
            threads = [pool.submit(turns.take, *item) for item in alternatives.items()]
        for thread in threads:
            thread.result()
    finally:
        hook.remove()
    return {name: mean(seconds) for name, seconds in turns.seconds.items()}


class _Over(Exception):
    """All alternatives were called often enough: the call that goes on is given up."""


class _Turns:
    """Whose turn it is, and what was completed."""

    def __init__(self, names: list[str], wanted: int) -> None:
        self.seconds: dict[str, list[float]] = {name: [] for name in names}
        self._wanted = wanted
        self._going = list(names)
        self._changed = threading.Condition()
        self._own = threading.local()

    def take(self, name: str, call: Callable[[], Any]) -> None:
        """Call an alternative again and again, in this thread, until all are done."""
        torch.set_num_threads(1)  # a thread has a number of its own
        self._own.name = name
        try:
            self._wait()
            while True:
                began = time.thread_time()
                call()
                self.seconds[name].append(time.thread_time() - began)
        except _Over:
            pass
        except BaseException:
            self._wanted = 0  # the others need not go on
            raise
        finally:
            with self._changed:
                self._going.remove(name)
                self._changed.notify_all()

    def hand_over(self, module: Any, inputs: Any) -> None:
        """Give the turn to the next, at a module, once the time is up; called by PyTorch."""
        if getattr(self._own, "name", None) is None:
            return
        if time.thread_time() - self._own.began >= SLICE:
            with self._changed:
                self._going.append(self._going.pop(0))
                self._changed.notify_all()
            self._wait()

    def _wait(self) -> None:
        with self._changed:
            self._changed.wait_for(lambda: self._going[0] == self._own.name)
        if all(len(done) >= self._wanted for done in self.seconds.values()):
            raise _Over
        self._own.began = time.thread_time()


def machine() -> dict[str, Any]:
    """Class of machine, without its name."""
    return {
        "processor": platform.machine(),
        "cores": psutil.cpu_count(),
        "threads": torch.get_num_threads(),
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu",
        "torch": torch.__version__,
    }


def counted(count: int, what: str) -> str:
    return f"{count} {what}{'s' * (count != 1)}"


def at_most(ratio: float, limit: float | None = None) -> dict[str, Any]:
    """Return a ratio beside what it should not exceed."""
    met = None if limit is None else bool(ratio <= limit)
    return {"ratio": float(ratio), "limit": limit, "met": met}


def at_least(ratio: float, limit: float) -> dict[str, Any]:
    """Return a ratio beside what it should not fall below."""
    return {
        "ratio": float(ratio),
        "limit": limit,
        "met": bool(ratio >= limit),
        "at_least": True,
    }


def publish(name: str, result: dict[str, Any], out: Path | None, quick: bool) -> None:
    """Print a result with its date and machine, and keep it where the report finds it.

    A quick run is a rehearsal: it is kept only where it is told to.
    """
    stamped = {"date": datetime.now(UTC).date().isoformat(), "machine": machine(), **result}
    if out is None and not quick:
        out = Path(f"outputs/benchmarks/{name}.json")
    if out is not None:
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(json.dumps(stamped, indent=2), encoding="utf-8")
    print(json.dumps(stamped, indent=2))


def _settle() -> int:
    """Return freed memory to the system and the resident size; reset the high-water mark."""
    gc.collect()
    if platform.system() == "Linux":
        ctypes.CDLL(None).malloc_trim(0)
        Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")
    return psutil.Process().memory_info().rss


def _peak_resident() -> int:
    if platform.system() != "Linux":
        return psutil.Process().memory_info().rss
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    line = next(line for line in status.splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) * 1024
