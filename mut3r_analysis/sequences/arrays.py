"""Frames that are already in memory, from numpy or torch."""

from hashlib import sha256
from typing import Any, NamedTuple

import numpy as np

from mut3r_analysis.errors import InvalidArgument
from mut3r_analysis.sequences.frames import Selection


class ArrayFrames(NamedTuple):
    """Selected frames of an array: pixels uint8 (frame, y, x, rgb), their indices and digest."""

    pixels: np.ndarray
    indices: np.ndarray
    sha256: str


def open_array(array: Any, selection: Selection) -> ArrayFrames:
    """Check, select and copy frames, so that later changes of `array` do not reach the sequence.

    Parameters
    ----------
    array
        (frame, y, x, rgb), numpy or torch: uint8, or floating point in [0, 1].
    selection
        Which frames to keep; only these are checked.

    Raises
    ------
    InvalidArgument
        If shape, type or values are not those of frames, or the selection holds none.
    """
    if hasattr(array, "detach"):
        array = array.detach().cpu()
        # numpy has no bfloat16.
        array = (array.float() if array.is_floating_point() else array).numpy()
    _check_shape(array.shape)
    if array.dtype != np.uint8 and array.dtype.kind != "f":
        raise InvalidArgument(
            f"frames are {array.dtype}; give uint8 in [0, 255], or floating point in [0, 1]"
        )
    indices = selection.indices(len(array), "the array")
    pixels = np.empty((len(indices), *array.shape[1:]), np.uint8)
    digest = sha256(f"{indices.tolist()} {pixels.shape}\n".encode())
    for position, index in enumerate(indices):
        pixels[position] = _levels(array[index], int(index))
        digest.update(pixels[position])
    return ArrayFrames(pixels, indices, digest.hexdigest())


def _check_shape(shape: tuple[int, ...]) -> None:
    """Refuse what is not (frame, y, x, rgb), and say how to get there."""
    if len(shape) == 4 and shape[3] == 3 and 0 not in shape:
        return
    advice = "give an array of at least one frame with three colours last"
    if len(shape) == 3 and shape[2] == 3:
        advice = "for a single frame give array[None]"
    elif len(shape) == 4 and shape[1] == 3:
        advice = "these look like colours first: give numpy.moveaxis(array, 1, -1)"
    elif len(shape) == 4 and shape[3] == 4:
        advice = "to drop alpha give array[..., :3]"
    elif len(shape) == 4 and shape[3] == 1:
        advice = "for gray frames give numpy.repeat(array, 3, axis=-1)"
    raise InvalidArgument(f"frames must have shape (frame, y, x, 3), got {tuple(shape)}; {advice}")


def _levels(frame: np.ndarray, index: int) -> np.ndarray:
    """Round one frame to the nearest of 256 levels, uint8."""
    if frame.dtype == np.uint8:
        return frame
    if not np.isfinite(frame).all():
        broken = np.count_nonzero(~np.isfinite(frame).all(axis=-1))
        raise InvalidArgument(
            f"frame {index} has {broken} pixels that are NaN or infinite; a colour is needed "
            "everywhere: fill them, or leave the frame out with start=, stop= or stride="
        )
    low, high = float(frame.min()), float(frame.max())
    if low < 0 or high > 1:
        advice = "clip or rescale them"
        if 1 < high <= 255 and low >= 0:
            advice = "divide by 255 if they run to 255, or clip them if they barely exceed 1"
        elif low >= -1 and high <= 1:
            advice = "give (array + 1) / 2 if they run from -1 to 1"
        raise InvalidArgument(
            f"frame {index} has values from {low:g} to {high:g}; floating point frames must lie "
            f"in [0, 1]: {advice}"
        )
    return np.rint(frame.astype(np.float64) * 255).astype(np.uint8)
