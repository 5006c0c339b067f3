"""Estimates along a dimension, as lines with the bands of their intervals."""

from typing import Any, NamedTuple

import numpy as np
import seaborn
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure, SubFigure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator, NullLocator

from mut3r_analysis.figures.page import decades
from mut3r_analysis.figures.panels import (
    GIVEN,
    Look,
    Part,
    Placed,
    Sheet,
    lines_in,
    looks,
    shape_of,
    unnamed,
)
from mut3r_analysis.figures.styling import QUIET, Size, style

_MOST_MARKERS = 24
_MOST_TICKS = 9
_LEAST_WIDTH = 1.3
_HEIGHT, _HEIGHT_ALONE = 1.2, 1.5
"""Of a panel among others and of a single one, inches."""

_SLANTED, _UPRIGHT = 0.9, 1.3
"""Longest label that is slanted, and where upright ones are broken, inches."""


def curves(
    values: xr.Dataset | xr.DataArray,
    *,
    x: str,
    colors: str | None = None,
    panels: str | None = None,
    reference: float | None = None,
    log: bool = False,
    title: str,
    subtitle: str = "",
    source: str = "",
    size: str = "page",
    on: Axes | SubFigure | None = None,
) -> Figure:
    """Show values along a dimension as lines, with bands where intervals are known.

    Parameters
    ----------
    values : xarray.Dataset or xarray.DataArray
        ``value`` and perhaps ``lower`` and ``upper`` over the dimensions named below; or the
        values alone. Missing values interrupt a line.
    x : str
        Dimension along which lines run. Numbers keep their distances (on a logarithmic axis when
        each is the same multiple of the one before); labels are evenly spaced.
    colors : str, optional
        Dimension whose entries are lines, told apart by colour, marker and dashes.
    panels : str, optional
        Dimension whose entries are panels; all share their axes.
    reference : float, optional
        Where a horizontal line stands.
    log : bool
        Whether values stand on a logarithmic axis; they must be positive then.
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
    >>> error = xr.DataArray([0.2, 0.15, 0.18], coords={"beta": [0.5, 1.0, 2.0]})
    >>> figure = curves(error, x="beta", title="Error by sharpness")
    """
    placed = Placed.of(values, panels=panels, colors=colors, x=x)
    panel, color, along = placed.parts
    series = looks(color)
    explained = None if colors is None else color
    with style(size) as page:
        page = page.within(on)
        count = len(panel.labels)
        room = page.width - 0.5 * page.scale
        shape = shape_of(count, int(room / _least_width(along, page)))
        width = room / shape[1]
        names = _name_ticks(along, width, page)
        headings = [page.wrapped(text, 0.92 * width) for text in panel.headings()]
        above = 0.14 * page.scale * (lines_in(headings) if panels else 0) + 0.1 * page.scale
        below = 0.2 * page.scale + names.height
        usual = (_HEIGHT if panels else _HEIGHT_ALONE) * page.scale
        # Under a short last row the panels above it have labels of their own.
        below *= 1 if count % shape[1] == 0 else 2
        frame = max(0.5 * page.scale, min(usual, (page.tallest - below) / shape[0] - above))
        height = shape[0] * (frame + above) + below
        texts = (title, subtitle, source)
        sheet = Sheet.open(page, shape, height, texts, headings, explained, on=on)
        handles: list[Any] = []
        for index, axis in enumerate(sheet.axes):
            if reference is not None:
                axis.axhline(reference, color=QUIET, linewidth=0.5 * page.scale, zorder=1)
            handles = _draw_panel(axis, placed, index, series, page)
        _tick(sheet.axes[0], along, width, page)
        if log:
            sheet.axes[0].set_yscale("log")
            decades(sheet.axes[0].yaxis)
        for axis in sheet.bottom if along.numbers is None else ():
            axis.set_xticks(range(len(names.labels)), names.labels, **names.how)
        for axis in sheet.left:
            axis.set_ylabel(page.wrapped(placed.label, frame), linespacing=1.0)
        sheet.close(page.wrapped(along.title, room), handles)
    return sheet.root


def _draw_panel(
    axis: Axes, placed: Placed, panel: int, series: list[Look], page: Size
) -> list[Any]:
    """Draw the lines of a panel, and return one handle per series."""
    table = placed.table(panel)
    table["x"] = _places(placed.parts[2])[table["entry"]]
    # Seaborn draws lines through what is missing: each stretch of values is one of its own.
    table["stretch"] = np.repeat(np.isnan(placed.value[panel]).cumsum(), 3)
    handles = []
    for index, look in enumerate(series):
        faint = 0.16 if len(series) < 3 else 0.09
        drawn = {
            "color": look.color, "linestyle": look.line, "marker": look.marker,
            "markerfacecolor": look.color if look.filled else "white",
            "markeredgecolor": look.color, "markersize": 2.8 * page.scale,
        }  # fmt: skip
        for _, part in table[table["series"] == index].dropna().groupby("stretch"):
            # Thin edges keep overlapping bands apart, also in grey.
            band = {
                "facecolor": to_rgba(look.color, faint), "edgecolor": to_rgba(look.color, 0.6),
                "alpha": None, "linewidth": 0.25 * page.scale,
            }  # fmt: skip
            marked = _marked(part["entry"].unique(), placed.value.shape[2], index, len(series))
            seaborn.lineplot(
                part, x="x", y="value", sort=False, legend=False, ax=axis, markevery=marked,
                err_kws=band, zorder=3, **drawn, **GIVEN,
            )  # fmt: skip
        handles.append(Line2D([], [], **drawn))
    unnamed(axis)
    return handles


def _places(along: Part) -> np.ndarray:
    return np.arange(len(along.labels), dtype=float) if along.numbers is None else along.numbers


def _marked(entries: np.ndarray, length: int, index: int, count: int) -> list[int]:
    """Every point of a short line, some of a long one among others, and one that stands alone."""
    if length <= _MOST_MARKERS or len(entries) == 1:
        return list(range(len(entries)))
    step = length // 8
    spread = range((index * step // 3) % step, length, step) if count > 1 else range(0)
    return [place for place, entry in enumerate(entries) if entry in spread]


def _tick(axis: Axes, along: Part, inches: float, page: Size) -> None:
    numbers = along.numbers
    axis.yaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 2.5, 5, 10]))
    if numbers is None:
        axis.set_xticks(_places(along), along.labels)
        axis.set_xlim(-0.3, len(along.labels) - 0.7)
        return
    if _geometric(numbers):
        axis.set_xscale("log")
        axis.xaxis.set_minor_locator(NullLocator())
    if len(numbers) <= _MOST_TICKS and _apart(numbers, along.labels, inches, page):
        axis.set_xticks(numbers, along.labels)
    elif not _geometric(numbers):
        most = int(np.clip(inches / (0.35 * page.scale), 2, _MOST_TICKS))
        whole = bool((numbers == numbers.round()).all())
        axis.xaxis.set_major_locator(MaxNLocator(most, integer=whole))


def _geometric(numbers: np.ndarray) -> bool:
    if len(numbers) < 4 or (numbers <= 0).any():
        return False
    ratios = numbers[1:] / numbers[:-1]
    return bool(ratios.min() >= 1.5 and ratios.max() / ratios.min() < 1.7)


def _apart(numbers: np.ndarray, labels: list[str], inches: float, page: Size) -> bool:
    """Whether a tick label at every number leaves room between them."""
    places = np.sort(np.log(numbers) if _geometric(numbers) else numbers)
    if len(places) < 2 or places[0] == places[-1]:
        return True
    closest = np.diff(places).min() / (places[-1] - places[0]) * 0.9 * inches
    return bool(closest > page.text_width(labels) + 0.06 * page.scale)


class _Names(NamedTuple):
    """Labels along a dimension without numbers: how they are broken and turned, and how high."""

    labels: list[str]
    how: dict[str, Any]
    height: float


def _least_width(along: Part, page: Size) -> float:
    """Inches that a panel needs so that upright labels stand beside each other."""
    usual = _LEAST_WIDTH * page.scale
    if along.numbers is not None:
        return usual
    lines = lines_in([page.wrapped(label, _UPRIGHT * page.scale) for label in along.labels])
    return max(usual, 0.14 * lines * len(along.labels) * page.scale)


def _name_ticks(along: Part, inches: float, page: Size) -> _Names:
    """Leave labels level where they fit in three lines, slant short ones, set others upright."""
    line, room = 0.15 * page.scale, 0.9 * inches / len(along.labels)
    if along.numbers is not None:
        return _Names(along.labels, {}, line)
    level = [page.wrapped(label, room - 0.08 * page.scale) for label in along.labels]
    if page.text_width(level) + 0.08 * page.scale <= room and lines_in(level) <= 3:
        return _Names(level, {"linespacing": 1.0}, lines_in(level) * line)
    longest = page.text_width(along.labels)
    if longest <= _SLANTED * page.scale and room >= 1.2 * line:
        slant = {"rotation": 40, "ha": "right", "rotation_mode": "anchor"}
        return _Names(along.labels, slant, 0.7 * longest + line)
    upright = [page.wrapped(label, _UPRIGHT * page.scale) for label in along.labels]
    height = page.text_width(upright) + 0.5 * line
    return _Names(upright, {"rotation": 90, "linespacing": 1.0}, height)
