"""What a model card comes to, in sentences."""

from collections.abc import Mapping
from typing import Any

import xarray as xr

from mut3r_analysis.studies.finding import Finding, finite
from mut3r_analysis.studies.model_card.tables import AGAINST, RATIOS, curve, targets
from mut3r_analysis.training.card import strongest
from mut3r_analysis.training.card_words import TARGETS_SET, cell_name

QUESTION = "What has this model learned, and what has it not?"
CUE_QUESTION = "Does its attention show motion?"

_CHANCE = 0.5


def learned(card: Mapping[str, Any]) -> Finding:
    """Say which targets are reached, and where the model stands beside what knows nothing."""
    held = targets(card)
    declared = held.isel(target=held["set"].values == TARGETS_SET[0])
    reached = [str(name) for name in declared["target"].values[declared["reached"].values]]
    short, long = (card["scores"]["moving"][length]["model"] for length in ("2", "8"))
    turned, moved = (
        (_spelled(short[name]), _spelled(long[name]))
        for name in ("rpe_rotation_ratio", "rpe_translation_ratio")
    )
    sentences = [
        f"Of {declared.sizes['target']} targets that were set before training it reaches "
        + (f"{len(reached)}: {'; '.join(reached)}." if reached else "none."),
        "On held-out scenes with moving objects its rotation error between frames is "
        f"{turned[0]} of a resting camera's over two frames and {turned[1]} over eight, its "
        f"translation error {moved[0]} and {moved[1]}; its depth error is "
        f"{_spelled(short['depth_ratio'])} of a constant's, and its aligned trajectory error over "
        f"eight frames {_spelled(long['ate_ratio'])} of a straight line's.",
    ]
    values: dict[str, Any] = {
        "targets": declared.sizes["target"],
        "reached": reached,
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
    told = {
        which: all(row[name][1] > _CHANCE for name in ("objects", "twin"))
        for which, row in found.items()
    }
    areas = {which: {name: _spelled(row[name]) for name in AGAINST} for which, row in found.items()}
    names = {which: cell_name(row) for which, row in found.items()}
    before, later, after, again = areas.values()
    blind = test["untrained"]["best"]
    above, not_above = "both are above chance.", "not both are above chance."
    parts = [
        f"The strongest of {len(test['declared'])} cells declared beforehand "
        f"({names['declared']}) tells moving from resting objects with AUC {before['objects']} "
        f"and from its frozen twin with {before['twin']}: "
        + (above if told["declared"] else not_above),
        f"The strongest of {len(test['declared_later'])} cells declared from readings of earlier "
        f"weights ({names['declared later']}) does so, on scenes that no reading had seen, with "
        f"{later['objects']} and {later['twin']}: "
        + (above if told["declared later"] else not_above),
        f"The cell that half of the clips chose ({names['chosen']}) does so on the other half "
        f"with {after['objects']} and {after['twin']}, and with "
        f"{after['objects_without_nuisances']} once flow size, visibility, contrast, depth and "
        "place are regressed out: "
        + ("it tells motion." if told["chosen"] else "not told from chance."),
        "On as many scenes that had no part in the choice it has "
        f"{again['objects']} and {again['twin']}: "
        + ("the choice holds." if told["again"] else "the choice does not hold."),
        f"The same choice in the untrained model gives {_spelled(blind['objects'])} and "
        f"{_spelled(blind['twin'])}.",
    ]
    values = {f"{which} {name}": row[name] for which, row in found.items() for name in AGAINST}
    return Finding(CUE_QUESTION, " ".join(parts), values)


def _spelled(value: list[float]) -> str:
    return f"{value[0]:.2f} [{value[1]:.2f}, {value[2]:.2f}]"
