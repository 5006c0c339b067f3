"""Layers against heads: where in the network a statistic is high."""

from collections.abc import Collection

import numpy as np
import xarray as xr
from matplotlib.ticker import MaxNLocator

from mut3r_analysis.errors import InvalidArgument
from mut3r_analysis.figures.page import Page, color_bar, fix_layout, new_page
from mut3r_analysis.figures.reading import (
    HEAD_REDUCTIONS,
    choose,
    find_statistic,
    heading,
    sentence,
    source_line,
    spell,
    text_label,
    token_dimension,
)
from mut3r_analysis.figures.styling import STATISTIC_COLORS, style
from mut3r_analysis.figures.tiles import cell_grid, limits
from mut3r_analysis.foundation.fields import one_of

_NOUNS = {"patch": "patches", "state": "state tokens", "pose": "the pose token"}


def layer_heads(
    run: xr.DataTree,
    statistic: str | xr.DataArray,
    *,
    frames: Collection[int] | int | None = None,
    token: str | None = None,
    reduction: str = "mean",
    size: str = "column",
) -> Page:
    """Show a statistic as a heat map of layers (rows) by heads (columns).

    Parameters
    ----------
    run : xarray.DataTree
    statistic : str or xarray.DataArray
        ``"<site>/<statistic>"``, for example ``"state_to_image/received"``; or an array
        ``([frame], layer, head, [query or key])``.
    frames : int or collection of int, optional
        Labels; by default all.
    token : {"patch", "pose", "state"}, optional
        Whose values are reduced; by default patches where there are, otherwise state tokens.
    reduction : {"mean", "max", "min", "std"}
        Over frames and tokens together.
    size : {"column", "page", "slide"}

    Returns
    -------
    matplotlib.figure.Figure

    Raises
    ------
    InvalidArgument
        When the run does not hold what is asked.
    """
    one_of("reduction", reduction, HEAD_REDUCTIONS)
    values = find_statistic(run, statistic)
    if not {"layer", "head"} <= set(values.dims):
        raise InvalidArgument(
            f"{values.name} has dimensions ({', '.join(map(str, values.dims))}); "
            "layer and head are needed, so select with lists: .sel(layer=[3])"
        )
    title, label, over = heading(values), text_label(values), []
    if "frame" in values.dims:
        shown = choose(values, "frame", frames, values.sizes["frame"])
        values = values.sel(frame=shown)
        over.append(f"frames {spell(shown)}" if len(shown) > 1 else f"frame {shown[0]}")
    if {"query", "key"} & set(values.dims):
        values, words = _tokens(values, token)
        over.append(words)
    rest = [dim for dim in values.dims if dim not in ("layer", "head")]
    grid = getattr(values, reduction)(rest) if rest else values
    grid = grid.transpose("layer", "head").load()
    words = {"std": "standard deviation"}.get(reduction, reduction)
    subtitle = sentence(f"{words} over {' and '.join(over)}" if over else "")
    return _draw(grid, (title, subtitle, source_line(run)), label, size)


def _tokens(values: xr.DataArray, token: str | None) -> tuple[xr.DataArray, str]:
    """Select tokens of one role and say which."""
    side = token_dimension(values)
    name = "key_token" if side == "key" else "token"
    roles = list(dict.fromkeys(np.atleast_1d(values[name].values).tolist()))
    chosen = token or ("patch" if "patch" in roles else roles[0])
    one_of(f"token on the {side} side of {values.name}", chosen, roles)
    if values[name].ndim:
        values = values.isel({side: np.flatnonzero(values[name].values == chosen)})
    count = values.sizes[side]
    noun = _NOUNS[chosen]
    return values, noun if chosen == "pose" else f"{count} {noun}"


def _draw(grid: xr.DataArray, texts: tuple[str, str, str], label: str, size: str) -> Page:
    layers, heads = grid.shape
    with style(size) as page:
        # Square cells where that is neither too flat nor too tall.
        cell = min((page.width - 1.0 * page.scale) / heads, 0.55 * page.scale)
        most = min(0.6 * page.width, page.tallest)
        height = float(np.clip(cell * layers, 0.9 * page.scale, most))
        figure, _ = new_page(page, height + 0.3 * page.scale, *texts)
        axis = figure.subplots()
        low, high = limits(grid, share=0)
        drawn = axis.imshow(grid, cmap=STATISTIC_COLORS, vmin=low, vmax=high, aspect="auto")
        cell_grid(axis, grid.shape, page)
        for side, dim in ((axis.xaxis, "head"), (axis.yaxis, "layer")):
            step = -(-grid.sizes[dim] // 16)
            side.set_ticks(np.arange(0, grid.sizes[dim], step))
            side.set_ticklabels([str(each) for each in grid[dim].values[::step]])
        axis.set(xlabel="head", ylabel="layer")
        ticks = MaxNLocator(5, steps=[1, 2, 2.5, 5, 10])
        color_bar(figure, drawn, label, ax=axis, aspect=26, pad=0.02, ticks=ticks)
        fix_layout(figure)
    return figure
