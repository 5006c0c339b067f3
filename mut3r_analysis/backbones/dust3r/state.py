"""What DUSt3R carries as a streaming model: the tokens of an anchor frame."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from mut3r_analysis.backbones.protocol import StateVariable


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


@dataclass(frozen=True, eq=False)
class Entered:
    """A frame and its anchor about to meet.

    Attributes
    ----------
    features, anchor : Tensor
        ``(batch, patch, channel)`` encoder tokens; of the same frame where there is no anchor yet.
    grid : (int, int)
        Rows and columns of patches.
    """

    features: Tensor
    anchor: Tensor
    grid: tuple[int, int]

    @property
    def patches(self) -> Tensor:
        """``(batch, patch, channel)`` encoder tokens."""
        return self.features


@dataclass(frozen=True, eq=False)
class Decoded:
    """What the decoders make of a frame and its anchor.

    Attributes
    ----------
    levels : list of Tensor
        The four inputs of head 1 ``(batch, patch, channel)``: the frame as view 1, in its own
        camera.
    anchored : list of Tensor
        The four inputs of head 2: the frame as view 2 of the pair whose camera is the anchor's.
    grid : (int, int)
        Rows and columns of patches.
    signals : dict of str to Tensor
        Empty: there are no write rules to ask for any.
    """

    levels: list[Tensor]
    anchored: list[Tensor]
    grid: tuple[int, int]
    signals: dict[str, Tensor] = field(default_factory=dict)


def state_variables(patches: int, channels: int) -> tuple[StateVariable, ...]:
    """Say what a state is recorded by, with frames of so many patches."""
    tokens = {"state_token": patches}
    return (
        StateVariable("anchor_frame", {}, "frame that is the anchor, -1: none", dtype="int64"),
        StateVariable("frames_read", {}, "frames read so far", dtype="int64"),
        StateVariable("norm", tokens, "norm of the anchor's token"),
        StateVariable("update_size", tokens, "norm of the token's change"),
        StateVariable("write_rate", tokens, "whether the token was written"),
        StateVariable("tokens", tokens | {"channel": channels}, "tokens of the anchor", kept=True),
    )


def described(before: State, after: State, rate: Tensor, *, keep: bool) -> dict[str, Tensor]:
    """Values of :func:`state_variables`, each with a leading batch."""
    tokens = after.tokens.float()
    change = tokens if before.grid is None else tokens - before.tokens.float()
    values = {
        "anchor_frame": after.anchor,
        "frames_read": after.read,
        "norm": tokens.norm(dim=-1),
        "update_size": change.norm(dim=-1),
        "write_rate": rate,
    }
    return values | {"tokens": tokens} if keep else values


def restored(held: Mapping[str, Tensor], device: torch.device, dtype: torch.dtype) -> State:
    """Return the state of a batch of one that recorded values describe."""
    return State(
        tokens=held["tokens"][None].to(device, dtype),
        anchor=held["anchor_frame"][None].to(device),
        read=held["frames_read"][None].to(device),
    )
