"""How a training from scratch starts: a query looks for what was seen, and brings it along."""

from typing import Any

import torch
from torch import nn

from mut3r_analysis.backbones.dust3r.start import start_weights as start_pairs
from mut3r_analysis.backbones.start import Choices, start_layers


@torch.no_grad()
def start_weights(model: Any, start: Choices) -> None:
    """Set the weights of a Spann3R in place, drawing from torch's generator.

    Queries and keys begin as the encoder's tokens, and half of what is read is added to them.
    """
    start_layers(model, start)
    start_pairs(model.dust3r, start)
    for first, _, last in (model.attn_head_1, model.attn_head_2):
        _pass_on(first, last)
    model.norm_v.weight.fill_(0.5)
    nn.init.orthogonal_(model.value_out.weight, gain=0.5)
    model.value_out.bias.zero_()


def _pass_on(first: nn.Linear, last: nn.Linear) -> None:
    """Let an MLP of two layers give the first of its inputs: GELU(x) - GELU(-x) is x."""
    kept = min(last.out_features, first.out_features // 2)
    for layer in (first, last):
        layer.weight.zero_()
        layer.bias.zero_()
    for sign, begin in ((1.0, 0), (-1.0, kept)):
        for channel in range(kept):
            first.weight[begin + channel, channel] = sign
            last.weight[channel, begin + channel] = sign
