"""A picture of a training while it runs: terms of the loss and scores on held-out clips."""

import csv
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from mut3r_analysis.errors import MissingFile
from mut3r_analysis.training.validation import AXES

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_NOT_TERMS = ("step", "stage", "frames", "seconds", "rate", "norm", "loss")


def read_table(path: str | Path) -> dict[str, np.ndarray]:
    """Read a CSV table as columns; numbers where all values are."""
    path = Path(path)
    if not path.is_file():
        raise MissingFile(f"no table at {path}; a training writes it as it goes")
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    columns: dict[str, np.ndarray] = {}
    for name in rows[0] if rows else ():
        values = [row[name] for row in rows]
        try:
            columns[name] = np.array(values, dtype=float)
        except ValueError:
            columns[name] = np.array(values)
    return columns


def plot_training(log: str | Path, curve: str | Path) -> "Figure":
    """Plot a training's tables against the frames seen.

    Parameters
    ----------
    log, curve : str or Path
        ``log.csv`` and ``curve.csv`` of a training folder.

    Returns
    -------
    Figure
        Terms of the loss; errors as shares of the baseline's, by clip length (1 is the baseline);
        correlation of predicted and true motion between two frames.
    """
    from matplotlib.figure import Figure

    terms, scores = read_table(log), read_table(curve)
    figure = Figure(figsize=(13, 3.6), layout="constrained")
    losses, ratios, correlations = figure.subplots(1, 3)
    for name, values in terms.items():
        if name not in _NOT_TERMS:
            losses.plot(terms["frames"] / 1e3, values, label=name.replace("_", " "), lw=1)
    losses.set(title="terms of the loss", yscale="log")
    for length, style in zip(np.unique(scores["length"]), ("-", "--", ":", "-."), strict=False):
        chosen = scores["length"] == length
        seen = scores["frames"][chosen] / 1e3
        for index, (name, label) in enumerate(
            (
                ("rpe_rotation_ratio", "relative rotation"),
                ("rpe_translation_ratio", "relative translation"),
                ("depth_ratio", "depth"),
            )
        ):
            ratios.plot(
                seen, scores[name][chosen], style, color=f"C{index}", label=f"{label}, {length:.0f}"
            )
    ratios.axhline(1, color="0.7", lw=0.8)
    ratios.set(title="error / baseline, by frames per clip", ylim=(0, 1.2))
    shortest = scores["length"] == scores["length"].min()
    for name in AXES:
        correlations.plot(
            scores["frames"][shortest] / 1e3, scores[f"correlation_{name}"][shortest], label=name
        )
    correlations.set(title="correlation with true motion", ylim=(-0.2, 1))
    for axis in (losses, ratios, correlations):
        axis.set_xlabel("thousand frames seen")
        axis.legend(fontsize="x-small", ncols=2)
        axis.spines[["top", "right"]].set_visible(False)
    return figure
