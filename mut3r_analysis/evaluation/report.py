"""Scores in a terminal: a table per protocol, and below it what a reader should know."""

import json
from collections.abc import Iterator, Mapping

import numpy as np
import xarray as xr
from rich.console import Console
from rich.table import Table

from mut3r_analysis.evaluation.tables import format_value
from mut3r_analysis.metrics.metric import SIGNS

_WIDE = 160
"""Columns where the output is no terminal and nobody's window is too narrow."""


def print_scores(
    scores: xr.Dataset | Mapping[str, xr.Dataset], console: Console | None = None
) -> None:
    """Print a table per protocol, then the sequences that were skipped, and why.

    Of several systems, a table has the rows of each under its name.
    """
    if console is None:
        console = Console()
        if not console.is_terminal:
            console = Console(width=_WIDE)
    # A Dataset is a mapping as well, of its variables.
    systems = {"": scores} if isinstance(scores, xr.Dataset) else dict(scores)
    protocols = {
        protocol["id"]: protocol
        for each in systems.values()
        for protocol in json.loads(each.attrs["protocols"])
    }
    for protocol in protocols.values():
        console.print(_table(systems, protocol))
    for system, each in systems.items():
        for line in _remarks(each):
            said = f"{system}: {line}" if system else line
            console.print(said, markup=False, highlight=False, soft_wrap=True)


def _remarks(scores: xr.Dataset) -> list[str]:
    lines = [
        f"skipped {name}: {why}"
        for name, why in zip(scores["sequence"].values, scores["skipped"].values, strict=True)
        if why
    ]
    for word in ("missing", "not_scored"):
        if scores.attrs[word]:
            lines.append(f"{word.replace('_', ' ')}: {scores.attrs[word]}")
    return [*lines, scores.attrs["verdict"]]


def _table(systems: Mapping[str, xr.Dataset], protocol: dict) -> Table:
    metrics = protocol["metrics"]
    scored = {
        system: scores for system, scores in systems.items() if f"mean_{metrics[0]}" in scores
    }
    named = list(systems) != [""]
    printed = Table(title=protocol["id"], title_justify="left")
    if named:
        printed.add_column("run")
    printed.add_column("sequence")
    first = next(iter(scored.values()))
    for metric in metrics:
        units = first[f"mean_{metric}"].attrs.get("units", "1")
        printed.add_column(f"{metric}\n{SIGNS.get(units, units)}".rstrip(), justify="right")
    printed.add_column("frames", justify="right")
    for system, scores in scored.items():
        printed.add_section()
        for row in _rows(scores, metrics, protocol["reduction"]):
            printed.add_row(*[system] * named, *row)
    return printed


def _rows(scores: xr.Dataset, metrics: list[str], reduction: str) -> Iterator[tuple[str, ...]]:
    """Lay out the sequences of a system, their mean and its interval."""
    for name in scores["sequence"].values:
        one = scores.sel(sequence=name)
        values = [float(one[metric]) for metric in metrics]
        frames = str(int(one["n_frames"])) if np.isfinite(values).any() else "skipped"
        yield str(name), *map(format_value, values), frames
    valid = max(scores[f"mean_{metric}"].attrs["n_valid"] for metric in metrics)
    means = [float(scores[f"mean_{metric}"]) for metric in metrics]
    yield f"mean of {valid}", *map(format_value, means), reduction
    for bound in scores["bound"].values:
        ends = [float(scores[f"interval_{metric}"].sel(bound=bound)) for metric in metrics]
        if np.isfinite(ends).any():
            yield f"  {bound}", *map(format_value, ends), ""
