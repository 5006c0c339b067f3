"""What Spann3R carries from frame to frame, what its decoders give, and how a run records it."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from mut3r_analysis.backbones.protocol import StateVariable
from mut3r_analysis.backbones.spann3r.bank import Bank
from mut3r_analysis.backbones.spann3r.config import Spann3RConfig

_ROW_PARTS = ("tokens", "values", "usage", "count", "origin_frame", "origin_patch")


@dataclass(frozen=True, eq=False)
class State:
    """What a sequence carries from frame to frame.

    Attributes
    ----------
    bank : Bank
    query : Tensor, optional
        ``(batch, patch, channel)`` with which the next frame reads the bank; None before a first
        frame.
    second : list of Tensor
        Decoder levels ``(batch, patch, channel)`` of the next frame, as it was seen beside the one
        before; empty before a first frame.
    read : Tensor
        ``(batch,)`` frames read so far, also before a reset.
    similarity : Tensor
        ``(batch,)`` largest mean cosine of the last frame's keys with a working frame.
    skipped : Tensor
        ``(batch,)`` bool: for that it was not written.
    patches : int
        Of a frame; 0 before there was one.
    """

    bank: Bank
    query: Tensor | None
    second: list[Tensor]
    read: Tensor
    similarity: Tensor
    skipped: Tensor
    patches: int = 0

    @property
    def tokens(self) -> Tensor:
        """``(batch, row, channel)`` keys of the bank."""
        return self.bank.keys

    @property
    def ids(self) -> Tensor:
        """``(row,)`` identity of the bank's rows, by their frame and patch."""
        return (self.bank.frame * max(self.patches, 1) + self.bank.patch)[0]


@dataclass(frozen=True, eq=False)
class Entered:
    """A frame, the next one and a bank about to meet.

    Attributes
    ----------
    features : Tensor
        ``(batch, patch, channel)`` encoder tokens of the frame.
    partner : Tensor, optional
        Those of the next frame; None at the end of a sequence.
    grid : (int, int)
        Rows and columns of patches.
    state : State
    """

    features: Tensor
    partner: Tensor | None
    grid: tuple[int, int]
    state: State

    @property
    def patches(self) -> Tensor:
        """``(batch, patch, channel)`` encoder tokens; a read replaces them before the decoder."""
        return self.features

    @property
    def reads(self) -> bool:
        """Whether the bank is read."""
        return self.state.query is not None and len(self.state.bank) > 0


@dataclass(frozen=True, eq=False)
class Decoded:
    """What the decoders make of a frame and the next one.

    Attributes
    ----------
    levels : list of Tensor
        The four inputs of the dense head ``(batch, patch, channel)``.
    second : list of Tensor
        The last three inputs of the other head, for the next frame; empty at the end of a sequence.
        `levels` are then those of the frame as it was seen beside the one before.
    fused : Tensor
        ``(batch, patch, channel)`` what entered the decoder for the frame.
    usage : Tensor
        ``(batch, row)`` weights by which rows of the bank were read, summed.
    grid : (int, int)
        Rows and columns of patches.
    signals : dict of str to Tensor
        Empty: there are no write rules to ask for any.
    """

    levels: list[Tensor]
    second: list[Tensor]
    fused: Tensor
    usage: Tensor
    grid: tuple[int, int]
    signals: dict[str, Tensor] = field(default_factory=dict)


def state_variables(
    config: Spann3RConfig, patches: int, capacity: int
) -> tuple[StateVariable, ...]:
    """Say what a state is recorded by, with frames of so many patches and so many rows at most."""
    rows, own = {"bank_row": capacity}, {"patch": patches}
    wide = {"channel": config.enc_embed_dim}
    levels = {"level": 3} | own | {"decoder_channel": config.dec_embed_dim}
    return (
        StateVariable("bank_row_count", {}, "rows of the bank", dtype="int64"),
        StateVariable("working_frames", {}, "working frames of the bank", dtype="int64"),
        StateVariable("frames_read", {}, "frames read so far", dtype="int64"),
        StateVariable("similarity", {}, "largest mean cosine with a working frame"),
        StateVariable("skipped", {}, "whether the frame was too similar", dtype="bool"),
        StateVariable("removed", {}, "rows that left the bank", dtype="int64"),
        StateVariable("norm", rows, "norm of the row's key"),
        StateVariable("write_rate", rows, "whether the row was written"),
        StateVariable("origin_frame", rows, "frame the row comes from", dtype="int64"),
        StateVariable("origin_patch", rows, "patch the row comes from", dtype="int64"),
        StateVariable("usage", rows, "summed weights by which the row was read"),
        StateVariable("count", rows, "frames written since the row came in", dtype="int64"),
        StateVariable("tokens", rows | wide, "keys of the bank", kept=True),
        StateVariable("values", rows | wide, "values of the bank", kept=True),
        StateVariable("query", own | wide, "query of the next frame", kept=True),
        StateVariable("second", levels, "decoder levels of the next frame", kept=True),
    )


def described(before: State, after: State, rate: Tensor) -> dict[str, Tensor]:
    """Values that are always recorded, each with a leading batch."""
    bank = after.bank
    stays = torch.isin(before.ids, after.ids)
    return {
        "bank_row_count": torch.tensor([len(bank)]),
        "working_frames": bank.working,
        "frames_read": after.read,
        "similarity": after.similarity,
        "skipped": after.skipped,
        "removed": (~stays).sum()[None],
        "norm": bank.keys.float().norm(dim=-1),
        "write_rate": rate,
        "origin_frame": bank.frame,
        "origin_patch": bank.patch,
        "usage": bank.usage,
        "count": bank.count,
    }


def kept(state: State, channels: int) -> dict[str, Tensor]:
    """Values from which :func:`restored` makes the state again; `channels` is the decoder's."""
    bank, query, second = state.bank, state.query, state.second
    if query is None:
        query = bank.keys.new_full((1, state.patches, bank.keys.shape[-1]), torch.nan)
        second = [query.new_full((1, state.patches, channels), torch.nan)] * 3
    values = {"tokens": bank.keys, "values": bank.values, "query": query}
    values["second"] = torch.stack(second, dim=1)
    return {name: value.float() for name, value in values.items()}


def restored(
    held: Mapping[str, Tensor], device: torch.device, dtype: torch.dtype, *, begun: bool
) -> State:
    """Return the state that recorded values, without a batch, describe.

    `begun` says whether a frame was read since the start or the last reset.
    """
    count = int(held["bank_row_count"])
    rows = {name: held[name][None, :count].to(device) for name in _ROW_PARTS}
    bank = Bank(
        keys=rows["tokens"].to(dtype),
        values=rows["values"].to(dtype),
        usage=rows["usage"],
        count=rows["count"],
        frame=rows["origin_frame"],
        patch=rows["origin_patch"],
        working=held["working_frames"][None].to(device),
    )
    query, second = (held[name][None].to(device, dtype) for name in ("query", "second"))
    return State(
        bank=bank,
        query=query if begun else None,
        second=list(second.unbind(dim=1)) if begun else [],
        read=held["frames_read"][None].to(device),
        similarity=held["similarity"][None].to(device),
        skipped=held["skipped"][None].to(device),
        patches=query.shape[1],
    )
