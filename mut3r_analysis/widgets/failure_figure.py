"""The failure explorer's view on paper."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import xarray as xr

from mut3r_analysis.figures.page import Page, color_bar, fix_layout, new_page
from mut3r_analysis.figures.reading import sentence
from mut3r_analysis.figures.styling import INK, QUIET, style
from mut3r_analysis.figures.tiles import limits, show

_LINES = (("#0072b2", "-"), ("#d55e00", (0, (4, 2))))
"""Of runs: told apart by dashes as well as by colour."""


def failure_figure(
    strips: Mapping[str, Mapping[str, xr.DataArray]],
    errors: Mapping[str, np.ndarray],
    frame: int,
    note: str,
    size: str,
) -> Page:
    """Draw one strip per number over frames, and the depth errors of one frame.

    Parameters
    ----------
    strips : mapping
        Label -> run -> the numbers ``(frame,)``.
    errors : mapping of str to numpy.ndarray
        Run -> relative depth error ``(y, x)`` of the frame, where it is known.
    frame : int
        Label.
    note : str
        Where the numbers come from.
    size : str
    """
    subtitle = sentence(
        f"frame {frame} is marked",
        "its relative depth errors are below, up to their 98th percentile" if errors else "",
    )
    with style(size) as page:
        pictures = 1.6 * page.scale if errors else 0.0
        height = 0.55 * page.scale * len(strips) + 0.25 * page.scale + pictures
        texts = ("Errors frame by frame", subtitle, note)
        figure, _ = new_page(page, min(height, page.tallest), *texts)
        above: Any = figure
        if errors:
            ratios = (height - pictures, pictures)
            halves: Any = figure.subfigures(2, 1, height_ratios=ratios)
            above, below = halves
        axes = np.atleast_1d(above.subplots(len(strips), 1, sharex=True))
        for axis, (label, runs) in zip(axes, strips.items(), strict=True):
            for (run, values), (color, dash) in zip(runs.items(), _LINES, strict=False):
                axis.plot(values["frame"], values, color=color, linestyle=dash, label=run)
            axis.axvline(frame, color=INK, linewidth=0.6)
            axis.set_title(label)
            axis.margins(y=0.1)
        axes[-1].set_xlabel("frame")
        if len(runs) > 1:
            axes[0].legend(loc="upper right", ncols=2, bbox_to_anchor=(1, 1.5))
        if errors:
            high = limits(np.stack(list(errors.values())))[1]
            pair = np.atleast_1d(below.subplots(1, len(errors)))
            for axis, (run, error) in zip(pair, errors.items(), strict=True):
                extent = (-0.5, error.shape[1] - 0.5, error.shape[0] - 0.5, -0.5)
                drawn = show(axis, error, extent, cmap="magma", vmin=0, vmax=high)
                axis.set_aspect("equal")
                axis.set_title(run, color=INK if len(errors) > 1 else QUIET)
            color_bar(below, drawn, "|aligned − true| / true depth", ax=list(pair), pad=0.015)
        fix_layout(figure)
    return figure
