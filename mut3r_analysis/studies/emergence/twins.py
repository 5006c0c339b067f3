"""Frozen twins: the same picture now, after another past."""

import json

import numpy as np
import xarray as xr

from mut3r_analysis.errors import InvalidArgument
from mut3r_analysis.metrics.ranking import area, wins
from mut3r_analysis.scenes import Scene
from mut3r_analysis.sequences import open_sequence
from mut3r_analysis.training.evidence import frozen

LEAST_TWIN_PAIRS = 4
"""Two moving patches: the same patches stand on both sides, so few pairs tell more."""


def frozen_twin(sequence: xr.Dataset, frame: int) -> xr.Dataset:
    """Render a sequence with every object at rest where it is in one frame.

    Parameters
    ----------
    sequence : Dataset
        Of a procedural scene.
    frame : int
        Label of a frame. There both pictures are the same, pixel by pixel.

    Returns
    -------
    Dataset
        The sequence of the twin.

    Raises
    ------
    InvalidArgument
        When it is no procedural scene, or resting objects would stand in the camera's way.
    """
    if "scene" not in sequence.attrs:
        raise InvalidArgument(
            f"{sequence.attrs.get('name')!r} is no procedural scene: only those can be rendered "
            "with another past; give a name such as 'scenes/orbit-03' or 'scenes:seed=7'"
        )
    twin = frozen(Scene.from_dict(json.loads(sequence.attrs["scene"])), frame)
    size = (sequence.sizes["x"], sequence.sizes["y"])
    rendered = twin.render(size, supersample=int(sequence.attrs.get("supersample", 1)))
    return open_sequence(rendered.sel(frame=sequence["frame"].values), name=twin.name)


def twin_frames(truth: xr.Dataset, most: int) -> list[int]:
    """Choose frames to compare: at most so many, evenly spread, in which patches move.

    Parameters
    ----------
    truth : Dataset
        With ``moving`` (frame, patch), if the motion is known at all.
    most : int

    Returns
    -------
    list of int
        Positions, later than the first frame, which has no past.
    """
    if "moving" not in truth or most < 1:
        return []
    places = 1 + np.flatnonzero(truth["moving"].values[1:].any(axis=1))
    if not len(places):
        return []
    # From the last backwards: the longest past comes first.
    picks = np.linspace(len(places) - 1, 0, most + 1)[:most].round().astype(int)
    return sorted({int(places[pick]) for pick in picks})


def twin_evidence(
    pairs: list[tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]],
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Tell what the past alone does to readings, over all twin frames of a sequence.

    Parameters
    ----------
    pairs : list of (own, other, moving, still)
        Per frame the readings (..., patch) of the scene and of its twin, and which patches move
        or are still in the scene, (patch,) bool.

    Returns
    -------
    separation : ndarray
        (...), AUC of moving patches against the same patches in the twin, where they have always
        rested.
    locality : ndarray
        AUC of the change between twins: moving patches against the still ones of that frame.
    change : ndarray
        Mean change of moving patches, in standard deviations of the reading over the frame.
    """
    separated, concentrated, changes = [], [], []
    counts = np.array(
        [[moving.sum() ** 2, moving.sum() * still.sum()] for *_, moving, still in pairs]
    )
    for own, other, moving, still in pairs:
        change = own - other
        separated.append(wins(own[..., moving], other[..., moving]))
        concentrated.append(wins(change[..., moving], change[..., still]))
        spread = own.std(axis=-1)
        mean = change[..., moving].mean(axis=-1)
        changes.append(np.divide(mean, spread, out=np.zeros_like(mean), where=spread > 0))
    separation = area(np.stack(separated, axis=-1), counts[:, 0], LEAST_TWIN_PAIRS)
    locality = area(np.stack(concentrated, axis=-1), counts[:, 1])
    return separation, locality, np.mean(changes, axis=0)
