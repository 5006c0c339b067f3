"""What a model card comes to, in sentences."""

from collections.abc import Mapping, Sequence
from typing import Any

import xarray as xr

from mut3r_analysis.studies.answers import Finding, finite
from mut3r_analysis.studies.model_card.tables import AGAINST, MASKS, RATIOS, curve, gating, targets
from mut3r_analysis.training.card import strongest
from mut3r_analysis.training.card_words import TARGETS_SET, cell_name

QUESTION = "What has this model learned, and what has it not?"
CUE_QUESTION = "Does its attention show motion?"
GATING_QUESTION = "Do gates help it when they are given the truth?"

_CHANCE = 0.5


def learned(card: Mapping[str, Any]) -> Finding:
    """Say which targets are reached, and where the model stands beside what knows nothing."""
    held = targets(card)
    rows = [row for row in card["targets"] if row["set"] == TARGETS_SET[0]]
    reached = [str(row["target"]) for row in rows if row["reached"]]
    missed = {str(row["target"]): row["value"] for row in rows if not row["reached"]}
    whole = int((held["reached"] & (held["lower"] >= 1)).sum())
    short, long = (card["scores"]["moving"][length]["model"] for length in ("2", "8"))
    turned, moved = (
        (_spelled(short[name]), _spelled(long[name]))
        for name in ("rpe_rotation_ratio", "rpe_translation_ratio")
    )
    unmet = "; ".join(f"{name}: {_spelled(value)}" for name, value in missed.items())
    sentences = [
        f"It reaches {len(reached)} of {len(rows)} targets that were set before training ({whole} "
        f"with the whole interval beyond the bound). It misses {unmet or 'none'}.",
        "On held-out scenes with moving objects its rotation error between frames is "
        f"{turned[0]} of a resting camera's over two frames and {turned[1]} over eight, its "
        f"translation error {moved[0]} and {moved[1]}; its depth error is "
        f"{_spelled(short['depth_ratio'])} of a constant's, and its aligned trajectory error over "
        f"eight frames {_spelled(long['ate_ratio'])} of a straight line's.",
    ]
    values: dict[str, Any] = {
        "targets": len(rows),
        "reached": reached,
        "missed": list(missed),
        **{f"{name}, 2 frames": short[name] for name in RATIOS if name != "ate_ratio"},
        **{f"{name}, 8 frames": long[name] for name in RATIOS},
    }
    if card.get("curve"):
        trend = late_change(card)
        length = int(trend["length"])
        falls = [str(name) for name in trend["score"].values[trend.values < 0]]
        sentences.append(
            f"Over the last tenth of the frames seen, scores over {length} frames changed by "
            + ", ".join(
                f"{float(trend.sel(score=name)):+.2f} ({name})" for name in trend["score"].values
            )
            + (f"; still falling: {', '.join(falls)}." if falls else "; none was still falling.")
        )
        values["late change"] = {
            str(name): finite(trend.sel(score=name)) for name in trend["score"].values
        }
    return Finding(QUESTION, " ".join(sentences), values, brief=" ".join(sentences[:2]))


def late_change(card: Mapping[str, Any]) -> xr.DataArray:
    """Return how scores of the longest clips changed over the last tenth of training, (score)."""
    found = curve(card)
    found = found.isel(length=-1).dropna("frames", how="all")
    last = found["frames"].values[-1]
    before = found.sel(frames=0.9 * last, method="nearest")
    return (found.isel(frames=-1, drop=True) - before.drop_vars("frames")).dropna("score")


def motion_in_attention(card: Mapping[str, Any]) -> Finding:
    """Say what the cue test found, for the cells declared before and for the one chosen."""
    test = card["cue_test"]
    found = {
        "declared": strongest(test["declared"]),
        "declared later": strongest(test["declared_later"]),
        "chosen": test["best"],
        "again": test["again"],
    }
    names = {which: cell_name(row) for which, row in found.items()}
    blind = test["untrained"]["best"]
    parts = [
        f"The strongest of {len(test['declared'])} cells declared beforehand "
        f"({names['declared']}) tells moving from resting objects with AUC "
        f"{_told(found['declared'])}. {_above_chance(test['declared'])}",
        f"The strongest of {len(test['declared_later'])} cells declared from readings of earlier "
        f"weights ({names['declared later']}) does so, on scenes that had no part in declaring "
        f"them, with {_told(found['declared later'])}. {_above_chance(test['declared_later'])}",
        f"The cell that half of the clips chose ({names['chosen']}) does so on the other half with "
        f"{_told(found['chosen'])}.",
        "On as many scenes that had no part in the choice it has "
        f"{_told(found['again'])}; "
        + ("the choice holds." if _tells(found["again"]) else "the choice does not hold."),
        f"The same choice in the untrained model gives {_spelled(blind['objects'])} and "
        f"{_spelled(blind['twin'])} (twin).",
        _about_probe(test["probe"]),
        "Nuisances are flow size, visibility, contrast, depth and place.",
    ]
    values = {f"{which} {name}": row[name] for which, row in found.items() for name in AGAINST}
    return Finding(CUE_QUESTION, " ".join(parts), values)


def gating_by_truth(card: Mapping[str, Any]) -> Finding:
    """Say which errors gates change when they are given the true masks, and another clip's."""
    changed = gating(card)
    parts, values = [], {}
    for gate in changed["gate"].values.tolist():
        said = {}
        for mask in MASKS.values():
            cells = changed.sel(gate=gate, mask=mask)
            lowered, raised = (
                cells["error"].values[moved.values].tolist()
                for moved in (cells["upper"] < 0, cells["lower"] > 0)
            )
            names = [", ".join(moved) or "none" for moved in (lowered, raised)]
            if len(raised) == cells.sizes["error"]:
                names[1] = "all"
            said[mask] = f"lower {names[0]} and raise {names[1]}"
            values[f"{gate}, {mask}"] = {"lowered": lowered, "raised": raised}
        parts.append(f"{gate}: " + "; ".join(f"{mask} {text}" for mask, text in said.items()) + ".")
    answer = (
        f"Of {changed.sizes['error']} errors, those whose change has an interval that leaves out "
        f"zero. {' '.join(parts)}"
    )
    return Finding(GATING_QUESTION, answer, values)


def _tells(row: Mapping[str, Any]) -> bool:
    """Whether moving is told from resting objects and from the twin, with the whole interval."""
    return all(row[name][1] > _CHANCE for name in ("objects", "twin"))


def _told(row: Mapping[str, Any]) -> str:
    """Write the three areas that count, and what they allow to say."""
    areas = (
        f"{_spelled(row['objects'])} ({_spelled(row['objects_without_nuisances'])} with nuisances "
        f"regressed out) and from its frozen twin with {_spelled(row['twin'])}"
    )
    if not _tells(row):
        return f"{areas}: not both are above chance"
    if row["objects_without_nuisances"][1] <= _CHANCE:
        return f"{areas}: above chance, but not beyond the nuisances"
    return f"{areas}: above chance, also beyond the nuisances"


def _above_chance(rows: Sequence[Mapping[str, Any]]) -> str:
    told = sum(map(_tells, rows))
    return f"{told} of these {len(rows)} tell both apart above chance."


def _about_probe(rows: Sequence[Mapping[str, Any]]) -> str:
    """Set a linear probe beside the cells, with what it finds where nothing moves."""
    best = max(rows, key=lambda row: row["objects"][0])
    low, high = best["at_rest"][1:]
    confounded = (
        "away from 0.5, so it is confounded" if not low <= _CHANCE <= high else "not told from 0.5"
    )
    return (
        f"For comparison, a linear probe on the tokens of decoder layer {best['layer']}, the best, "
        f"reaches {_spelled(best['objects'])} and {_spelled(best['twin'])} (twin); on the same "
        f"patches at rest it has {_spelled(best['at_rest'])}, {confounded}."
    )


def _spelled(value: list[float]) -> str:
    return f"{value[0]:.2f} [{value[1]:.2f}, {value[2]:.2f}]"
