"""The attention explorer's view on paper."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm, Normalize
from matplotlib.patches import Rectangle

from mut3r_analysis.figures.page import Page, color_bar, fix_layout, new_page
from mut3r_analysis.figures.reading import sentence
from mut3r_analysis.figures.styling import INK, QUIET, STATISTIC_COLORS, style
from mut3r_analysis.figures.tiles import darkened, show
from mut3r_analysis.widgets.attention_rows import QUANTITIES

_OUTLINES: dict[str, dict[str, Any]] = {
    "cue": {"says": "motion score above one half (solid)", "color": "#ff9d2e", "style": "-"},
    "truth": {"says": "true motion (dashed)", "color": "#ffffff", "style": (0, (3, 2))},
}


@dataclass(frozen=True, eq=False)
class Panel:
    """Numbers over the tokens of one side of a site in one run.

    Attributes
    ----------
    run : str
    side : {"query", "key"}
    stream : str
        Whose tokens stand on that side.
    values : numpy.ndarray
        ``(token,)``.
    title, label : str
    scene : dict
        The frame beneath, as `AttentionExplorer.scene` gives it.
    """

    run: str
    side: str
    stream: str
    values: np.ndarray
    title: str
    label: str
    scene: Mapping[str, np.ndarray | None]


def attention_figure(view: Mapping[str, Any], panels: Sequence[Panel], size: str) -> Page:
    """Draw what an explorer shows: one row per run, queries on the left, keys on the right.

    Parameters
    ----------
    view : mapping
        The explorer's attributes by name.
    panels : sequence of Panel
        Run by run, at least one.
    size : str
    """
    held, head = view["held"], view["head"]
    site = next(each for each in held["sites"] if each["name"] == view["site"])
    heads = f"mean of {site['head_count']} heads" if head == "mean" else f"head {head}"
    outlines = " and ".join(_OUTLINES[name]["says"] for name in view["outlines"])
    subtitle = sentence(
        f"{view['site']}, layer {view['layer']}, {heads}, frame {view['frame']}",
        f"outlines: {outlines}" if outlines else "",
        f"{view['scale']} colours",
    )
    columns = max(sum(panel.run == run for panel in panels) for run in held["runs"])
    rows = len(panels) // columns
    with style(size) as page:
        pixels = held["image"]
        tile = page.width / columns
        height = rows * (tile * pixels["height"] / pixels["width"] + 0.25 * page.scale)
        texts = ("Attention of one token", subtitle, held["notes"][0])
        figure, _ = new_page(page, min(height, page.tallest), *texts)
        axes = np.atleast_1d(figure.subplots(rows, columns)).ravel()
        for axis, panel in zip(axes, panels, strict=True):
            alike = np.stack([each.values for each in panels if each.side == panel.side])
            _draw(view, axis, panel, alike)
            if len(held["runs"]) > 1 and axis in axes[::columns]:
                axis.set_ylabel(panel.run)
        fix_layout(figure)
    return figure


def _draw(view: Mapping[str, Any], axis: Axes, panel: Panel, alike: np.ndarray) -> None:
    grid = view["held"]["streams"][panel.stream]
    values = panel.values[1:] if grid["pose"] else panel.values
    # A lattice's last row may be partial.
    cells = np.full(grid["rows"] * grid["columns"], np.nan)
    cells[: len(values)] = values
    cells = cells.reshape(grid["rows"], grid["columns"])
    # Runs share their colours, and the pose token does not stretch them.
    alike = alike[:, 1:] if grid["pose"] else alike
    low, high = float(alike.min()), float(alike.max())
    weights = panel.label == QUANTITIES["weights"]
    norm: Normalize = Normalize(0 if weights else low, high)
    if view["scale"] == "logarithmic" and weights:
        norm = LogNorm(high / 1000, high)
    pixels, seen = view["held"]["image"], panel.scene["image"]
    image = panel.stream != "state"
    height, width = (pixels["height"], pixels["width"]) if image else cells.shape
    extent = (-0.5, width - 0.5, height - 0.5, -0.5)
    opacity = 1
    if image and seen is not None:
        show(axis, darkened(seen), extent, cmap="gray", vmin=0, vmax=1)
        opacity = view["opacity"]
    mapped = show(axis, cells, extent, cmap=STATISTIC_COLORS, norm=norm, alpha=opacity)
    if image:
        _outline(view, axis, panel.scene, extent)
    _mark(view["token"], axis, panel.stream, extent, grid)
    axis.set_aspect("equal")
    axis.set_title(panel.title[:1].upper() + panel.title[1:])
    pose = f"; on the pose token {panel.values[0]:.3g}" if grid["pose"] else ""
    bar = color_bar(axis.figure, mapped, ax=axis, orientation="horizontal", aspect=30, pad=0.02,
                    shrink=0.9)  # fmt: skip
    bar.set_label(f"{panel.label}{pose}", color=INK)


def _outline(
    view: Mapping[str, Any],
    axis: Axes,
    scene: Mapping[str, np.ndarray | None],
    extent: tuple[float, ...],
) -> None:
    pixels = view["held"]["image"]
    for name in view["outlines"]:
        region = scene[name]
        if region is None or not region.any() or region.all():
            continue
        how = _OUTLINES[name]
        # Regions are enlarged so that their borders follow cell edges.
        scale = pixels["height"] // region.shape[0], pixels["width"] // region.shape[1]
        large = np.kron(region.astype(float), np.ones(scale))
        for color, width in ((INK, 1.6), (how["color"], 0.8)):
            axis.contour(
                large, levels=[0.5], colors=[color], linewidths=width, linestyles=[how["style"]]
            )
    axis.set(xlim=extent[:2], ylim=extent[2:])


def _mark(
    token: Mapping[str, Any],
    axis: Axes,
    stream: str,
    extent: tuple[float, ...],
    grid: dict[str, Any],
) -> None:
    """Frame the chosen token where it stands on this side."""
    if token["token"] == "pose" or (stream == "state") != (token["token"] == "state"):
        return
    across = (extent[1] - extent[0]) / grid["columns"]
    down = (extent[2] - extent[3]) / grid["rows"]
    corner = (extent[0] + token["patch_col"] * across, extent[3] + token["patch_row"] * down)
    for color, width in ((INK, 1.8), ("white", 0.9)):
        axis.add_patch(
            Rectangle(corner, across, down, fill=False, edgecolor=color, linewidth=width, zorder=5)
        )
    axis.tick_params(colors=QUIET)
