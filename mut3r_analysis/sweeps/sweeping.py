"""``sweep``: many configurations on many sequences, resumed and never mixed with stale results."""

from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

import xarray as xr

from mut3r_analysis.attention.capture import Capture
from mut3r_analysis.backbones.preparation import Preparation
from mut3r_analysis.errors import InvalidArgument
from mut3r_analysis.foundation.fields import whole
from mut3r_analysis.foundation.paths import user_path
from mut3r_analysis.metrics.protocols import Protocol
from mut3r_analysis.motion.cue import Cue
from mut3r_analysis.motion.gate import Gate
from mut3r_analysis.running.commit import Commit
from mut3r_analysis.running.configuration import Configuration
from mut3r_analysis.sweeps.axes import Configurations, Grid
from mut3r_analysis.sweeps.declaration import Declaration, declare
from mut3r_analysis.sweeps.executors import (
    Executor,
    check_startable,
    in_process,
    in_processes,
    on_cluster,
)
from mut3r_analysis.sweeps.progress import Progress
from mut3r_analysis.sweeps.results import open_sweep
from mut3r_analysis.sweeps.sources import Sequences


def sweep(
    backbone: Any,
    sequences: Sequences,
    *,
    out: str | Path,
    grid: Grid | None = None,
    configurations: Configurations | None = None,
    cue: Cue | None = None,
    gate: Gate | None = None,
    commit: Commit | str = "rw.gg",
    frames: str = "::",
    capture: Capture | None = None,
    outputs: Collection[str] | None = None,
    protocol: str | Protocol = "default",
    preparation: str | Preparation | None = None,
    batch: int = 8,
    workers: int = 0,
    client: Any = None,
    progress: bool = True,
) -> xr.Dataset:
    """Run and score every configuration on every sequence.

    A run is named by a digest of what determines it: weights, frames, configuration, capture,
    outputs and the format of the store. What is finished is not done again, in whatever order or
    however often the sweep is started; what changed is. A run that fails is recorded and the sweep
    goes on; the next start tries it again.

    Parameters
    ----------
    backbone : Backbone, str, Path, or mapping
        What `load_backbone` takes or gave; ``{label: ...}`` varies it.
    sequences : str, Path, Dataset, or several of them
        What `open_sequence` takes. Patterns such as ``"scenes/*"``, ``"/data/clips/*"`` or
        ``"sintel:/data/sintel/training#*"`` stand for all that match.
    out : str or Path
        Folder of the sweep. Several sweeps may share one, and then share runs.
    grid : mapping, optional
        What varies: keys ``cue``, ``gate``, ``commit``, ``cue.<field>`` and ``gate.<field>``;
        values a list, or ``{label: value}``. Every combination is run. Fields of a gate or cue
        change nothing where a cell has none; ``gate.layers`` counts the backbone's own layers.
    configurations : mapping or sequence, optional
        Instead of a grid: ``{label: {"cue": ..., "gate": ..., "commit": ...}}``.
    cue, gate, commit
        What a grid changes. A grid over fields of a gate starts from ``Gate.mut3r()`` where none
        is given, one over fields of a cue from ``Cue.mut3r()``.
    frames : str
        ``START:STOP:STRIDE``, of every sequence.
    capture, outputs
        As for `run`, of every run.
    protocol : str or Protocol
        How runs are scored, as for `evaluate`. One of a data set also sets the frames and their
        preparation, and of what a pattern matches it takes its sequences.
    preparation : str or Preparation, optional
        As for `run`.
    batch : int
        Most configurations that go through the decoder together; memory grows with it.
    workers : int
        Processes on this machine, each with its own CUDA device where there are some. 0 is this
        process.
    client : dask.distributed.Client, optional
        Of any cluster whose workers see the same files.
    progress : bool

    Returns
    -------
    Dataset
        Dims named after what varies (``gate.beta`` becomes ``gate_beta``), then ``sequence``.
        Metrics of `evaluate` per sequence and, as ``frame_<metric>``, per ``frame``; NaN where
        there is none, and ``skipped`` says why. ``run`` is the path of each store, ``status`` is
        done, failed or missing, ``error`` says why it failed, ``seconds`` its share of wall time.
        `open_sweep` gives the same later.

    Raises
    ------
    InvalidArgument
        Before anything runs, for what no run could do.

    Examples
    --------
    >>> grid = {"gate.beta": [0.5, 2.0]}
    >>> found = sweep("tiny", sequence, grid=grid, out="sweeps/beta", progress=False)
    >>> found["abs_rel"].dims
    ('gate_beta', 'sequence')
    """
    execute = executor(workers, client)
    declared = declare(
        backbone,
        sequences,
        grid=grid,
        configurations=configurations,
        base=Configuration(cue=cue, gate=gate, commit=commit),
        frames=frames,
        capture=capture,
        outputs=outputs,
        protocol=protocol,
        preparation=preparation,
        folder=user_path(out).absolute(),
        batch=batch,
    )
    carry_out([declared], execute, progress)
    return open_sweep(declared.folder)


def carry_out(
    declarations: Sequence[Declaration], execute: Executor, progress: bool, about: str = "sweep"
) -> None:
    """Do what is left of sweeps, one after the other, under one line of progress.

    Raises
    ------
    InvalidArgument
        Before anything runs, for what only this process has where others are to do it.
    """
    if execute is not in_process:
        for unit in (unit for each in declarations for unit in each.units):
            unit.check_portable()
    total = sum(len(unit.runs) for each in declarations for unit in each.units)
    left = sum(len(unit.runs) for each in declarations for unit in each.pending())
    with Progress(total, total - left, progress, about) as bar:
        for each in declarations:
            each.folder.mkdir(parents=True, exist_ok=True)
            each.cells.write(each.folder)
            # Asked anew: a sweep before this one may have made its runs.
            for entry in execute(each.pending()):
                bar.add(entry)


def executor(workers: int, client: Any) -> Executor:
    """Return where units are done; `workers` and `client` are those of :func:`sweep`."""
    whole("workers", workers, 0)
    if client is not None:
        if workers:
            raise InvalidArgument("give workers= or client=, not both")
        return on_cluster(client)
    if not workers:
        return in_process
    check_startable()
    return in_processes(workers)
