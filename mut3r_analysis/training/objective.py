"""The loss: terms of pointmaps and poses, and two auxiliary tasks that teach correspondence."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mut3r_analysis.backbones.blocks import Mlp, layer_norm
from mut3r_analysis.backbones.configuration import ModelConfig
from mut3r_analysis.backbones.geometry import rigid_alignment, translation_and_quaternion
from mut3r_analysis.backbones.rotation import state_positions
from mut3r_analysis.errors import InvalidArgument
from mut3r_analysis.training.clips import Clips
from mut3r_analysis.training.recipe import Objective
from mut3r_analysis.training.rollout import Rollout

PLACES = (0.25, 0.75)
"""Where in a patch, as shares of its side, the flow is asked for along each axis."""

_TEMPERATURE = 0.1


class Helpers(nn.Module):
    """Small heads for the auxiliary tasks; they are trained along and thrown away.

    `flow` and `middle_flow` read a patch's tokens at the end and half way through the decoder,
    `query` and `key` project patches before the decoder and state tokens for matching, and
    `pooled_pose` reads the mean over patches of what `pool` makes of them, half way and at the end.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        width = config.dec_embed_dim
        self.flow = Mlp(width, 2 * width, 2 * len(PLACES) ** 2)
        self.middle_norm = layer_norm(width)
        self.middle_flow = nn.Linear(width, 2 * len(PLACES) ** 2)
        self.query = nn.Linear(width, width, bias=False)
        self.key_norm = layer_norm(width)
        self.key = nn.Linear(width, width, bias=False)
        self.pool_norm = nn.ModuleList(layer_norm(width) for _ in range(2))
        self.pool = nn.ModuleList(Mlp(width, 2 * width) for _ in range(2))
        self.pooled_pose = nn.ModuleList(nn.Linear(width, 6) for _ in range(2))


def helper_heads(config: ModelConfig, seed: int) -> Helpers:
    """Build the auxiliary heads with reproducible starting weights."""
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(seed + 1)
        helpers = Helpers(config)
        # matching starts from plain similarity: query and key are the same isometry
        nn.init.eye_(helpers.query.weight)
        nn.init.eye_(helpers.key.weight)
        for layer in (helpers.flow.fc2, helpers.middle_flow):
            nn.init.normal_(layer.weight, std=0.02)
            nn.init.zeros_(layer.bias)
    return helpers


def objective_terms(
    rollout: Rollout,
    helpers: Helpers,
    clips: Clips,
    weights: Objective,
    config: ModelConfig,
    step: int = 0,
) -> dict[str, Tensor]:
    """Return the unweighted terms of the loss whose weight is not zero.

    Parameters
    ----------
    rollout : Rollout
    helpers : Helpers
    clips : Clips
    weights : Objective
    config : ModelConfig
        Of the model; the patch size is read.
    step : int
        Moves the pixel lattice of the dense terms.
    """
    terms = _dense_terms(rollout, clips, weights, step)
    terms |= _pose_terms(rollout, clips, weights)
    patch = config.patch_size
    flow, visible = flow_at_places(clips, patch)
    for name, head, tokens in (
        ("flow", helpers.flow, rollout.final),
        ("middle_flow", helpers.middle_flow, helpers.middle_norm(rollout.middle)),
    ):
        if getattr(weights, name):
            found = head(tokens[:, 1:]).unflatten(-1, (-1, 2))
            units = flow.new_tensor(weights.flow_scale)
            terms[name] = _flow_term(found, flow[:, 1:] / units, visible[:, 1:], weights.flow_turn)
    if weights.pooled_pose:
        terms["pooled_pose"] = _pooled_pose_term(rollout, helpers, clips, weights)
    if weights.matching:
        if rollout.states is None:
            raise InvalidArgument(
                "the term 'matching' needs a state that lies on a lattice; this model's grows from "
                "frame to frame. Set objective.matching to 0"
            )
        grid = (clips.image.shape[-2] // patch, clips.image.shape[-1] // patch)
        target, known = match_target(flow, visible, grid, rollout.states.shape[2])
        found = rollout.descriptors[:, 1:], rollout.states[:, 1:]
        terms["matching"] = _matching_term(*found, helpers, target[:, 1:], known[:, 1:])
    return terms


def weighted_sum(terms: dict[str, Tensor], weights: Objective) -> Tensor:
    """Add the terms up with their weights."""
    return torch.stack([getattr(weights, name) * value for name, value in terms.items()]).sum()


def world_points(clips: Clips) -> tuple[Tensor, Tensor]:
    """Return true points ``(clip, frame, y, x, xyz)`` m in each frame's and the first camera."""
    own = clips.depth[..., None] * clips.rays[:, None]
    turn, shift = clips.pose[..., :3, :3], clips.pose[..., :3, 3]
    world = torch.einsum("cfij,cfyxj->cfyxi", turn, own) + shift[:, :, None, None]
    return own, world


def confident_distance(points: Tensor, confidence: Tensor, truth: Tensor, reward: float) -> Tensor:
    """Mean of ``confidence * |points - truth| - reward * log(confidence)``."""
    distance = (points - truth).norm(dim=-1)
    return (confidence * distance - reward * confidence.log()).mean()


def log_depth_distance(depth: Tensor, truth: Tensor) -> Tensor:
    """Mean distance of log depths ``(clip, frame, y, x)``, less each frame's median difference."""
    apart = (depth.clamp_min(0.01).log() - truth.log()).flatten(2)
    # the median is one pixel's value: a gradient through it would be that pixel's alone
    return (apart - apart.detach().median(dim=-1, keepdim=True).values).abs().mean()


def pose_vectors(matrix: Tensor) -> tuple[Tensor, Tensor]:
    """Return translation and quaternion vector part (w >= 0) of poses ``(..., 4, 4)``."""
    turn = matrix[..., :3, :3]
    axis = (turn - turn.mT)[..., [2, 0, 1], [1, 2, 0]]
    # |axis| = 2 sin(angle), the quaternion's vector part is axis / (4 w), w = cos(angle / 2)
    trace = turn.diagonal(dim1=-2, dim2=-1).sum(-1)
    w = ((trace + 1).clamp_min(1e-6)).sqrt() / 2
    return matrix[..., :3, 3], axis / (4 * w[..., None])


def true_motion(clips: Clips) -> tuple[Tensor, Tensor]:
    """Return :func:`pose_vectors` of the true motion between consecutive frames."""
    return pose_vectors(torch.linalg.inv(clips.pose[:, :-1]) @ clips.pose[:, 1:])


def relative_motion(pose: Tensor) -> tuple[Tensor, Tensor]:
    """Motion between consecutive frames of poses ``(clip, frame, 7)``, in the earlier camera.

    Returns the translation and the quaternion ``(clip, frame - 1, 3 | 4)``.
    """
    before, after = pose[:, :-1], pose[:, 1:]
    inverse = before[..., 3:] * pose.new_tensor([1, -1, -1, -1])
    shift = _turned(inverse, after[..., :3] - before[..., :3])
    turn = _product(inverse, after[..., 3:])
    return shift, turn * torch.where(turn[..., :1] < 0, -1.0, 1.0)


def flow_at_places(clips: Clips, patch: int) -> tuple[Tensor, Tensor]:
    """Flow in patches ``(clip, frame, patch, place, uv)`` and its visibility, two by two places."""
    picks = [round(share * (patch - 1)) for share in PLACES]

    def picked(dense: Tensor) -> Tensor:
        tiles = dense.unflatten(3, (-1, patch)).unflatten(2, (-1, patch))
        tiles = tiles[:, :, :, picks][:, :, :, :, :, picks]
        return tiles.transpose(3, 4).flatten(4, 5).flatten(2, 3)

    return picked(clips.flow) / patch, picked(clips.visible)


def match_target(
    flow: Tensor, visible: Tensor, grid: tuple[int, int], state_size: int
) -> tuple[Tensor, Tensor]:
    """Where in the state each patch comes from.

    The state lattice is taken to lie on the patch grid, as the positions of both say. A patch's
    origin is its centre displaced by its mean flow; its weight is shared bilinearly.

    Parameters
    ----------
    flow : Tensor
        ``(clip, frame, patch, place, uv)`` in patches.
    visible : Tensor
        ``(clip, frame, patch, place)``.
    grid : (int, int)
        Rows and columns of patches.
    state_size : int

    Returns
    -------
    (Tensor, Tensor)
        Weights ``(clip, frame, patch, state_token)`` that sum to one where known, and
        ``(clip, frame, patch)`` whether all places are visible and the origin is on the lattice.
    """
    rows, columns = torch.meshgrid(
        *(torch.arange(n, device=flow.device, dtype=flow.dtype) for n in grid), indexing="ij"
    )
    centre = torch.stack([columns.flatten(), rows.flatten()], dim=-1)
    origin = centre + flow.mean(dim=-2)
    lattice = state_positions(state_size, flow.device).to(flow.dtype)
    apart_x = (origin[..., None, 0] - lattice[:, 1]).abs()
    apart_y = (origin[..., None, 1] - lattice[:, 0]).abs()
    weight = (1 - apart_x).clamp_min(0) * (1 - apart_y).clamp_min(0)
    total = weight.sum(-1)
    known = visible.all(-1) & (total > 0.99)
    return weight / total.clamp_min(1e-6)[..., None], known


def _dense_terms(
    rollout: Rollout, clips: Clips, weights: Objective, step: int
) -> dict[str, Tensor]:
    prediction = rollout.prediction
    stride = weights.pixel_stride
    rows, columns = slice(step % stride, None, stride), slice(step // stride % stride, None, stride)
    own, world = world_points(clips)
    scale = world.norm(dim=-1).mean(dim=(1, 2, 3))[:, None, None, None, None]
    terms = {}
    for name, truth, points, confidence in (
        ("points_self", own, prediction.points_self, prediction.confidence_self),
        ("points_world", world, prediction.points_world, prediction.confidence_world),
    ):
        if points is None or confidence is None or not getattr(weights, name):
            continue
        shape = clips.depth.shape[:2]
        terms[name] = confident_distance(
            points.unflatten(0, shape)[:, :, rows, columns] / scale,
            confidence.unflatten(0, shape)[:, :, rows, columns],
            truth[:, :, rows, columns] / scale,
            weights.confidence,
        )
    if weights.depth and prediction.points_self is not None:
        found = prediction.points_self.unflatten(0, clips.depth.shape[:2])[:, :, rows, columns, 2]
        terms["depth"] = log_depth_distance(found, clips.depth[:, :, rows, columns])
    if prediction.color is not None and weights.color:
        truth = clips.image.flatten(0, 1).permute(0, 2, 3, 1)
        terms["color"] = F.mse_loss(prediction.color[:, rows, columns], truth[:, rows, columns])
    return terms


def _pose_terms(rollout: Rollout, clips: Clips, weights: Objective) -> dict[str, Tensor]:
    shape, terms = clips.depth.shape[:2], {}
    units = clips.depth.new_tensor([*weights.translation_scale, *weights.rotation_scale])
    pose = rollout.prediction.pose
    if weights.pose and pose is not None:
        pose = pose.unflatten(0, shape)
        truth = torch.cat(pose_vectors(clips.pose), dim=-1)
        found = torch.cat([pose[..., :3], pose[..., 4:]], dim=-1)
        terms["pose"] = F.smooth_l1_loss(found / units, truth / units, beta=weights.pose_turn)
    for name in ("relative_pose", "aligned_pose"):
        if getattr(weights, name):
            pose = rollout.prediction.pose if name == "relative_pose" else _aligned(rollout, clips)
            assert pose is not None
            truth = torch.cat(true_motion(clips), dim=-1)
            shift, turn = relative_motion(pose.unflatten(0, shape))
            found = torch.cat([shift, turn[..., 1:]], dim=-1)
            terms[name] = F.smooth_l1_loss(found / units, truth / units, beta=weights.pose_turn)
    return terms


def _aligned(rollout: Rollout, clips: Clips) -> Tensor:
    """Poses ``(clip * frame, 7)`` that carry true points onto the predicted points in the world."""
    prediction = rollout.prediction
    assert prediction.points_world is not None
    assert prediction.confidence_world is not None
    own, _ = world_points(clips)
    weight = prediction.confidence_world.detach().log().flatten(1) + 1e-3
    points = own.flatten(0, 1).flatten(1, 2), prediction.points_world.flatten(1, 2)
    return translation_and_quaternion(rigid_alignment(*points, weight, own_scale=True))


def _pooled_pose_term(
    rollout: Rollout, helpers: Helpers, clips: Clips, weights: Objective
) -> Tensor:
    truth = torch.cat(true_motion(clips), dim=-1)
    truth = truth / truth.new_tensor([*weights.translation_scale, *weights.rotation_scale])
    losses = []
    for level, tokens in enumerate((rollout.middle, rollout.final)):
        votes = helpers.pool[level](helpers.pool_norm[level](tokens[:, 1:]))
        found = helpers.pooled_pose[level](votes.mean(dim=2))
        losses.append(F.smooth_l1_loss(found, truth, beta=weights.pose_turn))
    return torch.stack(losses).mean()


def _flow_term(found: Tensor, flow: Tensor, visible: Tensor, turn: float) -> Tensor:
    error = F.smooth_l1_loss(found, flow, reduction="none", beta=turn)
    return (error.sum(-1) * visible).sum() / visible.sum().clamp_min(1)


def _matching_term(
    descriptors: Tensor, states: Tensor, helpers: Helpers, target: Tensor, known: Tensor
) -> Tensor:
    query = F.normalize(helpers.query(descriptors), dim=-1)
    key = F.normalize(helpers.key(helpers.key_norm(states)), dim=-1)
    surprise = -(target * (query @ key.mT / _TEMPERATURE).log_softmax(-1)).sum(-1)
    return (surprise * known).sum() / known.sum().clamp_min(1)


def _product(a: Tensor, b: Tensor) -> Tensor:
    """Hamilton product of quaternions ``(..., wxyz)``."""
    w1, x1, y1, z1 = a.unbind(-1)
    w2, x2, y2, z2 = b.unbind(-1)
    return torch.stack(
        [
            w1 * w2 - x1 * x2 - y1 * y2 - z1 * z2,
            w1 * x2 + x1 * w2 + y1 * z2 - z1 * y2,
            w1 * y2 - x1 * z2 + y1 * w2 + z1 * x2,
            w1 * z2 + x1 * y2 - y1 * x2 + z1 * w2,
        ],
        dim=-1,
    )


def _turned(quaternion: Tensor, vector: Tensor) -> Tensor:
    axis = quaternion[..., 1:]
    once = 2 * torch.linalg.cross(axis, vector)
    return vector + quaternion[..., :1] * once + torch.linalg.cross(axis, once)
