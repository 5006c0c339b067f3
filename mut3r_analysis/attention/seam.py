"""The seam: the one function through which every attention of every backbone passes."""

from collections.abc import Callable, Sequence
from typing import Protocol

import torch
from torch import Tensor
from torch.nn import functional as F

from mut3r_analysis.attention.sites import Site
from mut3r_analysis.errors import InvalidArgument


class Probe(Protocol):
    """Something that looks at a site and changes nothing."""

    def __call__(self, site: Site, q: Tensor, k: Tensor) -> None:
        """Look at rotated queries ``(batch, head, query, channel)`` and keys of one site."""


class SiteGate(Protocol):
    """Something that changes what a site computes."""

    def __call__(self, site: Site, q: Tensor, k: Tensor, v: Tensor) -> Tensor | None:
        """Return the output ``(batch, head, query, channel)``, or None to leave the site be."""


Observer = Callable[[Site, Tensor, Tensor, Tensor, Tensor], Tensor | None]
"""Shown site, q, k, v and the output of each head ``(batch, head, query, channel)``; what it
returns replaces that output, and None leaves it."""


Kernel = Callable[[Tensor, Tensor, Tensor], Tensor]
"""What a site computes from q, k and v when nothing gates it."""


class Observed:
    """A gate that does as another does, and then shows every output to observers in their order.

    :func:`attend` shows them what the site computes by itself where that gate leaves it be.

    Parameters
    ----------
    gate : SiteGate or None
    observers : sequence of Observer
    """

    def __init__(self, gate: SiteGate | None, observers: Sequence[Observer]) -> None:
        self.gate = gate
        self._observers = tuple(observers)

    def __call__(self, site: Site, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Return the output of the site, gated or plain, as observers leave it."""
        return attend(site, q, k, v, self)

    def shown(self, site: Site, q: Tensor, k: Tensor, v: Tensor, out: Tensor) -> Tensor:
        """Return an output ``(batch, head, query, channel)`` as observers leave it."""
        for observer in self._observers:
            replaced = observer(site, q, k, v, out)
            out = out if replaced is None else replaced
        return out


def attend(
    site: Site,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    gate: SiteGate | None = None,
    probe: Probe | None = None,
    exists: Tensor | None = None,
    kernel: Kernel | None = None,
) -> Tensor:
    """Scaled dot-product attention at a named site.

    Parameters
    ----------
    site : Site
        Which attention operation this is.
    q, k, v : Tensor
        ``(batch, head, query | key, channel)``; queries and keys after rotary embedding, not yet
        scaled.
    gate : SiteGate, optional
        Asked first; where it returns None the plain fused kernel runs, so a gate that is off
        leaves every bit as it was.
    probe : Probe, optional
        Shown q and k before any gate acts: statistics are of the raw logits.
    exists : Tensor, optional
        ``(batch, key)`` bool: keys that are there, where samples of a batch have different numbers
        of them. The others get no weight; a probe sees them.
    kernel : callable, optional
        Computes the site instead of the fused kernel, for a model that does more there than a
        softmax.

    Returns
    -------
    Tensor
        ``(batch, head, query, channel)``.

    Raises
    ------
    InvalidArgument
        When a gate acts where some keys do not exist.

    Examples
    --------
    >>> import torch
    >>> q = k = v = torch.randn(1, 2, 5, 4)
    >>> attend(m3.attention.Site("image_self", 0), q, k, v).shape
    torch.Size([1, 2, 5, 4])
    """
    if probe is not None:
        probe(site, q, k)
    if isinstance(gate, Observed):
        out = attend(site, q, k, v, gate.gate, exists=exists, kernel=kernel)
        return gate.shown(site, q, k, v, out)
    gated = gate(site, q, k, v) if gate is not None else None
    if gated is None and kernel is not None:
        return kernel(q, k, v)
    if gated is None:
        mask = None if exists is None else exists[:, None, None]
        return F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
    if exists is not None:
        raise InvalidArgument(
            f"a gate acts at {site}, where the samples of this batch have different numbers of "
            "keys; give the sequences one at a time"
        )
    return gated


def together(*probes: Probe | None) -> Probe | None:
    """Return one probe that shows every site to each of some; None where there is none."""
    present = [probe for probe in probes if probe is not None]
    if len(present) < 2:
        return present[0] if present else None

    def probe(site: Site, q: Tensor, k: Tensor) -> None:
        for each in present:
            each(site, q, k)

    return probe


def observed(gate: SiteGate | None, *observers: Observer | None) -> SiteGate | None:
    """Return a gate that does as `gate` does and shows every output to observers, in their order.

    Where there are no observers it is the gate itself.
    """
    present = [observer for observer in observers if observer is not None]
    return Observed(gate, present) if present else gate


def logits(q: Tensor, k: Tensor) -> Tensor:
    """Whole map of scaled logits ``(batch, head, query, key)`` in float32 at least.

    Examples
    --------
    >>> import torch
    >>> logits(torch.randn(1, 2, 5, 4), torch.randn(1, 2, 7, 4)).shape
    torch.Size([1, 2, 5, 7])
    """
    precise = torch.promote_types(q.dtype, torch.float32)
    return (q.to(precise) * q.shape[-1] ** -0.5) @ k.to(precise).mT
