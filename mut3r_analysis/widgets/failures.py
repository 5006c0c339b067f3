"""Where a run goes wrong: what every frame contributes to its errors, and which gate it had."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass

import numpy as np
import xarray as xr

from mut3r_analysis.errors import InvalidArgument
from mut3r_analysis.metrics.protocols import frame_metric

USUAL = ("abs_rel", "ate", "rpe_translation", "rpe_rotation", "roc_auc", "region")
"""Metrics shown unless others are named, where the scores have them."""

STATE_UPDATE, CUE_MASS = "state_update", "cue_mass"


@dataclass(frozen=True, eq=False)
class Series:
    """One number per frame.

    Attributes
    ----------
    name, label : str
    values : numpy.ndarray
        float32 ``(frame,)`` over the frames of the run; NaN where there is none.
    higher_is_better : bool
    """

    name: str
    label: str
    values: np.ndarray
    higher_is_better: bool = False


def frame_series(
    run: xr.DataTree, scores: xr.Dataset | None, metrics: Collection[str] | None
) -> list[Series]:
    """Collect what is known per frame: contributions to metrics, state updates, cue mass.

    Parameters
    ----------
    run : xarray.DataTree
    scores : xarray.Dataset, optional
        What `evaluate` gave for this run.
    metrics : collection of str, optional
        Names without ``frame_``; by default the usual ones among those scored.

    Raises
    ------
    InvalidArgument
        When the scores are of another sequence, or lack a metric that is named.
    """
    frames = run["prediction"]["frame"].values
    found = []
    if scores is not None:
        name = str(run.attrs["sequence"]["name"])
        if name not in scores["sequence"].values:
            names = ", ".join(map(str, scores["sequence"].values))
            raise InvalidArgument(f"the scores are of {names}, the run is of {name}")
        mine = scores.sel(sequence=name)
        parts = [str(key) for key in mine if str(key).startswith("frame_")]
        scored = [part.removeprefix("frame_") for part in parts if part != "frame_pixels"]
        lacking = [metric for metric in metrics or () if metric not in scored]
        if lacking:
            raise InvalidArgument(
                f"the scores have no {', '.join(lacking)} per frame; they have {', '.join(scored)}"
            )
        for metric in scored if metrics is None else metrics:
            values = mine[f"frame_{metric}"].reindex(frame=frames)
            usual = metric in USUAL and bool(np.isfinite(values).any())
            if metrics is None and not usual:
                continue
            row = frame_metric(metric)
            found.append(
                Series(
                    metric,
                    row.labelled(frames=True),
                    values.values.astype(np.float32),
                    row.higher_is_better,
                )
            )
    if "state" in run.children:
        update = run["state"].to_dataset()["update_size"].reindex(frame=frames)
        mean = update.mean("state_token").values.astype(np.float32)
        found.append(Series(STATE_UPDATE, "mean update of the state", mean))
    if "cue" in run.children and "motion" in run["cue"]:
        motion = run["cue"].to_dataset()["motion"].reindex(frame=frames)
        mass = motion.mean(["patch_row", "patch_col"]).values.astype(np.float32)
        found.append(Series(CUE_MASS, "cue mass (mean motion score)", mass))
    return found


def named_scores(
    runs: Mapping[str, xr.DataTree],
    scores: xr.Dataset | Mapping[str, xr.Dataset] | None,
    protocol: str,
) -> dict[str, xr.Dataset | None]:
    """Return scores of every run: those given, or what `evaluate` finds; None without truth.

    Raises
    ------
    InvalidArgument
        When the scores given are not those of the runs.
    """
    from mut3r_analysis.evaluation import evaluate
    from mut3r_analysis.metrics.errors import UndefinedMetric

    if scores is None:
        found: dict[str, xr.Dataset | None] = {}
        for name, run in runs.items():
            try:
                found[name] = evaluate(run, protocol)
            except UndefinedMetric:
                # A run without truth still has strips of its own: its state and its cue.
                found[name] = None
        return found
    given = dict.fromkeys(runs, scores) if isinstance(scores, xr.Dataset) else dict(scores)
    if isinstance(scores, xr.Dataset) and len(runs) > 1:
        raise InvalidArgument(f"give scores of each run: {{{', '.join(map(repr, runs))}: ...}}")
    if set(given) != set(runs):
        raise InvalidArgument(f"scores are of {sorted(given)}, runs are {sorted(runs)}")
    return dict(given)


def aligned_series(found: Mapping[str, list[Series]]) -> dict[str, list[Series]]:
    """Arrange strips by name, one per run; a run that lacks one has no numbers in it."""
    names: dict[str, Series] = {}
    for series in found.values():
        for each in series:
            names.setdefault(each.name, each)
    empty = {name: np.full_like(one.values, np.nan) for name, one in names.items()}
    return {
        name: [
            next(
                (each for each in series if each.name == name),
                Series(name, one.label, empty[name], one.higher_is_better),
            )
            for series in found.values()
        ]
        for name, one in names.items()
    }


def gate_words(run: xr.DataTree) -> str:
    """Say which gate a run had, in one line, and why it is inert if it is."""
    from mut3r_analysis.motion import DIRECTIONS, Gate

    given = run.attrs.get("gate")
    if not given:
        return "no gate"
    gate = Gate.from_json(given) if isinstance(given, str) else Gate.from_dict(dict(given))
    depth = run.attrs["backbone"]["config"]["dec_depth"]
    parts = [f"{site} {name}" for site in DIRECTIONS if (name := getattr(gate, site))]
    text = f"{', '.join(parts)}; beta {gate.beta:g}; {gate.describe_layers(depth)}"
    reason = gate.inert(depth)
    return f"{text} (inert: {reason})" if reason else text
