"""A statistic laid over the frames' patches, layer by layer."""

from collections.abc import Collection
from pathlib import Path

import xarray as xr

from mut3r_analysis.errors import InvalidArgument
from mut3r_analysis.figures.page import Page
from mut3r_analysis.figures.reading import (
    choose,
    find_statistic,
    heading,
    on_patches,
    reduce_heads,
    sentence,
    source_line,
    spell,
    text_label,
)
from mut3r_analysis.figures.seen import frames_seen, true_motion
from mut3r_analysis.figures.styling import STATISTIC_COLORS, style
from mut3r_analysis.figures.tiles import Tiles, darkened, limits, outline

_MOST_FRAMES = 6
_MOST_LAYERS = 4
_DIMS = ("layer", "frame", "patch_row", "patch_col")


def overlay(
    run: xr.DataTree,
    sequence: xr.Dataset | str | Path,
    statistic: str | xr.DataArray,
    *,
    frames: Collection[int] | int | None = None,
    layers: Collection[int] | int | None = None,
    head: str | int = "mean",
    opacity: float = 0.65,
    title: str | None = None,
    size: str = "page",
) -> Page:
    """Lay a statistic of image tokens over the frames: one row per layer, one column per frame.

    Each layer has its own colour bar, because layers differ more than patches do; it covers the
    central 96 % of the layer's values in the frames shown. What truly moves is outlined where the
    run knows it.

    Parameters
    ----------
    run : xarray.DataTree
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
    found = find_statistic(run, statistic)
    title, label = title or heading(found), text_label(found)
    values, reduction = _on_patches(found, frames, layers, head)
    shown = values["frame"].values
    rows = values["layer"].values.tolist() if "layer" in values.coords else [None]
    count = found.sizes.get("layer", 1)
    images = frames_seen(run, sequence, shown).values
    moving = [true_motion(run, int(frame)) for frame in shown]
    subtitle = sentence(
        reduction,
        f"{'layers' if len(rows) > 1 else 'layer'} {spell(rows)} of {count}"
        if rows[0] is not None and len(rows) < count
        else "",
        f"colour limits{' per layer' if len(rows) > 1 else ''}: 2nd to 98th percentile",
        "" if all(mask is None for mask in moving) else "outlined: what truly moves",
    )
    with style(size) as page:
        texts = (title, subtitle, source_line(run))
        columns = [f"frame {frame}" for frame in shown]
        tiles = Tiles(page, 1 + len(rows), columns, images.shape[1:3], texts)
        tiles.show_row(0, images)
        for axes, mask in zip(tiles.axes.T, moving, strict=True):
            for axis in axes:
                if mask is not None:
                    outline(axis, mask > 0, 1.0, 0.6 * page.scale)
        gray = darkened(images)
        for row, layer in enumerate(rows):
            low, high = limits(values[row])
            tiles.show_row(row + 1, gray, cmap="gray", vmin=0, vmax=1)
            colors = {"cmap": STATISTIC_COLORS, "vmin": low, "vmax": high, "alpha": opacity}
            label_of_row = "" if layer is None else f"layer {layer}"
            drawn = tiles.show_row(row + 1, values[row].values, label_of_row, **colors)
            bar = tiles.bar(drawn, row + 1, row + 1)
            # The bar lies over the same mean brightness as the patches do.
            bar.ax.set_facecolor(str(float(gray.mean())))
        tiles.label_bars(1, len(rows), label)
    return tiles.figure


def _on_patches(
    values: xr.DataArray,
    frames: Collection[int] | int | None,
    layers: Collection[int] | int | None,
    head: str | int,
) -> tuple[xr.DataArray, str]:
    """Return what is shown, (layer, frame, patch_row, patch_col), and how heads were reduced."""
    if "frame" not in values.dims:
        raise InvalidArgument(f"{values.name} has no dimension frame; keep it when selecting")
    values = values.sel(frame=choose(values, "frame", frames, _MOST_FRAMES))
    if "layer" not in values.dims:
        values = values.expand_dims("layer")
    if "layer" in values.coords:
        values = values.sel(layer=choose(values, "layer", layers, _MOST_LAYERS))
    values, reduction = reduce_heads(on_patches(values), head)
    extra = [str(dim) for dim in values.dims if dim not in _DIMS]
    if extra:
        raise InvalidArgument(f"{values.name} also has {extra}; select or reduce them")
    return values.transpose(*_DIMS).load(), reduction
