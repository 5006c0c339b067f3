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
    from mut3r_analysis.figures.page import fix_layout, new_page

    start, stop = pair.attrs["start"], pair.attrs["stop"]
    shown = np.unique(np.linspace(start - 1, stop, _MOST).round().astype(int))
    labels = pair["frame"].values
    with style(size) as page:
        width = (page.width - 0.6 * page.scale) / len(shown)
        height = 2 * (width * pair.sizes["y"] / pair.sizes["x"] + 0.1) + 0.2 * page.scale
        subtitle = f"moving: {pair.attrs['how']}; outlined: pixels that show something else"
        figure, _ = new_page(
            page, height, f"Contents of {pair.attrs['name']}", subtitle,
            f"moving content in frames {labels[start]} to {labels[stop - 1]}",
        )  # fmt: skip
        grid = figure.subplots(2, len(shown), squeeze=False)
        for row, content in zip(grid, pair["content"].values, strict=True):
            for axis, position in zip(row, shown, strict=True):
                axis.imshow(pair["image"].sel(content=content)[position].values)
                changed = pair["changed"][position].values
                if changed.any():
                    axis.contour(changed, [0.5], colors=ACCENT, linewidths=0.7 * page.scale)
                axis.set(xticks=[], yticks=[])
                axis.spines[:].set_visible(False)
            row[0].set_ylabel(content)
        for axis, position in zip(grid[0], shown, strict=True):
            axis.set_title(f"frame {labels[position]}")
        fix_layout(figure)
    return figure
