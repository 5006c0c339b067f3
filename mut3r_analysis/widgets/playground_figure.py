"""The gate playground's view on paper."""

from collections.abc import Mapping

import numpy as np
import xarray as xr

from mut3r_analysis.figures.cells import DIVERGING_COLORS
from mut3r_analysis.figures.page import Page
from mut3r_analysis.figures.reading import sentence, source_line
from mut3r_analysis.figures.styling import DEPTH_COLORS, style
from mut3r_analysis.figures.tiles import Tiles, limits
from mut3r_analysis.widgets.failures import gate_words

MOST_CHANGE = 0.25
"""Relative change of depth at the ends of the colours."""


def relative_change(plain: np.ndarray, gated: np.ndarray) -> np.ndarray:
    """Return by which share of its plain value depth (y, x) changed."""
    return np.asarray((gated - plain) / np.maximum(plain, 1e-9), np.float32)


def playground_figure(
    runs: Mapping[str, xr.DataTree], frame: int, reading: str, inert: str | None, size: str
) -> Page:
    """Draw depth of the plain and the gated backbone and their relative difference.

    Parameters
    ----------
    runs : mapping of str to xarray.DataTree
        The plain run, and the gated one unless the gate is inert.
    frame : int
        Label.
    reading : str
        Of the cue.
    inert : str, optional
        Why the gate changes nothing, if it does not.
    size : str
    """
    depths = [
        run["prediction"].to_dataset()["depth"].sel(frame=frame).values for run in runs.values()
    ]
    last = list(runs.values())[-1]
    words = f"nothing is gated: {inert}" if inert else gate_words(last)
    titles = [*runs, *(["relative change"] if len(runs) > 1 else [])]
    with style(size) as page:
        texts = (
            "Depth before and after gating",
            sentence(f"frame {frame}", words, f"cue {reading}"),
            source_line(last),
        )
        tiles = Tiles(page, 1, titles, depths[0].shape, texts)
        low, high = limits(np.stack(depths))
        drawn = tiles.show_row(0, depths, cmap=DEPTH_COLORS, vmin=low, vmax=high)
        if len(depths) > 1:
            change = relative_change(*depths)
            tiles.show(0, 2, change, cmap=DIVERGING_COLORS, vmin=-MOST_CHANGE, vmax=MOST_CHANGE)
        tiles.bar(drawn, 0, 0)
        tiles.label_bars(
            0,
            0,
            f"depth (m); change from −{MOST_CHANGE:.0%} (purple) to +{MOST_CHANGE:.0%} (orange)",
        )
    return tiles.figure
