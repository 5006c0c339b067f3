"""A patch of a run, framed in its frame and its neighbours."""

import xarray as xr
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.patheffects import Normal, withStroke

from mut3r_analysis.figures.patches import overlay
from mut3r_analysis.figures.styling import ACCENT


def show_patch(run: xr.DataTree, sequence: xr.Dataset, frame: int, row: int, column: int) -> Figure:
    """Lay the motion score over a frame and those beside it, and frame a patch in orange.

    Parameters
    ----------
    run : DataTree
        With a cue.
    sequence : Dataset
        The sequence that was run.
    frame : int
        Label of the frame.
    row, column : int
        The patch.
    """
    motion = run["cue"].to_dataset()["motion"]
    labels = motion["frame"].values.tolist()
    place = labels.index(frame)
    shown = labels[max(0, place - 1) : place + 2]
    figure = overlay(run, sequence, motion, frames=shown)
    side = run.attrs["backbone"]["config"]["patch_size"]
    corner = (column * side - 0.5, row * side - 0.5)
    # Pictures stand in two rows: the frames, and the score laid over them.
    for axis in figure.axes[shown.index(frame) : 2 * len(shown) : len(shown)]:
        square = Rectangle(corner, side, side, fill=False, edgecolor=ACCENT, linewidth=1.4)
        square.set_path_effects([withStroke(linewidth=2.6, foreground="white"), Normal()])
        axis.add_patch(square)
    return figure
