"""What a run or a whole sweep will cost, before anything runs."""

import os
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import xarray as xr

from mut3r_analysis.attention.capture import Capture
from mut3r_analysis.backbones.preparation import Preparation
from mut3r_analysis.foundation.paths import user_path
from mut3r_analysis.metrics.protocols import Protocol
from mut3r_analysis.motion.cue import Cue
from mut3r_analysis.motion.gate import Gate
from mut3r_analysis.running import planning
from mut3r_analysis.running.commit import Commit
from mut3r_analysis.running.configuration import Configuration
from mut3r_analysis.running.inputs import as_scored, check_inputs
from mut3r_analysis.running.planning import Plan, Pricing, human_bytes, human_seconds
from mut3r_analysis.sweeps.axes import Configurations, Grid
from mut3r_analysis.sweeps.declaration import Declaration, declare
from mut3r_analysis.sweeps.ledger import DONE, Ledger
from mut3r_analysis.sweeps.sources import Sequences
from mut3r_analysis.sweeps.units import Unit

_NOTHING_DONE = Path(os.devnull)
"""Stands for the folder of a sweep that has none yet: nothing lies in it."""


@dataclass(frozen=True)
class SweepPlan:
    """The price of a sweep.

    Attributes
    ----------
    units, runs : int
        Batches of configurations on one sequence, and runs in them.
    runs_done : int
        Runs that are finished and scored already.
    units_left : int
    frames_left : int
        Frames that the runs left will process, all runs added up.
    stored_bytes : int
        What the runs left will store.
    seconds : float
        Estimate for the runs left, in one process.
    basis : str
        What the estimate of time comes from.
    """

    units: int
    runs: int
    runs_done: int
    units_left: int
    frames_left: int
    stored_bytes: int
    seconds: float
    basis: str

    def __str__(self) -> str:
        left = self.runs - self.runs_done
        return (
            f"{self.runs} runs in {self.units} units, {self.runs_done} done, {left} left in "
            f"{self.units_left} units: {self.frames_left} frames, "
            f"{human_bytes(self.stored_bytes)} to store; estimated time in one process: "
            f"{human_seconds(self.seconds)} ({self.basis})"
        )


def plan(
    backbone: Any,
    sequence: Sequences,
    *,
    cue: Cue | None = None,
    gate: Gate | None = None,
    capture: Capture | None = None,
    commit: Commit | str = "rw.gg",
    outputs: Collection[str] | None = None,
    grid: Grid | None = None,
    configurations: Configurations | None = None,
    frames: str = "::",
    protocol: str | Protocol = "default",
    preparation: str | Preparation | None = None,
    out: str | Path | None = None,
    batch: int = 8,
) -> Plan | SweepPlan:
    """Price a run or a sweep without running it.

    Parameters
    ----------
    backbone, cue, gate, capture, commit, outputs
        As for `run`; for a sweep `backbone` may be whatever `sweep` takes.
    sequence : Dataset, or what `sweep` takes
        One opened sequence is a run; names, patterns and lists are a sweep.
    grid, configurations, frames, protocol, preparation, batch
        As for `sweep`; a single run, too, is priced with the frames and the preparation of its
        protocol.
    out : str or Path, optional
        Folder of the sweep: what is finished there costs nothing.

    Returns
    -------
    Plan or SweepPlan
        Both print.

    Raises
    ------
    InvalidArgument
        For anything that `run` or `sweep` would refuse.

    Examples
    --------
    >>> one = plan("tiny", sequence, outputs=("pose",))
    >>> one.frames
    3
    >>> grid = {"gate.beta": [0.5, 1.0, 2.0]}
    >>> many = plan("tiny", ["scenes/orbit-01", "scenes/orbit-03"], grid=grid, frames=":2")
    >>> many.runs, many.frames_left
    (6, 12)
    """
    if isinstance(sequence, xr.Dataset) and grid is None and configurations is None:
        backbone, sequence = check_inputs(backbone, sequence, capture)
        alone = None if protocol == "default" else protocol
        backbone, sequence = as_scored(backbone, sequence, alone, preparation)
        return planning.plan(
            backbone, sequence, cue=cue, gate=gate, capture=capture, commit=commit, outputs=outputs
        )
    declared = declare(
        backbone,
        sequence,
        grid=grid,
        configurations=configurations,
        base=Configuration(cue=cue, gate=gate, commit=commit),
        frames=frames,
        capture=capture,
        outputs=outputs,
        protocol=protocol,
        preparation=preparation,
        folder=_NOTHING_DONE if out is None else user_path(out).absolute(),
        batch=batch,
    )
    return price(declared)


def price(declared: Declaration) -> SweepPlan:
    """Price the units of a sweep that are left."""
    pending = declared.pending()
    ledger = Ledger(declared.folder)
    runs = sum(len(unit.runs) for unit in declared.units)
    left = sum(len(unit.runs) for unit in pending)
    prices, pricing = {}, Pricing()
    size, estimated, frames = 0, 0.0, 0
    for unit in pending:
        for name, configuration in unit.runs.items():
            if name in unit.finished:
                continue
            key = unit.backbone.sha256, unit.backbone.update, *_costs(unit, configuration)
            if key not in prices:
                prices[key] = pricing.plan(
                    unit.backbone.open(),
                    unit.sequence.open(),
                    configuration,
                    unit.capture,
                    unit.outputs,
                )
            found = prices[key]
            size += found.stored_bytes
            estimated += found.seconds
            frames += unit.sequence.frames
    measured = _measured(ledger, {name for unit in declared.units for name in unit.runs})
    if measured is not None:
        estimated, basis = measured * frames, "from the runs that are done"
    else:
        basis = (
            "from operation counts and the speed of this device, without reading, storing and "
            "scoring; batches are cheaper"
        )
    return SweepPlan(
        len(declared.units), runs, runs - left, len(pending), frames, size, estimated, basis
    )


def _costs(unit: Unit, configuration: Configuration) -> tuple[Any, ...]:
    """Return what the cost of a run depends on, of those of one backbone in a sweep."""
    cue = configuration.cue
    return (
        unit.sequence.layout,
        configuration.passes,
        configuration.captured_pass,
        cue and (cue.site, cue.layers, cue.source, cue.reading),
        configuration.commit.keeps_probe,
    )


def _measured(ledger: Ledger, names: set[str]) -> float | None:
    """Seconds per run and frame of what was done of this sweep."""
    found = [entry for entry in ledger.entries() if set(entry.runs) & names]
    good = [e for e in found if all(ended == DONE for ended in e.runs.values())]
    if not good:
        return None
    return sum(e.seconds for e in good) / sum(e.frames * len(e.runs) for e in good)
