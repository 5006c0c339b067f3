"""How fast things move: measured in a sequence, and changed in a procedural scene."""

import json
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import replace
from functools import partial

import numpy as np
import xarray as xr

from mut3r_analysis.errors import InvalidArgument
from mut3r_analysis.foundation.labelling import described
from mut3r_analysis.scenes import Path, Scene
from mut3r_analysis.scenes.paths import RATE, SWING
from mut3r_analysis.sequences import open_sequence
from mut3r_analysis.sequences.layouts.ego_motion import moving_speeds

NEEDED = ("flow", "depth", "pose", "intrinsics", "motion_mask")
"""What a sequence must know for its residual motion to be measured."""

_WORDS = {
    "speed": ("residual motion", "px/frame"),
    "share": ("share of moving pixels", "1"),
    "missing": ("what the sequence lacks", "1"),
}

STATIC, SLOW, FAST, UNMEASURED = "static", "slow", "fast", "unmeasured"


def retimed(scene: Scene, factor: float, at: int = 0) -> Scene:
    """Let every object move `factor` times as fast, along the same path.

    The camera, and everything at frame `at`, stay as they are; at 0 all objects rest there. So
    scenes of one family differ in nothing but the speed of what moves.

    Parameters
    ----------
    scene : Scene
    factor : float
        0 or more.
    at : int
        The frame that all speeds share.

    Raises
    ------
    InvalidArgument
        For a negative factor, or when an object would now meet the camera.
    """
    if not factor >= 0:
        raise InvalidArgument(f"factor={factor}; give 0 (at rest) or more")
    clock = partial(_retimed, factor=factor, at=at)
    objects = tuple(
        replace(each, position=clock(each.position), angles=clock(each.angles))
        for each in scene.objects
    )
    return replace(scene, name=f"{scene.name}+speed-{factor:g}", objects=objects)


def _retimed(path: Path, factor: float, at: int) -> Path:
    """Path whose clock runs `factor` times as fast and shows the same time at frame `at`."""
    given, late = path.array(), at * (1 - factor)
    if factor == 1 or not given[[RATE, SWING]].any():
        return path
    if factor == 0:
        return path.resting(at)
    start, rate, swing, period, phase = given
    rows = (
        start + rate * late,
        rate * factor,
        swing,
        period / factor,
        phase + 360.0 * late / period,
    )
    return Path(*(tuple(row.tolist()) for row in rows))


def families(
    names: Iterable[str], speeds: Iterable[float], frames: int | None = None
) -> list[xr.Dataset]:
    """Open sequences, procedural ones at several speeds.

    Parameters
    ----------
    names : iterable of str
        For `open_sequence`; a procedural scene is rendered once per entry of `speeds`.
    speeds : iterable of float
        Factors on the speed of its objects; a scene without objects that move is taken once, and
        a factor at which an object would meet the camera is left out.
    frames : int, optional
        At most so many of each; the speeds of a scene share the middle one of them.

    Returns
    -------
    list of Dataset
        Sequences with the attribute ``family``, the name that they were made from.
    """
    factors = list(speeds)
    found = []
    for name in names:
        plain = open_sequence(name, stop=frames)
        if "scene" not in plain.attrs or not factors:
            found.append(plain.assign_attrs(family=plain.attrs["name"]))
            continue
        scene = Scene.from_dict(json.loads(plain.attrs["scene"]))
        middle = min(scene.frames, frames or scene.frames) // 2
        made: dict[Scene, Scene] = {}
        for factor in factors:
            with suppress(InvalidArgument):
                other = retimed(scene, factor, middle)
                made.setdefault(replace(other, name=scene.name), other)
        found += [
            open_sequence(each.render(), stop=frames, name=each.name).assign_attrs(
                family=scene.name
            )
            for each in made.values()
        ]
    return found


def residual_motion(sequence: xr.Dataset) -> xr.Dataset:
    """Measure how fast things move beyond what the camera explains.

    The residual motion of a pixel is its optical flow less the flow that its depth and the camera's
    motion would give a resting world; it is averaged over the pixels of the motion mask.

    Parameters
    ----------
    sequence : Dataset
        With `NEEDED`, and consecutive frames.

    Returns
    -------
    Dataset
        Scalars ``speed`` px/frame at source size, 0 where nothing moves, and ``share``, the share
        of moving pixels. NaN where the sequence does not know enough; ``missing`` then says what.
    """
    lacking = [name for name in NEEDED if name not in sequence]
    steps = np.diff(sequence["frame"].values) if "frame" in sequence.coords else np.array([1])
    missing = f"no {', '.join(lacking)}" if lacking else ""
    if not missing and (len(steps) == 0 or (steps != 1).any()):
        missing = "frames are not consecutive, so flow to the next frame skips some"
    speed, share = (np.nan, np.nan) if missing else _measured(sequence)
    found = xr.Dataset({"speed": speed, "share": share, "missing": missing})
    return described(found, _WORDS)


def speeds_of(sequences: Iterable[xr.Dataset]) -> xr.Dataset:
    """Measure residual motion of sequences, and sort them into speeds.

    Those that move are split at their median, so that the split follows what was measured and not
    what a sequence is called.

    Returns
    -------
    Dataset
        Along ``sequence``: the variables of :func:`residual_motion`, ``family`` and ``group``,
        one of ``static``, ``slow``, ``fast`` and ``unmeasured``. Attribute ``boundary`` is the
        speed up to which a sequence counts as slow, px/frame.

    Raises
    ------
    InvalidArgument
        When two sequences have one name.
    """
    opened = list(sequences)
    names = [str(each.attrs["name"]) for each in opened]
    if len(set(names)) < len(names):
        raise InvalidArgument(f"sequences need names of their own, got {', '.join(names)}")
    found = xr.concat([residual_motion(each) for each in opened], dim="sequence")
    speed = found["speed"].values
    moving = speed > 0
    boundary = float(np.median(speed[moving])) if moving.any() else float("nan")
    group = np.where(moving, np.where(speed <= boundary, SLOW, FAST), STATIC).astype(object)
    group[np.isnan(speed)] = UNMEASURED
    family = [str(each.attrs.get("family", each.attrs["name"])) for each in opened]
    return found.assign(
        group=("sequence", group), family=("sequence", np.array(family, dtype=object))
    ).assign_coords(sequence=names).assign_attrs(boundary=boundary)  # fmt: skip


def _measured(sequence: xr.Dataset) -> tuple[float, float]:
    """Mean residual motion over moving pixels, px/frame, and their share."""
    total, moving, pixels = 0.0, 0, 0
    for frame in range(sequence.sizes["frame"] - 1):
        pixels += sequence["motion_mask"][frame].size
        speeds = moving_speeds(sequence, frame)
        total += float(speeds.sum())
        moving += speeds.size
    return (total / moving if moving else 0.0), moving / max(pixels, 1)
