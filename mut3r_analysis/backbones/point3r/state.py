"""What a Point3R carries from frame to frame."""

from dataclasses import dataclass

import torch
from torch import Tensor

from mut3r_analysis.backbones.point3r.pointers import Pointers


@dataclass(frozen=True, eq=False)
class State:
    """What a sequence carries from frame to frame.

    Attributes
    ----------
    pointers : Pointers
    places : Tensor
        ``(batch, patch, xyz)`` mean world point of each patch of the previous frame: where the
        next frame's patches are taken to be.
    memory : Tensor
        ``(batch, slot, channel)`` pose memory.
    age : Tensor
        ``(batch,)`` frames since the start or the last reset.
    """

    pointers: Pointers
    places: Tensor
    memory: Tensor
    age: Tensor

    @property
    def tokens(self) -> Tensor:
        """``(batch, pointer, channel)`` features of the pointers."""
        return self.pointers.features

    @property
    def fresh(self) -> Tensor:
        """``(batch,)`` bool: no frame has been written since the start or the last reset."""
        return self.pointers.count == 0


def chosen(where: Tensor, one: State, other: State) -> State:
    """Take the samples ``(batch,)`` bool of one state, and the rest of the other."""
    if bool(where.all()):
        return one
    if not bool(where.any()):
        return other
    row = where[:, None, None]
    return State(
        pointers=other.pointers.replaced(where, one.pointers),
        places=torch.where(row, one.places, other.places),
        memory=torch.where(row, one.memory, other.memory),
        age=torch.where(where, one.age, other.age),
    )
