"""What DUSt3R carries as a streaming model: the tokens of an anchor frame."""

from dataclasses import dataclass
from typing import Self

from torch import Tensor

from mut3r_analysis.backbones import steps


@dataclass(frozen=True, eq=False)
class State:
    """What a batch of sequences carries from frame to frame.

    Attributes
    ----------
    tokens : Tensor
        ``(batch, patch, channel)`` encoder tokens of each sample's anchor; 0 where there is none.
    anchor : Tensor
        ``(batch,)`` number of the frame that the anchor is, -1 where there is none.
    read : Tensor
        ``(batch,)`` frames read so far, also before a reset.
    grid : (int, int), optional
        Rows and columns of patches; None where no frame was read yet.
    """

    tokens: Tensor
    anchor: Tensor
    read: Tensor
    grid: tuple[int, int] | None = None

    @property
    def known(self) -> Tensor:
        """``(batch,)`` bool: whether there is an anchor."""
        return self.anchor >= 0

    def described(self, before: Self, rate: Tensor, *, keep: bool) -> dict[str, Tensor]:
        """Which frame is the anchor, and its tokens."""
        tokens = self.tokens.float()
        change = tokens if before.grid is None else tokens - before.tokens.float()
        values = {
            "anchor_frame": self.anchor,
            "frames_read": self.read,
            "norm": tokens.norm(dim=-1),
            "update_size": change.norm(dim=-1),
            "write_rate": rate,
        }
        return values | {"tokens": tokens} if keep else values


@dataclass(frozen=True, eq=False)
class Entered(steps.Entered):
    """A frame and its anchor about to meet.

    Attributes
    ----------
    features, grid
        As of every model.
    anchor : Tensor
        ``(batch, patch, channel)`` encoder tokens; of the same frame where there is no anchor yet.
    """

    anchor: Tensor


@dataclass(frozen=True, eq=False)
class Decoded(steps.Decoded):
    """What the decoders make of a frame and its anchor.

    Attributes
    ----------
    levels : list of Tensor
        The four inputs of head 1 ``(batch, patch, channel)``: the frame as view 1, in its own
        camera.
    grid, signals
        As of every model.
    anchored : list of Tensor
        The four inputs of head 2: the frame as view 2 of the pair whose camera is the anchor's.
    """

    anchored: list[Tensor]
