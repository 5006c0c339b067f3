"""Two-dimensional rotary position embedding, computed from angles.

Half of a head's channels turns with the row, half with the column; within a half, channel j is
paired with channel j + quarter. Working from angles (not from a lookup table) makes the pose
token's position (-1, -1) an ordinary rotation.
"""

from functools import lru_cache
from math import isqrt
from typing import NamedTuple

import torch
from torch import Tensor


class Rotation(NamedTuple):
    """How the channels of one head width turn.

    Attributes
    ----------
    cos, sin : Tensor
        float32 ``(token, channel)``, or more dimensions to spread over ``(batch, head, token,
        channel)``. The sine is that of ``-angle`` where a channel's partner
        comes after it.
    halves : tuple of int
        Widths into which the channels are cut, in pairs that turn against each other.
    """

    cos: Tensor
    sin: Tensor
    halves: tuple[int, ...]


@lru_cache(maxsize=64)
def positions(rows: int, columns: int, pose: bool, device: torch.device) -> Tensor:
    """Row and column of each token ``(token, 2)``; the pose token comes first, at (-1, -1)."""
    with torch.inference_mode(False):
        grid = torch.cartesian_prod(
            torch.arange(rows, device=device), torch.arange(columns, device=device)
        ).reshape(-1, 2)
        if pose:
            grid = torch.cat([grid.new_full((1, 2), -1), grid])
        return grid


def state_lattice_width(tokens: int) -> int:
    """Columns of the lattice on which state tokens sit: the even number at or above floor(sqrt)."""
    width = isqrt(tokens)
    return width + width % 2


@lru_cache(maxsize=64)
def state_positions(tokens: int, device: torch.device) -> Tensor:
    """Row and column of each state token ``(state_token, 2)``; the last row may be partial."""
    with torch.inference_mode(False):
        index = torch.arange(tokens, device=device)
        width = state_lattice_width(tokens)
        return torch.stack([index // width, index % width], dim=-1)


@lru_cache(maxsize=64)
def rotation(place: Tensor, channels: int, base: float) -> Rotation:
    """Rotation of tokens for heads of ``channels`` channels.

    ``place`` is one of :func:`positions` or :func:`state_positions`: it is remembered by identity.
    """
    with torch.inference_mode(False):
        quarter = channels // 4
        exponent = torch.arange(quarter, device=place.device, dtype=torch.float32) / quarter
        angles = place.to(torch.float32)[:, :, None] * base**-exponent
        row, column = angles.unbind(1)
        angles = torch.cat([row, row, column, column], dim=-1)
        return turning(angles.cos(), angles.sin(), (quarter,) * 4)


def turning(cos: Tensor, sin: Tensor, halves: tuple[int, ...]) -> Rotation:
    """Rotation by the cosines and sines of each channel's angle ``(..., channel)``."""
    pairs = zip(halves[::2], halves[1::2], strict=True)
    signs = [sign for one, other in pairs for sign in (-1,) * other + (1,) * one]
    return Rotation(cos, sin * sin.new_tensor(signs), halves)


def rotate(tokens: Tensor, turn: Rotation) -> Tensor:
    """Rotate ``(..., token, channel)`` in float32 and return it in its own dtype."""
    x = tokens.float()
    halves = x.split_with_sizes(turn.halves, dim=-1)
    partners = torch.cat([halves[index ^ 1] for index in range(len(halves))], dim=-1)
    return torch.addcmul(x * turn.cos, partners, turn.sin).to(tokens.dtype)
