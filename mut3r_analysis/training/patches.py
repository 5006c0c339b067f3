"""What is true of each patch, and what attention and tokens of the last frame say about it."""

from collections.abc import Collection
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from mut3r_analysis.attention import SITE_KINDS, STATISTICS, Capture
from mut3r_analysis.backbones.protocol import Backbone
from mut3r_analysis.running.batch import Batch
from mut3r_analysis.running.configuration import Configuration
from mut3r_analysis.running.loop import stream
from mut3r_analysis.running.passes import FrameInput
from mut3r_analysis.training.clips import Clips
from mut3r_analysis.training.rollout import clips_at_once

MOVING_SHARE = 0.5
"""A patch is of an object (or moving) when at least half of its pixels are."""
RESTING_SHARE = 0.1
"""An object's patch rests when less than a tenth of its pixels move; others are left out."""

NUISANCES = ("flow", "visibility", "contrast", "depth", "nearness", "row", "column")


@dataclass(frozen=True, eq=False)
class PatchTruth:
    """Truth per patch of one frame of many clips, each ``(clip, patch)``.

    Attributes
    ----------
    moving, resting : ndarray of bool
        Of an object and moving; of an object and resting.
    background : ndarray of bool
        Not of an object.
    nuisances : dict of str to ndarray
        :data:`NUISANCES`: size of the flow to the previous frame (patches), share of pixels visible
        there, standard deviation of the brightness, depth (m), its inverse, place in the grid.
    frame_difference : ndarray
        Mean absolute change of the image since the previous frame: the trivial cue.
    """

    moving: np.ndarray
    resting: np.ndarray
    background: np.ndarray
    nuisances: dict[str, np.ndarray]
    frame_difference: np.ndarray


def patch_truth(clips: Clips, patch: int, frame: int = -1) -> PatchTruth:
    """Reduce the truth of a frame to patches of `patch` px."""
    moving = patch_mean(clips.moving[:, frame].float(), patch)
    instance = clips.instance[:, frame]
    share = torch.stack(
        [
            patch_mean((instance == number).float(), patch)
            for number in range(1, int(instance.max()) + 1)
        ]
        or [torch.zeros_like(moving)]
    )
    of_object = share.max(dim=0).values >= MOVING_SHARE
    is_moving = (moving >= MOVING_SHARE) & of_object
    brightness = clips.image[:, frame].mean(dim=1)
    mean, square = patch_mean(brightness, patch), patch_mean(brightness**2, patch)
    depth = patch_mean(clips.depth[:, frame], patch)
    rows, columns = np.indices(tuple(side // patch for side in instance.shape[-2:]))
    change = (clips.image[:, frame] - clips.image[:, frame - 1]).abs().mean(dim=1)
    nuisances = {
        "flow": patch_mean(clips.flow[:, frame].norm(dim=-1), patch) / patch,
        "visibility": patch_mean(clips.visible[:, frame].float(), patch),
        "contrast": (square - mean**2).clamp_min(0).sqrt(),
        "depth": depth,
        "nearness": 1 / depth,
        "row": torch.from_numpy(rows.ravel()).expand_as(depth),
        "column": torch.from_numpy(columns.ravel()).expand_as(depth),
    }
    background = patch_mean((instance > 0).float(), patch) < RESTING_SHARE
    return PatchTruth(
        moving=is_moving.cpu().numpy(),
        resting=(of_object & (moving < RESTING_SHARE)).cpu().numpy(),
        background=background.cpu().numpy(),
        nuisances={name: value.double().cpu().numpy() for name, value in nuisances.items()},
        frame_difference=patch_mean(change, patch).double().cpu().numpy(),
    )


def patch_mean(dense: Tensor, patch: int) -> Tensor:
    """Mean over patches ``(clip, patch)`` of ``(clip, y, x)``."""
    return F.avg_pool2d(dense[:, None], patch).flatten(1)


KINDS = ("encoder_self", "image_self", "image_to_state", "state_to_image")
"""Site kinds with image tokens on one side; the encoder sees no history and serves as a control."""


@dataclass(frozen=True, order=True)
class Cell:
    """One statistic at one site kind, layer and head; head -1 is the mean over heads."""

    kind: str
    statistic: str
    layer: int
    head: int = -1

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as a card holds them."""
        return {**asdict(self), "head": "mean" if self.head < 0 else self.head}


@dataclass(frozen=True, eq=False)
class Observation:
    """Scores of the last frame's patches.

    Attributes
    ----------
    cells : tuple of Cell
    scores : ndarray (cell, clip, patch)
    tokens : ndarray (layer, clip, patch, channel)
        Patch tokens after each decoder layer.
    """

    cells: tuple[Cell, ...]
    scores: np.ndarray
    tokens: np.ndarray


@torch.no_grad()
def observe(model: Backbone, images: Tensor, kinds: Collection[str] = KINDS) -> Observation:
    """Run a model over clips ``(clip, frame, rgb, y, x)`` and look at the last frame."""
    at_once = clips_at_once(model, plain=False)
    parts = [_observed(model, some, kinds) for some in images.split(at_once)]
    statistics = {cell: np.concatenate([each[cell] for each, _ in parts]) for cell in parts[0][0]}
    cells = tuple(sorted(statistics))
    return Observation(
        cells=cells,
        scores=np.stack([statistics[cell] for cell in cells]).astype(np.float64),
        tokens=np.concatenate([tokens for _, tokens in parts], axis=1),
    )


def _observed(
    model: Backbone, images: Tensor, kinds: Collection[str]
) -> tuple[dict[Cell, np.ndarray], np.ndarray]:
    last = images.shape[1] - 1
    capture = Capture(statistics="all", sites=tuple(kinds))
    batch = Batch(model, [Configuration()] * len(images), capture=capture, trace=True)
    inputs = [
        FrameInput(time, frames, {}, record=time == last)
        for time, frames in enumerate(images.unbind(1))
    ]
    *_, (result,) = stream([batch], inputs, write_last=False)
    axes = model.axes(model.patch_grid(*images.shape[-2:]))
    found = {}
    for kind, statistics in result.attention[0].items():
        for name in statistics:
            row = STATISTICS[name]
            axis = axes[SITE_KINDS[kind].queries if row.side == "query" else SITE_KINDS[kind].keys]
            if row.is_index or not axis.holds_patches:
                continue
            values = torch.stack([records[kind][name] for records in result.attention]).cpu()
            for layer, heads in enumerate(values[..., axis.patches].unbind(1)):
                found[Cell(kind, name, layer, -1)] = heads.mean(dim=1).numpy()
                for head, each in enumerate(heads.unbind(1)):
                    found[Cell(kind, name, layer, head)] = each.numpy()
    return found, torch.stack(result.read.layers).cpu().numpy()
