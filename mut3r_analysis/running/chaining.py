"""Parts of a run between resets, chained to one path: each goes on where the one before ended."""

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from mut3r_analysis.backbones.batching import constant
from mut3r_analysis.backbones.geometry import pose_matrix, translation_and_quaternion
from mut3r_analysis.backbones.heads import Prediction


def carried_over(prediction: Prediction, base: Tensor | None) -> Prediction:
    """Return poses and points in the world of the first part, from those in the world of theirs.

    Parameters
    ----------
    prediction : Prediction
    base : Tensor, optional
        ``(batch, 4, 4)`` pose, in the first part's world, of the frame that begins the part; None
        in the first part.
    """
    if base is None:
        return prediction
    pose, points = prediction.pose, prediction.points_world
    if pose is not None:
        pose = translation_and_quaternion(base @ pose_matrix(pose))
    if points is not None:
        turned = points @ base[:, None, :3, :3].mT
        points = turned + base[:, None, None, :3, 3]
    return replace(prediction, pose=pose, points_world=points)


def next_base(base: Tensor | None, pose: Tensor | None, ends: Sequence[bool]) -> Tensor | None:
    """Return the base of the next parts, where a part ends with a frame.

    Parameters
    ----------
    base : Tensor, optional
        ``(batch, 4, 4)`` of the present parts.
    pose : Tensor, optional
        ``(batch, 7)`` of the frame, carried over; None where no poses are predicted, which leaves
        nothing to carry over.
    ends : sequence of bool
        Per sample, whether its part ends.
    """
    if pose is None:
        return base
    found = pose_matrix(pose)
    old = torch.eye(4, dtype=found.dtype, device=found.device) if base is None else base
    return torch.where(constant(ends, found.device)[:, None, None], found, old)
