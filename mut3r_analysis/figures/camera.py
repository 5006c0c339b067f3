"""The path of the camera from above and from the side."""

from typing import Any, NamedTuple

import matplotlib
import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure, SubFigure
from matplotlib.ticker import MaxNLocator

from mut3r_analysis.errors import InvalidArgument
from mut3r_analysis.figures.page import color_bar, fix_layout, new_page
from mut3r_analysis.figures.panels import Part, looks
from mut3r_analysis.figures.reading import (
    Runs,
    find_variable,
    named_runs,
    of_one_sequence,
    sentence,
    source_lines,
)
from mut3r_analysis.figures.seen import true_poses, view_slopes
from mut3r_analysis.figures.styling import ACCENT, INK, QUIET, TIME_COLORS, Size, style

_MOST_FRUSTA = 9


class View(NamedTuple):
    """A projection of the world: the axes shown, their signs and labels, and the image's axis."""

    name: str
    across: int
    up: int
    sign: int
    labels: tuple[str, str]
    image_axis: int

    def project(self, points: np.ndarray) -> np.ndarray:
        """Return points ``(point, xyz)`` of the world as ``(point, 2)``: across and up."""
        return np.stack([points[:, self.across], self.sign * points[:, self.up]], axis=-1)


# The world is the first camera's: x right, y down, z forward.
VIEWS = (
    View("from above", 0, 2, 1, ("x, right (m)", "z, forward (m)"), 0),
    View("from the side", 2, 1, -1, ("z, forward (m)", "−y, up (m)"), 1),
)


def open_views(
    page: Size, texts: tuple[str, str, str], on: SubFigure | None = None
) -> tuple[Any, list[tuple[Axes, View]]]:
    """Make a page with an axis for each of `VIEWS`, below each other where it is narrow."""
    stacked = page.width < 5
    height = (2 * 0.75 if stacked else 0.45) * (page.width - 0.4 * page.scale)
    figure, _ = new_page(page, min(height, page.tallest), *texts, on=on)
    axes = figure.subplots(*((2, 1) if stacked else (1, 2)))
    for axis, view in zip(axes, VIEWS, strict=True):
        axis.set(xlabel=view.labels[0], ylabel=view.labels[1])
        axis.set_title(view.name)
    return figure, list(zip(axes, VIEWS, strict=True))


def camera_path(run: Runs, *, size: str = "page", on: SubFigure | None = None) -> Figure:
    """Show where the camera went and where it looked, from above and from the side.

    Where a run holds true poses, the true path is laid over the predicted one so that both first
    poses coincide; it is not scaled. Several runs are laid over the first one in the same way.

    Parameters
    ----------
    run : xarray.DataTree, or mapping of str to xarray.DataTree
        Several runs of one sequence are told apart by colour and dashes, one alone by its frames.
    size : {"column", "page", "slide"}
    on : matplotlib.figure.SubFigure, optional
        Drawn into instead of a new figure.

    Returns
    -------
    matplotlib.figure.Figure

    Raises
    ------
    InvalidArgument
        When a run holds no pose, or they are of different sequences.

    Examples
    --------
    >>> figure = camera_path(run)
    """
    named = named_runs(run)
    of_one_sequence(named)
    paths = {name or "predicted": _predicted(each) for name, each in named.items()}
    first, alone = next(iter(named.values())), len(named) == 1
    world = next(iter(paths.values()))
    paths = {name: world[0] @ np.linalg.inv(path[0]) @ path for name, path in paths.items()}
    truth, slopes = true_poses(first), view_slopes(first)
    frames = find_variable(first, "prediction/pose", "")["frame"].values
    spread = [*paths.values(), *([] if truth is None else [truth[np.isfinite(truth).all((1, 2))]])]
    centres = np.concatenate([poses[:, :3, 3] for poses in spread])
    reach = 0.09 * max(float(np.ptp(centres, axis=0).max()), 1e-6)
    others = ["" if truth is None else "true path", "" if alone else "other runs"]
    moved = " and ".join(filter(None, others))
    subtitle = sentence(
        f"{len(frames)} frames; axes of the predicted world",
        f"{moved} moved rigidly onto the first predicted pose, not scaled" if moved else "",
        "open angles: field of view" if slopes else "ticks: viewing direction",
    )
    with style(size) as page:
        page = page.within(on)
        figure, views = open_views(page, ("Camera path", subtitle, source_lines(named)), on)
        for axis, view in views:
            if truth is not None:
                path = view.project(truth[:, :3, 3])
                axis.plot(*path.T, color=QUIET, linestyle=(0, (4, 2)), label="truth", zorder=1)
            dots = _draw_paths(axis, view, paths, frames, reach, slopes)
            # Equal metres in both directions, in a box that fills its place.
            axis.margins(0.08)
            axis.set_aspect("equal", adjustable="datalim")
        axes = [axis for axis, _ in views]
        handles = dict(zip(*reversed(axes[0].get_legend_handles_labels()), strict=True))
        order = [name for name in (*paths, "truth", "first pose") if name in handles]
        axes[0].legend([handles[name] for name in order], order, loc="best")
        if alone and len(frames) > 1:
            ticks = MaxNLocator(6, integer=True)
            color_bar(
                figure, dots, "frame", ax=axes, aspect=30, pad=0.015, shrink=0.95, ticks=ticks
            )
        return fix_layout(figure)


def _predicted(run: xr.DataTree) -> np.ndarray:
    """Return camera-to-world transforms, float64 (frame, row, col)."""
    pose = find_variable(run, "prediction/pose", "Run again with outputs=('pose',) or more")
    predicted = pose.transpose("frame", "row", "col").values.astype(np.float64)
    if not np.isfinite(predicted).all():
        raise InvalidArgument("/prediction/pose has values that are NaN or infinite")
    return predicted


def _draw_paths(
    axis: Axes,
    view: View,
    paths: dict[str, np.ndarray],
    frames: np.ndarray,
    reach: float,
    slopes: tuple[float, float] | None,
) -> Any:
    """Draw predicted paths with some of their views; return the dots, coloured by frame."""
    wide, alone = _line_width(), len(paths) == 1
    dots: Any = None
    series = looks(Part("run", "", list(paths), None))
    for (name, poses), look in zip(paths.items(), series, strict=True):
        path = view.project(poses[:, :3, 3])
        if alone:
            axis.plot(*path.T, color=INK, linewidth=0.6 * wide, zorder=2, label=name)
            dots = axis.scatter(
                path[:, 0],
                path[:, 1],
                c=frames,
                cmap=TIME_COLORS,
                s=(3.2 * wide) ** 2,
                linewidths=0,
                zorder=3,
            )
        else:
            axis.plot(*path.T, color=look.color, linestyle=look.line, zorder=2, label=name)
        shown = np.linspace(0, len(poses) - 1, _MOST_FRUSTA).round().astype(int)
        for index in np.unique(shown):
            color = QUIET if alone else look.color
            _draw_frustum(axis, poses[index], view, reach, slopes, color)
    axis.plot(
        *path[0], marker="o", markersize=7 * wide, markerfacecolor="none", linestyle="none",
        markeredgecolor=ACCENT, markeredgewidth=wide, label="first pose", zorder=4,
    )  # fmt: skip
    return dots


def _line_width() -> float:
    """Give the width of lines in the style in force, points."""
    return float(matplotlib.rcParams["lines.linewidth"])


def _draw_frustum(
    axis: Axes,
    pose: np.ndarray,
    view: View,
    reach: float,
    slopes: tuple[float, float] | None,
    color: Any,
) -> None:
    """Draw two edges of the field of view in this projection, or one viewing direction."""
    rays = np.array([[0.0, 0.0, 1.0]])
    if slopes is not None:
        rays = np.repeat(rays, 2, axis=0)
        rays[:, view.image_axis] = np.array([-1, 1]) * slopes[view.image_axis]
        # Edges of wide fields stay as long as those of narrow ones.
        rays /= np.linalg.norm(rays, axis=1, keepdims=True)
    centre = pose[:3, 3]
    ends = centre + reach * rays @ pose[:3, :3].T
    line = view.project(np.array([ends[0], centre, *ends[1:]]))
    axis.plot(*line.T, color=color, linewidth=0.6 * _line_width(), zorder=1.5)
