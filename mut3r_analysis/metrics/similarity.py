"""Similarity transforms between camera paths, fitted in the least-squares sense of Umeyama."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mut3r_analysis.errors import InvalidArgument
from mut3r_analysis.foundation.fields import one_of
from mut3r_analysis.metrics.choices import ALIGN_KINDS
from mut3r_analysis.metrics.errors import UndefinedMetric

EPSILON = float(np.finfo(np.float64).eps)


@dataclass(frozen=True, eq=False)
class Similarity:
    """The map ``x -> scale * rotation @ x + translation``.

    Attributes
    ----------
    rotation : ndarray
        (row, col), a proper rotation.
    translation : ndarray
        (xyz), in the units of the target.
    scale : float
        Target units per source unit.
    """

    rotation: NDArray[np.float64]
    translation: NDArray[np.float64]
    scale: float

    @classmethod
    def identity(cls) -> Similarity:
        """Return the map that changes nothing."""
        return cls(np.eye(3), np.zeros(3), 1.0)

    def apply_to_points(self, points: ArrayLike) -> NDArray[np.float64]:
        """Transform points (..., xyz)."""
        array = np.asarray(points, dtype=np.float64)
        return self.scale * array @ self.rotation.T + self.translation

    def apply_to_poses(self, poses: ArrayLike) -> NDArray[np.float64]:
        """Transform camera-to-world poses (..., row, col); the scale acts on the centres alone."""
        moved = np.array(poses, dtype=np.float64)
        moved[..., :3, 3] = self.apply_to_points(moved[..., :3, 3])
        moved[..., :3, :3] = self.rotation @ moved[..., :3, :3]
        return moved

    def to_variables(self, units: Mapping[str, str]) -> dict[str, Any]:
        """Return variables of a Dataset; `units` are attributes of the translation."""
        return {
            "alignment_rotation": (("row", "col"), self.rotation),
            "alignment_translation": (("axis",), self.translation, dict(units)),
            "alignment_scale": ((), self.scale, {"units": "1"}),
        }


def fit_similarity(
    source: ArrayLike, target: ArrayLike, align: str = "sim3", *, line: bool = False
) -> Similarity:
    """Fit the transform that brings `source` closest to `target` in the sum of squared distances.

    Umeyama, "Least-squares estimation of transformation parameters between two point patterns"
    (1991), equations 34 to 43; variance and covariance are divided by the number of points.

    Parameters
    ----------
    source, target : array_like
        (point, xyz), corresponding row by row.
    align : {"sim3", "se3", "none"}
        With scale, without, or no fit at all.
    line : bool
        Whether points on a straight line will do, whose rotation about that line is one of many:
        scale and distances between the points do not depend on it. `on_a_line` says where that is.

    Raises
    ------
    InvalidArgument
        Shapes differ, or `align` is not one of the three.
    UndefinedMetric
        Points that are not finite; fewer than 3 points, or points on a line or in one place, whose
        rotation is not determined. Every input that evo refuses is refused here; a covariance whose
        second singular value is rounding noise next to the first is refused too.

    Examples
    --------
    >>> points = np.random.default_rng(0).normal(size=(10, 3))
    >>> round(fit_similarity(points, 2 * points + 1).scale, 6)
    2.0
    """
    one_of("align", align, ALIGN_KINDS)
    x, y = _point_pair(source, target)
    if align == "none":
        return Similarity.identity()
    if len(x) < 3:
        raise UndefinedMetric(
            f"{len(x)} poses given, at least 3 are needed to fit a rotation; "
            "score a longer part of the sequence, or use align='none'"
        )
    mean_x, mean_y = x.mean(axis=0), y.mean(axis=0)
    centred_x, centred_y = x - mean_x, y - mean_y
    left, singular, right = np.linalg.svd(centred_y.T @ centred_x / len(x))
    flat = singular[1] <= EPSILON * max(1.0, 16 * singular[0])
    if flat and not (line and _moves(centred_x) and _moves(centred_y) and singular[0] > EPSILON):
        raise UndefinedMetric(_why_degenerate(centred_x, centred_y))
    mirror = np.ones(3)
    if np.linalg.det(left) * np.linalg.det(right) < 0:
        mirror[2] = -1.0
    rotation = (left * mirror) @ right
    scale = 1.0
    if align == "sim3":
        scale = float((singular * mirror).sum() / (centred_x**2).sum(axis=1).mean())
    return Similarity(rotation, mean_y - scale * rotation @ mean_x, scale)


def _point_pair(
    source: ArrayLike, target: ArrayLike
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    x = np.asarray(source, dtype=np.float64)
    y = np.asarray(target, dtype=np.float64)
    for name, points in (("source", x), ("target", y)):
        if points.ndim != 2 or points.shape[1] != 3:
            raise InvalidArgument(f"{name} has shape {points.shape}, expected (point, 3)")
        if not np.isfinite(points).all():
            bad = int((~np.isfinite(points)).any(axis=1).sum())
            raise UndefinedMetric(
                f"{name} has {bad} of {len(points)} points with NaN or infinity; "
                "drop those frames from both paths first"
            )
    if len(x) != len(y):
        raise InvalidArgument(
            f"source has {len(x)} points and target {len(y)}; they must correspond one to one"
        )
    return x, y


def on_a_line(source: ArrayLike, target: ArrayLike) -> bool:
    """Say whether points share motion along one line alone, so that no rotation is determined."""
    x, y = _point_pair(source, target)
    singular = np.linalg.svd((y - y.mean(0)).T @ (x - x.mean(0)) / len(x), compute_uv=False)
    return bool(singular[1] <= EPSILON * max(1.0, 16 * singular[0]))


def _moves(centred: NDArray[np.float64]) -> bool:
    return bool((centred**2).sum(axis=1).mean() > EPSILON)


def _why_degenerate(centred_x: NDArray[np.float64], centred_y: NDArray[np.float64]) -> str:
    for name, points in (("target (ground truth)", centred_y), ("source (estimate)", centred_x)):
        extent = float(np.linalg.norm(points, axis=1).max())
        spread = np.linalg.svd(points, compute_uv=False)
        if spread[0] ** 2 / len(points) <= EPSILON:
            return (
                f"the {name} camera stands still (it stays within {extent:.3g} of its mean), "
                "so no rotation or scale can be fitted; use align='none' or leave the sequence out"
            )
        if spread[1] <= 1e-7 * spread[0]:
            return (
                f"the {name} camera moves on a straight line, so the rotation about that line is "
                "not determined; use align='none' or leave the sequence out"
            )
    return (
        "the two paths share motion in fewer than two directions, so no rotation can be fitted; "
        "use align='none' or leave the sequence out"
    )
