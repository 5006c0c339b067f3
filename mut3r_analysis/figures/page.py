"""The sheet of paper: a titled figure with its source below, which notebooks show by themselves."""

import textwrap
from io import BytesIO
from typing import Any, NamedTuple

from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colorbar import Colorbar
from matplotlib.figure import Figure, SubFigure
from matplotlib.ticker import FormatStrFormatter, LogLocator, NullLocator

from mut3r_analysis.errors import InvalidArgument
from mut3r_analysis.figures.styling import INK, QUIET, Size, style

_SCREEN_DPI = 100


class Page(Figure):
    """A matplotlib figure that a notebook displays without pyplot and without configuration."""

    def _repr_png_(self) -> tuple[bytes, dict[str, int]]:
        """Twice the screen's resolution, shown at natural size."""
        buffer = BytesIO()
        with style():
            self.savefig(buffer, format="png", dpi=2 * _SCREEN_DPI)
        width, height = (round(inches * _SCREEN_DPI) for inches in self.get_size_inches())
        return buffer.getvalue(), {"width": width, "height": height}


class Body(NamedTuple):
    """Where the plot goes, in inches from the lower left corner of a page of that total height."""

    left: float
    bottom: float
    width: float
    height: float
    total: float


def new_page(
    size: Size,
    height: float,
    title: str,
    subtitle: str,
    source: str,
    *,
    constrained: bool = True,
    on: Axes | SubFigure | None = None,
) -> tuple[Any, Body]:
    """Make a figure with a heading, room for the plot, and a statement of source.

    Parameters
    ----------
    size : Size
    height : float
        Of the plot alone, inches.
    title : str
        What is shown.
    subtitle : str
        How it was reduced and selected.
    source : str
        Which run it comes from.
    constrained : bool
        Let matplotlib arrange axes within the body; False leaves that to the caller.
    on : matplotlib.figure.SubFigure, optional
        Written into instead of a new figure, at the height that it has.

    Returns
    -------
    (Page or SubFigure, Body)

    Raises
    ------
    InvalidArgument
        For an `Axes`: a page has room for several.
    """
    if isinstance(on, Axes):
        raise InvalidArgument(
            "this figure has several axes of its own, for which one Axes has no room; hand in a "
            "SubFigure, such as Figure(layout='constrained').subfigures(1, 2)[0]"
        )
    if on is not None and constrained:
        body = Body(0.0, 0.0, size.width, size.tallest, size.tallest)
        return _written_into(on, size, title, subtitle, source), body
    margin = 0.05 * size.scale
    font = 7.5 * size.scale
    width = size.width - 2 * margin
    lines = [
        *_lines(title, font * 1.15, "bold", INK, width),
        *_lines(subtitle, font, "normal", QUIET, width),
    ]
    footer = _lines(source, font * 0.85, "normal", QUIET, width)
    gap = 0.07 * size.scale
    head = margin + sum(line.height for line in lines) + gap
    foot = margin + sum(line.height for line in footer) + gap
    figure: Any = on
    if on is None:
        figure = Page(figsize=(size.width, head + height + foot))
        FigureCanvasAgg(figure)
    total = size.tallest if on is not None else head + height + foot
    top = total - margin
    for line in lines:
        figure.text(margin / size.width, top / total, line.text, va="top", **line.font)
        top -= line.height
    bottom = margin + sum(line.height for line in footer)
    for line in footer:
        figure.text(margin / size.width, bottom / total, line.text, va="top", **line.font)
        bottom -= line.height
    body = Body(margin, foot, width, total - head - foot, total)
    if constrained:
        rect = (margin / size.width, foot / total, width / size.width, height / total)
        figure.set_layout_engine("constrained", rect=rect, w_pad=0, h_pad=0, wspace=0.06)
    return figure, body


def _written_into(on: SubFigure, size: Size, title: str, subtitle: str, source: str) -> SubFigure:
    """Write heading and source where a figure with a constrained layout leaves room for them."""
    font = 7.5 * size.scale
    words = [line.text for line in _lines(f"{title}. {subtitle}", font, "", "", size.width)]
    footer = [line.text for line in _lines(source, 0.85 * font, "", "", size.width)]
    on.suptitle("\n".join(words), x=0.01, ha="left", fontsize=font)
    on.supxlabel("\n".join(footer), x=0.01, ha="left", fontsize=0.85 * font, color=QUIET)
    return on


def color_bar(figure: Any, drawn: Any, label: str = "", **where: Any) -> Colorbar:
    """Draw a colour bar without a frame; `where` is as matplotlib's ``colorbar`` takes it."""
    bar = figure.colorbar(drawn, **where)
    bar.outline.set_visible(False)
    bar.set_label(label)
    return bar


def decades(axis: Axis) -> None:
    """Write plain numbers at 1, 2 and 5 of every decade of a logarithmic axis."""
    axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.set_major_formatter(FormatStrFormatter("%g"))
    axis.set_minor_locator(NullLocator())


def fix_layout(figure: Page | SubFigure) -> Figure:
    """Arrange the axes once and for all, so that every rendering of the figure is the same.

    What was handed in is left to its own figure. Returns the figure as a whole.
    """
    if isinstance(figure, SubFigure):
        return figure.get_figure(root=True)
    # The arrangement of the first draw feeds the second, which no longer moves anything.
    for _ in range(2):
        figure.draw_without_rendering()
    figure.set_layout_engine("none")
    return figure


class _Line(NamedTuple):
    text: str
    height: float
    font: dict[str, Any]


def _lines(text: str, points: float, weight: str, color: str, width: float) -> list[_Line]:
    """Break text to a width in inches; the average letter is about 0.43 of the font size wide."""
    letters = max(8, int(width * 72 / (0.43 * points)))
    font = {"fontsize": points, "fontweight": weight, "color": color, "ha": "left"}
    return [
        _Line(part, 1.25 * points / 72, font)
        for part in textwrap.wrap(text, letters, break_long_words=False)
    ]
