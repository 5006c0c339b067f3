"""What fine-tuned arms are worth: on held-out clips, gated and not, and on whole sequences."""

import copy
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import xarray as xr
from torch import Tensor

from mut3r_analysis.backbones.cut3r import CUT3R
from mut3r_analysis.motion import Cue, Gate
from mut3r_analysis.studies.estimates import change, difference, spelled, verdict
from mut3r_analysis.studies.finding import Finding
from mut3r_analysis.studies.supervision.fine_tuning import (
    CONTRAST,
    CONTROL,
    ORIGINAL,
    SUPERVISED,
    FineTuning,
    clip_size,
)
from mut3r_analysis.training.clip_cues import KINDS, areas, replayed, standardised, walk
from mut3r_analysis.training.clips import Clips
from mut3r_analysis.training.validation import GatesOf, held_out_clips, score_clips

PLAIN, GATED = "plain", "own cue"
SHUFFLED, TRUE = "own cue, shuffled", "true mask"
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


def held_out(backbone: CUT3R, tuning: FineTuning, clips: int, frames: int) -> Clips:
    """Render clips of the training's kind of scene that no training sees."""
    return held_out_clips(tuning.scenes, clip_size(backbone), clips, frames, seed=SEED)


def score_arms(models: Mapping[str, CUT3R], clips: Clips, cue: Cue, gate: Gate) -> xr.Dataset:
    """Score every arm plain and gated by its own cue, on the same held-out clips.

    Parameters
    ----------
    models : mapping of str to CUT3R
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
        patch = model.config.patch_size
        plain = _errors(model, clips)
        gated, scores = _gated(model, clips, cue, gate)
        found = xr.concat([plain, gated], dim=_inferences(PLAIN, GATED))
        separated = [areas(each, clips, patch) for each in (walk(model, clips, cue).scores, scores)]
        found["auc"] = xr.concat(separated, dim=_inferences(PLAIN, GATED))
        found["auc_layer"] = _by_layer(model, clips, cue, patch)
        rows.append(found)
    return xr.concat(rows, dim=xr.Variable("arm", list(models), {"long_name": "fine-tuning"}))


def score_controls(model: CUT3R, clips: Clips, cue: Cue, gate: Gate) -> xr.Dataset:
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


def _on_processor(model: CUT3R) -> CUT3R:
    return model if model.device.type == "cpu" else copy.deepcopy(model).to("cpu")


def _inferences(*names: str) -> xr.Variable:
    return xr.Variable("inference", list(names), {"long_name": "inference"})


def _errors(model: CUT3R, clips: Clips, gates: GatesOf | None = None) -> xr.Dataset:
    found = score_clips(model, clips, gates=gates).errors
    return xr.Dataset(
        {
            name: ("clip", found[name].astype(np.float64), {"long_name": text, "units": units})
            for name, (text, units) in ERRORS.items()
        }
    )


def _gated(model: CUT3R, clips: Clips, cue: Cue, gate: Gate) -> tuple[xr.Dataset, Tensor]:
    scores = walk(model, clips, cue, gate=gate).scores
    return _errors(model, clips, replayed(model, scores, gate)), scores


def _by_layer(model: CUT3R, clips: Clips, cue: Cue, patch: int) -> xr.DataArray:
    """AUC of every layer of the cue's site, standardised frame by frame as the score is."""
    readings = walk(model, clips, replace(cue, layers=None)).readings
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
    parts = [change(scores[error], reference[error], over="clip") for error in ERRORS]
    names = xr.Variable("error", [text for text, _ in ERRORS.values()])
    found = xr.concat(parts, dim=names, coords="minimal", combine_attrs="override")
    text = "change of the error against the plain run of the reference arm"
    found["value"].attrs |= {"long_name": text, "units": "%"}
    return found


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
    """Say what supervision, gating and both did to the cue and to :data:`PRIMARY`."""
    arms = [str(arm) for arm in scores["arm"].values]
    changes = strategies(scores).sel(error=ERRORS[PRIMARY][0])
    name = ERRORS[PRIMARY][0]
    if SUPERVISED not in arms or CONTROL not in arms:
        gate = changes.sel(arm=baseline(scores), inference=GATED)
        return Finding(
            QUESTION,
            "No arm was trained, so only the gate can be answered for: by its own cue it changes "
            f"the {name} by {spelled(gate)} ({_seen(gate)}).",
            {"gating": _plain(gate), "clips": scores.sizes["clip"]},
        )
    gain = separation_gain(scores)
    cells = {
        "supervision alone": changes.sel(arm=SUPERVISED, inference=PLAIN),
        "gating alone": changes.sel(arm=CONTROL, inference=GATED),
        "both": changes.sel(arm=SUPERVISED, inference=GATED),
    }
    lower = [label for label, cell in cells.items() if verdict(cell) == "lower"]
    said = f"Against training on with equal compute, supervision changes {_both(gain, SUPERVISED)}"
    if CONTRAST in arms:
        said += f"; asking for contrast without masks changes {_both(gain, CONTRAST)}"
    listed = ", ".join(
        f"by {spelled(cell)} with {label} ({_seen(cell)})" for label, cell in cells.items()
    )
    so = _best(cells, lower) if lower else "none of the three is seen to lower it"
    answer = f"{said}. The {name} changes {listed}: {so}."
    values = {label: _plain(cell) for label, cell in cells.items()}
    if ORIGINAL in arms:
        trained = training_effect(scores).sel(error=name)
        answer += (
            f" Training on by itself changes it by {spelled(trained)} (control against original: "
            f"{_seen(trained)}); all trained arms share this."
        )
        values["training on"] = _plain(trained)
    values |= {
        f"auc {kind}, {arm}": _plain(gain.sel(arm=arm, kind=kind)) for arm in arms for kind in KINDS
    }
    return Finding(QUESTION, answer, values | {"clips": scores.sizes["clip"]})


def _both(gain: xr.Dataset, arm: str) -> str:
    every, objects = (_signed(gain.sel(arm=arm, kind=kind)) for kind in KINDS)
    return f"the cue's AUC by {every} among all patches and by {objects} among objects"


def _best(cells: Mapping[str, xr.Dataset], lower: Sequence[str]) -> str:
    first = min(lower, key=lambda label: float(cells[label]["value"]))
    if len(lower) == 1:
        return f"{first} lowers it, the others do not"
    return f"{' and '.join(lower)} lower it, {first} by most"


def _seen(cell: xr.Dataset) -> str:
    words = verdict(cell).replace("sequences", "clips")
    return "no difference shown" if words.startswith("no difference") else words


def _signed(cell: xr.Dataset) -> str:
    numbers = [f"{float(cell[part]):+.3f}" for part in ("value", "lower", "upper")]
    return f"{numbers[0]} [{numbers[1]}, {numbers[2]}] (n = {int(cell['n'])})"


def _plain(cell: xr.Dataset) -> dict[str, float]:
    return {part: float(cell[part]) for part in ("value", "lower", "upper", "n")}
