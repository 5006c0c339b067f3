"""The dense prediction head of the 512 models: four token levels fused from coarse to fine."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F

from mut3r_analysis.backbones.configuration import ModelConfig


def _upsample(x: Tensor) -> Tensor:
    return F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=True)


class ResidualUnit(nn.Module):
    """Two ReLU-convolution pairs added to the un-activated input."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(width, width, 3, padding=1)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """Refine ``(batch, width, y, x)``."""
        return x + self.conv2(F.relu(self.conv1(F.relu(x))))


class FusionBlock(nn.Module):
    """Adds a finer level to a coarser one, refines, and doubles the resolution."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.out_conv = nn.Conv2d(width, width, 1)
        self.resConfUnit1 = ResidualUnit(width)
        self.resConfUnit2 = ResidualUnit(width)

    def forward(self, x: Tensor, finer: Tensor | None = None) -> Tensor:
        """Fuse ``(batch, width, y, x)`` with a level of the same size and double it."""
        if finer is not None:
            x = x + self.resConfUnit1(finer)
        return self.out_conv(_upsample(self.resConfUnit2(x)))


class Scratch(nn.Module):
    """Projection of each level to the fusion width, and the fusion blocks.

    Official checkpoints hold the four projections under two names each, hence ``layer_rn``.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        for level, width in enumerate(config.layer_dims, start=1):
            conv = nn.Conv2d(width, config.feature_dim, 3, padding=1, bias=False)
            self.add_module(f"layer{level}_rn", conv)
        self.layer_rn = nn.ModuleList(self.get_submodule(f"layer{i}_rn") for i in range(1, 5))
        for level in range(1, 5):
            self.add_module(f"refinenet{level}", FusionBlock(config.feature_dim))


class DPTHead(nn.Module):
    """One DPT trunk.

    Parameters
    ----------
    config : ModelConfig
    channels : int
        Output channels: 4 for points with confidence, 3 for colour.
    """

    def __init__(self, config: ModelConfig, channels: int) -> None:
        super().__init__()
        inputs = (config.enc_embed_dim, *(config.dec_embed_dim,) * 3)
        widths = config.layer_dims
        resize = (
            lambda w: nn.ConvTranspose2d(w, w, 4, stride=4),
            lambda w: nn.ConvTranspose2d(w, w, 2, stride=2),
            None,
            lambda w: nn.Conv2d(w, w, 3, stride=2, padding=1),
        )
        self.act_postprocess = nn.ModuleList(
            nn.Sequential(nn.Conv2d(source, width, 1), *((change(width),) if change else ()))
            for source, width, change in zip(inputs, widths, resize, strict=True)
        )
        self.scratch = Scratch(config)
        half = config.feature_dim // 2
        self.head = nn.Sequential(
            nn.Conv2d(config.feature_dim, half, 3, padding=1),
            nn.UpsamplingBilinear2d(scale_factor=2),
            nn.Conv2d(half, config.last_dim, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(config.last_dim, channels, 1),
        )

    def forward(self, levels: list[Tensor], grid: tuple[int, int]) -> Tensor:
        """Dense map ``(batch, channel, y, x)`` from four levels ``(batch, patch, width)``."""
        maps = [
            project(process(tokens.mT.unflatten(2, grid)))
            for tokens, process, project in zip(
                levels, self.act_postprocess, self.scratch.layer_rn, strict=True
            )
        ]
        fuse = [self.scratch.get_submodule(f"refinenet{i}") for i in range(1, 5)]
        x = fuse[3](maps[3])
        # An odd number of patches is rounded up on the way down, hence one row or column too many.
        x = x[:, :, : maps[2].shape[2], : maps[2].shape[3]]
        for block, finer in zip(fuse[2::-1], maps[2::-1], strict=True):
            x = block(x, finer)
        return self.head(x)


class LinearHead(nn.Module):
    """Per-token MLP whose channels are laid out (channel, dy, dx) and shuffled into pixels."""

    def __init__(self, config: ModelConfig, channels: int) -> None:
        super().__init__()
        self.patch = config.patch_size
        self.fc1 = nn.Linear(config.dec_embed_dim, 4 * config.dec_embed_dim)
        self.fc2 = nn.Linear(4 * config.dec_embed_dim, channels * self.patch**2)

    def forward(self, levels: list[Tensor], grid: tuple[int, int]) -> Tensor:
        """Dense map ``(batch, channel, y, x)``; only the last level is used."""
        tokens = self.fc2(F.gelu(self.fc1(levels[-1])))
        return F.pixel_shuffle(tokens.mT.unflatten(2, grid), self.patch)


def dense_head(config: ModelConfig, channels: int) -> DPTHead | LinearHead:
    """Return the dense head that the configuration names."""
    return DPTHead(config, channels) if config.head_type == "dpt" else LinearHead(config, channels)


def dpt_widths(weights: Mapping[str, Tensor], prefix: str) -> dict[str, Any]:
    """Read the widths of a DPT head from its tensors; nothing where they are not all there.

    Parameters
    ----------
    weights : mapping of str to Tensor
    prefix : str
        Before the head's own names.
    """
    levels = [weights.get(f"{prefix}scratch.layer{level}_rn.weight") for level in (1, 2, 3, 4)]
    last = weights.get(f"{prefix}head.2.weight")
    known = [level for level in levels if level is not None and level.ndim == 4]
    if last is None or last.ndim != 4 or len(known) < len(levels):
        return {}
    return {
        "feature_dim": known[0].shape[0],
        "last_dim": last.shape[0],
        "layer_dims": tuple(level.shape[1] for level in known),
    }
