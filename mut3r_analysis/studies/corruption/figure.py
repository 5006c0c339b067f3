"""What a pair of contents shows, side by side."""

from typing import TYPE_CHECKING

import numpy as np
import xarray as xr

from mut3r_analysis.figures.styling import ACCENT, style

if TYPE_CHECKING:
    from mut3r_analysis.figures.page import Page

_MOST = 6


def show_pair(pair: xr.Dataset, *, size: str = "page") -> "Page":
    """Show frames of both contents above each other, and what differs between them.

    Parameters
    ----------
    pair : Dataset
        From `content_pair`.
    size : {"column", "page", "slide"}
    """
    from mut3r_analysis.figures.tiles import Tiles, show

    start, stop = pair.attrs["start"], pair.attrs["stop"]
    shown = np.unique(np.linspace(start - 1, stop, _MOST).round().astype(int))
    labels = pair["frame"].values
    height, width = pair.sizes["y"], pair.sizes["x"]
    texts = (
        f"Contents of {pair.attrs['name']}",
        f"moving: {pair.attrs['how']}; outlined: pixels that show something else",
        f"moving content in frames {labels[start]} to {labels[stop - 1]}",
    )
    with style(size) as page:
        tiles = Tiles(page, 2, len(shown), height / width, texts)
        tiles.label_columns([f"frame {labels[position]}" for position in shown])
        for row, content in enumerate(pair["content"].values):
            tiles.label_row(row, content)
            for axis, position in zip(tiles.axes[row], shown, strict=True):
                picture = pair["image"].sel(content=content)[position].values
                show(axis, picture, (-0.5, width - 0.5, height - 0.5, -0.5))
                if (changed := pair["changed"][position].values).any():
                    axis.contour(changed, [0.5], colors=ACCENT, linewidths=0.7 * page.scale)
    return tiles.figure
