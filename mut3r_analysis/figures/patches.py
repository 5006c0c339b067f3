"""A statistic laid over the frames' patches, layer by layer."""

from collections.abc import Collection
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from matplotlib.figure import Figure, SubFigure

from mut3r_analysis.errors import InvalidArgument
from mut3r_analysis.figures.reading import (
    Runs,
    choose,
    find_statistics,
    heading,
    named_runs,
    of_one_sequence,
    on_patches,
    reduce_heads,
    sentence,
    source_lines,
    spell,
    text_label,
    worded,
)
from mut3r_analysis.figures.seen import frames_seen, true_motion
from mut3r_analysis.figures.styling import STATISTIC_COLORS, style
from mut3r_analysis.figures.tiles import Tiles, darkened, limits, outline

_MOST_FRAMES = 6
_MOST_LAYERS = 4
_DIMS = ("layer", "frame", "patch_row", "patch_col")


def overlay(
    run: Runs,
    sequence: xr.Dataset | str | Path,
    statistic: str | xr.DataArray,
    *,
    frames: Collection[int] | int | None = None,
    layers: Collection[int] | int | None = None,
    head: str | int = "mean",
    opacity: float = 0.65,
    title: str | None = None,
    size: str = "page",
    on: SubFigure | None = None,
) -> Figure:
    """Lay a statistic of image tokens over the frames: one row per layer, one column per frame.

    Each layer has its own colour bar, because layers differ more than patches do; it covers the
    central 96 % of the layer's values in the frames shown. Several runs have rows beneath each
    other in every layer, and share its colours. What truly moves is outlined where the first run
    knows it.

    Parameters
    ----------
    run : xarray.DataTree, or mapping of str to xarray.DataTree
    sequence : xarray.Dataset, str or Path
        The sequence that was run.
    statistic : str or xarray.DataArray
        ``"<site>/<statistic>"``, for example ``"image_self/entropy"``; ``"cue/motion"``; or an
        array ``(frame, [layer], [head], query or key)`` or
        ``(frame, [layer], patch_row, patch_col)``.
    frames, layers : int or collection of int, optional
        Labels; by default at most six frames and four layers, evenly spread.
    head : {"mean", "max", "min", "std"} or int
        How heads are reduced, or which one is shown.
    opacity : float
        Of the statistic over the darkened, colourless frame; 1 hides the frame.
    title : str, optional
        By default the statistic and its site.
    size : {"column", "page", "slide"}
    on : matplotlib.figure.SubFigure, optional
        Drawn into instead of a new figure.

    Returns
    -------
    matplotlib.figure.Figure

    Raises
    ------
    InvalidArgument
        When the run does not hold what is asked, or it has no place in the image.

    Examples
    --------
    >>> figure = overlay(run, sequence, "image_self/entropy", layers=[0, 3])
    """
    if not 0 < opacity <= 1:
        raise InvalidArgument(f"opacity must be above 0 and at most 1, got {opacity!r}")
    named = named_runs(run)
    of_one_sequence(named)
    found = find_statistics(named, statistic)
    first, one = next(iter(named.values())), next(iter(found.values()))
    most = max(1, _MOST_LAYERS // len(named))
    values, reduction = _on_patches(one, frames, layers, head, most)
    shown, count = values["frame"].values, one.sizes.get("layer", 1)
    known = values["layer"].values.tolist() if "layer" in values.coords else [None]
    chosen: Any = None if known[0] is None else known
    placed = [_on_patches(each, shown.tolist(), chosen, head, most)[0] for each in found.values()]
    images = frames_seen(first, sequence, shown).values
    moving = [true_motion(first, int(frame)) for frame in shown]
    subtitle = sentence(
        reduction,
        f"{'layers' if len(known) > 1 else 'layer'} {spell(known)} of {count}"
        if known[0] is not None and len(known) < count
        else "",
        f"colour limits{' per layer' if len(known) > 1 else ''}: 2nd to 98th percentile",
        "" if all(mask is None for mask in moving) else "outlined: what truly moves",
    )
    with style(size) as page:
        page = page.within(on)
        texts = (title or heading(one), subtitle, source_lines(named))
        columns = [f"frame {frame}" for frame in shown]
        rows = 1 + len(known) * len(named)
        tiles = Tiles(page, rows, columns, images.shape[1:3], texts, on)
        tiles.show_row(0, images)
        for axes, mask in zip(tiles.axes.T, moving, strict=True):
            for axis in axes:
                if mask is not None:
                    outline(axis, mask > 0, 1.0, 0.6 * page.scale)
        for at, layer in enumerate(known):
            pictures = {
                worded(name, "" if layer is None else f"layer {layer}"): each[at].values
                for name, each in zip(named, placed, strict=True)
            }
            _draw_layer(tiles, 1 + at * len(named), pictures, darkened(images), opacity)
        tiles.label_bars(1, rows - 1, text_label(one))
    return tiles.root


def _draw_layer(
    tiles: Tiles, begin: int, pictures: dict[str, np.ndarray], gray: np.ndarray, opacity: float
) -> None:
    """Draw a row for each run, from row `begin` on, with one colour bar."""
    low, high = limits(np.stack(list(pictures.values())))
    for row, (name, values) in enumerate(pictures.items(), start=begin):
        tiles.show_row(row, gray, cmap="gray", vmin=0, vmax=1)
        colors = {"cmap": STATISTIC_COLORS, "vmin": low, "vmax": high, "alpha": opacity}
        drawn = tiles.show_row(row, values, name, **colors)
    bar = tiles.bar(drawn, begin, row)
    # The bar lies over the same mean brightness as the patches do.
    bar.ax.set_facecolor(str(float(gray.mean())))


def _on_patches(
    values: xr.DataArray,
    frames: Collection[int] | int | None,
    layers: Collection[int] | int | None,
    head: str | int,
    most_layers: int,
) -> tuple[xr.DataArray, str]:
    """Return what is shown, (layer, frame, patch_row, patch_col), and how heads were reduced."""
    if "frame" not in values.dims:
        raise InvalidArgument(f"{values.name} has no dimension frame; keep it when selecting")
    values = values.sel(frame=choose(values, "frame", frames, _MOST_FRAMES))
    if "layer" not in values.dims:
        values = values.expand_dims("layer")
    if "layer" in values.coords:
        values = values.sel(layer=choose(values, "layer", layers, most_layers))
    values, reduction = reduce_heads(on_patches(values), head)
    extra = [str(dim) for dim in values.dims if dim not in _DIMS]
    if extra:
        raise InvalidArgument(f"{values.name} also has {extra}; select or reduce them")
    return values.transpose(*_DIMS).load(), reduction
