"""When the parts of a frame begin and end, on the device that computes them."""

import time

import torch


class Moment:
    """Now, in the work of a device.

    On a GPU a call returns when its work is queued, so a clock of the host would measure the
    queueing: there it is an event in the queue.
    """

    def __init__(self, device: torch.device) -> None:
        self._event = None
        if device.type == "cuda" and torch.backends.cuda.is_built():
            self._event = torch.cuda.Event(enable_timing=True)
            self._event.record(torch.cuda.current_stream(device))
        self._host = time.perf_counter()

    def until(self, later: "Moment") -> float:
        """Return the seconds from here to a later moment; on a GPU, once that has passed there."""
        if self._event is None or later._event is None:
            return later._host - self._host
        return 1e-3 * self._event.elapsed_time(later._event)


Span = tuple[Moment, Moment]
"""Beginning and end."""


def duration(span: Span | None) -> float:
    """Return seconds; none without a span."""
    return 0.0 if span is None else span[0].until(span[1])
