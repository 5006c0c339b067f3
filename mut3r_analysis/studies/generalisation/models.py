"""The same cue and one gate in several models: what is found, what gates change, what is kept."""

from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
import xarray as xr

from mut3r_analysis.backbones import load_backbone
from mut3r_analysis.backbones.protocol import Backbone
from mut3r_analysis.backbones.random_weights import NAMED_CONFIGS
from mut3r_analysis.errors import InvalidArgument
from mut3r_analysis.foundation.bundled import data_path
from mut3r_analysis.foundation.labelling import beside, described
from mut3r_analysis.metrics import find_metric
from mut3r_analysis.motion import Cue, Gate
from mut3r_analysis.running import open_run
from mut3r_analysis.running.configuration import Configuration
from mut3r_analysis.sequences import open_sequence
from mut3r_analysis.studies.ablation import PLAIN, against_control, with_controls
from mut3r_analysis.studies.emergence.observation import prepared
from mut3r_analysis.studies.emergence.survey import (
    CONTROLS_OUT,
    LOCAL,
    OBJECTS,
    TESTS,
    TWIN,
    score_evidence,
)
from mut3r_analysis.studies.emergence.truth import patch_truth
from mut3r_analysis.studies.emergence.twins import frozen_twin, twin_frames
from mut3r_analysis.studies.estimates import estimate, formatted
from mut3r_analysis.studies.finding import HIGHER, LOWER, NO_TRUTH, Finding, Row, rows
from mut3r_analysis.studies.generalisation.memories import (
    DEPTH,
    OWN,
    POSE,
    patch_site,
    scored_outputs,
)
from mut3r_analysis.studies.generalisation.traces import kept_shares, moved_by
from mut3r_analysis.sweeps import sweep
from mut3r_analysis.training.rollout import roll_out_all

QUESTION = "Does the same cue find motion in every memory, and does gating by it help there?"
CHANCE = 0.5
ASKED = (OBJECTS, CONTROLS_OUT[OBJECTS], LOCAL, TWIN)
"""Tests that take the easy explanations away, of those of the study of emergence."""

_RANDOM = "random:"
_WORDS = {
    "auc": ("AUC of the cue", "1"),
    "moved": ("moved by gating", "% of the mean distance"),
    "kept": ("tokens of the memory that a frame leaves as they were", "%"),
}


def known_models() -> list[str]:
    """Return the bundled checkpoints, and a small model with random weights of every kind."""
    bundled = sorted(path.stem for path in data_path("checkpoints").glob("*.safetensors"))
    return bundled + [f"{_RANDOM}{name}" for name in NAMED_CONFIGS if name.endswith("small")]


def is_trained(model: str) -> bool:
    """Say whether a model by this name has weights that learned something."""
    return not model.startswith(_RANDOM)


@torch.no_grad()
def cue_evidence(backbone: Backbone, sequence: xr.Dataset, cue: Cue, twins: int = 1) -> np.ndarray:
    """Measure how well a cue tells what moves in one sequence.

    Parameters
    ----------
    backbone : Backbone
    sequence : Dataset
    cue : Cue
    twins : int
        At most so many frames of a procedural scene are compared with a frozen twin.

    Returns
    -------
    ndarray
        AUC (test,) by :data:`~mut3r_analysis.studies.emergence.survey.TESTS`; NaN where it cannot
        be told. A model that looks ahead has no attention in the last frame.
    """
    truth = patch_truth(backbone, sequence)
    if "moving" not in truth or truth.sizes["frame"] < 3:
        return np.full(len(TESTS), np.nan)
    # What a model that looks ahead sees of the last frame is seen beside the one before.
    truth = truth.isel(frame=slice(None, -1 if backbone.looks_ahead else None))
    clips = {-1: prepared(backbone, sequence)}
    for at in twin_frames(truth, twins) if "scene" in sequence.attrs else []:
        # Without a twin where resting objects would stand in the camera's way.
        with suppress(InvalidArgument):
            clips[at] = prepared(backbone, frozen_twin(sequence, int(truth["frame"][at])))
    images = torch.stack(list(clips.values())).to(backbone.device)
    parts = roll_out_all(backbone, images, (), configuration=Configuration(cue=cue))
    motion = torch.cat([part.motion for part in parts if part.motion is not None])
    seen = motion.flatten(2)[:, : truth.sizes["frame"]].cpu().numpy()
    scores = dict(zip(clips, seen, strict=True))
    own = scores.pop(-1)
    return score_evidence(own, truth, list(scores.items()))[0]


def compare_models(
    models: Iterable[str],
    sequences: Sequence[str | Path],
    *,
    beta: float = 1.0,
    edition: int = 2,
    frames: int | None = None,
    untrained: int = 2,
    out: str | Path,
    progress: bool = True,
) -> xr.Dataset:
    """Run MUT3R's cue, and a gate by it, in every model.

    The cue is read, and pairs of patches are gated, where patches of a frame read each other, which
    every kind of model has: what differs is the memory. The control is the same gate with the cue's
    scores at shuffled patches.

    Parameters
    ----------
    models : sequence of str
        For :func:`~mut3r_analysis.load_backbone`.
    sequences : sequence of str
        For :func:`~mut3r_analysis.open_sequence`.
    beta : float
        Sharpness of the gate, a whole number.
    edition : {2, 1}
        Of :meth:`Cue.mut3r`.
    frames : int, optional
        At most so many of each sequence.
    untrained : int
        Models with random weights, in which nothing can be found, are run on so many sequences.
    out : path
        Folder of the runs; what is there is not run again.
    progress : bool

    Returns
    -------
    Dataset
        ``auc`` (model, sequence, test) of the cue without a gate; errors ``abs_rel`` and ``ate``
        (model, sequence, treatment) where there is truth and the model predicts them; ``moved``
        (model, sequence), how far the gate moves the points or the depth, in percent of their mean
        distance; ``kept`` (model, sequence), tokens of the memory that a frame leaves as they were,
        percent. NaN where it cannot be told.
    """
    parts = {}
    for name in models:
        shown = sequences if is_trained(name) else sequences[:untrained]
        parts[name] = _of_model(
            load_backbone(name), shown, beta, edition, frames, out=out, progress=progress
        )
    found = beside(parts, "model", "model").assign_coords(test=list(TESTS))
    found["treatment"].attrs = {"long_name": "gated by"}
    return described(found, _WORDS)


def _of_model(
    backbone: Backbone,
    sequences: Sequence[str | Path],
    beta: float,
    edition: int,
    frames: int | None,
    **options: Any,
) -> xr.Dataset:
    """Return what :func:`compare_models` returns, of one model."""
    site = patch_site(backbone.sites())
    cue, gate = Cue.mut3r(edition=edition, site=site), Gate.at({site: "pair_bias"}, beta=beta)
    gated = {label: {"cue": c, "gate": gate} for label, c in with_controls({OWN: cue}).items()}
    table = sweep(
        backbone,
        sequences,
        configurations={PLAIN: {"cue": cue}, **gated},
        frames="::" if frames is None else f":{frames}:",
        outputs=scored_outputs(backbone),
        **options,
    )
    auc = [cue_evidence(backbone, open_sequence(each, stop=frames), cue) for each in sequences]
    return _of_table(table).assign(auc=(("sequence", "test"), auc))


def _of_table(table: xr.Dataset) -> xr.Dataset:
    """Errors of a sweep by treatment, and what its runs moved and kept."""
    errors = {
        name: (("sequence", "treatment"), table[name].transpose("sequence", ...).values)
        for name in (DEPTH, POSE)
        if name in table
    }
    labels = table["configuration"].values.tolist()
    moved, kept = [], []
    for name in table["sequence"].values:
        paths = table["run"].sel(sequence=name)
        plain, own = (open_run(paths.sel(configuration=each).item()) for each in (PLAIN, OWN))
        moved.append(moved_by(plain, own)[0])
        kept.append(kept_shares(plain).isel(frame=slice(1, None)).mean().item())
    coords = {"sequence": table["sequence"].values, "treatment": labels}
    found = xr.Dataset(errors, coords).assign(moved=("sequence", moved), kept=("sequence", kept))
    for name in errors:
        found[name].attrs = table[name].attrs
    return found


def gate_effects(found: xr.Dataset) -> dict[str, xr.Dataset]:
    """Return the change of each error by the gate against shuffled scores, by the error's name.

    Parameters
    ----------
    found : Dataset
        From :func:`compare_models`.

    Returns
    -------
    dict of str to Dataset
        (model) as `ablation.against_control`; none where nothing was scored.
    """
    known = [name for name in (DEPTH, POSE) if name in found and bool(found[name].notnull().any())]
    return {
        find_metric(name).label: against_control(found[name], "treatment").sel(treatment=OWN)
        for name in known
    }


def model_table(found: xr.Dataset) -> pd.DataFrame:
    """Write what was found by model: one row each, with intervals over sequences."""
    columns = {
        f"AUC, {test}": estimate(found["auc"].sel(test=test, drop=True)) for test in _shown(found)
    }
    effects = gate_effects(found)
    columns |= {f"{name}, gate against shuffled": each for name, each in effects.items()}
    columns |= {"moved by the gate": estimate(found["moved"])}
    columns |= {"kept per frame": estimate(found["kept"])}
    written = {
        model: {"weights": "trained" if is_trained(model) else "random"}
        | {
            name: formatted(each.sel(model=model), 2 if name.startswith("AUC") else 1)
            for name, each in columns.items()
        }
        for model in found["model"].values.tolist()
    }
    return pd.DataFrame.from_dict(written, orient="index").rename_axis("model")


def _shown(found: xr.Dataset) -> list[str]:
    """Return the tests among :data:`ASKED` that anything was told by."""
    known = found["auc"].notnull().any(["model", "sequence"])
    return [test for test in ASKED if bool(known.sel(test=test))]


def finding(found: xr.Dataset) -> Finding:
    """Tell by model whether the cue finds motion and gates by it help; of trained weights alone.

    Parameters
    ----------
    found : Dataset
        From :func:`compare_models`.
    """
    names = found["model"].values.tolist()
    trained = [name for name in names if is_trained(name)]
    random = [name for name in names if not is_trained(name)]
    note = ""
    if random:
        note = f"Nothing can be found in {', '.join(random)}: random weights have learned nothing."
    if not trained:
        return Finding(QUESTION, note=note)
    held = found.sel(model=trained)
    table = []
    for test in _shown(held):
        auc = estimate(held["auc"].sel(test=test, drop=True))
        table += rows(auc, f"AUC in {{}}, {test}", CHANCE)
    areas = len(table)
    for name, each in gate_effects(held).items():
        effect = f"{name} in {{}}, gating by the cue, not by shuffled scores"
        table += rows(each.drop_vars("treatment"), effect)
    lead = len(table)
    table += rows(estimate(held["moved"]), "moved by gating, {}", reference=None)
    table += rows(estimate(held["kept"]), "memory kept per frame, {}", reference=None)
    if not lead:
        return Finding(QUESTION, table, note=f"{NO_TRUTH} {note}".strip())
    return Finding(QUESTION, table, "", note, lead, _told(table[:areas], table[areas:lead]))


def _told(areas: Sequence[Row], changes: Sequence[Row]) -> str:
    """Count in a sentence in how many tests the cue finds motion, and how many errors it lowers."""
    seen = sum(each.verdict == HIGHER for each in areas)
    lower, higher = (sum(each.verdict == way for each in changes) for way in (LOWER, HIGHER))
    n = max(each.n for each in [*areas, *changes])
    return (
        f"The cue tells motion better than chance in {seen} of {len(areas)} tests; gating by it, "
        f"not by shuffled scores, lowers {lower} and raises {higher} of {len(changes)} errors "
        f"significantly (n up to {n})."
    )
