"""How a training from scratch starts: a pointer is what was seen, at the place it was seen."""

import math
from typing import Any

import torch
from torch import Tensor, nn

from mut3r_analysis.backbones.point3r.rotation import part_widths
from mut3r_analysis.backbones.start import Choices, start_as_identity, start_trunk

_IN_SPACE = ("image_self", "image_to_state", "state_self", "state_to_image")


@torch.no_grad()
def start_weights(model: Any, start: Choices) -> None:
    """Set the weights of a Point3R in place, drawing from torch's generator."""
    start_trunk(model, start, dict.fromkeys(_IN_SPACE, space_bias))
    start_as_identity(model.decoder_embed_memory)
    first, _, last = model.memory_attn_head
    for layer, gain in ((first, 1.0), (last, math.sqrt(3)), (model.value_out, 0.5)):
        nn.init.orthogonal_(layer.weight, gain=gain)
        layer.bias.zero_()


def space_bias(width: int, heads: int, values: tuple[float, ...]) -> Tensor:
    """Bias ``(channel,)`` on the fastest channels of each coordinate of every other head.

    Two channels per coordinate have the same bias: where a coordinate has an odd number of
    channels the second of them gives the sine of the first one's angle.
    """
    channels = width // heads
    bias = torch.zeros(heads, channels)
    begin = 0
    for part in part_widths(channels):
        bias[::2, begin : begin + min(2, (part + 1) // 2)] = values[0] if values else 0.0
        begin += part
    return bias.flatten()
