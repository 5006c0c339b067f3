"""Transformer blocks of VGGT. Parameter names are the official ones."""

import torch
from torch import Tensor, nn

from mut3r_analysis.attention.sites import Site
from mut3r_analysis.backbones.blocks import Attend, Mlp, SelfAttention
from mut3r_analysis.backbones.rotation import Rotation, rotate


class NormedAttention(SelfAttention):
    """Self-attention whose queries and keys are normalised before they are rotated."""

    def __init__(self, width: int, heads: int, site: Site) -> None:
        super().__init__(width, heads, site)
        self.q_norm = nn.LayerNorm(width // heads)
        self.k_norm = nn.LayerNorm(width // heads)

    def project(self, x: Tensor, turn: Rotation | None) -> tuple[Tensor, Tensor, Tensor]:
        """Project to queries, keys and values ``(batch, head, token, channel)``."""
        q, k, v = super().project(x, None)
        q, k = self.q_norm(q), self.k_norm(k)
        return (q, k, v) if turn is None else (rotate(q, turn), rotate(k, turn), v)


class LayerScale(nn.Module):
    """A learned factor of each channel."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        """Scale ``(..., width)``."""
        return x * self.gamma


class ScaledBlock(nn.Module):
    """Self-attention, then MLP, each on normalised tokens, scaled, added to the residual stream.

    Parameters
    ----------
    width, heads : int
    mlp_ratio : float
    site : Site
    epsilon : float
        Of both layer norms.
    normed : bool
        Whether queries and keys are normalised.
    """

    def __init__(
        self,
        width: int,
        heads: int,
        mlp_ratio: float,
        site: Site,
        *,
        epsilon: float = 1e-5,
        normed: bool = False,
    ) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width, eps=epsilon)
        self.attn = (NormedAttention if normed else SelfAttention)(width, heads, site)
        self.ls1 = LayerScale(width)
        self.norm2 = nn.LayerNorm(width, eps=epsilon)
        self.mlp = Mlp(width, int(width * mlp_ratio))
        self.ls2 = LayerScale(width)

    def forward(self, x: Tensor, turn: Rotation | None, attend: Attend) -> Tensor:
        """Update ``(batch, token, width)``."""
        x = x + self.ls1(self.attn(self.norm1(x), turn, attend))
        return x + self.ls2(self.mlp(self.norm2(x)))
