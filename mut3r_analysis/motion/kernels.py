"""Gated attention: the same few forms behind every realisation.

The *value* forms run one plain softmax over widened values, so no query x key number exists outside
the fused kernel. A key weight w_j under softmax is ``sum_j p_ij w_j v_j / sum_j p_ij w_j``. A pair
weight that is linear in a key's weight, ``w_ij = stay_i + fade_i kept_j`` with all terms
non-negative, has for a whole beta the binomial form ``w_ij^beta = sum_m C(beta, m) stay_i^(beta-m)
fade_i^m kept_j^m``: beta + 1 groups of values, combined per query without cancellation.

The *dense* forms make biases or masks for a tile of query rows at a time: memory stays linear in
tokens.

Shapes: q ``(batch, head, query, channel)``, k and v alike over keys; weights of queries
``(batch, query)`` and of keys ``(batch, key)``, float32.
"""

from collections.abc import Callable
from functools import lru_cache
from math import comb, gcd

import torch
from torch import Tensor
from torch.nn import functional as F

from mut3r_analysis.attention.statistics import tile_rows

TileWeight = Callable[[slice], Tensor]
"""Rows of queries -> weights or log-weights ``(batch, row | 1, key)``."""

_ALIGNMENT = 8
"""Fused kernels on GPUs want widths in multiples of this."""


def attention(q: Tensor, k: Tensor, columns: Tensor) -> Tensor:
    """Plain softmax attention over values of any width, never off the fused kernel.

    Elsewhere PyTorch falls back to a form that makes the whole map. A CPU's fused kernel wants
    queries, keys and values of one width: zero channels change no logit, so the narrower side gets
    some. A GPU's wants widths in multiples of eight.
    """
    channels, width = q.shape[-1], columns.shape[-1]
    if width == channels:
        return F.scaled_dot_product_attention(q, k, columns)
    common = aligned(width)
    if q.device.type == "cpu":
        common = max(channels, common)
        q, k = (F.pad(part, (0, common - channels)) for part in (q, k))
    if common > width:
        columns = F.pad(columns, (0, common - width))
    out = F.scaled_dot_product_attention(q, k, columns, scale=channels**-0.5)
    return out[..., :width]


def aligned(width: int, groups: int = 1) -> int:
    """Return the least width from `width` on of which `groups` make one that fused kernels want."""
    unit = _ALIGNMENT // gcd(_ALIGNMENT, groups)
    return -(-width // unit) * unit


def key_gate(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    weight: Tensor,
    *,
    normalise: bool,
    also: Tensor | None = None,
) -> tuple[Tensor, Tensor | None]:
    """Weigh keys: ``p_ij w_j``, renormalised or not.

    Parameters
    ----------
    weight : Tensor
        ``(batch, key)``; 0 removes a key.
    normalise : bool
        The largest weight then had better be 1.
    also : Tensor, optional
        ``(batch, key)`` of which the plain average under p is wanted as well; it costs one channel.

    Returns
    -------
    output : Tensor
    average : Tensor or None
        ``(batch, head, query)``.
    """
    width = v.shape[-1]
    weight = weight[:, None, :, None].to(v.dtype)
    parts = [v * weight]
    if also is not None:
        parts.append(also[:, None, :, None].to(v.dtype).expand(*v.shape[:-1], 1))
    if normalise:
        columns = width + len(parts)
        ones = aligned(columns) - columns + 1
        parts.append(weight.expand(*v.shape[:-1], ones))
    found = attention(q, k, torch.cat(parts, dim=-1) if len(parts) > 1 else parts[0])
    average = None if also is None else found[..., width]
    out = found[..., :width]
    if normalise:
        total = precise(found[..., -1:])
        out = precise(out) / total.clamp_min(torch.finfo(total.dtype).tiny)
    return out.to(v.dtype), average


def binomial(stay: Tensor, fade: Tensor, beta: int) -> Tensor:
    """Terms ``C(beta, m) stay^(beta-m) fade^m`` for m up to beta: ``(batch, query, term)``."""
    ways, falling, rising = _coefficients(beta, stay.device)
    return ways * stay[..., None].pow(falling) * fade[..., None].pow(rising)


@lru_cache(maxsize=64)
def _coefficients(beta: int, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """Return binomial coefficients and powers beta to 0 and 0 to beta, which stay on a device."""
    with torch.inference_mode(False):
        rising = torch.arange(beta + 1, device=device)
        ways = [float(comb(beta, power)) for power in range(beta + 1)]
        return torch.tensor(ways, device=device), beta - rising, rising


def powers(kept: Tensor, beta: int) -> Tensor:
    """Powers 0 to beta of what is kept of each key: ``(batch, key, term)``."""
    return kept[..., None].pow(_coefficients(beta, kept.device)[2])


def pair_gate(q: Tensor, k: Tensor, v: Tensor, terms: Tensor, kept: Tensor) -> Tensor:
    """Weigh pairs by ``(stay_i + fade_i kept_j)^beta`` under softmax, with value groups.

    Parameters
    ----------
    terms : Tensor
        From :func:`binomial`, of ``(batch, query)`` that are non-negative and sum to 1.
    kept : Tensor
        From :func:`powers`, of ``(batch, key)`` in (0, 1].
    """
    width, groups = v.shape[-1], terms.shape[-1]
    weight = kept.to(v.dtype)[:, None, ..., None]
    # Ones beside the values get each group's sum of weights, by which it is divided.
    ones = weight[..., 0, :].expand(*v.shape[:-1], aligned(width + 1, groups) - width)
    columns = (weight * torch.cat([v, ones], dim=-1)[..., None, :]).flatten(-2)
    found = precise(attention(q, k, columns)).unflatten(-1, (groups, -1))
    out = (terms[:, None, :, :, None] * found).sum(dim=-2)
    return (out[..., :width] / out[..., -1:]).to(v.dtype)


def key_biased(q: Tensor, k: Tensor, v: Tensor, log_weight: Tensor) -> Tensor:
    """Add ``log_weight`` ``(batch, key)`` to the logits of every query: one row, not a map."""
    bias = log_weight[:, None, None].to(torch.promote_types(v.dtype, torch.float32))
    out = F.scaled_dot_product_attention(precise(q), precise(k), precise(v), attn_mask=bias)
    return out.to(v.dtype)


def biased(q: Tensor, k: Tensor, v: Tensor, log_weight: TileWeight) -> Tensor:
    """Add ``log_weight`` to the logits, a tile of query rows at a time; any weight, any beta."""
    out = v.new_empty(*q.shape[:-1], v.shape[-1])
    # A bias rounded to half precision would be off by percents: these tiles run in float32.
    queries, keys, values = precise(q), precise(k), precise(v)
    for rows in _tiles(q, k, heads=1):  # all heads share a bias, and the kernel keeps their logits
        bias = log_weight(rows)[:, None].to(values.dtype)
        out[..., rows, :] = F.scaled_dot_product_attention(
            queries[..., rows, :], keys, values, attn_mask=bias
        )
    return out


def masked(q: Tensor, k: Tensor, v: Tensor, weight: TileWeight) -> Tensor:
    """Multiply the weights after softmax, not renormalised, a tile of query rows at a time."""
    out = v.new_empty(*q.shape[:-1], v.shape[-1])
    queries, keys, values = precise(q) * q.shape[-1] ** -0.5, precise(k), precise(v)
    for rows in _tiles(q, k):
        p = (queries[..., rows, :] @ keys.mT).softmax(dim=-1)
        out[..., rows, :] = (p * weight(rows)[:, None].to(p.dtype)) @ values
    return out


def static_mass(q: Tensor, k: Tensor, static: Tensor) -> Tensor:
    """Average of ``static`` ``(batch, key)`` under the plain weights: ``(batch, head, query)``."""
    column = static[:, None, :, None].to(q.dtype).expand(*k.shape[:-1], 1)
    return attention(q, k, column).squeeze(-1)


def log_sum_exp(q: Tensor, k: Tensor) -> Tensor:
    """Log of each row's sum of exponentiated logits ``(batch, head, query)``."""
    queries, keys = precise(q) * q.shape[-1] ** -0.5, precise(k)
    parts = [(queries[..., rows, :] @ keys.mT).logsumexp(dim=-1) for rows in _tiles(q, k)]
    return torch.cat(parts, dim=-1)


def precise(values: Tensor) -> Tensor:
    """Return values in float32 at least."""
    return values.to(torch.promote_types(values.dtype, torch.float32))


def _tiles(q: Tensor, k: Tensor, heads: int | None = None) -> list[slice]:
    """Query rows in slices such that a tile of that many maps stays small."""
    queries = q.shape[-2]
    maps = len(q) * (q.shape[1] if heads is None else heads)
    rows = tile_rows(maps, queries, k.shape[-2], q.device.type)
    return [slice(start, min(start + rows, queries)) for start in range(0, queries, rows)]
