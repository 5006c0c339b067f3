"""What Spann3R carries from frame to frame, what its decoders give, and how a run records it."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Self

import torch
from torch import Tensor

from mut3r_analysis.backbones import steps
from mut3r_analysis.backbones.spann3r.bank import Bank

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
    focal : Tensor
        ``(batch,)`` focal length (px) that the first frame's points imply; NaN before.
    level_channels : int
        Width of decoder levels.
    patches : int
        Of a frame; 0 before there was one.
    """

    bank: Bank
    query: Tensor | None
    second: list[Tensor]
    read: Tensor
    similarity: Tensor
    skipped: Tensor
    focal: Tensor
    level_channels: int
    patches: int = 0

    @property
    def tokens(self) -> Tensor:
        """``(batch, row, channel)`` keys of the bank."""
        return self.bank.keys

    @property
    def ids(self) -> Tensor:
        """``(row,)`` identity of the bank's rows, by their frame and patch."""
        return (self.bank.frame * max(self.patches, 1) + self.bank.patch)[0]

    def described(self, before: Self, rate: Tensor, *, keep: bool) -> dict[str, Tensor]:
        """Rows of the bank with where they come from and how they were read, and what is next."""
        bank = self.bank
        stays = torch.isin(before.ids, self.ids)
        values = {
            "bank_row_count": torch.tensor([len(bank)]),
            "working_frames": bank.working,
            "frames_read": self.read,
            "similarity": self.similarity,
            "skipped": self.skipped,
            "focal": self.focal,
            "removed": (~stays).sum()[None],
            "norm": bank.keys.float().norm(dim=-1),
            "write_rate": rate,
            "origin_frame": bank.frame,
            "origin_patch": bank.patch,
            "usage": bank.usage,
            "count": bank.count,
        }
        return values | self._kept() if keep else values

    def restored(self, held: Mapping[str, Tensor], *, begun: bool) -> Self:
        """Return the state that recorded values, without a batch, describe; from one that begins.

        `begun` says whether a frame was read since the start or the last reset.
        """
        count, keys = int(held["bank_row_count"]), self.bank.keys
        rows = {name: held[name][None, :count].to(keys.device) for name in _ROW_PARTS}
        bank = Bank(
            keys=rows["tokens"].to(keys.dtype),
            values=rows["values"].to(keys.dtype),
            usage=rows["usage"],
            count=rows["count"],
            frame=rows["origin_frame"],
            patch=rows["origin_patch"],
            working=held["working_frames"][None].to(keys.device),
        )
        query, second = (held[name][None].to(keys) for name in ("query", "second"))
        return replace(
            self,
            bank=bank,
            query=query if begun else None,
            second=list(second.unbind(dim=1)) if begun else [],
            read=held["frames_read"][None].to(keys.device),
            similarity=held["similarity"][None].to(keys.device),
            skipped=held["skipped"][None].to(keys.device),
            focal=held["focal"][None].to(keys.device),
            patches=query.shape[1],
        )

    def _kept(self) -> dict[str, Tensor]:
        """Values from which :meth:`restored` makes the state again."""
        bank, query, second = self.bank, self.query, self.second
        if query is None:
            query = bank.keys.new_full((1, self.patches, bank.keys.shape[-1]), torch.nan)
            second = [query.new_full((1, self.patches, self.level_channels), torch.nan)] * 3
        values = {"tokens": bank.keys, "values": bank.values, "query": query}
        values["second"] = torch.stack(second, dim=1)
        return {name: value.float() for name, value in values.items()}


@dataclass(frozen=True, eq=False)
class Entered(steps.Entered):
    """A frame, the next one and a bank about to meet.

    A read replaces the frame's tokens before the decoder.

    Attributes
    ----------
    features, grid
        As of every model.
    partner : Tensor, optional
        ``(batch, patch, channel)`` encoder tokens of the next frame; None at the end of a sequence.
    state : State
    """

    partner: Tensor | None
    state: State

    @property
    def reads(self) -> bool:
        """Whether the bank is read."""
        return self.state.query is not None and len(self.state.bank) > 0


@dataclass(frozen=True, eq=False)
class Decoded(steps.Decoded):
    """What the decoders make of a frame and the next one.

    Attributes
    ----------
    levels, grid, signals
        As of every model.
    second : list of Tensor
        The last three inputs of the other head, for the next frame; empty at the end of a sequence.
        `levels` are then those of the frame as it was seen beside the one before.
    fused : Tensor
        ``(batch, patch, channel)`` what entered the decoder for the frame.
    usage : Tensor
        ``(batch, row)`` weights by which rows of the bank were read, summed.
    focal : Tensor
        ``(batch,)`` px of the first frame; NaN where this is it.
    """

    second: list[Tensor]
    fused: Tensor
    usage: Tensor
    focal: Tensor
