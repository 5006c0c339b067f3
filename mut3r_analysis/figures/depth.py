"""Depth and its confidence beside the frames, and the true depth where it is known."""

from collections.abc import Collection
from typing import Any

import xarray as xr

from mut3r_analysis.figures.page import Page
from mut3r_analysis.figures.reading import choose, find_variable, sentence, source_line, text_label
from mut3r_analysis.figures.seen import frames_seen
from mut3r_analysis.figures.styling import CONFIDENCE_COLORS, DEPTH_COLORS, style
from mut3r_analysis.figures.tiles import Tiles, limits, show

_MOST_FRAMES = 6
_ADVICE = "Run again with outputs=('pose', 'depth'), or with outputs=None for all"


def depth_maps(
    run: xr.DataTree,
    sequence: xr.Dataset,
    *,
    frames: Collection[int] | int | None = None,
    size: str = "page",
) -> Page:
    """Show frames, predicted depth, true depth where the run has it, and confidence.

    Prediction and truth share one colour bar in metres, without any alignment.

    Parameters
    ----------
    run : xarray.DataTree
    sequence : xarray.Dataset
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
    """
    depth = find_variable(run, "prediction/depth", _ADVICE)
    confidence = find_variable(run, "prediction/confidence_self", _ADVICE)
    shown = choose(depth, "frame", frames, _MOST_FRAMES)
    depth, confidence = depth.sel(frame=shown).load(), confidence.sel(frame=shown).load()
    rows = {"depth": depth}
    if "truth" in run.children and "depth" in run["truth"]:
        truth = run["truth"]["depth"].sel(frame=shown).load()
        rows["true depth"] = truth.where(truth > 0)
    pooled = xr.concat([row.astype("float64") for row in rows.values()], "row", join="override")
    images = frames_seen(run, sequence, shown)
    height, width = images.sizes["y"], images.sizes["x"]
    extent = (-0.5, width - 0.5, height - 0.5, -0.5)
    subtitle = sentence(
        "depth as predicted, no alignment to the truth" if len(rows) > 1 else "depth as predicted",
        "colour limits from the 2nd to the 98th percentile of the frames shown",
    )
    with style(size) as page:
        texts = ("Depth and confidence", subtitle, source_line(run))
        tiles = Tiles(page, 2 + len(rows), len(shown), height / width, texts)
        tiles.label_columns([f"frame {frame}" for frame in shown])
        for column, image in enumerate(images.values):
            show(tiles.axes[0, column], image, extent)

        def draw(row: int, values: xr.DataArray, colors: str, low: float, high: float) -> Any:
            for axis, picture in zip(tiles.axes[row], values.values, strict=True):
                drawn = show(axis, picture, extent, cmap=colors, vmin=low, vmax=high)
            return drawn

        low, high = limits(pooled)
        for row, (name, values) in enumerate(rows.items(), start=1):
            drawn = draw(row, values, DEPTH_COLORS, low, high)
            tiles.label_row(row, name)
        tiles.bar(drawn, 1, len(rows))
        last = len(rows) + 1
        tiles.bar(draw(last, confidence, CONFIDENCE_COLORS, *limits(confidence)), last, last)
        tiles.label_row(last, "confidence")
        tiles.label_bars(1, len(rows), text_label(depth))
        tiles.label_bars(last, last, text_label(confidence))
    return tiles.figure
