"""Panels of a summary: which dimension goes where, how its labels read and its series look."""

import math
import re
from collections.abc import Sequence
from typing import Any, NamedTuple, Self

import numpy as np
import pandas as pd
import xarray as xr
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure, SubFigure

from mut3r_analysis.errors import InvalidArgument
from mut3r_analysis.figures.page import fix_layout, new_page
from mut3r_analysis.figures.reading import text_label
from mut3r_analysis.figures.styling import ACCENT, INK, QUIET, STATISTIC_COLORS, Size
from mut3r_analysis.foundation.fields import meant

# Told apart by colour-blind readers; neighbours differ in grey as well.
_COLORS = (INK, ACCENT, "#4aa3df", "#00614a", "#d38fb8", "#5b4b9e", "#b58900", QUIET)
_MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<")
_LINES: tuple[Any, ...] = ("-", (0, (4, 1.6)), (0, (1, 1.2)), (0, (5, 1.2, 1, 1.2)))
MOST_SERIES = 2 * len(_COLORS)


class Part(NamedTuple):
    """What a dimension shows: its name, its labels, and its numbers where it has any."""

    name: str
    units: str
    labels: list[str]
    numbers: np.ndarray | None

    @property
    def title(self) -> str:
        """Name with units, for an axis or a legend."""
        return f"{self.name} ({self.units})" if self.units else self.name

    def headings(self) -> list[str]:
        """Labels that stand alone: words do, numbers say of what."""
        if self.numbers is None:
            return self.labels
        return [f"{self.name} {label} {self.units}".strip() for label in self.labels]


class Placed(NamedTuple):
    """Numbers in the order of their parts; ``lower`` and ``upper`` are NaN where not known."""

    value: np.ndarray
    lower: np.ndarray
    upper: np.ndarray
    parts: list[Part]
    label: str

    @classmethod
    def of(cls, values: Any, **roles: str | None) -> Self:
        """Put every dimension in its place.

        Parameters
        ----------
        values : Dataset or DataArray
            With ``value`` and perhaps ``lower`` and ``upper``; or the values alone. Dimensions of
            length 1 that have no role are dropped.
        **roles : str or None
            Argument of the figure -> name of a dimension, in the order wanted.

        Returns
        -------
        Placed
            One axis per role, of length 1 for a role that is None.

        Raises
        ------
        InvalidArgument
            When a role names no dimension, two name the same, or a dimension is left without one.
        """
        dataset = _as_dataset(values)
        present = ", ".join(f"{dim} ({size})" for dim, size in dataset["value"].sizes.items())
        present = f"dimensions are {present}" if present else "there are no dimensions"
        named = {role: dim for role, dim in roles.items() if dim is not None}
        for role, dim in named.items():
            if dim not in dataset["value"].dims:
                near = meant([dim], dataset["value"].dims)
                raise InvalidArgument(
                    f"{role}={dim!r} is no dimension of these values{near}; {present}"
                )
            if not dataset["value"].sizes[dim]:
                raise InvalidArgument(f"{role}={dim!r} has no entries: nothing was left to draw")
        if len(set(named.values())) < len(named):
            raise InvalidArgument(f"each dimension has one place, got {named}; {present}")
        free = [dim for dim in dataset["value"].dims if dim not in named.values()]
        left = [str(dim) for dim in free if dataset.sizes[dim] > 1]
        if left:
            unused = [role for role in roles if role not in named]
            advice = f"give it as {' or '.join(unused)}, or select" if unused else "select"
            raise InvalidArgument(
                f"dimension {left[0]!r} has no place in this figure; {advice} or reduce it first, "
                f"for example .isel({left[0]}=0); {present}"
            )
        dataset = dataset.isel(dict.fromkeys(free, 0), drop=True)
        order = [dim for dim in roles.values() if dim is not None]
        axes = tuple(axis for axis, dim in enumerate(roles.values()) if dim is None)
        value, lower, upper = (
            np.expand_dims(dataset[name].transpose(*order).values.astype(np.float64), axes)
            for name in ("value", "lower", "upper")
        )
        parts = [_part(dataset, dim) for dim in roles.values()]
        return cls(value, lower, upper, parts, text_label(dataset["value"]))

    def table(self, panel: int) -> pd.DataFrame:
        """Return a panel as seaborn takes it: three rows per estimate, for `GIVEN` to read.

        The columns are ``series`` and ``entry``, which are positions, and ``value``; the rows of
        an estimate are its value and the two ends of its interval.
        """
        shown = np.stack([part[panel] for part in self[:3]], axis=-1)
        series, entry, _ = np.indices(shown.shape)
        # An interval without a value is not drawn.
        shown = np.where(np.isnan(shown[..., :1]), np.nan, shown)
        flat = {"series": series.ravel(), "entry": entry.ravel(), "value": shown.ravel()}
        return pd.DataFrame(flat)


GIVEN: dict[str, Any] = {
    "estimator": lambda rows: rows.iloc[0],
    "errorbar": lambda rows: (rows.iloc[1:].min(), rows.iloc[1:].max()),
}
"""What seaborn makes of the rows of :meth:`Placed.table`: nothing is estimated again."""


class Look(NamedTuple):
    """Colour, marker and line of a series; any two of them tell series apart without the first."""

    color: Any
    marker: str
    line: Any
    filled: bool


def looks(part: Part) -> list[Look]:
    """One look per label: an ordered scale for numbers, contrasting colours for words.

    Raises
    ------
    InvalidArgument
        When there are more than can be told apart.
    """
    count = len(part.labels)
    if count > MOST_SERIES:
        raise InvalidArgument(
            f"colors={part.name!r} has {count} entries, of which {MOST_SERIES} can be told apart; "
            "show it as panels, or select fewer"
        )
    colors: Any = [_COLORS[index % len(_COLORS)] for index in range(count)]
    if part.numbers is not None and count > 2:
        # The light end of the scale would not stand out from white paper.
        colors = colormaps[STATISTIC_COLORS](np.linspace(0, 0.78, count))
    return [
        Look(color, _MARKERS[at % len(_MARKERS)], _LINES[at % len(_LINES)], at < len(_MARKERS))
        for at, color in enumerate(colors)
    ]


def unnamed(axis: Axes) -> None:
    """Take off the names of columns that seaborn writes beside an axis."""
    for side in (axis.xaxis, axis.yaxis):
        side.label.set(text="", visible=True)


def shape_of(count: int, across: int) -> tuple[int, int]:
    """Rows and columns of panels: at most so many across, and as even as possible."""
    rows = math.ceil(count / max(1, across))
    return rows, math.ceil(count / rows)


def lines_in(labels: list[str]) -> int:
    """Count the lines of the tallest label."""
    return max(label.count("\n") + 1 for label in labels)


class Sheet(NamedTuple):
    """A page with panels in rows, the last of which may be short; `part` has a legend.

    It is not its `own` page where it stands on what was handed in.
    """

    figure: Any
    axes: list[Axes]
    across: int
    page: Size
    part: Part | None
    own: bool

    @property
    def left(self) -> list[Axes]:
        """The first panel of every row."""
        return self.axes[:: self.across]

    @property
    def bottom(self) -> list[Axes]:
        """The panels below which there is none."""
        return self.axes[-self.across :]

    @property
    def root(self) -> Figure:
        """The figure as a whole, of which `figure` may be a part."""
        return self.figure.get_figure(root=True)

    @classmethod
    def open(
        cls,
        page: Size,
        shape: tuple[int, int],
        height: float,
        texts: tuple[str, str, str],
        headings: list[str],
        explained: Part | None = None,
        share_x: bool = True,
        on: Axes | SubFigure | None = None,
    ) -> Self:
        """Make a page of panels that share their axes.

        Parameters
        ----------
        page : Size
        shape : (int, int)
            Rows and columns of panels.
        height : float
            Of everything between heading and source, without the legend, inches.
        texts : (str, str, str)
            Title, subtitle and source.
        headings : list of str
            One per panel.
        explained : Part or None
            What the legend of :meth:`close` will explain; room for it is left.
        share_x : bool
            Whether they share the horizontal one as well.
        on : Axes or SubFigure, optional
            Drawn into instead of a new page.

        Raises
        ------
        InvalidArgument
            For several panels on one `Axes`.
        """
        if isinstance(on, Axes):
            if len(headings) > 1:
                raise InvalidArgument(
                    f"{len(headings)} panels do not fit on one Axes; hand in a SubFigure"
                )
            on.set_title(page.wrapped(headings[0] or texts[0], page.width))
            return cls(on.get_figure(), [on], 1, page, explained, False)
        key = _legend_height(page, explained) if explained else 0.0
        figure, _ = new_page(page, height + key, *texts, on=on)
        if on is None:
            engine: Any = figure.get_layout_engine()
            left, bottom, width, tall = engine.get()["rect"]
            engine.set(rect=(left, bottom, width, tall - key / figure.get_figheight()))
        grid = figure.subplots(*shape, sharex=share_x, sharey=True, squeeze=False)
        axes = list(grid.flat)
        for axis in axes[len(headings) :]:
            axis.remove()
        for axis, heading in zip(axes, headings, strict=False):
            axis.set_title(heading, linespacing=1.0)
        return cls(figure, axes[: len(headings)], shape[1], page, explained, on is None)

    def close(self, below: str, handles: Sequence[Any] = ()) -> None:
        """Write what all panels share - the label below and the legend above - and fix the layout.

        Parameters
        ----------
        below : str
            Label of the horizontal axis, in lines.
        handles : sequence
            One artist per label of what the legend explains.
        """
        figure, bottom = self.figure, self.bottom
        alone = len(bottom) == 1 or not self.own
        for axis in bottom:
            axis.tick_params(axis="x", labelbottom=True)
            # One label for several panels is written last; blank ones keep its room.
            axis.set_xlabel(below if alone else re.sub(r"[^\n]", " ", below))
        if self.part is not None:
            self._draw_legend(handles, self.part)
        if self.own:
            fix_layout(figure)
        if alone:
            return
        renderer = figure.canvas.get_renderer()
        top = min(axis.xaxis.label.get_window_extent(renderer).y1 for axis in bottom)
        boxes = [axis.get_position() for axis in bottom]
        middle = (min(box.x0 for box in boxes) + max(box.x1 for box in boxes)) / 2
        figure.text(middle, top / figure.bbox.height, below, ha="center", va="top")

    def _draw_legend(self, handles: Sequence[Any], part: Part) -> None:
        figure, page = self.figure, self.page
        if not self.own:
            self.axes[-1].legend(handles, part.labels, title=part.title)
            return
        engine: Any = figure.get_layout_engine()
        left, bottom, _, tall = engine.get()["rect"]
        key = _legend_height(page, part) / figure.get_figheight()
        legend = figure.legend(
            handles, part.labels, title=part.title, ncols=_legend_shape(page, part)[0],
            loc="upper left", bbox_to_anchor=(left, bottom + tall + key), alignment="left",
            borderpad=0, columnspacing=1.2, handletextpad=0.5,
        )  # fmt: skip
        legend.get_title().set_color(QUIET)
        legend.set_in_layout(False)


def _legend_height(page: Size, part: Part) -> float:
    _, rows = _legend_shape(page, part)
    return (0.155 * (rows + 1) + 0.06) * page.scale


def _legend_shape(page: Size, part: Part) -> tuple[int, int]:
    entry = page.text_width(part.labels) + 0.42 * page.scale
    columns = max(1, min(len(part.labels), int((page.width - 0.1) / entry)))
    rows = math.ceil(len(part.labels) / columns)
    return math.ceil(len(part.labels) / rows), rows


def _as_dataset(values: Any) -> xr.Dataset:
    if isinstance(values, xr.DataArray):
        # A name of code is read as words.
        name = str(values.name or "value").replace("_", " ")
        values = xr.Dataset({"value": values.assign_attrs({"long_name": name, **values.attrs})})
    if not isinstance(values, xr.Dataset):
        raise InvalidArgument(
            "values must be a Dataset with value, lower and upper, as studies.estimates.estimate "
            f"returns, or a DataArray; got {type(values).__name__}"
        )
    if "value" not in values:
        held = ", ".join(map(str, values.data_vars)) or "nothing"
        raise InvalidArgument(
            f"these values hold {held} and no 'value'; give what studies.estimates.estimate "
            "returned, or one variable as a DataArray"
        )
    unknown = xr.full_like(values["value"], np.nan, dtype=float)
    bounds = {name: values.get(name, unknown) for name in ("lower", "upper")}
    return xr.Dataset({"value": values["value"], **bounds})


def _part(dataset: xr.Dataset, dim: str | None) -> Part:
    if dim is None:
        return Part("", "", [""], None)
    coordinate = dataset[dim]
    entries = coordinate.values.tolist()
    numeric = coordinate.dtype.kind in "iuf" or all(
        isinstance(entry, int | float) and not isinstance(entry, bool) for entry in entries
    )
    units = str(coordinate.attrs.get("units", "1"))
    return Part(
        str(coordinate.attrs.get("long_name", dim.replace("_", " "))),
        "" if units == "1" else units,
        [_spelled(entry) for entry in entries],
        np.asarray(entries, dtype=np.float64) if numeric else None,
    )


def _spelled(entry: Any) -> str:
    if entry is None:
        return "none"
    return f"{entry:g}" if isinstance(entry, float) else str(entry)
