"""Estimates with their intervals, one row each."""

from typing import Any, NamedTuple

import numpy as np
import seaborn
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure, SubFigure
from matplotlib.ticker import MaxNLocator

from mut3r_analysis.figures.panels import (
    GIVEN,
    Look,
    Placed,
    Sheet,
    lines_in,
    looks,
    shape_of,
    unnamed,
)
from mut3r_analysis.figures.styling import INK, QUIET, Size, style

_ROOMY_PANEL, _LEAST_PANEL = 1.4, 0.55
"""Widths of a panel that are wished for and borne, inches."""

_LABEL_SHARE = 0.42
"""Of the width, where longer labels of rows are broken."""

_TIGHTEST = 0.66
"""Share of the usual distance of rows below which a figure grows beyond its size."""


def interval_dots(
    values: xr.Dataset | xr.DataArray,
    *,
    rows: str,
    panels: str | None = None,
    colors: str | None = None,
    reference: float | None = 0.0,
    share_x: bool = True,
    title: str,
    subtitle: str = "",
    source: str = "",
    size: str = "page",
    on: Axes | SubFigure | None = None,
) -> Figure:
    """Show each estimate as a dot on its interval, in rows that read like a table.

    Parameters
    ----------
    values : xarray.Dataset
        ``value``, ``lower`` and ``upper`` over the dimensions named below, as
        `studies.estimates.estimate` returns them. Where the interval is NaN
        the dot stands alone; where the value is NaN the row says "no value" and has no bar.
    rows : str
        Dimension whose entries are the rows, the first on top.
    panels : str, optional
        Dimension whose entries are panels; all share their rows.
    colors : str, optional
        Dimension whose entries stand below each other in a row, told apart by colour and marker.
    reference : float, optional
        Where a line stands, for example no change.
    share_x : bool
        Whether panels share their horizontal axis. On axes of their own a panel of small values
        can be read beside one of large values, and lengths compare within a panel only.
    title, subtitle, source : str
        What is shown, how it was selected, where it comes from.
    size : {"column", "page", "slide"}
    on : matplotlib.axes.Axes or matplotlib.figure.SubFigure, optional
        Drawn into instead of a new figure; of the texts an `Axes` has room for the title alone.
        Give a figure of one's own ``layout="constrained"``.

    Returns
    -------
    matplotlib.figure.Figure
        New, or the one that `on` belongs to; labelled by ``long_name`` and ``units`` of
        ``value`` and of the coordinates.

    Raises
    ------
    InvalidArgument
        When the dimensions do not fit; the message says which there are.

    Examples
    --------
    >>> import xarray as xr
    >>> change = xr.Dataset(
    ...     {
    ...         "value": ("gate", [0.1, -0.2]),
    ...         "lower": ("gate", [0.0, -0.3]),
    ...         "upper": ("gate", [0.2, -0.1]),
    ...     },
    ...     coords={"gate": ["image", "state"]},
    ... )
    >>> figure = interval_dots(change, rows="gate", title="Change of the error by gate")
    """
    placed = Placed.of(values, panels=panels, colors=colors, rows=rows)
    panel, color, row = placed.parts
    series = looks(color)
    explained = None if colors is None else color
    with style(size) as page:
        page = page.within(on)
        labels = [page.wrapped(label, _LABEL_SHARE * page.width) for label in row.labels]
        plan = _plan(placed, labels, page)
        headings = [page.wrapped(text, 0.92 * plan.width) for text in panel.headings()]
        below = page.wrapped(placed.label, page.width - 0.8 * page.scale)
        ticked = 1 if share_x else plan.shape[0]
        height = plan.height(below, headings if panels else [], ticked, page)
        texts = (title, subtitle, source)
        sheet = Sheet.open(page, plan.shape, height, texts, headings, explained, share_x, on)
        handles: list[Any] = []
        for index, axis in enumerate(sheet.axes):
            handles = _draw_panel(axis, placed, index, series, reference, page)
            axis.tick_params(axis="y", labelsize=plan.text, labelleft=axis in sheet.left)
            axis.tick_params(axis="y", length=0, labelcolor=INK)
        sheet.axes[0].set_yticks(np.arange(len(labels)), labels, linespacing=1.0)
        for axis in sheet.axes[:1] if share_x else sheet.axes:
            axis.margins(x=0.06)
            most = int(np.clip(plan.width / (0.42 * page.scale), 2, 8))
            axis.xaxis.set_major_locator(MaxNLocator(most, steps=[1, 2, 5, 10]))
        sheet.close(below, handles)
    return sheet.root


class _Plan(NamedTuple):
    """Arrangement of panels and rows: inches, and the size of row labels in points."""

    shape: tuple[int, int]
    width: float
    pitch: float
    text: float
    entries: int

    def height(self, below: str, headings: list[str], ticked: int, page: Size) -> float:
        """Return the height of all panels with headings, so many rows of ticks, and axis label."""
        line = 0.14 * page.scale
        above = lines_in(headings) * line if headings else 0.0
        panel = self.entries * self.pitch + above + 0.06 * page.scale
        return self.shape[0] * panel + (0.16 * ticked + lines_in([below]) * 0.14) * page.scale


def _plan(placed: Placed, labels: list[str], page: Size) -> _Plan:
    """Put panels side by side where they can be wide; make them narrow before rows are tight."""
    panels, series, entries = placed.value.shape
    room = page.width - page.text_width(labels) - 0.3 * page.scale
    lines = max(lines_in(labels), 0.75 * series)
    wanted = (0.14 * lines + 0.02) * page.scale
    for least in (_ROOMY_PANEL, _LEAST_PANEL):
        shape = shape_of(panels, int(room / (least * page.scale)))
        if shape[0] * entries * wanted <= page.tallest:
            break
    fitting = page.tallest / (shape[0] * entries)
    pitch = float(np.clip(fitting, _TIGHTEST * wanted, wanted))
    text = page.label_size(pitch, lines_in(labels))
    return _Plan(shape, room / shape[1], pitch, text, entries)


def _draw_panel(
    axis: Axes, placed: Placed, panel: int, series: list[Look], reference: float | None, page: Size
) -> list[Any]:
    """Draw the dots of a panel, and return one handle per series."""
    count = placed.value.shape[2]
    if reference is not None:
        axis.axvline(reference, color=QUIET, linewidth=0.5 * page.scale, zorder=1)
    axis.hlines(
        range(count), 0, 1, transform=axis.get_yaxis_transform(), color="#e4e4e4",
        linewidth=0.3 * page.scale, zorder=0,
    )  # fmt: skip
    axis.spines["left"].set_visible(False)
    # Series of a row stand below each other within the middle two thirds of it.
    offsets = 0.66 * ((np.arange(len(series)) + 0.5) / len(series) - 0.5)
    seaborn.pointplot(
        placed.table(panel), x="value", y="entry", hue="series", orient="y", native_scale=True,
        dodge=float(np.ptp(offsets)), palette=[look.color for look in series],
        markers=[look.marker for look in series], linestyle="none", linewidth=0.9 * page.scale,
        markersize=3.2 * page.scale, markeredgewidth=0.6 * page.scale, zorder=3,
        err_kws={"zorder": 2}, legend=False, ax=axis, **GIVEN,
    )  # fmt: skip
    unnamed(axis)
    axis.set_ylim(count - 0.5, -0.5)
    handles = [line for line in axis.lines if line.get_linestyle() == "None"]
    for handle, look in zip(handles, series, strict=True):
        handle.set_markerfacecolor(look.color if look.filled else "white")
    for index, place in np.argwhere(np.isnan(placed.value[panel])):
        axis.annotate(
            "no value", (0, place + offsets[index]), xycoords=axis.get_yaxis_transform(),
            xytext=(2 * page.scale, 0), textcoords="offset points", va="center",
            color=QUIET if len(series) == 1 else series[index].color, fontsize=5.5 * page.scale,
            bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.5},
        )  # fmt: skip
    return handles
