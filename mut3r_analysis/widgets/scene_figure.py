"""The scene view on paper: points and camera paths from above and from the side."""

from collections.abc import Mapping

import numpy as np

from mut3r_analysis.figures.camera import open_views
from mut3r_analysis.figures.page import Page, fix_layout
from mut3r_analysis.figures.styling import style

_MOST_DRAWN = 40_000


def scene_figure(
    clouds: Mapping[str, tuple[np.ndarray, np.ndarray]],
    paths: Mapping[str, tuple[np.ndarray, tuple[int, int, int]]],
    subtitle: str,
    note: str,
    size: str,
) -> Page:
    """Draw points and camera paths along two axes of the world.

    Parameters
    ----------
    clouds : mapping
        Name -> positions ``(point, xyz)`` in metres and uint8 colours ``(point, rgb)``.
    paths : mapping
        Name -> camera centres ``(frame, xyz)`` and the colour of their line.
    subtitle, note : str
    size : str
    """
    everything = np.concatenate([positions for positions, _ in clouds.values()])
    # A few stray points would leave the rest in a corner.
    low, high = np.quantile(everything, (0.01, 0.99), axis=0)
    low = np.min([low, *(path.min(0) for path, _ in paths.values())], axis=0)
    high = np.max([high, *(path.max(0) for path, _ in paths.values())], axis=0)
    with style(size) as page:
        figure, views = open_views(page, ("Scene", subtitle, note))
        for axis, view in views:
            for positions, colors in clouds.values():
                step = max(1, len(positions) // _MOST_DRAWN)
                places = view.project(positions[::step])
                axis.scatter(places[:, 0], places[:, 1], c=colors[::step] / 255,
                             s=0.6 * page.scale, linewidths=0, rasterized=True)  # fmt: skip
            for name, (path, color) in paths.items():
                axis.plot(*view.project(path).T, color=np.array(color) / 255, label=name)
            margin = 0.05 * (high - low)
            corners = view.project(np.stack([low - margin, high + margin]))
            (left, bottom), (right, top) = np.sort(corners, axis=0)
            axis.set(xlim=(left, right), ylim=(bottom, top))
            axis.set_aspect("equal", adjustable="box")
        if len(clouds) > 1:
            views[0][0].legend(loc="best", frameon=True)
        fix_layout(figure)
    return figure
