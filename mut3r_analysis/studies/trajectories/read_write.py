"""Read and write apart: runs in which gating acts on either path alone, and their errors."""

from collections.abc import Callable, Mapping, Sequence
from itertools import product
from typing import Any

import numpy as np
import xarray as xr
from tqdm.auto import tqdm

from mut3r_analysis.attention.capture import Capture
from mut3r_analysis.backbones.protocol import Backbone
from mut3r_analysis.errors import InvalidArgument, Mut3rError
from mut3r_analysis.evaluation.scores import named_protocols
from mut3r_analysis.evaluation.tasks import score_run
from mut3r_analysis.motion import Cue, Gate
from mut3r_analysis.motion.readings import MASK
from mut3r_analysis.running import Commit, run_batch
from mut3r_analysis.sequences import open_sequence
from mut3r_analysis.studies.ablation import SHUFFLED
from mut3r_analysis.studies.labelling import beside, described
from mut3r_analysis.studies.trajectories.path_parts import apart

LEVELS = ("probe", "gated")
"""The pass over a frame that a path takes; gates act in the second only."""

DESIGNS = {
    ("read", "write"): {"read": "read", "write": "write"},
    ("read", "state", "memory"): {"read": "read", "state": "write", "memory": "memory"},
}
"""Paths that are gated or not, each with the field of the commit that decides it. In the first
design the pose memory follows what is written to the state."""

POSE = ("ate", "rpe_translation", "rpe_rotation")
DEPTH = ("abs_rel", "delta_1")
SHORT = {
    "ate": "ATE",
    "rpe_translation": "RPE, translation",
    "rpe_rotation": "RPE, rotation",
    "abs_rel": "depth, abs rel",
    "delta_1": "depth, δ < 1.25",
}
"""Metrics that are kept, and how tables and figures name them."""

_FACTS = {
    "motion_share": ("share of moving pixels", "%"),
    "camera_speed": ("camera speed", "m per frame"),
    "turn_speed": ("turning of the camera", "degree per frame"),
    "texture": ("texture", "grey levels per px"),
}

CUES = {
    "own": Cue.mut3r(),
    "true mask": Cue.oracle(),
    f"true mask{SHUFFLED}": Cue.oracle(control="shuffle"),
}
"""The model's own cue, the truth in its place, and the truth at wrong places: as many patches are
gated as strongly, only others."""


def commit_of(levels: Mapping[str, str]) -> Commit:
    """Return the commit in which each path takes the pass of its level.

    Raises
    ------
    InvalidArgument
        For paths that are not one of `DESIGNS`.
    """
    design = _design(levels)
    fields: dict[str, Any] = {design[path]: level for path, level in levels.items()}
    return Commit(**fields)


def measure_cells(
    backbone: Backbone,
    sequences: Sequence[str | xr.Dataset],
    gate: Gate,
    *,
    cues: Mapping[str, Cue] = CUES,
    paths: Sequence[str] = ("read", "write"),
    frames: int | None = None,
    protocol: str = "default",
    state: bool = True,
    progress: bool = True,
) -> xr.Dataset:
    """Run every combination of gated and ungated paths, per cue and sequence.

    Parameters
    ----------
    backbone : Backbone
    sequences : sequence of str or Dataset
        What `open_sequence` takes.
    gate : Gate
    cues : mapping of str to Cue
        Named motion scores. Where a sequence lacks the mask that one reads, its runs are left out.
    paths : sequence of str
        One of `DESIGNS`; three paths cost twice the runs of two.
    frames : int, optional
        At most so many of each sequence.
    protocol : str
        Of :func:`~mut3r_analysis.evaluate`.
    state : bool
        Measure how far states are apart; a run then keeps all states of a sequence in memory.
    progress : bool

    Returns
    -------
    Dataset
        Dims ``cue``, one per path with `LEVELS`, ``sequence``, and ``frame``, counted from the
        first. ``pose`` (cue, *paths, sequence, frame, row, col); metrics of the protocol (cue,
        *paths, sequence), as far as there is truth; ``state_distance`` (cue, *paths, sequence,
        frame), distance to the plain run's state in percent of its norm; ``true_pose``; what
        :func:`sequence_facts` says; ``skipped`` (sequence), why a sequence has no metrics.

        With all paths ungated it is the plain run, whatever the cue.
    """
    design = _design(paths)
    rows, names = [], []
    bar = tqdm(sequences, desc="sequences", disable=not progress)
    for given in bar:
        sequence = open_sequence(given, stop=frames)
        names.append(str(sequence.attrs["name"]))
        bar.set_postfix_str(names[-1])
        usable = {
            name: cue for name, cue in cues.items() if cue.reading != MASK or cue.of in sequence
        }
        levels = [
            dict(zip(design, each, strict=True)) for each in product(LEVELS, repeat=len(design))
        ]
        gated = [(name, each) for name in usable for each in levels[1:]]
        runs = run_batch(
            backbone,
            sequence,
            [{}, *({"cue": cues[name], "gate": gate, "commit": commit_of(each)}
                   for name, each in gated)],
            capture=Capture(statistics=[], sites=[], state=True) if state else None,
            outputs=("pose", "depth"),
            progress=False,
        )  # fmt: skip
        rows.append(_row(sequence, runs, gated, list(cues), design, protocol))
    table = xr.concat(
        rows, dim=xr.Variable("sequence", names), join="outer", combine_attrs="drop_conflicts"
    )
    table["skipped"] = table["skipped"].astype(str)
    table["frame"].attrs = {"long_name": "frames since the first", "units": "1"}
    order = ("cue", *design, "sequence", "frame", "row", "col")
    return table.transpose(*order).assign_attrs(
        backbone=backbone.origin.name,
        gate=repr(gate),
        protocol=protocol,
        paths=list(design),
        source=f"{backbone.origin.name}, {len(names)} sequences, {protocol}",
    )


def sequence_facts(sequence: xr.Dataset) -> xr.Dataset:
    """Return what a sequence shows, in single numbers; NaN where the truth is missing.

    Returns
    -------
    Dataset
        ``motion_share`` (of pixels that move, %), ``camera_speed`` (mean, m per frame),
        ``turn_speed`` (mean, degrees per frame) and ``texture`` (mean absolute difference of
        neighbouring pixels' luminance, grey levels of 255).
    """
    steps = []
    for position in range(sequence.sizes["frame"]):
        grey = sequence["image"][position].values.astype(float) @ (0.299, 0.587, 0.114)
        steps.append(np.mean([np.abs(np.diff(grey, axis=axis)).mean() for axis in (0, 1)]))
    share = 100 * float(sequence["motion_mask"].mean()) if "motion_mask" in sequence else np.nan
    speed, turn = np.nan, np.nan
    if "pose" in sequence and sequence.sizes["frame"] > 1:
        pose = sequence["pose"]
        steps_of = apart(pose[:-1].drop_vars("frame"), pose[1:].drop_vars("frame"))
        speed, turn = (float(steps_of[name].mean()) for name in ("translation", "rotation"))
    values = (share, speed, turn, float(np.mean(steps)))
    return described(xr.Dataset(dict(zip(_FACTS, values, strict=True))), _FACTS)


def split_reads(cells: xr.Dataset) -> xr.Dataset:
    """Return what is gained by reading pose and depth from different passes.

    A split read changes no state, so its pose is that of the run that reads everything as it reads
    the pose, and its depth likewise: all four combinations follow from runs that are there.

    Parameters
    ----------
    cells : Dataset
        From :func:`measure_cells` with the paths ``read`` and ``write``.

    Returns
    -------
    Dataset
        Dims ``commit``, ``cue`` and ``sequence``; the metrics of pose and depth.
    """
    if {"read", "write"} - set(cells.dims):
        raise InvalidArgument("split reads need the paths 'read' and 'write'")
    sources = {
        str(Commit(read=read, write=write)): (pose, depth, write)
        for write in LEVELS
        for read, pose, depth in (
            ("probe", "probe", "probe"),
            ("gated", "gated", "gated"),
            ("split", "gated", "probe"),
            ("split_rev", "probe", "gated"),
        )
    }
    parts = {}
    for commit, (pose, depth, write) in sources.items():
        chosen = dict.fromkeys(POSE, pose) | dict.fromkeys(DEPTH, depth)
        levels = {name: {"read": read, "write": write} for name, read in chosen.items()}
        kept = {
            name: cells[name].sel(at, drop=True) for name, at in levels.items() if name in cells
        }
        parts[commit] = xr.Dataset(kept)
    return beside(parts, "commit")


def _design(paths: Sequence[str] | Mapping[str, Any]) -> dict[str, str]:
    if tuple(paths) not in DESIGNS:
        allowed = " or ".join(str(list(each)) for each in DESIGNS)
        raise InvalidArgument(f"paths must be {allowed}; got {list(paths)}")
    return DESIGNS[tuple(paths)]


def _row(
    sequence: xr.Dataset,
    runs: Sequence[xr.DataTree],
    gated: Sequence[tuple[str, dict[str, str]]],
    cues: list[str],
    design: Mapping[str, str],
    protocol: str,
) -> xr.Dataset:
    plain = runs[0]
    base, reason = _measured(plain, plain, protocol)
    empty = xr.full_like(base, np.nan)
    found = {
        (name, *levels.values()): _measured(run, plain, protocol)[0]
        for (name, levels), run in zip(gated, runs[1:], strict=True)
    }

    def cell(key: tuple[str, ...]) -> xr.Dataset:
        return base if set(key[1:]) == {"probe"} else found.get(key, empty)

    row = _nested(cell, {"cue": cues, **{path: list(LEVELS) for path in design}})
    row = row.merge(sequence_facts(sequence)).assign(skipped=reason)
    if "pose" in sequence:
        truth = plain["truth/pose"].load()
        row["true_pose"] = (truth.dims, truth.values, {**truth.attrs, "long_name": "true pose"})
    return row


def _nested(
    cell: Callable[[tuple[str, ...]], xr.Dataset],
    dims: Mapping[str, list[str]],
    key: tuple[str, ...] = (),
) -> xr.Dataset:
    """Put the Datasets of all combinations of labels side by side, one dimension per name."""
    if len(key) == len(dims):
        return cell(key)
    name = list(dims)[len(key)]
    return beside({label: _nested(cell, dims, (*key, label)) for label in dims[name]}, name)


def _measured(run: xr.DataTree, plain: xr.DataTree, protocol: str) -> tuple[xr.Dataset, str]:
    pose = run["prediction/pose"].load().astype(np.float64)
    found = xr.Dataset({"pose": (pose.dims, pose.values, pose.attrs)})
    found = found.assign_coords(frame=np.arange(pose.sizes["frame"]))
    if "tokens" in run["state"]:
        token = ("state_token", "channel")
        base = plain["state/tokens"].load()
        moved = run["state/tokens"].load().drop_vars(base.coords) - base.drop_vars(base.coords)
        norm = np.sqrt((base.drop_vars(base.coords) ** 2).sum(token))
        found["state_distance"] = 100 * np.sqrt((moved**2).sum(token)) / norm
        words = {"state_distance": ("distance of the state to the plain run's", "% of its norm")}
        described(found, words)
    reasons = []
    chosen = named_protocols(protocol)
    name = run.attrs["sequence"]["name"]
    for one in chosen:
        try:
            if one.sequences and not one.select([name])[0]:
                raise InvalidArgument(f"{name} is not among the sequences of {one.id}")
            scores = score_run(one, run, None)
        except Mut3rError as error:
            reasons.append(f"{one.task}: {error}" if len(chosen) > 1 else str(error))
            continue
        for metric in SHORT:
            if metric in scores:
                found[metric] = scores[metric].reset_coords(drop=True)
    return found, "; ".join(reasons)
