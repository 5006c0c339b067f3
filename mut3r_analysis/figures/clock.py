"""Where the time went: seconds and memory of every frame."""

import numpy as np
import pandas as pd
import seaborn
import xarray as xr
from matplotlib.figure import Figure, SubFigure
from matplotlib.ticker import MaxNLocator

from mut3r_analysis.figures.page import fix_layout, new_page
from mut3r_analysis.figures.panels import Part, looks
from mut3r_analysis.figures.reading import (
    Runs,
    find_variable,
    named_runs,
    sentence,
    source_lines,
    worded,
)
from mut3r_analysis.figures.styling import QUIET, style

_ADVICE = "Run again: every run records it"


def timing(run: Runs, *, size: str = "page", on: SubFigure | None = None) -> Figure:
    """Show wall time and peak memory per frame.

    Parameters
    ----------
    run : xarray.DataTree, or mapping of str to xarray.DataTree
        Several runs by name are drawn over each other.
    size : {"column", "page", "slide"}
    on : matplotlib.figure.SubFigure, optional
        Drawn into instead of a new figure.

    Returns
    -------
    matplotlib.figure.Figure

    Raises
    ------
    InvalidArgument
        When a run holds no timing.

    Examples
    --------
    >>> figure = timing(run)
    """
    named = named_runs(run)
    table = pd.concat([_table(name, each) for name, each in named.items()])
    series = list(dict.fromkeys(table["series"]))
    whole = table.groupby(["run", "frame"], sort=False)["time"].sum()
    medians = whole.groupby("run", sort=False).median()
    machines = [
        f"device {each.attrs.get('device', 'unknown')}, threads: {each.attrs.get('threads', '?')}"
        for each in named.values()
    ]
    said = ", ".join(worded(str(name), f"{median:.3g} ms") for name, median in medians.items())
    subtitle = sentence(*dict.fromkeys(machines), f"dashed: median of the frames, {said}")
    with style(size) as page:
        page = page.within(on)
        stacked = page.width < 5
        height = (2.6 if stacked else 1.45) * page.scale
        texts = ("Time and memory per frame", subtitle, source_lines(named))
        figure, _ = new_page(page, height, *texts, on=on)
        axes = figure.subplots(*((2, 1) if stacked else (1, 2)))
        looked = looks(Part("run", "", series, None))
        marked = table["frame"].nunique() < 40
        for axis, column in zip(axes, ("time", "memory"), strict=True):
            seaborn.lineplot(
                table, x="frame", y=column, hue="series", style="series", errorbar=None,
                palette=[look.color for look in looked], dashes=False, markeredgewidth=0,
                markers=[look.marker for look in looked] if marked else False,
                legend=len(series) > 1 and column == "memory", ax=axis,
            )  # fmt: skip
            # Passes of a frame add up: its median may stand above each of them.
            most = max(table[column].max(), medians.max() if column == "time" else 0)
            axis.set_ylim(0, 1.12 * float(most))
            axis.xaxis.set_major_locator(MaxNLocator(8, integer=True))
            axis.yaxis.set_major_locator(MaxNLocator(5))
        for median in medians:
            axes[0].axhline(median, color=QUIET, linestyle=(0, (4, 2)), linewidth=0.6 * page.scale)
        if len(series) > 1:
            # Memory never falls: below its lines there is room.
            seaborn.move_legend(axes[1], "lower right", title="")
        axes[0].set(ylabel="wall time (ms)")
        axes[1].set(ylabel="peak memory so far (MiB)")
        return fix_layout(figure)


def _table(name: str, run: xr.DataTree) -> pd.DataFrame:
    """Return milliseconds and MiB per pass and frame, and what each line is called."""
    scales = {"time": ("seconds", 1e3), "memory": ("peak_memory", 2.0**-20)}
    found = xr.Dataset(
        {
            column: scale * find_variable(run, f"timing/{variable}", _ADVICE)
            for column, (variable, scale) in scales.items()
        }
    )
    table = found.to_dataframe().reset_index()
    several = table["pass"].nunique() > 1
    words = np.where(several, table["pass"].astype(str), "")
    return table.assign(run=name, series=[worded(name, word) for word in words])
