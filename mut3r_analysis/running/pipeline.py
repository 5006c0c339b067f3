"""Frames are read before the model needs them, and written while it is at the next ones."""

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

Item = TypeVar("Item")

AHEAD = 2
"""Frames that are held ready: one hides the time that reading takes, two also its variation."""

BEHIND = 2
"""Frames that wait to be written, the one that is being written among them."""


@contextmanager
def read_ahead(frames: Iterator[Item]) -> Iterator[Iterator[Item]]:
    """Read frames in another thread, a few before their turn.

    Each is read once and in order. What reading one raises is raised when its turn comes, so that
    those before it are done. The thread ends with the block.
    """
    reader = ThreadPoolExecutor(1, thread_name_prefix="frames")
    coming = deque(reader.submit(next, frames, None) for _ in range(AHEAD))

    def in_turn() -> Iterator[Item]:
        while (frame := coming.popleft().result()) is not None:
            coming.append(reader.submit(next, frames, None))
            yield frame

    try:
        yield in_turn()
    finally:
        reader.shutdown(cancel_futures=True)


@contextmanager
def write_behind(write: Callable[[Item], None]) -> Iterator[Callable[[Item], None]]:
    """Write frames in another thread, in order.

    What is handed over waits while :data:`BEHIND` frames are not written yet, so that memory does
    not grow where a disk is slow. What writing a frame raises is raised when one of the next is
    handed over, or at the end; none is written after it. Whatever ends the block, an interrupt
    too, what was handed over before is written.
    """
    writer = ThreadPoolExecutor(1, thread_name_prefix="store")
    waiting: deque[Future[None]] = deque()
    failed: list[BaseException] = []

    def written(item: Item) -> None:
        if failed:
            return
        try:
            write(item)
        except BaseException as error:
            failed.append(error)
            raise

    def hand_over(item: Item) -> None:
        while waiting and (len(waiting) >= BEHIND or waiting[0].done()):
            waiting.popleft().result()
        waiting.append(writer.submit(written, item))

    try:
        yield hand_over
    finally:
        writer.shutdown()
        while waiting:
            waiting.popleft().result()
