"""Layers against heads: where in the network a statistic is high."""

from collections.abc import Collection

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure, SubFigure

from mut3r_analysis.errors import InvalidArgument
from mut3r_analysis.figures.cells import matrix
from mut3r_analysis.figures.reading import (
    HEAD_REDUCTIONS,
    Runs,
    choose,
    find_statistics,
    heading,
    named_runs,
    sentence,
    source_lines,
    spell,
    token_dimension,
)
from mut3r_analysis.foundation.fields import one_of

_NOUNS = {"patch": "patches", "state": "state tokens", "pose": "the pose token"}


def layer_heads(
    run: Runs,
    statistic: str | xr.DataArray,
    *,
    frames: Collection[int] | int | None = None,
    token: str | None = None,
    reduction: str = "mean",
    size: str = "column",
    on: Axes | SubFigure | None = None,
) -> Figure:
    """Show a statistic as a heat map of layers (rows) by heads (columns).

    Parameters
    ----------
    run : xarray.DataTree, or mapping of str to xarray.DataTree
        Several runs by name stand beside each other and share their colours.
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
    on : matplotlib.axes.Axes or matplotlib.figure.SubFigure, optional
        Drawn into instead of a new figure.

    Returns
    -------
    matplotlib.figure.Figure

    Raises
    ------
    InvalidArgument
        When the run does not hold what is asked.

    Examples
    --------
    >>> figure = layer_heads({"plain": run, "gated": gated}, "image_self/entropy")
    """
    one_of("reduction", reduction, HEAD_REDUCTIONS)
    named = named_runs(run)
    found = find_statistics(named, statistic)
    reduced = [_reduced(each, frames, token, reduction) for each in found.values()]
    grids, words = zip(*reduced, strict=True)
    return matrix(
        xr.concat(grids, xr.Variable("run", list(found)), join="outer"),
        rows="layer", columns="head", panels="run" if len(found) > 1 else None,
        title=heading(next(iter(found.values()))), subtitle=sentence(*dict.fromkeys(words)),
        source=source_lines(named), size=size, on=on,
    )  # fmt: skip


def _reduced(
    values: xr.DataArray, frames: Collection[int] | int | None, token: str | None, reduction: str
) -> tuple[xr.DataArray, str]:
    """Reduce a statistic to (layer, head), and say over what."""
    if not {"layer", "head"} <= set(values.dims):
        raise InvalidArgument(
            f"{values.name} has dimensions ({', '.join(map(str, values.dims))}); "
            "layer and head are needed, so select with lists: .sel(layer=[3])"
        )
    attrs, over = values.attrs, []
    if "frame" in values.dims:
        shown = choose(values, "frame", frames, values.sizes["frame"])
        values = values.sel(frame=shown)
        over.append(f"frames {spell(shown)}" if len(shown) > 1 else f"frame {shown[0]}")
    if {"query", "key"} & set(values.dims):
        values, words = _tokens(values, token)
        over.append(words)
    rest = [dim for dim in values.dims if dim not in ("layer", "head")]
    grid = getattr(values, reduction)(rest) if rest else values
    words = {"std": "standard deviation"}.get(reduction, reduction)
    kept = grid.drop_vars(set(grid.coords) - {"layer", "head"}).assign_attrs(attrs).load()
    return kept, f"{words} over {' and '.join(over)}" if over else ""


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
