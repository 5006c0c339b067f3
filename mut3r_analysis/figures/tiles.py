"""A contact sheet: rows and columns of equal pictures, with a colour bar beside each row."""

import re
import textwrap
from collections.abc import Iterable
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure, SubFigure
from matplotlib.ticker import MaxNLocator

from mut3r_analysis.figures.page import color_bar, new_page
from mut3r_analysis.figures.styling import Size

_GAP = 0.035
_LEFT = 0.2
_BAR = 0.07
_BAR_TEXT = 0.62


class Tiles:
    """A sheet of ``rows`` x ``columns`` pictures of one aspect.

    Parameters
    ----------
    size : Size
    rows : int
    columns : list of str
        What is written above each.
    pixels : (int, int)
        Height and width of a picture.
    texts : tuple of str
        Title, subtitle and source.
    on : SubFigure, optional
        Drawn into instead of a new figure.
    """

    def __init__(
        self,
        size: Size,
        rows: int,
        columns: list[str],
        pixels: tuple[int, ...],
        texts: tuple[str, str, str],
        on: SubFigure | None = None,
    ) -> None:
        self._scale = size.scale
        self._extent = (-0.5, pixels[1] - 0.5, pixels[0] - 0.5, -0.5)
        count, aspect = len(columns), pixels[0] / pixels[1]
        self._bars: list[Any] = []
        gap = _GAP * size.scale
        left, right = _LEFT * size.scale, (_GAP + _BAR + _BAR_TEXT) * size.scale
        top = 0.14 * size.scale
        room = size.width - 0.1 * size.scale - left - right

        def fitting(tallest: float) -> float:
            # Few columns would give huge pictures: a sheet keeps the scale of a photograph.
            tall = (tallest - (rows - 1) * gap - top) / rows / aspect
            return min((room - (count - 1) * gap) / count, 0.42 * room, tall)

        tile = fitting(size.tallest)
        height = rows * tile * aspect + (rows - 1) * gap + top
        self.figure, body = new_page(size, height, *texts, constrained=False, on=on)
        # Texts take their part of what was handed in.
        tile = min(tile, fitting(body.height))
        self._inches = np.array([size.width, body.total])
        self._tile, self._aspect, self._gap = tile, aspect, gap
        self._left = body.left + left
        self._top = body.bottom + body.height - top
        self._right = self._left + count * tile + (count - 1) * gap
        self.axes = np.array(
            [[self._picture(row, column) for column in range(count)] for row in range(rows)]
        )
        for axis, label in zip(self.axes[0], columns, strict=True):
            axis.set_title(label, loc="center")

    @property
    def root(self) -> Figure:
        """The figure as a whole."""
        return self.figure.get_figure(root=True)

    def show(self, row: int, column: int, values: np.ndarray, **how: Any) -> Any:
        """Draw an array ``(y, x)``, of pixels or of patches, as large as a picture."""
        return show(self.axes[row, column], values, self._extent, **how)

    def show_row(self, row: int, pictures: Iterable[Any], label: str = "", **how: Any) -> Any:
        """Draw arrays from the first column on, and write left of them, upwards."""
        if label:
            self.axes[row, 0].set_ylabel(label, rotation=90)
        for column, values in enumerate(pictures):
            drawn = self.show(row, column, values, **how)
        return drawn

    def bar(self, mappable: ScalarMappable, first: int, last: int) -> Any:
        """Draw the colour bar of rows `first` to `last`, both included."""
        bottom, height = self._span(first, last)
        left = self._right + 1.5 * self._gap
        inset = 0.05 * height
        axis = self._add_axes(left, bottom + inset, _BAR * self._scale, height - 2 * inset)
        ticks = MaxNLocator(4, steps=[1, 2, 2.5, 5, 10])
        bar = color_bar(self.figure, mappable, cax=axis, ticks=ticks)
        axis.tick_params(length=1.5 * self._scale)
        self._bars.append(bar)
        return bar

    def label_bars(self, first: int, last: int, label: str) -> None:
        """Write right of the colour bars, upwards, centred on rows `first` to `last`.

        Called once all bars are drawn, so that the labels stand in one line.
        """
        bottom, height = self._span(first, last)
        across, up = self._inches
        boxes = [bar.ax.get_tightbbox() for bar in self._bars]
        right = (max(box.x1 for box in boxes) - self.figure.bbox.x0) / self.root.dpi
        letters = max(12, int(height / self._scale * 72 / 3.2))
        # What stands in parentheses stays in one piece.
        tied = re.sub(r" (?=[^(]*\))", "\N{NO-BREAK SPACE}", label)
        self.figure.text(
            (right + self._gap) / across,
            (bottom + height / 2) / up,
            "\n".join(textwrap.wrap(tied, letters)),
            rotation=90,
            ha="left",
            va="center",
            linespacing=1.0,
        )

    def _picture(self, row: int, column: int) -> Axes:
        left = self._left + column * (self._tile + self._gap)
        return self._add_axes(left, self._bottom(row), self._tile, self._tile * self._aspect)

    def _bottom(self, row: int) -> float:
        height = self._tile * self._aspect
        return self._top - height - row * (height + self._gap)

    def _span(self, first: int, last: int) -> tuple[float, float]:
        bottom = self._bottom(last)
        return bottom, self._bottom(first) + self._tile * self._aspect - bottom

    def _add_axes(self, left: float, bottom: float, width: float, height: float) -> Axes:
        across, up = self._inches
        return self.figure.add_axes((left / across, bottom / up, width / across, height / up))


def show(axis: Axes, values: np.ndarray, extent: tuple[float, ...], **how: Any) -> Any:
    """Draw an array ``(y, x)`` over an extent in pixels; missing values are left light grey."""
    axis.set(facecolor="#eeeeee", xticks=[], yticks=[])
    axis.spines[:].set_visible(False)
    return axis.imshow(values, extent=extent, aspect="auto", **how)  # type: ignore[arg-type]


def outline(axis: Axes, mask: np.ndarray, side: float, scale: float) -> None:
    """Draw the border of a mask ``(row, column)`` whose cells are squares of `side` pixels."""
    padded = np.pad(mask, 1)
    lines = []
    for row, column in np.argwhere(padded[1:] != padded[:-1]):
        lines.append([(column - 1, row), (column, row)])
    for row, column in np.argwhere(padded[:, 1:] != padded[:, :-1]):
        lines.append([(column, row - 1), (column, row)])
    edges = [[(x * side - 0.5, y * side - 0.5) for x, y in line] for line in lines]
    # Two lines, so that the border is seen on light and on dark.
    for color, width in (("white", 2.0), ("black", 0.8)):
        axis.add_collection(LineCollection(edges, colors=color, linewidths=width * scale))


def darkened(image: np.ndarray) -> np.ndarray:
    """Brightness (..., y, x) of images (..., y, x, rgb), compressed.

    A frame is recognised beneath a statistic without drowning it.
    """
    return 0.15 + 0.75 * (image @ np.array([0.299, 0.587, 0.114])) / 255


def limits(values: Any, share: float = 0.02) -> tuple[float, float]:
    """Colour limits that leave out a share of the finite values at each end."""
    finite = np.asarray(values, dtype=np.float64)
    finite = finite[np.isfinite(finite)]
    if not finite.size:
        return 0.0, 1.0
    low, high = (float(edge) for edge in np.quantile(finite, (share, 1 - share)))
    # A constant field still needs a range to be drawn in one colour.
    return (low, high) if high > low else (low, low + max(abs(low) * 1e-3, 1e-12))
