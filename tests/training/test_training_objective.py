"""Every term of the loss equals its definition, written out in float64 and without batching."""

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from mut3r_analysis.backbones.cut3r.config import CUT3RConfig
from mut3r_analysis.backbones.steps import Frame
from mut3r_analysis.scenes import SceneDistribution, draw, random_batch, render_arrays
from mut3r_analysis.scenes.raycast_torch import render_arrays_torch
from mut3r_analysis.training.clips import clips_of
from mut3r_analysis.training.objective import (
    confident_distance,
    flow_at_places,
    helper_heads,
    log_depth_distance,
    match_target,
    objective_terms,
    pose_vectors,
    relative_motion,
    weighted_sum,
    world_points,
)
from mut3r_analysis.training.recipe import Initialisation, Objective
from mut3r_analysis.training.rollout import roll_out
from mut3r_analysis.training.starting import initial_model

CONFIG = CUT3RConfig(
    img_size=(64, 64),
    patch_size=8,
    enc_embed_dim=64,
    enc_depth=1,
    enc_num_heads=4,
    dec_embed_dim=32,
    dec_depth=2,
    dec_num_heads=2,
    state_dec_num_heads=2,
    state_size=64,
    local_mem_size=4,
    ray_enc_depth=1,
    head_type="linear",
    mlp_ratio=2.0,
)


@pytest.fixture(scope="module")
def batch():
    return random_batch(5, 3, 3, distribution=SceneDistribution(movers=(1, 2)))


@pytest.fixture(scope="module")
def clips(batch):
    return clips_of(batch)


@pytest.fixture(scope="module")
def model():
    return initial_model(CONFIG, Initialisation(), seed=0)


def test_the_first_camera_is_the_world_and_true_points_project_where_they_should(batch, clips):
    assert torch.allclose(clips.pose[:, 0], torch.eye(4).expand(3, 4, 4), atol=1e-6)
    own, world = world_points(clips)
    matrix = batch["intrinsics"][1, 2]
    pixel = matrix @ own[1, 2, 10, 20].double().numpy()
    assert np.allclose(pixel[:2] / pixel[2], [20, 10], atol=1e-4)
    back = np.linalg.inv(batch["pose"][1, 0]) @ batch["pose"][1, 2]
    expected = back[:3, :3] @ own[1, 2, 10, 20].double().numpy() + back[:3, 3]
    assert np.allclose(world[1, 2, 10, 20], expected, atol=1e-4)


def test_the_confident_distance_is_its_definition():
    rng = np.random.default_rng(0)
    points, truth = rng.normal(size=(2, 2, 3, 4, 3))
    confidence = 1 + rng.random((2, 3, 4))
    expected = np.mean(
        [
            confidence[index] * np.linalg.norm(points[index] - truth[index])
            - 0.2 * np.log(confidence[index])
            for index in np.ndindex(2, 3, 4)
        ]
    )
    found = confident_distance(*map(torch.from_numpy, (points, confidence, truth)), 0.2)
    assert found.item() == pytest.approx(expected, rel=1e-12)


def test_pose_vectors_and_relative_motion_agree_with_scipy():
    rng = np.random.default_rng(1)
    turns = Rotation.from_rotvec(rng.normal(scale=0.8, size=(6, 3)))
    poses = np.tile(np.eye(4), (6, 1, 1))
    poses[:, :3, :3], poses[:, :3, 3] = turns.as_matrix(), rng.normal(size=(6, 3))
    shift, vector = pose_vectors(torch.from_numpy(poses))
    quaternion = turns.as_quat(canonical=True)
    assert np.allclose(vector, quaternion[:, :3], atol=1e-9)
    assert np.allclose(shift, poses[:, :3, 3])
    seven = np.concatenate([poses[:, :3, 3], quaternion[:, [3, 0, 1, 2]]], axis=1)
    shift, turn = relative_motion(torch.from_numpy(seven)[None])
    between = np.linalg.inv(poses[:-1]) @ poses[1:]
    wanted = Rotation.from_matrix(between[:, :3, :3]).as_quat(canonical=True)
    assert np.allclose(shift[0], between[:, :3, 3], atol=1e-9)
    assert np.allclose(turn[0], wanted[:, [3, 0, 1, 2]], atol=1e-9)


def test_flow_is_read_at_four_places_of_each_patch(clips):
    flow, visible = flow_at_places(clips, 8)
    assert flow.shape == (3, 3, 48, 4, 2)
    row, column, clip, frame = 4, 5, 2, 1
    wanted = [
        clips.flow[clip, frame, 8 * row + y, 8 * column + x] / 8 for y in (2, 5) for x in (2, 5)
    ]
    assert torch.equal(flow[clip, frame, 8 * row + column], torch.stack(wanted))
    assert not visible[:, 0].any()


def test_match_targets_are_bilinear_and_known_only_inside():
    flow = torch.zeros(1, 1, 48, 4, 2, dtype=torch.float64)
    flow[0, 0, 9] = torch.tensor([0.25, -0.5])
    flow[0, 0, 0] = torch.tensor([-0.5, 0.0])
    target, known = match_target(flow, torch.ones(1, 1, 48, 4, dtype=torch.bool), (6, 8), 64)
    weights = target[0, 0, 9].reshape(8, 8)
    assert weights[1, 1].item() == pytest.approx(0.75 * 0.5)
    assert weights[0, 2].item() == pytest.approx(0.25 * 0.5)
    assert weights.sum().item() == pytest.approx(1)
    assert known[0, 0, 9]
    assert not known[0, 0, 0]


def test_a_rollout_is_the_models_own_steps(model, clips):
    rolled = roll_out(model, clips.image).prediction
    state = None
    for frame in range(3):
        model.rotate_encoder_in(torch.float16)
        step = model.step(Frame(clips.image[:, frame]), state)
        state = step.state
        for name in ("pose", "points_self", "points_world", "confidence_world", "color"):
            whole = getattr(rolled, name).unflatten(0, (3, 3))[:, frame]
            assert torch.allclose(whole, getattr(step.prediction, name), atol=2e-5), name


def test_a_smaller_lattice_is_the_model_with_fewer_registers(model, clips):
    small = model.coarse(4)
    assert small.begin(2).tokens.shape == (2, 16, 32)
    kept = model.begin(2).tokens.unflatten(1, (8, 8))[:, :4, :4].flatten(1, 2)
    assert torch.equal(small.begin(2).tokens, kept)
    assert len(small.register_tokens.weight) == 16
    assert len(model.register_tokens.weight) == 64


def test_all_terms_are_finite_and_every_trained_weight_gets_a_gradient(clips):
    model = initial_model(CONFIG, Initialisation(), seed=0)
    model.rotate_encoder_in(None)
    helpers = helper_heads(CONFIG, seed=0)
    weights = Objective(middle_flow=0.5, pooled_pose=1.0)
    terms = objective_terms(roll_out(model, clips.image), helpers, clips, weights, CONFIG)
    assert all(torch.isfinite(value) for value in terms.values())
    total = weighted_sum(terms, weights)
    expected = sum(getattr(weights, name) * value.item() for name, value in terms.items())
    assert total.item() == pytest.approx(expected, rel=1e-5)
    total.backward()
    without = {n for n, p in model.named_parameters() if p.grad is None or not p.grad.any()}
    # what only ray-map input uses, and the last state, which nothing reads
    assert all("ray_map" in name or name.startswith("masked_") for name in without), without
    assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.grad is not None)
    assert all(p.grad is not None for p in helpers.parameters())


def test_a_perfect_prediction_has_no_pose_loss_and_a_wrong_one_has(model, clips):
    rolled = roll_out(model, clips.image)
    shift, vector = pose_vectors(clips.pose)
    w = (1 - vector.square().sum(-1, keepdim=True)).sqrt()
    prediction = rolled.prediction
    object.__setattr__(prediction, "pose", torch.cat([shift, w, vector], dim=-1).flatten(0, 1))
    terms = objective_terms(rolled, helper_heads(CONFIG, 0), clips, Objective(), CONFIG)
    assert terms["pose"].item() < 1e-8
    assert terms["relative_pose"].item() < 1e-6


def test_both_renderers_give_the_same_clips():
    scenes = draw(11, 2, 2, SceneDistribution(movers=(1, 1), fog=6.0))
    compiled = clips_of(render_arrays(scenes, 2, (32, 24)))
    by_torch = clips_of(render_arrays_torch(scenes, 2, (32, 24)))
    for name in ("visible", "moving", "instance"):
        different = getattr(compiled, name) != getattr(by_torch, name)
        assert different.float().mean() < 1e-3, name
    for name, tolerance in (("pose", 1e-6), ("rays", 1e-6), ("depth", 1e-3), ("image", 0.02)):
        close = (getattr(compiled, name) - getattr(by_torch, name)).abs() <= tolerance
        assert close.float().mean() > 0.999, name


def test_the_depth_term_is_the_log_distance_after_one_scale_per_frame(model, clips):
    rng = np.random.default_rng(3)
    truth = rng.uniform(1, 9, (2, 3, 5, 7))
    depth = truth * rng.uniform(0.5, 2, truth.shape)
    depth[0, 0, 0, 0] = -1
    frames = []
    for guess, true in zip(depth.reshape(6, -1), truth.reshape(6, -1), strict=True):
        apart = np.log(np.maximum(guess, 0.01)) - np.log(true)
        frames.append(np.abs(apart - np.median(apart)).mean())
    true = torch.from_numpy(truth)
    found = log_depth_distance(torch.from_numpy(depth), true)
    assert float(found) == pytest.approx(np.mean(frames), rel=1e-12)
    scale = torch.tensor([0.5, 1.0, 4.0])[:, None, None]
    assert float(log_depth_distance(true * scale, true)) < 1e-12

    rollout = roll_out(model, clips.image)
    helpers = helper_heads(CONFIG, 0)
    weights = Objective(depth=1.0, pixel_stride=1)
    term = objective_terms(rollout, helpers, clips, weights, CONFIG)["depth"]
    points = rollout.prediction.points_self.unflatten(0, clips.depth.shape[:2])
    assert torch.equal(term, log_depth_distance(points[..., 2], clips.depth))
