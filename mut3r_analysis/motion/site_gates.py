"""Each realisation at its site: motion scores of tokens in, gated output out."""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from mut3r_analysis.motion.kernels import (
    attention,
    biased,
    binomial,
    key_biased,
    key_gate,
    log_sum_exp,
    masked,
    pair_gate,
    powers,
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


@dataclass(frozen=True, eq=False)
class Scores:
    """Scores of tokens and what gates make of them, each once for all layers that take it.

    Attributes
    ----------
    g : Tensor
        ``(batch, token)``, 1 is dynamic.
    beta : Tensor
        ``(batch | 1, 1)``.
    """

    g: Tensor
    beta: Tensor
    _pairs: dict[tuple[str, int], Tensor] = field(default_factory=dict, init=False)

    @cached_property
    def soft(self) -> Tensor:
        """Scores of which a logarithm may be taken."""
        return self.g.clamp_max(LARGEST_SCORE)

    @cached_property
    def static(self) -> Tensor:
        """What :attr:`soft` leaves of 1."""
        return 1 - self.soft

    @cached_property
    def still(self) -> Tensor:
        """What :attr:`g` leaves of 1."""
        return 1 - self.g

    @cached_property
    def log_weight(self) -> Tensor:
        """Logarithm of the weight that a token keeps."""
        return self.beta * torch.log1p(-self.soft)

    @cached_property
    def weight(self) -> Tensor:
        """Weight that a token keeps."""
        return self.log_weight.exp()

    @cached_property
    def relative_weight(self) -> Tensor:
        """The same over the largest."""
        return over_largest(self.log_weight)

    @cached_property
    def shares(self) -> dict[str, tuple[Tensor, Tensor]]:
        """What a query keeps of every key, and of a static one, by which queries are weakened."""
        return {"static": (self.soft, self.static), "dynamic": (self.still, self.g)}

    def terms(self, weakened: str, beta: int) -> Tensor:
        """Terms of pairs in which queries that are so take less of a dynamic key."""
        return self._once(weakened, beta, lambda: binomial(*self.shares[weakened], beta))

    def powers(self, beta: int) -> Tensor:
        """Powers of what is kept of each token as a key."""
        return self._once("keys", beta, lambda: powers(self.static, beta))

    def _once(self, what: str, beta: int, make: Callable[[], Tensor]) -> Tensor:
        if (what, beta) not in self._pairs:
            self._pairs[what, beta] = make()
        return self._pairs[what, beta]


def over_largest(log_weight: Tensor) -> Tensor:
    """Weights ``(batch, key)`` over the largest: a common factor cancels, and none underflows."""
    return (log_weight - log_weight.amax(dim=-1, keepdim=True)).exp()


def gate_keys(
    setting: Setting, q: Tensor, k: Tensor, v: Tensor, scores: Scores, also: Tensor | None
) -> tuple[Tensor, Tensor | None]:
    """Gate a site whose keys alone have scores.

    Parameters
    ----------
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
        log_weight = torch.where(scores.g > setting.threshold, -torch.inf, 0.0)
        weight = over_largest(log_weight) if renormalised else log_weight.exp()
    else:
        log_weight = scores.log_weight
        weight = scores.relative_weight if renormalised else scores.weight
    # What is averaged on the way costs the value form one channel, and another form a whole pass.
    if setting.kernel == "values" or (renormalised and also is not None):
        return key_gate(q, k, v, weight, normalise=renormalised, also=also)
    if renormalised:
        return key_biased(q, k, v, log_weight), None
    return masked(q, k, v, lambda rows: weight[:, None]), None


def gate_self(setting: Setting, q: Tensor, k: Tensor, v: Tensor, scores: Scores) -> Tensor:
    """Gate a site where tokens with scores read each other."""
    if setting.name == "pair_bias":
        # A static query (g_i = 0) sees keys weighted 1 - g_j; a dynamic one sees them as they are.
        return _gate_pairs(setting, q, k, v, scores, "static", scores.static)
    if setting.name != "static_to_dynamic":
        return gate_keys(setting, q, k, v, scores, None)[0]
    dynamic = scores.g > setting.threshold
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
    scores: Scores,
    static_mass: Tensor | None = None,
) -> Tensor:
    """Gate a site whose queries alone have scores.

    Parameters
    ----------
    static_mass : Tensor, optional
        ``(batch, key)`` share of static tokens in what each key read: for ``pair_state``.
    """
    share = scores.weight[:, None, :, None]
    match setting.name:
        case "output_scale":
            return _scaled(attention(q, k, v), share)
        case "postmask":
            return masked(q, k, v, lambda rows: share[:, 0, rows])
        case "null_key":
            log_share = scores.log_weight[:, None]
            kept = _kept_beside_null_key(log_sum_exp(q, k), log_share, setting.null_logit)
            # The pose token is special: a fixed null logit must not weaken it either.
            kept[..., 0] = 1
            return _scaled(attention(q, k, v), kept[..., None])
        case "null_value":
            mean = precise(v).mean(dim=-2, keepdim=True)
            return (mean + share * (precise(attention(q, k, v)) - mean)).to(v.dtype)
        case "temperature":
            return attention(_scaled(q, share), k, v)
        case "hard_skip":
            return attention(q, k, v) * (scores.g <= setting.threshold)[:, None, :, None]
    if static_mass is None:
        raise ValueError("pair_state needs the share of static tokens in what each key read")
    # Over each sample's range, since the raw spread is small.
    low, high = static_mass.aminmax(dim=-1, keepdim=True)
    span = (high - low).clamp_min(torch.finfo(low.dtype).tiny)
    kept = ((static_mass - low) / span).clamp_min(1 - LARGEST_SCORE)
    return _gate_pairs(setting, q, k, v, scores, "dynamic", kept)


def _gate_pairs(
    setting: Setting,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    scores: Scores,
    weakened: str,
    kept: Tensor,
) -> Tensor:
    if setting.kernel == "values" and setting.beta is not None:
        beta = setting.beta
        own = scores.powers(beta) if kept is scores.static else powers(kept, beta)
        return pair_gate(q, k, v, scores.terms(weakened, beta), own)
    stay, fade = scores.shares[weakened]

    def log_weight(rows: slice) -> Tensor:
        # The same number as log1p(-fade (1 - kept)), as a sum of non-negative terms: near a weight
        # of 1e-4 the product form has lost four digits before the logarithm is taken.
        weight = stay[:, rows, None] + fade[:, rows, None] * kept[:, None]
        return scores.beta[..., None] * weight.log()

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
