"""What VGGT carries from frame to frame, what its aggregator gives, and how a run records it."""

from dataclasses import dataclass, field, replace
from typing import Self

import torch
from torch import Tensor

from mut3r_analysis.backbones import steps

Cached = tuple[Tensor, ...]
"""A tensor per frame, ``(batch, head, token, channel)``."""


@dataclass(frozen=True, eq=False)
class State:
    """Caches: keys and values of all frames that were written.

    Attributes
    ----------
    keys, values : tuple of tuple of Tensor
        Per layer and frame ``(batch, head, token, channel)``; keys are normalised and rotated.
    camera_keys, camera_values : tuple of tuple of Tensor
        Per block of the camera's trunk and frame ``(batch, head, iteration, channel)``.
    frames : Tensor
        ``(batch, cached_frame)`` number of each frame.
    norms : Tensor
        ``(batch, cached_frame)`` root mean square of the norms of its keys.
    read : Tensor
        ``(batch,)`` frames read so far, also before a reset.
    begun : Tensor
        ``(batch,)`` bool: whether one was read since the start or the last reset.
    patches : int
        Of a frame; 0 before one was written.
    """

    keys: tuple[Cached, ...]
    values: tuple[Cached, ...]
    camera_keys: tuple[Cached, ...]
    camera_values: tuple[Cached, ...]
    frames: Tensor
    norms: Tensor
    read: Tensor
    begun: Tensor
    patches: int = 0

    @classmethod
    def empty(cls, layers: int, camera_layers: int, device: torch.device) -> Self:
        """Return the state of one sequence before its first frame."""
        none: tuple[Cached, ...] = ((),) * layers
        no_camera: tuple[Cached, ...] = ((),) * camera_layers
        frames = torch.empty(1, 0, dtype=torch.long, device=device)
        zero = torch.zeros(1, dtype=torch.long, device=device)
        norms = torch.empty(1, 0, device=device)
        return cls(none, none, no_camera, no_camera, frames, norms, zero, zero.bool())

    @property
    def tokens(self) -> Tensor:
        """``(batch, cached_frame, channel)``: mean keys of the last layer, all heads in a row."""
        means = [key.mean(dim=2).flatten(1) for key in self.keys[-1]]
        return torch.stack(means, dim=1) if means else self.norms[..., None][..., :0]

    def described(self, before: Self, rate: Tensor, *, keep: bool) -> dict[str, Tensor]:
        """Which frames are cached."""
        return {
            "cached_frame_count": torch.full_like(self.read, self.frames.shape[1]),
            "frames_read": self.read,
            "origin_frame": self.frames,
            "norm": self.norms,
            "write_rate": rate,
        }

    def written(self, decoded: "Decoded") -> Self:
        """Return the state with a frame's keys and values behind the others."""
        norm = torch.stack([key.float().square().sum(-1).mean((1, 2)) for key in decoded.keys])
        return replace(
            self,
            keys=_appended(self.keys, decoded.keys),
            values=_appended(self.values, decoded.values),
            camera_keys=_appended(self.camera_keys, decoded.camera_keys),
            camera_values=_appended(self.camera_values, decoded.camera_values),
            frames=torch.cat([self.frames, self.read[:, None]], dim=1),
            norms=torch.cat([self.norms, norm.mean(dim=0).sqrt()[:, None]], dim=1),
            patches=decoded.grid[0] * decoded.grid[1],
        )


def _appended(cached: tuple[Cached, ...], new: list[Tensor]) -> tuple[Cached, ...]:
    return tuple((*frames, own) for frames, own in zip(cached, new, strict=True))


@dataclass(frozen=True, eq=False)
class Entered(steps.Entered):
    """A frame and the caches about to meet.

    Attributes
    ----------
    features, grid
        As of every model.
    state : State
    """

    state: State


@dataclass(frozen=True, eq=False)
class Decoded(steps.Decoded):
    """What the aggregator and the camera head make of frames.

    Attributes
    ----------
    levels : list of Tensor
        The four inputs of the dense heads ``(batch, patch, 2 channel)``.
    grid, signals
        As of every model.
    encodings : Tensor
        ``(batch, iteration, 9)`` pose encodings.
    keys, values, camera_keys, camera_values : list of Tensor
        Of the frame, by layer, as :class:`State` keeps them; empty for frames read together.
    """

    encodings: Tensor
    keys: list[Tensor] = field(default_factory=list)
    values: list[Tensor] = field(default_factory=list)
    camera_keys: list[Tensor] = field(default_factory=list)
    camera_values: list[Tensor] = field(default_factory=list)
