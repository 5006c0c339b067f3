"""How much each state token changes, frame by frame."""

import textwrap

import numpy as np
import seaborn
import xarray as xr
from matplotlib.colors import LogNorm
from matplotlib.ticker import MaxNLocator

from mut3r_analysis.figures.page import Page, color_bar, decades, fix_layout, new_page
from mut3r_analysis.figures.reading import find_variable, sentence, source_line, text_label
from mut3r_analysis.figures.styling import INK, QUIET, STATISTIC_COLORS, style
from mut3r_analysis.figures.tiles import limits


def state_updates(run: xr.DataTree, *, size: str = "page") -> Page:
    """Show the update size of every state token over the frames, and its spread over tokens.

    Parameters
    ----------
    run : xarray.DataTree
    size : {"column", "page", "slide"}

    Returns
    -------
    matplotlib.figure.Figure

    Raises
    ------
    InvalidArgument
        When the run holds no state statistics.

    Examples
    --------
    >>> figure = state_updates(run)
    """
    updates = find_variable(run, "state/update_size", "Run again: every run records it")
    updates = updates.transpose("state_token", "frame").load()
    frames = updates["frame"].values
    tokens = updates.sizes["state_token"]
    subtitle = sentence(
        f"{tokens} state tokens",
        "line: median over tokens, band: 10th to 90th percentile",
        "logarithmic colours",
    )
    with style(size) as page:
        texts = ("State update per token", subtitle, source_line(run))
        height = 0.24 * page.width + 1.1 * page.scale
        figure, _ = new_page(page, min(height, page.tallest), *texts)
        curve, strip = figure.subplots(2, 1, sharex=True, height_ratios=(1, 1.9))
        # Frames may be strided: positions carry them, labels name them.
        places = np.arange(len(frames)) + 0.5
        table = updates.assign_coords(frame=places).to_dataframe("update size").reset_index()
        seaborn.lineplot(
            table, x="frame", y="update size", estimator="median", errorbar=("pi", 80),
            color=INK, marker="o" if len(frames) < 40 else "", markeredgewidth=0, ax=curve,
        )  # fmt: skip
        curve.set_ylim(bottom=0)
        curve.yaxis.set_major_locator(MaxNLocator(4, steps=[1, 2, 5, 10]))
        curve.tick_params(axis="x", length=0)
        least, most = limits(updates, share=0.005)
        # Early updates are many times the late ones; unchanged tokens take the darkest colour.
        most = max(most, 1e-12)
        seaborn.heatmap(
            updates.clip(min=1e-4 * most).values, cmap=STATISTIC_COLORS, cbar=False, ax=strip,
            norm=LogNorm(min(max(least, 1e-4 * most), 0.999 * most), most),
            xticklabels=False, yticklabels=max(1, tokens // 4),
        )  # fmt: skip
        strip.set(xlabel="frame", ylabel="state token")
        every = -(-len(frames) // 14)
        strip.set_xticks(places[::every], [str(frame) for frame in frames[::every]])
        strip.tick_params(axis="y", labelrotation=0)
        bar = color_bar(figure, strip.collections[0], ax=strip, aspect=18, pad=0.012)
        # In two lines of about equal length.
        label = text_label(updates)
        halves = textwrap.wrap(label, max(12, len(label) // 2 + 4))
        bar.set_label("\n".join(halves), linespacing=1.0)
        decades(bar.ax.yaxis)
        curve.spines["bottom"].set_color(QUIET)
        fix_layout(figure)
    return figure
