"""From decoder tokens to pose, pointmaps, confidence and colour."""

from collections.abc import Collection
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mut3r_analysis.attention.sites import Site
from mut3r_analysis.backbones.blocks import Attend, Mlp, SelfAttention, layer_norm
from mut3r_analysis.backbones.configuration import ModelConfig
from mut3r_analysis.backbones.dense import dense_head
from mut3r_analysis.backbones.rotation import Rotation
from mut3r_analysis.errors import InvalidArgument
from mut3r_analysis.foundation.fields import meant

OUTPUTS = ("pose", "depth", "points_self", "points_world", "color")
"""What may be asked of a backbone. ``depth`` is the z of ``points_self`` and shares its head."""


@dataclass(frozen=True, eq=False)
class Prediction:
    """What a backbone predicts for a batch of frames; what was not asked for is None.

    Attributes
    ----------
    pose : Tensor
        ``(batch, 7)`` camera-to-world: translation (m), unit quaternion w x y z with w >= 0.
    pose_raw : Tensor
        ``(batch, 7)`` the pose head's output before its activation.
    points_self, points_world : Tensor
        ``(batch, y, x, xyz)`` m, in the frame's own camera (x right, y down, z forward) and in
        the world (the first camera, by training convention).
    confidence_self, confidence_world : Tensor
        ``(batch, y, x)`` of those points, at least 1.
    color : Tensor
        ``(batch, y, x, rgb)`` in [-1, 1].
    """

    pose: Tensor | None = None
    pose_raw: Tensor | None = None
    points_self: Tensor | None = None
    confidence_self: Tensor | None = None
    points_world: Tensor | None = None
    confidence_world: Tensor | None = None
    color: Tensor | None = None


@dataclass(frozen=True, eq=False)
class PairPrediction:
    """What a pair of views gives, all in the camera of view 1.

    Attributes
    ----------
    points_view1, points_view2 : Tensor
        ``(batch, y, x, xyz)`` m, each on the pixels of its view.
    confidence_view1, confidence_view2 : Tensor
        ``(batch, y, x)`` of those points, at least 1.
    """

    points_view1: Tensor
    confidence_view1: Tensor
    points_view2: Tensor
    confidence_view2: Tensor


def check_outputs(outputs: Collection[str] | None, available: tuple[str, ...]) -> tuple[str, ...]:
    """Return the outputs to compute, in canonical order.

    Parameters
    ----------
    outputs : collection of str, optional
        None is all the model predicts.
    available : tuple of str
        What it predicts, among :data:`OUTPUTS`.

    Raises
    ------
    InvalidArgument
        For a name that is not among them.
    """
    if isinstance(outputs, str):
        outputs = (outputs,)
    if outputs is None:
        return available
    unknown = sorted(set(outputs) - set(available))
    if unknown:
        raise InvalidArgument(
            f"this backbone does not predict {unknown}{meant(unknown, available)}; outputs "
            f"may be any of {list(available)}"
        )
    return tuple(name for name in available if name in outputs)


class ModulatedNorm(nn.Module):
    """Layer normalisation shifted and scaled by a condition token."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = layer_norm(width)
        self.mlp = nn.Sequential(nn.SiLU(), nn.Linear(width, 2 * width))

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        """Normalise ``(batch, token, width)`` under a condition ``(batch, 1, width)``."""
        shift, scale = self.mlp(condition).chunk(2, dim=-1)
        return self.norm(x) * (1 + scale) + shift


class ModulatedBlock(nn.Module):
    """Encoder block over patches, conditioned on the frame's pose token."""

    def __init__(self, width: int, heads: int, mlp_ratio: float, site: Site) -> None:
        super().__init__()
        self.norm1 = ModulatedNorm(width)
        self.attn = SelfAttention(width, heads, site)
        self.norm2 = ModulatedNorm(width)
        self.mlp = Mlp(width, int(width * mlp_ratio))

    def forward(self, x: Tensor, pose: Tensor, turn: Rotation, attend: Attend) -> Tensor:
        """Update patches ``(batch, patch, width)`` given the pose token ``(batch, 1, width)``."""
        x = x + self.attn(self.norm1(x, pose), turn, attend)
        return x + self.mlp(self.norm2(x, pose))


class PoseHead(nn.Module):
    """MLP from the pose token to translation and quaternion."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.mlp = Mlp(width, 4 * width, 7)

    def forward(self, token: Tensor) -> Tensor:
        """Map pose tokens ``(batch, width)`` to raw poses ``(batch, 7)``."""
        return self.mlp(token)


class Heads(nn.Module):
    """All heads of a model (``downstream_head`` in checkpoints).

    Parameters
    ----------
    config : ModelConfig
    color : bool
        Whether colour is predicted.
    """

    def __init__(self, config: ModelConfig, *, color: bool) -> None:
        super().__init__()
        self.linear = config.head_type == "linear"
        names = ("proj", "cross_proj", "rgb_proj") if self.linear else _DPT_NAMES
        self._names = dict(zip(("self", "world", "color"), names, strict=True))
        self.pose_head = PoseHead(config.dec_embed_dim)
        self.final_transform = nn.ModuleList(
            ModulatedBlock(
                config.dec_embed_dim,
                config.dec_num_heads,
                config.mlp_ratio,
                Site("head_self", layer),
            )
            for layer in range(2)
        )
        for branch, channels in (("self", 4), ("world", 4), ("color", 3)):
            if branch != "color" or color:
                self.add_module(self._names[branch], dense_head(config, channels))

    def forward(
        self,
        levels: list[Tensor],
        pose_token: Tensor,
        grid: tuple[int, int],
        turn: Rotation,
        attend: Attend,
        outputs: Collection[str],
    ) -> Prediction:
        """Compute the asked outputs and nothing else.

        Parameters
        ----------
        levels : list of Tensor
            Four token sets ``(batch, patch, channel)``: encoder output, decoder tokens after half
            and three quarters of the layers, final normalised tokens.
        pose_token : Tensor
            ``(batch, 1, channel)`` final and normalised.
        grid : (int, int)
            Rows and columns of patches.
        turn : Rotation
            Of the patches, without pose token.
        attend : Attend
        outputs : collection of str
            Names among :data:`OUTPUTS`.
        """
        fields: dict[str, Tensor] = {}
        if "pose" in outputs:
            fields["pose_raw"] = self.pose_head(pose_token[:, 0]).float()
            fields["pose"] = pose_from_raw(fields["pose_raw"])
        if "points_self" in outputs or "depth" in outputs:
            raw = self._dense("self", levels, grid)
            if self.linear:
                raw = torch.cat([raw[..., :3] * raw[..., 2:3].sign(), raw[..., 3:]], dim=-1)
            fields["points_self"], fields["confidence_self"] = points_from_raw(raw)
        if "points_world" in outputs:
            tokens = levels[-1]
            for block in self.final_transform:
                tokens = block(tokens, pose_token, turn, attend)
            raw = self._dense("world", [*levels[:-1], tokens], grid)
            fields["points_world"], fields["confidence_world"] = points_from_raw(raw)
        if "color" in outputs:
            fields["color"] = color_from_raw(self._dense("color", levels, grid))
        return Prediction(**fields)

    def _dense(self, branch: str, levels: list[Tensor], grid: tuple[int, int]) -> Tensor:
        head = self.get_submodule(self._names[branch])
        return head(levels, grid).permute(0, 2, 3, 1).float()


_DPT_NAMES = ("dpt_self", "dpt_cross", "dpt_rgb")


def points_from_raw(raw: Tensor) -> tuple[Tensor, Tensor]:
    """Points (m) and confidence of a raw map ``(..., 4)``: length r becomes exp(r) - 1."""
    return _expand_length(raw[..., :3]), 1 + raw[..., 3].exp()


def pose_from_raw(raw: Tensor) -> Tensor:
    """Pose ``(..., 7)`` of a raw one: translation expanded like points, quaternion made unit."""
    quaternion = F.normalize(raw[..., 3:], dim=-1, eps=1e-12)
    sign = torch.where(quaternion[..., :1] < 0, -1.0, 1.0)
    return torch.cat([_expand_length(raw[..., :3]), quaternion * sign], dim=-1)


def color_from_raw(raw: Tensor) -> Tensor:
    """Colour in [-1, 1] of a raw map; the margin keeps the logit of a saturated pixel finite."""
    margin = 1e-6
    return 2 * (raw.sigmoid() * (1 - 2 * margin) + margin - 0.5)


def _expand_length(vector: Tensor) -> Tensor:
    length = vector.norm(dim=-1, keepdim=True)
    return vector / length.clamp_min(1e-8) * length.expm1()
