"""Bicubic resizing of maps, as the released depth scorers do it."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mut3r_analysis.errors import InvalidArgument


def resize_bicubic(image: ArrayLike, size: tuple[int, int]) -> NDArray[np.float64]:
    """Resize (..., y, x) to `size` = (height, width) with Keys' cubic kernel, a = -0.75.

    Pixel centres lie at half-integers, the border is repeated and nothing is smoothed when
    shrinking: the definition of OpenCV's and torch's bicubic resize.
    """
    array = np.asarray(image, dtype=np.float64)
    if array.ndim < 2 or min(array.shape[-2:]) < 1 or min(size) < 1:
        raise InvalidArgument(f"cannot resize shape {array.shape} to {size}; give (..., y, x)")
    if array.shape[-2:] == tuple(size):
        return array.copy()
    rows = _taps(array.shape[-2], size[0])
    columns = _taps(array.shape[-1], size[1])
    along_y = sum(array[..., i, :] * w[:, None] for i, w in zip(*rows, strict=True))
    return np.asarray(sum(along_y[..., i] * w for i, w in zip(*columns, strict=True)))


@lru_cache(maxsize=16)
def _taps(source: int, target: int) -> tuple[NDArray[np.intp], NDArray[np.float64]]:
    """Source indices and weights (tap, target) of the four neighbours of every target pixel."""
    a = -0.75
    position = (np.arange(target) + 0.5) * source / target - 0.5
    floor = np.floor(position)
    index = floor + np.arange(-1, 3)[:, None]
    d = np.abs(position - index)
    near = ((a + 2) * d - (a + 3)) * d**2 + 1
    far = a * (((d - 5) * d + 8) * d - 4)
    weight = np.where(d <= 1, near, far)
    return np.clip(index, 0, source - 1).astype(np.intp), weight
