"""Motion-segmentation measures: region similarity J, boundary accuracy F, ROC area.

J and F are those of Perazzi et al., "A Benchmark Dataset and Evaluation Methodology for Video
Object Segmentation" (2016), on masks in which every moving object counts as one foreground.
"""

from __future__ import annotations

import numpy as np
import xarray as xr
from numpy.typing import ArrayLike, NDArray
from scipy.ndimage import distance_transform_edt

from mut3r_analysis.errors import InvalidArgument
from mut3r_analysis.metrics.errors import UndefinedMetric
from mut3r_analysis.metrics.metric import Metric, rows
from mut3r_analysis.metrics.pairs import in_order

Masks = NDArray[np.bool_]

BOUNDARY_TOLERANCE = 0.008
"""Tolerance of the boundary measure as a fraction of the image diagonal."""


def region_similarity(truth: ArrayLike, prediction: ArrayLike) -> NDArray[np.float64]:
    """Intersection over union of masks (..., y, x) per leading index; 1 where both are empty.

    Examples
    --------
    >>> float(region_similarity([[True, True, False]], [[True, False, False]]))
    0.5
    """
    wanted, given = _mask_pair(truth, prediction)
    union = (wanted | given).sum(axis=(-2, -1))
    both = (wanted & given).sum(axis=(-2, -1))
    return np.where(union == 0, 1.0, both / np.maximum(union, 1))


def boundary_accuracy(
    truth: ArrayLike, prediction: ArrayLike, tolerance: float = BOUNDARY_TOLERANCE
) -> float:
    """F-measure between the boundaries of two masks (y, x), within a tolerance in pixels.

    Precision is the fraction of the predicted boundary within reach of the true one, recall the
    fraction of the true boundary within reach of the predicted one.

    Parameters
    ----------
    truth, prediction : array_like of bool
        (y, x).
    tolerance : float
        Below 1 a fraction of the image diagonal, rounded up to whole pixels; from 1 on, pixels.

    Returns
    -------
    float
        1 where both masks have no boundary, 0 where only one has.

    Examples
    --------
    >>> mask = np.zeros((20, 20), bool)
    >>> mask[5:15, 5:15] = True
    >>> boundary_accuracy(mask, mask), boundary_accuracy(mask, np.zeros_like(mask))
    (1.0, 0.0)
    """
    wanted, given = _mask_pair(truth, prediction)
    if wanted.ndim != 2:
        raise InvalidArgument(f"masks have shape {wanted.shape}, expected (y, x)")
    if not tolerance > 0:
        raise InvalidArgument(f"tolerance={tolerance}; give a fraction of the diagonal or pixels")
    reach = tolerance if tolerance >= 1 else np.ceil(tolerance * np.hypot(*wanted.shape))
    true_boundary, boundary = mask_boundary(wanted), mask_boundary(given)
    if not (true_boundary.any() and boundary.any()):
        return float(true_boundary.any() == boundary.any())
    precision = (distance_transform_edt(~true_boundary)[boundary] <= reach).mean()
    recall = (distance_transform_edt(~boundary)[true_boundary] <= reach).mean()
    return float(2 * precision * recall / (precision + recall)) if precision + recall else 0.0


def mask_boundary(mask: ArrayLike) -> NDArray[np.bool_]:
    """Mark the pixels of (y, x) that differ from their neighbour right, below, or right below.

    In the last row only the neighbour to the right counts, in the last column only the one below:
    an object that touches the frame has no boundary along it.
    """
    inside = np.asarray(mask, dtype=bool)
    padded = np.pad(inside, ((0, 1), (0, 1)), mode="edge")
    right, below, diagonal = padded[:-1, 1:], padded[1:, :-1], padded[1:, 1:]
    return (inside != right) | (inside != below) | (inside != diagonal)


def roc_auc(truth: ArrayLike, score: ArrayLike) -> float:
    """Area under the ROC curve: the chance that a moving pixel outscores a still one.

    Ties count half (the Mann-Whitney statistic).

    Parameters
    ----------
    truth : array_like of bool
        Any shape.
    score : array_like
        The same shape; larger means more likely moving.

    Raises
    ------
    UndefinedMetric
        Only one class is present, or scores are not finite.

    Examples
    --------
    >>> roc_auc([False, False, True, True], [0.1, 0.4, 0.3, 0.9])
    0.75
    """
    from sklearn.metrics import roc_auc_score

    moving = np.ravel(_as_mask(truth, "truth"))
    values = np.ravel(np.asarray(score, dtype=np.float64))
    if moving.shape != values.shape:
        raise InvalidArgument(f"{moving.size} labels and {values.size} scores do not correspond")
    if not np.isfinite(values).all():
        raise UndefinedMetric("scores hold NaN or infinity; mask those pixels out of both")
    positives = int(moving.sum())
    negatives = moving.size - positives
    if not positives or not negatives:
        raise UndefinedMetric(
            f"{positives} moving and {negatives} still pixels: a ROC curve needs both kinds"
        )
    return float(roc_auc_score(moving, values))


def score_masks(
    truth: xr.DataArray, prediction: xr.DataArray, tolerance: float = BOUNDARY_TOLERANCE
) -> xr.Dataset:
    """Score the motion masks of one sequence, (frame, y, x) bool.

    Returns
    -------
    Dataset
        ``frame_region`` and ``frame_boundary`` (frame); over the frames of this sequence their
        means ``region_mean``, ``boundary_mean`` and the fractions of frames above one half,
        ``region_recall``, ``boundary_recall``. `average_sequences` turns those of many sequences
        into one number: ``"frame-pooled"`` as Easi3R does, ``"sequence-mean"`` as DAVIS does.

    Examples
    --------
    >>> mask = sequence["motion_mask"]
    >>> float(score_masks(mask, mask)["region_mean"])
    1.0
    """
    masks = in_order(("frame", "y", "x"), truth=truth, prediction=prediction)
    wanted, given = _mask_pair(*(mask.values for mask in masks))
    if not len(wanted):
        raise UndefinedMetric("no frames to score")
    scores = xr.Dataset()
    for row in MASK_METRICS.values():
        if not row.made_of_frames:
            continue
        part = f"frame_{row.frames}"
        if part not in scores:
            values = row.values(wanted, given, tolerance)
            scores[part] = ("frame", values, {"units": row.units})
        scores[row.name] = ((), row.pool(scores[part].values), row.attrs)
    if "frame" in truth.coords:
        scores = scores.assign_coords(frame=truth["frame"])
    return scores.assign_attrs(tolerance=tolerance)


def _boundary(truth: Masks, prediction: Masks, tolerance: float) -> NDArray[np.float64]:
    pairs = zip(truth, prediction, strict=True)
    return np.array([boundary_accuracy(*pair, tolerance) for pair in pairs])


MASK_METRICS = rows(
    (
        *(
            Metric(f"{part}_{pooling}", f"{words}, {pooling}", f"{pooling} of {words} over frames",
                   "1", pooling, values, frames=part, higher_is_better=True)
            for part, words, values in (
                ("region", "region similarity", lambda truth, given, _:
                    region_similarity(truth, given)),
                ("boundary", "boundary accuracy", _boundary),
            )
            for pooling in ("mean", "recall")
        ),
        Metric("roc_auc", "ROC AUC", "area under the ROC curve of a score of motion", "1",
               "together", roc_auc, frames="roc_auc", higher_is_better=True),
    )
)  # fmt: skip
"""Agreement of masks frame by frame, and of a score of motion with them."""


def _as_mask(values: ArrayLike, name: str) -> NDArray[np.bool_]:
    array = np.asarray(values)
    if array.dtype != bool:
        raise InvalidArgument(
            f"{name} has dtype {array.dtype}, expected bool; merge labels with `labels > 0` first"
        )
    return array


def _mask_pair(
    truth: ArrayLike, prediction: ArrayLike
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    wanted, given = _as_mask(truth, "truth"), _as_mask(prediction, "prediction")
    if wanted.shape != given.shape or wanted.ndim < 2:
        raise InvalidArgument(
            f"masks {wanted.shape} and {given.shape} must be (..., y, x) of equal shape; "
            "resize one with nearest neighbour first"
        )
    return wanted, given
