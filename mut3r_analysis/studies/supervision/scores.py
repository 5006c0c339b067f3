"""What fine-tuned arms are worth, on held-out clips and whole sequences, and what they cost."""

import copy
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import xarray as xr
from torch import Tensor

from mut3r_analysis.backbones.protocol import Backbone
from mut3r_analysis.foundation.labelling import beside, described
from mut3r_analysis.motion import Cue, Gate
from mut3r_analysis.running.configuration import Configuration
from mut3r_analysis.running.opening import open_run
from mut3r_analysis.running.planning import human_bytes, human_flops, plan
from mut3r_analysis.sequences import open_sequence
from mut3r_analysis.studies.ablation import PLAIN, against
from mut3r_analysis.studies.estimates import difference
from mut3r_analysis.studies.finding import Finding, Row, row, rows
from mut3r_analysis.studies.measures import departures
from mut3r_analysis.studies.supervision.fine_tuning import (
    ARMS,
    CONTROL,
    ORIGINAL,
    SUPERVISED,
    FineTuning,
    clip_size,
)
from mut3r_analysis.sweeps import sweep
from mut3r_analysis.sweeps.sources import Sequences
from mut3r_analysis.training.clip_cues import areas, scored, standardised
from mut3r_analysis.training.clips import Clips
from mut3r_analysis.training.rollout import PLAIN as UNGATED
from mut3r_analysis.training.validation import held_out_clips, score_clips

GATED, SHUFFLED, TRUE = "own cue", "own cue, shuffled", "true mask"
ERRORS = {
    "depth": ("depth error", "1"),
    "rpe_rotation": ("relative rotation error", "degree"),
    "rpe_translation": ("relative translation error", "m"),
    "points_self": ("point error in the camera", "1"),
    "points_world": ("point error in the world", "1"),
}
"""Errors of clips; depth is absolute relative, points are distances over the scene's size."""

PRIMARY = "points_world"
"""The error that the finding speaks of, named before any number: it needs depth and pose."""

QUESTION = (
    "Is the motion cue worth more as a loss in fine-tuning, as a gate at inference, or as both?"
)

SEED = 700_000
"""Held-out clips of this study start here, apart from those of the model card."""


def held_out(backbone: Backbone, tuning: FineTuning, clips: int, frames: int) -> Clips:
    """Render clips of the training's kind of scene that no training sees."""
    return held_out_clips(tuning.scenes, clip_size(backbone), clips, frames, seed=SEED)


def score_arms(models: Mapping[str, Backbone], clips: Clips, cue: Cue, gate: Gate) -> xr.Dataset:
    """Score every arm plain and gated by its own cue, on the same held-out clips.

    Parameters
    ----------
    models : mapping of str to Backbone
        By arm; scored on the processor.
    clips : Clips
    cue, gate
        Of the gated inference.

    Returns
    -------
    Dataset
        (arm, inference, clip) :data:`ERRORS`; ``auc`` (arm, inference, kind, clip), the cue read
        in the plain run and in the gated one; ``auc_layer`` (arm, layer, kind, clip), each layer
        of the cue's site by itself in the plain run.
    """
    rows = []
    for model in map(_on_processor, models.values()):
        patch = model.patch_size
        plain = _errors(model, clips)
        gated, scores = _gated(model, clips, cue, gate)
        found = xr.concat([plain, gated], dim=_inferences(PLAIN, GATED))
        separated = [areas(each, clips, patch) for each in (scored(model, clips, cue)[0], scores)]
        found["auc"] = xr.concat(separated, dim=_inferences(PLAIN, GATED))
        found["auc_layer"] = _by_layer(model, clips, cue, patch)
        rows.append(found)
    return xr.concat(rows, dim=xr.Variable("arm", list(models), {"long_name": "fine-tuning"}))


def score_controls(model: Backbone, clips: Clips, cue: Cue, gate: Gate) -> xr.Dataset:
    """Score one arm gated by the cue with its cells permuted, and by the true mask.

    The first keeps nothing of the cue but the histogram of its scores; the second bounds what any
    cue could do with this gate.

    Returns
    -------
    Dataset
        (inference, clip) :data:`ERRORS`.
    """
    model = _on_processor(model)
    cues = (replace(cue, control="shuffle"), Cue.oracle())
    found = [_gated(model, clips, each, gate)[0] for each in cues]
    return xr.concat(found, dim=_inferences(SHUFFLED, TRUE))


def _on_processor(model: Backbone) -> Backbone:
    return model if model.device.type == "cpu" else copy.deepcopy(model).to("cpu")


def _inferences(*names: str) -> xr.Variable:
    return xr.Variable("inference", list(names), {"long_name": "inference"})


def _errors(
    model: Backbone,
    clips: Clips,
    configuration: Configuration = UNGATED,
    masks: Mapping[str, Tensor] | None = None,
) -> xr.Dataset:
    found = score_clips(model, clips, configuration=configuration, masks=masks).errors
    held = {name: ("clip", found[name].astype(np.float64)) for name in ERRORS}
    return described(xr.Dataset(held), ERRORS)


def _gated(model: Backbone, clips: Clips, cue: Cue, gate: Gate) -> tuple[xr.Dataset, Tensor]:
    """Errors gated by a cue, and its scores.

    Gating with the scores of a gated walk repeats its gated passes: equal gates give equal states,
    from which a probe pass would read the same scores again.
    """
    scores, _ = scored(model, clips, cue, gate=gate)
    repeated = Configuration(cue=Cue.oracle("score"), gate=gate)
    return _errors(model, clips, repeated, {"score": scores}), scores


def _by_layer(model: Backbone, clips: Clips, cue: Cue, patch: int) -> xr.DataArray:
    """AUC of every layer of the cue's site, standardised frame by frame as the score is."""
    _, readings = scored(model, clips, replace(cue, layers=None))
    assert readings is not None
    evidence = standardised((cue.sign or 1) * readings.flatten(0, 2).flatten(1))
    layers = evidence.reshape(readings.shape).unbind(2)
    layer = xr.Variable("layer", np.arange(len(layers)), {"long_name": "decoder layer"})
    return xr.concat([areas(each, clips, patch) for each in layers], dim=layer)


def strategies(scores: xr.Dataset) -> xr.Dataset:
    """Change of every error by arm and inference, against the control without a gate, percent.

    Parameters
    ----------
    scores : Dataset
        From :func:`score_arms`. Without the control arm the original stands in for it.

    Returns
    -------
    Dataset
        ``value``, ``lower``, ``upper``, ``n`` over (error, arm, inference), paired over clips.
    """
    return _changes(scores, scores.sel(arm=baseline(scores), inference=PLAIN, drop=True))


def training_effect(scores: xr.Dataset) -> xr.Dataset:
    """Change of every error by training on without the cue term, percent of the original's.

    Every trained arm shares it, so :func:`strategies` cannot show it.

    Parameters
    ----------
    scores : Dataset
        From :func:`score_arms`, with the original and the control.

    Returns
    -------
    Dataset
        As of :func:`strategies`, over (error).
    """
    plain = scores[list(ERRORS)].sel(inference=PLAIN, drop=True)
    found = _changes(plain.sel(arm=CONTROL, drop=True), plain.sel(arm=ORIGINAL, drop=True))
    found["value"].attrs["long_name"] = "change of the error against the original"
    return found


def gate_controls(scores: xr.Dataset, controls: xr.Dataset) -> xr.Dataset:
    """Change of every error of the reference arm by what its gate is driven with, percent.

    Parameters
    ----------
    scores : Dataset
        From :func:`score_arms`.
    controls : Dataset
        From :func:`score_controls` of the arm :func:`baseline` names.

    Returns
    -------
    Dataset
        As of :func:`strategies`, over (error, inference).
    """
    own = scores[list(ERRORS)].sel(arm=baseline(scores), drop=True)
    plain = own.sel(inference=PLAIN, drop=True)
    return _changes(xr.concat([own.sel(inference=[GATED]), controls], dim="inference"), plain)


def _changes(scores: xr.Dataset, reference: xr.Dataset) -> xr.Dataset:
    text = "change of the error against the plain run of the reference arm"
    parts = {
        named: against(scores[error], reference[error], "clip", text)
        for error, (named, _) in ERRORS.items()
    }
    return beside(parts, "error")


def baseline(scores: xr.Dataset) -> str:
    """Return the arm that others are compared with: the control, where it was trained."""
    return CONTROL if CONTROL in scores["arm"].values else ORIGINAL


def separation_gain(scores: xr.Dataset, name: str = "auc") -> xr.Dataset:
    """Paired difference of the plain run's AUC against the reference arm.

    Parameters
    ----------
    scores : Dataset
        From :func:`score_arms`.
    name : {"auc", "auc_layer"}

    Returns
    -------
    Dataset
        ``value``, ``lower``, ``upper``, ``n`` over (arm, kind), or (arm, layer, kind).
    """
    auc = scores[name]
    if "inference" in auc.dims:
        auc = auc.sel(inference=PLAIN, drop=True)
    found = difference(auc, auc.sel(arm=baseline(scores), drop=True), over="clip")
    text = f"AUC of the cue less that of the arm “{baseline(scores)}”"
    found["value"].attrs |= {"long_name": text}
    return found


def finding(scores: xr.Dataset) -> Finding:
    """Tell what supervision, gating and both change of the cue and of :data:`PRIMARY`."""
    arms, name = scores["arm"].values.tolist(), ERRORS[PRIMARY][0]
    changes = strategies(scores).sel(error=name)
    about = f"Against the {baseline(scores)} without gates, using the cue"
    if SUPERVISED not in arms or CONTROL not in arms:
        gate = changes.sel(arm=baseline(scores), inference=GATED)
        return Finding(
            QUESTION, [row(f"{name} with gating alone", gate)], about, "No arm was trained."
        )
    gain = separation_gain(scores)
    table = [
        row(f"{name} with supervision alone", changes.sel(arm=SUPERVISED, inference=PLAIN)),
        row(f"{name} with gating alone", changes.sel(arm=CONTROL, inference=GATED)),
        row(f"{name} with both", changes.sel(arm=SUPERVISED, inference=GATED)),
    ]
    if ORIGINAL in arms:
        trained = training_effect(scores).sel(error=name)
        table.append(row("training on without the term, against the original", trained))
    others = [arm for arm in arms if arm != baseline(scores)]
    table += rows(gain.sel(arm=others).transpose("kind", "arm"), "AUC of the cue, {}")
    return Finding(QUESTION, table, about, lead=3)


_BACKWARD = 2
"""A backward pass in forward passes."""

_COPIES = 5
"""Weights, gradients, the two moments of AdamW, and the average; float32 each."""


def price(backbone: Backbone, tuning: FineTuning) -> xr.Dataset:
    """Price fine-tuning all trained arms at the backbone's size.

    Parameters
    ----------
    backbone : Backbone
    tuning : FineTuning

    Returns
    -------
    Dataset
        ``parameters``; ``operations`` of all trained arms together, FLOP; ``memory`` of one arm's
        weights, gradients, moments and average, byte, to which the activations of a clip add.
    """
    width, height = clip_size(backbone)
    frame = open_sequence(np.zeros((1, height, width, 3), np.uint8), name="one frame")
    forward = sum(plan(backbone, frame).flops.values())
    count = sum(weight.numel() for weight in backbone.parameters())
    seen = tuning.steps * tuning.clips * tuning.frames * len(set(ARMS) - {ORIGINAL})
    words = {
        "parameters": ("weights of the backbone", "1"),
        "operations": ("operations of all arms", "FLOP"),
        "memory": ("weights and what belongs to them, one arm", "byte"),
    }
    values = (count, (1 + _BACKWARD) * forward * seen, _COPIES * 4 * count)
    found = xr.Dataset(dict(zip(words, map(float, values), strict=True)))
    about = {"backbone": backbone.origin.name, "clip": f"{width} x {height} px"}
    return described(found, words).assign_attrs(about)


def formatted_price(priced: xr.Dataset) -> str:
    """Say a price in a sentence."""
    return (
        f"{priced.attrs['backbone']} has {float(priced['parameters']) / 1e6:,.1f} million weights; "
        f"on clips of {priced.attrs['clip']} all arms together take "
        f"{human_flops(float(priced['operations']))}, and one arm holds "
        f"{human_bytes(int(priced['memory']))} before activations"
    )


def not_run(priced: xr.Dataset, largest: int) -> Finding:
    """Say that nothing was trained, and what it would take."""
    table = []
    for each in priced.data_vars.values():
        unit = each.attrs["units"].strip("1")
        table.append(Row(each.attrs["long_name"], float(each), unit=unit, reference=None))
    note = (
        f"Not answered here: {formatted_price(priced)}. Backbones of more than {largest / 1e6:g} "
        "million weights are priced and not trained unless asked for."
    )
    return Finding(QUESTION, table, note=note, lead=0)


def run_arms(
    models: Mapping[str, Backbone],
    sequences: Sequences,
    cue: Cue,
    gate: Gate,
    *,
    frames: int | None = None,
    out: str | Path,
    progress: bool = True,
) -> xr.Dataset:
    """Run and score every arm on whole sequences, plain with its cue measured, and gated by it.

    Parameters
    ----------
    models : mapping of str to Backbone
        By arm.
    sequences
        As of :func:`~mut3r_analysis.sweep`.
    cue, gate
    frames : int, optional
        At most so many of each sequence.
    out : path
        Folder of the runs; what is there is not run again.
    progress : bool

    Returns
    -------
    Dataset
        As of :func:`~mut3r_analysis.sweep`, over (arm, inference, sequence[, frame]).
    """
    table = sweep(
        models,
        sequences,
        configurations={PLAIN: {"cue": cue}, GATED: {"cue": cue, "gate": gate}},
        frames="::" if frames is None else f":{frames}:",
        outputs=("pose", "depth"),
        out=out,
        progress=progress,
    )
    return table.rename(backbone="arm", configuration="inference")


def transfer(table: xr.Dataset) -> xr.DataArray:
    """Compare runs of whole sequences with the original's plain run, which takes no truth.

    Parameters
    ----------
    table : Dataset
        From :func:`run_arms`, with the arm :data:`ORIGINAL`.

    Returns
    -------
    DataArray
        (measure, arm, inference, sequence), as of `measures.departures`, and the correlation of
        the cue's scores with the original's.
    """
    original = {"arm": ORIGINAL, "inference": PLAIN}
    runs = table["run"]
    alike = xr.apply_ufunc(_correlation, runs, runs.sel(original, drop=True), vectorize=True)
    labels = {"metric": "", "task": "", "protocol": "none", "units": "1"}
    labels["measure"] = "correlation of the cue"
    parts = [departures(table, original), alike.assign_coords(labels).expand_dims("measure")]
    return xr.concat(parts, "measure", combine_attrs="override")


def _correlation(*paths: str) -> float:
    one, other = (np.asarray(open_run(path)["cue/motion"], np.float64).ravel() for path in paths)
    return float(np.corrcoef(one, other)[0, 1])
