"""Forked replay: from one moment of a run, two futures that differ in one decision."""

import json
from collections.abc import Collection
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import xarray as xr

from mut3r_analysis.attention.seam import Observer
from mut3r_analysis.backbones.geometry import pose_matrix
from mut3r_analysis.backbones.heads import Prediction, check_outputs
from mut3r_analysis.backbones.in_memory import as_in_memory
from mut3r_analysis.backbones.protocol import Backbone, StateVariable
from mut3r_analysis.errors import InvalidArgument
from mut3r_analysis.foundation.fields import one_of
from mut3r_analysis.motion.patch import Patching
from mut3r_analysis.motion.readings import INSTABILITY
from mut3r_analysis.running.batch import Batch
from mut3r_analysis.running.configuration import Configuration
from mut3r_analysis.running.inputs import check_inputs, frame_inputs, identified
from mut3r_analysis.running.loop import stream
from mut3r_analysis.running.opening import label
from mut3r_analysis.running.passes import BatchState, FrameResult
from mut3r_analysis.running.provenance import callable_name, frames_digest
from mut3r_analysis.running.schema import state_group

AS_RUN: Any = "as run"
"""Stands for what the run itself had."""


def fork(
    run: xr.DataTree,
    at: int,
    *,
    backbone: Backbone | str | Path,
    sequence: xr.Dataset | str | Path,
    cue: Any = AS_RUN,
    gate: Any = AS_RUN,
    commit: Any = AS_RUN,
    content: xr.Dataset | None = None,
    frames: int | None = None,
    outputs: Collection[str] | None = None,
    intervene: Observer | Patching | None = AS_RUN,
) -> xr.Dataset:
    """Branch off a run at a frame, and compare the future it had with another one.

    The state before frame `at` is taken from the run where it holds it (``Capture(state=True)``)
    and nothing else was carried; otherwise the frames before are replayed without their heads.
    From there both futures are computed, so that a fork that changes nothing differs by nothing.

    Parameters
    ----------
    run : xarray.DataTree
    at : int
        Label of the first frame that may differ, as in the run's ``frame`` coordinate.
    backbone, sequence
        Those of the run.
    cue, gate, commit
        Of the forked future; left out, the run's own. None is none.
    content : xarray.Dataset, optional
        A sequence whose frames the forked future sees instead, position by position: a twin of the
        scene, say, or the same frames with something painted over.
    frames : int, optional
        Follow so many frames; None follows to the end.
    outputs : collection of str, optional
        Predictions to compare, among ``pose``, ``depth`` and ``points_world``; state and memory are
        always. None compares pose and depth, or the points of a model that predicts neither.
    intervene : callable, optional
        What replaces outputs of sites in the forked future, as for :func:`~mut3r_analysis.run`.
        A run that had one of its own can be forked from a kept state alone, by giving it here
        again; its own future is then computed with it.

    Returns
    -------
    xarray.Dataset
        From frame `at` on: ``state_distance`` (frame, state_token) and ``memory_distance`` (frame,
        slot), norms of the difference; ``translation_distance`` (frame) m and ``rotation_distance``
        (frame) degrees between the poses; ``depth_distance`` (frame, y, x) m, absolute;
        ``points_distance`` (frame, y, x) m. Tokens of a memory that grows are those it had at the
        fork; one that has left it since is at NaN. Attributes name both configurations.

    Raises
    ------
    InvalidArgument
        For a frame, backbone or sequence that is not the run's, or for content that does not fit.

    Examples
    --------
    >>> forked = fork(gated, 1, backbone="tiny", sequence=sequence, gate=None)
    >>> forked["depth_distance"].sizes
    Frozen({'frame': 2, 'y': 48, 'x': 64})
    """
    backbone, sequence = check_inputs(backbone, sequence, None)
    backbone = as_in_memory(backbone)
    sequence = identified(sequence)
    check_same(run, backbone, sequence)
    names = _compared(outputs, backbone)
    start = _position(sequence, at)
    stop = sequence.sizes["frame"] if frames is None else start + frames
    if not start < stop <= sequence.sizes["frame"]:
        raise InvalidArgument(
            f"frames = {frames} from frame {at} on do not fit: the sequence has "
            f"{sequence.sizes['frame'] - start} there"
        )
    seen = _checked_content(sequence, content)
    base = Configuration.of_run(dict(run.attrs))
    given = {"cue": cue, "gate": gate, "commit": commit}
    changes = {name: value for name, value in given.items() if value is not AS_RUN}
    forked = Configuration(**{"cue": base.cue, "gate": base.gate, "commit": base.commit} | changes)
    own, other = _interventions(run, intervene)
    batches = []
    for configuration, its, acting in ((base, sequence, own), (forked, seen, other)):
        computed = {*names, *configuration.carries_heads}
        configuration.check(backbone, its, computed)
        batches.append(Batch(backbone, [configuration], outputs=computed, intervene=acting))
    carried = _snapshot(run, batches[0], sequence, start)
    branched = carried
    if content is not None and backbone.looks_ahead and start:
        branched = _looking_at(run, batches[0], sequence, content, start)
    # A cue of another kind has no memory of the frames before, and starts to remember here.
    if forked.cue != base.cue:
        new = batches[1].carry(branched.state, branched.age)
        branched = replace(branched, cue=new.cue, scored=new.scored)
    futures = [
        stream(
            [batch],
            frame_inputs(backbone, its, batch.configurations, start=start, stop=stop),
            [state],
        )
        for batch, its, state in zip(batches, (sequence, seen), (carried, branched), strict=True)
    ]
    shared = backbone.token_ids(carried.state)
    rows = []
    for (first,), (second,) in zip(*futures, strict=True):
        with batches[0].computing():
            rows.append(_distances(backbone, first, second, shared, names))
    found = {name: np.stack([row[name] for row in rows]) for name in rows[0]}
    followed = sequence.isel(frame=slice(start, stop))
    return _labelled(found, followed, backbone, run, {"base": base, "fork": forked}, content)


def _compared(outputs: Collection[str] | None, backbone: Backbone) -> tuple[str, ...]:
    """Return the predictions that are compared."""
    if outputs is None:
        outputs = {"pose", "depth"} & set(backbone.outputs) or {"points_world"}
    names = check_outputs(outputs, backbone.outputs)
    for name in names:
        one_of("an output that fork compares", name, ("pose", "depth", "points_world"))
    return names


def _interventions(run: xr.DataTree, given: Any) -> tuple[Any, Any]:
    """Return the callables that act in the run's own future and in the forked one."""
    name = run.attrs.get("intervene")
    if name is None:
        return None, None if given is AS_RUN else given
    if given is AS_RUN or callable_name(given) != name:
        raise InvalidArgument(
            f"the run was made with intervene = {name}, which its store cannot hold; give the same "
            "callable to fork it"
        )
    return given, given


def _snapshot(run: xr.DataTree, batch: Batch, sequence: xr.Dataset, start: int) -> BatchState:
    """Return what the run carried into the frame at a position."""
    backbone, (base,) = batch.backbone, batch.configurations
    held = run["state"].to_dataset() if "state" in run.children else xr.Dataset()
    names = [item.name for item in backbone.state_variables((1, 1), 1)]
    stored = bool(_kept(backbone)) and set(names) <= set(held)
    whole = start and stored and start <= held.sizes["frame"]
    if whole and not _remembers(backbone, base):
        last = held.isel(frame=start - 1)
        values = {name: torch.from_numpy(np.array(last[name].values)) for name in names}
        every = base.commit.reset
        age = start % every if isinstance(every, int) else start
        return batch.carry(backbone.restore(values, age, batch.restarts[0]), (age,))
    replay = Batch(backbone, [base], outputs=base.carries_heads, intervene=batch.intervene)
    carried = replay.start()
    inputs = frame_inputs(backbone, sequence, replay.configurations, stop=start)
    for (result,) in stream([replay], inputs):
        carried = result.carried
    return carried


def _looking_at(
    run: xr.DataTree, batch: Batch, sequence: xr.Dataset, content: xr.Dataset, start: int
) -> BatchState:
    """Return what is carried into a frame of other content, which the frame before looked at."""
    carried = _snapshot(run, batch, sequence, start - 1)
    sources = ((sequence, start - 1), (content, start))
    before, ahead = (
        next(frame_inputs(batch.backbone, source, batch.configurations, start=position))
        for source, position in sources
    )
    inputs = (before, replace(ahead, ahead=True))
    ((result,),) = stream([batch], inputs, [carried])
    return result.carried


def _remembers(backbone: Backbone, base: Configuration) -> bool:
    """Whether more than state and memory is carried from frame to frame."""
    commit = base.commit
    if backbone.rules.times([commit.rate]).remember or commit.reset_chain or commit.trigger:
        return True
    if base.cue is None:
        return False
    source = base.cue.source
    return (
        source.startswith("previous")
        or base.cue.reading == INSTABILITY
        or base.cue.across_frames
        or base.cue.casts_rays
        or base.cue.running is not None
        or (base.cue.control or "").startswith("shift")
    )


def _distances(
    backbone: Backbone,
    one: FrameResult,
    other: FrameResult,
    shared: torch.Tensor,
    names: Collection[str],
) -> dict[str, np.ndarray]:
    states = [
        each.carried.state.described(each.before, each.rate, keep=True) for each in (one, other)
    ]
    found = {}
    for name, variable in _kept(backbone).items():
        first, second = (state[variable.name] for state in states)
        if backbone.state_grows and backbone.state_dim in variable.sizes:
            # Of a memory that grows, what either future adds has no counterpart in the other.
            first, second = (
                _matched(values, backbone.token_ids(each.carried.state), shared)
                for values, each in ((first, one), (second, other))
            )
        found[name] = (second - first).norm(dim=-1)
    a, b = one.prediction, other.prediction
    if "pose" in names and a.pose is not None and b.pose is not None:
        found |= _pose_distances(a, b)
    if a.points_self is not None and b.points_self is not None:
        found["depth_distance"] = (b.points_self[..., 2] - a.points_self[..., 2]).abs()
    if "points_world" in names and a.points_world is not None and b.points_world is not None:
        found["points_distance"] = (b.points_world - a.points_world).norm(dim=-1)
    return {name: value[0].cpu().numpy() for name, value in found.items()}


def _matched(values: torch.Tensor, ids: torch.Tensor, wanted: torch.Tensor) -> torch.Tensor:
    """Values ``(batch, token, ...)`` of the wanted tokens; NaN for those that are gone."""
    same = wanted[:, None] == ids
    there = same.any(dim=1)
    found = values.new_full((len(values), len(wanted), *values.shape[2:]), torch.nan)
    found[:, there] = values[:, same[there].int().argmax(dim=1)]
    return found


def _kept(backbone: Backbone) -> dict[str, StateVariable]:
    """Name of a distance -> the kept variable of the state that it compares."""
    return {
        ("state" if item.name == "tokens" else item.name) + "_distance": item
        for item in backbone.state_variables((1, 1), 1)
        if item.kept
    }


def _pose_distances(a: Prediction, b: Prediction) -> dict[str, torch.Tensor]:
    first, second = (pose_matrix(each.pose).double() for each in (a, b) if each.pose is not None)
    turn = second[:, :3, :3] - first[:, :3, :3]
    # The chord between two rotations is 2 sqrt(2) sin(angle / 2): exact for small angles, where
    # the arc cosine of a trace has lost all digits.
    half = (turn.flatten(1).norm(dim=1) / 8**0.5).clamp(max=1)
    return {
        "translation_distance": (second[:, :3, 3] - first[:, :3, 3]).norm(dim=-1),
        "rotation_distance": torch.rad2deg(2 * half.asin()),
    }


_VARIABLES = {
    "state_distance": ("norm of the difference of the state token", "1"),
    "memory_distance": ("norm of the difference of the pose-memory slot", "1"),
    "places_distance": ("distance between the places of the patch", "m"),
    "translation_distance": ("distance between camera positions", "m"),
    "rotation_distance": ("angle between camera orientations", "degree"),
    "depth_distance": ("absolute difference of depth", "m"),
    "points_distance": ("distance between the points of the pixel in the world", "m"),
}


def _labelled(
    found: dict[str, np.ndarray],
    sequence: xr.Dataset,
    backbone: Backbone,
    run: xr.DataTree,
    configurations: dict[str, Configuration],
    content: xr.Dataset | None,
) -> xr.Dataset:
    frames = sequence["frame"].values
    grid = backbone.patch_grid(
        *backbone.preparation.shape(sequence.sizes["y"], sequence.sizes["x"])
    )
    source = f"fork of {run.attrs['sequence']['name']} at frame {frames[0]}"
    variables = {}
    for name, values in found.items():
        dims = _dims(name, backbone)
        long_name, units = _VARIABLES.get(name) or _described(_kept(backbone)[name])
        described = {"long_name": long_name, "units": units, "source": source}
        variables[name] = (("frame", *dims), values, described)
    attrs: dict[str, Any] = {
        name: json.dumps(configuration.to_dict(), sort_keys=True)
        for name, configuration in configurations.items()
    }
    attrs |= {
        "at": int(frames[0]),
        "sequence": run.attrs["sequence"]["name"],
        "content": "" if content is None else str(content.attrs.get("name", "other frames")),
        "backbone": backbone.origin.name,
    }
    lattice = {
        variable.name: (variable.dims, variable.values, {"labels": variable.labels})
        if variable.labels
        else (variable.dims, variable.values)
        for variable in state_group(backbone, grid, 1).variables.values()
        if not backbone.state_grows
    }
    return label(xr.Dataset(variables, {"frame": frames, **lattice}, attrs))


def _described(variable: StateVariable) -> tuple[str, str]:
    """Say what a distance between values of the state is, and its units."""
    return f"norm of the difference of {variable.long_name}", variable.units


def _dims(name: str, backbone: Backbone) -> tuple[str, ...]:
    if name in ("depth_distance", "points_distance"):
        return ("y", "x")
    kept = _kept(backbone)
    return tuple(kept[name].sizes)[:-1] if name in kept else ()


def _position(sequence: xr.Dataset, at: int) -> int:
    found = np.flatnonzero(sequence["frame"].values == at)
    if not len(found):
        first, last = sequence["frame"].values[[0, -1]]
        raise InvalidArgument(
            f"there is no frame {at} in this run; its frames are labelled {first} to {last}"
        )
    return int(found[0])


def check_same(run: xr.DataTree, backbone: Backbone, sequence: xr.Dataset) -> None:
    """Refuse a backbone or a sequence that is not that of a run.

    Raises
    ------
    InvalidArgument
    """
    recorded = run.attrs["backbone"]
    if (recorded["sha256"], recorded["update"]) != (backbone.origin.sha256, backbone.update):
        raise InvalidArgument(
            f"the run is of the backbone {recorded['name']!r} with update={recorded['update']!r}, "
            f"not of {backbone.origin.name!r} with update={backbone.update!r}; load that one"
        )
    known = run.attrs["sequence"]
    if known["frames_sha256"] != frames_digest(sequence):
        raise InvalidArgument(
            f"the run is of {run.attrs['frames']} frames of {known['name']!r}, and these are "
            "others; open the sequence as it was run"
        )


def _checked_content(sequence: xr.Dataset, content: xr.Dataset | None) -> xr.Dataset:
    if content is None:
        return sequence
    sizes = [{dim: each.sizes[dim] for dim in ("frame", "y", "x")} for each in (sequence, content)]
    if sizes[0] != sizes[1]:
        raise InvalidArgument(
            f"content must have as many frames of the same size as the run's sequence: "
            f"{sizes[0]}; got {sizes[1]}"
        )
    return content
