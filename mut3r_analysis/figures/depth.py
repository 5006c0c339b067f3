"""Depth and its confidence beside the frames, and the true depth where it is known."""

from collections.abc import Collection
from pathlib import Path

import xarray as xr

from mut3r_analysis.figures.page import Page
from mut3r_analysis.figures.reading import choose, find_variable, sentence, source_line, text_label
from mut3r_analysis.figures.seen import frames_seen
from mut3r_analysis.figures.styling import CONFIDENCE_COLORS, DEPTH_COLORS, style
from mut3r_analysis.figures.tiles import Tiles, limits
from mut3r_analysis.foundation.labelling import held

_MOST_FRAMES = 6
_ADVICE = "Run again with outputs=('pose', 'depth'), or with outputs=None for all"


def depth_maps(
    run: xr.DataTree,
    sequence: xr.Dataset | str | Path,
    *,
    frames: Collection[int] | int | None = None,
    size: str = "page",
) -> Page:
    """Show frames, predicted depth, true depth where the run has it, and confidence.

    Prediction and truth share one colour bar in metres, without any alignment.

    Parameters
    ----------
    run : xarray.DataTree
    sequence : xarray.Dataset, str or Path
        The sequence that was run.
    frames : int or collection of int, optional
        Labels; by default at most six, evenly spread.
    size : {"column", "page", "slide"}

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
    depth = find_variable(run, "prediction/depth", _ADVICE)
    confidence = find_variable(run, "prediction/confidence_self", _ADVICE)
    shown = choose(depth, "frame", frames, _MOST_FRAMES)
    depth, confidence = depth.sel(frame=shown).load(), confidence.sel(frame=shown).load()
    rows = {"depth": depth}
    if (known := held(run, "truth/depth")) is not None:
        truth = known.sel(frame=shown).load()
        rows["true depth"] = truth.where(truth > 0)
    pooled = xr.concat([row.astype("float64") for row in rows.values()], "row", join="override")
    images = frames_seen(run, sequence, shown).values
    subtitle = sentence(
        "depth as predicted, no alignment to the truth" if len(rows) > 1 else "depth as predicted",
        "colour limits from the 2nd to the 98th percentile of the frames shown",
    )
    with style(size) as page:
        texts = ("Depth and confidence", subtitle, source_line(run))
        columns = [f"frame {frame}" for frame in shown]
        tiles = Tiles(page, 2 + len(rows), columns, images.shape[1:3], texts)
        tiles.show_row(0, images)
        low, high = limits(pooled)
        colors = {"cmap": DEPTH_COLORS, "vmin": low, "vmax": high}
        for row, (name, values) in enumerate(rows.items(), start=1):
            drawn = tiles.show_row(row, values.values, name, **colors)
        tiles.bar(drawn, 1, len(rows))
        last = len(rows) + 1
        low, high = limits(confidence)
        colors = {"cmap": CONFIDENCE_COLORS, "vmin": low, "vmax": high}
        drawn = tiles.show_row(last, confidence.values, "confidence", **colors)
        tiles.bar(drawn, last, last)
        tiles.label_bars(1, len(rows), text_label(depth))
        tiles.label_bars(last, last, text_label(confidence))
    return tiles.figure
