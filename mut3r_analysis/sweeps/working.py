"""Carrying out one unit: run, score, move into place, record. It never raises for a bad run."""

import shutil
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import xarray as xr

from mut3r_analysis.backbones.protocol import Backbone
from mut3r_analysis.errors import Mut3rError
from mut3r_analysis.evaluation.scores import NothingScored, evaluate
from mut3r_analysis.running.provenance import timestamp
from mut3r_analysis.running.streaming import run_batch
from mut3r_analysis.sweeps.ledger import DONE, Ended, Entry, Ledger, write_json
from mut3r_analysis.sweeps.units import Unit


def work(unit: Unit, backbone: Backbone | None = None) -> Entry:
    """Do a unit and leave its runs, scores and entry in the folder of the sweep.

    Parameters
    ----------
    unit : Unit
    backbone : Backbone, optional
        Where this process has it already.

    Returns
    -------
    Entry
        Also written to the ledger, unless the unit is finished there. A run that fails is in it
        with its traceback.
    """
    began = time.perf_counter()
    ledger = Ledger(unit.folder)
    # A scheduler asks again for units whose answer was lost with a worker.
    for entry in ledger.entries(unit.digest):
        done = all(ended == DONE for ended in entry.runs.values())
        if done and ledger.holds(unit.runs, unit.scoring):
            return entry
    place = ledger.workplace(unit.digest)
    try:
        endings = _runs(unit, ledger, place, backbone)
    except Exception as error:
        endings = dict.fromkeys(unit.runs, Ended.failed(error))
    finally:
        shutil.rmtree(place, ignore_errors=True)
    entry = Entry(
        unit.digest,
        str(unit),
        endings,
        time.perf_counter() - began,
        unit.sequence.frames,
        timestamp(),
    )
    ledger.record(entry)
    return entry


def _runs(unit: Unit, ledger: Ledger, place: Path, backbone: Backbone | None) -> dict[str, Ended]:
    sequence = unit.sequence.open()
    missing = {name: item for name, item in unit.runs.items() if name not in unit.finished}
    failed: dict[str, Ended] = {}
    if missing:
        model = backbone or unit.backbone.open()
        try:
            _run_together(replace(unit, runs=missing), sequence, place, model)
        except Exception as error:
            failed = dict.fromkeys(missing, Ended.failed(error))
        if failed and len(missing) > 1:
            # One bad configuration must not take the others with it.
            for name, item in missing.items():
                shutil.rmtree(place / f"{name}.zarr", ignore_errors=True)
                try:
                    _run_together(replace(unit, runs={name: item}), sequence, place, model)
                    del failed[name]
                except Exception as error:
                    failed[name] = Ended.failed(error)
    for name in unit.runs:
        if name in failed:
            continue
        made = place / f"{name}.zarr"
        scores = _scores(unit, made if name in missing else ledger.run_path(name), sequence)
        if name in missing:
            ledger.adopt(made, ledger.run_path(name))
        write_json(ledger.score_path(name, unit.scoring), scores)
    return {name: failed.get(name, DONE) for name in unit.runs}


def _run_together(unit: Unit, sequence: xr.Dataset, place: Path, model: Backbone) -> None:
    run_batch(
        model,
        sequence,
        list(unit.runs.values()),
        capture=unit.capture,
        outputs=unit.outputs,
        out=[place / f"{name}.zarr" for name in unit.runs],
        progress=False,
    )


def _scores(unit: Unit, run: Path, sequence: xr.Dataset) -> dict[str, Any]:
    """Score one run; what cannot be scored says why."""
    # The truth in the run is on the grid of the predictions, which only our own protocol takes.
    truth = None if unit.protocol == "default" else sequence
    try:
        found = evaluate(run, unit.protocol, truth=truth)
    except Mut3rError as error:
        undefined = isinstance(error, NothingScored) and error.undefined
        return {"skipped": str(error), "undefined": undefined}
    summaries = [name for name in found if str(name).startswith(("mean_", "interval_"))]
    return found.drop_vars([*summaries, "bound"]).to_dict()
