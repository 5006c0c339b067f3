"""Twins side by side: two pasts, one picture, and what attention makes of it."""

import numpy as np
import torch
import xarray as xr

from mut3r_analysis.backbones.protocol import Backbone
from mut3r_analysis.errors import InvalidArgument
from mut3r_analysis.figures.cells import DIVERGING_COLORS
from mut3r_analysis.figures.page import Page
from mut3r_analysis.figures.reading import spell
from mut3r_analysis.figures.styling import STATISTIC_COLORS, style
from mut3r_analysis.figures.tiles import Tiles, limits, outline
from mut3r_analysis.motion import Cue
from mut3r_analysis.studies.emergence.cells import SignedCell
from mut3r_analysis.studies.emergence.observation import observe, prepared
from mut3r_analysis.studies.emergence.readings import patch_readings
from mut3r_analysis.studies.emergence.truth import patch_truth
from mut3r_analysis.studies.emergence.twins import frozen_twin, twin_frames

_EARLIER = 2
"""Frames of the past that are shown."""


def twin_figure(
    backbone: Backbone, sequence: xr.Dataset, cell: SignedCell, *, size: str = "page"
) -> Page:
    """Show a scene and its frozen twin, and a reading of the picture that they share.

    Parameters
    ----------
    backbone : Backbone
    sequence : Dataset
        Of a procedural scene.
    cell : SignedCell
        What is read.
    size : {"column", "page", "slide"}

    Returns
    -------
    matplotlib.figure.Figure

    Raises
    ------
    InvalidArgument
        When nothing moves after the first frame, or the sequence has no twin.
    """
    truth = patch_truth(backbone, sequence)
    places = twin_frames(truth, 1)
    if not places:
        raise InvalidArgument(
            f"{sequence.attrs.get('name')!r} has no twin to compare with: nothing moves after its "
            "first frame; take another scene"
        )
    at = places[0]
    both = (sequence, frozen_twin(sequence, int(truth["frame"][at])))
    clips = torch.stack([prepared(backbone, each) for each in both])
    seen = observe(backbone, clips, Cue.mut3r())
    grid = seen[0].grid
    where = {"reading": cell.reading, "layer": cell.layer, "head": cell.head}
    read = [
        patch_readings(each, cell.site).sel(where).isel(frame=at).values.reshape(grid)
        for each in seen
    ]
    change = read[0] - read[1]
    earlier = np.unique(np.linspace(0, at, _EARLIER + 1).round().astype(int))
    labels = truth["frame"].values
    subtitle = (
        f"{sequence.attrs['name']}; {cell}; motion in the {'high' if cell.sign > 0 else 'low'} "
        f"values; moved patches outlined; largest change {np.abs(change).max():.2g}"
    )
    title = f"One picture after two pasts: frame {spell(labels[at])} after motion and after rest"
    source = (
        f"Source: {sequence.attrs['name']} and its frozen twin, backbone {backbone.origin.name}"
    )
    with style(size) as page:
        columns = [*(f"frame {labels[each]}" for each in earlier), "reading", "change"]
        tiles = Tiles(page, 2, columns, clips.shape[-2:], (title, subtitle, source))
        low, high = limits(np.stack(read), share=0)
        for row, (each, name) in enumerate(zip(both, ("moved", "rested"), strict=True)):
            images = each["image"].isel(frame=earlier).values
            tiles.show_row(row, map(backbone.preparation.pixels, images), name)
            drawn = tiles.show(row, -2, read[row], cmap=STATISTIC_COLORS, vmin=low, vmax=high)
        most = float(np.abs(change).max()) or 1.0
        tiles.show(0, -1, change, cmap=DIVERGING_COLORS, vmin=-most, vmax=most)
        tiles.axes[1, -1].set_axis_off()
        moving = truth["moving"].values[at].reshape(grid)
        for axis in (tiles.axes[0, -2], tiles.axes[1, -2], tiles.axes[0, -1]):
            outline(axis, moving, clips.shape[-2] / grid[0], page.scale)
        tiles.bar(drawn, 0, 1)
        tiles.label_bars(0, 1, cell.reading)
    return tiles.figure
