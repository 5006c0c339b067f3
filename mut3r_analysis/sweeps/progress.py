"""Progress of a sweep for people: a bar where there is a screen, lines where there is a log."""

import sys
from typing import Any

from tqdm.auto import tqdm

from mut3r_analysis.sweeps.ledger import Entry

_PAUSE = 10.0
"""Seconds between two lines of a log."""


class _Lines:
    """A log, in which what a bar would draw over itself becomes lines."""

    def write(self, text: str) -> None:
        if text.strip():
            sys.stderr.write(text.strip() + "\n")

    def flush(self) -> None:
        sys.stderr.flush()


class Progress(tqdm):
    """Counts runs, with an estimate of the time left and one line per failure.

    Parameters
    ----------
    total : int
        Runs of the sweep.
    done : int
        Of which were finished before.
    show : bool
    about : str
        What is counted, in a word.
    """

    def __init__(self, total: int, done: int, show: bool, about: str = "sweep") -> None:
        where: dict[str, Any] = {}
        if not (sys.stderr.isatty() or "ipykernel" in sys.modules):
            where = {"file": _Lines(), "mininterval": _PAUSE, "ncols": 80}
        super().__init__(
            total=total, initial=done, desc=about, unit="run", disable=not show, **where
        )
        self.failed = 0

    def add(self, entry: Entry) -> None:
        """Count the runs of a unit that ended."""
        failed = [ended for ended in entry.runs.values() if ended.status == "failed"]
        self.failed += len(failed)
        if self.disable:
            return
        for ended in failed:
            text = f"failed: {entry.about}: {ended.error.splitlines()[0]}"
            self.write(text, file=sys.stderr)
        if self.failed:
            self.set_postfix_str(f"{self.failed} failed", refresh=False)
        self.update(len(entry.runs))
