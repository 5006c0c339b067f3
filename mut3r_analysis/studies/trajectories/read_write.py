"""Read and write apart: runs in which gating acts on either path alone, and their errors."""

from collections.abc import Mapping, Sequence
from itertools import product
from typing import Any

import numpy as np
import xarray as xr
from tqdm.auto import tqdm

from mut3r_analysis.attention.capture import Capture
from mut3r_analysis.backbones.protocol import Backbone
from mut3r_analysis.errors import InvalidArgument, Mut3rError
from mut3r_analysis.evaluation import evaluate
from mut3r_analysis.foundation.labelling import beside, described
from mut3r_analysis.motion import Cue, Gate
from mut3r_analysis.motion.readings import MASK
from mut3r_analysis.running import Commit, run_batch
from mut3r_analysis.sequences import open_sequence
from mut3r_analysis.studies.ablation import PLAIN, Ablation, with_controls
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
METRICS = (*POSE, *DEPTH)
"""What is kept of the scores."""

_FACTS = {
    "motion_share": ("share of moving pixels", "%"),
    "camera_speed": ("camera speed", "m per frame"),
    "turn_speed": ("turning of the camera", "degree per frame"),
    "texture": ("texture", "grey levels per px"),
}


def cues_compared(edition: int = 2) -> dict[str, Cue]:
    """Return the model's own cue, the truth in its place, and the truth at wrong places.

    The last gates as many patches as strongly, only others.
    """
    return {"own": Cue.mut3r(edition=edition), **with_controls({"true mask": Cue.oracle()})}


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


def ablation(gate: Gate, cues: Mapping[str, Cue], paths: Sequence[str]) -> Ablation:
    """Gate every combination of paths by every cue; without any it is the plain run."""
    design = _design(paths)

    def configure(cue: str, *levels: str) -> dict[str, Any] | None:
        commit = commit_of(dict(zip(design, levels, strict=True)))
        return {"cue": cues[cue], "gate": gate, "commit": commit} if "gated" in levels else None

    factors = {"cue": list(cues), **dict.fromkeys(design, LEVELS)}
    return Ablation(factors, configure, " ".join(["{}"] * len(factors)))


def measure_cells(
    backbone: Backbone,
    sequences: Sequence[str | xr.Dataset],
    gate: Gate,
    *,
    cues: Mapping[str, Cue] | None = None,
    paths: Sequence[str] = ("read", "write"),
    frames: int | None = None,
    protocol: str = "default",
    progress: bool = True,
) -> xr.Dataset:
    """Run every combination of gated and ungated paths, per cue and sequence.

    Parameters
    ----------
    backbone : Backbone
    sequences : sequence of str or Dataset
        What `open_sequence` takes.
    gate : Gate
    cues : mapping of str to Cue, optional
        Named motion scores, those of :func:`cues_compared` unless given. Where a sequence lacks
        the mask that one reads, its runs are left out.
        A run keeps all states of a sequence in memory.
    paths : sequence of str
        One of `DESIGNS`; three paths cost twice the runs of two.
    frames : int, optional
        At most so many of each sequence.
    protocol : str
        Of :func:`~mut3r_analysis.evaluate`.
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
    cues = cues_compared() if cues is None else cues
    study = ablation(gate, cues, paths)
    rows: dict[str, xr.Dataset] = {}
    bar = tqdm(sequences, desc="sequences", disable=not progress)
    for given in bar:
        sequence = open_sequence(given, stop=frames)
        bar.set_postfix_str(str(sequence.attrs["name"]))
        lacking = [
            name for name, cue in cues.items() if cue.reading == MASK and cue.of not in sequence
        ]
        known = {
            label: each
            for label, each in study.configurations.items()
            if label == PLAIN or study.design[label]["cue"] not in lacking
        }
        runs = run_batch(
            backbone,
            sequence,
            list(known.values()),
            capture=Capture(statistics=[], sites=[], state=True),
            outputs=("pose", "depth"),
            progress=False,
        )
        parts = [_measured(run, runs[0], protocol) for run in runs]
        row = beside(dict(zip(known, parts, strict=True)), "configuration")
        row = row.merge(sequence_facts(sequence)).assign(skipped=parts[0]["skipped"])
        if "pose" in sequence:
            truth = runs[0]["truth/pose"].load()
            row["true_pose"] = (truth.dims, truth.values, {**truth.attrs, "long_name": "true pose"})
        rows[str(sequence.attrs["name"])] = row
    table = beside(rows, "sequence", combine_attrs="drop_conflicts").transpose("sequence", ...)
    cells = table.reindex(configuration=list(study.configurations))
    cells = study.unfolded(cells).assign(skipped=cells["skipped"].astype(str))
    cells["frame"].attrs = {"long_name": "frames since the first", "units": "1"}
    return cells.transpose(*study.factors, "sequence", "frame", "row", "col").assign_attrs(
        backbone=backbone.origin.name,
        gate=repr(gate),
        protocol=protocol,
        paths=list(paths),
        source=f"{backbone.origin.name}, {len(rows)} sequences, {protocol}",
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
    texture = []
    for position in range(sequence.sizes["frame"]):
        grey = sequence["image"][position].values.astype(float) @ (0.299, 0.587, 0.114)
        texture.append(np.mean([np.abs(np.diff(grey, axis=axis)).mean() for axis in (0, 1)]))
    share = 100 * float(sequence["motion_mask"].mean()) if "motion_mask" in sequence else np.nan
    speed, turn = np.nan, np.nan
    if "pose" in sequence and sequence.sizes["frame"] > 1:
        pose = sequence["pose"].drop_vars("frame")
        moved = apart(pose[:-1], pose[1:]).mean()
        speed, turn = float(moved["translation"]), float(moved["rotation"])
    values = (share, speed, turn, float(np.mean(texture)))
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
    reads = {
        "probe": ("probe", "probe"),
        "gated": ("gated", "gated"),
        "split": ("gated", "probe"),
        "split_rev": ("probe", "gated"),
    }
    parts = {}
    for write, (read, (pose, depth)) in product(LEVELS, reads.items()):
        levels = dict.fromkeys(POSE, pose) | dict.fromkeys(DEPTH, depth)
        parts[str(Commit(read=read, write=write))] = xr.Dataset(
            {
                name: cells[name].sel(read=level, write=write, drop=True)
                for name, level in levels.items()
                if name in cells
            }
        )
    return beside(parts, "commit")


def _design(paths: Sequence[str] | Mapping[str, Any]) -> dict[str, str]:
    if tuple(paths) not in DESIGNS:
        allowed = " or ".join(str(list(each)) for each in DESIGNS)
        raise InvalidArgument(f"paths must be {allowed}; got {list(paths)}")
    return DESIGNS[tuple(paths)]


def _measured(run: xr.DataTree, plain: xr.DataTree, protocol: str) -> xr.Dataset:
    """Cameras, scores and the distance of states to the plain run's."""
    pose = run["prediction/pose"].load().astype(np.float64)
    base, tokens = (
        each["state/tokens"].load().reset_coords(drop=True).drop_vars("frame")
        for each in (plain, run)
    )
    inner = ("state_token", "channel")
    moved, norm = (np.sqrt((each**2).sum(inner)) for each in (tokens - base, base))
    found = xr.Dataset(
        {"pose": (pose.dims, pose.values, pose.attrs), "state_distance": 100 * moved / norm},
        {"frame": np.arange(pose.sizes["frame"])},
    )
    words = {"state_distance": ("distance of the state to the plain run's", "% of its norm")}
    described(found, words)
    try:
        scores = evaluate(run, protocol).isel(sequence=0)
    except Mut3rError as error:
        return found.assign(skipped=str(error))
    kept = [name for name in (*METRICS, "skipped") if name in scores]
    return found.assign(scores[kept].reset_coords(drop=True))
