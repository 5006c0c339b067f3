"""Video-depth errors under a named alignment.

Definitions and their order of operations follow the scorer that CUT3R, MonST3R and TTT3R share:
all valid pixels of a sequence form one pair of vectors, one alignment is fitted to them, the
prediction may be clipped above, then the errors are taken.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping

import numpy as np
import xarray as xr
from numpy.typing import ArrayLike, NDArray

from mut3r_analysis.metrics.alignment import DepthAlignment, align_depth, lower_median, scale_irls
from mut3r_analysis.metrics.errors import UndefinedMetric
from mut3r_analysis.metrics.metric import Metric, rows
from mut3r_analysis.metrics.pairs import OTHER_UNITS, check_frames, depth_vectors, in_order
from mut3r_analysis.metrics.resampling import resize_bicubic

FLOOR = 1e-5
"""Depth, metres, below which a prediction is raised before logarithms and ratios are taken."""

Vector = NDArray[np.float64]


def _log_error(g: Vector, p: Vector) -> Vector:
    return np.log(np.maximum(p, FLOOR)) - np.log(g)


def _within(bound: float) -> Callable[[Vector, Vector], np.floating]:
    def fraction(g: Vector, p: Vector) -> np.floating:
        raised = np.maximum(p, FLOOR)
        return (np.maximum(raised / g, g / raised) < bound).mean()

    return fraction


def _depth(
    name: str, label: str, long_name: str, units: str, values: Callable, pooling: str = "mean"
) -> Metric:
    higher = name.startswith("delta_")
    return Metric(name, label, long_name, units, pooling, values, name, "pixels", higher)


DEPTH_METRICS = rows(
    (
        _depth("abs_rel", "AbsRel", "mean of |p - g| / g", "1",
               lambda g, p: (np.abs(p - g) / g).mean()),
        _depth("sq_rel", "SqRel", "mean of (p - g)^2 / g", "m",
               lambda g, p: ((p - g) ** 2 / g).mean()),
        _depth("rmse", "RMSE", "root mean square of p - g", "m",
               lambda g, p: np.sqrt(((p - g) ** 2).mean()), "rmse"),
        _depth("log_rmse", "log RMSE", "root mean square of ln p - ln g", "1",
               lambda g, p: np.sqrt((_log_error(g, p) ** 2).mean()), "rmse"),
        _depth("delta_1", "δ < 1.25", "fraction with max(p/g, g/p) < 1.25", "1", _within(1.25)),
        _depth("delta_2", "δ < 1.25²", "fraction with max(p/g, g/p) < 1.25^2", "1",
               _within(1.25**2)),
        _depth("delta_3", "δ < 1.25³", "fraction with max(p/g, g/p) < 1.25^3", "1",
               _within(1.25**3)),
    )
)  # fmt: skip
"""Errors of true depths g and predicted ones p, which together give a frame's error."""


def valid_depth(truth: ArrayLike, maximum: float | None = None) -> NDArray[np.bool_]:
    """Mark true depths that are finite, positive and, where given, below `maximum`.

    Examples
    --------
    >>> valid_depth([0.0, 2.0, np.nan, 90.0], maximum=70)
    array([False,  True, False, False])
    """
    depth = np.asarray(truth)
    valid = np.isfinite(depth) & (depth > 0)
    return valid if maximum is None else valid & (depth < maximum)


def depth_metrics(truth: ArrayLike, prediction: ArrayLike) -> dict[str, float]:
    """Compute the errors of corresponding valid depths (pixel), metres, as they are.

    Returns
    -------
    dict
        `DEPTH_METRICS` to value; fractions, not percent. The first three use the prediction as it
        is, the others the prediction raised to at least `FLOOR`.

    Raises
    ------
    InvalidArgument
        Vectors that do not correspond.
    UndefinedMetric
        No pixels, a truth that is not positive, or values that are not finite.

    Examples
    --------
    >>> round(depth_metrics([1.0, 2.0], [1.1, 1.8])["abs_rel"], 3)
    0.1
    """
    g, p = depth_vectors(truth, prediction)
    if not (g > 0).all():
        raise UndefinedMetric("depths hold a truth <= 0; mask those pixels out")
    return {name: float(row.values(g, p)) for name, row in DEPTH_METRICS.items()}


def pool_depth_metrics(per_frame: Mapping[str, ArrayLike], pixels: ArrayLike) -> dict[str, float]:
    """Combine errors of frames (frame) into those of all their pixels taken together.

    Root mean squares are pooled as mean squares. Frames without valid pixels do not count.
    """
    count = np.asarray(pixels, dtype=np.float64)
    seen = count > 0
    if not seen.any():
        raise UndefinedMetric("no frame has a valid pixel to score")
    return {
        name: DEPTH_METRICS[name].pool(np.asarray(values, np.float64)[seen], count[seen])
        for name, values in per_frame.items()
    }


def score_depth(
    truth: xr.DataArray,
    prediction: xr.DataArray,
    alignment: str = "scale_irls",
    maximum: float | None = None,
    clip: float | None = None,
    each_frame: bool = False,
) -> xr.Dataset:
    """Score a sequence of depth maps under one alignment fitted to all its valid pixels.

    Parameters
    ----------
    truth, prediction : DataArray
        (frame, y, x), metres. A prediction of another height or width is resized to the truth's,
        bicubic. True depths that are not finite or not positive are not scored.
    alignment : str
        One of `mut3r_analysis.metrics.alignment.ALIGNMENTS`.
    maximum : float, optional
        True depths from here on are not scored, metres.
    clip : float, optional
        Aligned predictions are cut to at most this, metres.
    each_frame : bool
        Whether every frame has a fit of its own, as single images do.

    Returns
    -------
    Dataset
        Every metric of the sequence (no dims) and per frame (``frame_<metric>``; NaN in a frame
        without valid pixels), ``pixels`` per frame, ``alignment_scale`` and ``alignment_shift``
        (no dims; per frame with `each_frame`).

    Raises
    ------
    InvalidArgument
        Frames do not correspond, or an unknown alignment.
    UndefinedMetric
        No valid pixel in the sequence, a prediction that is not finite where the truth is valid, or
        one that lies behind the camera or falls where the truth rises, so that only a negative
        scale would fit it.

    Warns
    -----
    UserWarning
        Truth and prediction seem to be in different units, such as metres and millimetres.

    Examples
    --------
    >>> scores = score_depth(run["truth/depth"], run["prediction/depth"], "scale_median")
    >>> scores["frame_abs_rel"].dims
    ('frame',)
    """
    truth, prediction = in_order(("frame", "y", "x"), truth=truth, prediction=prediction)
    check_frames(truth, prediction)
    pairs = []
    size = (truth.sizes["y"], truth.sizes["x"])
    for index in range(truth.sizes["frame"]):
        wanted = truth.isel(frame=index).values
        given = resize_bicubic(prediction.isel(frame=index).values, size)
        valid = valid_depth(wanted, maximum=maximum)
        if not np.isfinite(given[valid]).all():
            bad = np.count_nonzero(~np.isfinite(given[valid]))
            raise UndefinedMetric(
                f"the prediction of frame {index} has NaN or infinity on {bad} pixels where the "
                "truth is valid; a score over the rest would hide them"
            )
        pairs.append((wanted[valid].astype(np.float64), given[valid]))
    if each_frame:
        fits = [_fit(*pair, alignment) if pair[0].size else None for pair in pairs]
    else:
        true, given = (np.concatenate(part) for part in zip(*pairs, strict=True))
        fits = [_fit(true, given, alignment)] * len(pairs)
    pixels = np.array([g.size for g, _ in pairs])
    per_frame = {name: np.full(len(pairs), np.nan) for name in DEPTH_METRICS}
    for index, (fitted, (g, p)) in enumerate(zip(fits, pairs, strict=True)):
        if g.size and fitted:
            aligned = fitted.apply(p)
            found = depth_metrics(g, aligned if clip is None else np.minimum(aligned, clip))
            for name, value in found.items():
                per_frame[name][index] = value
    scores = xr.Dataset(
        {
            name: ((), value, DEPTH_METRICS[name].attrs)
            for name, value in pool_depth_metrics(per_frame, pixels).items()
        },
        attrs={"alignment": alignment, "maximum": maximum, "clip": clip},
    )
    for name, values in per_frame.items():
        scores[f"frame_{name}"] = ("frame", values, scores[name].attrs)
    scores["pixels"] = ("frame", pixels, {"long_name": "valid pixels"})
    for name, units in (("scale", "1"), ("shift", "m")):
        fitted_values = [np.nan if each is None else getattr(each, name) for each in fits]
        fit = ("frame", fitted_values) if each_frame else ((), fitted_values[0])
        scores[f"alignment_{name}"] = (*fit, {"units": units})
    return scores.assign_coords(frame=truth["frame"]) if "frame" in truth.coords else scores


def order_spread(
    truth: ArrayLike, prediction: ArrayLike, orders: int = 12, seed: int = 0
) -> dict[str, float]:
    """Measure how far the released fit of a scale differs from itself.

    The ten rounds of ``scale_irls`` are run in float32, as the released code runs them, on the same
    pixels in several orders; only rounding differs.

    Parameters
    ----------
    truth, prediction : array_like
        (pixel), positive, metres.
    orders : int
        How many permutations.
    seed : int
        Of the permutations.

    Returns
    -------
    dict
        Metric to the difference between its largest and its smallest value over its median.
    """
    g, p = depth_vectors(truth, prediction)
    rng = np.random.default_rng(seed)
    found = []
    for _ in range(orders):
        order = rng.permutation(g.size)
        scale, *_ = scale_irls(g[order].astype(np.float32), p[order].astype(np.float32))
        found.append(depth_metrics(g, scale * p))
    columns = {name: np.array([each[name] for each in found]) for name in DEPTH_METRICS}
    return {name: float(np.ptp(v) / np.median(v)) for name, v in columns.items()}


def _fit(truth: Vector, prediction: Vector, alignment: str) -> DepthAlignment:
    fitted = align_depth(truth, prediction, alignment)
    _check_fit(fitted, truth, prediction)
    return fitted


def _check_fit(
    fitted: DepthAlignment, truth: NDArray[np.float64], prediction: NDArray[np.float64]
) -> None:
    """Refuse a negative scale and warn of other units, which an alignment would hide."""
    shifted = fitted.name.startswith("scale_shift")
    middle = lower_median(prediction)
    if fitted.scale < 0 or (middle < 0 and fitted.name == "scale_irls"):
        why = (
            "falls where the true depth rises, as inverse depth does"
            if shifted
            else f"is negative, {middle:.4g} in the middle: behind the camera, as if the axis "
            "pointed backwards"
        )
        raise UndefinedMetric(
            f"the predicted depth {why}, so only a negative scale fits it; convert it to depth "
            "along the optical axis"
        )
    ratio = middle / lower_median(truth)
    if not shifted and ratio > 0 and not 1 / OTHER_UNITS < ratio < OTHER_UNITS:
        warnings.warn(
            f"predicted depths are {ratio:.3g} times the true ones (medians): are both in metres? "
            "Millimetres are 1,000 times as many"
            + ("" if fitted.name == "metric" else ", which the alignment hides"),
            stacklevel=4,
        )
