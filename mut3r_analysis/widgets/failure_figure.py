"""The failure explorer's view on paper."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import xarray as xr
from matplotlib.ticker import MaxNLocator

from mut3r_analysis.figures.cells import DIVERGING_COLORS
from mut3r_analysis.figures.page import Page, color_bar, fix_layout, new_page
from mut3r_analysis.figures.reading import sentence
from mut3r_analysis.figures.styling import DEPTH_COLORS, INK, QUIET, style
from mut3r_analysis.figures.tiles import show

_LINES = (("#0072b2", "-"), ("#d55e00", (0, (4, 2))))
"""Of runs: told apart by dashes as well as by colour."""


def failure_figure(
    strips: Mapping[str, Mapping[str, xr.DataArray]],
    maps: Mapping[str, np.ndarray],
    difference: np.ndarray | None,
    held: Mapping[str, Any],
    frame: int,
    size: str,
) -> Page:
    """Draw one strip per number over frames, and below them the maps of one frame.

    Parameters
    ----------
    strips : mapping
        Label -> run -> the numbers ``(frame,)``.
    maps : mapping of str to numpy.ndarray
        Run -> relative depth error ``(y, x)`` of the frame, or its depth.
    difference : numpy.ndarray, optional
        Of two runs.
    held : mapping
        What the explorer says of the maps, the difference and the source.
    frame : int
        Label.
    size : str
    """
    below = f"below, its {held['map']['title']}; one scale for all frames" if maps else ""
    with style(size) as page:
        pictures = 1.6 * page.scale if maps else 0.0
        height = 0.55 * page.scale * len(strips) + 0.25 * page.scale + pictures
        subtitle = sentence(f"frame {frame} is marked", below)
        title = "Errors frame by frame" if held["map"]["error"] else "Runs frame by frame"
        texts = (title, subtitle, held["notes"][0])
        figure, _ = new_page(page, min(height, page.tallest), *texts)
        above: Any = figure
        if maps:
            above, lower = figure.subfigures(2, 1, height_ratios=(height - pictures, pictures))
            _draw_maps(lower, maps, difference, held)
        _draw_strips(above, strips, frame)
        fix_layout(figure)
    return figure


def _draw_strips(above: Any, strips: Mapping[str, Mapping[str, xr.DataArray]], frame: int) -> None:
    axes = np.atleast_1d(above.subplots(len(strips), 1, sharex=True))
    for axis, (label, runs) in zip(axes, strips.items(), strict=True):
        for (run, values), (color, dash) in zip(runs.items(), _LINES, strict=False):
            axis.plot(values["frame"], values, color=color, linestyle=dash, label=run)
        axis.axvline(frame, color=INK, linewidth=0.6)
        axis.set_title(label)
        axis.margins(y=0.1)
    axes[-1].set_xlabel("frame")
    axes[-1].xaxis.set_major_locator(MaxNLocator(integer=True))
    if len(runs) > 1:
        axes[0].legend(loc="upper right", ncols=2, bbox_to_anchor=(1, 1.5))


def _draw_maps(
    lower: Any,
    maps: Mapping[str, np.ndarray],
    difference: np.ndarray | None,
    held: Mapping[str, Any],
) -> None:
    about, change = held["map"], held["difference"]
    count = len(maps) + (difference is not None)
    axes = lower.subplots(1, max(3, count))
    if count == 1:
        # In the middle, and as large as one of three.
        for axis in (axes[0], axes[2]):
            axis.remove()
        axes = axes[1:2]
    colors = {
        "cmap": "magma" if about["error"] else DEPTH_COLORS,
        "vmin": about["low"],
        "vmax": about["high"],
    }
    for axis, (run, values) in zip(axes, maps.items(), strict=False):
        drawn = _draw_map(axis, values, run, INK if len(maps) > 1 else QUIET, **colors)
    color_bar(lower, drawn, about["bar"], ax=list(axes[: len(maps)]), pad=0.015)
    if difference is not None:
        reach = change["limit"]
        colors = {"cmap": DIVERGING_COLORS, "vmin": -reach, "vmax": reach}
        drawn = _draw_map(axes[-1], difference, change["title"], INK, **colors)
        color_bar(lower, drawn, change["bar"], ax=[axes[-1]], pad=0.015)


def _draw_map(axis: Any, values: np.ndarray, title: str, color: str, **colors: Any) -> Any:
    extent = (-0.5, values.shape[1] - 0.5, values.shape[0] - 0.5, -0.5)
    drawn = show(axis, values, extent, **colors)
    axis.set_aspect("equal")
    axis.set_title(title, color=color)
    return drawn
