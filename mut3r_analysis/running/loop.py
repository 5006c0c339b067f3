"""The loop over frames, which everything that streams goes through."""

import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

from mut3r_analysis.running.batch import Batch, encode_frame
from mut3r_analysis.running.passes import BatchState, FrameInput, FrameResult


def stream(
    batches: Sequence[Batch],
    frames: Iterable[FrameInput],
    carried: Sequence[BatchState] | None = None,
    *,
    write_last: bool = True,
) -> Iterator[list[FrameResult]]:
    """Take batches of one backbone through frames: each is encoded once for all of them.

    Parameters
    ----------
    batches : sequence of Batch
    frames : iterable of FrameInput
        Read one by one, when their turn comes.
    carried : sequence of BatchState, optional
        What each batch starts from; the beginning unless given.
    write_last : bool
        Whether the last frame is committed.

    Yields
    ------
    list of FrameResult
        Of one frame, one per batch.
    """
    states = [batch.start() for batch in batches] if carried is None else list(carried)
    coming, began = iter(frames), time.perf_counter()
    given = next(coming, None)
    while given is not None:
        following = None if write_last else next(coming, None)
        frame = encode_frame(batches, given)
        shared = time.perf_counter() - began
        results = [
            replace(
                batch.step(frame, state, number=number, write=write_last or following is not None),
                shared=shared,
            )
            for number, (batch, state) in enumerate(zip(batches, states, strict=True))
        ]
        states = [result.carried for result in results]
        yield results
        began = time.perf_counter()
        given = next(coming, None) if write_last else following
