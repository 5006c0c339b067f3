"""One look for all figures, at three sizes, without lasting changes to matplotlib."""

import math
import re
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

from mut3r_analysis.errors import InvalidArgument
from mut3r_analysis.foundation.fields import one_of, shown

FONT = 7.5
"""Size of the style's text at scale 1, points."""

LETTER = 0.44
"""Width of an average letter over the font size."""

STYLE_FILE = Path(__file__).with_name("paper.mplstyle")


@dataclass(frozen=True)
class Size:
    """A place where figures are shown.

    Attributes
    ----------
    width : float
        Inches.
    tallest : float
        Greatest height of a plot without its texts, inches.
    scale : float
        How much larger text and lines are than on paper.
    """

    width: float
    tallest: float
    scale: float

    def within(self, on: Any) -> Self:
        """Return the size of an `Axes` or `SubFigure` that was handed in; itself for None.

        Raises
        ------
        InvalidArgument
            For something else.
        """
        if on is None:
            return self
        from matplotlib.axes import Axes
        from matplotlib.figure import SubFigure

        if not isinstance(on, Axes | SubFigure):
            raise InvalidArgument(f"on must be a matplotlib Axes or SubFigure, got {shown(on)}")
        root: Any = on.get_figure(root=True)
        return replace(self, width=on.bbox.width / root.dpi, tallest=on.bbox.height / root.dpi)

    def text_width(self, labels: list[str]) -> float:
        """Inches of the longest line."""
        longest = max(len(line) for label in labels for line in label.split("\n"))
        return longest * LETTER * FONT / 72 * self.scale

    def wrapped(self, text: str, inches: float) -> str:
        """Break text into lines of about that length, at spaces, underscores and hyphens only."""
        letters = max(6, int(inches * 72 / (LETTER * FONT * self.scale)))
        # A range such as "[0, 2)" stays in one piece; a name of code may go on in the next line.
        tied = re.sub(r"(?<=,) (?=[^\[(]*[\])])", "\N{NO-BREAK SPACE}", text).replace("_", "_\t")
        lines = textwrap.wrap(tied, letters, break_long_words=False, expand_tabs=False,
                              replace_whitespace=False)  # fmt: skip
        return "\n".join(lines).replace("\t", "") or text

    def label_size(self, pitch: float, lines: int) -> float:
        """Size at which labels of so many lines fit rows of that distance, points."""
        points = FONT * self.scale * min(1.0, pitch / ((0.12 * lines + 0.01) * self.scale))
        # Widths of text at fractional sizes differ between resolutions.
        return math.floor(2 * points) / 2


SIZES = {"column": Size(3.4, 6.5, 1.0), "page": Size(7.0, 8.0, 1.0), "slide": Size(12.0, 5.6, 1.9)}
"""One column of a two-column paper, its whole width, and a slide."""

INK = "#1a1a1a"
QUIET = "#767676"
ACCENT = "#c2410c"
"""Text, secondary text, and the one colour for what must stand out (dark enough in grey)."""

# Perceptually uniform, told apart by colour-blind readers, and ordered the same way in grey.
STATISTIC_COLORS = "viridis"
DEPTH_COLORS = "magma_r"
CONFIDENCE_COLORS = "cividis"
TIME_COLORS = "plasma"

_LENGTHS = (
    "font.size",
    "axes.linewidth",
    "axes.labelpad",
    "axes.titlepad",
    "xtick.major.size",
    "ytick.major.size",
    "xtick.major.width",
    "ytick.major.width",
    "xtick.major.pad",
    "ytick.major.pad",
    "lines.linewidth",
    "lines.markersize",
    "patch.linewidth",
)


def find_size(name: str) -> Size:
    """Return a size by its name.

    Raises
    ------
    InvalidArgument
        For a name that is not in `SIZES`.
    """
    return SIZES[one_of("size", name, SIZES)]


@contextmanager
def style(size: str = "page") -> Iterator[Size]:
    """Draw in the package's style; matplotlib's settings are as before when the block ends.

    Every setting starts from matplotlib's own default, so that a figure does not depend on the
    reader's configuration.

    Parameters
    ----------
    size : {"column", "page", "slide"}

    Yields
    ------
    Size
        Width and scale of what is drawn.

    Examples
    --------
    >>> import matplotlib.pyplot as plt
    >>> with style("column") as page:
    ...     figure = plt.figure(figsize=(page.width, 2))
    >>> plt.close(figure)
    """
    import matplotlib

    found = find_size(size)
    with matplotlib.rc_context(fname=STYLE_FILE):
        settings: dict[Any, Any] = matplotlib.rcParams
        for name in _LENGTHS:
            settings[name] *= found.scale
        yield found
