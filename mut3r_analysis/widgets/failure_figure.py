"""The failure explorer's view on paper."""

from typing import TYPE_CHECKING, Any

import numpy as np

from mut3r_analysis.figures.reading import sentence
from mut3r_analysis.figures.styling import INK, QUIET, style

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from mut3r_analysis.widgets.failure_explorer import FailureExplorer

_LINES = (("#0072b2", "-"), ("#d55e00", (0, (4, 2))))
"""Of runs: told apart by dashes as well as by colour."""


def failure_figure(explorer: "FailureExplorer", size: str) -> "Figure":
    """Draw one strip per number over frames, and the depth errors of the current frame."""
    from mut3r_analysis.figures.page import new_page, settle
    from mut3r_analysis.figures.tiles import limits, show

    held = explorer.held
    maps = {name: explorer.error_map(name) for name in held["runs"]}
    known = {name: map_ for name, map_ in maps.items() if map_ is not None}
    subtitle = sentence(
        f"frame {explorer.frame} is marked",
        "its relative depth errors are below, up to their 98th percentile" if known else "",
    )
    names = [each["name"] for each in held["series"]]
    with style(size) as page:
        pictures = 1.6 * page.scale if known else 0.0
        height = 0.55 * page.scale * len(names) + 0.25 * page.scale + pictures
        texts = ("Errors frame by frame", subtitle, held["notes"][0])
        figure, _ = new_page(page, min(height, page.tallest), *texts)
        strips: Any = figure
        if known:
            ratios = (height - pictures, pictures)
            halves: Any = figure.subfigures(2, 1, height_ratios=ratios)
            strips, below = halves
        axes = np.atleast_1d(strips.subplots(len(names), 1, sharex=True))
        for axis, item in zip(axes, held["series"], strict=True):
            for run, (color, dash) in zip(held["runs"], _LINES, strict=False):
                values = explorer.series(item["name"], run).values
                axis.plot(held["frames"], values, color=color, linestyle=dash, label=run)
            axis.axvline(explorer.frame, color=INK, linewidth=0.6)
            axis.set_title(item["label"])
            axis.margins(y=0.1)
        axes[-1].set_xlabel("frame")
        if len(held["runs"]) > 1:
            axes[0].legend(loc="upper right", ncols=2, bbox_to_anchor=(1, 1.5))
        if known:
            high = limits(np.stack(list(known.values())))[1]
            pair = np.atleast_1d(below.subplots(1, len(known)))
            extent = (-0.5, held["image"]["width"] - 0.5, held["image"]["height"] - 0.5, -0.5)
            for axis, (run, values) in zip(pair, known.items(), strict=True):
                drawn = show(axis, values, extent, cmap="magma", vmin=0, vmax=high)
                axis.set(xticks=[], yticks=[])
                axis.spines[:].set_visible(False)
                axis.set_aspect("equal")
                axis.set_title(run, color=INK if len(known) > 1 else QUIET)
            bar = below.colorbar(drawn, ax=list(pair), pad=0.015)
            bar.outline.set_visible(False)
            bar.set_label("|aligned − true| / true depth")
        settle(figure)
    return figure
