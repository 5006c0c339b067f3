"""Normalisers: values of any scale become scores in [0, 1].

Softmax gates ignore a common factor on 1 - g, so there contrast acts and level does not; output
scales depend on level.
"""

import numpy as np
import torch
from torch import Tensor

from mut3r_analysis.errors import InvalidArgument

LEAST_CONTRAST = 1e-5
"""Range over largest magnitude below which values differ by no more than rounding."""


def check_contrast(values: Tensor, ready: Tensor) -> None:
    """Refuse values that are the same for every patch.

    Parameters
    ----------
    values : Tensor
        ``(sample, patch)``.
    ready : Tensor
        ``(sample,)`` bool: samples whose values count.

    Raises
    ------
    InvalidArgument
        When a sample's range is below 1e-5 of its largest magnitude, or not finite.
    """
    low, high = values.detach().aminmax(dim=-1)
    found = np.array(torch.stack([low, high, ready.to(low.dtype)]).tolist())
    ranges = found[:2, found[2] > 0]
    if not ranges.size:
        return
    if not np.isfinite(ranges).all():
        raise InvalidArgument(
            "the values of a cue are not finite; check the weights and the frames"
        )
    size = np.abs(ranges).max(axis=0)
    worst = float(np.min((ranges[1] - ranges[0]) / np.maximum(size, np.finfo(float).tiny)))
    if worst <= LEAST_CONTRAST:
        raise InvalidArgument(
            "a cue without contrast: its values over the patches of a frame have a relative range "
            f"of {worst:.1e} (at least {LEAST_CONTRAST:g} is needed). Normalising would turn "
            "rounding noise into a mask. An average of softmax weights over keys is constant like "
            "this; choose a reading that differs between patches, or control='const(0.5)' for a "
            "constant score"
        )


def location_and_scale(normaliser: str, values: Tensor) -> tuple[Tensor, Tensor] | None:
    """Location and scale ``(sample,)`` of values ``(sample, patch)``; None where there is none."""
    match normaliser:
        case "zscore":
            scale, location = torch.std_mean(values, dim=-1, correction=0)
            return location, scale
        case "robust":
            median = values.quantile(0.5, dim=-1)
            deviation = (values - median[:, None]).abs().quantile(0.5, dim=-1)
            return median, 1.4826 * deviation
        case "quartile":
            low, median, high = (values.quantile(q, dim=-1) for q in (0.25, 0.5, 0.75))
            return median, high - low
        case "upper_half":
            median, high = (values.quantile(q, dim=-1) for q in (0.5, 0.95))
            return median, (high - median).clamp_min(1e-6)
        case "minmax":
            low = values.amin(dim=-1)
            return low, values.amax(dim=-1) - low
    return None


def normalise(
    normaliser: str,
    values: Tensor,
    sharpness: float,
    found: tuple[Tensor, Tensor] | None,
) -> Tensor:
    """Scores in [0, 1] of values ``(sample, patch)``, given :func:`location_and_scale`'s answer.

    Raises
    ------
    InvalidArgument
        For ``raw`` values outside [0, 1].
    """
    if found is not None:
        location, scale = found
        smallest = torch.finfo(values.dtype).tiny
        values = (values - location[:, None]) / scale[:, None].clamp_min(smallest)
    match normaliser:
        case "sigmoid" | "zscore" | "robust" | "quartile":
            return (sharpness * values).sigmoid()
        case "minmax" | "upper_half":
            return values.clamp(0, 1)
        case "rank":
            return _rank(values)
    if not bool(((values >= 0) & (values <= 1)).all()):
        raise InvalidArgument(
            "normaliser 'raw' takes values as they are, so they must lie in [0, 1]; these reach "
            f"from {float(values.min()):.3g} to {float(values.max()):.3g}. Use another normaliser"
        )
    return values


def _rank(values: Tensor) -> Tensor:
    """Rank in [0, 1]; equal values share their average rank."""
    ordered = values.sort(dim=-1).values
    below = torch.searchsorted(ordered, values.contiguous())
    through = torch.searchsorted(ordered, values.contiguous(), right=True)
    return (below + through - 1).to(values.dtype) / (2 * max(values.shape[-1] - 1, 1))
