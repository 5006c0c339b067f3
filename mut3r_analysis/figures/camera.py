"""The path of the camera from above and from the side."""

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import xarray as xr

from mut3r_analysis.errors import InvalidArgument
from mut3r_analysis.figures.reading import find_variable, sentence, source_line
from mut3r_analysis.figures.styling import ACCENT, INK, QUIET, TIME_COLORS, style

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_MOST_FRUSTA = 9


class _View(NamedTuple):
    """A projection of the world: the axes shown, their signs and labels, and the image's axis."""

    name: str
    across: int
    up: int
    sign: int
    labels: tuple[str, str]
    image_axis: int


# The world is the first camera's: x right, y down, z forward.
_VIEWS = (
    _View("from above", 0, 2, 1, ("x, right (m)", "z, forward (m)"), 0),
    _View("from the side", 2, 1, -1, ("z, forward (m)", "−y, up (m)"), 1),
)


def camera_path(run: xr.DataTree, *, size: str = "page") -> "Figure":
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
    """
    from mut3r_analysis.figures.page import fix_layout, new_page

    pose = find_variable(run, "prediction/pose", "Run again with outputs=('pose',) or more")
    frames = pose["frame"].values
    predicted = pose.transpose("frame", "row", "col").values.astype(np.float64)
    if not np.isfinite(predicted).all():
        raise InvalidArgument("/prediction/pose has values that are NaN or infinite")
    truth = _aligned_truth(run, predicted[0])
    spread = [predicted, *([] if truth is None else [truth[np.isfinite(truth).all((1, 2))]])]
    centres = np.concatenate([poses[:, :3, 3] for poses in spread])
    reach = 0.09 * max(float(np.ptp(centres, axis=0).max()), 1e-6)
    slopes = _slopes(run)
    shown = np.unique(np.linspace(0, len(frames) - 1, _MOST_FRUSTA).round().astype(int))
    subtitle = sentence(
        f"{len(frames)} frames; axes of the predicted world",
        "true path moved rigidly onto the first predicted pose, not scaled"
        if truth is not None
        else "",
        "open angles: field of view" if slopes else "ticks: viewing direction",
    )
    with style(size) as page:
        stacked = page.width < 5
        height = (2 * 0.75 if stacked else 0.45) * (page.width - 0.4 * page.scale)
        texts = ("Camera path", subtitle, source_line(run))
        figure, _ = new_page(page, min(height, page.tallest), *texts)
        axes = figure.subplots(*((2, 1) if stacked else (1, 2)))
        for axis, view in zip(axes, _VIEWS, strict=True):
            if truth is not None:
                path = _project(truth[:, :3, 3], view)
                axis.plot(*path.T, color=QUIET, linestyle=(0, (4, 2)), label="truth", zorder=1)
            dots = _draw_path(axis, _project(predicted[:, :3, 3], view), frames)
            for index in shown:
                _draw_frustum(axis, predicted[index], view, reach, slopes)
            axis.set(xlabel=view.labels[0], ylabel=view.labels[1])
            axis.set_title(view.name)
            # Equal metres in both directions, in a box that fills its place.
            axis.margins(0.08)
            axis.set_aspect("equal", adjustable="datalim")
        _explain(axes[0], truth is not None)
        if len(frames) > 1:
            bar = figure.colorbar(dots, ax=list(axes), aspect=30, pad=0.015, shrink=0.95)
            bar.outline.set_visible(False)
            bar.set_label("frame")
            bar.locator = _whole_ticks()
            bar.update_ticks()
        fix_layout(figure)
    return figure


def _aligned_truth(run: xr.DataTree, first: np.ndarray) -> np.ndarray | None:
    """Give true poses ``(frame, 4, 4)`` in the predicted world, or None where there are none."""
    if "truth" not in run.children or "pose" not in run["truth"]:
        return None
    truth = run["truth"]["pose"].transpose("frame", "row", "col").values.astype(np.float64)
    if not np.isfinite(truth[0]).all():
        return None
    return first @ np.linalg.inv(truth[0]) @ truth


def _slopes(run: xr.DataTree) -> tuple[float, float] | None:
    """Half the image over the focal length, along x and y: tangents of half the field of view."""
    prediction = run["prediction"].to_dataset()
    if "focal" not in prediction or "depth" not in prediction:
        return None
    focal = float(np.median(prediction["focal"].values))
    if not np.isfinite(focal) or focal <= 0:
        return None
    sizes = prediction["depth"].sizes
    return sizes["x"] / 2 / focal, sizes["y"] / 2 / focal


def _project(points: np.ndarray, view: _View) -> np.ndarray:
    return np.stack([points[:, view.across], view.sign * points[:, view.up]], axis=-1)


def _draw_path(axis: "Axes", path: np.ndarray, frames: np.ndarray) -> Any:
    axis.plot(*path.T, color=INK, linewidth=_line_width() * 0.6, zorder=2, label="predicted")
    dots = axis.scatter(
        path[:, 0],
        path[:, 1],
        c=frames,
        cmap=TIME_COLORS,
        s=(3.2 * _line_width()) ** 2,
        linewidths=0,
        zorder=3,
    )
    axis.plot(
        *path[0],
        marker="o",
        markersize=7 * _line_width(),
        markerfacecolor="none",
        markeredgecolor=ACCENT,
        markeredgewidth=_line_width(),
        linestyle="none",
        label="first pose",
        zorder=4,
    )
    return dots


def _line_width() -> float:
    """Give the width of lines in the style in force, points."""
    import matplotlib

    return float(matplotlib.rcParams["lines.linewidth"])


def _draw_frustum(
    axis: "Axes",
    pose: np.ndarray,
    view: _View,
    reach: float,
    slopes: tuple[float, float] | None,
) -> None:
    """Draw two edges of the field of view in this projection, or one viewing direction."""
    rays = np.array([[0.0, 0.0, 1.0]])
    if slopes is not None:
        rays = np.repeat(rays, 2, axis=0)
        rays[:, view.image_axis] = np.array([-1, 1]) * slopes[view.image_axis]
        # Edges of wide fields stay as long as those of narrow ones.
        rays /= np.linalg.norm(rays, axis=1, keepdims=True)
    centre = pose[:3, 3]
    tips = _project(centre + reach * rays @ pose[:3, :3].T, view)
    start = _project(centre[None], view)[0]
    line = np.array([tips[0], start, *tips[1:]])
    axis.plot(*line.T, color=QUIET, linewidth=0.6 * _line_width(), zorder=1.5)


def _explain(axis: "Axes", with_truth: bool) -> None:
    order = ["predicted", "truth", "first pose"] if with_truth else ["predicted", "first pose"]
    handles = dict(zip(*reversed(axis.get_legend_handles_labels()), strict=True))
    axis.legend([handles[name] for name in order], order, loc="best")


def _whole_ticks() -> Any:
    from matplotlib.ticker import MaxNLocator

    return MaxNLocator(6, integer=True)
