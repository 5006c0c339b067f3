"""A table of values as a heat map whose cells say their numbers."""

from typing import Any, NamedTuple

import numpy as np
import seaborn
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure, SubFigure
from matplotlib.ticker import MaxNLocator

from mut3r_analysis.figures.page import color_bar
from mut3r_analysis.figures.panels import Placed, Sheet, lines_in, shape_of
from mut3r_analysis.figures.reading import sentence
from mut3r_analysis.figures.styling import FONT, LETTER, STATISTIC_COLORS, Size, style
from mut3r_analysis.figures.tiles import limits

DIVERGING_COLORS = "PuOr_r"
_LABEL_SHARE = 0.32
"""Of the width, where longer labels of rows are broken."""

_LEAST_DIGITS = 4.4
"""Size of numbers below which they are left out, points."""

_CELL, _LEAST_CELL = 0.32, 0.075
"""Usual height and least width of a cell, inches."""

_TIGHTEST = 0.62
"""Share of the usual distance of rows below which a figure grows beyond its size."""

_LONGEST_BAR = 2.4
"""Inches."""


def matrix(
    values: xr.DataArray | xr.Dataset,
    *,
    rows: str,
    columns: str,
    panels: str | None = None,
    center: float | None = None,
    annotate: bool = True,
    title: str,
    subtitle: str = "",
    source: str = "",
    size: str = "page",
    on: Axes | SubFigure | None = None,
) -> Figure:
    """Show values over two dimensions as colours, with the numbers in the cells.

    Parameters
    ----------
    values : xarray.DataArray or xarray.Dataset
        Over the dimensions named below; of a Dataset, its ``value``. Missing values are hatched,
        and the subtitle says so.
    rows, columns : str
        Dimensions; the first row is on top.
    panels : str, optional
        Dimension whose entries are panels; all share axes and colours.
    center : float, optional
        Value of the neutral colour: colours then diverge from it, equally to both sides.
    annotate : bool
        Write the numbers, all with the same decimals. Cells too small for them are left without.
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
        the values and of the coordinates.

    Raises
    ------
    InvalidArgument
        When the dimensions do not fit; the message says which there are.

    Examples
    --------
    >>> import xarray as xr
    >>> auc = xr.DataArray([[0.6, 0.7], [0.8, 0.5]], dims=("layer", "head"), name="AUC")
    >>> figure = matrix(auc, rows="layer", columns="head", title="AUC of the cue")
    """
    placed = Placed.of(values, panels=panels, rows=rows, columns=columns)
    panel, row, column = placed.parts
    grids = placed.value
    missing = "hatched: no value" if np.isnan(grids).any() else ""
    texts = (title, sentence(subtitle, missing), source)
    with style(size) as page:
        page = page.within(on)
        labels = [page.wrapped(label, _LABEL_SHARE * page.width) for label in row.labels]
        numbers = _numbers(grids)
        plan = _plan(placed, labels, numbers if annotate else None, page)
        headings = [page.wrapped(text, 0.92 * plan.cell * grids.shape[2])
                    for text in panel.headings()]  # fmt: skip
        height = plan.height(headings if panels else [], page)
        sheet = Sheet.open(page, plan.shape, height, texts, headings, on=on)
        # Cells too small for numbers are left without.
        written = plan.digits >= _LEAST_DIGITS * page.scale
        colors = _colors(grids, center)
        for index, axis in enumerate(sheet.axes):
            seaborn.heatmap(
                grids[index], annot=numbers[index] if annotate and written else False, fmt="",
                annot_kws={"fontsize": plan.digits}, linewidths=0.5 * page.scale,
                linecolor="white", cbar=False, xticklabels=False, yticklabels=False, ax=axis,
                **colors,
            )  # fmt: skip
            # Missing cells are see-through.
            axis.patch.set(facecolor="#f2f2f2", edgecolor="#b8b8b8", hatch="////")
            axis.tick_params(length=0)
            axis.tick_params(axis="y", labelleft=axis in sheet.left, labelsize=plan.text)
            axis.tick_params(axis="x", labelrotation=90 if plan.upright else 0)
        sheet.axes[0].set_yticks(np.arange(len(labels)) + 0.5, labels, linespacing=1.0)
        every = 1 if plan.upright else max(1, int(np.ceil(plan.longest / plan.cell)))
        places = np.arange(0, len(column.labels), every) + 0.5
        sheet.axes[0].set_xticks(places, column.labels[::every])
        for axis in sheet.left:
            axis.set_ylabel(page.wrapped(row.title, len(labels) * plan.pitch), linespacing=1.0)
        _explain(sheet, sheet.axes[0].collections[0], placed.label, height)
        sheet.close(column.title)
    return sheet.root


class _Plan(NamedTuple):
    """Arrangement of panels and cells: inches; sizes of labels and of numbers in points."""

    shape: tuple[int, int]
    cell: float
    pitch: float
    text: float
    digits: float
    longest: float
    below: float
    upright: bool
    entries: int

    def height(self, headings: list[str], page: Size) -> float:
        """Return the height of all panels with their headings and the labels below, inches."""
        above = 0.14 * page.scale * (lines_in(headings) if headings else 0) + 0.06 * page.scale
        return self.shape[0] * (self.entries * self.pitch + above) + self.below


def _plan(placed: Placed, labels: list[str], numbers: Any, page: Size) -> _Plan:
    """Give numbers the room they need where panels can stand above each other."""
    panels, entries, columns = placed.value.shape
    room = page.width - page.text_width(labels) - 1.0 * page.scale
    lines = lines_in(labels)
    wanted = (0.14 * lines + 0.03) * page.scale
    letters = 0 if numbers is None else max(map(len, numbers.flat))
    readable = max((letters + 1) * LETTER * 0.85 * FONT / 72, 0.16) * page.scale
    for least in (readable, _LEAST_CELL * page.scale):
        shape = shape_of(panels, int(room / (least * columns)))
        if shape[0] * entries * wanted <= page.tallest:
            break
    cell = 0.95 * room / shape[1] / columns
    longest = page.text_width(placed.parts[2].labels) + 0.06 * page.scale
    upright = placed.parts[2].numbers is None and longest > cell
    below = 0.2 * page.scale + (longest if upright else 0.14 * page.scale)
    # Few rows are taller, so that the colour bar beside them can be read.
    pitch = max(wanted, min(cell, max(_CELL, 0.95 / shape[0] / entries) * page.scale))
    fitting = (page.tallest - below) / shape[0] / entries
    pitch = max(_TIGHTEST * wanted, min(pitch, fitting))
    text = page.label_size(pitch, lines)
    digits = min(0.9 * FONT * page.scale, 0.62 * pitch * 72)
    if letters:
        digits = min(digits, cell * 72 / (0.5 * (letters + 0.6)))
    return _Plan(shape, cell, pitch, text, digits, longest, below, upright, entries)


def _numbers(grids: np.ndarray) -> np.ndarray:
    """Write all values with so many decimals that the largest has three digits."""
    finite = np.abs(grids[np.isfinite(grids)])
    largest = float(finite.max()) if finite.size else 0.0
    digits = 2 - int(np.floor(np.log10(largest))) if largest > 0 else 0
    if digits > 5 or digits < -4:
        written = [f"{value:.1e}" for value in grids.flat]
    else:
        written = [f"{value:.{max(0, digits)}f}" for value in grids.flat]
    # What rounds to nothing has no sign.
    unsigned = [text.lstrip("-") if not text.strip("-0.") else text for text in written]
    cleaned = ["" if text == "nan" else text.replace("-", "−") for text in unsigned]
    return np.array(cleaned, dtype=object).reshape(grids.shape)


def _colors(grids: np.ndarray, center: float | None) -> dict[str, Any]:
    low, high = limits(grids, share=0)
    if center is None:
        return {"cmap": STATISTIC_COLORS, "vmin": low, "vmax": high}
    reach = max(abs(high - center), abs(low - center)) or 1e-12
    return {"cmap": DIVERGING_COLORS, "vmin": center - reach, "vmax": center + reach}


def _explain(sheet: Sheet, drawn: Any, label: str, height: float) -> None:
    scale = sheet.page.scale
    # A bar as long as a tall sheet would be its largest object.
    share = min(1.0, _LONGEST_BAR * scale / height)
    ticks = MaxNLocator(5, steps=[1, 2, 2.5, 5, 10])
    aspect = share * height / (0.08 * scale)
    bar = color_bar(sheet.figure, drawn, ax=sheet.axes, shrink=share, aspect=aspect, pad=0.02,
                    anchor=(0.0, 1.0), ticks=ticks)  # fmt: skip
    bar.set_label(sheet.page.wrapped(label, 0.85 * share * height), linespacing=1.0)
