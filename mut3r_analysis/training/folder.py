"""What a training leaves behind: its state to resume from, its logs, and their picture."""

import csv
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
import torch

from mut3r_analysis.errors import InvalidArgument, MissingFile, UnreadableFile
from mut3r_analysis.training.validation import AXES

STATE = "state.pt"
LOG = "log.csv"
CURVE = "curve.csv"
PLOT = "curve.png"


def save_state(folder: Path, state: Mapping[str, Any]) -> None:
    """Write the state so that at every moment, also of a crash, one whole file is there."""
    partial = folder / f".{STATE}.partial"
    with partial.open("wb") as file:
        torch.save(dict(state), file)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(folder / STATE)


def load_state(folder: Path, identity: str) -> dict[str, Any] | None:
    """Return the state to resume from, or None where there is none.

    Raises
    ------
    InvalidArgument
        When the folder holds the training of another recipe.
    UnreadableFile
        When the file is damaged.
    """
    path = folder / STATE
    if not path.is_file():
        return None
    try:
        # Optimisers and models move what they load to where they are.
        state = torch.load(path, weights_only=True, map_location="cpu")
        recipe = state["recipe"]
    except Exception as error:
        raise UnreadableFile(
            f"{path} is not the state of a training: {error}. Restore it, or delete it to begin "
            "again"
        ) from error
    if recipe != identity:
        raise InvalidArgument(
            f"{folder} holds the training of another recipe (or of this one before it was "
            f"changed); give another folder, or delete this one to begin again"
        )
    return state


def trim_table(path: Path, step: int) -> None:
    """Drop the rows of a table that were written after `step`, as a killed run may leave them."""
    if not path.is_file():
        return
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
        names = list(rows[0]) if rows else []
    # a row that a crash cut short lacks its last values
    kept = [row for row in rows if None not in row.values() and int(row["step"]) <= step]
    if kept:
        _write(path, names, kept)
    else:
        path.unlink()


def append_rows(path: Path, new: Iterable[Mapping[str, Any]]) -> None:
    """Append rows to a table, beginning it where there is none; new columns go to the end."""
    rows = [_rounded(row) for row in new]
    old: list[dict[str, Any]] = []
    names: list[str] = []
    if path.is_file():
        with path.open(newline="") as file:
            reader = csv.DictReader(file)
            names = list(reader.fieldnames or ())
            old = list(reader)
    wider = [name for name in rows[0] if name not in names]
    if wider:
        _write(path, [*names, *wider], [*old, *rows])
        return
    with path.open("a", newline="") as file:
        csv.DictWriter(file, names, restval="", lineterminator="\n").writerows(rows)


def _write(path: Path, names: list[str], rows: list[dict[str, Any]]) -> None:
    partial = path.with_name(f".{path.name}.partial")
    with partial.open("w", newline="") as file:
        writer = csv.DictWriter(file, names, restval="", lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    partial.replace(path)


def _rounded(row: Mapping[str, Any]) -> dict[str, Any]:
    return {
        name: f"{value:.6g}" if isinstance(value, float) else value for name, value in row.items()
    }


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
    return pd.read_csv(path)


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
