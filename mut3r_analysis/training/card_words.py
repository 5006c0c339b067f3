"""A model card in words, from its JSON and nothing else."""

from collections.abc import Mapping
from typing import Any

from jinja2 import Environment, FileSystemLoader

from mut3r_analysis.foundation.bundled import data_path
from mut3r_analysis.training.declared import METRICS
from mut3r_analysis.training.validation import SHORTEST_PATH

TARGETS_SET = ("before training", "from earlier weights", "afterwards", "for the start")
"""When what a target measures was named, or for whom; only what was named first is a target."""

_UNITS = {
    f"{name}{ending}": f" ({unit})"
    for name, baseline, unit in (
        ("rpe_rotation", "_constant", "deg"),
        ("rpe_translation", "_constant", "m"),
        ("ate", "_straight", "m"),
    )
    for ending in ("", baseline)
}
_CURVE_ROWS = 12


def card_text(card: dict[str, Any]) -> str:
    """Return the Markdown of a card made by :func:`~mut3r_analysis.training.card.make_card`.

    Its words stand in ``data/training/card.md.jinja``.
    """
    words = {"curve_rows": _curve_rows(card), "units": _UNITS, "shortest_path": SHORTEST_PATH}
    texts = {"motion_text": motion_text, "reconstruction_text": reconstruction_text}
    return _rendered("card.md.jinja", card, **texts, **words)


def motion_text(test: dict[str, Any]) -> str:
    """Return the Markdown section of a motion test: what motion costs, and what gates change."""
    return _rendered("motion.md.jinja", test, metrics=METRICS, zip=zip)


def reconstruction_text(test: dict[str, Any]) -> str:
    """Return the Markdown section of a reconstruction test: errors beside those of others."""
    return _rendered("reconstruction.md.jinja", test, metrics=METRICS)


def conditions_text(test: dict[str, Any]) -> str:
    """Return the Markdown table of the conditions of a declared test."""
    return _rendered("conditions.md.jinja", test)


def _rendered(name: str, values: dict[str, Any], **words: Any) -> str:
    environment = Environment(
        loader=FileSystemLoader(data_path("training", name).parent),
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {"interval": _interval, "number": _number, "cell_name": cell_name}
    return environment.get_template(name).render(values, **words)


def cell_name(row: Mapping[str, Any]) -> str:
    """Name an attention cell: where its statistic is read, and with which sign."""
    sign = "+" if row["sign"] > 0 else "−"
    return f"{sign} {row['kind']} {row['statistic']} {row['layer']}/{row['head']}"


def _curve_rows(card: dict[str, Any]) -> list[dict[str, Any]]:
    """Rows of the curve that are shown: evenly spread, of the shortest and the longest clips."""
    curve = card.get("curve", [])
    lengths = sorted({each["length"] for each in curve})
    rows = []
    for length in dict.fromkeys(lengths[:1] + lengths[-1:]):
        of_length = [each for each in curve if each["length"] == length]
        chosen = of_length[:: max(1, len(of_length) // _CURVE_ROWS)]
        rows += chosen if of_length[-1] in chosen else [*chosen, of_length[-1]]
    return rows


def _interval(value: list[float]) -> str:
    return "{} [{}, {}]".format(*map(_number, value))


def _number(value: float) -> str:
    return f"{value:.3f}" if abs(value) < 10 else f"{value:.1f}"
