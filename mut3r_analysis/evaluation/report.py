"""Scores in a terminal: a table per protocol, and below it what a reader should know."""

import json

import numpy as np
import xarray as xr
from rich.console import Console
from rich.table import Table

from mut3r_analysis.evaluation.tables import format_value
from mut3r_analysis.metrics.metric import SIGNS

_WIDE = 160
"""Columns where the output is no terminal and nobody's window is too narrow."""


def print_scores(scores: xr.Dataset, console: Console | None = None) -> None:
    """Print a table per protocol, then the sequences that were skipped, and why."""
    if console is None:
        console = Console()
        if not console.is_terminal:
            console = Console(width=_WIDE)
    for protocol in json.loads(scores.attrs["protocols"]):
        console.print(_table(scores, protocol))
    lines = [
        f"skipped {name}: {why}"
        for name, why in zip(scores["sequence"].values, scores["skipped"].values, strict=True)
        if why
    ]
    for word in ("missing", "not_scored"):
        if scores.attrs[word]:
            lines.append(f"{word.replace('_', ' ')}: {scores.attrs[word]}")
    lines.append(scores.attrs["verdict"])
    for line in lines:
        console.print(line, markup=False, highlight=False, soft_wrap=True)


def _table(scores: xr.Dataset, protocol: dict) -> Table:
    metrics = protocol["metrics"]
    printed = Table(title=protocol["id"], title_justify="left")
    printed.add_column("sequence")
    for metric in metrics:
        units = scores[f"mean_{metric}"].attrs.get("units", "1")
        printed.add_column(f"{metric}\n{SIGNS.get(units, units)}".rstrip(), justify="right")
    printed.add_column("frames", justify="right")
    for name in scores["sequence"].values:
        one = scores.sel(sequence=name)
        values = [float(one[metric]) for metric in metrics]
        frames = str(int(one["n_frames"])) if np.isfinite(values).any() else "skipped"
        printed.add_row(str(name), *map(format_value, values), frames)
    printed.add_section()
    valid = max(scores[f"mean_{metric}"].attrs["n_valid"] for metric in metrics)
    means = [float(scores[f"mean_{metric}"]) for metric in metrics]
    printed.add_row(f"mean of {valid}", *map(format_value, means), protocol["reduction"])
    for bound in scores["bound"].values:
        ends = [float(scores[f"interval_{metric}"].sel(bound=bound)) for metric in metrics]
        if np.isfinite(ends).any():
            printed.add_row(f"  {bound}", *map(format_value, ends), "")
    return printed
