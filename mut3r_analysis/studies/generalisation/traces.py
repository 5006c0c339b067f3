"""What runs with different memories recorded on the way: cue maps, state updates, predictions."""

from itertools import combinations

import numpy as np
import pandas as pd
import xarray as xr

from mut3r_analysis.evaluation.eligibility import UnmetProtocol
from mut3r_analysis.evaluation.tasks import score_run
from mut3r_analysis.foundation.labelling import beside, described
from mut3r_analysis.metrics import UndefinedMetric, protocol
from mut3r_analysis.running import open_run
from mut3r_analysis.studies.ablation import PLAIN
from mut3r_analysis.studies.estimates import difference, estimate, formatted
from mut3r_analysis.studies.generalisation.memories import OWN

ROUNDING = 1e-4
"""Scores this close may differ by the order of sums alone, as between batches."""

_WORDS = {
    "correlation": ("correlation of cue maps", "1"),
    "auc": ("AUC of the own cue against the true mask", "1"),
    "update_size": ("change of a state token per frame", "% of its norm"),
    "write_rate": ("share of a state token replaced", "%"),
    "moved": ("moved by gating", "% of the mean depth"),
}


def read_traces(table: xr.Dataset) -> xr.Dataset:
    """Read the runs without a gate and those gated by the own cue, each once.

    Parameters
    ----------
    table : Dataset
        From `sweep_memories`.

    Returns
    -------
    Dataset
        Of the cue's maps without a gate:

        - ``correlation`` (memory, other, sequence, frame): Pearson's, over the patches of a frame;
          NaN where a map is constant;
        - ``same`` (memory, other, sequence, frame): whether two maps differ nowhere by more than
          `ROUNDING`, as while both memories hold the same;
        - ``auc`` (memory, sequence): how often a moving pixel scores above a still one, over all
          frames together; NaN without a mask, or where all or nothing moves.

        Of the state, means over its tokens, (memory, treatment, sequence, frame): ``update_size``,
        the norm of a token's change in percent of its norm, and ``write_rate``, the share of it
        replaced, in percent. Of the predictions, which takes no truth: ``moved`` (what, memory,
        sequence), how far gating moves ``"depth"`` (mean absolute change) and ``"camera"`` (mean
        distance between centres), in percent of the mean depth without a gate.
    """
    runs = table["run"]
    names = runs["sequence"].values.tolist()
    found = beside({name: _of_sequence(runs.sel(sequence=name)) for name in names}, "sequence")
    # Frames that a shorter sequence lacks have become NaN.
    found["same"] = found["same"] == 1
    found = described(found, _WORDS)
    for dim in ("memory", "treatment"):
        found[dim].attrs = table[dim].attrs
    return found


def first_parting(traces: xr.Dataset) -> int | None:
    """Return the first frame at which any two memories' cue maps differ; None if none does."""
    apart = ~traces["same"] & traces["correlation"].notnull()
    frames = traces["frame"].values[apart.any(["memory", "other", "sequence"]).values]
    return int(frames[0]) if frames.size else None


def parting_note(traces: xr.Dataset) -> str:
    """Say from which frame on any two memories' cue maps differ."""
    first = first_parting(traces)
    return "they never differ" if first is None else f"they differ from frame {first} on"


def likeness_to_first(traces: xr.Dataset) -> xr.Dataset | None:
    """Return the correlation with the first memory's maps, from the first frame that differs on.

    Returns
    -------
    Dataset or None
        (memory), without the first, as `estimate`: of the
        mean over frames; over all frames where no map ever differs. None for a single memory.
    """
    if traces.sizes["memory"] == 1:
        return None
    parting = first_parting(traces)
    others = traces["correlation"].isel(memory=slice(1, None), other=0, drop=True)
    return estimate(others.sel(frame=slice(parting, None)).mean("frame", keep_attrs=True))


def written_shares(traces: xr.Dataset) -> xr.Dataset:
    """Return the share of the state that a frame replaces, after the first one.

    The first frame starts from learned tokens, and every rule writes it whole.

    Returns
    -------
    Dataset
        (memory, treatment), percent, as `estimate`.
    """
    later = traces["write_rate"].isel(frame=slice(1, None))
    return estimate(later.mean("frame", keep_attrs=True))


def coinciding(found: xr.Dataset, share: float = 0.01) -> str:
    """Say which memories' lines a figure cannot tell apart; empty where there are none.

    Parameters
    ----------
    found : Dataset
        (memory, ...) ``value``.
    share : float
        Lines coincide that nowhere differ by more than this share of the largest value.
    """
    values = found["value"]
    near = share * float(abs(values).max())
    pairs = [
        f"{one} and {other}"
        for one, other in combinations(values["memory"].values.tolist(), 2)
        if float(abs(values.sel(memory=one) - values.sel(memory=other)).max()) <= near
    ]
    return f"{', '.join(pairs)} coincide" if pairs else ""


def auc_table(traces: xr.Dataset) -> pd.DataFrame:
    """Write the AUC of the own cue per memory, and its paired difference to the first memory."""
    first, *rest = traces["memory"].values.tolist()
    auc = traces["auc"]
    rows = {name: {"AUC": formatted(estimate(auc).sel(memory=name), 3)} for name in (first, *rest)}
    if rest:
        apart = difference(auc.sel(memory=rest), auc.sel(memory=first, drop=True))
        for name in rows:
            cell = "–" if name == first else formatted(apart.sel(memory=name), 3)
            rows[name][f"minus {first}"] = cell
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("memory")


def _of_sequence(paths: xr.DataArray) -> xr.Dataset:
    """Traces of one sequence from its stores (memory, treatment)."""
    memories = paths["memory"].values.tolist()
    maps, rows = [], {}
    for memory in memories:
        runs = {t: open_run(paths.sel(memory=memory, treatment=t).item()) for t in (PLAIN, OWN)}
        maps.append(np.asarray(runs[PLAIN]["cue/motion"], np.float64))
        row = beside({name: _state(run) for name, run in runs.items()}, "treatment")
        auc, moved = _auc(runs[PLAIN]), moved_by(*runs.values())
        rows[memory] = row.assign(auc=auc, moved=("what", list(moved)))
    found = beside(rows, "memory").assign_coords(other=memories, what=["depth", "camera"])
    pairs = ("memory", "other", "frame")
    correlation, same = _likeness(np.stack(maps))
    return found.assign(correlation=(pairs, correlation), same=(pairs, same))


def _likeness(maps: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Correlation and equality of maps (memory, frame, row, column), (memory, memory, frame)."""
    flat = maps.reshape(*maps.shape[:2], -1)
    centred = flat - flat.mean(-1, keepdims=True)
    norms = np.linalg.norm(centred, axis=-1)
    product, both = (centred[:, None] * centred).sum(-1), norms[:, None] * norms
    correlation = np.divide(product, both, out=np.full(both.shape, np.nan), where=both > 0)
    itself = np.arange(len(flat))
    correlation[itself, itself] = np.where(norms > 0, 1.0, np.nan)
    same = (np.abs(flat[:, None] - flat) <= ROUNDING).all(-1)
    return correlation, same.astype(float)


def _state(run: xr.DataTree) -> xr.Dataset:
    """Change of a token in percent of its norm, and share replaced; means over tokens."""
    state = run["state"].to_dataset()
    norm, rate = (_by_token(state[name]) for name in ("norm", "write_rate"))
    # only where tokens have a past of their own is it known how much they change
    size = _by_token(state["update_size"]) if "update_size" in state else norm * np.nan
    shares = xr.Dataset({"update_size": size / norm, "write_rate": rate})
    return 100 * shares.mean("token")


def _by_token(held: xr.DataArray) -> xr.DataArray:
    """Return (frame, token) in double precision; NaN where a memory that grows has no token."""
    (dim,) = set(held.dims) - {"frame"}
    return xr.DataArray(
        held.transpose("frame", dim).values.astype(np.float64),
        {"frame": held["frame"].values},
        ("frame", "token"),
    )


def kept_shares(run: xr.DataTree) -> xr.DataArray:
    """Return the share of the tokens before a frame that it leaves as they were, (frame) percent.

    What a frame writes is counted by its rate, and what it appends is not among the tokens before
    it. NaN where there are none.
    """
    state = run["state"].to_dataset()
    count = _by_token(state["norm"]).notnull().sum("token")
    unwritten = count - _by_token(state["write_rate"]).sum("token")
    before = count.shift(frame=1)
    return 100 * (unwritten / before).where(before > 0)


def moved_by(run: xr.DataTree, other: xr.DataTree) -> tuple[float, float]:
    """Return how far depth and camera lie apart in two runs, percent of the first's mean distance.

    Of a model that predicts no depth it is the points in the world; NaN where no camera is.
    """
    predicted = run["prediction"].to_dataset()
    name = "depth" if "depth" in predicted else "points_world"
    one, two = (np.asarray(each[f"prediction/{name}"], np.float64) for each in (run, other))
    apart, scale = np.abs(two - one).mean(), np.abs(one).mean()
    if "xyz" in predicted[name].dims:
        apart, scale = (np.linalg.norm(each, axis=-1).mean() for each in (two - one, one))
    away = np.nan
    if "pose" in predicted:
        poses = [np.asarray(each["prediction/pose"], np.float64) for each in (run, other)]
        away = np.linalg.norm((poses[1] - poses[0])[:, :3, 3], axis=-1).mean()
    return 100 * apart / scale, 100 * away / scale


def _auc(run: xr.DataTree) -> float:
    try:
        return float(score_run(protocol("default:motion:roc"), run, None)["roc_auc"])
    except (UndefinedMetric, UnmetProtocol):  # nobody knows what moves, or all or nothing does
        return float("nan")
