"""Transformer blocks of the CUT3R family. Parameter names are the official ones."""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mut3r_analysis.attention.sites import Site
from mut3r_analysis.backbones.rotation import Rotation, rotate

Attend = Callable[[Site, Tensor, Tensor, Tensor], Tensor]
"""The seam with its gate and probe already bound: site, q, k, v -> output."""


def layer_norm(width: int) -> nn.LayerNorm:
    """Layer normalisation with the epsilon used everywhere in this family."""
    return nn.LayerNorm(width, eps=1e-6)


class Mlp(nn.Module):
    """Two linear layers around an exact (erf) GELU."""

    def __init__(self, width: int, hidden: int, out: int | None = None) -> None:
        super().__init__()
        self.fc1 = nn.Linear(width, hidden)
        self.fc2 = nn.Linear(hidden, width if out is None else out)

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(..., width)`` to ``(..., out)``."""
        return self.fc2(F.gelu(self.fc1(x)))


class Projected(NamedTuple):
    """What a decoder block takes from its inputs before any attention, so before any gate.

    Each ``(batch, head, token, channel)``.

    Attributes
    ----------
    own : (Tensor, Tensor, Tensor)
        Queries, keys and values of the self-attention.
    other : (Tensor, Tensor)
        Keys and values of the stream that is read.
    """

    own: tuple[Tensor, Tensor, Tensor]
    other: tuple[Tensor, Tensor]


def _split(x: Tensor, heads: int) -> Tensor:
    return x.unflatten(-1, (heads, -1)).transpose(1, 2)


def _merge(x: Tensor) -> Tensor:
    return x.transpose(1, 2).flatten(2)


class SelfAttention(nn.Module):
    """Self-attention at one site.

    Attributes
    ----------
    rotation_dtype : torch.dtype or None
        Storage dtype of queries and keys before and after their rotation. The official image
        encoder rounds both to float16; None keeps them as they are.
    """

    def __init__(self, width: int, heads: int, site: Site) -> None:
        super().__init__()
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)
        self.heads = heads
        self.site = site
        self.rotation_dtype: torch.dtype | None = None

    def project(self, x: Tensor, turn: Rotation | None) -> tuple[Tensor, Tensor, Tensor]:
        """Project to queries, keys and values; without a rotation tokens have no position."""
        width = self.proj.in_features
        both, v = self.qkv(x).split((2 * width, width), dim=-1)
        # Queries and keys are turned as heads of one tensor: half as many launches on a GPU.
        both, v = _split(both, 2 * self.heads), _split(v, self.heads)
        if turn is not None:
            both = rotate(both.to(self.rotation_dtype or v.dtype), turn).to(v.dtype)
        q, k = both.chunk(2, dim=1)
        return q, k, v

    def attend(self, qkv: tuple[Tensor, Tensor, Tensor], attend: Attend) -> Tensor:
        """Attend among what :meth:`project` returned: ``(batch, token, width)``."""
        return self.proj(_merge(attend(self.site, *qkv)))

    def forward(self, x: Tensor, turn: Rotation | None, attend: Attend) -> Tensor:
        """Attend within ``(batch, token, width)``."""
        return self.attend(self.project(x, turn), attend)


class CrossAttention(nn.Module):
    """Queries of one stream read keys and values of another."""

    def __init__(self, width: int, heads: int, site: Site) -> None:
        super().__init__()
        self.projq = nn.Linear(width, width)
        self.projk = nn.Linear(width, width)
        self.projv = nn.Linear(width, width)
        self.proj = nn.Linear(width, width)
        self.heads = heads
        self.site = site

    def project(self, y: Tensor, turn: Rotation | None) -> tuple[Tensor, Tensor]:
        """Project the stream that is read, ``(batch, token, width)``, to keys and values."""
        k, v = _split(self.projk(y), self.heads), _split(self.projv(y), self.heads)
        return k if turn is None else rotate(k, turn), v

    def forward(
        self, x: Tensor, kv: tuple[Tensor, Tensor], turn: Rotation | None, attend: Attend
    ) -> Tensor:
        """Let ``x`` ``(batch, token, width)`` read what :meth:`project` returned."""
        q = _split(self.projq(x), self.heads)
        q = q if turn is None else rotate(q, turn)
        return self.proj(_merge(attend(self.site, q, *kv)))


class EncoderBlock(nn.Module):
    """Self-attention, then MLP, each on normalised tokens and added to the residual stream."""

    def __init__(self, width: int, heads: int, mlp_ratio: float, site: Site) -> None:
        super().__init__()
        self.norm1 = layer_norm(width)
        self.attn = SelfAttention(width, heads, site)
        self.norm2 = layer_norm(width)
        self.mlp = Mlp(width, int(width * mlp_ratio))

    def forward(self, x: Tensor, turn: Rotation | None, attend: Attend) -> Tensor:
        """Update ``(batch, token, width)``."""
        x = x + self.attn(self.norm1(x), turn, attend)
        return x + self.mlp(self.norm2(x))


class DecoderBlock(nn.Module):
    """Self-attention, cross-attention to another stream, MLP.

    The other stream ``y`` is normalised for reading and never modified.
    """

    def __init__(
        self, width: int, heads: int, mlp_ratio: float, self_site: Site, cross_site: Site
    ) -> None:
        super().__init__()
        self.norm1 = layer_norm(width)
        self.attn = SelfAttention(width, heads, self_site)
        self.cross_attn = CrossAttention(width, heads, cross_site)
        self.norm2 = layer_norm(width)
        self.norm3 = layer_norm(width)
        self.mlp = Mlp(width, int(width * mlp_ratio))
        self.norm_y = layer_norm(width)

    def project(
        self, x: Tensor, y: Tensor, turn_x: Rotation | None, turn_y: Rotation | None
    ) -> Projected:
        """Project ``x`` and ``y`` ``(batch, token, width)`` as far as no attention is involved."""
        own = self.attn.project(self.norm1(x), turn_x)
        return Projected(own, self.cross_attn.project(self.norm_y(y), turn_y))

    def forward(
        self,
        x: Tensor,
        y: Tensor,
        turn_x: Rotation | None,
        turn_y: Rotation | None,
        attend: Attend,
        projected: Projected | None = None,
    ) -> Tensor:
        """Update ``x`` from itself and from ``y``, both ``(batch, token, width)``.

        Passes that share their inputs may :meth:`project` them once and hand that in.
        """
        own, other = projected or self.project(x, y, turn_x, turn_y)
        x = x + self.attn.attend(own, attend)
        x = x + self.cross_attn(self.norm2(x), other, turn_x, attend)
        return x + self.mlp(self.norm3(x))


class PatchEmbed(nn.Module):
    """Non-overlapping patches, projected linearly.

    A matrix product rather than a convolution: convolution kernels differ between processors by
    enough to flip float16 roundings in the encoder.
    """

    def __init__(self, channels: int, patch: int, width: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(channels, width, patch, stride=patch)

    def forward(self, image: Tensor) -> Tensor:
        """Embed ``(batch, in, y, x)`` as ``(batch, patch, width)``."""
        patches = F.pixel_unshuffle(image, self.proj.kernel_size[0]).flatten(2).mT
        return F.linear(patches, self.proj.weight.flatten(1), self.proj.bias)


def encoder(depth: int, width: int, heads: int, mlp_ratio: float, kind: str) -> nn.ModuleList:
    """Return so many encoder blocks, whose sites are of a kind."""
    return nn.ModuleList(
        EncoderBlock(width, heads, mlp_ratio, Site(kind, layer)) for layer in range(depth)
    )


def decoder(
    depth: int, width: int, heads: int, mlp_ratio: float, self_kind: str, cross_kind: str
) -> nn.ModuleList:
    """Return so many decoder blocks, whose sites are of two kinds."""
    return nn.ModuleList(
        DecoderBlock(width, heads, mlp_ratio, Site(self_kind, layer), Site(cross_kind, layer))
        for layer in range(depth)
    )
