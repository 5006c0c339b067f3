"""The parts of a scene: paths, textures, room, objects, camera and light, validated when made.

Axes are OpenCV's throughout: x right, y down, z forward; metres, degrees and frames.
"""

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

import numpy as np

from mut3r_analysis.errors import InvalidArgument
from mut3r_analysis.foundation.fields import (
    Checked,
    instance_of,
    made_of,
    number,
    one_of,
    optional,
    whole,
)
from mut3r_analysis.scenes.arrays import (
    COLORS,
    CONTRAST,
    PATTERN,
    PATTERNS,
    SCALE,
    SHAPES,
)
from mut3r_analysis.scenes.distribution import draw_textures
from mut3r_analysis.scenes.paths import evaluate_path

Vector = tuple[float, float, float]
_ZERO: Vector = (0.0, 0.0, 0.0)
_GREYS = ((0.25,) * 3, (0.75,) * 3, (0.5,) * 3)
_fog = optional(partial(number, low=1e-3, high=1e9))


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


_Three = Checked[Any, Vector]
_term = partial(to_vector, least=-1e6, most=1e6)


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

    start: _Three = Checked(_term, _ZERO)
    rate: _Three = Checked(_term, _ZERO)
    swing: _Three = Checked(_term, _ZERO)
    period: _Three = Checked(partial(_term, least=1.0, single=True), 24.0)
    phase: _Three = Checked(partial(_term, single=True), _ZERO)

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


_Place = Checked[Any, Path]


def _triples(name: str, value: Any) -> tuple[Vector, ...]:
    if isinstance(value, str) or not hasattr(value, "__len__") or len(value) != 3:
        raise InvalidArgument(f"{name}={value!r}; give three RGB triples.")
    return tuple(to_vector(name, each, 0, 1) for each in value)


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

    pattern: Checked[str, str] = Checked(partial(one_of, known=PATTERNS), "noise")
    scale: Checked[float, float] = Checked(partial(number, low=1e-3, high=1e3), 0.5)
    contrast: Checked[float, float] = Checked(partial(number, low=0, high=4), 1.0)
    colors: Checked[Any, tuple[Vector, ...]] = Checked(_triples, _GREYS)
    seed: Checked[int, int] = Checked(partial(whole, low=0, high=2**32 - 1), 0)

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


_Surface = Checked[Any, Texture]
_texture = partial(instance_of, kind=Texture)


@dataclass(frozen=True)
class Room:
    """A box seen from inside, centred on the origin; its floor is at ``y = +size[1] / 2``."""

    size: _Three = Checked(partial(to_vector, least=0.1, most=1e4), (7.0, 3.2, 8.0))
    walls: _Surface = Checked(_texture, Texture())
    floor: _Surface = Checked(_texture, Texture())
    ceiling: _Surface = Checked(_texture, Texture())


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

    shape: Checked[str, str] = Checked(partial(one_of, known=SHAPES))
    size: _Three = Checked(partial(to_vector, least=1e-3, most=1e3, single=True))
    position: _Place = Checked(Path.read)
    angles: _Place = Checked(Path.read, Path())
    texture: _Surface = Checked(_texture, Texture())


@dataclass(frozen=True)
class Camera:
    """A camera on a path; with `look_at` it aims there and `angles` turn it from that aim."""

    position: _Place = Checked(Path.read, Path())
    angles: _Place = Checked(Path.read, Path())
    look_at: Checked[Any, Vector | None] = Checked(optional(to_vector), None)


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

    position: _Three = Checked(to_vector, (1.0, -1.4, -1.0))
    ambient: Checked[float, float] = Checked(partial(number, low=0, high=1), 0.55)
    fog: Checked[float | None, float | None] = Checked(_fog, None)
    fog_color: _Three = Checked(partial(to_vector, least=0, most=1), (0.7, 0.7, 0.7))
