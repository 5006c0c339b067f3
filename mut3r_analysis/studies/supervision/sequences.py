"""Fine-tuned arms on whole sequences: errors where there is truth, else how far they departed."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from mut3r_analysis.backbones.protocol import Backbone
from mut3r_analysis.errors import Mut3rError
from mut3r_analysis.evaluation import evaluate
from mut3r_analysis.motion import Cue, Gate
from mut3r_analysis.running.streaming import run_batch
from mut3r_analysis.studies.ablation import PLAIN
from mut3r_analysis.studies.labelling import described
from mut3r_analysis.studies.supervision.fine_tuning import ORIGINAL
from mut3r_analysis.studies.supervision.scores import GATED

METRICS = {
    "abs_rel": ("depth AbsRel (one scale per sequence)", "1"),
    "ate": ("ATE (sim3)", "m"),
    "rpe_translation": ("RPE translation (sim3)", "m"),
    "rpe_rotation": ("RPE rotation", "degree"),
}
DEPARTURES = {
    "depth_apart": ("depth apart from the original's plain run", "%"),
    "camera_apart": ("camera apart from it, of the mean depth", "%"),
    "cue_agreement": ("correlation of its cue with the original's", "1"),
}

_COMPARED = ("prediction/depth", "prediction/pose", "cue/motion")

Runs = Mapping[tuple[str, str], xr.DataTree]
"""By (arm, inference)."""


def run_arms(
    models: Mapping[str, Backbone], sequence: xr.Dataset, cue: Cue, gate: Gate
) -> dict[tuple[str, str], xr.DataTree]:
    """Run every arm over a sequence, plain with its cue measured, and gated by it."""
    configurations: list[dict[str, Any]] = [{"cue": cue}, {"cue": cue, "gate": gate}]
    runs: dict[tuple[str, str], xr.DataTree] = {}
    for arm, model in models.items():
        found = run_batch(
            model, sequence, configurations, outputs=("pose", "depth"), progress=False
        )
        runs |= {(arm, name): run for name, run in zip((PLAIN, GATED), found, strict=True)}
    return runs


def transfer(runs: Mapping[str, Runs]) -> xr.Dataset:
    """Score runs of whole sequences, and compare them with the original's plain run.

    Parameters
    ----------
    runs : mapping of str to runs
        Sequence -> what :func:`run_arms` returned, with the arm :data:`ORIGINAL`.

    Returns
    -------
    Dataset
        (arm, inference, sequence): :data:`METRICS` under the default protocols, NaN without
        truth, and :data:`DEPARTURES`; ``skipped`` (sequence) says why there is no metric.
    """
    rows, skipped = [], []
    for sequence, its in runs.items():
        reason = ""
        for (arm, inference), run in its.items():
            row = {"arm": arm, "inference": inference, "sequence": sequence}
            rows.append(row | _departures(run, its[ORIGINAL, PLAIN]))
            try:
                scores = evaluate(run)
            except Mut3rError as error:
                reason = str(error)
                continue
            rows[-1] |= {name: float(scores[name].squeeze()) for name in METRICS if name in scores}
        skipped.append(reason)
    words = METRICS | DEPARTURES
    table = pd.DataFrame(rows)
    order = {dim: table[dim].unique() for dim in ("arm", "inference", "sequence")}
    table = table.set_index(list(order)).reindex(columns=list(words))
    found = described(table.to_xarray().sel(order), words)
    found["arm"].attrs = {"long_name": "fine-tuning"}
    return found.assign(skipped=("sequence", skipped, {"long_name": "why there is no metric"}))


def _departures(run: xr.DataTree, base: xr.DataTree) -> dict[str, float]:
    (depth, centre, cue), (before, start, usual) = (
        [np.asarray(each[name], dtype=np.float64) for name in _COMPARED] for each in (run, base)
    )
    size = before.mean()
    return {
        "depth_apart": 100 * np.abs(depth - before).mean() / size,
        "camera_apart": 100 * np.linalg.norm((centre - start)[:, :3, 3], axis=-1).mean() / size,
        "cue_agreement": float(np.corrcoef(cue.ravel(), usual.ravel())[0, 1]),
    }
