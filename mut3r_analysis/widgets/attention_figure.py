"""The attention explorer's view on paper."""

from typing import TYPE_CHECKING, Any

import numpy as np

from mut3r_analysis.attention.statistics import STATISTICS
from mut3r_analysis.errors import InvalidArgument
from mut3r_analysis.figures.reading import sentence
from mut3r_analysis.figures.styling import INK, QUIET, STATISTIC_COLORS, style
from mut3r_analysis.widgets.attention_rows import QUANTITIES

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from mut3r_analysis.widgets.attention_explorer import AttentionExplorer


def attention_figure(explorer: "AttentionExplorer", size: str) -> "Figure":
    """Draw what an explorer shows: one row per run, queries on the left, keys on the right.

    Raises
    ------
    InvalidArgument
        When the view has nothing to draw.
    """
    from mut3r_analysis.figures.page import new_page, settle

    drawn = [
        (name, side, panel)
        for name in explorer.held["runs"]
        for side in ("query", "key")
        if (panel := _panel(explorer, name, side)) is not None
    ]
    if not drawn:
        raise InvalidArgument(explorer.held["sites"][0]["origins"][0])
    site = explorer.held_site()
    heads = (
        f"mean of {site['head_count']} heads"
        if explorer.head == "mean"
        else f"head {explorer.head}"
    )
    subtitle = sentence(
        f"{explorer.site}, layer {explorer.layer}, {heads}, frame {explorer.frame}",
        "outlines: " + " and ".join(_OUTLINES[name]["says"] for name in explorer.outlines)
        if explorer.outlines
        else "",
        f"{explorer.scale} colours",
    )
    columns = max(sum(name == run for name, _, _ in drawn) for run in explorer.held["runs"])
    rows = len(drawn) // columns
    with style(size) as page:
        pixels = explorer.held["image"]
        tile = page.width / columns
        height = rows * (tile * pixels["height"] / pixels["width"] + 0.25 * page.scale)
        texts = ("Attention of one token", subtitle, explorer.held["notes"][0])
        figure, _ = new_page(page, min(height, page.tallest), *texts)
        axes = np.atleast_1d(figure.subplots(rows, columns)).ravel()
        for axis, (name, side, panel) in zip(axes, drawn, strict=True):
            alike = [other["values"] for _, its_side, other in drawn if its_side == side]
            _draw(explorer, axis, name, side, panel | {"alike": np.stack(alike)})
            if len(explorer.held["runs"]) > 1 and axis in axes[::columns]:
                axis.set_ylabel(name)
        settle(figure)
    return figure


_OUTLINES: dict[str, dict[str, Any]] = {
    "cue": {"says": "motion score above one half (solid)", "color": "#ff9d2e", "style": "-"},
    "truth": {"says": "true motion (dashed)", "color": "#ffffff", "style": (0, (3, 2))},
}


def _panel(explorer: "AttentionExplorer", run: str, side: str) -> dict[str, Any] | None:
    """Values over the tokens of one side, and what they are; None where nothing is shown."""
    site = explorer.held_site()
    statistic = STATISTICS.get(explorer.show)
    token = explorer.describe_token()
    if statistic is not None and statistic.side == side:
        values = explorer.statistic(run)
        item = next(each for each in site["statistics"] if each["name"] == explorer.show)
        return {"values": values, "title": statistic.long_name, "label": item["label"]}
    if not site["rows"]:
        return None
    self_attention = site["queries"] == site["keys"]
    role = {"query": "key", "key": "query"}[side]
    if self_attention:
        role = side if statistic is None else statistic.side
    try:
        values = explorer.attention(role, run).values
    except InvalidArgument:
        # The token stands on the other side only.
        return None
    verb = "looks at" if role == "query" else "is looked at by"
    show = explorer.show if explorer.show in QUANTITIES else "weights"
    return {"values": values, "title": f"{token} {verb}", "label": QUANTITIES[show]}


def _draw(
    explorer: "AttentionExplorer", axis: "Axes", run: str, side: str, panel: dict[str, Any]
) -> None:
    from matplotlib.colors import LogNorm, Normalize

    from mut3r_analysis.figures.tiles import show

    site = explorer.held_site()
    stream = site["queries"] if side == "query" else site["keys"]
    grid = explorer.held["streams"][stream]
    values = panel["values"][1:] if grid["pose"] else panel["values"]
    # A lattice's last row may be partial.
    cells = np.full(grid["rows"] * grid["columns"], np.nan)
    cells[: len(values)] = values
    cells = cells.reshape(grid["rows"], grid["columns"])
    # Runs share their colours, and the pose token does not stretch them.
    alike = panel["alike"][:, 1:] if grid["pose"] else panel["alike"]
    low, high = float(alike.min()), float(alike.max())
    norm: Normalize = Normalize(0 if panel["label"] == QUANTITIES["weights"] else low, high)
    if explorer.scale == "logarithmic" and panel["label"] == QUANTITIES["weights"]:
        norm = LogNorm(high / 1000, high)
    frame = explorer.scene(run)
    size = explorer.held["image"]
    image = stream != "state"
    height, width = (size["height"], size["width"]) if image else cells.shape
    extent = (-0.5, width - 0.5, height - 0.5, -0.5)
    if image and frame["image"] is not None:
        gray = 0.15 + 0.75 * (frame["image"] @ np.array([0.299, 0.587, 0.114])) / 255
        show(axis, gray, extent, cmap="gray", vmin=0, vmax=1)
    opacity = explorer.opacity if image and frame["image"] is not None else 1
    mapped = show(axis, cells, extent, cmap=STATISTIC_COLORS, norm=norm, alpha=opacity)
    if image:
        _outline(explorer, axis, frame, extent)
    _mark(explorer, axis, side, extent, grid)
    axis.set(xticks=[], yticks=[])
    axis.spines[:].set_visible(False)
    axis.set_aspect("equal")
    axis.set_title(panel["title"][:1].upper() + panel["title"][1:])
    bar = axis.figure.colorbar(
        mapped, ax=axis, orientation="horizontal", aspect=30, pad=0.02, shrink=0.9
    )
    bar.outline.set_visible(False)
    pose = f"; on the pose token {panel['values'][0]:.3g}" if grid["pose"] else ""
    bar.set_label(f"{panel['label']}{pose}", color=INK)


def _outline(
    explorer: "AttentionExplorer", axis: "Axes", frame: dict[str, Any], extent: tuple[float, ...]
) -> None:
    for name in explorer.outlines:
        region = frame[name]
        if region is None or not region.any() or region.all():
            continue
        how = _OUTLINES[name]
        # Regions are enlarged so that their borders follow cell edges.
        scale = (
            explorer.held["image"]["height"] // region.shape[0],
            explorer.held["image"]["width"] // region.shape[1],
        )
        large = np.kron(region.astype(float), np.ones(scale))
        for color, width in ((INK, 1.6), (how["color"], 0.8)):
            axis.contour(
                large, levels=[0.5], colors=[color], linewidths=width, linestyles=[how["style"]]
            )
    axis.set(xlim=extent[:2], ylim=extent[2:])


def _mark(
    explorer: "AttentionExplorer",
    axis: "Axes",
    side: str,
    extent: tuple[float, ...],
    grid: dict[str, Any],
) -> None:
    """Frame the chosen token where it stands on this side."""
    from matplotlib.patches import Rectangle

    token = explorer.token
    stream = "state" if token["token"] == "state" else "image"
    site = explorer.held_site()
    own = site["queries"] if side == "query" else site["keys"]
    if token["token"] == "pose" or (own == "state") != (stream == "state"):
        return
    across = (extent[1] - extent[0]) / grid["columns"]
    down = (extent[2] - extent[3]) / grid["rows"]
    corner = (extent[0] + token["patch_col"] * across, extent[3] + token["patch_row"] * down)
    for color, width in ((INK, 1.8), ("white", 0.9)):
        axis.add_patch(
            Rectangle(corner, across, down, fill=False, edgecolor=color, linewidth=width, zorder=5)
        )
    axis.tick_params(colors=QUIET)
