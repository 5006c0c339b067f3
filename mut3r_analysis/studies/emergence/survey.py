"""Evidence for motion in attention: every reading, site, layer and head of many sequences.

One pass over a sequence answers for all of them; its twins, which show what the past does, go
through the backbone in the same batch.
"""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any
from zlib import crc32

import numpy as np
import torch
import xarray as xr
from numpy.typing import NDArray
from tqdm.auto import tqdm

from mut3r_analysis.backbones.protocol import Backbone
from mut3r_analysis.errors import InvalidArgument
from mut3r_analysis.foundation.labelling import beside, described
from mut3r_analysis.metrics.ranking import area, frame_wins
from mut3r_analysis.motion import Cue
from mut3r_analysis.sequences import open_sequence
from mut3r_analysis.studies.emergence.observation import SITES, Observed, observe, prepared
from mut3r_analysis.studies.emergence.readings import (
    MEAN_HEAD,
    OVER_TIME,
    SIGNS,
    corner_rank,
    patch_readings,
    sink_shares,
)
from mut3r_analysis.studies.emergence.truth import CONTROLS, control_columns, patch_truth
from mut3r_analysis.studies.emergence.twins import frozen_twin, twin_evidence, twin_frames
from mut3r_analysis.training.evidence import without_controls

Array = NDArray[np.floating[Any]]
Labels = dict[str, tuple[NDArray[np.bool_], NDArray[np.bool_]]]

WHOLE, OBJECTS = "whole image", "against resting objects"
TWIN, LOCAL = "against twins at rest", "change between twins"
PERMUTED = "permuted labels"
CONTROLS_OUT = {test: f"{test}, controls out" for test in (WHOLE, OBJECTS)}

TESTS = {
    WHOLE: "moving patches against all still ones",
    CONTROLS_OUT[WHOLE]: "the same, after a linear fit on the controls is taken out",
    OBJECTS: "moving patches against those of resting objects",
    CONTROLS_OUT[OBJECTS]: "the same, after a linear fit on the controls is taken out",
    TWIN: "moving patches against the same patches with another past, in which they rested",
    LOCAL: "change between twins: moving patches against still ones",
    PERMUTED: "the whole image with labels permuted among the patches of each frame",
}
"""Each is an area under a ROC curve whose pairs are formed within frames; 0.5 is chance."""

PLACE = "place"

_LABELS = {
    "auc": ("area under the ROC curve (AUC)", "1"),
    "frame_auc": ("AUC against resting objects", "1"),
    "change": ("change between twins", "SD"),
    "cue_auc": ("area under the ROC curve (AUC)", "1"),
    "cue_change": ("change of the cue between twins", "SD"),
    "control_auc": ("area under the ROC curve (AUC)", "1"),
    "sink": ("attention received, times an even share", "1"),
    "corner_rank": ("rank of patch (0, 0) by the cue's motion score", "1"),
    "truth": ("ground truth that was known", "1"),
    "n_frames": ("frames seen", "1"),
    "n_twins": ("frames compared with a twin", "1"),
    "n_moving": ("moving patches per frame", "1"),
    "n_resting": ("resting patches of objects per frame", "1"),
}


def survey(
    backbone: Backbone,
    sequences: Sequence[str],
    *,
    frames: int | None = None,
    twins: int = 1,
    cue: Cue | None = None,
    batch: int = 8,
    progress: bool = True,
) -> xr.Dataset:
    """Measure the evidence in many sequences.

    Parameters
    ----------
    backbone : Backbone
    sequences : sequence of str
        As for :func:`~mut3r_analysis.open_sequence`, all different. The first frame of each has no
        past and is not scored.
    frames : int, optional
        At most so many of each.
    twins : int
        At most so many frames of a procedural scene are compared with a frozen twin.
    cue : Cue, optional
        Scored beside the readings; :meth:`Cue.mut3r` unless given.
    batch : int
        Sequences watched at once where they are equally large and long.
    progress : bool

    Returns
    -------
    Dataset
        By ``sequence``, in their order; what a sequence cannot tell is NaN, and what none can is
        absent. ``auc`` (sequence, test, site, reading, layer, head) for :data:`TESTS`, readings
        unsigned; ``frame_auc`` (sequence, past, site, ...), the test "objects" frame by frame;
        ``change`` (sequence, site, ...) between twins in standard deviations of the reading;
        ``cue_auc`` (sequence, test) and ``cue_change`` of the cue; ``control_auc`` (sequence,
        test, control); ``sink`` and ``corner_rank`` as in
        `sinks`; ``truth``, what was known; counts.
    """
    sequences = list(sequences)
    if not sequences or len(set(sequences)) < len(sequences):
        raise InvalidArgument(f"give at least one sequence, all different; got {sequences}")
    cue = Cue.mut3r() if cue is None else cue
    opened = {name: open_sequence(name, stop=frames) for name in sequences}
    truths = {name: patch_truth(backbone, video) for name, video in opened.items()}
    parts: dict[str, xr.Dataset] = {}
    with tqdm(total=len(sequences), unit="sequence", disable=not progress) as bar:
        for group in _batches(backbone, opened, batch):
            clips: dict[tuple[str, int], torch.Tensor] = {}
            for name in group:
                video, truth = opened[name], truths[name]
                clips[name, -1] = prepared(backbone, video)
                for at in twin_frames(truth, twins) if "scene" in video.attrs else []:
                    # Without a twin where resting objects would stand in the camera's way.
                    with suppress(InvalidArgument):
                        twin = frozen_twin(video, int(truth["frame"][at]))
                        clips[name, at] = prepared(backbone, twin)
            watched = observe(backbone, torch.stack(list(clips.values())), cue)
            seen = dict(zip(clips, watched, strict=True))
            for name in group:
                others = [(at, each) for (own, at), each in seen.items() if own == name and at >= 0]
                parts[name] = clip_evidence(seen[name, -1], truths[name], others)
            bar.update(len(group))
    found = beside({name: parts[name] for name in sequences}, "sequence").sel(site=list(SITES))
    if "control_auc" in found:
        place = place_auc(list(truths.values()))
        both = xr.concat([found["control_auc"], place], "control", join="outer")
        found = found.drop_vars(["control", "control_auc"]).assign(control_auc=both)
    return described(found, _LABELS).assign_attrs(backbone=backbone.origin.name, cue=str(cue))


def clip_evidence(
    own: Observed, truth: xr.Dataset, twins: Sequence[tuple[int, Observed]] = ()
) -> xr.Dataset:
    """Measure the evidence in one clip, given what was observed in it and in its twins.

    Parameters
    ----------
    own : Observed
    truth : Dataset
        Of `patch_truth`.
    twins : sequence of (int, Observed)
        The position at which a twin shows the same picture, and what was observed in the twin.

    Returns
    -------
    Dataset
        As :func:`survey`, for one sequence; without a motion mask only the sinks.
    """
    found = xr.Dataset(
        {
            "sink": sink_shares(own),
            "corner_rank": corner_rank(own.motion),
            "n_frames": truth.sizes["frame"],
            "truth": "none",
        }
    )
    if "moving" not in truth or truth.sizes["frame"] < 2:
        return found
    scored = truth.isel(frame=slice(1, None))
    labels = _labels(scored)
    places = [at for at, _ in twins]
    parts = {}
    for site in SITES:
        readings = patch_readings(own, site)
        values = readings.values
        # What looks at earlier frames itself differs between twins whatever the memory holds.
        others = [patch_readings(twin, site).values for _, twin in twins]
        for other in others:
            other[readings["reading"].isin(OVER_TIME).values] = np.nan
        auc, change = score_evidence(values, truth, list(zip(places, others, strict=True)))
        cells = readings.isel(frame=0, patch=0, drop=True).drop_attrs()
        part = {
            "auc": cells.expand_dims(test=list(TESTS)).copy(data=auc),
            "change": cells.copy(data=change),
        }
        if OBJECTS in labels:
            won, pairs = frame_wins(values[..., 1:, :], *labels[OBJECTS])
            each = np.divide(won, pairs, out=np.full(won.shape, np.nan), where=pairs > 0)
            past = np.arange(1, values.shape[-2])
            part["frame_auc"] = cells.expand_dims(past=past, axis=-1).copy(data=each)
        parts[site] = xr.Dataset(part)
    found = found.merge(_joined(parts))
    auc, change = score_evidence(own.motion, truth, [(at, twin.motion) for at, twin in twins])
    found["cue_auc"] = ("test", auc)
    found["cue_change"] = float(change)
    controls = [name for name in CONTROLS if name in scored]
    rows = [_tested(scored[name].values, labels, None, [])[0] for name in controls]
    found["control_auc"] = xr.DataArray(rows, {"control": controls}, ("control", "test"))
    found["n_twins"] = len(twins)
    found["n_moving"] = scored["moving"].sum("patch").mean().item()
    known = ["motion mask"]
    if OBJECTS in labels:
        known.append("instances")
        found["n_resting"] = scored["resting"].sum("patch").mean().item()
    return found.assign(truth=", ".join([*known, "twin"] if twins else known))


def score_evidence(
    score: Array, truth: xr.Dataset, twins: Sequence[tuple[int, Array]] = ()
) -> tuple[Array, Array]:
    """Measure the evidence in scores.

    Parameters
    ----------
    score : ndarray
        (..., frame, patch); the first frame has no past and is not scored.
    truth : Dataset
        Of `patch_truth`, with a motion mask and at least two frames.
    twins : sequence of (int, ndarray)
        The position at which a twin shows the same picture, and the twin's scores.

    Returns
    -------
    (ndarray, ndarray)
        AUC (test, ...) by :data:`TESTS`, NaN where it cannot be told, and the change (...) between
        twins in standard deviations.
    """
    scored = truth.isel(frame=slice(1, None))
    moving, still = truth["moving"].values, truth["still"].values
    pairs = [(score[..., at, :], other[..., at, :], moving[at], still[at]) for at, other in twins]
    return _tested(score[..., 1:, :], _labels(scored), control_columns(scored), pairs)


def place_auc(truths: Sequence[xr.Dataset]) -> xr.DataArray:
    """How well the place alone tells moving patches, learned from all other sequences.

    Parameters
    ----------
    truths : sequence of Dataset
        Of `patch_truth`; grids may differ.

    Returns
    -------
    DataArray
        (sequence, control, test): the score of a patch is how often that place, relative to the
        picture, moves in the other sequences.
    """
    known = {
        index: truth.isel(frame=slice(1, None))
        for index, truth in enumerate(truths)
        if "moving" in truth and truth.sizes["frame"] > 1
    }
    found = np.full((len(truths), 1, len(TESTS)), np.nan)
    for index, truth in known.items():
        others = [_places(other, truth) for each, other in known.items() if each != index]
        if others:
            prior = np.broadcast_to(np.mean(others, axis=0), truth["moving"].shape)
            found[index, 0] = _tested(prior, _labels(truth), None, [])[0]
    coords = {"control": [PLACE], "test": list(TESTS)}
    return xr.DataArray(found, coords, ("sequence", "control", "test"))


def _batches(backbone: Backbone, opened: Mapping[str, xr.Dataset], most: int) -> list[list[str]]:
    """Group the names of sequences that can be watched together."""
    groups: dict[tuple[int, ...], list[str]] = {}
    for name, sequence in opened.items():
        shape = backbone.preparation.shape(sequence.sizes["y"], sequence.sizes["x"])
        groups.setdefault((*shape, sequence.sizes["frame"]), []).append(name)
    most = max(1, most)
    return [
        group[first : first + most]
        for group in groups.values()
        for first in range(0, len(group), most)
    ]


def _labels(truth: xr.Dataset) -> Labels:
    """Positive and negative patches ``(frame, patch)`` of the tests on one picture."""
    moving, still = truth["moving"].values, truth["still"].values
    labels = {WHOLE: (moving, still)}
    if "resting" in truth:
        labels[OBJECTS] = (moving, truth["resting"].values)
    # Seeded by the truth: repeatable, and not the same places in every sequence.
    deal = np.random.default_rng(crc32(moving.tobytes()))
    order = deal.permuted(np.broadcast_to(np.arange(moving.shape[1]), moving.shape), axis=1)
    shuffled = [np.take_along_axis(each, order, axis=1) for each in labels[WHOLE]]
    return labels | {PERMUTED: (shuffled[0], shuffled[1])}


def _tested(
    score: Array,
    labels: Labels,
    columns: Array | None,
    twins: list[tuple[Array, Array, Array, Array]],
) -> tuple[Array, Array]:
    """AUC ``(test, ...)`` of scores ``(..., frame, patch)``, and their change between twins."""
    change = missing = np.full(score.shape[:-2], np.nan)
    results = {test: area(*frame_wins(score, *pair)) for test, pair in labels.items()}
    if columns is not None:
        rest = without_controls(score, columns, labels[WHOLE][1])
        for test in labels.keys() & CONTROLS_OUT.keys():
            results[CONTROLS_OUT[test]] = area(*frame_wins(rest, *labels[test]))
    if twins:
        results[TWIN], results[LOCAL], change = twin_evidence(twins)
    return np.stack([results.get(test, missing) for test in TESTS]), change


def _joined(sites: dict[str, xr.Dataset]) -> xr.Dataset:
    """Put sites with different layers, heads and readings beside each other."""
    joined = beside(sites, "site", combine_attrs="drop")
    heads = sorted(set(joined["head"].values.tolist()) - {MEAN_HEAD}, key=int)
    readings = [label for label in SIGNS if label in joined["reading"].values]
    return joined.sel(site=list(sites), head=[MEAN_HEAD, *heads], reading=readings)


def _places(truth: xr.Dataset, like: xr.Dataset) -> Array:
    """How often each place moves, ``(patch,)`` on the grid of another sequence (nearest patch)."""
    grid, wanted = truth.attrs["grid"], like.attrs["grid"]
    picks = [((np.arange(n) + 0.5) * size / n).astype(int)
             for size, n in zip(grid, wanted, strict=True)]  # fmt: skip
    share = truth["moving"].values.mean(axis=0).reshape(grid)
    return share[np.ix_(*picks)].ravel()
