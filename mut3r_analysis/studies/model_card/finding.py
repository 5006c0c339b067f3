"""What a model card comes to, as findings."""

from collections.abc import Mapping, Sequence
from typing import Any

import xarray as xr

from mut3r_analysis.studies.finding import HIGHER, Finding, Row, rows
from mut3r_analysis.studies.model_card.tables import (
    AGAINST,
    GATING_ERRORS,
    MASKS,
    RATIOS,
    curve,
    gating,
    read_cells,
    set_before,
)
from mut3r_analysis.training.card import strongest
from mut3r_analysis.training.card_words import cell_name

QUESTION = "What has this model learned, and what has it not?"
CUE_QUESTION = "Does its attention show motion?"
GATING_QUESTION = "Do gates help it when they are given the truth?"

CHANCE = 0.5


def learned(card: Mapping[str, Any]) -> Finding:
    """Tell which targets are reached, and where the model stands beside what knows nothing."""
    clips = card["evaluation"]["clips"]
    scores = card["scores"]["moving"]
    table = [
        _interval(f"{text}, {length} frames", scores[length]["model"][name], clips, 1.0)
        for length in ("2", "8")
        for name, text in RATIOS.items()
        if (name, length) != ("ate_ratio", "2")
    ]
    lead = len(table)
    held = set_before(card)
    reached = sum(each["reached"] for each in held)
    table.append(Row("targets reached", reached, n=len(held), reference=None))
    for each in held:
        effect = f"{each['target']} ({'reached' if each['reached'] else 'missed'})"
        table.append(_interval(effect, each["value"], clips, each["bound"]))
    if card.get("curve"):
        trend = late_change(card)
        for name in trend["score"].values.tolist():
            effect = f"change over the last tenth of training, {name}"
            table.append(Row(effect, float(trend.sel(score=name)), reference=None))
    note = f"{reached} of {len(held)} targets set before training are reached."
    about = "Beside a baseline that knows nothing (1), on unseen scenes with movers, the error is"
    return Finding(QUESTION, table, about, note, lead)


def late_change(card: Mapping[str, Any]) -> xr.DataArray:
    """Return how scores of the longest clips changed over the last tenth of training, (score)."""
    found = curve(card)
    found = found.isel(length=-1).dropna("frames", how="all")
    last = found["frames"].values[-1]
    before = found.sel(frames=0.9 * last, method="nearest")
    return (found.isel(frames=-1, drop=True) - before.drop_vars("frames")).dropna("score")


def motion_in_attention(card: Mapping[str, Any]) -> Finding:
    """Tell what the cue test found, for the cells declared before and for the one chosen."""
    test = card["cue_test"]
    # Half of the clips choose, the others report.
    clips = test["setting"]["clips"] // 2
    told = dict(read_cells(card)) | {
        "declared": strongest(test["declared"]),
        "declared later": strongest(test["declared_later"]),
    }
    cells = {f"{which}: {cell_name(each)}": each for which, each in told.items()}
    probe = max(test["probe"], key=lambda each: each["objects"][0])
    read = [(name, *each) for name in AGAINST for each in cells.items()]
    read += [(n, f"linear probe of layer {probe['layer']}", probe) for n in AGAINST if n in probe]
    table = [
        _interval(f"{which}, {AGAINST[name]}", each[name], clips, CHANCE)
        for name, which, each in read
    ]
    for which in ("declared", "declared_later"):
        number = sum(_tells(each, clips) for each in test[which])
        effect = f"cells {which.replace('_', ' ')} with both AUCs above chance"
        table.append(Row(effect, number, n=len(test[which]), reference=None))
    about = f"Against chance ({CHANCE}), the AUC of moving patches is"
    return Finding(CUE_QUESTION, table, about, lead=len(cells))


def gating_by_truth(card: Mapping[str, Any]) -> Finding:
    """Tell which errors gates change when they are given the true masks, and another clip's."""
    clips = card["gating_test"]["trained"]["setting"]["clips"]
    table = rows(gating(card), n=clips)
    about = "Against the plain run, with the masks of the truth, the error is"
    return Finding(GATING_QUESTION, table, about, lead=len(GATING_ERRORS) * len(MASKS))


def _tells(cell: Mapping[str, Any], clips: int) -> bool:
    """Whether moving is told from resting objects and from the twin, with the whole interval."""
    areas = [_interval(name, cell[name], clips, CHANCE) for name in ("objects", "twin")]
    return all(each.verdict == HIGHER for each in areas)


def _interval(effect: str, found: Sequence[float], clips: int, reference: float) -> Row:
    """Make a row of a value with its interval, as cards hold it."""
    value, lower, upper = found
    return Row(effect, value, lower, upper, n=clips, reference=reference)
