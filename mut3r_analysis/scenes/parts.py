"""The parts of a scene: paths, textures, room, objects, camera and light, validated when made.

Axes are OpenCV's throughout: x right, y down, z forward; metres, degrees and frames.
"""

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

import numpy as np

from mut3r_analysis.errors import InvalidArgument
from mut3r_analysis.foundation.fields import made_of, number, one_of, whole
from mut3r_analysis.scenes.arrays import (
    COLORS,
    CONTRAST,
    PATTERN,
    PATTERNS,
    ROOM_SURFACES,
    SCALE,
    SHAPES,
)
from mut3r_analysis.scenes.distribution import draw_textures
from mut3r_analysis.scenes.paths import evaluate_path

Vector = tuple[float, float, float]
_ZERO: Vector = (0.0, 0.0, 0.0)


def to_vector(
    name: str, value: Any, least: float = -math.inf, most: float = math.inf, single: bool = False
) -> Vector:
    """Return three finite numbers within bounds, or raise; `single` lets one stand for three."""
    if single and isinstance(value, int | float | np.number) and not isinstance(value, bool):
        value = (value, value, value)
    if isinstance(value, str) or not hasattr(value, "__len__") or len(value) != 3:
        alone = "one number or " if single else ""
        raise InvalidArgument(f"{name}={value!r}; give {alone}three numbers.")
    x, y, z = (number(name, each, least, most) for each in value)
    return x, y, z


def require_type(name: str, value: Any, kind: type) -> None:
    """Raise `InvalidArgument` unless `value` is of the kind that `name` needs."""
    if not isinstance(value, kind):
        raise InvalidArgument(f"{name}={value!r}; give a {kind.__name__}.")


@dataclass(frozen=True)
class Path:
    """``start + rate t + swing sin(2 pi t / period + phase)`` per axis, t in frames.

    Attributes
    ----------
    start, rate, swing : (float, float, float)
        In metres (positions) or degrees (angles: pitch, yaw, roll), and those per frame.
    period : (float, float, float)
        Frames; one number means all three.
    phase : (float, float, float)
        Degrees; one number means all three.
    """

    start: Vector = _ZERO
    rate: Vector = _ZERO
    swing: Vector = _ZERO
    period: Vector = (24.0, 24.0, 24.0)
    phase: Vector = _ZERO

    def __post_init__(self) -> None:
        for name in ("start", "rate", "swing", "period", "phase"):
            least = 1.0 if name == "period" else -1e6
            single = name in ("period", "phase")
            value = to_vector(name, getattr(self, name), least, 1e6, single)
            object.__setattr__(self, name, value)

    @classmethod
    def read(cls, where: str, value: Any) -> "Path":
        """Read a path: a mapping, or three numbers where it rests, or a path already made."""
        moves = isinstance(value, Path | Mapping)
        return made_of(where, cls, value if moves else {"start": to_vector(where, value)})

    def resting(self, frame: int) -> "Path":
        """Return the path that stays where this one is at a frame, to the last bit."""
        return Path(tuple(evaluate_path(self.array(), frame).tolist()))

    def array(self) -> np.ndarray:
        """Parameters `(parameter, xyz)`."""
        return np.array([self.start, self.rate, self.swing, self.period, self.phase])


@dataclass(frozen=True)
class Texture:
    """A surface's colours: smooth noise on four scales, alone or over checks or stripes.

    Attributes
    ----------
    pattern : str
        ``"noise"``, ``"checker"`` or ``"stripes"``.
    scale : float
        Size of the coarsest features, m.
    contrast : float
        0 is one plain colour, 1 is usual.
    colors : three RGB triples
        What is mixed, each value from 0 to 1; the first two carry the pattern.
    seed : int
        Of the noise.
    """

    pattern: str = "noise"
    scale: float = 0.5
    contrast: float = 1.0
    colors: tuple[Vector, Vector, Vector] = ((0.25,) * 3, (0.75,) * 3, (0.5,) * 3)
    seed: int = 0

    def __post_init__(self) -> None:
        one_of("pattern", self.pattern, PATTERNS)
        object.__setattr__(self, "scale", number("scale", self.scale, 1e-3, 1e3))
        object.__setattr__(self, "contrast", number("contrast", self.contrast, 0, 4))
        object.__setattr__(self, "seed", whole("seed", self.seed, 0, 2**32 - 1))
        colors = self.colors
        if isinstance(colors, str) or not hasattr(colors, "__len__") or len(colors) != 3:
            raise InvalidArgument(f"colors={colors!r}; give three RGB triples.")
        object.__setattr__(self, "colors", tuple(to_vector("colors", c, 0, 1) for c in colors))

    def row(self) -> np.ndarray:
        """Columns of a texture as in `SceneArrays`."""
        return np.array(
            [PATTERNS.index(self.pattern), self.scale, self.contrast, *np.ravel(self.colors)]
        )

    @classmethod
    def from_row(cls, row: np.ndarray, seed: int) -> "Texture":
        """Inverse of :meth:`row`."""
        one, two, three = (to_vector("colors", each) for each in row[COLORS].reshape(3, 3))
        pattern = PATTERNS[int(row[PATTERN])]
        return cls(pattern, float(row[SCALE]), float(row[CONTRAST]), (one, two, three), seed)

    def changed(self, surface: str, change: Any) -> "Texture":
        """Return another texture, or this one with the fields of a mapping changed."""
        whole = {**vars(self), **change} if isinstance(change, Mapping) else change
        return made_of(f"texture of {surface}", Texture, whole)

    @classmethod
    def random(cls, seed: int, *, surface: int = 3) -> "Texture":
        """Draw a texture; surfaces 0 to 2 are a room's walls, floor and ceiling."""
        rng = np.random.default_rng([seed, surface])
        texture, seeds = draw_textures(rng, 1, max(surface + 1, 3), (0.8, 1.2))
        return cls.from_row(texture[0, surface], int(seeds[0, surface]))


@dataclass(frozen=True)
class Room:
    """A box seen from inside, centred on the origin; its floor is at ``y = +size[1] / 2``."""

    size: Vector = (7.0, 3.2, 8.0)
    walls: Texture = field(default_factory=Texture)
    floor: Texture = field(default_factory=Texture)
    ceiling: Texture = field(default_factory=Texture)

    def __post_init__(self) -> None:
        object.__setattr__(self, "size", to_vector("room size", self.size, 0.1, 1e4))
        for surface in ROOM_SURFACES:
            require_type(surface, getattr(self, surface), Texture)


@dataclass(frozen=True)
class SceneObject:
    """A textured sphere or box on a path.

    Attributes
    ----------
    shape : str
        ``"sphere"`` (an ellipsoid if its extents differ) or ``"box"``.
    size : (float, float, float)
        Full extents, m; one number means all three.
    position : Path
        Of the centre, m.
    angles : Path
        Pitch, yaw and roll, degrees.
    """

    shape: str
    size: Vector
    position: Path
    angles: Path = field(default_factory=Path)
    texture: Texture = field(default_factory=Texture)

    def __post_init__(self) -> None:
        one_of("shape", self.shape, SHAPES)
        object.__setattr__(self, "size", to_vector("object size", self.size, 1e-3, 1e3, True))
        for name in ("position", "angles"):
            object.__setattr__(self, name, Path.read(name, getattr(self, name)))
        require_type("texture", self.texture, Texture)


@dataclass(frozen=True)
class Camera:
    """A camera on a path; with `look_at` it aims there and `angles` turn it from that aim."""

    position: Path = field(default_factory=Path)
    angles: Path = field(default_factory=Path)
    look_at: Vector | None = None

    def __post_init__(self) -> None:
        for name in ("position", "angles"):
            object.__setattr__(self, name, Path.read(f"camera {name}", getattr(self, name)))
        if self.look_at is not None:
            object.__setattr__(self, "look_at", to_vector("look_at", self.look_at))


Mover = TypeVar("Mover", SceneObject, Camera)


def resting(part: Mover, frame: int) -> Mover:
    """Return the object or camera that stays where this one is at a frame."""
    position, angles = part.position.resting(frame), part.angles.resting(frame)
    return dataclasses.replace(part, position=position, angles=angles)


@dataclass(frozen=True)
class Light:
    """A lamp, the share of light that has no direction, and fog where there is any.

    Attributes
    ----------
    position : (float, float, float)
        Of the lamp, m.
    ambient : float
        From 0 (only the lamp) to 1 (no shading).
    fog : float or None
        Distance over which 1/e of the light comes through, m.
    fog_color : (float, float, float)
        RGB, from 0 to 1.
    """

    position: Vector = (1.0, -1.4, -1.0)
    ambient: float = 0.55
    fog: float | None = None
    fog_color: Vector = (0.7, 0.7, 0.7)

    def __post_init__(self) -> None:
        object.__setattr__(self, "position", to_vector("light position", self.position))
        object.__setattr__(self, "ambient", number("ambient", self.ambient, 0, 1))
        object.__setattr__(self, "fog_color", to_vector("fog_color", self.fog_color, 0, 1))
        if self.fog is not None:
            object.__setattr__(self, "fog", number("fog", self.fog, 1e-3, 1e9))
