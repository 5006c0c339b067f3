"""A sweep as declared: every run by its digest, in the shape of the result."""

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from mut3r_analysis.attention.capture import Capture
from mut3r_analysis.backbones.heads import check_outputs
from mut3r_analysis.backbones.preparation import Preparation
from mut3r_analysis.errors import InvalidArgument, MissingFile, Mut3rError, UnreadableFile
from mut3r_analysis.evaluation.scores import named_protocols
from mut3r_analysis.foundation.fields import whole
from mut3r_analysis.metrics.protocols import TASKS, Protocol
from mut3r_analysis.running.configuration import Configuration
from mut3r_analysis.sweeps.axes import Axes, Configurations, Grid, Label
from mut3r_analysis.sweeps.ledger import DECLARATION, DONE, Ledger, write_json
from mut3r_analysis.sweeps.sources import (
    BackboneSource,
    Sequences,
    SequenceSource,
    backbone_sources,
    sequence_sources,
)
from mut3r_analysis.sweeps.units import Unit, digest_of, run_digests


@dataclass(frozen=True)
class SweepIndex:
    """Where each run of a sweep stands in its result: what `sweep.json` holds.

    Attributes
    ----------
    labels : dict of str to tuple
        Dimensions of the result and their labels, the last one ``sequence``.
    digests : numpy.ndarray
        Digest of the run in each cell.
    scoring : str
        Digest of the protocols.
    protocol : str
        Their name.
    """

    labels: dict[str, tuple[Label, ...]]
    digests: np.ndarray
    scoring: str
    protocol: str

    def write(self, folder: Path) -> None:
        """Write ``sweep.json``."""
        write_json(folder / DECLARATION, vars(self) | {"digests": self.digests.tolist()})

    @classmethod
    def read(cls, folder: Path) -> "SweepIndex":
        """Read ``sweep.json``.

        Raises
        ------
        MissingFile, UnreadableFile
        """
        path = folder / DECLARATION
        if not path.is_file():
            raise MissingFile(f"{folder} is not the folder of a sweep: it holds no {DECLARATION}")
        try:
            values = json.loads(path.read_text(encoding="utf-8"))
            labels = {name: tuple(given) for name, given in values["labels"].items()}
            digests = np.array(values["digests"], dtype=object)
            shape = tuple(map(len, labels.values()))
            return cls(labels, digests.reshape(shape), values["scoring"], values["protocol"])
        except (ValueError, KeyError, TypeError) as error:
            raise UnreadableFile(
                f"{path} is damaged ({error}); start the sweep again, finished runs are kept"
            ) from error


@dataclass(frozen=True)
class Declaration:
    """A sweep that is ready to be priced or carried out.

    Attributes
    ----------
    folder : Path
    cells : SweepIndex
    units : tuple of Unit
        All of them, finished or not.
    """

    folder: Path
    cells: SweepIndex
    units: tuple[Unit, ...]

    def scored_by(self, protocol: Protocol, configurations: Collection[str]) -> "Declaration":
        """Return the same runs of some configurations, scored under another protocol.

        The protocol must take the same frames, prepared the same way.
        """
        at = [list(self.cells.labels["configuration"]).index(name) for name in configurations]
        labels = self.cells.labels | {"configuration": tuple(configurations)}
        digests = self.cells.digests[at]
        scoring = digest_of([protocol.digest])
        kept = set(digests.ravel().tolist())
        units = [
            replace(unit, runs=runs, protocol=protocol.id, scoring=scoring)
            for unit in self.units
            if (runs := {name: item for name, item in unit.runs.items() if name in kept})
        ]
        return Declaration(
            self.folder, SweepIndex(labels, digests, scoring, protocol.id), tuple(units)
        )

    def pending(self) -> list[Unit]:
        """Return the units that are left, without the runs that are finished and scored."""
        ledger = Ledger(self.folder)
        endings = ledger.endings()
        found = []
        for unit in self.units:
            left = {
                name: item
                for name, item in unit.runs.items()
                if endings.get(name) != DONE or not ledger.score_path(name, unit.scoring).exists()
            }
            if left:
                finished = frozenset(name for name in left if endings.get(name) == DONE)
                found.append(replace(unit, runs=left, finished=finished))
        return found


def declare(
    backbone: Any,
    sequences: Sequences,
    *,
    grid: Grid | None,
    configurations: Configurations | None,
    base: Configuration,
    frames: str,
    capture: Capture | None,
    outputs: Collection[str] | None,
    protocol: str | Protocol,
    preparation: str | Preparation | None,
    folder: Path,
    batch: int,
) -> Declaration:
    """Open everything a sweep names, check it, and lay out its units.

    Raises
    ------
    InvalidArgument
        For anything no run of the sweep could do.
    """
    whole("batch", batch, 1)
    if capture is not None and not isinstance(capture, Capture):
        raise InvalidArgument(f"capture must be a Capture or None, got {capture!r}")
    axes = Axes.of(base, grid=grid, configurations=configurations)
    scored = named_protocols(protocol)
    scoring = digest_of([each.digest for each in scored])
    # Several are those that take any run as it is.
    alone = scored[0] if len(scored) == 1 else None
    models = backbone_sources(backbone, alone, preparation)
    videos = sequence_sources(sequences, frames, alone)
    cells, units = [], []
    for model in models.values():
        names = check_outputs(outputs, model.open().outputs)
        if alone and (lacking := set(TASKS[alone.task].outputs) - set(names)):
            raise InvalidArgument(
                f"{alone.id} scores {', '.join(sorted(lacking))}, which is not among the outputs "
                f"({', '.join(names)}); add it to outputs=, or leave that out"
            )
        _check(model, videos, axes.configurations, names)
        by_sequence = run_digests(model, videos, axes.configurations, capture, names)
        for video, digests in zip(videos, by_sequence, strict=True):
            runs = dict(zip(digests, axes.configurations, strict=True))
            units += [
                Unit(folder, model, video, some, capture, names, protocol, scoring)
                for some in _batched(runs, batch)
            ]
        cells.append(np.array(by_sequence, dtype=object).T)
    labels: dict[str, tuple[Label, ...]] = {}
    if list(models) != [""]:
        labels["backbone"] = tuple(models)
    labels |= axes.labels
    labels["sequence"] = tuple(video.name for video in videos)
    shape = tuple(map(len, labels.values()))
    name = protocol if isinstance(protocol, str) else protocol.id
    made = SweepIndex(labels, np.stack(cells).reshape(shape), scoring, name)
    # Sequence by sequence, so that early results say something about every configuration.
    order = {video.name: index for index, video in enumerate(videos)}
    units.sort(key=lambda unit: order[unit.sequence.name])
    return Declaration(folder, made, tuple(units))


def _batched(runs: Mapping[str, Configuration], size: int) -> list[dict[str, Configuration]]:
    items = list(runs.items())
    return [dict(items[start : start + size]) for start in range(0, len(items), size)]


def _check(
    model: BackboneSource,
    videos: Sequence[SequenceSource],
    configurations: Sequence[Configuration],
    outputs: Sequence[str],
) -> None:
    """Refuse a configuration that can run on no sequence; one that fails on some is recorded."""
    backbone = model.open()
    for item in configurations:
        errors: list[Mut3rError] = []
        for video in videos:
            try:
                item.check(backbone, video.open(), outputs)
                break
            except Mut3rError as error:
                errors.append(error)
        if len(errors) == len(videos):
            raise errors[0]
