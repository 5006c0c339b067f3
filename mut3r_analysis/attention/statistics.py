"""Statistics of attention that never form the query x key map.

Means and variances of logits are closed forms in the mean and covariance of the other side.
Softmax statistics come from tiles of a few query rows against all keys, so their memory is linear
in tokens. Everything accumulates in float32 (float64 for float64 inputs), whatever the model's
dtype.
"""

from collections.abc import Collection

import torch
from torch import Tensor

from mut3r_analysis.attention.catalogue import STATISTICS, check_statistics

_TILE_ELEMENTS = 1 << 19
"""Numbers in one tile over all heads: 2 MiB in float32, small enough to stay in cache."""


def site_statistics(
    names: Collection[str], q: Tensor, k: Tensor, *, pose_key: int | None = None
) -> dict[str, Tensor]:
    """Compute statistics of one attention site.

    Parameters
    ----------
    names : collection of str
        Keys of :data:`~mut3r_analysis.attention.catalogue.STATISTICS`.
    q, k : Tensor
        ``(..., head, query | key, channel)``, after rotary embedding and before scaling: logits
        are ``q k^T / sqrt(channel)``.
    pose_key : int, optional
        Index of the pose token among the keys; without one, ``pose_weight`` is left out.

    Returns
    -------
    dict of str to Tensor
        ``(..., head, query)`` or ``(..., head, key)`` each, float32 (float64 for float64 inputs).
    """
    names = check_statistics(names)
    if pose_key is None:
        names = tuple(name for name in names if name != "pose_weight")
    precise = torch.promote_types(q.dtype, torch.float32)
    q = q.to(precise) * q.shape[-1] ** -0.5
    k = k.to(precise)
    result = _closed_forms(names, q, k)
    tiled = [name for name in names if not STATISTICS[name].closed_form]
    if tiled:
        result |= _tiled(tiled, q, k, pose_key)
    return {name: result[name] for name in names}


def _closed_forms(names: Collection[str], q: Tensor, k: Tensor) -> dict[str, Tensor]:
    """Statistics that are linear or quadratic in the logits; ``q`` is scaled already."""
    result: dict[str, Tensor] = {}
    if "logit_mean" in names or "logit_variance" in names:
        centre = k.mean(dim=-2, keepdim=True)
    if "logit_mean" in names:
        result["logit_mean"] = (q @ centre.mT).squeeze(-1)
    if "logit_variance" in names:
        # Centring first: E[z^2] - E[z]^2 would lose three digits to the keys' common offset.
        centred = k - centre
        covariance = centred.mT @ centred / k.shape[-2]
        result["logit_variance"] = torch.linalg.vecdot(q @ covariance, q).clamp_min(0)
    if "received_logit" in names:
        result["received_logit"] = (k @ q.mean(dim=-2, keepdim=True).mT).squeeze(-1)
    return result


def tile_rows(heads: int, queries: int, keys: int) -> int:
    """Query rows of one tile: bounded in numbers, and less than the whole map."""
    fitting = _TILE_ELEMENTS // (heads * keys)
    return max(1, min(fitting, (queries + 1) // 2))


def _tiled(names: Collection[str], q: Tensor, k: Tensor, pose_key: int | None) -> dict[str, Tensor]:
    """Softmax statistics, one tile of query rows at a time; ``q`` is scaled already."""
    queries, keys = q.shape[-2], k.shape[-2]
    batch_heads = q[..., 0, 0].numel()
    rows = tile_rows(batch_heads, queries, keys)
    per_query = {name: q.new_empty(q.shape[:-1]) for name in names if name != "received"}
    received = q.new_zeros(k.shape[:-1]) if "received" in names else None
    transposed = k.mT
    for start in range(0, queries, rows):
        tile = slice(start, start + rows)
        z = q[..., tile, :] @ transposed
        peak = z.amax(dim=-1, keepdim=True)
        z = z - peak
        e = z.exp()
        total = e.sum(dim=-1)
        for name, values in per_query.items():
            values[..., tile] = _row_statistic(name, z, e, total, peak, pose_key)
        if received is not None:
            received += (total.reciprocal()[..., None, :] @ e).squeeze(-2)
    if received is not None:
        per_query["received"] = received / queries
    return per_query


def _row_statistic(
    name: str, z: Tensor, e: Tensor, total: Tensor, peak: Tensor, pose_key: int | None
) -> Tensor:
    """One statistic of a tile ``(..., row, key)`` of logits z minus their row maximum."""
    if name == "logsumexp":
        return peak.squeeze(-1) + total.log()
    if name == "entropy":
        return total.log() - torch.linalg.vecdot(e, z) / total
    if name == "max_weight":
        return total.reciprocal()
    return e[..., pose_key] / total
