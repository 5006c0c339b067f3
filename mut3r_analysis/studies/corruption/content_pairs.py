"""Pairs of sequences that differ in a window of frames: in one of them something moves there."""

import numpy as np
import xarray as xr

from mut3r_analysis.errors import InvalidArgument
from mut3r_analysis.studies.emergence.twins import frozen_twin

CONTENTS = ("rest", "moving")
LEAST_SHARE = 0.005
"""Of the pixels of a window, that must show something else: less than a patch is no injection."""


def content_pair(sequence: xr.Dataset, window: tuple[int, int] | None = None) -> xr.Dataset:
    """Pair a sequence in which nothing new moves with one in which something does for a while.

    The camera and everything else is the same. Before and after the window the two are identical.

    A procedural scene is rendered twice: ``rest`` with every object resting where it is at the last
    frame before the window, ``moving`` with the objects on their paths within the window. Frames of
    any other kind get a square pasted in, cut out of their first frame and mirrored, which rests in
    ``rest`` and crosses the image within the window in ``moving``. Whatever else moves in such
    frames does so in both.

    Parameters
    ----------
    sequence : Dataset
        From :func:`~mut3r_analysis.open_sequence`; all of its frames are held in memory.
    window : (int, int), optional
        First position, and the one after the last, at which the two differ; None is the middle
        third. At least one frame comes before and one after.

    Returns
    -------
    Dataset
        ``image`` (content, frame, y, x, rgb); ``motion_mask`` (content, frame, y, x), what moves as
        far as it is known; ``changed`` (frame, y, x), pixels that show something else in the two.
        Attributes ``start``, ``stop``, ``name`` and ``how``, what moves.

    Raises
    ------
    InvalidArgument
        For fewer than 3 frames, a window that does not fit, a scene where next to nothing moves in
        view within it, or one where the resting objects would stand in the camera's way.
    """
    count = sequence.sizes["frame"]
    start, stop = _window(count, window, str(sequence.attrs.get("name", "sequence")))
    make = _twins if "scene" in sequence.attrs else _pasted
    images, masks, changed, how = make(sequence, start, stop)
    pair = xr.Dataset(
        {
            "image": (("content", "frame", "y", "x", "rgb"), images),
            "motion_mask": (("content", "frame", "y", "x"), masks),
            "changed": (("frame", "y", "x"), changed),
        },
        {"content": list(CONTENTS), "frame": sequence["frame"].values},
        {"name": str(sequence.attrs.get("name", "sequence")), "start": start, "stop": stop,
         "how": how},
    )  # fmt: skip
    if (share := float(changed[start:stop].mean())) < LEAST_SHARE:
        raise InvalidArgument(
            f"only {share:.1%} of the pixels differ at positions {start} to {stop - 1}, where "
            f"{how} should move; at least {LEAST_SHARE:.1%} must: choose another window or sequence"
        )
    return pair


def _window(count: int, window: tuple[int, int] | None, name: str) -> tuple[int, int]:
    if window is None:
        start = max(1, count // 3)
        window = start, max(start + 1, 2 * count // 3)
    start, stop = int(window[0]), int(window[1])
    if not 1 <= start < stop < count:
        raise InvalidArgument(
            f"{name} has {count} frames; a window of positions {start} to {stop - 1} needs at "
            "least one frame before and one after it"
        )
    return start, stop


def _twins(
    sequence: xr.Dataset, start: int, stop: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray, str]:
    rest = frozen_twin(sequence, int(sequence["frame"][start - 1]))
    position = xr.DataArray(np.arange(sequence.sizes["frame"]), dims="frame")
    inside = (position >= start) & (position < stop)
    names = ("image", "motion_mask", "instance", "depth")
    moving = {name: sequence[name].where(inside, rest[name]) for name in names}
    changed = (moving["instance"] != rest["instance"]) | (moving["depth"] != rest["depth"])
    images, masks = (
        np.stack([rest[name].values, moving[name].values.astype(rest[name].dtype)])
        for name in ("image", "motion_mask")
    )
    return images, masks, changed.values, "objects of the scene"


def _pasted(
    sequence: xr.Dataset, start: int, stop: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray, str]:
    frames = np.stack([sequence["image"][i].values for i in range(sequence.sizes["frame"])])
    count, height, width = frames.shape[:3]
    side = max(2, min(height, width) // 4)
    top, middle = (height - side) // 2, (width - side) // 2
    square = frames[0, top : top + side, middle : middle + side][:, ::-1]
    room, step = width - side, max(1, width // 8)
    first = room // 4
    known = np.zeros(frames.shape[:3], bool)
    if "motion_mask" in sequence:
        known = sequence["motion_mask"].values.astype(bool)
    images, masks = np.stack([frames, frames]), np.stack([known, known])
    changed = np.zeros_like(known)
    for position in range(count):
        since = max(0, position - start + 1) if position < stop else 0
        # There and back again, however long the window.
        places = (first, room - abs((first + since * step) % (2 * room) - room))
        for content, left in enumerate(places):
            area = (position, slice(top, top + side), slice(left, left + side))
            images[(content, *area)] = square
            if since:
                changed[area] = True
            masks[(content, *area)] = bool(content and since)
    return images, masks, changed, "a pasted square"
