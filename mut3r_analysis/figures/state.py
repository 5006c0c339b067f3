"""How much each state token changes, frame by frame."""

import textwrap

import numpy as np
import seaborn
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure, SubFigure
from matplotlib.ticker import MaxNLocator

from mut3r_analysis.figures.page import color_bar, decades, fix_layout, new_page
from mut3r_analysis.figures.panels import Part, looks
from mut3r_analysis.figures.reading import (
    Runs,
    find_variable,
    named_runs,
    sentence,
    source_lines,
    text_label,
    worded,
)
from mut3r_analysis.figures.styling import QUIET, STATISTIC_COLORS, style
from mut3r_analysis.figures.tiles import limits
from mut3r_analysis.foundation.labelling import beside


def state_updates(run: Runs, *, size: str = "page", on: SubFigure | None = None) -> Figure:
    """Show the update size of every state token over the frames, and its spread over tokens.

    Parameters
    ----------
    run : xarray.DataTree, or mapping of str to xarray.DataTree
        Several runs by name share the curve; each has tokens of its own below, in one scale.
    size : {"column", "page", "slide"}
    on : matplotlib.figure.SubFigure, optional
        Drawn into instead of a new figure.

    Returns
    -------
    matplotlib.figure.Figure

    Raises
    ------
    InvalidArgument
        When a run holds no state statistics.

    Examples
    --------
    >>> figure = state_updates(run)
    """
    named = named_runs(run)
    found = {
        name: find_variable(each, "state/update_size", "Run again: every run records it")
        for name, each in named.items()
    }
    updates = beside(found, "run").transpose("run", "state_token", "frame").load()
    subtitle = sentence(
        f"{updates.sizes['state_token']} state tokens",
        "line: median over tokens, band: 10th to 90th percentile",
        "logarithmic colours",
    )
    with style(size) as page:
        page = page.within(on)
        texts = ("State update per token", subtitle, source_lines(named))
        height = len(named) * (0.16 * page.width + 0.4 * page.scale) + 0.08 * page.width
        height = min(height + 0.7 * page.scale, page.tallest)
        figure, _ = new_page(page, height, *texts, on=on)
        ratios = (1, *[1.9] * len(named))
        curve, *strips = figure.subplots(len(ratios), 1, sharex=True, height_ratios=ratios)
        _draw_curve(curve, updates)
        low, high = _limits(updates)
        norm = LogNorm(low, high)
        updates = updates.clip(min=1e-4 * high)
        for strip, name, each in zip(strips, named, updates, strict=True):
            _draw_strip(strip, each, norm, name)
        strips[-1].set(xlabel="frame")
        bar = color_bar(figure, strips[0].collections[0], ax=strips, aspect=18, pad=0.012)
        # In two lines of about equal length.
        label = text_label(next(iter(found.values())))
        halves = textwrap.wrap(label, max(12, len(label) // 2 + 4))
        bar.set_label("\n".join(halves), linespacing=1.0)
        decades(bar.ax.yaxis)
        return fix_layout(figure)


def _draw_curve(axis: Axes, updates: xr.DataArray) -> None:
    """Draw the median over tokens of each run. Frames may be strided: positions carry them."""
    frames, runs = updates.sizes["frame"], [str(name) for name in updates["run"].values]
    looked = looks(Part("run", "", runs, None))
    placed = updates.assign_coords(frame=np.arange(frames) + 0.5)
    seaborn.lineplot(
        placed.to_dataframe("update size").reset_index(), x="frame", y="update size",
        hue="run", style="run", estimator="median", errorbar=("pi", 80), dashes=False,
        palette=[look.color for look in looked], markeredgewidth=0, legend=len(runs) > 1,
        markers=[look.marker for look in looked] if frames < 40 else False, ax=axis,
    )  # fmt: skip
    if len(runs) > 1:
        seaborn.move_legend(axis, "best", title="")
    axis.set_ylim(bottom=0)
    axis.yaxis.set_major_locator(MaxNLocator(4, steps=[1, 2, 5, 10]))
    axis.tick_params(axis="x", length=0)
    axis.spines["bottom"].set_color(QUIET)


def _limits(updates: xr.DataArray) -> tuple[float, float]:
    """Early updates are many times the late ones; unchanged tokens take the darkest colour."""
    least, most = limits(updates, share=0.005)
    most = max(most, 1e-12)
    return min(max(least, 1e-4 * most), 0.999 * most), most


def _draw_strip(axis: Axes, updates: xr.DataArray, norm: LogNorm, name: str) -> None:
    seaborn.heatmap(
        updates.values, cmap=STATISTIC_COLORS, cbar=False, ax=axis,
        norm=norm, xticklabels=False, yticklabels=max(1, updates.sizes["state_token"] // 4),
    )  # fmt: skip
    frames = updates["frame"].values
    every = -(-len(frames) // 14)
    axis.set_xticks(np.arange(len(frames))[::every] + 0.5, [str(each) for each in frames[::every]])
    axis.tick_params(axis="y", labelrotation=0)
    axis.set_ylabel(worded(name, "state token"))
