"""The camera that sees given points at its pixels."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from mut3r_analysis.backbones.geometry import camera_from_points, pose_matrix, principal_point

SHAPE, FOCAL = (24, 32), 30.0


def seen(seed: int, turn: float, *, noise: float = 0.0, wrong: float = 0.0):
    """Points ``(batch, y, x, xyz)`` in the world that random cameras see, and the cameras."""
    draw = torch.Generator().manual_seed(seed)
    count, (height, width) = 4, SHAPE
    axis = F.normalize(torch.randn(count, 3, generator=draw), dim=1)
    half = torch.full((count, 1), turn / 2)
    shift = torch.randn(count, 3, generator=draw)
    pose = pose_matrix(torch.cat([shift, half.cos(), half.sin() * axis], dim=1).double())
    x0, y0 = principal_point(height, width)
    y, x = torch.meshgrid(torch.arange(height) - y0, torch.arange(width) - x0, indexing="ij")
    z = 2 + 3 * torch.rand(count, height, width, generator=draw).double()
    own = torch.stack([x / FOCAL * z, y / FOCAL * z, z], dim=-1)
    world = torch.einsum("bij,byxj->byxi", pose[:, :3, :3], own) + pose[:, None, None, :3, 3]
    world = world + noise * torch.randn(world.shape, generator=draw)
    lost = torch.rand(world.shape[:3], generator=draw)[..., None] < wrong
    return torch.where(lost, world + torch.randn(world.shape, generator=draw), world), pose


def found(world: torch.Tensor, weight: torch.Tensor | None = None) -> torch.Tensor:
    weight = torch.ones(world.shape[:3]) if weight is None else weight
    return camera_from_points(world, weight, torch.full((len(world),), FOCAL))


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 2**31), turn=st.floats(0, 2.5))
def test_exact_points_give_the_camera_that_sees_them(seed, turn):
    world, pose = seen(seed, turn)
    torch.testing.assert_close(found(world), pose, rtol=0, atol=1e-6)


def test_it_is_as_close_as_the_noise_of_so_many_points_lets_it():
    world, pose = seen(1, 0.5, noise=0.01)
    assert (found(world) - pose).abs().max() < 0.01


def test_points_that_are_wrong_count_little_and_without_weight_nothing():
    world, pose = seen(2, 0.5, wrong=0.2)
    off = (found(world) - pose).abs().amax(dim=(1, 2))
    assert off.median() < 1e-5
    assert off.max() < 0.1
    torn = world.clone()
    torn[:, :8] += 5.0
    weight = torch.ones(world.shape[:3])
    weight[:, :8] = 0
    plain, _ = seen(2, 0.5)
    plain[:, :8] += 5.0
    torch.testing.assert_close(found(plain, weight), pose, rtol=0, atol=1e-5)


@pytest.mark.parametrize("scale", [0.0, 1e-3, 1.0, 1e3])
def test_points_that_no_camera_sees_give_a_rigid_motion_all_the_same(scale):
    world = scale * torch.randn(3, *SHAPE, 3, generator=torch.Generator().manual_seed(0))
    pose = found(world).numpy()
    assert np.isfinite(pose).all()
    np.testing.assert_allclose(np.linalg.det(pose[:, :3, :3]), 1, atol=1e-4)
