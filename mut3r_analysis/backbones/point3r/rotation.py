"""Rotary embedding of continuous positions in space.

A head's channels are cut into three parts, one per coordinate, and each part turns by its
coordinate under four bases; the result is the mean of the four. A mean of rotations is no rotation:
vectors get shorter the farther their token is from the origin of the world.

Where a part is of odd width its two halves differ by one channel, and the channels that are paired
do not turn by one angle. That is how released models were trained, so it is reproduced.
"""

from functools import lru_cache

import torch
from torch import Tensor

from mut3r_analysis.backbones.rotation import Rotation, turning

BASES = (10.0, 100.0, 1000.0, 10000.0)
"""Fixed in the official code, whatever the configuration says."""


def part_widths(channels: int) -> tuple[int, int, int]:
    """Channels that turn by x, by y and by z; the last part takes what is left over."""
    third = channels // 3
    return third, third, channels - 2 * third


def spatial_rotation(places: Tensor, channels: int, *, pose: bool = False) -> Rotation:
    """Rotation of tokens at places in the world.

    Parameters
    ----------
    places : Tensor
        ``(batch, token, xyz)`` in the model's own unit of length.
    channels : int
        Width of a head.
    pose : bool
        Whether a pose token, which has no place and does not turn, comes first.
    """
    widths = part_widths(channels)
    angles = [
        place[..., None, None] * _frequencies(width, places.device)
        for place, width in zip(places.float().unbind(dim=-1), widths, strict=True)
    ]
    cos, sin = (
        torch.cat([wave(part).mean(dim=-2) for part in angles], dim=-1)
        for wave in (torch.cos, torch.sin)
    )
    if pose:
        still = cos.new_ones(len(cos), 1, channels)
        cos, sin = torch.cat([still, cos], dim=1), torch.cat([still * 0, sin], dim=1)
    halves = [half for width in widths for half in ((width + 1) // 2, width // 2)]
    return turning(cos[:, None], sin[:, None], tuple(halves))


@lru_cache(maxsize=16)
def _frequencies(width: int, device: torch.device) -> Tensor:
    """Radians per unit of length ``(base, channel)`` in a part of a head."""
    with torch.inference_mode(False):
        half = torch.arange(0, width, 2, dtype=torch.float32, device=device) / width
        found = torch.stack([base**-half for base in BASES])
        return torch.cat([found, found], dim=-1)[:, :width]
