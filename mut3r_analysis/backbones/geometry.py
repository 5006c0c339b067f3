"""Conventions of camera poses and the closed-form cameras that pointmaps imply."""

import torch
from torch import Tensor


def pose_matrix(pose: Tensor) -> Tensor:
    """Camera-to-world matrix ``(..., 4, 4)`` of ``(..., 7)`` translation and quaternion w x y z."""
    w, x, y, z = pose[..., 3:].unbind(-1)
    rotation = torch.stack(
        [
            *(1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)),
            *(2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)),
            *(2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)),
        ],
        dim=-1,
    ).unflatten(-1, (3, 3))
    top = torch.cat([rotation, pose[..., :3, None]], dim=-1)
    bottom = top.new_tensor([0.0, 0.0, 0.0, 1.0]).expand_as(top[..., :1, :])
    return torch.cat([top, bottom], dim=-2)


def principal_point(height: int, width: int) -> tuple[int, int]:
    """Principal point (x, y) in px that this family assumes: the centre, rounded down."""
    return width // 2, height // 2


def focal_length(points: Tensor, iterations: int = 10) -> Tensor:
    """Focal length (px) that best explains a pointmap, by Weiszfeld's algorithm.

    Parameters
    ----------
    points : Tensor
        ``(batch, y, x, xyz)`` in the camera; pixel centres are integers, the principal point is
        :func:`principal_point`.
    iterations : int
        Re-weighting steps after the start at the ratio of means.

    Returns
    -------
    Tensor
        ``(batch,)`` px, at least 0 (a pointmap behind the camera explains no focal length).
    """
    height, width = points.shape[1:3]
    x0, y0 = principal_point(height, width)
    rows = torch.arange(height, device=points.device, dtype=points.dtype) - y0
    columns = torch.arange(width, device=points.device, dtype=points.dtype) - x0
    pixels = torch.stack(torch.meshgrid(columns, rows, indexing="xy"), dim=-1).reshape(1, -1, 2)
    rays = (points[..., :2] / points[..., 2:]).nan_to_num(posinf=0, neginf=0).flatten(1, 2)
    dot_pixels = (rays * pixels).sum(-1)
    dot_rays = rays.square().sum(-1)
    focal = dot_pixels.mean(1) / dot_rays.mean(1)
    for _ in range(iterations):
        distance = (pixels - focal[:, None, None] * rays).norm(dim=-1)
        weight = distance.clamp_min(1e-8).reciprocal()
        focal = (weight * dot_pixels).mean(1) / (weight * dot_rays).mean(1)
    return focal.clamp_min(0)


def rigid_alignment(
    source: Tensor, target: Tensor, weight: Tensor, *, own_scale: bool = False
) -> Tensor:
    """Rigid motion that maps source points to target points, by weighted Procrustes.

    Parameters
    ----------
    source, target : Tensor
        ``(batch, point, xyz)``.
    weight : Tensor
        ``(batch, point)``, not negative.
    own_scale : bool
        Whether the source has a scale of its own, which is then found and left out: rotation and
        translation are those of the similarity that maps it best.

    Returns
    -------
    Tensor
        ``(batch, 4, 4)``. With the self map as source, the world map as target and the product of
        log-confidences as weight it is an alternative to the pose head (upstream: ``solve_pose``).
    """
    weight = (weight / weight.sum(1, keepdim=True))[..., None]
    centre_source = (weight * source).sum(1, keepdim=True)
    centre_target = (weight * target).sum(1, keepdim=True)
    centred = source - centre_source
    covariance = (weight * centred).mT @ (target - centre_target)
    u, size, vt = torch.linalg.svd(covariance)
    flip = torch.ones_like(covariance[:, 0])
    flip[:, 2] = torch.det(u @ vt).sign()
    rotation = vt.mT @ (flip[:, :, None] * u.mT)
    if own_scale:
        spread = (weight * centred.square()).sum((1, 2))
        centre_source = centre_source * ((size * flip).sum(1) / spread)[:, None, None]
    translation = centre_target.mT - rotation @ centre_source.mT
    motion = torch.eye(4, device=source.device, dtype=source.dtype).repeat(len(source), 1, 1)
    motion[:, :3] = torch.cat([rotation, translation], dim=-1)
    return motion


def translation_and_quaternion(motion: Tensor) -> Tensor:
    """Pose ``(..., 7)``, quaternion w x y z with w >= 0, of matrices ``(..., 4, 4)``.

    The inverse of :func:`pose_matrix`.
    """
    m = motion[..., :3, :3]
    x, y, z = m.diagonal(dim1=-2, dim2=-1).unbind(-1)
    wx, wy, wz = (m[..., 2, 1] - m[..., 1, 2], m[..., 0, 2] - m[..., 2, 0],
                  m[..., 1, 0] - m[..., 0, 1])  # fmt: skip
    xy, xz, yz = (m[..., 0, 1] + m[..., 1, 0], m[..., 0, 2] + m[..., 2, 0],
                  m[..., 1, 2] + m[..., 2, 1])  # fmt: skip
    # Four times the quaternion's outer product with itself: any row is a multiple of it, and the
    # one with the largest entry on the diagonal loses no digits.
    outer = torch.stack(
        [
            *(1 + x + y + z, wx, wy, wz),
            *(wx, 1 + x - y - z, xy, xz),
            *(wy, xy, 1 - x + y - z, yz),
            *(wz, xz, yz, 1 - x - y + z),
        ],
        dim=-1,
    ).unflatten(-1, (4, 4))
    best = outer.diagonal(dim1=-2, dim2=-1).argmax(dim=-1)[..., None, None]
    row = outer.take_along_dim(best, dim=-2).squeeze(-2)
    row = row / row.norm(dim=-1, keepdim=True) * torch.where(row[..., :1] < 0, -1.0, 1.0)
    return torch.cat([motion[..., :3, 3], row], dim=-1)
