"""How random scenes are drawn: one distribution, for single scenes and for training batches alike.

Every object gets a whole motion. Which objects carry theirs out is decided last, by a coin that
sees nothing of the object; the others rest where their motion would have them at a random frame.
So moving and resting objects share their distributions of size, shape, depth, position, texture
and contrast by construction.
"""

import math
import numbers
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from mut3r_analysis.errors import InvalidArgument
from mut3r_analysis.foundation.fields import Checked, number, one_of, optional, whole
from mut3r_analysis.foundation.specification import Specification
from mut3r_analysis.scenes.arrays import (
    ABSENT,
    AMBIENT,
    COLORS,
    CONTRAST,
    FOG_COLOR,
    FOG_LENGTH,
    LIGHT,
    PATTERN,
    ROOM_SURFACES,
    SCALE,
    SceneArrays,
)
from mut3r_analysis.scenes.paths import PERIOD, PHASE, RATE, START, SWING, evaluate_poses

HELD_OUT_SEEDS = range(1_000_000)
"""Seeds of bundled scenes and of evaluation; training never uses them."""
TRAINING_SEEDS = range(1_000_000, 2**31)
"""Seeds of training batches."""

CAMERAS = ("free", "static", "rotation", "translation", "straight")
STEP_ROTATION = (3.0, 6.0, 2.0)
"""Root mean square step of the camera's pitch, yaw and roll at `camera_speed` 1, degrees/frame."""
STEP_TRANSLATION = (0.22, 0.12, 0.16)
"""The same of its position along its own x, y and z, m/frame."""

_ATTEMPTS = 8
_MOST_OBJECTS = 64


def _pair(name: str, value: Any, kind: type = float) -> tuple[Any, Any]:
    try:
        low, high = (value, value) if isinstance(value, numbers.Real) else value
        low, high = (number(name, each, 0) for each in (low, high))
    except (TypeError, ValueError, InvalidArgument):
        low, high = 1, 0
    if low > high or kind(low) != low or kind(high) != high:
        what = "whole numbers" if kind is int else "numbers"
        raise InvalidArgument(
            f"{name}={value!r}; give one number or two {what} (least, most), not negative."
        )
    return kind(low), kind(high)


_fog = optional(partial(number, low=1e-9))
_Span = Checked[Any, tuple[float, float]]


@dataclass(frozen=True)
class SceneDistribution(Specification):
    """What random scenes look like.

    Attributes
    ----------
    objects : int
        Objects per scene. Those that find no place clear of the camera are left out.
    movers : (int, int)
        Least and most moving objects per scene, drawn uniformly; a single number means both.
    mover_speed : (float, float)
        Typical speed of a moving object, m/frame, drawn uniformly.
    camera : str
        ``"free"`` (six degrees of freedom), ``"static"``, ``"rotation"`` (only), ``"translation"``
        (only) or ``"straight"`` (constant velocity, no rotation).
    camera_speed : (float, float)
        Factor on the camera's steps, drawn uniformly; 1 means steps of `STEP_ROTATION` and
        `STEP_TRANSLATION` root mean square.
    fov : float
        Horizontal field of view, degrees; 58.1 is a focal length of 0.9 image widths.
    fog : float or None
        Distance over which the fog lets 1/e of the light through, m.
    texture_contrast : (float, float)
        Contrast of the textures, drawn uniformly; 0 is plain.

    Raises
    ------
    InvalidArgument
        If a value cannot mean anything.
    """

    objects: Checked[int, int] = Checked(partial(whole, low=0, high=_MOST_OBJECTS), 4)
    movers: Checked[Any, tuple[int, int]] = Checked(partial(_pair, kind=int), (0, 2))
    mover_speed: _Span = Checked(_pair, (0.15, 0.45))
    camera: Checked[str, str] = Checked(partial(one_of, known=CAMERAS), "free")
    camera_speed: _Span = Checked(_pair, (0.3, 1.4))
    fov: Checked[float, float] = Checked(partial(number, low=5, high=150), 58.1)
    fog: Checked[float | None, float | None] = Checked(_fog, None)
    texture_contrast: _Span = Checked(_pair, (0.6, 1.2))

    def __post_init__(self) -> None:
        if self.movers[1] > self.objects:
            raise InvalidArgument(
                f"movers={self.movers} asks for more moving objects than objects={self.objects}; "
                "raise objects or lower movers."
            )


def draw(
    seed: int, clips: int, frames: int, distribution: SceneDistribution | None = None
) -> SceneArrays:
    """Draw random scenes.

    Parameters
    ----------
    seed : int
        The same seed, `clips`, `frames` and distribution give the same scenes, bit for bit.
    clips, frames : int
        How many scenes, and how many frames they are meant for: objects are placed where the
        camera sees them at some of these frames.
    distribution : SceneDistribution, optional
        What they look like.

    Returns
    -------
    SceneArrays

    Examples
    --------
    >>> draw(seed=0, clips=2, frames=4).room.shape
    (2, 3)
    """
    whole("seed", seed, 0, 2**63 - 1)
    whole("clips", clips, 1, 10**7)
    whole("frames", frames, 1, 10**5)
    distribution = distribution or SceneDistribution()
    rng = np.random.default_rng(seed)
    tangent = np.full(clips, math.tan(math.radians(distribution.fov) / 2))
    room = rng.uniform((3.2, 1.5, 3.2), (5.0, 2.2, 5.0), (clips, 3))
    position, angles = _draw_camera(rng, room, frames, distribution)
    cameras = evaluate_poses(position, angles, frames)
    objects = _draw_objects(rng, room, tangent, cameras, distribution)
    texture, texture_seed = draw_textures(
        rng, clips, distribution.objects + len(ROOM_SURFACES), distribution.texture_contrast
    )
    light = np.empty((clips, 8))
    light[:, AMBIENT] = rng.uniform(0.45, 0.65, clips)
    light[:, LIGHT] = room * rng.uniform((-0.7, -0.95, -0.7), (0.7, -0.6, 0.7), (clips, 3))
    light[:, FOG_LENGTH] = np.inf if distribution.fog is None else distribution.fog
    light[:, FOG_COLOR] = rng.uniform(0.6, 0.8, (clips, 1))
    return SceneArrays(
        room=room,
        tangent=tangent,
        camera_position=position,
        camera_angles=angles,
        camera_target=np.full((clips, 3), np.nan),
        texture=texture,
        texture_seed=texture_seed,
        light=light,
        **objects,
    )


def _draw_camera(
    rng: np.random.Generator, room: np.ndarray, frames: int, distribution: SceneDistribution
) -> tuple[np.ndarray, np.ndarray]:
    clips = len(room)
    position, angles = np.zeros((2, clips, 5, 3))
    speed = rng.uniform(*distribution.camera_speed, (clips, 1))
    yaw = rng.uniform(0, 360, clips)
    angles[:, START] = rng.normal(0, (6, 0, 2), (clips, 3))
    angles[:, START, 1] = yaw
    along, across = np.cos(np.radians(yaw)) ** 2, np.sin(np.radians(yaw)) ** 2
    x, y, z = STEP_TRANSLATION
    # the path's axes are the room's: share the camera's x and z steps out by its mean heading
    step = np.stack(
        [
            np.sqrt(along * x**2 + across * z**2),
            np.full(clips, y),
            np.sqrt(across * x**2 + along * z**2),
        ],
        axis=1,
    )
    clear = np.maximum(room - 0.5, 0.1)
    for path, steps in ((position, step), (angles, np.asarray(STEP_ROTATION))):
        path[:, PERIOD] = rng.uniform(14, 32, (clips, 3))
        path[:, PHASE] = rng.uniform(0, 360, (clips, 3))
        path[:, SWING] = math.sqrt(2) * speed * steps * path[:, PERIOD] / (2 * np.pi)
    position[:, SWING] = np.minimum(position[:, SWING], 0.8 * clear)
    place = rng.uniform(-1, 1, (clips, 3)) * np.minimum(0.4 * room, clear - position[:, SWING])
    position[:, START] = place
    if distribution.camera in ("static", "rotation", "straight"):
        position[:, SWING] = 0
    if distribution.camera in ("static", "translation", "straight"):
        angles[:, SWING] = 0
    if distribution.camera == "straight":
        most = 1.6 * clear / frames
        position[:, RATE] = np.clip(speed * step * rng.normal(0, 1, (clips, 3)), -most, most)
        way = position[:, RATE] * (frames - 1) / 2
        position[:, START] = np.clip(place, np.abs(way) - clear, clear - np.abs(way)) - way
    return position, angles


def _draw_objects(
    rng: np.random.Generator,
    room: np.ndarray,
    tangent: np.ndarray,
    cameras: np.ndarray,
    distribution: SceneDistribution,
) -> dict[str, np.ndarray]:
    clips, frames, count = len(room), cameras.shape[1], distribution.objects
    shape = np.full((clips, count), ABSENT)
    half_size = np.ones((clips, count, 3))
    position, angles = np.zeros((2, clips, count, 5, 3))
    position[:, :, PERIOD] = angles[:, :, PERIOD] = 1
    for _ in range(_ATTEMPTS):
        trial = _try_objects(rng, room, tangent, cameras, distribution)
        # judged over the whole motion, for all alike: whether an object fits must not depend on
        # whether it will move
        places = evaluate_poses(trial[2], trial[3], frames)[..., 3]
        gap = np.linalg.norm(places[:, :, :, None] - cameras[:, None, None, :, :, 3], axis=-1).min(
            axis=(2, 3)
        )
        take = (shape == ABSENT) & (gap > np.linalg.norm(trial[1], axis=-1) + 0.4)
        for kept, tried in zip((shape, half_size, position, angles), trial, strict=True):
            kept[take] = tried[take]
        if (shape != ABSENT).all():
            break
    wanted = rng.integers(*distribution.movers, (clips, 1), endpoint=True)
    lot = np.where(shape == ABSENT, 2.0, rng.random((clips, count)))
    moves = lot.argsort(axis=1).argsort(axis=1) < wanted
    frozen = rng.integers(0, frames, (clips, count))
    for path in (position, angles):
        turn = 2 * np.pi * frozen[..., None] / path[:, :, PERIOD] + np.radians(path[:, :, PHASE])
        rest = path[:, :, START] + path[:, :, RATE] * frozen[..., None]
        rest = rest + path[:, :, SWING] * np.sin(turn)
        path[:, :, START] = np.where(moves[..., None], path[:, :, START], rest)
        for row in (RATE, SWING):
            path[:, :, row] *= moves[..., None]
    return {
        "shape": shape,
        "half_size": half_size,
        "object_position": position,
        "object_angles": angles,
    }


def _try_objects(
    rng: np.random.Generator,
    room: np.ndarray,
    tangent: np.ndarray,
    cameras: np.ndarray,
    distribution: SceneDistribution,
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    clips, frames, count = len(room), cameras.shape[1], distribution.objects
    some = (clips, count)
    shape = rng.integers(0, 2, some)
    half_size = rng.uniform(0.28, 0.75, (*some, 1)) * rng.uniform(0.75, 1.0, (*some, 3))
    half_size[shape == 0] = half_size[shape == 0].mean(axis=-1, keepdims=True)
    radius = np.where(shape == 0, half_size[..., 0], np.linalg.norm(half_size, axis=-1))[..., None]

    # in view of the camera at a random frame
    seen = rng.integers(0, frames, some)
    depth = rng.uniform(1.4, 4.5, some)
    ray = rng.uniform((-0.9, -0.65, 1), (0.9, 0.65, 1), (*some, 3))
    ray[..., :2] *= tangent[:, None, None]
    pose = np.take_along_axis(cameras, seen[..., None, None], axis=1)
    place = np.einsum("ckij,ckj->cki", pose[..., :3], depth[..., None] * ray) + pose[..., 3]

    position, angles = np.zeros((2, *some, 5, 3))
    speed = rng.uniform(*distribution.mover_speed, (*some, 1))
    heading = rng.normal(0, (1, 0.5, 1), (*some, 3))
    heading /= np.linalg.norm(heading, axis=-1, keepdims=True)
    position[:, :, PERIOD] = rng.uniform(14, 28, (*some, 1))
    position[:, :, PHASE] = rng.uniform(0, 360, (*some, 1))
    position[:, :, SWING] = math.sqrt(2) * speed * heading * position[:, :, PERIOD] / (2 * np.pi)
    clear = np.maximum(room[:, None] - radius, 0.05)
    reach = np.abs(position[:, :, SWING])
    # shorten the way as a whole where the room is too narrow for it, by a shorter period, so that
    # the speed stays
    fit = np.minimum(0.8 * clear / np.maximum(reach, 1e-9), 1.0).min(axis=-1, keepdims=True)
    position[:, :, SWING] *= fit
    position[:, :, PERIOD] *= np.maximum(fit, 0.5)
    reach = np.abs(position[:, :, SWING])
    phase = 2 * np.pi * seen[..., None] / position[:, :, PERIOD]
    offset = position[:, :, SWING] * np.sin(phase + np.radians(position[:, :, PHASE]))
    position[:, :, START] = np.clip(place - offset, reach - clear, clear - reach)

    angles[:, :, START] = rng.uniform((-25, 0, -25), (25, 360, 25), (*some, 3))
    angles[:, :, PERIOD] = 1.0
    angles[:, :, RATE] = rng.uniform(-8, 8, (*some, 3)) * (0.5, 1.5, 0.5)
    kind = rng.random((*some, 1))
    position[:, :, SWING] *= kind < 0.85
    angles[:, :, RATE] *= kind > 0.45
    return shape, half_size, position, angles


def draw_textures(
    rng: np.random.Generator, clips: int, surfaces: int, contrast: tuple[float, float]
) -> tuple[np.ndarray, np.ndarray]:
    """Draw textures `(clip, surface, column)` and seeds; the first three are a room's surfaces."""
    some = (clips, surfaces)
    texture = np.empty((*some, 12))
    texture[..., PATTERN] = rng.choice(3, some, p=(0.6, 0.25, 0.15))
    texture[..., SCALE] = np.exp(rng.uniform(math.log(0.25), math.log(0.7), some))
    texture[:, :3, SCALE] *= 1.6
    texture[..., CONTRAST] = rng.uniform(*contrast, some)
    colors = rng.uniform(0.05, 0.95, (*some, 3, 3))
    # the first two colours differ in brightness, so that every texture has contrast to follow
    first = colors[..., 0, :].mean(axis=-1, keepdims=True)
    step = rng.uniform(0.35, 0.6, (*some, 1)) * rng.choice((-1, 1), (*some, 1))
    step = np.where((first + step > 0.95) | (first + step < 0.05), -step, step)
    tint = rng.uniform(-0.2, 0.2, (*some, 3))
    colors[..., 1, :] = colors[..., 0, :] + step + tint
    grey = colors.mean(axis=-1, keepdims=True)
    saturation = rng.uniform(0.25, 0.9, (*some, 1, 1))
    colors = np.clip(grey + saturation * (colors - grey), 0.02, 0.98)
    texture[..., COLORS] = colors.reshape(*some, 9)
    return texture, rng.integers(0, 2**32, some, dtype=np.int64)
