"""A model card as labelled data and findings, and what of a scene its training has not seen."""

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from mut3r_analysis.errors import UnreadableFile
from mut3r_analysis.foundation.bundled import data_path
from mut3r_analysis.foundation.paths import user_path
from mut3r_analysis.scenes import Scene, SceneDistribution, load_scene, scene_names
from mut3r_analysis.scenes.arrays import ROOM_SURFACES
from mut3r_analysis.scenes.paths import RATE, SWING
from mut3r_analysis.studies.finding import Finding, Row, rows
from mut3r_analysis.training.card import FORMAT, strongest
from mut3r_analysis.training.card_words import TARGETS_SET, cell_name
from mut3r_analysis.training.validation import AXES, SHORTEST_PATH

RATIOS = {
    "rpe_rotation_ratio": "rotation RPE / a resting camera's",
    "rpe_translation_ratio": "translation RPE / a resting camera's",
    "ate_ratio": "ATE / a straight line's",
    "depth_ratio": "depth error / a constant's",
}
"""Scores beside the baseline that knows nothing: 1 is as good as that."""

AGAINST = {
    "objects": "against resting objects",
    "objects_without_nuisances": "the same, nuisances regressed out",
    "twin": "against the frozen twin",
    "at_rest": "the same patches at rest",
}
"""Columns of the cue test; in the last nothing moves, and 0.5 means no confound."""

GATING_ERRORS = {
    "rpe_rotation": "RPE rotation",
    "rpe_translation": "RPE translation",
    "depth": "depth error",
    "points_self": "point error (own camera)",
    "points_world": "point error (world)",
}
_AREA = "area under the ROC curve"

MASKS = {"oracle": "true masks", "shuffled": "masks of another clip"}

Card = Mapping[str, Any]


def find_card(backbone: str) -> dict[str, Any] | None:
    """Return the model card of a bundled checkpoint, or the one beside a checkpoint file.

    Parameters
    ----------
    backbone : str
        As for :func:`~mut3r_analysis.load_backbone`.

    Returns
    -------
    dict or None
        None where there is no card.

    Raises
    ------
    UnreadableFile
        When the file beside the checkpoint is not a card.
    """
    path = user_path(backbone).with_suffix(".json")
    path = path if path.is_file() else data_path("checkpoints") / f"{backbone}.json"
    if not path.is_file():
        return None
    try:
        card = json.loads(path.read_text(encoding="utf-8"))
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise UnreadableFile(f"cannot read the model card {path}: {error}") from error
    if not isinstance(card, dict) or card.get("format") != FORMAT:
        raise UnreadableFile(f"{path} is no model card (its format is not {FORMAT!r}); move it")
    return card


def targets(card: Card) -> xr.Dataset:
    """Return how much of each target set before training is reached: from 1 on it is.

    Returns
    -------
    Dataset
        Dim ``target``: ``value``, ``lower`` and ``upper``, the measured over the bound for what
        must exceed it, and the bound over the measured for what must stay below; ``reached``,
        which may ask for an interval besides; and ``area``, whether it is an area under the curve,
        which :func:`areas` has on its own scale.
    """
    rows = set_before(card)
    shares = [
        [part / row["bound"] for part in row["value"]]
        if row["above"]
        else [row["bound"] / row["value"][index] for index in (0, 2, 1)]
        for row in rows
    ]
    names = [row["target"] for row in rows]
    return _intervals(shares, "share of the target that is reached", target=names).assign_coords(
        reached=("target", [row["reached"] for row in rows]),
        area=("target", [name.startswith("AUC") for name in names]),
    )


def areas(card: Card) -> xr.Dataset:
    """Return the areas under the curve that targets ask for, and those of cells named later.

    Returns
    -------
    Dataset
        (asked, cell): ``value``, ``lower`` and ``upper``. ``asked`` is what is told apart, with the
        bound; ``cell`` says how it was named: only what was declared before training is a target.
    """
    held: dict[str, dict[str, Any]] = {}
    for row in card["targets"]:
        # The card words each as "AUC of a ... (cell) what is asked, interval ...".
        if words := re.match(r"AUC of a (.*?) \((.*?)\) (.*),", row["target"]):
            how, cell, asked = words.groups()
            held.setdefault(asked, {})[f"{how}: {cell}"] = row["value"]
    cells = list(next(iter(held.values())))
    values = [[each[cell] for cell in cells] for each in held.values()]
    return _intervals(values, _AREA, asked=list(held), cell=cells)


def curve(card: Card, names: Mapping[str, str] = RATIOS) -> xr.DataArray:
    """Return scores over training ``(length, score, frames)``; those of a path from 4 frames on."""
    rows = pd.DataFrame(card["curve"]).astype({"length": int})
    rows = rows.assign(frames=rows["frames"] / 1e3).set_index(["length", "frames"])
    found = rows[list(names)].to_xarray().to_dataarray("score").transpose("length", "score", ...)
    found = found.assign_coords(score=list(names.values()))
    found = found.assign_attrs(long_name="share of the baseline's error", units="1").rename(None)
    found["length"].attrs = {"long_name": "clips of", "units": "frames"}
    found["frames"].attrs = {"long_name": "frames seen", "units": "thousand"}
    return _without_short_paths(found)


def correlations(card: Card) -> xr.DataArray:
    """Return correlations of predicted and true motion over training (length, axis, frames)."""
    found = curve(card, {f"correlation_{axis}": axis for axis in AXES}).rename(score="axis")
    return found.assign_attrs(long_name="correlation of predicted and true motion", units="1")


def scores(card: Card) -> xr.Dataset:
    """Return held-out scores with intervals over clips, (score, scenes, length)."""
    kinds, by_kind = zip(*card["scores"].items(), strict=True)
    values = [
        [[cell["model"][name] for cell in lengths.values()] for lengths in by_kind]
        for name in RATIOS
    ]
    found = _intervals(
        values,
        "share of the baseline's error",
        score=list(RATIOS.values()),
        scenes=list(kinds),
        length=[int(length) for length in by_kind[0]],
    )
    found["length"].attrs = {"long_name": "frames per clip"}
    return found.map(_without_short_paths, keep_attrs=True)


def read_cells(card: Card) -> list[tuple[str, Mapping[str, Any]]]:
    """Return every cell of the cue test that is told of: how it came about, and its row."""
    test = card["cue_test"]
    return [
        *(("declared", row) for row in test["declared"]),
        *(("declared later", row) for row in test["declared_later"]),
        ("chosen", test["best"]),
        ("chosen, other scenes", test["again"]),
        ("chosen, untrained", test["untrained"]["best"]),
    ]


def cues(card: Card) -> xr.Dataset:
    """Return areas under the curve of the cue test with their intervals, (cell, against).

    Rows are the cells declared beforehand, those declared from readings of earlier weights, the one
    that half of the clips chose, the same one on other scenes, and the choice in the untrained
    model.
    """
    return _told(read_cells(card))


def _told(cells: Iterable[tuple[str, Mapping[str, Any]]]) -> xr.Dataset:
    names, rows = zip(*cells, strict=True)
    labels = [f"{name}: {cell_name(row)}" for name, row in zip(names, rows, strict=True)]
    values = [[row[name] for name in AGAINST] for row in rows]
    return _intervals(values, _AREA, cell=labels, against=list(AGAINST.values()))


def probe(card: Card) -> xr.Dataset:
    """Return areas of a linear probe on decoder tokens, for comparison: (layer, against).

    The last column is the control in which nothing moves.
    """
    rows = card["cue_test"]["probe"]
    names = {name: text for name, text in AGAINST.items() if name in rows[0]}
    values, layers = [[row[name] for name in names] for row in rows], [row["layer"] for row in rows]
    return _intervals(values, _AREA, layer=layers, against=list(names.values()))


def gating(card: Card) -> xr.Dataset:
    """Return the change of errors by gating with true masks, percent, (gate, error, mask)."""
    gates = card["gating_test"]["trained"]["gates"]
    values = [
        [[errors[name][mask] for mask in MASKS] for name in GATING_ERRORS]
        for errors in gates.values()
    ]
    labels = {"error": list(GATING_ERRORS.values()), "mask": list(MASKS.values())}
    return _intervals(values, "change against the plain run", "%", gate=list(gates), **labels)


def set_before(card: Card) -> list[Mapping[str, Any]]:
    """Return the targets that were set before training; the others are held to their bounds."""
    return [row for row in card["targets"] if row["set"] == TARGETS_SET[0]]


def _intervals(
    values: Sequence[Any], long_name: str, units: str = "1", **labels: Sequence[Any]
) -> xr.Dataset:
    """Estimates from nested lists, one level per label, the innermost value, lower and upper."""
    parts = dict(zip(("value", "lower", "upper"), np.moveaxis(np.array(values, float), -1, 0),
                     strict=True))  # fmt: skip
    found = xr.Dataset({name: (list(labels), part) for name, part in parts.items()}, labels)
    found["value"].attrs = {"units": units, "long_name": long_name}
    return found


def _without_short_paths(values: xr.DataArray) -> xr.DataArray:
    path = values["score"] == RATIOS["ate_ratio"]
    return values.where(~path | (values["length"] >= SHORTEST_PATH))


QUESTION = "What has this model learned, and what has it not?"
CUE_QUESTION = "Does its attention show motion?"
GATING_QUESTION = "Do gates help it when they are given the truth?"

CHANCE = 0.5


def learned(card: Card) -> Finding:
    """Tell which targets are reached, and where the model stands beside what knows nothing."""
    clips = card["evaluation"]["clips"]
    shown = scores(card).sel(scenes="moving", length=[2, 8]).transpose("length", "score")
    table = rows(shown, "{score}, {length} frames", 1.0, clips)
    table = [each for each in table if each.value is not None]
    lead = len(table)
    held = set_before(card)
    reached = sum(each["reached"] for each in held)
    table.append(Row("targets reached", reached, n=len(held), reference=None))
    for each in held:
        effect = f"{each['target']} ({'reached' if each['reached'] else 'missed'})"
        value, lower, upper = each["value"]
        table.append(Row(effect, value, lower, upper, clips, reference=each["bound"]))
    trend = late_change(card).to_series() if card.get("curve") else pd.Series(dtype=float)
    for name, value in trend.items():
        effect = f"change over the last tenth of training, {name}"
        table.append(Row(effect, value, reference=None))
    note = f"{reached} of {len(held)} targets set before training are reached."
    about = "The error on unseen scenes, divided by that of a baseline without learning, is"
    return Finding(QUESTION, table, about, note, lead)


def late_change(card: Card) -> xr.DataArray:
    """Return how scores of the longest clips changed over the last tenth of training, (score)."""
    found = curve(card)
    found = found.isel(length=-1).dropna("frames", how="all")
    last = found["frames"].values[-1]
    before = found.sel(frames=0.9 * last, method="nearest")
    return (found.isel(frames=-1, drop=True) - before.drop_vars("frames")).dropna("score")


def motion_in_attention(card: Card) -> Finding:
    """Tell what the cue test found, for the cells declared before and for the one chosen."""
    test = card["cue_test"]
    # Half of the clips choose, the others report.
    clips = test["setting"]["clips"] // 2
    told = dict(read_cells(card)) | {
        "declared": strongest(test["declared"]),
        "declared later": strongest(test["declared_later"]),
    }
    areas = _told(told.items()).transpose("against", "cell")
    table = rows(areas, "{cell}, {against}", CHANCE, clips)
    probed = probe(card)
    best = int(probed["value"].sel(against=AGAINST["objects"]).idxmax("layer"))
    effect = f"linear probe of layer {best}, {{}}"
    table += rows(probed.sel(layer=best, drop=True), effect, CHANCE, clips)
    for which in ("declared", "declared_later"):
        # With the whole interval: its lower bound.
        number = sum(min(each["objects"][1], each["twin"][1]) > CHANCE for each in test[which])
        effect = f"cells {which.replace('_', ' ')} with both AUCs above chance"
        table.append(Row(effect, number, n=len(test[which]), reference=None))
    about = "Attention tells moving patches from others with an AUC of"
    return Finding(CUE_QUESTION, table, about, lead=len(told))


def gating_by_truth(card: Card) -> Finding:
    """Tell which errors gates change when they are given the true masks, and another clip's."""
    clips = card["gating_test"]["trained"]["setting"]["clips"]
    held = gating(card).transpose("mask", "gate", "error")
    table = rows(held, "{error} with {mask}, {gate}", n=clips)
    about = "Gating by masks"
    return Finding(GATING_QUESTION, table, about, lead=len(GATING_ERRORS))


def outside_training(backbone: str, sequence: xr.Dataset) -> list[str]:
    """Compare a sequence with the scenes of the last stage of training.

    Parameters
    ----------
    backbone : str
        As for :func:`~mut3r_analysis.load_backbone`.
    sequence : Dataset

    Returns
    -------
    list of str
        As :func:`differences`; empty also where the backbone has no model card, or the sequence is
        no bundled scene.
    """
    card, name = find_card(backbone), str(sequence.attrs["name"])
    if card is None or sequence.attrs.get("kind") != "scenes" or name not in scene_names():
        return []
    scenes = card["training"]["recipe"]["stages"][-1]["scenes"]
    return differences(load_scene(name), [SceneDistribution.from_dict(each) for each in scenes])


def differences(scene: Scene, seen: Sequence[SceneDistribution]) -> list[str]:
    """Say in what a scene differs from everything that distributions can draw.

    Fog, the number of objects and of moving ones, and the contrast of textures are compared, each
    by itself; the paths of camera and objects are not.

    Returns
    -------
    list of str
        One entry per difference, with what was seen in training.
    """
    moving = sum(
        any(path.array()[[RATE, SWING]].any() for path in (each.position, each.angles))
        for each in scene.objects
    )
    surfaces = [getattr(scene.room, name) for name in ROOM_SURFACES]
    contrasts = [each.contrast for each in (*surfaces, *(o.texture for o in scene.objects))]
    low, high = min(contrasts), max(contrasts)
    found = []
    if scene.light.fog not in {each.fog for each in seen}:
        fogs = ", ".join(dict.fromkeys(_fog(each.fog) for each in seen))
        found.append(f"{_fog(scene.light.fog)} (trained with {fogs})")
    most = max(each.objects for each in seen)
    if len(scene.objects) > most:
        found.append(f"{len(scene.objects)} objects (trained with at most {most})")
    if not any(each.movers[0] <= moving <= each.movers[1] for each in seen):
        movers = ", ".join(dict.fromkeys(_span(*each.movers) for each in seen))
        found.append(f"{moving} moving objects (trained with {movers})")
    ranges = [each.texture_contrast for each in seen]
    if not any(least <= low and high <= greatest for least, greatest in ranges):
        told = ", ".join(dict.fromkeys(_span(*each) for each in ranges))
        found.append(f"textures of contrast {_span(low, high)} (trained with {told})")
    return found


def _span(low: float, high: float) -> str:
    return f"{low:.2g}" if low == high else f"{low:.2g} to {high:.2g}"


def _fog(length: float | None) -> str:
    return "clear air" if length is None else f"fog of {length:g} m"
