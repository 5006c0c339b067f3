"""What attention and tokens of the last frame of many clips say about each patch."""

from collections.abc import Collection
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from mut3r_analysis.attention.capture import Capture
from mut3r_analysis.attention.catalogue import STATISTICS
from mut3r_analysis.attention.recorder import Recorder
from mut3r_analysis.attention.sites import SITE_KINDS
from mut3r_analysis.backbones.cut3r import CUT3R, Frame

KINDS = ("encoder_self", "image_self", "image_to_state", "state_to_image")
"""Site kinds with image tokens on one side; the encoder sees no history and serves as a control."""


@dataclass(frozen=True, order=True)
class Cell:
    """One statistic at one site kind, layer and head; head -1 is the mean over heads."""

    kind: str
    statistic: str
    layer: int
    head: int = -1

    def __str__(self) -> str:
        head = "mean" if self.head < 0 else str(self.head)
        return f"{self.kind} {self.statistic} layer {self.layer} head {head}"


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
    model: CUT3R, images: Tensor, kinds: Collection[str] = KINDS, batch: int = 64
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
    model: CUT3R, images: Tensor, kinds: Collection[str]
) -> tuple[dict[Cell, np.ndarray], np.ndarray]:
    state = None
    for frame in images[:, :-1].unbind(1):
        state = model.step(Frame(frame), state, outputs=("pose",)).state
    recorder = Recorder(Capture(statistics="all", sites=tuple(kinds)))
    tokens: list[Tensor] = []
    hooks = [
        block.register_forward_hook(lambda _module, _inputs, out: tokens.append(out[:, 1:]))
        for block in model.dec_blocks
    ]
    try:
        model.step(Frame(images[:, -1]), state, probe=recorder, outputs=("pose",))
    finally:
        for hook in hooks:
            hook.remove()
    found = {}
    for kind, statistics in recorder.take().items():
        for name, values in statistics.items():
            side = STATISTICS[name].side
            stream = SITE_KINDS[kind].queries if side == "query" else SITE_KINDS[kind].keys
            if stream not in ("image", "patches"):
                continue
            patches = values[..., 1:] if stream == "image" else values
            for layer, heads in enumerate(patches.unbind(1)):
                found[Cell(kind, name, layer, -1)] = heads.mean(dim=1).cpu().numpy()
                for head, each in enumerate(heads.unbind(1)):
                    found[Cell(kind, name, layer, head)] = each.cpu().numpy()
    return found, torch.stack(tokens).cpu().numpy()
