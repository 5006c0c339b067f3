"""How a training from scratch starts: beside what is shared, registers know where they are."""

import math
from typing import Any

import torch

from mut3r_analysis.backbones.rotation import state_positions
from mut3r_analysis.backbones.start import Choices, start_as_identity, start_trunk


@torch.no_grad()
def start_weights(model: Any, start: Choices) -> None:
    """Set the weights of a CUT3R in place, drawing from torch's generator."""
    start_trunk(model, start)
    start_as_identity(model.decoder_embed_state)
    places = state_positions(model.config.state_size, torch.device("cpu")).float()
    waves = model.config.enc_embed_dim // 4
    # wavelengths from 2 to 4 grids: short enough to tell neighbours apart, without aliasing
    pace = torch.logspace(math.log10(math.pi / 2), math.log10(math.pi / 32), waves)
    angles = places[:, :, None] * pace
    registers = torch.cat([angles.sin(), angles.cos()], dim=-1).flatten(1)
    model.register_tokens.weight.copy_(start.registers * registers)
