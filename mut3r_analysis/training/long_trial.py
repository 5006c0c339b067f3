"""The long test: what a model does beyond the length of its training, under two write rules."""

from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from mut3r_analysis.attention.capture import Capture
from mut3r_analysis.backbones import load_backbone
from mut3r_analysis.errors import InvalidArgument
from mut3r_analysis.evaluation import evaluate
from mut3r_analysis.foundation.labelling import beside
from mut3r_analysis.metrics.bootstrap import drawn_counts
from mut3r_analysis.metrics.ranking import weighted_auc
from mut3r_analysis.motion import Cue
from mut3r_analysis.running import run
from mut3r_analysis.sequences import open_sequence
from mut3r_analysis.training.declared import RESAMPLES, ratio_interval

RULES = ("cut3r", "ttt3r")
EDGES = (1, 8, 16, 32, 64, 128)
"""Of windows of frames; the first window is the length of training."""
SCENES = 8
FIRST_SEED = 590_000
OPTIONS = "objects=6,movers=2-3,mover_speed=0.4-1.0,fog=6.0"

ERRORS = {
    "frame_rpe_rotation": "rotation error (degree)",
    "frame_rpe_translation": "translation error (m)",
    "frame_ate": "distance of aligned cameras (m)",
    "frame_abs_rel": "relative depth error",
}
STATE = {
    "norm": "norm of state tokens",
    "update_size": "change of state tokens",
    "write_rate": "write rate",
}
AUC = "AUC of the cue"


def long_test(
    checkpoint: str | Path, *, scenes: int = SCENES, edges: Sequence[int] = EDGES
) -> dict[str, Any]:
    """Run a checkpoint on scenes that are longer than its training, under :data:`RULES`.

    Parameters
    ----------
    checkpoint : str or Path
    scenes : int
        Procedural scenes, each with its own seed.
    edges : sequence of int
        Of the windows of frames that are told apart.

    Returns
    -------
    dict
        ``windows``; ``means``, rule to measure to its mean by window; ``from_first``, rule to
        measure to the change from the first window, and ``by_rule``, measure to what the second
        rule changes against the first, both [value, low, high] by window, percent. Where a kind of
        model knows one rule only, ``by_rule`` is empty.
    """
    draws = drawn_counts(scenes, RESAMPLES, seed=3)
    names = [f"scenes:seed={FIRST_SEED + i},frames={edges[-1]},{OPTIONS}" for i in range(scenes)]
    held: dict[str, xr.DataArray] = {}
    for rule in RULES:
        try:
            model = load_backbone(checkpoint, update=rule, device="cpu")
        except InvalidArgument:
            if rule == RULES[0]:
                raise
            continue  # this kind of memory has no write rate
        traces = [
            over_time(
                run(
                    model,
                    open_sequence(name),
                    cue=Cue.mut3r(),
                    capture=Capture(statistics=[], sites=[]),
                    outputs=("pose", "depth"),
                    progress=False,
                ),
                edges,
            )
            for name in names
        ]
        held[rule] = xr.concat(traces, "sequence")
    plain, *others = held.values()
    labels = plain["measure"].values.tolist()

    def percent(values: xr.DataArray, reference: xr.DataArray) -> list[list[float]]:
        pairs = zip(
            values.transpose("window", ...), reference.transpose("window", ...), strict=True
        )
        return [
            [100 * (each - 1) for each in ratio_interval(one.values, two.values, draws)]
            for one, two in pairs
        ]

    return {
        "scenes": scenes,
        "options": OPTIONS,
        "windows": plain["window"].values.tolist(),
        "means": {
            rule: {name: values.sel(measure=name).mean("sequence").values.tolist()
                   for name in labels}
            for rule, values in held.items()
        },
        "from_first": {
            rule: {name: percent(one, one.isel(window=[0] * one.sizes["window"]))
                   for name in labels for one in [values.sel(measure=name)]}
            for rule, values in held.items()
        },
        "by_rule": {name: percent(other.sel(measure=name), plain.sel(measure=name))
                    for other in others for name in labels},
    }  # fmt: skip


def windows(edges: Sequence[int]) -> Iterator[tuple[str, slice]]:
    """Yield label and frames of each window between edges, half-open: ``"8-15"``."""
    for first, last in pairwise(edges):
        yield f"{first}-{last - 1}", slice(first, last - 1)


def over_time(run: xr.DataTree, edges: Sequence[int]) -> xr.DataArray:
    """Mean of what :func:`traces` follows in windows of frames ``(measure, window)``."""
    return in_windows(traces(run), edges)


def traces(run: xr.DataTree, scores: xr.Dataset | None = None) -> xr.DataArray:
    """Follow every error, the cue's AUC and the state's numbers through a run.

    Parameters
    ----------
    run : DataTree
        With truth, and with a cue that was measured.
    scores : Dataset, optional
        What `evaluate` says of it, without ``sequence``; evaluated unless given.

    Returns
    -------
    DataArray
        (measure, frame), each measure in its own unit, state tokens averaged; NaN where a frame
        has none.
    """
    scores = evaluate(run).isel(sequence=0) if scores is None else scores
    found = {label: scores[name] for name, label in ERRORS.items() if name in scores}
    found |= {AUC: cue_auc(run)}
    for name, label in STATE.items():
        held = run["state"].to_dataset()[name]
        found[label] = held.mean([dim for dim in held.dims if dim != "frame"])
    plain = {label: trace.reset_coords(drop=True) for label, trace in found.items()}
    return beside(plain, "measure", combine_attrs="drop").rename("value")


def in_windows(values: xr.DataArray, edges: Sequence[int]) -> xr.DataArray:
    """Average values ``(..., frame)`` over windows ``(..., window)``, half-open between edges."""
    parts = {label: values.sel(frame=frames).mean("frame") for label, frames in windows(edges)}
    found = beside(parts, "window").transpose(..., "window")
    found.attrs = {"long_name": "mean over frames"}  # each measure has a unit of its own
    found["window"].attrs = {"long_name": "frames"}
    return found


def cue_auc(run: xr.DataTree) -> xr.DataArray:
    """Return how well a run's cue tells moving patches in each frame: the AUC ``(frame,)``.

    A patch moves when at least half of its pixels do. NaN where none or all do.
    """
    motion = run["cue/motion"].transpose("frame", "patch_row", "patch_col")
    mask = run["truth/motion_mask"].transpose("frame", "y", "x").values
    rows_, columns = motion.shape[1:]
    cells = mask.reshape(len(mask), rows_, -1, columns, mask.shape[2] // columns)
    moving = cells.mean(axis=(2, 4)) >= 0.5
    areas = [
        weighted_auc(score.ravel(), label.ravel())[0]
        for score, label in zip(motion.values, moving, strict=True)
    ]
    return motion["frame"].copy(data=np.array(areas)).rename("auc")
