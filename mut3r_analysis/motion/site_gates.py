"""Each realisation at its site: motion scores of tokens in, gated output out."""

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from mut3r_analysis.motion.kernels import (
    attention,
    biased,
    key_biased,
    key_gate,
    log_sum_exp,
    masked,
    pair_gate,
    precise,
)
from mut3r_analysis.motion.realisations import RENORMALISED

LARGEST_SCORE = 1 - 1e-4
"""Where a power or a logarithm of 1 - g is taken: no weight is ever zero."""


class Setting(NamedTuple):
    """What gates of one group have in common.

    ``beta`` is the value of all of them where a kernel needs one whole number, and None where each
    sample brings its own.
    """

    name: str
    kernel: str
    heads: tuple[int, ...] | None
    threshold: float
    null_logit: float | None
    beta: int | None


def gate_keys(
    setting: Setting, q: Tensor, k: Tensor, v: Tensor, g: Tensor, beta: Tensor, also: Tensor | None
) -> tuple[Tensor, Tensor | None]:
    """Gate a site whose keys alone have scores ``g`` ``(batch, key)``.

    Parameters
    ----------
    beta : Tensor
        ``(batch | 1, 1)``.
    also : Tensor, optional
        ``(batch, key)`` to average under the plain weights on the way, where that is free.

    Returns
    -------
    output : Tensor
        ``(batch, head, query, channel)``.
    average : Tensor or None
        ``(batch, head, query)``; None where it was not wanted or not free.
    """
    renormalised = setting.name in RENORMALISED
    if setting.name in ("hard", "static_to_dynamic"):
        log_weight = torch.where(g > setting.threshold, -torch.inf, 0.0)
    else:
        log_weight = beta * torch.log1p(-g.clamp_max(LARGEST_SCORE))
    # What is averaged on the way costs the value form one channel, and another form a whole pass.
    if setting.kernel == "values" or (renormalised and also is not None):
        return key_gate(q, k, v, log_weight, normalise=renormalised, also=also)
    if renormalised:
        return key_biased(q, k, v, log_weight), None
    return masked(q, k, v, lambda rows: log_weight[:, None].exp()), None


def gate_self(setting: Setting, q: Tensor, k: Tensor, v: Tensor, g: Tensor, beta: Tensor) -> Tensor:
    """Gate a site where tokens with scores ``g`` ``(batch, token)`` read each other."""
    if setting.name == "pair_bias":
        # A static query (g_i = 0) sees keys weighted 1 - g_j; a dynamic one sees them as they are.
        soft = g.clamp_max(LARGEST_SCORE)
        return _gate_pairs(setting, q, k, v, soft, 1 - soft, 1 - soft, beta)
    if setting.name != "static_to_dynamic":
        return gate_keys(setting, q, k, v, g, beta, None)[0]
    dynamic = g > setting.threshold
    return static_to_dynamic(q, k, v, dynamic, dynamic, dense=setting.kernel == "dense")


def static_to_dynamic(
    q: Tensor, k: Tensor, v: Tensor, queries: Tensor, keys: Tensor, *, dense: bool
) -> Tensor:
    """Leave out what static queries take of dynamic keys, without renormalising.

    Parameters
    ----------
    queries, keys : Tensor
        ``(batch, query)`` and ``(batch, key)`` bool, which are dynamic.
    dense : bool
        Whether the mask is made, in tiles of query rows; otherwise values are widened.
    """
    if dense:
        return masked(
            q, k, v, lambda rows: (queries[:, rows, None] | ~keys[:, None]).to(torch.float32)
        )
    static_values = v * ~keys[:, None, :, None]
    both = attention(q, k, torch.cat([v, static_values], dim=-1))
    plain, without = both.chunk(2, dim=-1)
    return torch.where(queries[:, None, :, None], plain, without)


def gate_queries(
    setting: Setting,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    g: Tensor,
    beta: Tensor,
    state_motion: Tensor | None = None,
) -> Tensor:
    """Gate a site whose queries alone have scores ``g`` ``(batch, query)``.

    Parameters
    ----------
    state_motion : Tensor, optional
        ``(batch, key)`` in [0, 1]: the keys' part in ``pair_state``.
    """
    soft = g.clamp_max(LARGEST_SCORE)
    log_share = beta * torch.log1p(-soft)
    share = log_share.exp()[:, None, :, None]
    match setting.name:
        case "output_scale":
            return _scaled(attention(q, k, v), share)
        case "postmask":
            return masked(q, k, v, lambda rows: share[:, 0, rows])
        case "null_key":
            kept = _kept_beside_null_key(log_sum_exp(q, k), log_share[:, None], setting.null_logit)
            # The pose token is special: a fixed null logit must not weaken it either.
            kept[..., 0] = 1
            return _scaled(attention(q, k, v), kept[..., None])
        case "null_value":
            mean = precise(v).mean(dim=-2, keepdim=True)
            return (mean + share * (precise(attention(q, k, v)) - mean)).to(v.dtype)
        case "temperature":
            return attention(_scaled(q, share), k, v)
        case "hard_skip":
            return attention(q, k, v) * (g <= setting.threshold)[:, None, :, None]
    if state_motion is None:
        raise ValueError("pair_state needs the motion that each state token read")
    kept = 1 - state_motion.clamp_max(LARGEST_SCORE)
    return _gate_pairs(setting, q, k, v, 1 - g, g, kept, beta)


def spread_to_unit(motion: Tensor) -> Tensor:
    """Stretch each sample's values ``(batch, token)`` to [0, 1]; the raw spread is small."""
    low = motion.amin(dim=-1, keepdim=True)
    span = motion.amax(dim=-1, keepdim=True) - low
    return (motion - low) / span.clamp_min(torch.finfo(motion.dtype).tiny)


def _gate_pairs(
    setting: Setting,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    stay: Tensor,
    fade: Tensor,
    kept: Tensor,
    beta: Tensor,
) -> Tensor:
    if setting.kernel == "values" and setting.beta is not None:
        return pair_gate(q, k, v, stay, fade, kept, setting.beta)

    def log_weight(rows: slice) -> Tensor:
        # The same number as log1p(-fade (1 - kept)), as a sum of non-negative terms: near a weight
        # of 1e-4 the product form has lost four digits before the logarithm is taken.
        weight = stay[:, rows, None] + fade[:, rows, None] * kept[:, None]
        return beta[..., None] * weight.log()

    return biased(q, k, v, log_weight)


def _kept_beside_null_key(log_total: Tensor, log_share: Tensor, null_logit: float | None) -> Tensor:
    """Weight left for the real keys once a null key joins the softmax."""
    if null_logit is not None:
        return (log_total + log_share - null_logit).sigmoid()
    matched = log_total + torch.log(torch.expm1(-log_share))
    return (log_total - matched).sigmoid()


def _scaled(values: Tensor, factor: Tensor) -> Tensor:
    return (precise(values) * factor).to(values.dtype)


def plain(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Return what the site computes when nothing gates it."""
    return F.scaled_dot_product_attention(q, k, v)
