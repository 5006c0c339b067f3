"""The pair network of DUSt3R: an encoder, a decoder per view that reads the other one, heads.

DUSt3R is one, and Spann3R holds one. Parameter names are the official ones.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mut3r_analysis.backbones.blocks import (
    Attend,
    PatchEmbed,
    decoder,
    encoder,
    layer_norm,
)
from mut3r_analysis.backbones.configuration import ModelConfig
from mut3r_analysis.backbones.dense import DPTHead
from mut3r_analysis.backbones.heads import points_from_raw
from mut3r_analysis.backbones.rotation import Rotation, positions, rotation

Grid = tuple[int, int]


class PairHead(nn.Module):
    """The dense head of one view: points and their confidence."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.patch = config.patch_size
        self.linear = config.head_type == "linear"
        if self.linear:
            self.proj = nn.Linear(config.dec_embed_dim, 4 * config.patch_size**2)
        else:
            self.dpt = DPTHead(config, 4)

    def forward(self, levels: list[Tensor], grid: Grid) -> tuple[Tensor, Tensor]:
        """Points ``(batch, y, x, xyz)`` and confidence ``(batch, y, x)`` of four levels."""
        if self.linear:
            raw = F.pixel_shuffle(self.proj(levels[-1]).mT.unflatten(2, grid), self.patch)
        else:
            raw = self.dpt(levels, grid)
        return points_from_raw(raw.permute(0, 2, 3, 1).float())


class PairNetwork(nn.Module):
    """Encoder, two decoders and two heads.

    Parameters
    ----------
    config : ModelConfig
    """

    config: ModelConfig

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.make_modules(config)

    def make_modules(self, config: ModelConfig) -> None:
        """Make the modules, under their official names."""
        self.config = config
        enc, dec, ratio = config.enc_embed_dim, config.dec_embed_dim, config.mlp_ratio
        self.patch_embed = PatchEmbed(3, config.patch_size, enc)
        self.mask_token = nn.Parameter(torch.zeros(1, 1, dec))  # of its pretraining; never used
        self.enc_blocks = encoder(
            config.enc_depth, enc, config.enc_num_heads, ratio, "encoder_self"
        )
        self.enc_norm = layer_norm(enc)
        self.decoder_embed = nn.Linear(enc, dec)
        self.dec_blocks, self.dec_blocks2 = (
            decoder(config.dec_depth, dec, config.dec_num_heads, ratio, own, other)
            for own, other in (("view1_self", "view1_to_view2"), ("view2_self", "view2_to_view1"))
        )
        self.dec_norm = layer_norm(dec)
        self.downstream_head1 = PairHead(config)
        self.downstream_head2 = PairHead(config)

    def encode_image(self, image: Tensor, grid: Grid, seam: Attend) -> Tensor:
        """Encode ``(batch, rgb, y, x)`` as normalised tokens ``(batch, patch, channel)``."""
        turn = self._turn(grid, self.config.enc_embed_dim // self.config.enc_num_heads)
        tokens = self.patch_embed(image)
        for block in self.enc_blocks:
            tokens = block(tokens, turn, seam)
        return self.enc_norm(tokens)

    def decode_views(
        self,
        first: Tensor,
        second: Tensor,
        grids: tuple[Grid, Grid],
        seam: Attend,
        layers: list[Tensor] | None = None,
    ) -> tuple[list[Tensor], list[Tensor]]:
        """Decode two views; each layer reads the other view's layer before.

        Parameters
        ----------
        first, second : Tensor
            ``(batch, patch, channel)`` of the encoder's width.
        grids : (grid, grid)
            Rows and columns of patches of each view.
        seam : callable
        layers : list, optional
            Receives the first view's tokens after each layer.

        Returns
        -------
        levels, levels
            The four inputs of each view's head: what entered, after half and three quarters of the
            layers, and the end, normalised.
        """
        channels = self.config.dec_embed_dim // self.config.dec_num_heads
        turn1, turn2 = (self._turn(grid, channels) for grid in grids)
        depth = self.config.dec_depth
        views = self.decoder_embed(first), self.decoder_embed(second)
        after = [(first, second)]
        for block1, block2 in zip(self.dec_blocks, self.dec_blocks2, strict=True):
            one, two = views
            views = block1(one, two, turn1, turn2, seam), block2(two, one, turn2, turn1, seam)
            after.append(views)
            if layers is not None:
                layers.append(views[0])
        after[depth] = self.dec_norm(views[0]), self.dec_norm(views[1])
        chosen = [after[index] for index in (0, depth // 2, depth * 3 // 4, depth)]
        return [one for one, _ in chosen], [two for _, two in chosen]

    def _turn(self, grid: Grid, channels: int) -> Rotation:
        place = positions(*grid, False, self.decoder_embed.weight.device)
        return rotation(place, channels, self.config.rope_base)
