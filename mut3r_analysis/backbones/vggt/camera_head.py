"""The camera head: a pose that is refined in a few iterations, from the camera token."""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mut3r_analysis.attention.sites import Site
from mut3r_analysis.backbones.blocks import Attend, Mlp
from mut3r_analysis.backbones.geometry import pose_matrix
from mut3r_analysis.backbones.vggt.blocks import ScaledBlock
from mut3r_analysis.backbones.vggt.config import VGGTConfig

ENCODING = 9
"""Numbers of a pose: translation, quaternion x y z w, vertical and horizontal field of view."""


class CameraHead(nn.Module):
    """Iterative refinement of poses by a transformer over the camera tokens of frames.

    Parameters
    ----------
    config : VGGTConfig
    """

    def __init__(self, config: VGGTConfig) -> None:
        super().__init__()
        width = 2 * config.dec_embed_dim
        self.iterations = config.camera_iterations
        self.empty_pose_tokens = nn.Parameter(torch.zeros(1, 1, ENCODING))
        self.embed_pose = nn.Linear(ENCODING, width)
        self.poseLN_modulation = nn.Sequential(nn.SiLU(), nn.Linear(width, 3 * width))
        self.trunk = nn.ModuleList(
            ScaledBlock(
                width, config.camera_num_heads, config.mlp_ratio, Site("camera_self", layer)
            )
            for layer in range(config.camera_depth)
        )
        self.token_norm = nn.LayerNorm(width)
        self.trunk_norm = nn.LayerNorm(width)
        self.pose_branch = Mlp(width, width // 2, ENCODING)
        with torch.no_grad():  # so that a model without training sees something
            self.pose_branch.fc2.bias[-2:] = 1.0

    def forward(self, tokens: Tensor, attend: Callable[[int], Attend]) -> Tensor:
        """Encode the poses of frames, after every iteration.

        Parameters
        ----------
        tokens : Tensor
            ``(batch, frame, channel)`` camera tokens of the last level.
        attend : callable
            From the number of an iteration to the seam of its blocks.

        Returns
        -------
        Tensor
            ``(batch, frame, iteration, 9)``, camera from world; fields of view in radians, not
            negative.
        """
        tokens = self.token_norm(tokens)
        encoding = self.empty_pose_tokens.expand(*tokens.shape[:2], -1)
        found: list[Tensor] = []
        for iteration in range(self.iterations):
            modulation = self.poseLN_modulation(self.embed_pose(encoding))
            shift, scale, gate = modulation.chunk(3, dim=-1)
            plain = F.layer_norm(tokens, tokens.shape[-1:], eps=1e-6)
            x = tokens + gate * (plain * (1 + scale) + shift)
            for block in self.trunk:
                x = block(x, None, attend(iteration))
            change = self.pose_branch(self.trunk_norm(x))
            encoding = encoding + change if found else change
            found.append(encoding)
        stacked = torch.stack(found, dim=2).float()
        return torch.cat([stacked[..., :-2], stacked[..., -2:].relu()], dim=-1)


class Camera(NamedTuple):
    """What a pose encoding says.

    Attributes
    ----------
    pose : Tensor
        ``(..., 7)`` camera-to-world: translation, unit quaternion w x y z with w >= 0.
    extrinsics : Tensor
        ``(..., 3, 4)`` camera from world.
    intrinsics : Tensor
        ``(..., 3, 3)`` px; the principal point is the centre of the image.
    """

    pose: Tensor
    extrinsics: Tensor
    intrinsics: Tensor


def camera(encoding: Tensor, height: int, width: int) -> Camera:
    """Read pose encodings ``(..., 9)`` of images of ``height`` x ``width`` px.

    A field of view of 0 has an infinite focal length, as in the official code.
    """
    translation, quaternion, view = encoding.split((3, 4, 2), dim=-1)
    # As official: what is not of unit length is divided by its square, so that it rotates alone.
    unit = F.normalize(quaternion, dim=-1, eps=1e-12).roll(1, dims=-1)
    extrinsics = pose_matrix(torch.cat([translation, unit], dim=-1))[..., :3, :]
    back = torch.cat([unit[..., :1], -unit[..., 1:]], dim=-1)
    back = back * torch.where(back[..., :1] < 0, -1.0, 1.0)
    turned = extrinsics[..., :3].mT @ translation[..., None]
    focal = translation.new_tensor([width / 2, height / 2]) / (view.flip(-1) / 2).tan()
    intrinsics = torch.diag_embed(F.pad(focal, (0, 1), value=1.0))
    intrinsics[..., 0, 2], intrinsics[..., 1, 2] = width / 2, height / 2
    return Camera(torch.cat([-turned[..., 0], back], dim=-1), extrinsics, intrinsics)


def unprojected(depth: Tensor, intrinsics: Tensor) -> Tensor:
    """Points ``(batch, y, x, xyz)`` in the camera of depth ``(batch, y, x)``.

    Pixels are counted from 0 without a half, as in the official code.
    """
    height, width = depth.shape[-2:]
    rows, columns = (torch.arange(n, device=depth.device, dtype=depth.dtype) for n in
                     (height, width))  # fmt: skip
    focal = intrinsics.diagonal(dim1=-2, dim2=-1)[:, None, None]
    x = (columns - width / 2) * depth / focal[..., 0]
    y = (rows[:, None] - height / 2) * depth / focal[..., 1]
    return torch.stack([x, y, depth], dim=-1)
