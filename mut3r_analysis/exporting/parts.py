"""The points of a run in two parts: what rests, fused over all frames, and what moves, by frame."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from mut3r_analysis.errors import InvalidArgument
from mut3r_analysis.evaluation.cue_masks import motion_masks
from mut3r_analysis.evaluation.tasks import require_one_path
from mut3r_analysis.figures.seen import frames_seen
from mut3r_analysis.foundation.fields import one_of
from mut3r_analysis.metrics.multiview import thin

MOVING = ("cue", "truth", "nothing")
"""Who says what moves."""

Colors = NDArray[np.uint8]
Positions = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class FrameParts:
    """One frame, on the grid of the predictions.

    Attributes
    ----------
    frame : int
        Label.
    image : ndarray
        (y, x, rgb) uint8.
    moving : ndarray
        (y, x) bool.
    points : ndarray
        (y, x, xyz) in the world of the first camera.
    kept : ndarray
        (y, x) bool: points that are finite and certain enough.
    """

    frame: int
    image: Colors
    moving: NDArray[np.bool_]
    points: Positions
    kept: NDArray[np.bool_]

    def cloud(self, moving: bool) -> tuple[Positions, Colors]:
        """Return positions and colours of the points that move, or that do not."""
        chosen = self.kept & (self.moving == moving)
        return self.points[chosen], self.image[chosen]


def frame_parts(
    run: xr.DataTree, sequence: xr.Dataset, moving: str, least_confidence: float
) -> Iterator[FrameParts]:
    """Go through the whole frames of a run.

    Raises
    ------
    InvalidArgument
        A run without points of the world, of several parts in frames of their own, without
        anything that says what moves, or of another sequence.
    """
    one_of("moving", moving, MOVING)
    prediction = run["prediction"].to_dataset()
    if "points_world" not in prediction:
        raise InvalidArgument(
            "the run holds no points of the world; run again with outputs=('pose', 'points_world') "
            "or more"
        )
    labels = prediction["frame"].values[: run.attrs.get("frames_complete")]
    require_one_path(run, labels)
    size = (prediction.sizes["y"], prediction.sizes["x"])
    masks = _masks(run, labels, size, moving)
    for index, label in enumerate(labels):
        one = prediction.sel(frame=label)
        points = one["points_world"].transpose("y", "x", "xyz").values.astype(np.float64)
        kept = np.asarray(np.isfinite(points).all(axis=-1))
        if least_confidence:
            confidence = one["confidence_world"].transpose("y", "x").values
            kept &= confidence >= np.quantile(confidence, least_confidence)
        image = frames_seen(run, sequence, labels[index : index + 1])[0].values
        yield FrameParts(int(label), image, masks[index], points, kept)


def fused(clouds: list[tuple[Positions, Colors]], voxel: float | None) -> tuple[Positions, Colors]:
    """Join clouds, and replace the points in each cube by their mean place and colour."""
    positions, colors = (np.concatenate(part) for part in zip(*clouds, strict=True))
    if voxel is None or not len(positions):
        return positions, colors
    both = thin(positions, voxel, colors)
    return both[:, :3], np.rint(both[:, 3:]).astype(np.uint8)


def _masks(
    run: xr.DataTree, labels: NDArray[np.int64], size: tuple[int, int], moving: str
) -> NDArray[np.bool_]:
    if moving == "nothing":
        return np.zeros((len(labels), *size), bool)
    if moving == "cue":
        if "cue" not in run.children:
            raise InvalidArgument(
                "the run holds no cue that says what moves; run it with cue=, or give "
                "moving='truth' or 'nothing'"
            )
        return motion_masks(run, labels, size).values
    if "truth" not in run.children or "motion_mask" not in run["truth"]:
        raise InvalidArgument("the run holds no true motion mask; give moving='cue' or 'nothing'")
    mask = run["truth"].to_dataset()["motion_mask"].sel(frame=labels)
    return mask.transpose("frame", "y", "x").values.astype(bool)
