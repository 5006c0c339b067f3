"""The motion test in words, from its numbers and nothing else."""

from typing import Any

from mut3r_analysis.training.motion_trial import METRICS, SIDES, words

_SIDES = {"moving": "moving", "twin": "frozen twin"}


def motion_text(test: dict[str, Any]) -> str:
    """Return the Markdown section of a motion test: what motion costs, and what gates change."""
    own, reference = test["names"]
    clips, frames = test["clips"], test["frames"]
    parts = [
        "## Motion test\n\nDeclared before training, with its bounds; the conditions are the "
        "targets. Errors are means over clips, in brackets 95 % bootstrap intervals over clips, "
        "drawn together for both sides of a comparison. A clip's frozen twin is the same scene "
        "with every object at rest where the last frame has it.",
        f"At rest, errors of {own} over those of {reference}, {clips['rest']} clips:\n\n"
        + _rest(test["rest"]),
        f"What motion costs: change of the error from the frozen twin to the moving clip in "
        f"percent, {clips['moving']} clips of {frames} frames.\n\n" + _gaps(test),
        "What gates change, in percent of the error without a gate (negative is better), with the "
        "AUC of the scores: moving patches against all others, and against those of resting "
        "objects. Scores of masks and cues are z-scored over a frame's patches and go through a "
        "sigmoid; *as it is* is the share of moving pixels itself. On a twin the true mask is that "
        "of its moving clip, which is wrong there.",
    ]
    for which, name in (("model", own), ("reference", reference)):
        for kind, found in test["models"][which].items():
            for side in SIDES:
                parts.append(f"### {name}, {kind}, {_SIDES[side]}\n\n" + _gates(found, side))
    return "\n\n".join(parts)


def conditions_text(test: dict[str, Any]) -> str:
    """Return the Markdown table of the conditions of a motion test."""
    rows = [
        [row["target"], _triple(row["value"], 3), "reached" if row["reached"] else "**missed**"]
        for row in test["conditions"]
    ]
    return table(["condition", "value", ""], rows)


def _rest(rest: dict[str, Any]) -> str:
    rows = [
        [f"T = {length}", *(_triple(found.get(name), 3) for name in METRICS)]
        for length, found in rest.items()
    ]
    return table(["", *map(words, METRICS)], rows)


def _gaps(test: dict[str, Any]) -> str:
    rows = [
        [
            name,
            kind,
            f"{found['moving_share']:.2f}",
            *(_triple(found["gap"][metric]) for metric in METRICS),
        ]
        for which, name in zip(("model", "reference"), test["names"], strict=True)
        for kind, found in test["models"][which].items()
    ]
    return table(["model", "scenes", "moving pixels", *map(words, METRICS)], rows)


def _gates(found: dict[str, Any], side: str) -> str:
    rows = [
        [
            label,
            *(_triple(each, 2) for each in row["auc"].values() if side == "moving"),
            *(_triple(row[side][metric]) for metric in METRICS),
        ]
        for label, row in found["gates"].items()
    ]
    areas = ["AUC, all", "AUC, objects"] if side == "moving" else []
    return table(["scores", *areas, *map(words, METRICS)], rows)


def _triple(value: list[float] | None, digits: int = 1) -> str:
    if value is None:
        return "—"
    middle, low, high = (f"{each:.{digits}f}" for each in value)
    return f"{middle} [{low}, {high}]"


def table(heads: list[str], rows: list[list[str]]) -> str:
    """Lay out a Markdown table."""
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)
