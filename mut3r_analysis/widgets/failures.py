"""Where a run goes wrong: what every frame contributes to its errors, and which gate it had."""

from collections.abc import Collection, Mapping

import numpy as np
import xarray as xr

from mut3r_analysis.errors import InvalidArgument
from mut3r_analysis.evaluation import evaluate
from mut3r_analysis.evaluation.harm import DIFFERENCE, depth_difference
from mut3r_analysis.foundation.fields import one_of
from mut3r_analysis.foundation.labelling import held
from mut3r_analysis.metrics.errors import UndefinedMetric
from mut3r_analysis.metrics.protocols import frame_metric
from mut3r_analysis.motion import Gate

USUAL = ("abs_rel", "ate", "rpe_translation", "rpe_rotation", "roc_auc", "region")
"""Metrics shown unless others are named, where the scores have them."""


def frame_series(
    run: xr.DataTree, scores: xr.Dataset | None, metrics: Collection[str] | None
) -> xr.Dataset:
    """Collect what is known per frame: contributions to metrics, state updates, cue mass.

    Parameters
    ----------
    run : xarray.DataTree
    scores : xarray.Dataset, optional
        What `evaluate` gave for this run.
    metrics : collection of str, optional
        Names without ``frame_``; by default the usual ones among those scored.

    Returns
    -------
    Dataset
        float32 ``(frame,)`` over the frames of the run, NaN where there is none; their attributes
        are ``long_name`` and ``higher_is_better``.

    Raises
    ------
    InvalidArgument
        When the scores are of another sequence, or lack a metric that is named.
    """
    frames = run["prediction"]["frame"].values
    found = xr.Dataset(coords={"frame": frames})

    def add(name: str, values: xr.DataArray, label: str, higher_is_better: bool = False) -> None:
        attrs = {"long_name": label, "higher_is_better": higher_is_better}
        found[name] = ("frame", values.reindex(frame=frames).values.astype(np.float32), attrs)

    if scores is not None:
        name = str(run.attrs["sequence"]["name"])
        one_of("the run's sequence", name, scores["sequence"].values.tolist())
        mine = scores.sel(sequence=name)
        parts = [str(key) for key in mine if str(key).startswith("frame_")]
        scored = [part.removeprefix("frame_") for part in parts if part != "frame_pixels"]
        for metric in metrics or ():
            one_of("metric per frame", metric, scored)
        for metric in scored if metrics is None else metrics:
            values = mine[f"frame_{metric}"]
            if metrics is not None or (metric in USUAL and np.isfinite(values).any()):
                row = frame_metric(metric)
                add(metric, values, row.labelled(frames=True), row.higher_is_better)
    if (update := held(run, "state/update_size")) is not None:
        add("state_update", update.mean("state_token"), "mean update of the state")
    if (motion := held(run, "cue/motion")) is not None:
        mass = motion.mean(["patch_row", "patch_col"])
        add("cue_mass", mass, "cue mass (mean motion score)")
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


def aligned_series(found: Mapping[str, xr.Dataset]) -> xr.Dataset:
    """Lay the strips of runs beside each other, (run, frame); NaN where a run lacks one."""
    aligned = xr.Dataset(coords={"run": list(found)})
    for name in dict.fromkeys(name for series in found.values() for name in series):
        like = next(series[name] for series in found.values() if name in series)
        both = [series.get(name, xr.full_like(like, np.nan)) for series in found.values()]
        aligned[name] = xr.concat(both, "run", combine_attrs="override")
    return aligned


def with_difference(series: xr.Dataset, runs: Mapping[str, xr.DataTree]) -> xr.Dataset:
    """Put the difference of depth of two runs before their strips, which then ranks frames.

    For runs without truth; of the second one, from the first.
    """
    if any(held(run, "prediction/depth") is None for run in runs.values()):
        return series
    apart = depth_difference(*runs.values()).median(["y", "x"])
    values = np.stack([np.zeros(apart.shape), apart.values]).astype(np.float32)
    attrs = {"long_name": "difference of depth (%)", "higher_is_better": False}
    found = xr.DataArray(values, {"run": list(runs), "frame": apart["frame"].values}, attrs=attrs)
    return xr.Dataset({DIFFERENCE: found}).merge(series, combine_attrs="override")


def gate_words(run: xr.DataTree) -> str:
    """Say which gate a run had, in one line, and why it is inert if it is."""
    if not (given := run.attrs.get("gate")):
        return "no gate"
    gate = Gate.from_json(given)
    depth = run.attrs["backbone"]["config"]["dec_depth"]
    parts = [f"{site} {gate.realisation(site)}" for site in gate.sites]
    text = f"{', '.join(parts)}; beta {gate.beta:g}; {gate.describe_layers(depth)}"
    reason = gate.inert(depth)
    return f"{text} (inert: {reason})" if reason else text
