"""How a training from scratch starts: both decoders look for the same place in the other view."""

from typing import Any

import torch

from mut3r_analysis.backbones.start import Choices, start_as_identity, start_at_depth, start_layers


@torch.no_grad()
def start_weights(model: Any, start: Choices) -> None:
    """Set the weights of a DUSt3R with linear heads in place, drawing from torch's generator."""
    start_layers(model, start)
    start_as_identity(model.decoder_embed)
    for head in (model.downstream_head1, model.downstream_head2):
        if head.linear:
            start_at_depth(head.proj, start.depth)
