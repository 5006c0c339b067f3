"""Faults planted into attention: one head, for one patch of one frame, does something else.

All faults move what their head writes equally far. Half act on logits: one key is given so much of
the weight; half act on what the head writes.
"""

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from mut3r_analysis.attention import Site, logits

MOVED = 3.0
"""How far what a head writes is moved, as a share of its norm."""


class Fault(NamedTuple):
    """Where it stands: a frame by its position, a patch, and a head; and on what it acts."""

    frame: int
    row: int
    column: int
    site: str
    layer: int
    head: int
    on_logits: bool


def drawn(generator: np.random.Generator, frames: int, grid: tuple[int, int]) -> Fault:
    """Draw a fault of a model with six decoder layers of four heads."""
    return Fault(
        frame=int(generator.integers(frames)),
        row=int(generator.integers(grid[0])),
        column=int(generator.integers(grid[1])),
        site=str(generator.choice(["image_self", "image_to_state"])),
        layer=int(generator.integers(6)),
        head=int(generator.integers(4)),
        on_logits=bool(generator.integers(2)),
    )


class Faulty:
    """Plants faults: give it to ``run(intervene=)``, any number of times.

    Parameters
    ----------
    faults : list of list of Fault
        Those of every run of a batch, or one list for all runs.
    frames : int
        Of the sequence, which is run as a whole: frames are counted by the encoder.
    grid : (int, int)
        Rows and columns of patches.
    """

    def __init__(self, faults: list[list[Fault]], frames: int, grid: tuple[int, int]) -> None:
        self._faults, self._frames, self._grid = faults, frames, grid
        self._seen = 0

    def __call__(self, site: Site, q: Tensor, k: Tensor, v: Tensor, out: Tensor) -> Tensor | None:
        """Return the outputs with the faults of this site in them."""
        self._seen += site == Site("encoder_self", 0)
        frame = (self._seen - 1) % self._frames
        found = out.clone()
        for row in range(len(out)):
            for fault in self._faults[row % len(self._faults)]:
                if (fault.frame, fault.site, fault.layer) != (frame, site.kind, site.layer):
                    continue
                patches = self._grid[0] * self._grid[1]
                query = out.shape[2] - patches + fault.row * self._grid[1] + fault.column
                here = (row, fault.head)
                act = _on_logits if fault.on_logits else _on_output
                found[(*here, query)] = act(q[here][query], k[here], v[here], out[(*here, query)])
        return found


def _on_logits(q: Tensor, k: Tensor, v: Tensor, out: Tensor) -> Tensor:
    """Raise the logit of the key whose value is farthest, until the output has moved enough."""
    z = logits(q[None], k)[0]
    away = (v - out).norm(dim=-1)
    key = int(away.argmax())
    weight = z.softmax(-1)[key]
    share = (MOVED * out.norm() / away[key]).clamp(max=0.999)
    raised = weight + share * (1 - weight)
    z = z.clone()
    z[key] += torch.logit(raised) - torch.logit(weight)
    return z.softmax(-1).to(v.dtype) @ v


def _on_output(q: Tensor, k: Tensor, v: Tensor, out: Tensor) -> Tensor:
    """Add what the head writes, shifted by a channel, as far as it is across what it writes."""
    shifted = out.roll(1)
    across = shifted - (shifted @ out) / (out @ out) * out
    return out + MOVED * out.norm() * across / across.norm()
