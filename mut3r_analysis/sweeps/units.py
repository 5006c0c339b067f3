"""What a sweep consists of: runs named by what determines them, in units that share a pass."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mut3r_analysis.attention.capture import Capture
from mut3r_analysis.backbones.loading import RANDOM_CONFIGURATION
from mut3r_analysis.errors import InvalidArgument
from mut3r_analysis.metrics.protocols import Protocol
from mut3r_analysis.running.configuration import Configuration
from mut3r_analysis.running.provenance import FORMAT_VERSION
from mut3r_analysis.sweeps.sources import BackboneSource, SequenceSource

_DIGITS = 20


@dataclass(frozen=True)
class Unit:
    """Runs of one backbone on one sequence that go through it as one batch.

    Attributes
    ----------
    folder : Path
        Of the sweep.
    backbone : BackboneSource
    sequence : SequenceSource
    runs : dict of str to Configuration
        By digest.
    capture : Capture, optional
    outputs : tuple of str
    protocol : str or Protocol
    scoring : str
        Digest of the protocols that the name stands for.
    finished : frozenset of str
        Runs that are done already and only lack these scores.
    """

    folder: Path
    backbone: BackboneSource
    sequence: SequenceSource
    runs: Mapping[str, Configuration]
    capture: Capture | None
    outputs: tuple[str, ...]
    protocol: str | Protocol
    scoring: str
    finished: frozenset[str] = frozenset()

    @property
    def digest(self) -> str:
        """Name of the unit."""
        return digest_of([self.scoring, *self.runs])

    def check_portable(self) -> None:
        """Refuse what only this process has.

        Raises
        ------
        InvalidArgument
        """
        if self.sequence.source is None:
            raise InvalidArgument(
                f"{self.sequence.name!r} is a Dataset in memory, which other processes cannot "
                "open; give a name or a path, or run the sweep in this process (workers=0, no "
                "client)"
            )
        if self.backbone.spec == RANDOM_CONFIGURATION:
            raise InvalidArgument(
                "a backbone made from a configuration cannot be loaded by other processes; save it "
                "as a checkpoint, or run the sweep in this process (workers=0, no client)"
            )

    def __str__(self) -> str:
        count = len(self.runs)
        return f"{self.sequence.name}, {count} configuration{'s' * (count != 1)}"


def digest_of(values: Any) -> str:
    """Return a short hexadecimal name of plain values."""
    text = json.dumps(values, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:_DIGITS]


def run_digests(
    backbone: BackboneSource,
    sequences: Sequence[SequenceSource],
    configurations: Sequence[Configuration],
    capture: Capture | None,
    outputs: Sequence[str],
) -> list[list[str]]:
    """Name runs by everything that determines them: nothing else may change their numbers.

    The device, the number of threads and the batch a run went through change its rounding only.

    Returns
    -------
    list of list of str
        By sequence, then by configuration.
    """
    shared = {
        "format": FORMAT_VERSION,
        "backbone": backbone.identity(),
        "capture": None if capture is None else capture.to_dict(),
        "outputs": list(outputs),
    }
    started = [_started({**shared, "configuration": item.to_dict()}) for item in configurations]
    return [[_ended(item, sequence.sha256) for item in started] for sequence in sequences]


def _started(values: dict[str, Any]) -> Any:
    """Return the hash of a run's description up to its sequence, which stands last in it."""
    text = json.dumps({**values, "sequence": ""}, sort_keys=True)
    return hashlib.sha256(text.removesuffix('""}').encode())


def _ended(started: Any, sequence: str) -> str:
    whole = started.copy()
    whole.update(f'"{sequence}"}}'.encode())
    return whole.hexdigest()[:_DIGITS]
