"""Readings computed from queries and keys, with memory linear in tokens."""

import math
from collections.abc import Iterator

import torch
from torch import Tensor

from mut3r_analysis.attention.statistics import tile_rows


def patch_values(
    reading: str, q: Tensor, k: Tensor, *, pose_query: bool, pose_key: bool, pose: bool = True,
    diagonal: bool = True,
) -> Tensor:  # fmt: skip
    """Take one reading at one site.

    Parameters
    ----------
    reading : str
        Key of :data:`~mut3r_analysis.motion.READINGS`.
    q, k : Tensor
        ``(batch, head, query | key, channel)``, after rotary embedding, not scaled.
    pose_query, pose_key : bool
        Whether the first query, or key, is a pose token.
    pose : bool
        Whether pose tokens take part.
    diagonal : bool
        Whether entries of a token with itself take part.

    Returns
    -------
    Tensor
        ``(batch, head, patch)``, float32 (float64 for float64 inputs).
    """
    precise = torch.promote_types(q.dtype, torch.float32)
    q, k = q.to(precise) * q.shape[-1] ** -0.5, k.to(precise)
    if not pose:
        q, k = q[..., int(pose_query) :, :], k[..., int(pose_key) :, :]
        pose_query = pose_key = False
    match reading:
        case "logit_key_mean":
            values, drop = _mean_over(q, k, diagonal), pose_query
        case "logit_query_mean":
            values, drop = _mean_over(k, q, diagonal), pose_key
        case "logit_key_std":
            values, drop = _deviation(q, k, diagonal), pose_query
        case "received":
            values, drop = _received(q, k, diagonal), pose_key
        case _:
            values, drop = _row_shape(reading, q, k, diagonal), pose_query
    return values[..., int(drop) :]


def _mean_over(own: Tensor, other: Tensor, diagonal: bool) -> Tensor:
    """Mean logit of each of `own` over the `other` tokens."""
    count = other.shape[-2]
    mean = (own @ other.mean(dim=-2, keepdim=True).mT).squeeze(-1)
    if diagonal:
        return mean
    return (count * mean - torch.linalg.vecdot(own, other)) / (count - 1)


def _deviation(q: Tensor, k: Tensor, diagonal: bool) -> Tensor:
    """Take the standard deviation of each query's logits."""
    count = k.shape[-2]
    centre = k.mean(dim=-2, keepdim=True)
    centred = k - centre
    variance = torch.linalg.vecdot(q @ (centred.mT @ centred / count), q)
    if not diagonal:
        # Leaving one entry out of a mean and variance that are known.
        own = torch.linalg.vecdot(q, centred)
        variance = (count * variance - own.square()) / (count - 1) - (own / (count - 1)).square()
    return variance.clamp_min(0).sqrt()


def _tiles(q: Tensor, k: Tensor, diagonal: bool) -> Iterator[tuple[slice, Tensor]]:
    """Logits of a few query rows at a time; an excluded diagonal is minus infinity."""
    queries, keys = q.shape[-2], k.shape[-2]
    rows = tile_rows(q[..., 0, 0].numel(), queries, keys)
    for start in range(0, queries, rows):
        tile = slice(start, min(start + rows, queries))
        z = q[..., tile, :] @ k.mT
        if not diagonal:
            z.diagonal(start, dim1=-2, dim2=-1).fill_(-torch.inf)
        yield tile, z


def _received(q: Tensor, k: Tensor, diagonal: bool) -> Tensor:
    """Attention received by each key, relative to an even share."""
    total = q.new_zeros(k.shape[:-1])
    for _, z in _tiles(q, k, diagonal):
        total += z.softmax(dim=-1).sum(dim=-2)
    return total * (k.shape[-2] / q.shape[-2])


def _row_shape(reading: str, q: Tensor, k: Tensor, diagonal: bool) -> Tensor:
    """Read the shape of each softmax row, or its peak logit."""
    values = q.new_empty(q.shape[:-1])
    counted = k.shape[-2] - (not diagonal)
    for tile, z in _tiles(q, k, diagonal):
        match reading:
            case "maxpool_similarity":
                found = z.amax(dim=-1)
            case "entropy":
                found = torch.special.entr(z.softmax(dim=-1)).sum(dim=-1)
                found = found / math.log(counted)
            case "peak_complement":
                found = 1 - z.softmax(dim=-1).amax(dim=-1)
            case "collision_complement":
                found = 1 - z.softmax(dim=-1).square().sum(dim=-1)
            case "pose_complement":
                found = (1 - z.softmax(dim=-1)[..., 0]) / (counted - 1)
            case _:
                raise ValueError(f"{reading!r} is not a reading of one frame's attention")
        values[..., tile] = found
    return values
