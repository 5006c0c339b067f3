"""Where a change under gating comes from (paths, parts, sequences, facts), and the answer."""

from collections.abc import Sequence
from itertools import permutations, product

import numpy as np
import xarray as xr
from scipy.stats import rankdata

from mut3r_analysis.errors import InvalidArgument
from mut3r_analysis.foundation.labelling import beside, described
from mut3r_analysis.metrics import find_metric
from mut3r_analysis.metrics.bootstrap import drawn_places, percentile_bounds
from mut3r_analysis.studies.ablation import SHUFFLED, in_words
from mut3r_analysis.studies.estimates import change, difference, estimate
from mut3r_analysis.studies.finding import Finding, Row, row, rows, without_truth
from mut3r_analysis.studies.trajectories.path_parts import apart
from mut3r_analysis.studies.trajectories.read_write import DEPTH, LEVELS, POSE, commit_of

FACTS = ("motion_share", "camera_speed", "turn_speed", "texture")
_ERRORS = (*POSE, DEPTH[0])
_FEWEST = 4
"""Sequences below which a rank correlation says nothing."""


def gated_and_plain(
    values: xr.DataArray, paths: Sequence[str]
) -> tuple[xr.DataArray, xr.DataArray]:
    """Return the cells with all paths gated, and with none."""
    gated, plain = (dict.fromkeys(paths, level) for level in reversed(LEVELS))
    return values.sel(gated, drop=True), values.sel(plain, drop=True)


def contributions(values: xr.DataArray, paths: Sequence[str]) -> xr.DataArray:
    """Divide the effect of gating everything among the paths that gates act through.

    A path's contribution is what gating it adds, averaged over all orders in which paths can be
    gated one after the other (its Shapley value). With two paths it is the main effect of a
    two-factor analysis: for reading, half of (gp - pp) + (gg - pg). Contributions add up to the
    total, gg - pp. The interaction, the total less what each path does alone, says how much they
    depend on each other; the contributions contain it, those of two paths half of it each.

    Parameters
    ----------
    values : DataArray
        (..., *paths), each path with `LEVELS`.
    paths : sequence of str

    Returns
    -------
    DataArray
        (path, ...): the paths, ``"total"`` and ``"interaction"``, in the unit of `values`.

    Examples
    --------
    >>> cells = xr.DataArray(
    ...     [[1.0, 1.5], [3.0, 4.0]],
    ...     coords={"read": list(LEVELS), "write": list(LEVELS)}, dims=("read", "write"),
    ... )
    >>> contributions(cells, ["read", "write"]).values
    array([2.25, 0.75, 3.  , 0.5 ])
    """
    missing = [path for path in paths if path not in values.dims]
    if missing:
        raise InvalidArgument(f"the values have no path {', '.join(missing)}; dims: {values.dims}")

    def cell(gated: Sequence[str]) -> xr.DataArray:
        levels = {path: LEVELS[path in gated] for path in paths}
        return values.sel(levels, drop=True)

    orders = list(permutations(paths))
    parts = []
    for path in paths:
        before = [order[: order.index(path)] for order in orders]
        steps = (cell([*gated, path]) - cell(gated) for gated in before)
        parts.append(sum(steps, xr.zeros_like(cell([]))) / len(orders))
    total = cell(paths) - cell([])
    alone = sum((cell([path]) - cell([]) for path in paths), xr.zeros_like(total))
    labels = [*paths, "total", "interaction"]
    found = xr.concat([*parts, total, total - alone], dim=xr.Variable("path", labels))
    name = values.attrs.get("long_name", values.name or "value")
    return found.assign_attrs(long_name=f"contribution to {name}", units=_units(values))


def relative_contributions(values: xr.DataArray, paths: Sequence[str]) -> xr.Dataset:
    """Return :func:`contributions` in percent of the plain mean, with intervals over sequences."""
    _, plain = gated_and_plain(values, paths)
    parts = contributions(values, paths)
    return change((plain + parts).assign_attrs(values.attrs), plain)


def metric_contributions(cells: xr.Dataset) -> xr.Dataset:
    """Return :func:`relative_contributions` to every error that was scored, over ``metric``."""
    paths = cells.attrs["paths"]
    names = [name for name in _ERRORS if name in cells and bool(cells[name].notnull().any())]
    if not names:
        raise InvalidArgument("no sequence has an error: none has ground truth")
    parts = {find_metric(name).label: relative_contributions(cells[name], paths) for name in names}
    words = {"value": ("contribution to the change of the mean error", "%")}
    return described(beside(parts, "metric"), words)


def by_commit(values: xr.DataArray, paths: Sequence[str]) -> xr.DataArray:
    """Put the cells that gate something along one dimension ``commit``, by their names."""
    cells = [dict(zip(paths, each, strict=True)) for each in product(LEVELS, repeat=len(paths))][1:]
    return beside({str(commit_of(cell)): values.sel(cell, drop=True) for cell in cells}, "commit")


def sequence_changes(cells: xr.Dataset) -> xr.DataArray:
    """Return the change of every error per sequence, all paths gated, in percent."""
    rows = {}
    for name in (name for name in _ERRORS if name in cells):
        gated, plain = gated_and_plain(cells[name], cells.attrs["paths"])
        rows[find_metric(name).label] = 100 * (gated / plain - 1)
    found = beside(rows, "metric")
    return found.assign_attrs(long_name="change under gating", units="%").rename(None)


def influence(values: xr.DataArray) -> xr.Dataset:
    """Return what each sequence does to the mean over sequences.

    Parameters
    ----------
    values : DataArray
        (sequence, ...), paired differences. Sequences without a value are left out.

    Returns
    -------
    Dataset
        ``value`` (sequence, ...); ``without``, the mean over all others; ``influence``, how far the
        sequence moves the mean; ``flips``, whether the mean has the other sign without it.
    """
    known = values.notnull()
    count, total = known.sum("sequence"), values.sum("sequence")
    mean = (total / count).where(count > 0)
    without = ((total - values) / (count - 1)).where(known & (count > 1))
    name = values.attrs.get("long_name", "value")
    found = xr.Dataset(
        {
            "value": values,
            "without": without.assign_attrs(long_name=f"{name}, mean over the others"),
            "influence": (mean - without).assign_attrs(long_name="pull on the mean"),
            "flips": (without * mean < 0).where(known, False).astype(bool),
        }
    )
    for part in ("value", "without", "influence"):
        found[part].attrs["units"] = _units(values)
    return found


def rank_correlations(values: xr.DataArray, facts: xr.Dataset) -> xr.Dataset:
    """Correlate an effect with what the sequences show, by ranks.

    Parameters
    ----------
    values : DataArray
        (sequence, ...).
    facts : Dataset
        Variables (sequence).

    Returns
    -------
    Dataset
        Dims ``fact`` and those of `values` but sequence: ``value``, Spearman's coefficient;
        ``lower`` and ``upper``, percentile bootstrap over sequences; ``n``. NaN where a side is
        constant or fewer than 4 sequences have both.
    """
    names = [str(name) for name in facts.data_vars]
    stacked = facts.to_dataarray("fact").astype(float)
    found = xr.apply_ufunc(
        _rank_correlation,
        *xr.align(stacked, values, join="inner"),
        input_core_dims=[["sequence"]] * 2,
        output_core_dims=[["part"]],
        vectorize=True,
    )
    parts = ("value", "lower", "upper", "n")
    result = found.assign_coords(part=list(parts)).to_dataset("part")
    words = [str(facts[name].attrs.get("long_name", name)) for name in names]
    effect = values.attrs.get("long_name", "effect")
    result["value"].attrs = {"long_name": f"rank correlation with {effect}", "units": "1"}
    result["n"] = result["n"].astype(int).assign_attrs(long_name="sequences with both", units="1")
    return result.assign_coords(fact=words)


def separation(cells: xr.Dataset) -> xr.Dataset:
    """Return how far each cell's predictions are from the plain run's; needs no ground truth.

    Returns
    -------
    Dataset
        ``translation`` (..., frame) m, ``rotation`` (..., frame) degrees, and where measured
        ``state_distance`` in percent; ``extent`` (sequence), the length of the plain path, m.
    """
    _, plain = gated_and_plain(cells["pose"], cells.attrs["paths"])
    found = apart(cells["pose"], plain)
    if "state_distance" in cells:
        found["state_distance"] = cells["state_distance"]
    base = plain.isel(cue=0, drop=True) if "cue" in plain.dims else plain
    steps = base.isel(col=3, row=slice(0, 3)).diff("frame")
    found["extent"] = ((steps**2).sum("row") ** 0.5).sum("frame")
    found["extent"].attrs = {"long_name": "length of the plain path", "units": "m"}
    return found


def _rank_correlation(fact: np.ndarray, effect: np.ndarray) -> np.ndarray:
    known = np.isfinite(fact) & np.isfinite(effect)
    x, y = fact[known], effect[known]
    if len(x) < _FEWEST or np.ptp(x) == 0 or np.ptp(y) == 0:
        return np.array([np.nan, np.nan, np.nan, len(x)])
    draws = drawn_places(len(x))
    bounds = percentile_bounds(_spearman(x[draws], y[draws]))
    return np.array([_spearman(x[None], y[None])[0], *bounds, len(x)])


def _spearman(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Rank correlation along the last axis; NaN where a draw is constant."""
    a, b = (rankdata(each, axis=-1) for each in (x, y))
    a, b = (each - each.mean(axis=-1, keepdims=True) for each in (a, b))
    scale = np.sqrt((a**2).sum(axis=-1) * (b**2).sum(axis=-1))
    return np.where(scale > 0, (a * b).sum(axis=-1) / np.where(scale > 0, scale, 1), np.nan)


def _units(values: xr.DataArray) -> str:
    return str(values.attrs.get("units", "1"))


QUESTION = "Why can the absolute trajectory error rise while relative errors fall?"
ASKED = ("ate", "rpe_translation")


def finding(cells: xr.Dataset, parts: xr.Dataset | None = None) -> Finding:
    """Tell how errors change under gating, through which path, and whether one sequence carries it.

    Parameters
    ----------
    cells : Dataset
        From `measure_cells`.
    parts : Dataset, optional
        From `path_parts` of the same cells.
    """
    if "ate" not in cells or not bool(cells["ate"].notnull().any()):
        about = "Against the plain camera, in percent of its path, the last camera is away"
        return without_truth(QUESTION, last_distances(cells), about)
    paths = list(cells.attrs["paths"])
    cues = [
        cue
        for cue in cells["cue"].values.tolist()
        if not cue.endswith(SHUFFLED) and bool(cells["ate"].sel(cue=cue).notnull().any())
    ]
    lead = [
        row(
            f"{find_metric(name).label} with the {in_words(cue)}",
            change(*gated_and_plain(its[name], paths)),
        )
        for cue, its in ((cue, cells.sel(cue=cue)) for cue in cues)
        for name in ASKED
    ]
    table: list[Row] = []
    for cue in cues:
        table += _causes(cells.sel(cue=cue, drop=True), paths, in_words(cue))
        if parts is not None:
            square = parts["mean_square"].sel(cue=cue, drop=True)
            moved = difference(*gated_and_plain(square, paths))
            table += rows(moved, f"squared error of the path, {{}}, {in_words(cue)}")
    return Finding(QUESTION, [*lead, *table], "Gating", lead=len(lead))


def _causes(chosen: xr.Dataset, paths: list[str], cue: str) -> list[Row]:
    """Through which path ATE changes, in how many sequences, and without which it would not."""
    shares = relative_contributions(chosen["ate"], paths)
    table = rows(shares, f"ATE through {{}}, {cue}")
    ate, rpe = (
        gated - plain for gated, plain in (gated_and_plain(chosen[name], paths) for name in ASKED)
    )
    known = ate.notnull() & rpe.notnull()
    both = ((ate > 0) & (rpe < 0) & known).sum()
    effect = f"sequences in which ATE rises and RPE falls, {cue}"
    table.append(Row(effect, int(both), n=int(known.sum()), reference=None))
    without = influence(ate)
    for name in without["sequence"].values[without["flips"].values]:
        mean = float(without["without"].sel(sequence=name))
        effect = f"mean change of ATE, sign flipped without {name}, {cue}"
        table.append(Row(effect, mean, n=int(ate.notnull().sum()) - 1, unit="m", reference=None))
    return table


def last_distances(cells: xr.Dataset) -> xr.Dataset:
    """Estimate how far the last camera is from the plain one, percent of the plain path, (gated).

    ``gated`` is all paths, and each of them alone; of the first cue.
    """
    far, paths = separation(cells), list(cells.attrs["paths"])
    distance = far["translation"].isel(cue=0, drop=True)
    last = distance.isel(frame=distance.notnull().sum("frame") - 1)
    shares = (100 * last / far["extent"]).assign_attrs(units="%")
    parts = {"all paths gated": gated_and_plain(shares, paths)[0]}
    for path in paths:
        alone = {other: LEVELS[other == path] for other in paths}
        parts[f"{path} gated"] = shares.sel(alone, drop=True)
    return beside({name: estimate(part) for name, part in parts.items()}, "gated")
