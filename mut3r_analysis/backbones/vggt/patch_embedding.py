"""The patch embedding: DINOv2's vision transformer with registers."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mut3r_analysis.attention.sites import Site
from mut3r_analysis.backbones.blocks import Attend, PatchEmbed
from mut3r_analysis.backbones.vggt.blocks import ScaledBlock
from mut3r_analysis.backbones.vggt.config import REGISTERS, SPECIAL, VGGTConfig

_MEAN = (0.485, 0.456, 0.406)
_DEVIATION = (0.229, 0.224, 0.225)
_EPSILON = 1e-6


class PatchEmbedding(nn.Module):
    """Patches with absolute positions, encoded beside a class token and registers.

    Parameters
    ----------
    config : VGGTConfig
    """

    def __init__(self, config: VGGTConfig) -> None:
        super().__init__()
        width, side = config.enc_embed_dim, config.img_size[0] // config.patch_size
        self.table = (side, side)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, width))
        self.pos_embed = nn.Parameter(torch.zeros(1, 1 + side * side, width))
        self.register_tokens = nn.Parameter(torch.zeros(1, REGISTERS, width))
        self.mask_token = nn.Parameter(torch.zeros(1, width))  # of its pretraining; never used
        self.patch_embed = PatchEmbed(3, config.patch_size, width)
        self.blocks = nn.ModuleList(
            ScaledBlock(
                width, config.enc_num_heads, config.mlp_ratio, Site("encoder_self", layer),
                epsilon=_EPSILON,
            )
            for layer in range(config.enc_depth)
        )  # fmt: skip
        self.norm = nn.LayerNorm(width, eps=_EPSILON)

    def positions(self, grid: tuple[int, int]) -> Tensor:
        """Return what is added to class token and patches ``(1, 1 + patch, channel)``."""
        if grid == self.table:
            return self.pos_embed
        of_class, of_patches = self.pos_embed[:, :1], self.pos_embed[:, 1:]
        table = of_patches.float().mT.unflatten(2, self.table)
        resized = F.interpolate(table, size=grid, mode="bicubic", antialias=True)
        return torch.cat([of_class, resized.flatten(2).mT.to(of_class.dtype)], dim=1)

    def forward(self, image: Tensor, grid: tuple[int, int], attend: Attend) -> Tensor:
        """Encode ``(batch, rgb, y, x)`` in [0, 1] as patches ``(batch, patch, channel)``."""
        mean, deviation = (image.new_tensor(each)[:, None, None] for each in (_MEAN, _DEVIATION))
        patches = self.patch_embed((image - mean) / deviation)
        lead = self.cls_token.expand(len(image), -1, -1)
        placed = torch.cat([lead, patches], dim=1) + self.positions(grid)
        registers = self.register_tokens.expand(len(image), -1, -1)
        tokens = torch.cat([placed[:, :1], registers, placed[:, 1:]], dim=1)
        for block in self.blocks:
            tokens = block(tokens, None, attend)
        return self.norm(tokens)[:, SPECIAL:]
