"""Layers against heads: where in the network a statistic is high."""

from collections.abc import Collection

import numpy as np
import xarray as xr

from mut3r_analysis.errors import InvalidArgument
from mut3r_analysis.figures.cells import matrix
from mut3r_analysis.figures.page import Page
from mut3r_analysis.figures.reading import (
    HEAD_REDUCTIONS,
    choose,
    find_statistic,
    heading,
    sentence,
    source_line,
    spell,
    token_dimension,
)
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
    title, over = heading(values), []
    if "frame" in values.dims:
        shown = choose(values, "frame", frames, values.sizes["frame"])
        values = values.sel(frame=shown)
        over.append(f"frames {spell(shown)}" if len(shown) > 1 else f"frame {shown[0]}")
    if {"query", "key"} & set(values.dims):
        values, words = _tokens(values, token)
        over.append(words)
    rest = [dim for dim in values.dims if dim not in ("layer", "head")]
    grid = getattr(values, reduction)(rest) if rest else values
    grid = grid.assign_attrs(values.attrs).load()
    words = {"std": "standard deviation"}.get(reduction, reduction)
    subtitle = sentence(f"{words} over {' and '.join(over)}" if over else "")
    return matrix(
        grid, rows="layer", columns="head", title=title, subtitle=subtitle,
        source=source_line(run), size=size,
    )  # fmt: skip


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
