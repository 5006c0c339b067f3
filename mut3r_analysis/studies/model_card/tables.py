"""The numbers of a model card as labelled data."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from mut3r_analysis.errors import UnreadableFile
from mut3r_analysis.foundation.bundled import data_path
from mut3r_analysis.training.card import FORMAT
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
    "depth": "depth",
    "points_self": "points (own camera)",
    "points_world": "points (world)",
}
MASKS = {"oracle": "own masks", "shuffled": "another clip's masks"}

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
    path = Path(backbone).expanduser().with_suffix(".json")
    path = path if path.is_file() else data_path("checkpoints") / f"{backbone}.json"
    if not path.is_file():
        return None
    try:
        card = json.loads(path.read_text())
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
    rows = [row for row in card["targets"] if row["set"] == TARGETS_SET[0]]
    shares = [
        [part / row["bound"] for part in row["value"]]
        if row["above"]
        else [row["bound"] / row["value"][index] for index in (0, 2, 1)]
        for row in rows
    ]
    found = _intervals(shares, "target")
    found["value"].attrs |= {"long_name": "share of the target that is reached"}
    return found.assign_coords(
        target=[row["target"] for row in rows],
        reached=("target", [row["reached"] for row in rows]),
        area=("target", [_is_area(row) for row in rows]),
    )


def areas(card: Card) -> xr.Dataset:
    """Return the areas under the curve that targets ask for, and those of cells named later.

    Returns
    -------
    Dataset
        (asked, cell): ``value``, ``lower`` and ``upper``. ``asked`` is what is told apart, with the
        bound; ``cell`` says how it was named: only what was declared before training is a target.
    """
    rows = [row for row in card["targets"] if _is_area(row)]
    # The card words each as "AUC of a ... (cell) what is asked, interval ...".
    cells = [
        row["target"].removeprefix("AUC of a ").split(")")[0].replace(" (", ": ") for row in rows
    ]
    asked = [row["target"].split(") ")[1].rsplit(",", 1)[0] for row in rows]
    values = {
        key: row["value"] for key, row in zip(zip(asked, cells, strict=True), rows, strict=True)
    }
    asked, cells = list(dict.fromkeys(asked)), list(dict.fromkeys(cells))
    found = _intervals([[values[what, cell] for cell in cells] for what in asked], "asked", "cell")
    found["value"].attrs |= {"long_name": "area under the ROC curve"}
    return found.assign_coords(asked=asked, cell=cells)


def curve(card: Card, names: Mapping[str, str] = RATIOS) -> xr.DataArray:
    """Return scores over training ``(length, score, frames)``; those of a path from 4 frames on."""
    lengths = sorted({int(row["length"]) for row in card["curve"]})
    seen = sorted({row["frames"] / 1e3 for row in card["curve"]})
    values = np.full((len(lengths), len(names), len(seen)), np.nan)
    for row in card["curve"]:
        place = lengths.index(int(row["length"])), slice(None), seen.index(row["frames"] / 1e3)
        values[place] = [row[name] for name in names]
    found = xr.DataArray(
        values,
        dims=("length", "score", "frames"),
        coords={"length": lengths, "score": list(names.values()), "frames": seen},
        attrs={"long_name": "share of the baseline's error", "units": "1"},
    )
    found["length"].attrs = {"long_name": "clips of", "units": "frames"}
    found["frames"].attrs = {"long_name": "frames seen", "units": "thousand"}
    return _without_short_paths(found)


def correlations(card: Card) -> xr.DataArray:
    """Return correlations of predicted and true motion over training (length, axis, frames)."""
    found = curve(card, {f"correlation_{axis}": axis for axis in AXES}).rename(score="axis")
    return found.assign_attrs(long_name="correlation of predicted and true motion", units="1")


def scores(card: Card) -> xr.Dataset:
    """Return held-out scores with intervals over clips, (score, scenes, length)."""
    kinds = list(card["scores"])
    lengths = [int(length) for length in card["scores"][kinds[0]]]
    found = _intervals(
        [
            [
                [card["scores"][kind][str(length)]["model"][name] for length in lengths]
                for kind in kinds
            ]
            for name in RATIOS
        ],
        "score", "scenes", "length",
    ).assign_coords(score=list(RATIOS.values()), scenes=kinds, length=lengths)  # fmt: skip
    found["value"].attrs |= {"long_name": "share of the baseline's error"}
    found["length"].attrs = {"long_name": "frames per clip"}
    for name in found.data_vars:
        found[name] = _without_short_paths(found[name])
    return found


def cues(card: Card) -> xr.Dataset:
    """Return areas under the curve of the cue test with their intervals, (cell, against).

    Rows are the cells declared beforehand, those declared from readings of earlier weights, the one
    that half of the clips chose, the same one on other scenes, and the choice in the untrained
    model.
    """
    test = card["cue_test"]
    rows = [(f"declared: {cell_name(row)}", row) for row in test["declared"]]
    rows += [(f"declared later: {cell_name(row)}", row) for row in test["declared_later"]]
    rows += [(f"chosen: {cell_name(test['best'])}", test["best"])]
    rows += [(f"the same, other scenes: {cell_name(test['again'])}", test["again"])]
    untrained = test["untrained"]["best"]
    rows += [(f"chosen, untrained: {cell_name(untrained)}", untrained)]
    found = _intervals([[row[name] for name in AGAINST] for _, row in rows], "cell", "against")
    found["value"].attrs |= {"long_name": "area under the ROC curve"}
    return found.assign_coords(cell=[name for name, _ in rows], against=list(AGAINST.values()))


def probe(card: Card) -> xr.Dataset:
    """Return areas of a linear probe on decoder tokens, for comparison: (layer, against).

    The last column is the control in which nothing moves.
    """
    rows = card["cue_test"]["probe"]
    names = {name: text for name, text in AGAINST.items() if name in rows[0]}
    found = _intervals([[row[name] for name in names] for row in rows], "layer", "against")
    found["value"].attrs |= {"long_name": "area under the ROC curve"}
    layers = [row["layer"] for row in rows]
    return found.assign_coords(layer=layers, against=list(names.values()))


def gating(card: Card) -> xr.Dataset:
    """Return the change of errors by gating with true masks, percent, (gate, error, mask)."""
    gates = card["gating_test"]["trained"]["gates"]
    found = _intervals(
        [[[errors[name][mask] for mask in MASKS] for name in GATING_ERRORS]
         for errors in gates.values()],
        "gate", "error", "mask",
    )  # fmt: skip
    found["value"].attrs = {"long_name": "change against the plain run", "units": "%"}
    return found.assign_coords(
        gate=list(gates), error=list(GATING_ERRORS.values()), mask=list(MASKS.values())
    )


def _is_area(row: Mapping[str, Any]) -> bool:
    return str(row["target"]).startswith("AUC")


def _intervals(values: Sequence[Any], *dims: str) -> xr.Dataset:
    """Estimates from nested lists whose innermost are value, lower and upper."""
    numbers = np.asarray(values, dtype=float)
    parts = {
        name: (dims, numbers[..., index]) for index, name in enumerate(("value", "lower", "upper"))
    }
    found = xr.Dataset(parts)
    found["value"].attrs["units"] = "1"
    return found


def _without_short_paths(values: xr.DataArray) -> xr.DataArray:
    path = values["score"] == RATIOS["ate_ratio"]
    return values.where(~path | (values["length"] >= SHORTEST_PATH))
