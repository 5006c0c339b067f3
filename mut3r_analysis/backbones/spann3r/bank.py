"""The bank: keys and values of earlier frames, read by one head, written, skipped and pruned."""

from dataclasses import dataclass, replace
from typing import NamedTuple, Self

import torch
from torch import Tensor
from torch.nn import functional as F

from mut3r_analysis.attention.seam import logits

LEAST_WEIGHT = 5e-4
"""Weights below this are no part of a read."""

SIMILAR = 0.95
"""A frame is not written whose keys have a larger mean cosine with those of a working frame."""

YOUNG = 5
"""So many writes beyond the working frames a token is safe from pruning."""

_SAFE = 1e8


def read_weights(q: Tensor, k: Tensor) -> Tensor:
    """Weights with which queries read the bank.

    A softmax of which weights below :data:`LEAST_WEIGHT` are dropped; the others are divided by
    their sum. Where none is left, as among more than 2000 nearly equal keys, the row stays the
    softmax it was; the official code divides zero by zero there.

    Parameters
    ----------
    q, k : Tensor
        ``(batch, head, query | key, channel)``, not yet scaled.

    Returns
    -------
    Tensor
        ``(batch, head, query, key)``.
    """
    weights = logits(q, k).softmax(dim=-1)
    kept = weights.masked_fill(weights < LEAST_WEIGHT, 0)
    total = kept.sum(dim=-1, keepdim=True)
    return torch.where(total > 0, kept / total, weights)


def read_values(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Read values ``(batch, head, key, channel)`` by :func:`read_weights`."""
    return read_weights(q, k).to(v.dtype) @ v


class Written(NamedTuple):
    """A bank after a frame was offered, and what became of the frame.

    Attributes
    ----------
    bank : Bank
    similarity : float
        Largest mean cosine with a working frame; NaN where there is none.
    skipped : bool
        Whether the frame was too much like one of them.
    """

    bank: "Bank"
    similarity: float
    skipped: bool


@dataclass(frozen=True, eq=False)
class Bank:
    """Tokens of earlier frames, in the order in which official code keeps them.

    That is the order of time until the bank is pruned. From then on the least used tokens come
    last, and stand as working frames until new ones have been appended; this is official as well.
    Sequences of a batch have equally many tokens, so that none of them may skip a frame.

    Attributes
    ----------
    keys, values : Tensor
        ``(batch, row, channel)``, not normalised.
    usage : Tensor
        ``(batch, row)`` weights by which a token was read so far, summed.
    count : Tensor
        ``(batch, row)`` frames written since the token came in.
    frame, patch : Tensor
        ``(batch, row)`` where a token comes from: number of its frame, and of its patch there.
    working : Tensor
        ``(batch,)`` working frames.
    """

    keys: Tensor
    values: Tensor
    usage: Tensor
    count: Tensor
    frame: Tensor
    patch: Tensor
    working: Tensor

    @classmethod
    def none(cls, batch: int, channels: int, device: torch.device, dtype: torch.dtype) -> Self:
        """Return a bank without tokens."""
        tokens = torch.empty(batch, 0, channels, device=device, dtype=dtype)
        numbers = torch.empty(batch, 0, dtype=torch.long, device=device)
        usage = torch.empty(batch, 0, device=device)
        working = torch.zeros(batch, dtype=torch.long, device=device)
        return cls(tokens, tokens, usage, numbers, numbers, numbers, working)

    def __len__(self) -> int:
        return self.keys.shape[1]

    def long_tokens(self, patches: int) -> int:
        """How many tokens stand before the working frames of so many patches."""
        return len(self) - int(self.working[0]) * patches

    def read(self, usage: Tensor) -> Self:
        """Return the bank after reads that took ``(batch, row)`` of each token."""
        return replace(self, usage=self.usage + usage)

    def similarity(self, keys: Tensor) -> float:
        """Largest mean cosine of a frame's keys ``(1, patch, channel)`` with a working frame."""
        patches = keys.shape[1]
        if not int(self.working):
            return torch.nan
        latest = self.keys[0, -int(self.working) * patches :].unflatten(0, (-1, patches))
        cosines = F.normalize(latest, dim=-1) * F.normalize(keys, dim=-1)
        return float(cosines.sum(dim=-1).mean(dim=-1).max())

    def worth(self, working: int) -> Tensor:
        """Return what pruning goes by ``(batch, row)``: mean weight of a read, or safe.

        Parameters
        ----------
        working : int
            Most working frames.
        """
        safe = self.count < working + YOUNG
        return torch.where(safe, _SAFE, self.usage / self.count)

    def offered(
        self, keys: Tensor, values: Tensor, frame: Tensor, working: int, long: int | None
    ) -> Written:
        """Write a frame of one sequence unless it is too much like a working one, and prune.

        Parameters
        ----------
        keys, values : Tensor
            ``(1, patch, channel)``.
        frame : Tensor
            ``(1,)`` its number.
        working : int
            Most working frames.
        long : int, optional
            Most tokens before them; None drops the oldest frame once there are too many.
        """
        similarity = self.similarity(keys)
        if similarity > SIMILAR:
            return Written(self, similarity, skipped=True)
        return Written(self.written(keys, values, frame, working, long), similarity, skipped=False)

    def written(
        self, keys: Tensor, values: Tensor, frame: Tensor, working: int, long: int | None
    ) -> Self:
        """Write a frame of every sequence whatever it is like, and prune; as :meth:`offered`."""
        bank, patches = self._appended(keys, values, frame), keys.shape[1]
        if int(bank.working[0]) > working:
            bank = replace(bank, working=bank.working.clamp(max=working))
            if long is None:
                bank = bank._rows(torch.arange(patches, len(bank), device=keys.device)[None])
        if long is not None and bank.long_tokens(patches) > long:
            bank = bank._rows(bank.worth(working).topk(long).indices)
        return bank

    def _appended(self, keys: Tensor, values: Tensor, frame: Tensor) -> Self:
        patch = torch.arange(keys.shape[1], device=keys.device).expand(keys.shape[:2])
        return type(self)(
            keys=torch.cat([self.keys, keys], dim=1),
            values=torch.cat([self.values, values], dim=1),
            usage=torch.cat([self.usage, self.usage.new_zeros(patch.shape)], dim=1),
            count=torch.cat([self.count + 1, torch.zeros_like(patch)], dim=1),
            frame=torch.cat([self.frame, frame[:, None].expand(patch.shape)], dim=1),
            patch=torch.cat([self.patch, patch], dim=1),
            working=self.working + 1,
        )

    def _rows(self, index: Tensor) -> Self:
        """Return the rows of numbers ``(batch or 1, row)``."""
        parts = {name: getattr(self, name) for name in ("usage", "count", "frame", "patch")}
        wide = {name: getattr(self, name) for name in ("keys", "values")}
        taken = {name: part.take_along_dim(index, dim=1) for name, part in parts.items()}
        taken |= {name: part.take_along_dim(index[..., None], dim=1) for name, part in wide.items()}
        return replace(self, **taken)
