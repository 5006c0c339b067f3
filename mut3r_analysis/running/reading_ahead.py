"""Frames that are read and prepared while the model is still at the ones before."""

from collections import deque
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

Item = TypeVar("Item")

AHEAD = 2
"""Frames that are held ready: one hides the time that reading takes, two also its variation."""


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
