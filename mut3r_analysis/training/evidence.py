"""Evidence for motion in a score: what the model card and the study of emergence share.

A score may tell moving from resting patches by their looks alone. Two things take that away: what
controls predict of the score by a linear fit, and the twin, in which the same picture has another
past. How well the classes are told apart is counted by `metrics.ranking`.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from mut3r_analysis.scenes import Scene

Array = NDArray[np.floating[Any]]
Mask = NDArray[np.bool_]


def frozen(scene: Scene, at: int) -> Scene:
    """Let every object of a scene rest where it is at a frame, at which both look the same.

    Raises
    ------
    InvalidArgument
        Where a resting object would stand in the camera's way.
    """
    for number in range(1, len(scene.objects) + 1):
        scene = scene.twin(freeze=f"object-{number}", at=at)
    return scene


def without(
    score: NDArray[np.floating[Any]], regressors: NDArray[np.floating[Any]], fit_on: Mask
) -> NDArray[np.floating[Any]]:
    """Residual of a score after linear regression on `regressors` ``(item, column)``.

    The coefficients come from the items `fit_on`; a constant is added.
    """
    design = np.column_stack([np.ones(len(score)), regressors])
    coefficients, *_ = np.linalg.lstsq(design[fit_on], score[fit_on], rcond=None)
    return score - design @ coefficients


def without_controls(score: Array, controls: Array, fit: Mask) -> Array:
    """Take out of a score what controls predict by a linear fit.

    Parameters
    ----------
    score : ndarray
        (..., frame, patch).
    controls : ndarray
        (control, frame, patch).
    fit : ndarray of bool
        (frame, patch): where the fit is made. Fitted where things move, controls that single a
        moving object out, its place for one, would take the motion itself out as well.

    Returns
    -------
    ndarray
        What is left, (..., frame, patch). Every frame has its own level; NaN in frames without
        patches to fit on.
    """
    count = np.where(fit.any(axis=1), fit.sum(axis=1), np.nan)

    def centred(values: Array) -> Array:
        level = np.einsum("...fp,fp->...f", values, fit.astype(np.float64)) / count
        return values.astype(np.float64) - level[..., None]

    rest, columns = centred(score), centred(controls)
    scale = columns[:, fit].std(axis=1)
    columns = columns[scale > 0] / scale[scale > 0, None, None]
    weights = rest[..., fit] @ np.linalg.pinv(columns[:, fit], rcond=1e-6)
    return rest - np.einsum("...k,kfp->...fp", weights, columns, optimize=True)
