"""What a state alone predicts for a camera, against what the image says (RayMap3R)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mut3r_analysis.errors import InvalidArgument
from mut3r_analysis.foundation.fields import one_of

if TYPE_CHECKING:
    from torch import Tensor

RAY_MAP = "ray_map"
"""Reading of a second look at the state, by the rays of the predicted camera without the image."""

_LEAST = 1e-6
"""Focal length, px, below which all rays but the middle one lie in the image plane."""

POOLS = ("patches", "bands")
"""How pixels become patches: by the patch they lie in, or, as in the released code, by bands of the
flattened image, of which there are as many as patches and which are called patches there."""


def check_ray_map(of: str | None, source: str) -> str:
    """Return how pixels are pooled, and refuse a source that cannot show what rays see.

    Raises
    ------
    InvalidArgument
    """
    if source not in ("two_pass", "previous", "previous_ema"):
        raise InvalidArgument(
            f"reading = 'ray_map' compares two whole predictions, and source = {source!r} has none "
            "before its gates; use 'two_pass', 'previous' or 'previous_ema(rho)'"
        )
    return str(one_of("of (how pixels become patches)", of or POOLS[0], POOLS))


def camera_rays(camera: Tensor, focal: Tensor, size: tuple[int, int]) -> Tensor:
    """Ray of every pixel, as CUT3R is trained to read it.

    Parameters
    ----------
    camera : Tensor
        ``(batch, 4, 4)`` camera-to-world.
    focal : Tensor
        ``(batch,)`` px; the principal point is the middle pixel.
    size : (int, int)
        Height and width, px.

    Returns
    -------
    Tensor
        ``(batch, y, x, 6)``: origin, and a direction of unit length. The direction is that of the
        rotated ray *plus the origin*, which points elsewhere than the ray but is what the weights
        have learned.
    """
    import torch

    from mut3r_analysis.backbones.geometry import principal_point

    x0, y0 = principal_point(*size)
    rows, columns = (
        torch.arange(n, device=camera.device, dtype=camera.dtype) - middle
        for n, middle in zip(size, (y0, x0), strict=True)
    )
    y, x = torch.meshgrid(rows, columns, indexing="ij")
    # Noise, as random weights predict it, can have a focal length of exactly 0.
    scaled = torch.stack([x, y], dim=-1) / focal.clamp_min(_LEAST)[:, None, None, None]
    rays = torch.cat([scaled, torch.ones_like(scaled[..., :1])], dim=-1)
    origin = camera[:, None, None, :3, 3]
    ahead = rays @ camera[:, None, :3, :3].mT + origin
    direction = ahead / ahead.norm(dim=-1, keepdim=True)
    return torch.cat([origin.expand_as(direction), direction], dim=-1)


def disagreement(
    depth: Tensor, by_rays: Tensor, confidence: Tensor, confidence_by_rays: Tensor
) -> tuple[Tensor, Tensor]:
    """Return how far two depths of a frame differ, and how much each pixel of that counts.

    Parameters
    ----------
    depth, by_rays : Tensor
        ``(batch, y, x)`` from the image, and from the state alone.
    confidence, confidence_by_rays : Tensor
        ``(batch, y, x)``, from 1 on.

    Returns
    -------
    difference : Tensor
        ``(batch, y, x)`` share of the depth.
    weight : Tensor
        ``(batch, y, x)`` log of the smaller confidence, stretched to [0, 1] within the frame.
    """
    import torch

    difference = (depth - by_rays).abs() / depth.abs().clamp_min(1e-6)
    surest = torch.minimum(confidence, confidence_by_rays).log()
    low, high = surest.amin((1, 2), keepdim=True), surest.amax((1, 2), keepdim=True)
    return difference, (surest - low) / (high - low).clamp_min(1e-12)


def pooled(difference: Tensor, weight: Tensor, grid: tuple[int, int], pool: str) -> Tensor:
    """Weighted mean per patch ``(batch, row, column)`` of pixels ``(batch, y, x)``.

    Parameters
    ----------
    difference, weight : Tensor
        From :func:`disagreement`.
    grid : (int, int)
        Rows and columns of patches.
    pool : {"patches", "bands"}
        See :data:`POOLS`.
    """
    rows, columns = grid

    def total(values: Tensor) -> Tensor:
        if pool == "bands":
            return values.flatten(1).unflatten(1, (rows, columns, -1)).sum(dim=-1)
        cells = values.unflatten(2, (columns, -1)).unflatten(1, (rows, -1))
        return cells.sum(dim=(2, 4))

    return total(weight * difference) / total(weight).clamp_min(1e-12)
