"""Where units are done: in this process, in processes of this machine, or on a Dask cluster."""

import ast
import multiprocessing
import os
import queue
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from functools import lru_cache
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any

import torch

from mut3r_analysis.backbones.protocol import Backbone
from mut3r_analysis.errors import InvalidArgument
from mut3r_analysis.running.provenance import timestamp
from mut3r_analysis.sweeps.ledger import Ended, Entry, Ledger
from mut3r_analysis.sweeps.sources import BackboneSource
from mut3r_analysis.sweeps.units import Unit
from mut3r_analysis.sweeps.working import work

Executor = Callable[[Sequence[Unit]], Iterator[Entry]]
_DEVICE = "MUT3R_SWEEP_DEVICE"
_TIDYING = 3.0
"""Seconds that a worker has to end its run after its parent has ended."""


def in_process(units: Sequence[Unit]) -> Iterator[Entry]:
    """Do units one after the other, here."""
    for unit in units:
        yield work(unit)


def in_processes(workers: int) -> Executor:
    """Return an executor with so many processes, each on its own CUDA device where there are some.

    A process that dies costs the unit it was doing, which is tried once more in a new process.
    """

    def execute(units: Sequence[Unit]) -> Iterator[Entry]:
        waiting: queue.SimpleQueue[Unit] = queue.SimpleQueue()
        done: queue.SimpleQueue[Entry] = queue.SimpleQueue()
        for unit in units:
            waiting.put(unit)
        stop = threading.Event()
        threads = [
            threading.Thread(target=_serve, args=(index, workers, waiting, done, stop), daemon=True)
            for index in range(min(workers, len(units)))
        ]
        for thread in threads:
            thread.start()
        try:
            for _ in units:
                yield done.get()
        finally:
            stop.set()
            for thread in threads:
                thread.join()

    return execute


def dask_distributed() -> Any:
    """Return the module `dask.distributed`, or say how to install it.

    Raises
    ------
    InvalidArgument
    """
    try:
        import dask.distributed
    except ImportError as error:
        raise InvalidArgument(
            "a cluster needs Dask: pip install 'mut3r-analysis[cluster]'"
        ) from error
    return dask.distributed


def on_cluster(client: Any) -> Executor:
    """Return an executor that sends units to the workers of a `dask.distributed.Client`.

    Workers get descriptions, not tensors; they open checkpoint, sequence and the folder of the
    sweep by their paths, which must mean the same there. Dask gives the unit of a worker that dies
    to another one.
    """
    finished = dask_distributed().as_completed

    def execute(units: Sequence[Unit]) -> Iterator[Entry]:
        # Not pure: the same unit may be tried again, and its result lies on disk.
        futures = {client.submit(work_here, unit, pure=False): unit for unit in units}
        try:
            for future in finished(list(futures)):
                try:
                    yield future.result()
                except Exception as error:
                    yield _lost(futures[future], error)
        finally:
            client.cancel(list(futures))

    return execute


def work_here(unit: Unit) -> Entry:
    """Do a unit in a worker, which keeps the last backbones it loaded."""
    return work(unit, _backbone(unit.backbone))


@lru_cache(maxsize=2)
def _backbone(source: BackboneSource) -> Backbone:
    return source.open(os.environ.get(_DEVICE))


def _serve(
    index: int,
    workers: int,
    waiting: "queue.SimpleQueue[Unit]",
    done: "queue.SimpleQueue[Entry]",
    stop: threading.Event,
) -> None:
    """Keep one process busy."""
    pool = None
    while not stop.is_set():
        try:
            unit = waiting.get_nowait()
        except queue.Empty:
            break
        for last in (False, True):
            pool = pool or _process(index, workers)
            try:
                entry = pool.submit(work_here, unit).result()
                break
            except BrokenProcessPool as error:
                pool = None
                if last:
                    entry = _lost(unit, error)
            except Exception as error:
                entry = _lost(unit, error)
                break
        done.put(entry)
    if pool is not None:
        pool.shutdown()


def _process(index: int, workers: int) -> ProcessPoolExecutor:
    return ProcessPoolExecutor(
        max_workers=1,
        mp_context=multiprocessing.get_context("spawn"),
        initializer=_settle,
        initargs=(index, workers),
    )


def check_startable() -> None:
    """Refuse to start processes from a script that each of them would run once more.

    Raises
    ------
    InvalidArgument
        When the script is read from standard input, or calls from outside its main guard.
    """
    frame = sys._getframe()
    while frame is not None and not (
        frame.f_globals.get("__name__") == "__main__" and frame.f_code.co_name == "<module>"
    ):
        frame = frame.f_back  # type: ignore[assignment]
    script = None if frame is None else frame.f_globals.get("__file__")
    if script is None:
        return  # a notebook, a console, or a thread: processes have no script to run
    guard = 'put the call under if __name__ == "__main__": in a script, or use workers=0'
    if not Path(script).is_file():
        raise InvalidArgument(
            f"workers= cannot start from {script}, which other processes cannot read; {guard}"
        )
    with suppress(SyntaxError, UnicodeDecodeError):
        for statement in ast.parse(Path(script).read_text(encoding="utf-8")).body:
            if statement.lineno <= frame.f_lineno <= (statement.end_lineno or statement.lineno):
                named = {node.id for node in ast.walk(statement) if isinstance(node, ast.Name)}
                if not (isinstance(statement, ast.If) and "__name__" in named):
                    raise InvalidArgument(
                        f"workers= would run line {frame.f_lineno} of {script} once more in every "
                        f"process that it starts; {guard}"
                    )


def _end_with_parent() -> None:
    """End this process soon after the one that started it, also when that one was killed."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        wait([parent.sentinel])
        # A run is stopped as by a termination, so that it tidies up behind itself.
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(_TIDYING)
        os._exit(1)


def _settle(index: int, workers: int) -> None:
    threading.Thread(target=_end_with_parent, daemon=True).start()
    devices = torch.cuda.device_count()
    if devices:
        os.environ[_DEVICE] = f"cuda:{index % devices}"
    torch.set_num_threads(max(1, (os.cpu_count() or 1) // workers))


def _lost(unit: Unit, error: BaseException) -> Entry:
    """Record a unit that no worker could finish."""
    reason = RuntimeError(f"the process that did this unit ended: {error}")
    ended = Ended.failed(reason)
    entry = Entry(unit.digest, str(unit), dict.fromkeys(unit.runs, ended), 0.0,
                  unit.sequence.frames, timestamp())  # fmt: skip
    Ledger(unit.folder).record(entry)
    return entry
