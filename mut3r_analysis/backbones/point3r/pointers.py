"""The pointers: features at places in the world, overwritten or appended, never removed.

Within a sequence the index of a pointer is its identity.
"""

from dataclasses import dataclass
from typing import NamedTuple, Self

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

CELLS = 20
"""The bounding box of all pointers has this many merging distances along its diagonal."""


class Candidates(NamedTuple):
    """What a frame offers, one per patch.

    Attributes
    ----------
    features : Tensor
        ``(batch, patch, channel)``.
    positions : Tensor
        ``(batch, patch, xyz)`` mean world point of the patch.
    """

    features: Tensor
    positions: Tensor


class Decisions(NamedTuple):
    """What becomes of each candidate; a sample without pointers has none to decide.

    Attributes
    ----------
    threshold : Tensor
        ``(batch,)`` distance from which a candidate is appended; NaN without pointers.
    distance : Tensor
        ``(batch, patch)`` to the nearest pointer; NaN without pointers.
    nearest : Tensor
        ``(batch, patch)`` index of that pointer; -1 without pointers.
    append : Tensor
        ``(batch, patch)`` bool: appended rather than merged into the nearest.
    """

    threshold: Tensor
    distance: Tensor
    nearest: Tensor
    append: Tensor


@dataclass(frozen=True, eq=False)
class Pointers:
    """Pointers of a batch of sequences; rows beyond a sample's count are padding.

    Attributes
    ----------
    features : Tensor
        ``(batch, pointer, channel)``.
    positions : Tensor
        ``(batch, pointer, xyz)`` in the world.
    birth, updated : Tensor
        ``(batch, pointer)`` frame in which a pointer was appended, and was last written; -1 is
        padding.
    count : Tensor
        ``(batch,)``.
    """

    features: Tensor
    positions: Tensor
    birth: Tensor
    updated: Tensor
    count: Tensor

    @classmethod
    def none(cls, batch: int, channels: int, device: torch.device, dtype: torch.dtype) -> Self:
        """Return a batch of sequences without pointers."""
        frames = torch.empty(batch, 0, dtype=torch.long, device=device)
        return cls(
            features=torch.empty(batch, 0, channels, device=device, dtype=dtype),
            positions=torch.empty(batch, 0, 3, device=device),
            birth=frames,
            updated=frames,
            count=torch.zeros(batch, dtype=torch.long, device=device),
        )

    @classmethod
    def without_places(cls, features: Tensor) -> Self:
        """Return pointers of features ``(batch, pointer, channel)`` that are nowhere yet."""
        batch, tokens = features.shape[:2]
        frames = torch.zeros(batch, tokens, dtype=torch.long, device=features.device)
        return cls(
            features=features,
            positions=torch.zeros(batch, tokens, 3, device=features.device),
            birth=frames,
            updated=frames,
            count=torch.full((batch,), tokens, device=features.device),
        )

    @property
    def exists(self) -> Tensor | None:
        """``(batch, pointer)`` bool: false is padding; None where no sample is padded."""
        slots = self.features.shape[1]
        if len(self.count) == 1 or bool((self.count == slots).all()):
            return None
        return torch.arange(slots, device=self.count.device) < self.count[:, None]

    def decide(self, positions: Tensor) -> Decisions:
        """Decide for candidates at ``(batch, patch, xyz)``, by the pointers before this frame."""
        samples = [
            _decide(self._sample(i)[1], offered) for i, offered in enumerate(positions.unbind())
        ]
        return Decisions(*(torch.stack(parts) for parts in zip(*samples, strict=True)))

    def written(self, candidates: Candidates, decisions: Decisions, frame: Tensor) -> Self:
        """Return the pointers after a frame.

        Candidates that share a nearest pointer are averaged among themselves and replace it; what
        it was before does not enter the mean. The others are appended in the order of patches.

        Parameters
        ----------
        candidates : Candidates
        decisions : Decisions
            Of :meth:`decide`.
        frame : Tensor
            ``(batch,)`` number of this frame.
        """
        samples = []
        for i, (features, positions) in enumerate(zip(*candidates, strict=True)):
            now = frame[i].expand(len(features))
            offered = (features, positions, now, now)
            own = self._sample(i)
            decided = decisions.append[i], decisions.nearest[i]
            samples.append(_write(own, offered, *decided) if len(own[0]) else offered)
        return self._padded(samples)

    def replaced(self, where: Tensor, other: Self) -> Self:
        """Return the pointers of another value in the samples of ``where`` ``(batch,)`` bool."""
        chosen = [other if use else self for use in where.tolist()]
        return self._padded([value._sample(i) for i, value in enumerate(chosen)])

    def _sample(self, i: int) -> tuple[Tensor, ...]:
        """Features, positions, birth and last update of one sequence, without padding."""
        count = int(self.count[i])
        parts = (self.features, self.positions, self.birth, self.updated)
        return tuple(part[i, :count] for part in parts)

    @classmethod
    def _padded(cls, samples: list[tuple[Tensor, ...]]) -> Self:
        features, positions, birth, updated = map(list, zip(*samples, strict=True))
        return cls(
            features=pad_sequence(features, batch_first=True),
            positions=pad_sequence(positions, batch_first=True),
            birth=pad_sequence(birth, batch_first=True, padding_value=-1),
            updated=pad_sequence(updated, batch_first=True, padding_value=-1),
            count=torch.tensor([len(part) for part in features], device=features[0].device),
        )


def _decide(known: Tensor, offered: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Threshold, distance, nearest and append of one sample."""
    patches = len(offered)
    if not len(known):
        nan = offered.new_tensor(torch.nan)
        nearest = torch.full((patches,), -1, device=offered.device)
        return nan, nan.expand(patches), nearest, nearest >= 0
    everything = torch.cat([known, offered])
    threshold = ((everything.amax(dim=0) - everything.amin(dim=0)) / CELLS).norm()
    # In its default mode this is a matrix product when either side has more than 25 points, as in
    # the official code; the distances are then good to about 3e-4 of the distance to the origin.
    distance, nearest = torch.cdist(offered, known).min(dim=-1)
    return threshold, distance, nearest, distance >= threshold


def _write(
    own: tuple[Tensor, ...], offered: tuple[Tensor, ...], append: Tensor, nearest: Tensor
) -> tuple[Tensor, ...]:
    """Features, positions, birth and last update of one sample's pointers after a frame."""
    features, positions, birth, updated = own
    new_features, new_positions, now, _ = offered
    merged = nearest[~append]
    if len(merged):
        target, sizes = merged.unique(return_counts=True)
        # Sorted first, so that sums are the same from run to run on every device.
        order = merged.argsort(stable=True)
        mean_features, mean_positions = (
            torch.segment_reduce(part[~append][order].float(), "mean", lengths=sizes)
            for part in (new_features, new_positions)
        )
        features = features.index_copy(0, target, mean_features.to(features.dtype))
        positions = positions.index_copy(0, target, mean_positions)
        updated = updated.index_copy(0, target, now[: len(target)])
    return (
        torch.cat([features, new_features[append]]),
        torch.cat([positions, new_positions[append]]),
        torch.cat([birth, now[append]]),
        torch.cat([updated, now[append]]),
    )
