"""What a cue remembers of earlier frames."""

from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from typing import Self

import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class CueHistory:
    """What a cue remembers of earlier frames. It is never modified; scoring returns a new one.

    Keeping the old object is therefore all that is needed to try a frame without remembering it:
    probe passes, revisited frames and forks do so.

    Attributes
    ----------
    frames : Tensor
        ``(batch,)`` frames since the start or the last reset.
    mean, squares : Tensor, optional
        ``(batch, layer, patch_row, patch_col)`` moments over frames, for ``instability``.
    location, scale : Tensor, optional
        ``(batch,)`` running normalisation.
    carried : Tensor, optional
        ``(batch, patch_row, patch_col)`` the score that the next frame uses when the cue's source
        is ``previous`` or ``previous_ema``.
    moments : Tensor, optional
        ``(batch, frame, layer, head, 1 + channel, channel)`` mean and covariance of the queries or
        keys of the latest frames, newest last, for readings across frames.
    past : Tensor, optional
        ``(batch, frame, patch_row, patch_col)`` the latest scores, newest last, for ``shift``.
    """

    frames: Tensor
    mean: Tensor | None = None
    squares: Tensor | None = None
    location: Tensor | None = None
    scale: Tensor | None = None
    carried: Tensor | None = None
    past: Tensor | None = None
    moments: Tensor | None = None

    @classmethod
    def start(cls, batch: int = 1, device: torch.device | str | None = None) -> Self:
        """Remember nothing."""
        return cls(torch.zeros(batch, dtype=torch.int64, device=device))

    def reset(self, which: Tensor) -> Self:
        """Forget everything about the samples where `which` ``(batch,)`` is true."""
        return self._where(which, torch.zeros_like)

    def unless(self, which: Tensor, old: Self) -> Self:
        """Return `old` for the samples where `which` ``(batch,)`` is true, this one elsewhere."""
        values = {field.name: getattr(old, field.name) for field in fields(old)}
        merged = {}
        for name, value in values.items():
            new = getattr(self, name)
            if new is not None:
                value = torch.zeros_like(new) if value is None else value
                merged[name] = torch.where(per_sample(which, new), value, new)
        return replace(self, **merged)

    def _where(self, which: Tensor, make: Callable[[Tensor], Tensor]) -> Self:
        changed = {
            field.name: torch.where(per_sample(which, value), make(value), value)
            for field in fields(self)
            if (value := getattr(self, field.name)) is not None
        }
        return replace(self, **changed)


def per_sample(which: Tensor, value: Tensor) -> Tensor:
    """Shape ``(batch,)`` to go with a value that has more dimensions."""
    return which.reshape(-1, *[1] * (value.dim() - 1))
