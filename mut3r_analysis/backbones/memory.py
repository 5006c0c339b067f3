"""The pose memory: a small associative store read for the next pose token and written after."""

import torch
from torch import Tensor, nn

from mut3r_analysis.backbones.blocks import Attend, decoder
from mut3r_analysis.backbones.configuration import PosedConfig


class PoseMemory(nn.Module):
    """Slots of width 2D holding [summary of a frame | its pose token].

    Reading asks with [summary | learned mask] and keeps the second half of the answer; writing
    lets every slot read the single token [summary | pose token]. There is no rotary embedding.
    """

    def __init__(self, config: PosedConfig) -> None:
        super().__init__()
        width = 2 * config.dec_embed_dim
        self.proj_q = nn.Linear(config.enc_embed_dim, config.dec_embed_dim)
        self.masked_token = nn.Parameter(torch.zeros(1, 1, config.dec_embed_dim))
        self.mem = nn.Parameter(torch.zeros(1, config.local_mem_size, width))
        sizes = 2, width, config.dec_num_heads, config.mlp_ratio
        self.read_blocks, self.write_blocks = (
            decoder(*sizes, f"memory_{verb}_self", f"memory_{verb}") for verb in ("read", "write")
        )

    def read(self, features: Tensor, memory: Tensor, attend: Attend) -> Tensor:
        """Recall a pose token ``(batch, 1, D)`` for a frame with encoder tokens ``features``."""
        summary = self.proj_q(features.mean(dim=1, keepdim=True))
        x = torch.cat([summary, self.masked_token.expand_as(summary)], dim=-1)
        for block in self.read_blocks:
            x = block(x, memory, None, None, attend)
        return x[..., summary.shape[-1] :]

    def write(self, features: Tensor, pose: Tensor, memory: Tensor, attend: Attend) -> Tensor:
        """Return the memory ``(batch, slot, 2D)`` after a frame with final pose token ``pose``."""
        summary = self.proj_q(features.mean(dim=1, keepdim=True))
        entry = torch.cat([summary, pose], dim=-1)
        for block in self.write_blocks:
            memory = block(memory, entry, None, None, attend)
        return memory
