"""The aggregator: blocks within each frame and blocks over all frames, in turn."""

from collections.abc import Callable
from functools import lru_cache

import torch
from torch import Tensor, nn

from mut3r_analysis.attention.sites import Site
from mut3r_analysis.backbones.blocks import Attend
from mut3r_analysis.backbones.rotation import Rotation, positions, rotation
from mut3r_analysis.backbones.vggt.blocks import ScaledBlock
from mut3r_analysis.backbones.vggt.config import REGISTERS, SPECIAL, VGGTConfig
from mut3r_analysis.backbones.vggt.patch_embedding import PatchEmbedding


class Aggregator(nn.Module):
    """Tokens of frames, level by level.

    Parameters
    ----------
    config : VGGTConfig
    """

    def __init__(self, config: VGGTConfig) -> None:
        super().__init__()
        self.config = config
        width, heads, ratio = config.dec_embed_dim, config.dec_num_heads, config.mlp_ratio
        self.patch_embed = PatchEmbedding(config)
        # The first of two is that of a sequence's first frame, the second that of all others.
        self.camera_token = nn.Parameter(torch.zeros(1, 2, 1, width))
        self.register_token = nn.Parameter(torch.zeros(1, 2, REGISTERS, width))
        self.frame_blocks, self.global_blocks = (
            nn.ModuleList(
                ScaledBlock(width, heads, ratio, Site(kind, layer), normed=True)
                for layer in range(config.dec_depth)
            )
            for kind in ("frame_self", "global_self")
        )

    def tokens(self, features: Tensor, first: Tensor) -> Tensor:
        """Put camera and registers before patches: ``(batch, frame, token, channel)``.

        Parameters
        ----------
        features : Tensor
            ``(batch, frame, patch, channel)``.
        first : Tensor
            ``(batch, frame)`` bool: frames that are the first of their sequence.
        """
        which = (~first).long()
        special = torch.cat([self.camera_token, self.register_token], dim=2)[0]
        return torch.cat([special[which].to(features.dtype), features], dim=2)

    def forward(
        self,
        tokens: Tensor,
        grid: tuple[int, int],
        within: Attend,
        across: Attend,
        layers: Callable[[Tensor], None] | None = None,
    ) -> dict[int, Tensor]:
        """Run all blocks.

        Parameters
        ----------
        tokens : Tensor
            ``(batch, frame, token, channel)``.
        grid : (int, int)
        within, across : callable
            The seam of blocks within frames, whose batch is ``batch x frame``, and of blocks over
            all frames, whose tokens follow each other frame by frame.
        layers : callable, optional
            Shown the tokens ``(batch, frame, token, channel)`` after each layer.

        Returns
        -------
        dict of int to Tensor
            Layer -> level ``(batch, frame, token, 2 channel)``: after the block within frames, then
            after the block over all. Those that heads take, and the last.
        """
        batch, frames = tokens.shape[:2]
        turn = self.turn(grid)
        turns = Rotation(turn.cos.repeat(frames, 1), turn.sin.repeat(frames, 1), turn.halves)
        levels = {}
        for layer, (own, joint) in enumerate(
            zip(self.frame_blocks, self.global_blocks, strict=True)
        ):
            alone = own(tokens.flatten(0, 1), turn, within).unflatten(0, (batch, frames))
            tokens = joint(alone.flatten(1, 2), turns, across).unflatten(1, (frames, -1))
            if layer in {*self.config.head_levels, self.config.dec_depth - 1}:
                levels[layer] = torch.cat([alone, tokens], dim=-1)
            if layers is not None:
                layers(tokens)
        return levels

    def turn(self, grid: tuple[int, int]) -> Rotation:
        """Rotation of a frame's tokens: special ones stay, patches are counted from 1."""
        channels = self.config.dec_embed_dim // self.config.dec_num_heads
        place = _places(*grid, self.camera_token.device)
        return rotation(place, channels, self.config.rope_base)


@lru_cache(maxsize=64)
def _places(rows: int, columns: int, device: torch.device) -> Tensor:
    patches = positions(rows, columns, False, device)
    with torch.inference_mode(False):
        return torch.cat([patches.new_zeros(SPECIAL, 2), patches + 1])
