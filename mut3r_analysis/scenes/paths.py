"""Where cameras and objects are: closed-form paths, and the poses they give at every frame.

A path is ``start + rate * t + swing * sin(2 pi t / period + phase)`` per axis, with the time `t` in
frames. It is smooth, it may be evaluated at any time, and it stays bounded where `rate` is zero.
The evaluation is compiled and scalar, so a value never depends on the values beside it in an
array: this is what keeps twins identical to the last bit.
"""

import math

import numba
import numpy as np

START, RATE, SWING, PERIOD, PHASE = range(5)
"""Rows of a path's parameters, an array `(parameter, xyz)`; phases in degrees."""


@numba.njit(cache=True, nogil=True)
def _value(path, axis, time):  # type: ignore[no-untyped-def]
    angle = 2.0 * math.pi * time / path[PERIOD, axis] + math.radians(path[PHASE, axis])
    return path[START, axis] + path[RATE, axis] * time + path[SWING, axis] * math.sin(angle)


@numba.njit(cache=True, nogil=True)
def _fill_rotation(pitch, yaw, roll, out):  # type: ignore[no-untyped-def]
    cp, sp = math.cos(math.radians(pitch)), math.sin(math.radians(pitch))
    cy, sy = math.cos(math.radians(yaw)), math.sin(math.radians(yaw))
    cr, sr = math.cos(math.radians(roll)), math.sin(math.radians(roll))
    out[0, 0], out[0, 1], out[0, 2] = cy * cr + sy * sp * sr, sy * sp * cr - cy * sr, sy * cp
    out[1, 0], out[1, 1], out[1, 2] = cp * sr, cp * cr, -sp
    out[2, 0], out[2, 1], out[2, 2] = cy * sp * sr - sy * cr, cy * sp * cr + sy * sr, cy * cp


@numba.njit(cache=True, nogil=True)
def _fill_poses(positions, angles, targets, frames, out):  # type: ignore[no-untyped-def]
    base = np.empty((3, 3))
    turn = np.empty((3, 3))
    for path in range(positions.shape[0]):
        for frame in range(frames):
            time = float(frame)
            pose = out[path, frame]
            for axis in range(3):
                pose[axis, 3] = _value(positions[path], axis, time)
            _fill_rotation(
                _value(angles[path], 0, time),
                _value(angles[path], 1, time),
                _value(angles[path], 2, time),
                turn,
            )
            if math.isnan(targets[path, 0]):
                pose[:, :3] = turn
                continue
            for axis in range(3):
                base[axis, 2] = targets[path, axis] - pose[axis, 3]
            length = math.sqrt(base[0, 2] ** 2 + base[1, 2] ** 2 + base[2, 2] ** 2)
            level = math.sqrt(base[0, 2] ** 2 + base[2, 2] ** 2)
            if level < 1e-9:
                pose[:, :] = np.nan
                continue
            for axis in range(3):
                base[axis, 2] /= length
            # right = down x forward, and down = forward x right: the horizon stays level
            base[0, 0], base[1, 0], base[2, 0] = base[2, 2] * length, 0.0, -base[0, 2] * length
            base[0, 0] /= level
            base[2, 0] /= level
            base[0, 1] = base[1, 2] * base[2, 0] - base[2, 2] * base[1, 0]
            base[1, 1] = base[2, 2] * base[0, 0] - base[0, 2] * base[2, 0]
            base[2, 1] = base[0, 2] * base[1, 0] - base[1, 2] * base[0, 0]
            for row in range(3):
                for col in range(3):
                    total = 0.0
                    for inner in range(3):
                        total += base[row, inner] * turn[inner, col]
                    pose[row, col] = total


def evaluate_poses(
    positions: np.ndarray, angles: np.ndarray, frames: int, targets: np.ndarray | None = None
) -> np.ndarray:
    """Local-to-world poses along paths, at the frames ``0, 1, ..., frames - 1``.

    The rotation is ``Ry(yaw) Rx(pitch) Rz(roll)`` with OpenCV's axes (x right, y down, z forward):
    a positive yaw turns right, a positive pitch looks up.

    Parameters
    ----------
    positions, angles : ndarray (..., parameter, xyz)
        Parameters of the paths of the position, in metres, and of (pitch, yaw, roll), in degrees.
    frames : int
        How many frames.
    targets : ndarray (..., xyz), optional
        A point the z axis aims at, with a level horizon, before the angles are applied; NaN where
        there is none. A pose straight above or below its target has no level horizon and is NaN.

    Returns
    -------
    ndarray (..., frame, 3, 4)
        Rotation and translation, float64.
    """
    leading = positions.shape[:-2]
    count = math.prod(leading)
    if targets is None:
        targets = np.full((*leading, 3), np.nan)
    poses = np.empty((count, frames, 3, 4))
    _fill_poses(
        np.ascontiguousarray(positions, dtype=np.float64).reshape(count, 5, 3),
        np.ascontiguousarray(angles, dtype=np.float64).reshape(count, 5, 3),
        np.ascontiguousarray(targets, dtype=np.float64).reshape(count, 3),
        frames,
        poses,
    )
    return poses.reshape(*leading, frames, 3, 4)


def evaluate_path(path: np.ndarray, frame: int) -> np.ndarray:
    """Value `(xyz,)` of one path `(parameter, xyz)` at a frame, as `evaluate_poses` sees it."""
    return np.array([_value(path, axis, float(frame)) for axis in range(3)])
