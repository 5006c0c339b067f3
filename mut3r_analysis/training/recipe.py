"""The recipe of a training: everything that decides the numbers, in one file a person can read."""

import hashlib
import json
import math
import re
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Self

from mut3r_analysis.backbones.configuration import ModelConfig
from mut3r_analysis.backbones.families import find_family
from mut3r_analysis.backbones.rotation import state_lattice_width
from mut3r_analysis.errors import InvalidArgument, MissingFile
from mut3r_analysis.foundation.fields import made_of, number, one_of, whole
from mut3r_analysis.foundation.paths import user_path
from mut3r_analysis.foundation.text_files import read_yaml
from mut3r_analysis.training.stage import Stage

_FAMILY = "cut3r"
"""Of recipes that do not say it."""


@dataclass(frozen=True, kw_only=True)
class Start:
    """Weights that a training starts from, in the place of an :class:`Initialisation`.

    Parameters
    ----------
    checkpoint : str
        A bundled name or a file.
    sha256 : str
        Of the file's content, hexadecimal; other weights are refused.
    renamed : dict of str to str
        Beginnings of the model's own names and what these are called there, for a model of another
        kind: it takes the weights that fit in name and shape.
    new : tuple of str
        Patterns (``*`` is anything) of names whose weights are not taken though they fit.
    """

    checkpoint: str
    sha256: str
    renamed: dict[str, str] = field(default_factory=dict)
    new: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for name, pattern in (("checkpoint", ".+"), ("sha256", "[0-9a-f]{64}")):
            value = getattr(self, name)
            if not isinstance(value, str) or not re.fullmatch(pattern, value):
                wanted = "a bundled name or a file" if name == "checkpoint" else "64 hex digits"
                raise InvalidArgument(f"start.{name} must be {wanted}, got {value!r}")
        object.__setattr__(self, "new", tuple(self.new))


@dataclass(frozen=True, kw_only=True)
class Initialisation:
    """How the weights start. Nothing here is architecture.

    Parameters
    ----------
    positional_bias : tuple of float
        In half of the heads of every attention with rotary embedding, equal constant biases on the
        query and key channels of the highest row and column frequencies, one value per frequency
        from the highest down: the logits then peak where query and key are at the same place.
    registers : float
        Amplitude of the sines and cosines of their grid position that the registers start as.
    attention_gain : float
        Queries start equal to keys (both orthogonal). Output projections start as this multiple of
        the transposed value projections in self attention, of an orthogonal matrix in cross
        attention.
    self_similarity : float
        Size of the content's share in the first logits of self attention, relative to that of
        cross attention; small values let a token read all others alike.
    mlp_gain : float
        Standard deviation of the last layers of MLPs, in units of 1 / sqrt(inputs).
    memory : float
        Standard deviation of the pose memory's slots and of the learned tokens.
    depth : float
        Distance (m) at which all predicted points start.
    """

    positional_bias: tuple[float, ...] = (4.0,)
    registers: float = 0.5
    attention_gain: float = 0.5
    self_similarity: float = 0.25
    mlp_gain: float = 0.5
    memory: float = 0.5
    depth: float = 3.0

    def __post_init__(self) -> None:
        object.__setattr__(self, "positional_bias", tuple(map(float, self.positional_bias)))
        for each in fields(self):
            if each.name != "positional_bias":
                number(f"initialisation.{each.name}", getattr(self, each.name), 0, open_high=True)


@dataclass(frozen=True, kw_only=True)
class Objective:
    """Weights and scales of the terms of the loss.

    Parameters
    ----------
    points_self, points_world : float
        Confidence-weighted distances of the points in the frame's camera and in the world, both
        divided by the clip's mean distance.
    confidence : float
        Reward for the logarithm of the confidence.
    depth : float
        Distance of the logarithms of predicted and true depth in the frame's camera, once their
        median difference is taken off: the relative error that depth is scored by.
    pose, relative_pose : float
        Smooth L1 of the pose in the world and relative to the previous frame, per axis.
    aligned_pose : float
        The relative term for the pose that carries true points in the frame's camera onto the
        predicted points in the world: it teaches the points of a model that has no pose but where
        they are seen from.
    color : float
        Squared error of the predicted colour.
    flow : float
        Smooth L1 of the flow to the previous frame in patches, two by two places per patch, where
        visible. Read by a small head that is thrown away.
    middle_flow : float
        The same from the tokens after half of the layers.
    matching : float
        Cross-entropy of matching each patch to the state tokens it came from; its projections are
        thrown away as well.
    pooled_pose : float
        Smooth L1 of the pose relative to the previous frame, read by a small head from the mean
        over patches, half way through the decoder and at the end; thrown away. It teaches patches
        to carry their share of the camera's motion, which the pose token then gathers.
    rotation_scale, translation_scale : tuple of float
        Typical relative motion about and along x, y, z (radians of the half-angle vector, m): the
        units in which pose errors count.
    flow_scale : (float, float)
        Typical horizontal and vertical flow, patches: the units in which flow errors count. Without
        them the smaller vertical flow is learned several times later.
    flow_turn, pose_turn : float
        Error, in those units, at which smooth L1 turns from quadratic to linear.
    pixel_stride : int
        Every how many pixels per axis the dense terms are evaluated (with a changing offset).
    """

    points_self: float = 1.0
    points_world: float = 0.5
    confidence: float = 0.2
    depth: float = 0.0
    pose: float = 2.0
    relative_pose: float = 1.0
    aligned_pose: float = 0.0
    color: float = 0.1
    flow: float = 2.0
    middle_flow: float = 0.0
    matching: float = 0.3
    pooled_pose: float = 0.0
    rotation_scale: tuple[float, float, float] = (0.026, 0.052, 0.017)
    translation_scale: tuple[float, float, float] = (0.22, 0.12, 0.16)
    flow_scale: tuple[float, float] = (0.5, 0.25)
    flow_turn: float = 0.5
    pose_turn: float = 1.0
    pixel_stride: int = 2

    @property
    def outputs(self) -> set[str]:
        """What a model is asked to predict, if it can, for the terms that count."""
        read_by = {
            "points_self": ("points_self", "depth"),
            "points_world": ("points_world", "aligned_pose"),
            "pose": ("pose", "relative_pose"),
            "color": ("color",),
        }
        return {name for name, terms in read_by.items() if any(getattr(self, t) for t in terms)}

    def __post_init__(self) -> None:
        for name, count in (("rotation_scale", 3), ("translation_scale", 3), ("flow_scale", 2)):
            values = tuple(map(float, getattr(self, name)))
            if len(values) != count or min(values) <= 0:
                raise InvalidArgument(f"objective.{name} = {values}; give {count} positive numbers")
            object.__setattr__(self, name, values)
        for each in fields(self):
            value = getattr(self, each.name)
            if each.name == "pixel_stride":
                whole("objective.pixel_stride", value, 1)
            elif not isinstance(value, tuple):
                number(f"objective.{each.name}", value, 0, open_high=True)


@dataclass(frozen=True, kw_only=True)
class Optimiser:
    """AdamW for vectors and embeddings; for the matrices of blocks AdamW too, or Muon.

    Parameters
    ----------
    matrices : {"adamw", "muon"}
        Rule for the two-dimensional weights of attention and MLPs.
    rate, matrix_rate : float
        Learning rates of the two groups.
    betas : (float, float)
        AdamW.
    momentum : float
        Muon.
    weight_decay : float
        On matrices only.
    clip : float
        Largest norm of the gradient.
    warmup : int
        Steps of linear growth.
    average : float
        Decay of the exponential moving average of the weights, which is what ships.
    """

    matrices: str = "adamw"
    rate: float = 4e-3
    matrix_rate: float = 4e-3
    betas: tuple[float, float] = (0.9, 0.98)
    momentum: float = 0.95
    weight_decay: float = 0.02
    clip: float = 1.0
    warmup: int = 100
    average: float = 0.999

    def __post_init__(self) -> None:
        one_of("optimiser.matrices", self.matrices, ("adamw", "muon"))
        object.__setattr__(self, "betas", tuple(map(float, self.betas)))
        whole("optimiser.warmup", self.warmup, 0)
        for name in ("rate", "matrix_rate", "weight_decay", "clip"):
            number(f"optimiser.{name}", getattr(self, name), 0, open_high=True)
        for name in ("momentum", "average"):
            number(f"optimiser.{name}", getattr(self, name), 0, 1, open_high=True)


@dataclass(frozen=True, kw_only=True)
class Reports:
    """How often a training reports and saves, in steps; the numbers do not depend on it.

    Parameters
    ----------
    log, validate, save : int
        Mean terms of the loss to the log, scores on held-out clips to the curve, state to resume.
    clips : int
        Held-out clips per validation.
    frames : tuple of int
        Lengths of the held-out clips; each is scored by itself.
    """

    log: int = 50
    validate: int = 500
    save: int = 250
    clips: int = 192
    frames: tuple[int, ...] = (2, 8)

    def __post_init__(self) -> None:
        object.__setattr__(self, "frames", tuple(self.frames))
        for name in ("log", "validate", "save", "clips"):
            whole(f"reports.{name}", getattr(self, name), 1)
        for length in self.frames:
            whole("reports.frames", length, 2)


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """A training, complete: equal recipes on equal machines give equal weights.

    Parameters
    ----------
    name : str
    seed : int
        Of initialisation and data.
    model : ModelConfig
        Under the official field names; ``family`` says of which kind of model, CUT3R unless given.
    size : (int, int)
        Width and height of the frames, px.
    stages : tuple of Stage
    start : Start, optional
        Trained weights to start from. `initialisation` then only says what an untrained model of
        this kind is, for comparison.
    initialisation, objective, optimiser, reports
        See `Initialisation`, `Objective`, `Optimiser`, `Reports` in ``training/recipe.py``.
    """

    name: str
    seed: int
    model: ModelConfig
    size: tuple[int, int]
    stages: tuple[Stage, ...]
    start: Start | None = None
    initialisation: Initialisation = field(default_factory=Initialisation)
    objective: Objective = field(default_factory=Objective)
    optimiser: Optimiser = field(default_factory=Optimiser)
    reports: Reports = field(default_factory=Reports)

    def __post_init__(self) -> None:
        for kind in (Initialisation, Objective, Optimiser, Reports):
            name = kind.__name__.lower()
            object.__setattr__(self, name, made_of(name, kind, getattr(self, name)))
        if isinstance(self.model, dict):
            sizes = {"family": _FAMILY} | self.model
            family = find_family(sizes.pop("family"))
            object.__setattr__(self, "model", family.config.from_dict(sizes))
        if self.start is not None:
            object.__setattr__(self, "start", made_of("start", Start, self.start))
        stages = tuple(made_of("stages", Stage, stage) for stage in self.stages)
        if not stages:
            raise InvalidArgument("a recipe needs at least one stage")
        object.__setattr__(self, "stages", stages)
        for stage in stages:
            made_of(f"objective of stage {stage.name!r}", Objective, stage.objective)
        object.__setattr__(self, "size", tuple(self.size))
        whole("seed", self.seed, 0)
        side = state_lattice_width(self.model.to_dict().get("state_size", 0))
        for size in (self.size, *(stage.size for stage in stages if stage.size)):
            self.model.patch_grid(size[1], size[0])
        for stage in stages:
            if stage.lattice is not None and (stage.lattice > side or stage.lattice % 2):
                raise InvalidArgument(
                    f"stage {stage.name!r}: lattice must be even and at most the state's {side}, "
                    f"got {stage.lattice}"
                )

    @property
    def steps(self) -> int:
        """Steps of all stages together."""
        return sum(stage.steps for stage in self.stages)

    def stage_at(self, step: int) -> Stage:
        """Return the stage that the 0-based `step` belongs to; the last one has no end."""
        return self._place(step)[0]

    def _place(self, step: int) -> tuple[Stage, int]:
        """Stage of the 0-based `step`, and how many steps it has left, this one included."""
        end = 0
        for stage in self.stages:
            end += stage.steps
            if step < end:
                break
        return stage, end - step

    def objective_at(self, step: int) -> Objective:
        """Return the weights of the loss at the 0-based `step`."""
        changes: dict[str, Any] = self.stage_at(step).objective
        return replace(self.objective, **changes)

    def frames_until(self, step: int) -> int:
        """Frames seen before the 0-based `step`."""
        seen, begun = 0, 0
        for index, stage in enumerate(self.stages):
            endless = index == len(self.stages) - 1
            done = step - begun if endless else min(stage.steps, step - begun)
            rounds, rest = divmod(done, len(stage.batches))
            seen += rounds * sum(clips * frames for clips, frames in stage.batches)
            seen += sum(math.prod(stage.batch_at(begun + each)) for each in range(rest))
            begun += done
        return seen

    def average_at(self, step: int) -> float:
        """Decay of the running average at the 0-based `step`; less during the first ones."""
        own = self.stage_at(step).average
        return min(self.optimiser.average if own is None else own, (1 + step) / (10 + step))

    def rate_at(self, step: int) -> float:
        """Share of the learning rates at the 0-based `step`."""
        stage, left = self._place(step)
        rise = (step + 1) / (self.optimiser.warmup + 1)
        fall = left / (stage.cooldown + 1)
        first, last = stage.rates
        rate = last + (first - last) * max(0, left) / stage.steps
        return rate * max(0.0, min(1.0, rise, fall))

    def to_dict(self) -> dict[str, Any]:
        """Return plain values that :meth:`from_dict` reads back."""
        values = asdict(self)
        kind = {} if self.model.family == _FAMILY else {"family": self.model.family}
        values["model"] = kind | self.model.to_dict()
        values["stages"] = [
            {**asdict(stage), "scenes": [each.to_dict() for each in stage.scenes]}
            for stage in self.stages
        ]
        # left out where they say nothing, so that older recipes keep their identity
        if self.start is None:
            del values["start"]
        else:
            values["start"] = {name: each for name, each in values["start"].items() if each}
        for stage in values["stages"]:
            if stage["train"] == "all":
                del stage["train"]
        if not self.objective.aligned_pose:
            del values["objective"]["aligned_pose"]
        return json.loads(json.dumps(values))

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Self:
        """Make a recipe of plain values; unknown names are refused."""
        return made_of("the recipe", cls, values)

    @property
    def sha256(self) -> str:
        """Identity of the recipe."""
        return hashlib.sha256(json.dumps(self.to_dict(), sort_keys=True).encode()).hexdigest()


def read_recipe(path: str | Path) -> Recipe:
    """Read a recipe from a YAML file.

    Raises
    ------
    MissingFile, UnreadableFile
        When there is no such file, or it is not YAML.
    InvalidArgument
        When a value cannot mean anything or a name is unknown.
    """
    path = user_path(path)
    if not path.is_file():
        raise MissingFile(f"no recipe at {path}; bundled ones are in data/training")
    values = read_yaml(path)
    if not isinstance(values, dict):
        raise InvalidArgument(f"the recipe {path} holds {type(values).__name__}, not named values")
    return Recipe.from_dict(values)
