"""Aligned camera paths of one sequence: where the truth, the plain and the gated run go."""

from collections.abc import Sequence

import numpy as np
import xarray as xr

from mut3r_analysis.figures.page import Page, fix_layout, new_page
from mut3r_analysis.figures.styling import ACCENT, INK, QUIET, style
from mut3r_analysis.metrics.similarity import fit_similarity
from mut3r_analysis.studies.trajectories.attribution import gated_and_plain

_LOOKS = {"truth": (QUIET, (0, (4, 2))), "plain": (INK, "-"), "gated": (ACCENT, "-")}
_WORDS = (
    "Dashed: truth; black: plain; orange: gated. Sim(3) alignment over all frames; axes of the "
    "first true camera; dots: first frames"
)


def show_paths(
    cells: xr.Dataset, sequence: str, paths: Sequence[str], *, source: str = "", size: str = "page"
) -> Page:
    """Show a sequence's true path from above, and the plain and gated ones aligned to it.

    Parameters
    ----------
    cells : Dataset
        From `measure_cells`, with ``true_pose``.
    sequence : str
        One whose alignment is determined.
    paths : sequence of str
        Those of `cells`.
    source : str
    size : {"column", "page", "slide"}

    Raises
    ------
    UndefinedMetric
        When a path cannot be aligned.
    """
    chosen = cells.sel(sequence=sequence)
    gated, plain = gated_and_plain(chosen["pose"], paths)
    cues = [cue for cue in cells["cue"].values if bool(gated.sel(cue=cue).notnull().any())]
    order = ("frame", "row", "col")
    truth = chosen["true_pose"].transpose(*order).values
    estimates = {
        cue: [truth, *(one.sel(cue=cue).transpose(*order).values for one in (plain, gated))]
        for cue in cues
    }
    kept = np.isfinite([each for several in estimates.values() for each in several]).all((0, 2, 3))
    lines = {
        cue: [_from_above(each[kept], truth[kept]) for each in several]
        for cue, several in estimates.items()
    }
    every = np.concatenate([line for each in lines.values() for line in each])
    low, high = every.min(axis=0), every.max(axis=0)
    reach = np.maximum(high - low, 0.25 * (high - low).max())
    middle, half = (low + high) / 2, 0.56 * reach
    with style(size) as page:
        width = (page.width - 0.5 * page.scale) / len(cues)
        height = min(width * reach[1] / reach[0], page.tallest) + 0.35 * page.scale
        title = f"Camera paths of {sequence}, from above"
        figure, _ = new_page(page, height, title, _WORDS, source)
        axes = figure.subplots(1, len(cues), squeeze=False)[0]
        for axis, cue in zip(axes, cues, strict=True):
            for (name, (color, dashes)), line in zip(_LOOKS.items(), lines[cue], strict=True):
                axis.plot(*line.T, color=color, linestyle=dashes, label=name, zorder=2)
                axis.plot(*line[0], color=color, marker="o", zorder=3)
            axis.set_aspect("equal")
            (left, bottom), (right, top) = middle - half, middle + half
            axis.set(xlim=(left, right), ylim=(bottom, top), xlabel="x, right (m)", title=cue)
        axes[0].set_ylabel("z, forward (m)")
        fix_layout(figure)
    return figure


def _from_above(poses: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Centres (frame, across and ahead) of a path aligned to the true one."""
    centres, target = poses[:, :3, 3], truth[:, :3, 3]
    aligned = fit_similarity(centres, target, "sim3").apply_to_points(centres)
    back = np.linalg.inv(truth[0])
    return (aligned @ back[:3, :3].T + back[:3, 3])[:, [0, 2]]
