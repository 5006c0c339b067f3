"""Frames that are decoded when they are asked for, as an array xarray can index lazily."""

from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol, Self

import numpy as np
from xarray.backends import BackendArray
from xarray.core import indexing

from mut3r_analysis.errors import InvalidArgument
from mut3r_analysis.foundation.fields import Checked, optional, whole


class FrameSource(Protocol):
    """Anything that can produce its frames one at a time."""

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """(frame, y, x, rgb)."""

    def read(self, position: int) -> np.ndarray:
        """Decode the frame at `position`, uint8 (y, x, rgb)."""


_MOST = np.iinfo(np.int64).max
_stop = optional(partial(whole, low=-_MOST, high=_MOST))


@dataclass(frozen=True)
class Selection:
    """Which frames of a source are wanted: indices ``start, start + stride, ...`` below `stop`.

    A `stop` beyond the end means the end, as in Python's slices.

    Raises
    ------
    InvalidArgument
        If the range can hold no frame.
    """

    start: Checked[int, int] = Checked(partial(whole, low=0, high=_MOST), 0)
    stop: Checked[int | None, int | None] = Checked(_stop, None)
    stride: Checked[int, int] = Checked(partial(whole, low=1, high=_MOST), 1)

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read ``START:STOP`` or ``START:STOP:STRIDE``, each part of which may be left out."""
        parts = text.split(":")
        try:
            numbers = [int(part) if part else None for part in parts]
        except ValueError:
            numbers = []
        if not 2 <= len(numbers) <= 3:
            raise InvalidArgument(f"frames are START:STOP or START:STOP:STRIDE, got {text!r}")
        start, stop, stride = (*numbers, None)[:3]
        return cls(start or 0, stop, 1 if stride is None else stride)

    def __post_init__(self) -> None:
        if self.stop is not None and self.stop <= self.start:
            raise InvalidArgument(
                f"start={self.start}, stop={self.stop} holds no frame; stop is the first index "
                "left out and must be larger than start"
            )

    def indices(self, total: int, source: str) -> np.ndarray:
        """Give the indices of the wanted frames in a `source` of `total` frames.

        Raises
        ------
        InvalidArgument
            If `start` lies behind the last frame.
        """
        if self.start >= total:
            raise InvalidArgument(
                f"start={self.start} lies behind the last frame: {source} has {total} frames, "
                f"0 to {total - 1}"
            )
        return np.arange(total)[self.start : self.stop : self.stride]


class LazyFrames(BackendArray):
    """The pixels of a :class:`FrameSource`, (frame, y, x, rgb) uint8.

    Indexing decodes each frame it needs once, in the order of the source, and keeps none.
    """

    dtype = np.dtype(np.uint8)

    def __init__(self, source: FrameSource) -> None:
        self.source = source
        self.shape = source.shape

    def __getitem__(self, key: indexing.ExplicitIndexer) -> Any:
        return indexing.explicit_indexing_adapter(
            key, self.shape, indexing.IndexingSupport.OUTER, self._read
        )

    def _read(self, key: tuple[Any, ...]) -> np.ndarray:
        positions = np.arange(self.shape[0])[key[0]]
        within = key[1:]
        if positions.ndim == 0:
            return _outer(self.source.read(int(positions)), within)
        wanted, places = np.unique(positions, return_inverse=True)
        empty = _outer(np.empty(self.shape[1:], self.dtype), within)
        pixels = np.empty((len(positions), *empty.shape), self.dtype)
        for order, position in enumerate(wanted):
            pixels[places == order] = _outer(self.source.read(int(position)), within)
        return pixels


def lazy_frames(source: FrameSource) -> indexing.LazilyIndexedArray:
    """Wrap `source` for an xarray Variable that loads nothing until it is read."""
    return indexing.LazilyIndexedArray(LazyFrames(source))


def _outer(frame: np.ndarray, key: tuple[Any, ...]) -> np.ndarray:
    """Index every axis on its own; from the last, so that dropped axes shift no other."""
    for axis in reversed(range(len(key))):
        frame = frame[(slice(None),) * axis + (key[axis],)]
    return frame
