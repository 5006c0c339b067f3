"""The scene view on paper: points and camera paths from above and from the side."""

from typing import TYPE_CHECKING

import numpy as np

from mut3r_analysis.figures.reading import sentence
from mut3r_analysis.figures.styling import style

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from mut3r_analysis.widgets.scene_view import SceneView

_MOST_DRAWN = 40_000
_VIEWS = (
    ("from above", 0, 2, 1, ("x, right (m)", "z, forward (m)")),
    ("from the side", 2, 1, -1, ("z, forward (m)", "−y, up (m)")),
)


def scene_figure(view: "SceneView", size: str) -> "Figure":
    """Draw what a scene view shows, along two axes of the world."""
    from mut3r_analysis.figures.page import new_page, settle

    clouds = {name: view.cloud(name) for name in view.visible}
    words = {"image": "the frames' colours", "error": "relative depth error, 0 to 1, unaligned"}
    words |= {"motion": "motion score, 0 to 1", "source": "where they come from"}
    subtitle = sentence(
        f"{', '.join(clouds)}; {'frame' if view.alone else 'frames up to'} {view.frame}",
        f"points coloured by {words[view.coloring]}",
        "lines: camera paths",
    )
    everything = np.concatenate([positions for positions, _ in clouds.values()])
    # A few stray points would leave the rest in a corner.
    low, high = np.quantile(everything, (0.01, 0.99), axis=0)
    paths = [path for name in clouds if (path := view.shown_path(name)) is not None]
    low, high = (
        np.min([low, *(path.min(0) for path in paths)], axis=0),
        np.max([high, *(path.max(0) for path in paths)], axis=0),
    )
    with style(size) as page:
        stacked = page.width < 5
        height = (2 * 0.75 if stacked else 0.45) * (page.width - 0.4 * page.scale)
        texts = ("Scene", subtitle, " ".join(view.held["notes"]))
        figure, _ = new_page(page, min(height, page.tallest), *texts)
        axes = figure.subplots(*((2, 1) if stacked else (1, 2)))
        for axis, (title, across, up, sign, labels) in zip(axes, _VIEWS, strict=True):
            for name, (positions, colors) in clouds.items():
                step = max(1, len(positions) // _MOST_DRAWN)
                axis.scatter(
                    positions[::step, across],
                    sign * positions[::step, up],
                    c=colors[::step] / 255,
                    s=0.6 * page.scale,
                    linewidths=0,
                    rasterized=True,
                )
                path = view.shown_path(name)
                if path is not None:
                    color = np.array(view.source_color(name)) / 255
                    axis.plot(path[:, across], sign * path[:, up], color=color, label=name)
            margin = 0.05 * (high - low)
            bounds = np.sort(sign * np.array([low[up] - margin[up], high[up] + margin[up]]))
            axis.set(xlabel=labels[0], ylabel=labels[1], ylim=tuple(bounds))
            axis.set_xlim(low[across] - margin[across], high[across] + margin[across])
            axis.set_aspect("equal", adjustable="box")
            axis.set_title(title)
        if len(clouds) > 1:
            axes[0].legend(loc="best")
        settle(figure)
    return figure
