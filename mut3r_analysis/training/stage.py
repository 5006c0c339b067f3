"""A part of a recipe's curriculum: what is shown for how long, and what learns from it."""

import math
from dataclasses import dataclass, field
from typing import Any

from mut3r_analysis.errors import InvalidArgument
from mut3r_analysis.foundation.fields import number, whole
from mut3r_analysis.scenes.distribution import SceneDistribution


@dataclass(frozen=True, kw_only=True)
class Stage:
    """A part of the curriculum.

    Parameters
    ----------
    name : str
    steps : int
        How many optimiser steps it lasts.
    clips, frames : int or tuple of int
        Clips per batch and frames per clip. Where several are given, as many of both, consecutive
        steps take turns: short clips show many first pairs of frames, long ones a filled state.
    scenes : tuple of SceneDistribution
        What the clips show; consecutive steps take turns.
    size : (int, int), optional
        Width and height of the frames, px, where not the recipe's.
    lattice : int, optional
        Use only this many rows and columns of the state, where not all: a coarse beginning, in
        which the state lattice fits the smaller patch grid.
    rate : float or (float, float)
        Factor on the learning rates during this stage; of two, the first falls linearly to the
        second.
    cooldown : int
        Last steps of this stage, over which the rate falls linearly toward zero. Until then it
        does not depend on how long the training will be, and a stage added behind goes on at its
        own rate: so a training may be prolonged.
    average : float, optional
        Decay of the running average during this stage, where not the recipe's.
    objective : dict of str to float or tuple of float
        Weights of the loss that differ from the recipe's during this stage.
    train : {"all", "helpers"}
        What learns: everything, or the heads of the auxiliary tasks alone while the model stays as
        it is. Weights that come without these heads start so.
    """

    name: str
    steps: int
    clips: int | tuple[int, ...]
    frames: int | tuple[int, ...]
    scenes: tuple[SceneDistribution, ...] = (SceneDistribution(),)
    size: tuple[int, int] | None = None
    lattice: int | None = None
    rate: float | tuple[float, float] = 1.0
    cooldown: int = 0
    average: float | None = None
    objective: dict[str, float | tuple[float, ...]] = field(default_factory=dict)
    train: str = "all"

    def __post_init__(self) -> None:
        stage = f"stage {self.name!r}"
        if self.train not in ("all", "helpers"):
            raise InvalidArgument(f"{stage}: train = {self.train!r}; choose 'all' or 'helpers'")
        scenes = self.scenes if isinstance(self.scenes, list | tuple) else (self.scenes,)
        scenes = tuple(
            SceneDistribution.from_dict(each) if isinstance(each, dict) else each for each in scenes
        )
        if not scenes or not all(isinstance(each, SceneDistribution) for each in scenes):
            raise InvalidArgument(
                f"{stage}: scenes must be one or more scene distributions, got {self.scenes!r}"
            )
        object.__setattr__(self, "scenes", scenes)
        for name in ("steps", "clips", "frames", "lattice", "rate", "size"):
            if isinstance(getattr(self, name), list):
                object.__setattr__(self, name, tuple(getattr(self, name)))
        for name, least in (("steps", 1), ("clips", 1), ("frames", 2), ("lattice", 2)):
            for each in _several(getattr(self, name)):
                if each is not None:
                    whole(f"{stage}: {name}", each, least)
        if len(_several(self.clips)) != len(_several(self.frames)) or not self.batches:
            raise InvalidArgument(
                f"{stage}: give as many clips as frames, or one of each; "
                f"got {self.clips!r} and {self.frames!r}"
            )
        for each in self.rates:
            number(f"{stage}: rate", each, 0, open_high=True)
        whole(f"{stage}: cooldown", self.cooldown, 0)
        if self.average is not None:
            number(f"{stage}: average", self.average, 0, 1, open_high=True)

    @property
    def turns(self) -> int:
        """Steps after which batches and scenes begin again."""
        return math.lcm(len(self.batches), len(self.scenes))

    @property
    def rates(self) -> tuple[float, float]:
        """Factors on the learning rates at the stage's begin and end."""
        if not isinstance(self.rate, tuple):
            return self.rate, self.rate
        if len(self.rate) != 2:
            raise InvalidArgument(
                f"stage {self.name!r}: rate must be one number or two, got {self.rate!r}"
            )
        return self.rate

    @property
    def batches(self) -> tuple[tuple[int, int], ...]:
        """Clips and frames per clip of the batches that take turns."""
        return tuple(zip(_several(self.clips), _several(self.frames), strict=True))

    def batch_at(self, step: int) -> tuple[int, int]:
        """Return clips and frames per clip of the training's 0-based `step`."""
        return self.batches[step % len(self.batches)]


def _several(value: Any) -> tuple[Any, ...]:
    return value if isinstance(value, tuple) else (value,)
