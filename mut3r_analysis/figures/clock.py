"""Where the time went: seconds and memory of every frame."""

import numpy as np
import seaborn
import xarray as xr
from matplotlib.ticker import MaxNLocator

from mut3r_analysis.figures.page import Page, fix_layout, new_page
from mut3r_analysis.figures.reading import find_variable, sentence, source_line
from mut3r_analysis.figures.styling import ACCENT, INK, QUIET, style

_MARKERS = ("o", "s", "^")


def timing(run: xr.DataTree, *, size: str = "page") -> Page:
    """Show wall time and peak memory per frame.

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
        When the run holds no timing.

    Examples
    --------
    >>> figure = timing(run)
    """
    advice = "Run again: every run records it"
    seconds = find_variable(run, "timing/seconds", advice).transpose("pass", "frame").load()
    memory = find_variable(run, "timing/peak_memory", advice).transpose("pass", "frame").load()
    frames = seconds["frame"].values
    several = seconds.sizes["pass"] > 1
    passes = [str(name) for name in seconds["pass"].values]
    median = 1e3 * float(np.median(seconds.values.sum(axis=0)))
    subtitle = sentence(
        f"device {run.attrs.get('device', 'unknown')}, threads: {run.attrs.get('threads', '?')}",
        f"passes: {', '.join(passes)}" if several else "",
        f"dashed: median of the frames, {median:.3g} ms",
    )
    with style(size) as page:
        stacked = page.width < 5
        height = (2.6 if stacked else 1.45) * page.scale
        texts = ("Time and memory per frame", subtitle, source_line(run))
        figure, _ = new_page(page, height, *texts)
        time, space = figure.subplots(*((2, 1) if stacked else (1, 2)))
        for axis, numbers in ((time, 1e3 * seconds), (space, memory / 2**20)):
            seaborn.lineplot(
                numbers.to_dataframe("value").reset_index(), x="frame", y="value", hue="pass",
                style="pass", palette=[INK, ACCENT, QUIET][: len(passes)], errorbar=None,
                markers=_MARKERS[: len(passes)] if len(frames) < 40 else False,
                markeredgewidth=0, legend=several and axis is time, ax=axis,
            )  # fmt: skip
            axis.set_ylim(0, 1.12 * float(numbers.max()))
            axis.xaxis.set_major_locator(MaxNLocator(8, integer=True))
            axis.yaxis.set_major_locator(MaxNLocator(5))
        time.axhline(median, color=QUIET, linestyle=(0, (4, 2)), linewidth=0.6 * page.scale)
        time.set(ylabel="wall time (ms)")
        space.set(ylabel="peak memory so far (MiB)")
        fix_layout(figure)
    return figure
