"""Products of a frame's queries and keys with those of frames before, without any map.

The product of a token with all patches of past frames has the mean and the variance that follow
from the mean and the covariance of those patches: a mean of products is a product with a mean. A
frame therefore leaves ``1 + channel`` rows of ``channel`` numbers per layer and head, however many
patches it has, and a window of frames is their mixture.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

USUAL_WINDOW = 8
"""Past frames that are compared with, unless said."""

MOST_WINDOW = 64
"""The most past frames whose covariances a cue keeps."""


@dataclass(frozen=True)
class CrossFrame:
    """One reading across frames.

    Attributes
    ----------
    own, other : {"query", "key"}
        Whose tokens of this frame, and whose of the frames before.
    moment : {"mean", "variance"}
        Of the products over all patches of the window.
    sign : {1, -1}
        -1: a low value indicates motion, as VGGT4D takes means and deviations of layers deep and
        shallow, and as LoGeR's ``low`` does; +1 is the other sign, which a cue may choose.
    """

    own: str
    other: str
    moment: str
    sign: int = -1

    @property
    def units(self) -> str:
        """Of the reading."""
        return "nat" if self.moment == "mean" else "nat2"


CROSS_FRAME = {
    f"gram_{own}_{other}_{moment}": CrossFrame(own, other, moment)
    for own, other in (("query", "query"), ("key", "key"), ("query", "key"))
    for moment in ("mean", "variance")
}
"""Readings by name: whose product with whose, and which moment of it over past patches."""


def frame_moments(tokens: Tensor) -> Tensor:
    """Return what a frame leaves: mean and covariance of its patches.

    Parameters
    ----------
    tokens : Tensor
        ``(..., patch, channel)``.

    Returns
    -------
    Tensor
        ``(..., 1 + channel, channel)``, the mean on top of the covariance (divided by patches),
        float32 at least.
    """
    import torch

    tokens = tokens.to(torch.promote_types(tokens.dtype, torch.float32))
    mean = tokens.mean(dim=-2, keepdim=True)
    centred = tokens - mean
    return torch.cat([mean, centred.mT @ centred / tokens.shape[-2]], dim=-2)


def window_moments(moments: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    """Return mean and covariance of all patches of some frames together.

    Parameters
    ----------
    moments : Tensor
        ``(batch, frame, ..., 1 + channel, channel)`` of :func:`frame_moments`.
    weight : Tensor
        ``(batch, frame)`` share of each frame; 0 leaves it out.

    Returns
    -------
    mean : Tensor
        ``(batch, ..., 1, channel)``.
    covariance : Tensor
        ``(batch, ..., channel, channel)``.
    """
    share = weight / weight.sum(dim=1, keepdim=True).clamp_min(1)
    share = share.reshape(*share.shape, *[1] * (moments.dim() - 2)).to(moments.dtype)
    means, covariances = moments[..., :1, :], moments[..., 1:, :]
    mean = (share * means).sum(dim=1)
    apart = means - mean[:, None]
    return mean, (share * (covariances + apart.mT @ apart)).sum(dim=1)


def products(own: Tensor, mean: Tensor, covariance: Tensor, moment: str) -> Tensor:
    """Return a moment of the scaled products of tokens with patches of known moments.

    Parameters
    ----------
    own : Tensor
        ``(..., patch, channel)``.
    mean, covariance : Tensor
        ``(..., 1, channel)`` and ``(..., channel, channel)`` of :func:`window_moments`.
    moment : {"mean", "variance"}

    Returns
    -------
    Tensor
        ``(..., patch)`` of ``own . other / sqrt(channel)``.
    """
    import torch

    scaled = own.to(mean.dtype) * own.shape[-1] ** -0.5
    if moment == "mean":
        return (scaled @ mean.mT).squeeze(-1)
    return torch.linalg.vecdot(scaled @ covariance, scaled).clamp_min(0)
