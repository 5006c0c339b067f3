"""Go or no-go: what a model predicts of held-out scenes, beside what knows nothing.

Four baselines: a camera that does not move (constant pose), a camera that moves straight at
constant speed (for the aligned trajectory error, which flatters any smooth path), a depth that is
constant per frame, and, in the model card, the model before training.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from mut3r_analysis.backbones.protocol import Backbone
from mut3r_analysis.metrics.bootstrap import drawn_counts, percentile_bounds
from mut3r_analysis.running.configuration import Configuration
from mut3r_analysis.scenes import HELD_OUT_SEEDS, SceneDistribution, random_batch
from mut3r_analysis.training.clips import Clips, clips_of
from mut3r_analysis.training.objective import relative_motion, true_motion, world_points
from mut3r_analysis.training.rollout import PLAIN, roll_out_all

AXES = ("pitch", "yaw", "roll", "x", "y", "z")
"""Relative rotation about the camera's x, y and z, and its translation along them."""

BASELINES = {
    "rpe_rotation": "rpe_rotation_constant",
    "rpe_translation": "rpe_translation_constant",
    "ate": "ate_straight",
    "depth": "depth_constant",
}
"""Errors and what they are divided by."""

SHORTEST_PATH = 4
"""Frames below which an aligned trajectory says nothing."""

RESAMPLES = 1000


@dataclass(frozen=True, eq=False)
class ClipScores:
    """Per-clip errors of a model and of the baselines, each ``(clip,)``, and the motion itself.

    Attributes
    ----------
    errors : dict of str to ndarray
        ``rpe_rotation`` degrees and ``rpe_translation`` m (root mean square over the clip's
        consecutive pairs), ``ate`` m (Sim(3)), ``depth`` (absolute relative, one median scale per
        frame), ``points_self``, ``points_world`` (distance over the clip's mean distance), and the
        baselines ``rpe_rotation_constant``, ``rpe_translation_constant``, ``ate_straight``,
        ``depth_constant``.
    motion, predicted_motion : ndarray
        ``(clip, pair, axis)`` of :data:`AXES`: half-angle vector and metres.
    """

    errors: dict[str, np.ndarray]
    motion: np.ndarray
    predicted_motion: np.ndarray

    def drawn(self, draws: NDArray[np.int_]) -> dict[str, NDArray[np.float64]]:
        """Reduce over clips, each as often as a draw ``(draw, clip)`` says.

        Root mean square for relative pose errors, mean otherwise; ratios to the baselines and
        correlations of true and predicted motion are computed within each draw.
        """
        total = draws.sum(axis=1)
        found: dict[str, NDArray[np.float64]] = {}
        for name, errors in self.errors.items():
            values = errors.astype(np.float64)
            rooted = name.startswith("rpe")
            mean = draws @ (values**2 if rooted else values) / total
            found[name] = np.sqrt(mean) if rooted else mean
        for name, baseline in BASELINES.items():
            found[f"{name}_ratio"] = found[name] / np.maximum(found[baseline], 1e-12)
        true, predicted = (each.astype(float) for each in (self.motion, self.predicted_motion))
        correlations = _correlations(true, predicted, draws)
        return found | {f"correlation_{name}": correlations[:, i] for i, name in enumerate(AXES)}

    def summary(self) -> dict[str, float]:
        """Return every number of :meth:`drawn`, each clip counted once."""
        once = self.drawn(np.ones((1, len(self.motion)), int))
        return {name: float(values[0]) for name, values in once.items()}

    def intervals(self) -> dict[str, list[float]]:
        """Return every number as [value, low, high], clips drawn with replacement."""
        drawn = self.drawn(drawn_counts(len(self.motion), RESAMPLES, seed=2))
        return {
            name: [value, *percentile_bounds(drawn[name]).tolist()]
            for name, value in self.summary().items()
        }


def held_out_clips(
    distribution: SceneDistribution, size: tuple[int, int], clips: int, frames: int, seed: int = 0
) -> Clips:
    """Render clips that no training sees."""
    batch = random_batch(HELD_OUT_SEEDS[seed], clips, frames, size=size, distribution=distribution)
    return clips_of(batch)


@torch.no_grad()
def score_clips(
    model: Backbone,
    clips: Clips,
    *,
    lattice: int | None = None,
    configuration: Configuration = PLAIN,
    masks: Mapping[str, torch.Tensor] | None = None,
) -> ClipScores:
    """Score a model on clips.

    Parameters
    ----------
    model : Backbone
    clips : Clips
    lattice, configuration, masks
        As for :func:`~mut3r_analysis.training.rollout.roll_out`.
    """
    outputs = ("pose", "points_self", "points_world")
    parts = []
    options = {"lattice": lattice, "configuration": configuration}
    for part in roll_out_all(model, clips.image, outputs, masks=masks, **options):
        found = part.prediction
        fields = (found.pose, found.points_self, found.points_world)
        parts.append([each for each in fields if each is not None])
    shape = clips.depth.shape[:2]
    pose, own, world = (torch.cat(each).unflatten(0, shape) for each in zip(*parts, strict=True))
    motion, predicted = _motion(clips, pose)
    errors = _motion_errors(motion, predicted)
    errors["ate"], errors["ate_straight"] = _path_errors(clips, pose)
    errors["depth"], errors["depth_constant"] = _depth_errors(clips, own[..., 2])
    true_own, true_world = world_points(clips)
    scale = true_world.norm(dim=-1).mean(dim=(1, 2, 3))
    for name, points, truth in (
        ("points_self", own, true_own),
        ("points_world", world, true_world),
    ):
        errors[name] = ((points - truth).norm(dim=-1).mean(dim=(1, 2, 3)) / scale).cpu().numpy()
    return ClipScores(errors, motion.cpu().numpy(), predicted.cpu().numpy())


def aligned_path_error(truth: np.ndarray, estimate: np.ndarray) -> np.ndarray:
    """Root mean square distance ``(clip,)`` of paths ``(clip, frame, 3)`` once they are aligned.

    The best similarity in the closed form of Umeyama (1991), for all clips at once. Unlike a single
    comparison it accepts degenerate paths: a straight or resting estimate is aligned as well as it
    can be.
    """
    x = estimate - estimate.mean(axis=1, keepdims=True)
    y = truth - truth.mean(axis=1, keepdims=True)
    u, spread, v = np.linalg.svd(np.einsum("cfi,cfj->cij", y, x))
    spread[:, 2] *= np.sign(np.linalg.det(u) * np.linalg.det(v))
    own, wanted = (x**2).sum(axis=(1, 2)), (y**2).sum(axis=(1, 2))
    explained = spread.sum(axis=1) ** 2 / np.maximum(own, 1e-12)
    return np.sqrt(np.maximum(wanted - explained, 0) / truth.shape[1])


def _correlations(
    true: NDArray[np.float64], predicted: NDArray[np.float64], draws: NDArray[np.int_]
) -> NDArray[np.float64]:
    """Pearson correlations ``(draw, axis)``, from sums per clip of ``(clip, pair, axis)``."""
    pairs = true.shape[1] * draws.sum(axis=1, keepdims=True)
    x, y, xx, yy, xy = (
        draws @ each.sum(axis=1) / pairs
        for each in (true, predicted, true**2, predicted**2, true * predicted)
    )
    spread = np.sqrt(np.maximum((xx - x**2) * (yy - y**2), 0))
    return np.divide(xy - x * y, spread, out=np.zeros_like(xy), where=spread > 1e-15)


def _motion(clips: Clips, pose: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    shift, turn = true_motion(clips)
    true = torch.cat([turn, shift], dim=-1)
    shift, turn = relative_motion(pose)
    return true, torch.cat([turn[..., 1:], shift], dim=-1)


def _motion_errors(true: torch.Tensor, predicted: torch.Tensor) -> dict[str, np.ndarray]:
    errors = {}
    for suffix, estimate in (("", predicted), ("_constant", torch.zeros_like(true))):
        angle = _angle_between(true[..., :3], estimate[..., :3])
        shift = (true[..., 3:] - estimate[..., 3:]).norm(dim=-1)
        errors[f"rpe_rotation{suffix}"] = angle.square().mean(1).sqrt().cpu().numpy()
        errors[f"rpe_translation{suffix}"] = shift.square().mean(1).sqrt().cpu().numpy()
    return errors


def _angle_between(first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
    """Angle (degrees) between rotations given by the vector parts of their quaternions."""
    w1, w2 = ((1 - v.square().sum(-1)).clamp_min(0).sqrt() for v in (first, second))
    vector = w2[..., None] * first - w1[..., None] * second - torch.linalg.cross(first, second)
    scalar = w1 * w2 + (first * second).sum(-1)
    return torch.rad2deg(2 * torch.atan2(vector.norm(dim=-1), scalar.abs()))


def _path_errors(clips: Clips, pose: torch.Tensor) -> tuple[np.ndarray, np.ndarray]:
    truth = clips.pose[..., :3, 3].double().cpu().numpy()
    line = np.zeros_like(truth)
    line[..., 0] = np.arange(truth.shape[1])
    estimate = pose[..., :3].double().cpu().numpy()
    return aligned_path_error(truth, estimate), aligned_path_error(truth, line)


def _depth_errors(clips: Clips, depth: torch.Tensor) -> tuple[np.ndarray, np.ndarray]:
    truth = clips.depth.flatten(2)
    middle = truth.median(dim=-1, keepdim=True).values
    scaled = depth.flatten(2)
    scaled = scaled * middle / scaled.median(dim=-1, keepdim=True).values.clamp_min(1e-6)
    both = ((each - truth).abs() / truth for each in (scaled, middle))
    model, constant = (each.mean(dim=(1, 2)).cpu().numpy() for each in both)
    return model, constant
