"""The motion masks of a run: those it predicted, those its cue ends in, or its score, cut."""

import numpy as np
import torch
import xarray as xr
from numpy.typing import NDArray

from mut3r_analysis.evaluation.eligibility import LacksVariable
from mut3r_analysis.evaluation.truth import select_frames
from mut3r_analysis.motion.mask_motion import to_pixels
from mut3r_analysis.motion.otsu import best_threshold

CLASSES = (2, 3, 4)
"""Numbers of classes among which Otsu's threshold chooses, as in the released masks of Easi3R."""


def motion_masks(
    run: xr.DataTree, frames: NDArray[np.int64], size: tuple[int, int]
) -> xr.DataArray:
    """Return masks (frame, y, x) bool of these frames.

    In this order: what the run predicted; the masks that a cue ends in, such as those of pairs; the
    motion score of patches, taken to pixels (bilinear between the centres of patches) and cut by
    one threshold for all frames, the last of Otsu's. A frame without a score has an empty mask.

    Parameters
    ----------
    run : DataTree
    frames : ndarray
        Indices in the source.
    size : (int, int)
        Height and width of the masks, px.

    Raises
    ------
    LacksVariable
        The run holds none of these.
    InvalidArgument
        A score of fewer values than classes, which no threshold cuts.
    """
    for group, name in (("prediction", "motion_mask"), ("cue", "mask")):
        if group in run.children and name in run[group]:
            held = run[group].to_dataset()[[name]]
            return select_frames(held, frames)[name].transpose("frame", "y", "x").astype(bool)
    if "cue" not in run.children or "motion" not in run["cue"]:
        raise LacksVariable("the run has no motion_mask and no motion score; run it with cue=")
    held = select_frames(run["cue"].to_dataset()[["motion"]], frames)
    score = held["motion"].transpose("frame", "patch_row", "patch_col").values.astype(np.float32)
    pixels = to_pixels(torch.from_numpy(score), size).numpy()
    scored = ~np.isnan(score).all(axis=(1, 2))
    moving = np.zeros(pixels.shape, bool)
    moving[scored] = pixels[scored] > best_threshold(pixels[scored], CLASSES).threshold
    return xr.DataArray(moving, {"frame": frames}, ("frame", "y", "x"))
