"""Conventions of camera poses and the closed-form cameras that pointmaps imply."""

import math

import torch
from torch import Tensor
from torch.nn import functional as F

_PIXELS, _ALIGNMENTS, _STEPS = 1024, 30, 15
_NEAR = 1e-3
"""Depth (m) below which a point counts as behind the camera."""


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
    bottom = F.pad(torch.zeros_like(top[..., :1, :3]), (0, 1), value=1.0)
    return torch.cat([top, bottom], dim=-2)


def principal_point(height: int, width: int) -> tuple[int, int]:
    """Principal point (x, y) in px that this family assumes: the centre, rounded down."""
    return width // 2, height // 2


def _centred_pixels(height: int, width: int, device: torch.device, stride: int = 1) -> Tensor:
    """Pixels ``(1, pixel, uv)`` px from the principal point, row by row, float64."""
    x0, y0 = principal_point(height, width)
    rows = torch.arange(0, height, stride, device=device, dtype=torch.float64) - y0
    columns = torch.arange(0, width, stride, device=device, dtype=torch.float64) - x0
    return torch.stack(torch.meshgrid(columns, rows, indexing="xy"), dim=-1).reshape(1, -1, 2)


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
    pixels = _centred_pixels(points.shape[1], points.shape[2], points.device).to(points.dtype)
    rays = (points[..., :2] / points[..., 2:]).nan_to_num(posinf=0, neginf=0).flatten(1, 2)
    dot_pixels = (rays * pixels).sum(-1)
    dot_rays = rays.square().sum(-1)
    focal = dot_pixels.mean(1) / dot_rays.mean(1)
    for _ in range(iterations):
        distance = (pixels - focal[:, None, None] * rays).norm(dim=-1)
        weight = distance.clamp_min(1e-8).reciprocal()
        focal = (weight * dot_pixels).mean(1) / (weight * dot_rays).mean(1)
    return focal.clamp_min(0)


@torch.no_grad()
def camera_from_points(points: Tensor, weight: Tensor, focal: Tensor) -> Tensor:
    """Pose of the camera whose pixels see given points: perspective-n-point, all pixels at once.

    Starts by aligning the points with their own projections on the viewing rays, then minimises the
    weighted distances in the image by Levenberg and Marquardt's method, each pixel counting less
    the farther off it is in units of the median (Cauchy's weights). At most 1024 pixels on a
    regular lattice take part. Unlike a consensus of random samples the result is always the same.
    No gradient passes.

    Parameters
    ----------
    points : Tensor
        ``(batch, y, x, xyz)`` in the world; pixel centres are integers, the principal point is
        :func:`principal_point`.
    weight : Tensor
        ``(batch, y, x)``, not negative.
    focal : Tensor
        ``(batch,)`` px.

    Returns
    -------
    Tensor
        ``(batch, 4, 4)`` camera to world.
    """
    height, width = points.shape[1:3]
    stride = math.ceil(math.sqrt(height * width / _PIXELS))
    pixels = _centred_pixels(height, width, points.device, stride)
    seen = pixels / focal.double().clamp_min(1.0)[:, None, None]
    world = points[:, ::stride, ::stride].flatten(1, 2).double()
    share = weight[:, ::stride, ::stride].flatten(1, 2).double() + 1e-9
    motion = _aligned_with_rays(world, seen, share)
    damping = motion.new_full((len(motion), 1, 1), 1e-4)
    for _ in range(_STEPS):
        tried, before, after = _gauss_newton(world, seen, share, motion, damping)
        gained = (after < before)[:, None, None]
        motion = torch.where(gained, tried, motion)
        damping = torch.where(gained, damping / 10, damping * 10)
    return torch.linalg.inv(motion).to(points.dtype)


def _aligned_with_rays(world: Tensor, seen: Tensor, weight: Tensor) -> Tensor:
    """First motion ``(batch, 4, 4)`` into the camera: points go to their projections on rays."""
    rays = F.pad(seen, (0, 1), value=1.0)
    camera = torch.eye(4, device=world.device, dtype=world.dtype).repeat(len(world), 1, 1)
    for _ in range(_ALIGNMENTS):
        inside = _in_camera(world, torch.linalg.inv(camera))
        along = (inside * rays).sum(-1) / rays.square().sum(-1)
        camera = rigid_alignment(along.clamp_min(_NEAR)[..., None] * rays, world, weight)
    return torch.linalg.inv(camera)


def _gauss_newton(
    world: Tensor, seen: Tensor, weight: Tensor, motion: Tensor, damping: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """One damped step of a motion, and the weighted squared distances before and after it."""
    off, inside = _off_image(world, seen, motion)
    distance = off.norm(dim=-1)
    turn = distance.median(dim=-1, keepdim=True).values.clamp_min(1e-12)
    counted = (weight / (1 + (distance / turn).square()))[..., None]
    slope = _image_slope(inside)
    weighted = (counted[..., None] * slope).flatten(1, 2)
    normal = weighted.mT @ slope.flatten(1, 2)
    scaled = damping * torch.diag_embed(normal.diagonal(dim1=-2, dim2=-1) + 1e-12)
    down = -weighted.mT @ off.flatten(1)[..., None]
    step = torch.linalg.solve_ex(normal + scaled, down)[0][..., 0]
    tried = torch.matrix_exp(_twist(step)) @ motion
    there, _ = _off_image(world, seen, tried)
    before, after = ((counted * each.square()).sum((1, 2)) for each in (off, there))
    return tried, before, after


def _in_camera(world: Tensor, motion: Tensor) -> Tensor:
    return world @ motion[:, :3, :3].mT + motion[:, None, :3, 3]


def _off_image(world: Tensor, seen: Tensor, motion: Tensor) -> tuple[Tensor, Tensor]:
    """How far points fall from where they are seen (at depth 1), and the points in the camera."""
    inside = _in_camera(world, motion)
    ahead = torch.cat([inside[..., :2], inside[..., 2:].clamp_min(_NEAR)], dim=-1)
    return ahead[..., :2] / ahead[..., 2:] - seen, ahead


def _image_slope(inside: Tensor) -> Tensor:
    """Change of image points ``(batch, point, uv, turn and shift)`` with the camera's motion."""
    x, y, z = inside.unbind(-1)
    u, v, none = x / z, y / z, torch.zeros_like(x)
    return torch.stack(
        [
            torch.stack([-u * v, 1 + u * u, -v, 1 / z, none, -u / z], dim=-1),
            torch.stack([-1 - v * v, u * v, u, none, 1 / z, -v / z], dim=-1),
        ],
        dim=-2,
    )


def _twist(step: Tensor) -> Tensor:
    """Matrix ``(batch, 4, 4)`` of a turn and a shift ``(batch, 6)``."""
    a, b, c, x, y, z = step.unbind(-1)
    o = torch.zeros_like(a)
    return torch.stack([o, -c, b, x, c, o, -a, y, -b, a, o, z, o, o, o, o], dim=-1).unflatten(
        -1, (4, 4)
    )


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
