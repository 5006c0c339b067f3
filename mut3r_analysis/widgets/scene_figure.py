"""The scene view on paper: points and camera paths from above and from the side."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from mut3r_analysis.figures.styling import style

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_MOST_DRAWN = 40_000
_VIEWS = (
    ("from above", 0, 2, 1, ("x, right (m)", "z, forward (m)")),
    ("from the side", 2, 1, -1, ("z, forward (m)", "−y, up (m)")),
)


def scene_figure(
    clouds: Mapping[str, tuple[np.ndarray, np.ndarray]],
    paths: Mapping[str, tuple[np.ndarray, tuple[int, int, int]]],
    subtitle: str,
    note: str,
    size: str,
) -> "Figure":
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
    from mut3r_analysis.figures.page import fix_layout, new_page

    everything = np.concatenate([positions for positions, _ in clouds.values()])
    # A few stray points would leave the rest in a corner.
    low, high = np.quantile(everything, (0.01, 0.99), axis=0)
    low = np.min([low, *(path.min(0) for path, _ in paths.values())], axis=0)
    high = np.max([high, *(path.max(0) for path, _ in paths.values())], axis=0)
    with style(size) as page:
        stacked = page.width < 5
        height = (2 * 0.75 if stacked else 0.45) * (page.width - 0.4 * page.scale)
        texts = ("Scene", subtitle, note)
        figure, _ = new_page(page, min(height, page.tallest), *texts)
        axes = figure.subplots(*((2, 1) if stacked else (1, 2)))
        for axis, (title, across, up, sign, labels) in zip(axes, _VIEWS, strict=True):
            for positions, colors in clouds.values():
                step = max(1, len(positions) // _MOST_DRAWN)
                axis.scatter(
                    positions[::step, across],
                    sign * positions[::step, up],
                    c=colors[::step] / 255,
                    s=0.6 * page.scale,
                    linewidths=0,
                    rasterized=True,
                )
            for name, (path, color) in paths.items():
                line = np.array(color) / 255
                axis.plot(path[:, across], sign * path[:, up], color=line, label=name)
            margin = 0.05 * (high - low)
            bounds = np.sort(sign * np.array([low[up] - margin[up], high[up] + margin[up]]))
            axis.set(xlabel=labels[0], ylabel=labels[1], ylim=tuple(bounds))
            axis.set_xlim(low[across] - margin[across], high[across] + margin[across])
            axis.set_aspect("equal", adjustable="box")
            axis.set_title(title)
        if len(clouds) > 1:
            axes[0].legend(loc="best")
        fix_layout(figure)
    return figure
