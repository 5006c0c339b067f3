"""A model card in words, from its JSON and nothing else."""

from typing import Any

from mut3r_analysis.training.motion_words import motion_text, table
from mut3r_analysis.training.validation import AXES, SHORTEST_PATH

_RELATIVE = {"rpe_rotation": "RPE rotation", "rpe_translation": "RPE translation"}
# what of the curve is shown for the shortest and for the longest clips, with its heading
_CURVE_SHORT = {**_RELATIVE, "depth": "depth"}
_CURVE_LONG = {**_RELATIVE, "ate": "ATE"}

_BOUND = ("bound", "passes", "fails")
_TARGETS = {
    "before training": (
        "Set before training; {} reached. Held-out scenes, moving objects among them; 95 % "
        "bootstrap intervals over clips in brackets.",
        ("target", "reached", "**missed**"),
    ),
    "from earlier weights": (
        "Set from readings of earlier weights of this model, before any later weights or these "
        "scenes had been read: other attention cells, put to the same bounds. {} pass.",
        _BOUND,
    ),
    "afterwards": (
        "Not set before: the attention cell that one half of the clips chose, measured on the "
        "other half and put to the same bounds afterwards. {} pass.",
        _BOUND,
    ),
    "for the start": (
        "Not set for this model: the bounds that the model it started from was held against, on "
        "scenes of the same kind, with attention cells that were named for that one; the last "
        "cell is the one that half of these clips chose. {} pass.",
        _BOUND,
    ),
}
TARGETS_SET = tuple(_TARGETS)
"""When what a target measures was named, or for whom; only what was named first is a target."""


def card_text(card: dict[str, Any]) -> str:
    """Return the Markdown of a card made by :func:`~mut3r_analysis.training.card.make_card`."""
    sections = [
        _head(card),
        _targets(card),
        _training(card),
        _scores(card),
        _curve(card),
        motion_text(card["motion_test"]) if "motion_test" in card else "",
        _cues(card),
        _gating(card),
        _limits(card),
    ]
    return "\n\n".join(section for section in sections if section) + "\n"


def _head(card: dict[str, Any]) -> str:
    file, config, cost = card["file"], card["config"], card["cost"]
    width, height = card["evaluation"]["size"]
    patch = config["patch_size"]
    return f"""# Model card: {card["name"]}

<!-- Generated from {card["name"]}.json. Do not edit: change the measurement instead. -->

A small CUT3R trained {_beginning(card)} on procedural scenes, to make attention, cues and gates
observable in seconds on a laptop. It is a true CUT3R (pose memory, modulated world branch, learned
pose token; the code of the full size), and nothing more than a specimen: it reconstructs nothing
outside the kind of scene it was trained on.

- {file["parameters"]:,} parameters, {file["bytes"] / 1e6:.1f} MB, sha256 `{file["sha256"]}`
- frames of {width} x {height} px in patches of {patch} px: {height // patch} rows of \
{width // patch} patches; {config["state_size"]} state tokens, {config["local_mem_size"]} memory \
slots
- encoder {config["enc_depth"]} layers of width {config["enc_embed_dim"]}; decoders \
{config["dec_depth"]} layers of width {config["dec_embed_dim"]}, {config["dec_num_heads"]} heads
- loads in {cost["load_seconds"]:.2f} s; {cost["frames_per_second"]:.0f} frames/s one at a time \
on {cost["threads"]} CPU thread(s)"""


def _beginning(card: dict[str, Any]) -> str:
    start = card["training"]["recipe"].get("start")
    return f"onward from `{start['checkpoint']}`" if start else "from scratch"


def _targets(card: dict[str, Any]) -> str:
    parts = ["## Targets"]
    for when, (said, (head, met, unmet)) in _TARGETS.items():
        held = [each for each in card["targets"] if each["set"] == when]
        if not held:
            continue
        reached = sum(each["reached"] for each in held)
        rows = [
            [each["target"], _interval(each["value"]), met if each["reached"] else unmet]
            for each in held
        ]
        parts += [said.format(f"{reached} of {len(held)}"), table([head, "value", ""], rows)]
    return "\n\n".join(parts)


def _training(card: dict[str, Any]) -> str:
    training = card["training"]
    rows = [
        [
            each["name"],
            f"{each['size'][0]} x {each['size'][1]}",
            ", ".join(map(str, each["frames_per_clip"])),
            _movers(each["scenes"]),
            f"{each['steps']:,}",
            f"{each['frames']:,}",
        ]
        for each in training["stages"]
    ]
    return (
        f"## Training\n\n{training['steps']:,} steps, {training['frames']:,} frames, "
        f"{training['seconds'] / 60:.0f} minutes; recipe sha256 `{training['recipe_sha256']}`. "
        f"Everything else is in the recipe file.\n\n"
        + table(["stage", "px", "frames/clip", "scenes", "steps", "frames"], rows)
    )


def _movers(scenes: list[dict[str, Any]]) -> str:
    words = []
    for each in scenes:
        low, high = each["movers"]
        movers = "at rest" if high == 0 else f"{low}-{high} movers"
        words.append(f"{movers}, {'no fog' if each['fog'] is None else 'fog'}")
    return "; ".join(words)


def _scores(card: dict[str, Any]) -> str:
    parts = [
        f"## Held-out scores\n\n{card['evaluation']['clips']} clips per cell. Relative pose errors "
        "(RPE) are between consecutive frames, without alignment; the trajectory error (ATE) is "
        "after a Sim(3) alignment, which flatters, and stands beside a straight line's; depth is "
        "the absolute relative error after one median scale per frame, beside a constant's; "
        "points are distances over the mean distance of the scene. *untrained* is the same kind of "
        "model before any training."
    ]
    lines = (
        ("rpe_rotation", "RPE rotation (deg)"),
        ("rpe_rotation_constant", "— constant pose"),
        ("rpe_rotation_ratio", "— ratio"),
        ("rpe_translation", "RPE translation (m)"),
        ("rpe_translation_constant", "— constant pose"),
        ("rpe_translation_ratio", "— ratio"),
        ("ate", "ATE (m)"),
        ("ate_straight", "— straight line"),
        ("ate_ratio", "— ratio"),
        ("depth", "depth error"),
        ("depth_constant", "— constant depth"),
        ("depth_ratio", "— ratio"),
        ("points_self", "points, own camera"),
        ("points_world", "points, world"),
        *((f"correlation_{axis}", f"correlation, {axis}") for axis in AXES),
    )
    for kind, lengths in card["scores"].items():
        rows = [
            [label, *(_score(lengths[length], name, int(length)) for length in lengths)]
            for name, label in lines
        ]
        heads = ["", *(f"T = {length}" for length in lengths)]
        parts.append(f"### Scenes: {kind}\n\n{table(heads, rows)}")
    return "\n\n".join(parts)


def _score(cell: dict[str, Any], name: str, length: int) -> str:
    if name.startswith("ate") and length < SHORTEST_PATH:
        return "—"
    words = _interval(cell["model"][name])
    if name.endswith(("_constant", "_straight", "_ratio")) or name.startswith("correlation"):
        return words
    return f"{words}; untrained {_number(cell['untrained'][name][0])}"


def _curve(card: dict[str, Any]) -> str:
    curve = card.get("curve")
    if not curve:
        return ""
    lengths = sorted({each["length"] for each in curve})
    short, long = (
        {each["step"]: each for each in curve if each["length"] == length}
        for length in (lengths[0], lengths[-1])
    )
    steps = list(short)
    chosen = steps[:: max(1, len(steps) // 12)]
    if steps[-1] not in chosen:
        chosen.append(steps[-1])
    rows = [
        [
            f"{short[step]['frames'] / 1e3:.0f}",
            *(f"{short[step][f'{name}_ratio']:.2f}" for name in _CURVE_SHORT),
            *(f"{short[step][f'correlation_{axis}']:.2f}" for axis in AXES),
            *(f"{long[step][f'{name}_ratio']:.2f}" for name in _CURVE_LONG),
        ]
        for step in chosen
    ]
    at = [f"T = {length:.0f}" for length in (lengths[0], lengths[-1])]
    heads = [
        "thousand frames",
        *(f"{head}, {at[0]}" for head in _CURVE_SHORT.values()),
        *(f"{axis}, {at[0]}" for axis in AXES),
        *(f"{head}, {at[1]}" for head in _CURVE_LONG.values()),
    ]
    return (
        f"## Curve\n\nScores of the averaged weights during training: errors as shares of the "
        f"baselines', and correlations; the whole curve is `{card['name']}_curve.csv` beside the "
        f"recipe. Early rows are of the coarse stages.\n\n{table(heads, rows)}"
    )


def _cues(card: dict[str, Any]) -> str:
    test = card.get("cue_test")
    if not test:
        return ""
    setting = test["setting"]
    parts = [
        f"""## Cue test

{setting["clips"]} clips of {setting["frames"]} frames, {setting["moving_patches"]:,} moving and \
{setting["resting_patches"]:,} resting object patches in the last frame. Columns are AUCs \
of moving patches: against *all* others; against resting *objects*; the same with the mean of each \
*place* taken out; with *nuisances* (flow size, visibility, contrast, depth, place) regressed out; \
the same labels in the twin in which nothing moves (*at rest*, 0.5 means no confound); against the \
same patches of that *twin*; and the paired *change* against the twin in standard deviations. \
Choices are made on half of the clips, numbers are of the other half.""",
        "Declared beforehand, no choice involved:\n\n" + _cuetable(test["declared"]),
        "Declared from readings of earlier weights, before any later weights or these scenes had "
        "been read:\n\n" + _cuetable(test["declared_later"]),
        "Best of all cells that see history (chosen on the other half):\n\n"
        + _cuetable([test["best"]]),
        "The same cell on as many scenes that had no part in its choice:\n\n"
        + _cuetable([test["again"]]),
        "The same choice in the untrained model:\n\n" + _cuetable([test["untrained"]["best"]]),
        "Best layer and head of each statistic. The encoder sees one frame only and is a "
        "control:\n\n" + _cuetable(test["by_statistic"]),
        "Controls that need no model:\n\n"
        + table(
            ["", "all", "objects"],
            [
                [name, _interval(each["all"]), _interval(each["objects"])]
                for name, each in test["controls"].items()
            ],
        ),
        "For comparison, a linear probe on the tokens after each decoder layer:\n\n"
        + table(
            ["layer", "objects", "at rest", "twin", "change"],
            [
                [
                    str(each["layer"]),
                    *(_interval(each[key]) for key in ("objects", "at_rest", "twin")),
                    _interval(each["twin_change"]),
                ]
                for each in test["probe"]
            ],
        ),
    ]
    return "\n\n".join(parts)


def _cuetable(rows: list[dict[str, Any]]) -> str:
    keys = (
        "all",
        "objects",
        "objects_without_place",
        "objects_without_nuisances",
        "at_rest",
        "twin",
        "twin_change",
    )
    heads = ["cell", "all", "objects", "place", "nuisances", "at rest", "twin", "change"]
    return table(
        heads,
        [
            [
                cell_name(each),
                *(_interval(each[key]) for key in keys),
            ]
            for each in rows
        ],
    )


def cell_name(row: dict[str, Any]) -> str:
    """Name an attention cell: where its statistic is read, and with which sign."""
    sign = "+" if row["sign"] > 0 else "−"
    return f"{sign} {row['kind']} {row['statistic']} {row['layer']}/{row['head']}"


def _gating(card: dict[str, Any]) -> str:
    both = card.get("gating_test")
    if not both:
        return ""
    setting = both["trained"]["setting"]
    rows = []
    for which, test in both.items():
        for label, metrics in test["gates"].items():
            for name, each in metrics.items():
                rows.append(
                    [
                        which,
                        label,
                        name.replace("_", " "),
                        *(_interval(each[key]) for key in ("oracle", "shuffled", "difference")),
                    ]
                )
    return (
        f"## Gating test\n\nThe true share of moving pixels as motion score, beta 1, "
        f"{setting['clips']} clips of {setting['frames']} frames: change of the error against no "
        f"gate in percent (negative is better), with the clips' own masks (*oracle*), with another "
        f"clip's (*shuffled*), and oracle minus shuffled.\n\n"
        + table(["model", "gate", "error", "oracle", "shuffled", "difference"], rows)
    )


def _limits(card: dict[str, Any]) -> str:
    lines = [
        "It has seen rooms with up to four textured boxes and spheres, at one field of view, and "
        "knows no other world. Do not run it on photographs.",
        "Its numbers say nothing about the size of an effect in the released models; it is there "
        "to show where to look and to test code.",
        *card["notes"],
    ]
    return "## What it cannot do, and what was tried\n\n" + "\n".join(f"- {line}" for line in lines)


def _interval(value: list[float]) -> str:
    return f"{_number(value[0])} [{_number(value[1])}, {_number(value[2])}]"


def _number(value: float) -> str:
    return f"{value:.3f}" if abs(value) < 10 else f"{value:.1f}"
