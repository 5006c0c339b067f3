"""From a map of motion to a mask of pixels: smoothed by clusters, cut by Otsu's threshold."""

from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from mut3r_analysis.errors import InvalidArgument
from mut3r_analysis.motion.mask_cue import MaskCue
from mut3r_analysis.motion.otsu import Otsu, best_threshold

EPSILON = 1e-6
"""Added to what a map is divided by when it is stretched."""


@dataclass(frozen=True, eq=False)
class MaskMotion:
    """What a cue that ends in a mask found in every frame.

    Attributes
    ----------
    dynamic : Tensor
        ``(frame, row, column)`` in [0, 1], before smoothing.
    labels : Tensor or None
        ``(frame, row, column)`` cluster of each patch.
    smooth : Tensor
        ``(frame, row, column)`` in [0, 1], after smoothing.
    otsu : Otsu
    mask : Tensor
        ``(frame, y, x)`` bool.
    cells : Tensor
        ``(frame, row, column)``: 1 where any pixel of the patch is dynamic, else 0.
    """

    dynamic: Tensor
    labels: Tensor | None
    smooth: Tensor
    otsu: Otsu
    mask: Tensor
    cells: Tensor

    @classmethod
    def of(
        cls,
        cue: MaskCue,
        dynamic: Tensor,
        features: Tensor,
        size: tuple[int, int],
        labels: Tensor | None,
        **found: Any,
    ) -> Self:
        """Smooth a map and cut it; `found` is what else a kind of cue knows.

        Parameters
        ----------
        cue : MaskCue
        dynamic : Tensor
            ``(frame, row, column)`` in [0, 1].
        features : Tensor
            ``(frame, row, column, channel)`` encoder tokens, float32.
        size : (int, int)
            Height and width of the frames, px.
        labels : Tensor or None
            ``(frame, row, column)`` clusters where they are known already.
        """
        smooth = dynamic
        if cue.clusters is not None:
            labels = clusters(features, cue.clusters, cue.seed) if labels is None else labels
            smooth = smoothed(dynamic, labels)
        pixels = to_pixels(smooth, size)
        otsu = best_threshold(pixels.numpy(), cue.classes)
        mask = pixels > otsu.threshold
        cells = cells_of(mask, size[0] // dynamic.shape[1])
        return cls(dynamic, labels, smooth, otsu, mask, cells, **found)


def clusters(features: Tensor, count: int, seed: int) -> Tensor:
    """Cluster the tokens of all frames by k-means.

    Raises
    ------
    InvalidArgument
        For fewer tokens than clusters.
    """
    from sklearn.cluster import KMeans

    frames, rows, columns = features.shape[:3]
    tokens = features.flatten(0, 2).numpy()
    if len(tokens) < count:
        raise InvalidArgument(
            f"{count} clusters need at least as many patches; {frames} frames of {rows} x "
            f"{columns} have {len(tokens)}. Give more or larger frames, or fewer clusters"
        )
    found = KMeans(count, random_state=seed).fit_predict(tokens)
    return torch.from_numpy(found).long().reshape(frames, rows, columns)


def smoothed(dynamic: Tensor, labels: Tensor) -> Tensor:
    """Give every patch the mean of its cluster, and stretch each frame to [0, 1]."""
    member, values = labels.flatten().numpy(), dynamic.flatten().double().numpy()
    mean = np.bincount(member, values) / np.maximum(np.bincount(member), 1)
    return stretched_per_frame(torch.from_numpy(mean[member]).float().reshape(dynamic.shape))


def to_pixels(values: Tensor, size: tuple[int, int]) -> Tensor:
    """Take ``(frame, row, column)`` to ``(frame, y, x)``, bilinear between the patches' centres."""
    return F.interpolate(values[:, None], size, mode="bilinear", align_corners=False)[:, 0]


def cells_of(mask: Tensor, patch: int) -> Tensor:
    """Return which patches ``(frame, row, column)`` of a pixel mask have any dynamic pixel."""
    return F.max_pool2d(mask.float()[:, None], patch)[:, 0]


def stretched_per_frame(values: Tensor) -> Tensor:
    """Stretch each frame ``(frame, row, column)`` to [0, 1]."""
    low, high = values.amin((1, 2), keepdim=True), values.amax((1, 2), keepdim=True)
    return (values - low) / (high - low + EPSILON)
