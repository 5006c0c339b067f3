"""Statistics of attention, without a query x key map that outlives an operation.

Means and variances of logits are closed forms in the mean and covariance of the other side.
Softmax statistics come from tiles of a few query rows against all keys, so their memory is linear
in tokens; on a GPU, where every operation on a tile is a launch, a tile has as many rows as
:data:`DEVICE_TILE_BYTES` hold. Layers that fit into one tile are computed together. Everything
accumulates in float32 (float64 for float64 inputs), whatever the model's dtype. Captures and cues
read the same rows; declaring one must not take the time to import torch.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from mut3r_analysis.foundation.fields import names

if TYPE_CHECKING:
    from torch import Tensor

_TILE_ELEMENTS = 1 << 20
"""Numbers in one tile over all heads: 4 MiB in float32, which stay in cache; a smaller one is soon
less work than the calls that it takes."""

DEVICE_TILE_BYTES = 1 << 29
"""Bytes of one tile on a GPU, in float32; two such arrays live at a time, more under a mask."""

_NO_LAUNCHES = ("cpu", "meta")
"""Devices on which many small operations cost no more than a few large ones."""

_BLOCK = 32
"""Keys of which a CPU finds the largest logit at once; the place among all is then two searches."""


@dataclass
class Tile:
    """A few query rows against all keys.

    The next tile may take the memory of this one: what is read from it must be a copy.

    Attributes
    ----------
    logits : Tensor
        ``(map, row, key)`` scaled; 0 where a key is masked. :attr:`mean_logit` uses them up.
    p : Tensor
        Their softmax over keys.
    peak, place : Tensor
        ``(map, row)`` largest logit, and the key that has it.
    pose_key : int or None
        Index of the pose token among the keys.
    """

    logits: Tensor
    p: Tensor
    peak: Tensor
    place: Tensor
    pose_key: int | None

    @cached_property
    def largest(self) -> Tensor:
        """Largest weight of each row."""
        return self.p.gather(-1, self.place[..., None]).squeeze(-1)

    @cached_property
    def log_total(self) -> Tensor:
        """Logarithm of each row's sum of exponentiated logits."""
        return self.peak - self.largest.log()

    @cached_property
    def mean_logit(self) -> Tensor:
        """Mean of each row's logits under its weights."""
        if self.logits.requires_grad:
            return (self.logits * self.p).sum(dim=-1)
        return self.logits.mul_(self.p).sum(dim=-1)


@dataclass
class Pairing:
    """All queries of a site and all its keys, of which closed forms need no more than means.

    Attributes
    ----------
    q, k : Tensor
        ``(..., query | key, channel)``; queries are scaled.
    diagonal : bool
        Whether a token's entry with itself counts.
    """

    q: Tensor
    k: Tensor
    diagonal: bool

    @cached_property
    def mean_query(self) -> Tensor:
        """``(..., 1, channel)``."""
        return self.q.mean(dim=-2, keepdim=True)

    @cached_property
    def mean_key(self) -> Tensor:
        """``(..., 1, channel)``."""
        return self.k.mean(dim=-2, keepdim=True)

    def mean_logit(self, own: Tensor, mean_other: Tensor) -> Tensor:
        """Mean logit of each token of one side over those of the other."""
        mean = (own @ mean_other.mT).squeeze(-1)
        if self.diagonal:
            return mean
        import torch

        count = self.k.shape[-2]
        return (count * mean - torch.linalg.vecdot(self.q, self.k)) / (count - 1)


@dataclass(frozen=True)
class Statistic:
    """One statistic: what it is and what computes it.

    Attributes
    ----------
    name : str
    side : {"query", "key"}
        Which token dimension it keeps; the other is reduced.
    long_name : str
    units : str
        "nat" for logarithms, "1" for probabilities and pure numbers.
    of_tokens : callable, optional
        Closed form: from a `Pairing` to ``(..., query | key)``.
    of_tile : callable, optional
        From a `Tile` to ``(map, row)``, or for the key side to ``(map, key)``, which is averaged
        over all queries.
    needs_pose : bool
        Whether the keys must hold a pose token.
    is_index : bool
        Whether it numbers tokens: its size says nothing, so that it scores no patch.
    """

    name: str
    side: str
    long_name: str
    units: str
    of_tokens: Callable[[Pairing], Tensor] | None = None
    of_tile: Callable[[Tile], Tensor] | None = None
    needs_pose: bool = False
    is_index: bool = False

    @property
    def closed_form(self) -> bool:
        """Whether it follows from means and covariances alone."""
        return self.of_tokens is not None


def logit_variance(of: Pairing) -> Tensor:
    """Variance of each query's logits over keys."""
    import torch

    count = of.k.shape[-2]
    # Centring first: E[z^2] - E[z]^2 would lose three digits to the keys' common offset.
    centred = of.k - of.mean_key
    variance = torch.linalg.vecdot(of.q @ (centred.mT @ centred / count), of.q)
    if not of.diagonal:
        # Leaving one entry out of a mean and variance that are known.
        own = torch.linalg.vecdot(of.q, centred)
        variance = (count * variance - own.square()) / (count - 1) - (own / (count - 1)).square()
    return variance.clamp_min(0)


STATISTICS = {
    item.name: item
    for item in (
        Statistic(
            "logit_mean", "query", "mean logit over keys", "nat",
            lambda of: of.mean_logit(of.q, of.mean_key),
        ),
        Statistic(
            "logit_variance", "query", "variance of the logits over keys", "nat2", logit_variance
        ),
        Statistic(
            "logsumexp", "query", "log of the sum of exponentiated logits", "nat",
            of_tile=lambda tile: tile.log_total,
        ),
        Statistic(
            "entropy", "query", "entropy of the attention weights", "nat",
            of_tile=lambda tile: (tile.log_total - tile.mean_logit).clamp_min(0),
        ),
        Statistic(
            "max_weight", "query", "largest attention weight", "1",
            of_tile=lambda tile: tile.largest,
        ),
        Statistic(
            "argmax_key", "query", "index of the key with the largest weight, from 0", "1",
            of_tile=lambda tile: tile.place.to(tile.p.dtype), is_index=True,
        ),
        Statistic(
            "pose_weight", "query", "attention weight on the pose token", "1", needs_pose=True,
            of_tile=lambda tile: tile.p[..., tile.pose_key].clone(),
        ),
        Statistic(
            "received", "key", "mean attention weight received over queries", "1",
            of_tile=lambda tile: tile.p.sum(dim=-2),
        ),
        Statistic(
            "received_logit", "key", "mean logit over queries", "nat",
            lambda of: of.mean_logit(of.k, of.mean_query),
        ),
    )
}  # fmt: skip
"""What a capture may name."""


def check_statistics(given: Iterable[str] | None) -> tuple[str, ...]:
    """Return known statistic names in canonical order; one may be given alone, ``"all"`` is all.

    Raises
    ------
    InvalidArgument
        For an unknown name; the message lists the known ones.
    """
    return names("statistics", given, tuple(STATISTICS))


def site_statistics(
    names: Collection[str], q: Tensor, k: Tensor, *, pose_key: int | None = None
) -> dict[str, Tensor]:
    """Compute statistics of one attention site.

    Parameters
    ----------
    names : collection of str
        Keys of :data:`STATISTICS`.
    q, k : Tensor
        ``(..., head, query | key, channel)``, after rotary embedding and before scaling: logits
        are ``q k^T / sqrt(channel)``.
    pose_key : int, optional
        Index of the pose token among the keys; without one, ``pose_weight`` is left out.

    Returns
    -------
    dict of str to Tensor
        ``(..., head, query)`` or ``(..., head, key)`` each, float32 (float64 for float64 inputs).

    Examples
    --------
    >>> import torch
    >>> q, k = torch.randn(2, 5, 4), torch.randn(2, 7, 4)
    >>> found = site_statistics(["entropy", "received"], q, k)
    >>> found["entropy"].shape, found["received"].shape
    (torch.Size([2, 5]), torch.Size([2, 7]))
    """
    rows = [STATISTICS[name] for name in check_statistics(names)]
    return compute(rows, q, k, pose_key=pose_key)


def compute(
    rows: Sequence[Statistic],
    q: Tensor,
    k: Tensor,
    *,
    pose_key: int | None = None,
    diagonal: bool = True,
    bias: Callable[[slice], Tensor] | None = None,
) -> dict[str, Tensor]:
    """Compute rows of statistics as :func:`site_statistics` does.

    Parameters
    ----------
    rows : sequence of Statistic
    q, k, pose_key
        As for :func:`site_statistics`.
    diagonal : bool
        Whether a token's entry with itself counts; False needs a self-attention site.
    bias : callable, optional
        From a range of queries to what a mask adds to their logits ``(..., row, key)``. Closed
        forms know no mask and are left out then.
    """
    import torch

    precise = torch.promote_types(q.dtype, torch.float32)
    q = q.to(precise) * q.shape[-1] ** -0.5
    k = k.to(precise)
    if pose_key is None:
        rows = [row for row in rows if not row.needs_pose]
    if bias is not None:
        rows = [row for row in rows if not row.closed_form]
    tiled = [(row.name, row.side, row.of_tile) for row in rows if row.of_tile is not None]
    parts: dict[str, list[Tensor]] = {name: [] for name, side, _ in tiled if side == "query"}
    sums = {name: q.new_zeros(()) for name, side, _ in tiled if side == "key"}
    for tile in tiles(q, k, pose_key, diagonal, bias) if tiled else ():
        for name, side, of_tile in tiled:
            if side == "query":
                parts[name].append(of_tile(tile))
            else:
                sums[name] = sums[name] + of_tile(tile)
    found = {name: torch.cat(values, dim=-1) for name, values in parts.items()}
    found |= {name: values / q.shape[-2] for name, values in sums.items()}
    found = {name: values.unflatten(0, q.shape[:-2]) for name, values in found.items()}
    of = Pairing(q, k, diagonal)
    found |= {row.name: row.of_tokens(of) for row in rows if row.of_tokens is not None}
    return {row.name: found[row.name] for row in rows}


def tile_rows(heads: int, queries: int, keys: int, device: str = "cpu") -> int:
    """Query rows of one tile: bounded in numbers, and on a CPU less than the whole map."""
    if device not in _NO_LAUNCHES:
        return max(1, min(DEVICE_TILE_BYTES // (4 * heads * keys), queries))
    return max(1, min(_TILE_ELEMENTS // (heads * keys), (queries + 1) // 2))


def layers_at_once(q: Tensor, k: Tensor) -> int:
    """Return how many layers of one kind of site are computed together: as many as a tile holds.

    Parameters
    ----------
    q, k : Tensor
        ``(batch, head, query | key, channel)`` of one layer.
    """
    held = _TILE_ELEMENTS if q.device.type in _NO_LAUNCHES else DEVICE_TILE_BYTES // 4
    return max(1, held // (math.prod(q.shape[:-1]) * k.shape[-2]))


def stacked(layers: Sequence[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
    """Return queries and keys of layers in a leading dimension; a single layer is not copied."""
    import torch

    if len(layers) == 1:
        q, k = layers[0]
        return q[None], k[None]
    queries, keys = zip(*layers, strict=True)
    return torch.stack(queries), torch.stack(keys)


def tiles(
    q: Tensor,
    k: Tensor,
    pose_key: int | None,
    diagonal: bool,
    bias: Callable[[slice], Tensor] | None = None,
) -> Iterator[Tile]:
    """Go through a site one tile of query rows at a time; ``q`` is scaled already.

    Tiles are ``(map, row, key)``: all dimensions before the rows are one.
    """
    import torch

    *outer, queries, _ = q.shape
    keys, maps = k.shape[-2], math.prod(outer)
    rows = tile_rows(maps, queries, keys, q.device.type)
    # On a CPU, memory that is new to each tile costs as much in page faults as the arithmetic.
    learned = q.requires_grad or k.requires_grad
    room = () if learned else tuple(q.new_empty(maps * rows * keys) for _ in range(2))
    own, other = q.flatten(0, -3), k.flatten(0, -3).mT
    for first in range(0, queries, rows):
        these = slice(first, min(first + rows, queries))
        shape = (maps, these.stop - first, keys)
        z, p = (part[: math.prod(shape)].view(shape) for part in room) if room else (None, None)
        z = torch.bmm(own[:, these], other, out=z)
        if bias is not None:
            z = (z.unflatten(0, outer) + bias(these)).flatten(0, -3)
        if not diagonal:
            z.diagonal(first, dim1=-2, dim2=-1).fill_(-math.inf)
        p = torch.softmax(z, dim=-1, out=p)
        peak, place = largest(z)
        if not diagonal or bias is not None:
            # What has no weight has no part in a mean either: 0 times minus infinity is NaN.
            z = z.masked_fill(z == -math.inf, 0)
        yield Tile(z, p, peak, place, pose_key)


def largest(z: Tensor) -> tuple[Tensor, Tensor]:
    """Return the largest number of each row of keys, and its place.

    A search for a place takes a CPU ten times as long as one for a value, so it searches for values
    in blocks of keys, for the place of the largest block, and for the place in that.
    """
    import torch

    keys = z.shape[-1]
    if z.device.type not in _NO_LAUNCHES or keys < 2 * _BLOCK:
        peak, place = z.max(dim=-1)
        return peak, place
    rows = z.reshape(-1, keys)
    blocks = rows.unfold(1, _BLOCK, _BLOCK).amax(dim=-1)
    if keys % _BLOCK:
        tail = rows[:, -_BLOCK:].amax(dim=-1, keepdim=True)  # overlaps the block before
        blocks = torch.cat([blocks, tail], dim=-1)
    block = blocks.max(dim=-1).indices
    first = (block * _BLOCK).clamp_max(keys - _BLOCK)
    peak, place = rows.unfold(1, _BLOCK, 1)[torch.arange(len(rows), device=z.device), first].max(
        dim=-1
    )
    return peak.view(z.shape[:-1]), (first + place).view(z.shape[:-1])
