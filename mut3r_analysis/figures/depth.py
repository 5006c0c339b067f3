"""Depth and its confidence beside the frames, and the true depth where it is known."""

from collections.abc import Collection, Mapping
from pathlib import Path

import numpy as np
import xarray as xr
from matplotlib.figure import Figure, SubFigure

from mut3r_analysis.figures.reading import (
    Runs,
    choose,
    find_variable,
    named_runs,
    of_one_sequence,
    sentence,
    source_lines,
    text_label,
)
from mut3r_analysis.figures.seen import frames_seen
from mut3r_analysis.figures.styling import CONFIDENCE_COLORS, DEPTH_COLORS, style
from mut3r_analysis.figures.tiles import Tiles, limits
from mut3r_analysis.foundation.labelling import held

_MOST_FRAMES = 6
_ADVICE = "Run again with outputs=('pose', 'depth'), or with outputs=None for all"


def depth_maps(
    run: Runs,
    sequence: xr.Dataset | str | Path,
    *,
    frames: Collection[int] | int | None = None,
    size: str = "page",
    on: SubFigure | None = None,
) -> Figure:
    """Show frames, predicted depth, true depth where the run has it, and confidence.

    Prediction and truth share one colour bar in metres, without any alignment.

    Parameters
    ----------
    run : xarray.DataTree, or mapping of str to xarray.DataTree
        Several runs of the sequence have rows each, and share their colours.
    sequence : xarray.Dataset, str or Path
        The sequence that was run.
    frames : int or collection of int, optional
        Labels; by default at most six, evenly spread.
    size : {"column", "page", "slide"}
    on : matplotlib.figure.SubFigure, optional
        Drawn into instead of a new figure.

    Returns
    -------
    matplotlib.figure.Figure

    Raises
    ------
    InvalidArgument
        When the run holds no depth.

    Examples
    --------
    >>> figure = depth_maps(run, sequence, frames=[0, 2])
    """
    named = named_runs(run)
    of_one_sequence(named)
    first = next(iter(named.values()))
    shown = choose(find_variable(first, "prediction/depth", _ADVICE), "frame", frames, _MOST_FRAMES)
    depths = _rows(named, "depth", "depth", shown)
    trusted = _rows(named, "confidence_self", "confidence", shown)
    label, label_trusted = (text_label(next(iter(rows.values()))) for rows in (depths, trusted))
    known = [truth for each in named.values() if (truth := held(each, "truth/depth")) is not None]
    if known:
        truth = known[0].sel(frame=shown)
        depths["true depth"] = truth.where(truth > 0)
    images = frames_seen(first, sequence, shown).values
    subtitle = sentence(
        "depth as predicted, no alignment to the truth" if known else "depth as predicted",
        "colour limits from the 2nd to the 98th percentile of the frames shown",
    )
    with style(size) as page:
        page = page.within(on)
        texts = ("Depth and confidence", subtitle, source_lines(named))
        columns = [f"frame {frame}" for frame in shown]
        rows = 1 + len(depths) + len(trusted)
        tiles = Tiles(page, rows, columns, images.shape[1:3], texts, on)
        tiles.show_row(0, images)
        last = 0
        for group, colors in ((depths, DEPTH_COLORS), (trusted, CONFIDENCE_COLORS)):
            begin = last + 1
            low, high = limits(np.stack([each.values for each in group.values()]))
            for last, (name, values) in enumerate(group.items(), start=begin):
                drawn = tiles.show_row(last, values.values, name, cmap=colors, vmin=low, vmax=high)
            tiles.bar(drawn, begin, last)
        tiles.label_bars(1, len(depths), label)
        tiles.label_bars(1 + len(depths), last, label_trusted)
    return tiles.root


def _rows(
    named: Mapping[str, xr.DataTree], variable: str, words: str, frames: np.ndarray
) -> dict[str, xr.DataArray]:
    """Return a prediction of each run at some frames, by what stands beside its row."""
    found = {}
    for name, run in named.items():
        values = find_variable(run, f"prediction/{variable}", _ADVICE)
        # Beside several runs there is no room for more: the colour bars say of what they are.
        found[name or words] = values.sel(frame=choose(values, "frame", frames, 1)).load()
    return found
