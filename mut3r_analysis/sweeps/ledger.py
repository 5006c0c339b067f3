"""The folder of a sweep: runs and scores by digest, and a ledger of what was done.

``runs/<digest>.zarr`` and ``scores/<digest>-<scoring>.json`` appear whole, by being renamed. A
run counts as finished when an entry of the ledger says so, and entries are written last: a unit
that was killed half way is run again as it was, in the same batch and so with the same numbers.
"""

import json
import os
import shutil
import socket
import traceback
import uuid
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import psutil

from mut3r_analysis.errors import Mut3rError, UnreadableFile

DECLARATION = "sweep.json"


@dataclass(frozen=True)
class Ended:
    """How one run of a unit ended.

    Attributes
    ----------
    status : {"done", "failed"}
    error, traceback : str
        Empty where it is done.
    """

    status: str
    error: str = ""
    traceback: str = ""

    @classmethod
    def failed(cls, error: BaseException) -> "Ended":
        """Describe an error."""
        kind = "" if isinstance(error, Mut3rError) else f"{type(error).__name__}: "
        return cls("failed", f"{kind}{error}", "".join(traceback.format_exception(error)))


DONE = Ended("done")


@dataclass(frozen=True)
class Entry:
    """One line of the ledger: a unit that ended.

    Attributes
    ----------
    unit : str
        Digest.
    about : str
        The unit in words.
    runs : dict of str to Ended
        By digest.
    seconds : float
        Wall time of the unit.
    frames : int
        Frames of the sequence.
    finished : str
        Time, UTC.
    host : str
    process : int
    """

    unit: str
    about: str
    runs: dict[str, Ended]
    seconds: float
    frames: int
    finished: str
    host: str = field(default_factory=socket.gethostname)
    process: int = field(default_factory=os.getpid)


class Ledger:
    """Reads and writes the folder of a sweep.

    Parameters
    ----------
    folder : Path
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def run_path(self, digest: str) -> Path:
        """Where a finished run is."""
        return self.folder / "runs" / f"{digest}.zarr"

    def score_path(self, digest: str, scoring: str) -> Path:
        """Where the scores of a finished run are."""
        return self.folder / "scores" / f"{digest}-{scoring}.json"

    def entries(self, unit: str = "*") -> Iterator[Entry]:
        """Yield what units, or one unit, left behind, the oldest first.

        Raises
        ------
        UnreadableFile
            When an entry is damaged.
        """
        found = []
        for path in (self.folder / "units").glob(f"{unit}-*.json"):
            try:
                values = json.loads(path.read_text(encoding="utf-8"))
                runs = {name: Ended(**ended) for name, ended in values["runs"].items()}
                found.append(Entry(**{**values, "runs": runs}))
            except (ValueError, KeyError, TypeError) as error:
                raise UnreadableFile(
                    f"{path} is not an entry of a sweep's ledger ({error}); remove it, and its "
                    "runs are run again"
                ) from error
        yield from sorted(found, key=lambda entry: entry.finished)

    def endings(self, entries: Iterable[Entry] | None = None) -> dict[str, Ended]:
        """Return how each run ended; one that was done at any time is done while its store is.

        `entries` are those of all units, where they are at hand.
        """
        found: dict[str, Ended] = {}
        for entry in self.entries() if entries is None else entries:
            for digest, ended in entry.runs.items():
                if digest not in found or found[digest].status == "failed":
                    found[digest] = ended
        return {
            digest: ended
            for digest, ended in found.items()
            if ended.status == "failed" or self.run_path(digest).exists()
        }

    def holds(self, runs: Iterable[str], scoring: str) -> bool:
        """Say whether the stores and scores of all these runs are in their place."""
        return all(
            self.run_path(digest).exists() and self.score_path(digest, scoring).exists()
            for digest in runs
        )

    def record(self, entry: Entry) -> None:
        """Add an entry; earlier ones of the same unit stay."""
        name = f"{entry.unit}-{uuid.uuid4().hex[:8]}.json"
        write_json(self.folder / "units" / name, asdict(entry))

    def workplace(self, unit: str) -> Path:
        """Return a new folder for an attempt at a unit, removing those of attempts that died."""
        place = self.folder / "partial"
        host = socket.gethostname()
        for left in place.glob(f"{unit}-{host}-*"):
            with suppress(ValueError):
                if not psutil.pid_exists(int(left.name.split("-")[-2])):
                    shutil.rmtree(left, ignore_errors=True)
        new = place / f"{unit}-{host}-{os.getpid()}-{uuid.uuid4().hex[:8]}"
        new.mkdir(parents=True)
        return new

    def adopt(self, made: Path, target: Path) -> None:
        """Move what an attempt made to its place, where there may be a leftover of a dead one."""
        target.parent.mkdir(parents=True, exist_ok=True)
        if target.is_dir():
            # Renamed first: a folder that is half removed must not look like a run.
            grave = made.with_name(f"{made.name}.old")
            target.rename(grave)
            shutil.rmtree(grave, ignore_errors=True)
        made.replace(target)


def write_json(path: Path, values: Any) -> None:
    """Write a JSON file so that readers find it whole or not at all.

    Missing numbers stay ``NaN``, which Python reads back.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}-{uuid.uuid4().hex[:8]}")
    temporary.write_text(json.dumps(values), encoding="utf-8")
    temporary.replace(path)
