"""The attention explorer's view on paper."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm, Normalize
from matplotlib.patches import Rectangle
from matplotlib.text import Text

from mut3r_analysis.figures.page import Page, color_bar, fix_layout, new_page
from mut3r_analysis.figures.panels import shape_of
from mut3r_analysis.figures.reading import sentence
from mut3r_analysis.figures.styling import INK, QUIET, STATISTIC_COLORS, style
from mut3r_analysis.figures.tiles import darkened, show
from mut3r_analysis.widgets.attention_rows import QUANTITIES

_MOST_ACROSS = 6
"""Heads beside each other."""

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
    heads : numpy.ndarray
        The same of every head ``(head, token)``; of none where heads are not shown.
    title, label : str
    scene : dict
        The frame beneath, as `AttentionExplorer.scene` gives it.
    """

    run: str
    side: str
    stream: str
    values: np.ndarray
    heads: np.ndarray
    title: str
    label: str
    scene: Mapping[str, np.ndarray | None]


def attention_figure(view: Mapping[str, Any], panels: Sequence[Panel], size: str) -> Page:
    """Draw what an explorer shows: one row per run, queries on the left, keys on the right.

    Below each picture stand all heads in one scale, where the explorer shows them.

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
    outlines = " and ".join(
        _OUTLINES[name]["says"]
        for name in view["outlines"]
        if any(panel.scene[name] is not None for panel in panels)
    )
    subtitle = sentence(
        f"{view['site']}, layer {view['layer']}, {heads}, frame {view['frame']}",
        f"outlines: {outlines}" if outlines else "",
        f"{view['scale']} colours",
    )
    columns = max(sum(panel.run == run for panel in panels) for run in held["runs"])
    rows = len(panels) // columns
    labels = site["heads"][1:] if len(panels[0].heads) > 1 else []
    with style(size) as page:
        down, across = shape_of(len(labels), _MOST_ACROSS) if labels else (0, 1)
        words = 0.4 * page.scale
        words_of_heads = (0.16 * down + 0.35) * page.scale if labels else 0.0
        aspect = held["image"]["height"] / held["image"]["width"]
        # One picture alone is as large as one of two, and no row leaves the page.
        room = (page.tallest / rows - words - words_of_heads) / (1 + down / across)
        width = min(page.width / max(2, columns), room / aspect)
        large = width * aspect + words
        small = down * width * aspect / across + words_of_heads
        texts = ("Attention of one token", subtitle, held["notes"][0])
        figure, _ = new_page(page, rows * (large + small), *texts)
        # Colour bars are as wide as their part of the page, which is as wide as the picture. The
        # layout's solver has no answer for a margin of almost no width.
        side = (page.width - columns * width) / 2
        margin = [side] if side > 0.1 * page.scale else []
        ratios = [*margin, *[width] * columns, *margin]
        parts = figure.subfigures(rows, len(ratios), squeeze=False, width_ratios=ratios)
        parts = parts[:, len(margin) :][:, :columns].ravel()
        for part, panel in zip(parts, panels, strict=True):
            alike = [each for each in panels if each.side == panel.side]
            above = part
            if labels:
                above, below = part.subfigures(2, 1, height_ratios=(large, small))
                _draw_heads(view, below, panel, labels, _colors(view, alike, "heads"))
            label = _draw(view, above, panel, _colors(view, alike, "values"))
            label.set_text(page.wrapped(label.get_text(), width))
            if len(held["runs"]) > 1 and part in parts[::columns]:
                above.axes[0].set_ylabel(panel.run)
        fix_layout(figure)
    return figure


def _colors(view: Mapping[str, Any], alike: Sequence[Panel], name: str) -> Normalize:
    """Give runs and heads one scale, which the pose token does not stretch."""
    pose = view["held"]["streams"][alike[0].stream]["pose"]
    values = np.stack([getattr(panel, name)[..., int(pose) :] for panel in alike])
    low, high = float(values.min()), float(values.max())
    weights = alike[0].label == QUANTITIES["weights"]
    if view["scale"] == "logarithmic" and weights:
        return LogNorm(high / 1000, high)
    return Normalize(0 if weights else low, high)


def _draw(view: Mapping[str, Any], part: Any, panel: Panel, norm: Normalize) -> Text:
    """Draw a panel's picture, and return the label of its colour bar."""
    axis = part.subplots()
    grid = view["held"]["streams"][panel.stream]
    mapped, extent = _draw_tokens(view, axis, panel, panel.values, norm)
    if panel.stream != "state":
        _outline(view, axis, panel.scene, extent)
    _mark(view["token"], axis, panel.stream, extent, grid)
    axis.set_title(panel.title[:1].upper() + panel.title[1:])
    pose = f"; on the pose token {panel.values[0]:.3g}" if grid["pose"] else ""
    bar = color_bar(part, mapped, ax=axis, orientation="horizontal", aspect=30, pad=0.02,
                    shrink=0.9)  # fmt: skip
    bar.set_label(f"{panel.label}{pose}", color=INK)
    return bar.ax.xaxis.label


def _draw_heads(
    view: Mapping[str, Any], part: Any, panel: Panel, labels: list[int], norm: Normalize
) -> None:
    axes = part.subplots(*shape_of(len(labels), _MOST_ACROSS), squeeze=False)
    for axis in axes.flat[len(labels) :]:
        axis.remove()
    for axis, head, values in zip(axes.flat, labels, panel.heads, strict=False):
        mapped, _ = _draw_tokens(view, axis, panel, values, norm)
        color = INK if head == view["head"] else QUIET
        axis.set_title(f"head {head}", loc="center", color=color)
    shown = list(axes.flat[: len(labels)])
    color_bar(part, mapped, f"{panel.label}, all heads", ax=shown, orientation="horizontal",
              aspect=30, pad=0.02, shrink=0.9)  # fmt: skip


def _draw_tokens(
    view: Mapping[str, Any], axis: Axes, panel: Panel, values: np.ndarray, norm: Normalize
) -> tuple[Any, tuple[float, ...]]:
    """Lay values over the frame, or over the lattice of the state."""
    grid = view["held"]["streams"][panel.stream]
    values = values[1:] if grid["pose"] else values
    # A lattice's last row may be partial.
    cells = np.full(grid["rows"] * grid["columns"], np.nan)
    cells[: len(values)] = values
    cells = cells.reshape(grid["rows"], grid["columns"])
    pixels, seen = view["held"]["image"], panel.scene["image"]
    image = panel.stream != "state"
    height, width = (pixels["height"], pixels["width"]) if image else cells.shape
    extent = (-0.5, width - 0.5, height - 0.5, -0.5)
    opacity = 1
    if image and seen is not None:
        show(axis, darkened(seen), extent, cmap="gray", vmin=0, vmax=1)
        opacity = view["opacity"]
    mapped = show(axis, cells, extent, cmap=STATISTIC_COLORS, norm=norm, alpha=opacity)
    axis.set_aspect("equal")
    return mapped, extent


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
