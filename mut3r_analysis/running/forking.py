"""Forked replay: from one moment of a run, two futures that differ in one decision."""

import json
from collections.abc import Collection
from typing import Any

import numpy as np
import torch
import xarray as xr

from mut3r_analysis.backbones.cut3r import CUT3R, State
from mut3r_analysis.backbones.geometry import pose_matrix
from mut3r_analysis.backbones.heads import Prediction, check_outputs
from mut3r_analysis.backbones.write_rules import WRITE_RULES
from mut3r_analysis.errors import InvalidArgument
from mut3r_analysis.motion.readings import INSTABILITY
from mut3r_analysis.running.branch import Branch, look
from mut3r_analysis.running.configuration import Configuration
from mut3r_analysis.running.inputs import check_inputs, identified
from mut3r_analysis.running.opening import label
from mut3r_analysis.running.passes import Carried, Outcome
from mut3r_analysis.running.provenance import frames_digest
from mut3r_analysis.running.schema import state_group
from mut3r_analysis.running.streaming import masks_for, prepared

AS_RUN: Any = "as run"
"""Stands for what the run itself had."""


def fork(
    run: xr.DataTree,
    at: int,
    *,
    backbone: CUT3R,
    sequence: xr.Dataset,
    cue: Any = AS_RUN,
    gate: Any = AS_RUN,
    commit: Any = AS_RUN,
    content: xr.Dataset | None = None,
    frames: int | None = None,
    outputs: Collection[str] = ("pose", "depth"),
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
    outputs : collection of str
        Predictions to compare, among ``pose`` and ``depth``; state and memory are always.

    Returns
    -------
    xarray.Dataset
        From frame `at` on: ``state_distance`` (frame, state_token) and ``memory_distance`` (frame,
        slot), norms of the difference; ``translation_distance`` (frame) m and ``rotation_distance``
        (frame) degrees between the poses; ``depth_distance`` (frame, y, x) m, absolute. Attributes
        name both configurations.

    Raises
    ------
    InvalidArgument
        For a frame, backbone or sequence that is not the run's, or for content that does not fit.
    """
    check_inputs(backbone, sequence, None)
    sequence = identified(sequence)
    _check_same(run, backbone, sequence)
    names = check_outputs(outputs, backbone.config.rgb_head)
    unknown = sorted(set(names) - {"pose", "depth"})
    if unknown:
        raise InvalidArgument(f"fork compares 'pose' and 'depth'; got {unknown} beside")
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
    branches = []
    for configuration, its in ((base, sequence), (forked, seen)):
        computed = {*names, "points_world"} if configuration.reads_head else names
        configuration.check(backbone, its, computed)
        branches.append(Branch(backbone, [configuration], outputs=computed))
    carried = _snapshot(run, backbone, sequence, base, start)

    futures = [(branches[0], sequence, carried), (branches[1], seen, carried)]
    # A cue of another kind has no memory of the frames before, and starts to remember here.
    if forked.cue != base.cue:
        branch = futures[1][0]
        futures[1] = (branch, seen, branch.carry(carried.state, carried.age))
    rows = []
    for position in range(start, stop):
        outcomes: list[Outcome] = []
        for number, (branch, its, before) in enumerate(futures):
            outcome = _step(branch, its, before, position)
            futures[number] = (branch, its, outcome.carried)
            outcomes.append(outcome)
        rows.append(_distances(*outcomes))
    found = {name: np.stack([row[name] for row in rows]) for name in rows[0]}
    labels = sequence["frame"].values[start:stop]
    return _labelled(found, labels, backbone, run, {"base": base, "fork": forked}, content)


def _step(branch: Branch, sequence: xr.Dataset, carried: Carried, position: int) -> Outcome:
    frame = sequence.isel(frame=position)
    sight = look(
        [branch],
        prepared(branch.backbone, frame),
        position=position,
        masks=masks_for(branch.configurations, branch.backbone, frame),
    )
    return branch.step(sight, carried, measured=sight.measured[0], record=False)


def _snapshot(
    run: xr.DataTree, backbone: CUT3R, sequence: xr.Dataset, base: Configuration, start: int
) -> Carried:
    """Return what the run carried into the frame at a position."""
    # The heads are run only where the cue reads them.
    heads = ("points_world",) if base.reads_head else ()
    branch = Branch(backbone, [base], outputs=heads)
    held = run["state"].to_dataset() if "state" in run.children else xr.Dataset()
    whole = start and "tokens" in held and start <= held.sizes["frame"]
    if whole and not _remembers(backbone, base):
        return branch.carry(*_held_state(held, backbone, base, start))
    carried = branch.start()
    for position in range(start):
        carried = _step(branch, sequence, carried, position).carried
    return carried


def _remembers(backbone: CUT3R, base: Configuration) -> bool:
    """Whether more than state and memory is carried from frame to frame."""
    if backbone.update == "ttsa3r" or "ttsa3r" in base.commit.rates:
        return True
    if base.cue is None:
        return False
    source = base.cue.source
    return (
        source.startswith("previous")
        or base.cue.reading == INSTABILITY
        or base.cue.running is not None
        or (base.cue.control or "").startswith("shift")
    )


def _held_state(
    held: xr.Dataset, backbone: CUT3R, base: Configuration, start: int
) -> tuple[State, tuple[int, ...]]:
    last = held.isel(frame=start - 1)
    tokens, memory = (
        torch.from_numpy(np.array(last[name].values))[None].to(backbone.device, backbone.dtype)
        for name in ("tokens", "memory")
    )
    commit = base.commit
    age = start if commit.reset is None else start % commit.reset
    restarts = WRITE_RULES[backbone.update].restart
    if commit.reset_pose is not None:
        restarts = commit.reset_pose == "learned"
    fresh = torch.tensor([age == 0 and restarts], device=backbone.device)
    return State(tokens, memory, fresh), (age,)


def _distances(one: Outcome, other: Outcome) -> dict[str, np.ndarray]:
    states = [outcome.carried.state for outcome in (one, other)]
    found = {
        "state_distance": (states[1].tokens.float() - states[0].tokens.float()).norm(dim=-1),
        "memory_distance": (states[1].memory.float() - states[0].memory.float()).norm(dim=-1),
    }
    a, b = one.prediction, other.prediction
    if a.pose is not None and b.pose is not None:
        found |= _pose_distances(a, b)
    if a.points_self is not None and b.points_self is not None:
        found["depth_distance"] = (b.points_self[..., 2] - a.points_self[..., 2]).abs()
    return {name: value[0].cpu().numpy() for name, value in found.items()}


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
    "state_distance": (("state_token",), "norm of the difference of the state token", "1"),
    "memory_distance": (("slot",), "norm of the difference of the pose-memory slot", "1"),
    "translation_distance": ((), "distance between camera positions", "m"),
    "rotation_distance": ((), "angle between camera orientations", "degree"),
    "depth_distance": (("y", "x"), "absolute difference of depth", "m"),
}


def _labelled(
    found: dict[str, np.ndarray],
    frames: np.ndarray,
    backbone: CUT3R,
    run: xr.DataTree,
    configurations: dict[str, Configuration],
    content: xr.Dataset | None,
) -> xr.Dataset:
    source = f"fork of {run.attrs['sequence']['name']} at frame {frames[0]}"
    variables = {}
    for name, values in found.items():
        dims, long_name, units = _VARIABLES[name]
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
        for variable in state_group(backbone).variables.values()
    }
    return label(xr.Dataset(variables, {"frame": frames, **lattice}, attrs))


def _position(sequence: xr.Dataset, at: int) -> int:
    found = np.flatnonzero(sequence["frame"].values == at)
    if not len(found):
        first, last = sequence["frame"].values[[0, -1]]
        raise InvalidArgument(
            f"there is no frame {at} in this run; its frames are labelled {first} to {last}"
        )
    return int(found[0])


def _check_same(run: xr.DataTree, backbone: CUT3R, sequence: xr.Dataset) -> None:
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
