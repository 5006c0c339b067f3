"""A picture of a training while it runs: terms of the loss and scores on held-out clips."""

from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from mut3r_analysis.errors import MissingFile
from mut3r_analysis.training.validation import AXES

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_NOT_TERMS = ("step", "stage", "frames", "seconds", "rate", "norm", "loss")


def read_table(path: str | Path) -> pd.DataFrame:
    """Read a table that a training writes.

    Raises
    ------
    MissingFile
        When there is none.
    """
    if not Path(path).is_file():
        raise MissingFile(f"no table at {path}; a training writes it as it goes")
    return pd.read_csv(path, float_precision="round_trip")


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
    lengths = dict(tuple(scores.groupby("length")))
    for (length, rows), style in zip(lengths.items(), ("-", "--", ":", "-."), strict=False):
        for index, name in enumerate(("rpe_rotation", "rpe_translation", "depth")):
            label = f"{name.replace('rpe_', 'relative ')}, {length:.0f}"
            values = rows[f"{name}_ratio"]
            ratios.plot(rows["frames"] / 1e3, values, style, color=f"C{index}", label=label)
    ratios.axhline(1, color="0.7", lw=0.8)
    ratios.set(title="error / baseline, by frames per clip", ylim=(0, 1.2))
    shortest = lengths[min(lengths)]
    for name in AXES:
        correlations.plot(shortest["frames"] / 1e3, shortest[f"correlation_{name}"], label=name)
    correlations.set(title="correlation with true motion", ylim=(-0.2, 1))
    for axis in (losses, ratios, correlations):
        axis.set_xlabel("thousand frames seen")
        axis.legend(fontsize="x-small", ncols=2)
        axis.spines[["top", "right"]].set_visible(False)
    return figure
