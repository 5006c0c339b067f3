"""A model card in words, from its JSON and nothing else."""

from typing import Any

from mut3r_analysis.training.motion_words import motion_text, table
from mut3r_analysis.training.validation import SHORTEST_PATH

TARGETS_SET = ("before training", "from earlier weights", "afterwards", "for the start")
"""When what a target measures was named, or for whom; only what was named first is a target."""

_NO_TARGETS = {
    "from earlier weights": "Attention cells named later, from readings of earlier weights or "
    "after measuring, are put to the same bounds and are no target.",
    "for the start": "Bounds named *for the start* were set for the model that this one started "
    "from, on scenes of the same kind and for attention cells named for that model; the last cell "
    "is the one that half of these clips chose. They are no target.",
}
"""What is held against bounds without being a target, in words."""

_UNITS = {
    "rpe_rotation": " (deg)",
    "rpe_rotation_constant": " (deg)",
    "rpe_translation": " (m)",
    "rpe_translation_constant": " (m)",
    "ate": " (m)",
    "ate_straight": " (m)",
}
_AUCS = {
    "all": "all",
    "objects": "objects",
    "objects_without_place": "place",
    "objects_without_nuisances": "nuisances",
    "at_rest": "at rest",
    "twin": "twin",
    "twin_change": "change",
}


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
    return f"from `{start['checkpoint']}` on" if start else "from scratch"


def _targets(card: dict[str, Any]) -> str:
    rows = [
        [
            each["target"],
            _interval(each["value"]),
            each["set"],
            "yes" if each["reached"] else "**no**",
        ]
        for each in card["targets"]
    ]
    sets = {each["set"] for each in card["targets"]}
    held = [each["reached"] for each in card["targets"] if each["set"] == TARGETS_SET[0]]
    said = [f"{sum(held)} of {len(held)} targets set before training are reached."]
    said += [text for name, text in _NO_TARGETS.items() if name in sets]
    said.append(
        "Unseen scenes, with moving objects unless said; 95 % bootstrap intervals over clips in "
        "brackets."
    )
    heads = ["target", "value", "named", "reached"]
    return f"## Targets\n\n{' '.join(said)}\n\n{table(heads, rows)}"


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
    for kind, lengths in card["scores"].items():
        names = next(iter(lengths.values()))["model"]
        rows = [
            [
                f"{name.replace('_', ' ')}{_UNITS.get(name, '')}",
                *(_score(lengths[length], name, int(length)) for length in lengths),
            ]
            for name in names
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
    names = [name for name in curve[0] if name not in ("step", "frames", "length")]
    lengths = sorted({each["length"] for each in curve})
    rows = []
    for length in (lengths[0], lengths[-1]):
        of_length = [each for each in curve if each["length"] == length]
        chosen = of_length[:: max(1, len(of_length) // 12)]
        if of_length[-1] not in chosen:
            chosen.append(of_length[-1])
        rows += [
            [f"{length:.0f}", f"{each['frames'] / 1e3:.0f}", *(f"{each[n]:.2f}" for n in names)]
            for each in chosen
        ]
    heads = ["T", "thousand frames", *(name.replace("_", " ") for name in names)]
    return (
        "## Curve\n\nScores of the averaged weights during training, for the shortest and the "
        "longest clips: errors as shares of the baselines', and correlations; the whole curve is "
        f"`{card['name']}_curve.csv` beside the recipe.\n\n{table(heads, rows)}"
    )


def _cues(card: dict[str, Any]) -> str:
    test = card.get("cue_test")
    if not test:
        return ""
    setting = test["setting"]
    cells = {
        **{f"declared {place}": row for place, row in enumerate(test["declared"], 1)},
        **{f"declared later {place}": row for place, row in enumerate(test["declared_later"], 1)},
        "best of all": test["best"],
        "the same, other scenes": test["again"],
        "best of all, untrained": test["untrained"]["best"],
        **{f"best of its statistic {n}": row for n, row in enumerate(test["by_statistic"], 1)},
    }
    rows = [
        [which, cell_name(row), *(_interval(row[name]) for name in _AUCS)]
        for which, row in cells.items()
    ]
    rows += [
        ["control without a model", name, *(_interval(each[key]) for key in ("all", "objects"))]
        + [""] * (len(_AUCS) - 2)
        for name, each in test["controls"].items()
    ]
    for row in test["probe"]:
        areas = [_interval(row[name]) if name in row else "" for name in _AUCS]
        rows.append(["linear probe", f"layer {row['layer']}", *areas])
    text = f"""## Cue test

{setting["clips"]} clips of {setting["frames"]} frames, {setting["moving_patches"]:,} moving and \
{setting["resting_patches"]:,} resting object patches in the last frame. AUCs of moving patches \
against *all* others; against resting *objects*; the same with the mean of each *place* taken \
out; with *nuisances* (flow size, visibility, contrast, depth, place) regressed out; the same \
labels in the twin in which nothing moves (*at rest*: 0.5 means no confound); against the same \
patches of that *twin*; and the paired *change* against the twin in standard deviations. Choices \
are made on half of the clips, numbers are of the other half; cells declared later are from \
readings of earlier weights. The encoder sees one frame only and is a control."""
    return f"{text}\n\n{table(['', 'cell', *_AUCS.values()], rows)}"


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
