"""The path of the camera from above and from the side."""

from typing import Any, NamedTuple

import matplotlib
import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from mut3r_analysis.errors import InvalidArgument
from mut3r_analysis.figures.page import Page, color_bar, fix_layout, new_page
from mut3r_analysis.figures.reading import find_variable, sentence, source_line
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


def open_views(page: Size, texts: tuple[str, str, str]) -> tuple[Page, list[tuple[Axes, View]]]:
    """Make a page with an axis for each of `VIEWS`, below each other where it is narrow."""
    stacked = page.width < 5
    height = (2 * 0.75 if stacked else 0.45) * (page.width - 0.4 * page.scale)
    figure, _ = new_page(page, min(height, page.tallest), *texts)
    axes = figure.subplots(*((2, 1) if stacked else (1, 2)))
    for axis, view in zip(axes, VIEWS, strict=True):
        axis.set(xlabel=view.labels[0], ylabel=view.labels[1])
        axis.set_title(view.name)
    return figure, list(zip(axes, VIEWS, strict=True))


def camera_path(run: xr.DataTree, *, size: str = "page") -> Page:
    """Show where the camera went and where it looked, from above and from the side.

    Where the run holds true poses, the true path is laid over the predicted one so that both first
    poses coincide; it is not scaled.

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
        When the run holds no pose.

    Examples
    --------
    >>> figure = camera_path(run)
    """
    pose = find_variable(run, "prediction/pose", "Run again with outputs=('pose',) or more")
    frames = pose["frame"].values
    predicted = pose.transpose("frame", "row", "col").values.astype(np.float64)
    if not np.isfinite(predicted).all():
        raise InvalidArgument("/prediction/pose has values that are NaN or infinite")
    truth = true_poses(run)
    spread = [predicted, *([] if truth is None else [truth[np.isfinite(truth).all((1, 2))]])]
    centres = np.concatenate([poses[:, :3, 3] for poses in spread])
    reach = 0.09 * max(float(np.ptp(centres, axis=0).max()), 1e-6)
    slopes = view_slopes(run)
    shown = np.unique(np.linspace(0, len(frames) - 1, _MOST_FRUSTA).round().astype(int))
    subtitle = sentence(
        f"{len(frames)} frames; axes of the predicted world",
        "true path moved rigidly onto the first predicted pose, not scaled"
        if truth is not None
        else "",
        "open angles: field of view" if slopes else "ticks: viewing direction",
    )
    with style(size) as page:
        figure, views = open_views(page, ("Camera path", subtitle, source_line(run)))
        for axis, view in views:
            if truth is not None:
                path = view.project(truth[:, :3, 3])
                axis.plot(*path.T, color=QUIET, linestyle=(0, (4, 2)), label="truth", zorder=1)
            dots = _draw_path(axis, view.project(predicted[:, :3, 3]), frames)
            for index in shown:
                _draw_frustum(axis, predicted[index], view, reach, slopes)
            # Equal metres in both directions, in a box that fills its place.
            axis.margins(0.08)
            axis.set_aspect("equal", adjustable="datalim")
        axes = [axis for axis, _ in views]
        handles = dict(zip(*reversed(axes[0].get_legend_handles_labels()), strict=True))
        order = [name for name in ("predicted", "truth", "first pose") if name in handles]
        axes[0].legend([handles[name] for name in order], order, loc="best")
        if len(frames) > 1:
            ticks = MaxNLocator(6, integer=True)
            color_bar(
                figure, dots, "frame", ax=axes, aspect=30, pad=0.015, shrink=0.95, ticks=ticks
            )
        fix_layout(figure)
    return figure


def _draw_path(axis: Axes, path: np.ndarray, frames: np.ndarray) -> Any:
    wide = _line_width()
    axis.plot(*path.T, color=INK, linewidth=wide * 0.6, zorder=2, label="predicted")
    dots = axis.scatter(
        path[:, 0], path[:, 1], c=frames, cmap=TIME_COLORS, s=(3.2 * wide) ** 2, linewidths=0,
        zorder=3,
    )  # fmt: skip
    axis.plot(
        *path[0], marker="o", markersize=7 * wide, markerfacecolor="none", linestyle="none",
        markeredgecolor=ACCENT, markeredgewidth=wide, label="first pose", zorder=4,
    )  # fmt: skip
    return dots


def _line_width() -> float:
    """Give the width of lines in the style in force, points."""
    return float(matplotlib.rcParams["lines.linewidth"])


def _draw_frustum(
    axis: Axes, pose: np.ndarray, view: View, reach: float, slopes: tuple[float, float] | None
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
    axis.plot(*line.T, color=QUIET, linewidth=0.6 * _line_width(), zorder=1.5)
