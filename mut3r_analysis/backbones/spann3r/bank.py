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
    """Tokens of earlier frames, of one sequence, in the order in which official code keeps them.

    That is the order of time until the bank is pruned. From then on the least used tokens come
    last, and stand as working frames until new ones have been appended; this is official as well.

    Attributes
    ----------
    keys, values : Tensor
        ``(batch = 1, row, channel)``, not normalised.
    usage : Tensor
        ``(1, row)`` weights by which a token was read so far, summed.
    count : Tensor
        ``(1, row)`` frames written since the token came in.
    frame, patch : Tensor
        ``(1, row)`` where a token comes from: number of its frame, and of its patch there.
    working : Tensor
        ``(1,)`` working frames.
    """

    keys: Tensor
    values: Tensor
    usage: Tensor
    count: Tensor
    frame: Tensor
    patch: Tensor
    working: Tensor

    @classmethod
    def none(cls, channels: int, device: torch.device, dtype: torch.dtype) -> Self:
        """Return a bank without tokens."""
        tokens = torch.empty(1, 0, channels, device=device, dtype=dtype)
        numbers = torch.empty(1, 0, dtype=torch.long, device=device)
        usage = torch.empty(1, 0, device=device)
        working = torch.zeros(1, dtype=torch.long, device=device)
        return cls(tokens, tokens, usage, numbers, numbers, numbers, working)

    def __len__(self) -> int:
        return self.keys.shape[1]

    def long_tokens(self, patches: int) -> int:
        """How many tokens stand before the working frames of so many patches."""
        return len(self) - int(self.working) * patches

    def read(self, usage: Tensor) -> Self:
        """Return the bank after reads that took ``(1, row)`` of each token."""
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
        """Return what pruning goes by ``(row,)``: mean weight of a read, or that a token is safe.

        Parameters
        ----------
        working : int
            Most working frames.
        """
        safe = self.count[0] < working + YOUNG
        return torch.where(safe, _SAFE, self.usage[0] / self.count[0])

    def offered(
        self, keys: Tensor, values: Tensor, frame: Tensor, working: int, long: int | None
    ) -> Written:
        """Write a frame unless it is too much like a working one, and prune.

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
        similarity, patches = self.similarity(keys), keys.shape[1]
        if similarity > SIMILAR:
            return Written(self, similarity, skipped=True)
        bank = self._appended(keys, values, frame)
        if int(bank.working) > working:
            bank = replace(bank, working=bank.working.clamp(max=working))
            if long is None:
                bank = bank._rows(slice(patches, None))
        if long is not None and bank.long_tokens(patches) > long:
            bank = bank._rows(bank.worth(working).topk(long).indices)
        return Written(bank, similarity, skipped=False)

    def _appended(self, keys: Tensor, values: Tensor, frame: Tensor) -> Self:
        patch = torch.arange(keys.shape[1], device=keys.device)[None]
        return type(self)(
            keys=torch.cat([self.keys, keys], dim=1),
            values=torch.cat([self.values, values], dim=1),
            usage=torch.cat([self.usage, self.usage.new_zeros(patch.shape)], dim=1),
            count=torch.cat([self.count + 1, torch.zeros_like(patch)], dim=1),
            frame=torch.cat([self.frame, frame[:, None].expand(patch.shape)], dim=1),
            patch=torch.cat([self.patch, patch], dim=1),
            working=self.working + 1,
        )

    def _rows(self, index: slice | Tensor) -> Self:
        parts = ("keys", "values", "usage", "count", "frame", "patch")
        return replace(self, **{name: getattr(self, name)[:, index] for name in parts})
