"""What is true of each patch, moving or resting, and what might be mistaken for motion."""

import numpy as np
import xarray as xr

from mut3r_analysis.backbones.protocol import Backbone
from mut3r_analysis.training.patches import MOVING_SHARE, RESTING_SHARE

CONTROLS = ("contrast", "frame_difference", "nearness", "object_share")
"""What needs no model: spread of the brightness, change of the picture since the previous frame,
inverse depth and share of object pixels. The last two come from ground truth, where it is known."""


def patch_truth(backbone: Backbone, sequence: xr.Dataset) -> xr.Dataset:
    """Reduce what is known of a sequence to patches of the frames as a backbone sees them.

    Parameters
    ----------
    backbone : Backbone
    sequence : Dataset

    Returns
    -------
    Dataset
        (frame, patch) each. Always ``contrast`` and ``frame_difference`` (NaN on the first frame).
        With a motion mask ``moving``, at least half of the pixels move, and ``still``, less than
        a tenth do; patches in between are neither. With instances also ``resting``, still and at
        least half of one object, and ``object_share``. With depth ``nearness`` (1/m).
    """
    prepare = backbone.preparation
    truth = {
        name: np.stack([prepare.mask(each) for each in sequence[name].values])
        for name in ("depth", "motion_mask", "instance")
        if name in sequence
    }
    pixels = [prepare.pixels(image.values) for image in sequence["image"]]
    colors = np.stack(pixels).astype(np.float32) / 255
    grid = backbone.patch_grid(*colors.shape[1:3])
    brightness = colors.mean(axis=-1)
    mean, square = _means(brightness, grid), _means(brightness**2, grid)
    change = np.full_like(brightness, np.nan)
    change[1:] = np.abs(np.diff(colors, axis=0)).mean(axis=-1)
    found = {
        "contrast": np.sqrt(np.maximum(square - mean**2, 0)),
        "frame_difference": _means(change, grid),
    }
    if "depth" in truth:
        with np.errstate(divide="ignore", invalid="ignore"):
            nearness = 1 / truth["depth"]
        known = np.isfinite(nearness)
        share = _means(known.astype(np.float32), grid)
        total = _means(np.where(known, nearness, 0), grid)
        found["nearness"] = np.divide(total, share, out=np.zeros_like(total), where=share > 0)
    if "motion_mask" in truth:
        moving = _means(truth["motion_mask"].astype(np.float32), grid)
        found |= {"moving": moving >= MOVING_SHARE, "still": moving < RESTING_SHARE}
    if "instance" in truth:
        instance = truth["instance"]
        found["object_share"] = _means((instance > 0).astype(np.float32), grid)
        if "still" in found:
            numbers = [number for number in np.unique(instance) if number > 0]
            shares = [_means((instance == each).astype(np.float32), grid) for each in numbers]
            fills = np.max(shares, axis=0) if shares else np.zeros_like(found["object_share"])
            found["resting"] = found["still"] & (fills >= MOVING_SHARE)
    rows, columns = np.indices(grid)
    return xr.Dataset(
        {name: (("frame", "patch"), values) for name, values in found.items()},
        coords={
            "frame": sequence["frame"].values,
            "patch_row": ("patch", rows.ravel()),
            "patch_col": ("patch", columns.ravel()),
        },
        attrs={"grid": grid},
    )


def control_columns(truth: xr.Dataset) -> np.ndarray:
    """Stack what may explain a reading away: the known controls and the place in the image.

    Returns
    -------
    ndarray
        (control, frame, patch).
    """
    known = [truth[name].values for name in CONTROLS if name in truth]
    shape = known[0].shape
    row, column = (
        np.broadcast_to(truth[name].values / max(1, size - 1) - 0.5, shape)
        for name, size in zip(("patch_row", "patch_col"), truth.attrs["grid"], strict=True)
    )
    return np.stack([*known, row, column, row**2, column**2, row * column]).astype(np.float64)


def _means(values: np.ndarray, grid: tuple[int, int]) -> np.ndarray:
    """Mean ``(frame, patch)`` over square patches of ``(frame, y, x)``."""
    frames, height, width = values.shape
    rows, columns = grid
    cells = values.reshape(frames, rows, height // rows, columns, width // columns)
    return cells.mean(axis=(2, 4)).reshape(frames, rows * columns)
