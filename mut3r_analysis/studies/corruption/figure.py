"""What a pair of contents shows, side by side."""

import numpy as np
import xarray as xr

from mut3r_analysis.figures.page import Page
from mut3r_analysis.figures.styling import ACCENT, style
from mut3r_analysis.figures.tiles import Tiles

_MOST = 6


def show_pair(pair: xr.Dataset, *, size: str = "page") -> Page:
    """Show frames of both contents above each other, and what differs between them.

    Parameters
    ----------
    pair : Dataset
        From `content_pair`.
    size : {"column", "page", "slide"}
    """
    start, stop = pair.attrs["start"], pair.attrs["stop"]
    shown = np.unique(np.linspace(start - 1, stop, _MOST).round().astype(int))
    labels = pair["frame"].values
    texts = (
        f"Contents of {pair.attrs['name']}",
        f"moving: {pair.attrs['how']}; outlined: pixels that show something else",
        f"moving content in frames {labels[start]} to {labels[stop - 1]}",
    )
    with style(size) as page:
        columns = [f"frame {labels[position]}" for position in shown]
        tiles = Tiles(page, 2, columns, pair["changed"].shape[1:], texts)
        for row, content in enumerate(pair["content"].values):
            tiles.show_row(row, pair["image"].sel(content=content).values[shown], content)
            for axis, position in zip(tiles.axes[row], shown, strict=True):
                if (changed := pair["changed"][position].values).any():
                    axis.contour(changed, [0.5], colors=ACCENT, linewidths=0.7 * page.scale)
    return tiles.figure
