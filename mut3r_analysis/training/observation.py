"""What attention and tokens of the last frame of many clips say about each patch."""

from collections.abc import Collection
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mut3r_analysis.attention.capture import Capture
from mut3r_analysis.attention.sites import SITE_KINDS
from mut3r_analysis.attention.statistics import STATISTICS
from mut3r_analysis.backbones.protocol import Backbone
from mut3r_analysis.running.batch import Batch
from mut3r_analysis.running.configuration import Configuration
from mut3r_analysis.running.loop import stream
from mut3r_analysis.running.passes import FrameInput

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
def observe(
    model: Backbone, images: Tensor, kinds: Collection[str] = KINDS, batch: int = 64
) -> Observation:
    """Run a model over clips ``(clip, frame, rgb, y, x)`` and look at the last frame."""
    parts = [
        _observed(model, images[first : first + batch], kinds)
        for first in range(0, len(images), batch)
    ]
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
            side = STATISTICS[name].side
            axis = axes[SITE_KINDS[kind].queries if side == "query" else SITE_KINDS[kind].keys]
            if not axis.holds_patches:
                continue
            values = torch.stack([records[kind][name] for records in result.attention])
            for layer, heads in enumerate(values[..., axis.patches].unbind(1)):
                found[Cell(kind, name, layer, -1)] = heads.mean(dim=1).numpy()
                for head, each in enumerate(heads.unbind(1)):
                    found[Cell(kind, name, layer, head)] = each.numpy()
    return found, torch.stack(result.read.layers).cpu().numpy()
