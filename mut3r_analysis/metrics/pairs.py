"""What truth and prediction must have in common before they are compared."""

from __future__ import annotations

import numpy as np
import xarray as xr
from numpy.typing import ArrayLike, NDArray

from mut3r_analysis.errors import InvalidArgument
from mut3r_analysis.metrics.errors import UndefinedMetric

OTHER_UNITS = 300.0
"""Lengths that differ by more than this factor are not in the same unit, or one of them is none."""


def in_order(dims: tuple[str, ...], **arrays: xr.DataArray) -> list[xr.DataArray]:
    """Transpose arrays, named as they are given, to these dims, or raise `InvalidArgument`."""
    for name, array in arrays.items():
        if set(array.dims) != set(dims):
            raise InvalidArgument(f"{name} has dims {array.dims}, expected {dims}")
    return [array.transpose(*dims) for array in arrays.values()]


def check_frames(truth: xr.DataArray | xr.Dataset, prediction: xr.DataArray | xr.Dataset) -> None:
    """Refuse different numbers of frames with `InvalidArgument`."""
    if truth.sizes["frame"] != prediction.sizes["frame"]:
        raise InvalidArgument(
            f"truth has {truth.sizes['frame']} frames and prediction {prediction.sizes['frame']}; "
            "select the same frames of both"
        )


def depth_vectors(
    truth: ArrayLike, prediction: ArrayLike
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return corresponding depths (pixel) as float64.

    Raises
    ------
    InvalidArgument
        They do not correspond.
    UndefinedMetric
        There is none, or some are not finite.
    """
    g = np.ravel(np.asarray(truth, dtype=np.float64))
    p = np.ravel(np.asarray(prediction, dtype=np.float64))
    if g.shape != p.shape:
        raise InvalidArgument(f"{g.size} true depths and {p.size} predicted ones do not correspond")
    if not g.size:
        raise UndefinedMetric("no valid pixels to compare")
    if not (np.isfinite(g).all() and np.isfinite(p).all()):
        raise UndefinedMetric("depths hold NaN or infinity; mask those pixels out first")
    return g, p
