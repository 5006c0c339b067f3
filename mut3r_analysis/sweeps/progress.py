"""Progress of a sweep for people: a bar where there is a screen, lines where there is a log."""

import sys
import time
from types import TracebackType
from typing import Self

from tqdm.auto import tqdm

from mut3r_analysis.running.planning import human_seconds
from mut3r_analysis.sweeps.ledger import Entry

_PAUSE = 10.0
"""Seconds between two lines of a log."""


class Progress:
    """Counts runs, with an estimate of the time left and one line per failure.

    Parameters
    ----------
    total : int
        Runs of the sweep.
    done : int
        Of which were finished before.
    show : bool
    """

    def __init__(self, total: int, done: int, show: bool) -> None:
        self._total, self._done, self._show = total, done, show
        self._fresh = self._failed = 0
        self._began = self._said = time.monotonic()
        self._bar = None
        if show and (sys.stderr.isatty() or "ipykernel" in sys.modules):
            self._bar = tqdm(total=total, initial=done, desc="sweep", unit="run")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._bar is not None:
            self._bar.close()
        elif self._show and self._fresh:
            self._line()

    def add(self, entry: Entry) -> None:
        """Count the runs of a unit that ended."""
        self._done += len(entry.runs)
        self._fresh += len(entry.runs)
        failed = [ended for ended in entry.runs.values() if ended.status == "failed"]
        self._failed += len(failed)
        if not self._show:
            return
        for ended in failed:
            text = f"failed: {entry.about}: {ended.error.splitlines()[0]}"
            tqdm.write(text, file=sys.stderr)
        if self._bar is not None:
            self._bar.update(len(entry.runs))
            if self._failed:
                self._bar.set_postfix_str(f"{self._failed} failed")
        elif time.monotonic() - self._said > _PAUSE:
            self._line()

    def _line(self) -> None:
        self._said = time.monotonic()
        rate = (self._said - self._began) / max(self._fresh, 1)
        left = human_seconds(rate * (self._total - self._done))
        failures = f", {self._failed} failed" if self._failed else ""
        print(f"sweep: {self._done} of {self._total} runs{failures}, {left} left", file=sys.stderr)
