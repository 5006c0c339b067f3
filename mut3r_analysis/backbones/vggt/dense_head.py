"""The dense heads: four levels fused from coarse to fine, with positions added to them."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mut3r_analysis.backbones.vggt.config import VGGTConfig

_SHARE = 0.1
"""Of the positions, in what they are added to."""


class _ResidualUnit(nn.Module):
    """Two ReLU-convolution pairs, added to the activated input."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(width, width, 3, padding=1)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """Refine ``(batch, width, y, x)``; CUT3R's adds the input as it is."""
        x = F.relu(x)
        return x + self.conv2(F.relu(self.conv1(x)))


class _FusionBlock(nn.Module):
    """Adds a finer level to a coarser one, refines, and resizes to the next level."""

    def __init__(self, width: int, *, coarsest: bool) -> None:
        super().__init__()
        self.out_conv = nn.Conv2d(width, width, 1)
        self.resConfUnit1 = None if coarsest else _ResidualUnit(width)
        self.resConfUnit2 = _ResidualUnit(width)

    def forward(self, x: Tensor, skip: Tensor | None, size: tuple[int, int]) -> Tensor:
        """Fuse ``(batch, width, y, x)`` with a level of the same size."""
        if self.resConfUnit1 is not None and skip is not None:
            x = x + self.resConfUnit1(skip)
        return self.out_conv(_resized(self.resConfUnit2(x), size))


class _Scratch(nn.Module):
    """Projection of each level to the fusion width, fusion blocks, and the output."""

    def __init__(self, config: VGGTConfig, channels: int) -> None:
        super().__init__()
        width = config.feature_dim
        for level, source in enumerate(config.layer_dims, start=1):
            conv = nn.Conv2d(source, width, 3, padding=1, bias=False)
            self.add_module(f"layer{level}_rn", conv)
            self.add_module(f"refinenet{level}", _FusionBlock(width, coarsest=level == 4))
        self.output_conv1 = nn.Conv2d(width, width // 2, 3, padding=1)
        self.output_conv2 = nn.Sequential(
            nn.Conv2d(width // 2, config.last_dim, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(config.last_dim, channels, 1),
        )


class DenseHead(nn.Module):
    """One dense head.

    Parameters
    ----------
    config : VGGTConfig
    channels : int
        Of its output: 2 for depth and 4 for points, with confidence.
    """

    def __init__(self, config: VGGTConfig, channels: int) -> None:
        super().__init__()
        self.patch = config.patch_size
        self.norm = nn.LayerNorm(2 * config.dec_embed_dim)
        first, second, _, last = config.layer_dims
        self.projects = nn.ModuleList(
            nn.Conv2d(2 * config.dec_embed_dim, width, 1) for width in config.layer_dims
        )
        self.resize_layers = nn.ModuleList(
            [
                nn.ConvTranspose2d(first, first, 4, stride=4),
                nn.ConvTranspose2d(second, second, 2, stride=2),
                nn.Identity(),
                nn.Conv2d(last, last, 3, stride=2, padding=1),
            ]
        )
        self.scratch = _Scratch(config, channels)

    def forward(self, levels: list[Tensor], grid: tuple[int, int]) -> Tensor:
        """Raw map ``(batch, channel, y, x)`` from levels ``(batch, patch, channel)``."""
        size = (grid[0] * self.patch, grid[1] * self.patch)
        maps = []
        for level, (tokens, project, resize) in enumerate(
            zip(levels, self.projects, self.resize_layers, strict=True), start=1
        ):
            x = _placed(project(self.norm(tokens).mT.unflatten(2, grid)), size)
            maps.append(self.scratch.get_submodule(f"layer{level}_rn")(resize(x)))
        x = maps[-1]
        for level in range(4, 0, -1):
            skip = maps[level - 1]
            finer = maps[level - 2].shape[-2:] if level > 1 else [2 * n for n in skip.shape[-2:]]
            fuse = self.scratch.get_submodule(f"refinenet{level}")
            x = fuse(x, skip, (finer[0], finer[1]))
        x = _placed(_resized(self.scratch.output_conv1(x), size), size)
        return self.scratch.output_conv2(x)


def _resized(x: Tensor, size: tuple[int, int]) -> Tensor:
    return F.interpolate(x, size=size, mode="bilinear", align_corners=True)


def _placed(x: Tensor, image: tuple[int, int]) -> Tensor:
    """Add sines and cosines of where each cell ``(batch, channel, y, x)`` is in an image."""
    height, width = image
    aspect = width / height
    diagonal = (aspect**2 + 1) ** 0.5
    rows, columns = x.shape[-2:]
    across = _waves(columns, aspect / diagonal, x.shape[1] // 4, x.device)
    down = _waves(rows, 1 / diagonal, x.shape[1] // 4, x.device)
    across = across[:, None].expand(-1, rows, -1)
    down = down[:, :, None].expand(-1, -1, columns)
    return x + _SHARE * torch.cat([across, down]).to(x.dtype)


def _waves(count: int, reach: float, frequencies: int, device: torch.device) -> Tensor:
    """Sines, then cosines ``(2 frequency, cell)`` along one side of an image."""
    end = reach * (count - 1) / count
    place = torch.linspace(-end, end, count, device=device, dtype=torch.float64)
    power = torch.arange(frequencies, device=device, dtype=torch.float64) / frequencies
    angle = 100 ** -power[:, None] * place
    return torch.cat([angle.sin(), angle.cos()]).float()
