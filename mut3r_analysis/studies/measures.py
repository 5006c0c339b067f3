"""What is measured on each sequence: errors of scored sweeps, or departures without truth."""

from collections.abc import Iterator, Mapping
from dataclasses import replace

import numpy as np
import pandas as pd
import xarray as xr

from mut3r_analysis.errors import InvalidArgument
from mut3r_analysis.evaluation.scores import named_protocols
from mut3r_analysis.metrics import PROTOCOLS, Protocol, find_metric, protocol
from mut3r_analysis.metrics.depth import DEPTH_METRICS
from mut3r_analysis.running.opening import open_run
from mut3r_analysis.studies.estimates import formatted
from mut3r_analysis.studies.labelling import beside

TAKEN = {"video-depth": ("abs_rel",), "pose": ("ate", "rpe_translation", "rpe_rotation")}
"""Metrics of a task that the studies look at. All are errors: lower is better."""

_ALIGNMENTS = {
    "metric": "metric",
    "scale_irls": "L1 scale",
    "scale_median": "median scale",
    "scale_shift_adam": "scale and shift by Adam",
    "scale_shift_lad": "L1 scale and shift",
    "scale_shift_lstsq": "scale and shift",
    "sim3": "Sim3",
    "se3": "rigid",
    "none": "not aligned",
}
_UNALIGNED = ("rpe_rotation",)
"""The same under every alignment, and so taken once."""


def scoring(name: str) -> str | Protocol:
    """Return what a sweep takes as its protocol for a name that a notebook gives.

    Parameters
    ----------
    name : str
        ``"default"``, an id of the catalogue, or ``default:depth:<alignment>`` with any alignment
        of depth, also one that the catalogue does not list for sequences of one's own.
    """
    base = "default:depth:"
    if name.startswith(base) and name not in PROTOCOLS:
        return replace(protocol(f"{base}metric"), id=name, align=name.removeprefix(base))
    return name


def errors(tables: Mapping[str, xr.Dataset]) -> xr.DataArray:
    """Gather the errors of one sweep scored under several protocols.

    Parameters
    ----------
    tables : mapping of str to Dataset
        Name of the protocol to what ``sweep(..., protocol=...)`` returned: metrics over
        ``sequence`` and the sweep's own dimensions, the same in all.

    Returns
    -------
    DataArray
        (measure, ..., sequence), depth before pose. ``measure`` reads metric and alignment, such as
        ``"ATE (Sim3)"``; along it are ``metric``, ``task``, ``protocol`` and ``units``. A metric
        without a single value is left out, so without ground truth ``measure`` is empty.

    Raises
    ------
    InvalidArgument
        For no table, or two protocols that give measures of one name.
    """
    if not tables:
        raise InvalidArgument("no scored sweeps were given; score one under at least one protocol")
    found: dict[str, xr.DataArray] = {}
    rows: dict[str, tuple[str, str, str, str]] = {}
    depth_first = sorted(_scored(tables), key=lambda row: list(TAKEN).index(row[1].task))
    for table, scored, metric in depth_first:
        label = measure_label(metric, scored.align)
        if metric in _UNALIGNED and label in found:
            continue
        if label in found:
            raise InvalidArgument(
                f"{scored.id} and {rows[label][2]} both give {label}; score under one of them"
            )
        found[label] = table[metric].drop_vars(set(table.coords) - set(table.dims))
        units = str(table[metric].attrs.get("units", "1"))
        rows[label] = (metric, scored.task, scored.id, units)
    return _stacked(found, next(iter(tables.values())), rows, "error")


def measure_label(metric: str, align: str) -> str:
    """Name a metric with the alignment that it was scored under, such as ``"ATE (Sim3)"``."""
    label = "depth " * (metric in DEPTH_METRICS) + find_metric(metric).label
    return label if metric in _UNALIGNED else f"{label} ({_ALIGNMENTS[align]})"


def departures(table: xr.Dataset, reference: str = "plain") -> xr.DataArray:
    """Measure how far runs depart from a reference run of the same sequence: needs no truth.

    Parameters
    ----------
    table : Dataset
        Result of a sweep over ``configuration``, with the stores in ``run``.
    reference : str
        The configuration that the others are compared with.

    Returns
    -------
    DataArray
        (measure, configuration, sequence): ``"depth changed"``, the mean absolute difference of
        depth in percent of the reference's mean depth, and ``"camera moved"``, the mean distance
        between the camera centres in percent of the reference's mean depth. NaN where a run is
        missing.
    """
    runs = table["run"].transpose("configuration", "sequence")
    labels = runs["configuration"].values.tolist()
    kinds = ("depth changed", "camera moved")
    found = np.full((2, *runs.shape), np.nan)
    for column, paths in enumerate(runs.values.T.tolist()):
        if not paths[labels.index(reference)]:
            continue
        base = _prediction(paths[labels.index(reference)])
        size = float(np.mean(base["depth"]))
        for row, other in ((row, _prediction(path)) for row, path in enumerate(paths) if path):
            away = other["centre"] - base["centre"]
            found[0, row, column] = 100 * np.mean(np.abs(other["depth"] - base["depth"])) / size
            found[1, row, column] = 100 * np.mean(np.linalg.norm(away, axis=-1)) / size
    coords = {dim: table[dim].values for dim in runs.dims}
    parts = {kind: xr.DataArray(found[i], coords, runs.dims) for i, kind in enumerate(kinds)}
    rows = dict.fromkeys(kinds, ("", "", "none", "%"))
    stacked = _stacked(parts, table, rows, "departure from the plain run")
    return stacked.assign_attrs(units="% of the mean depth")


def protocols_of(values: xr.DataArray) -> list[tuple[str, str]]:
    """Return every measure with the id of its protocol."""
    return list(
        zip(*(values[name].values.tolist() for name in ("measure", "protocol")), strict=True)
    )


def first_of(values: xr.DataArray, task: str) -> str | None:
    """Return the first measure of a task, which stands for it in sentences; None without one."""
    labels = values["measure"].values[values["task"].values == task]
    return str(labels[0]) if len(labels) else None


def leading(values: xr.DataArray) -> list[str]:
    """Return the first measure of depth and the first of pose, as far as there are any."""
    found = [first_of(values, task) for task in TAKEN]
    return [name for name in found if name is not None]


def formatted_table(summary: xr.Dataset, rows: str, columns: str, digits: int = 1) -> pd.DataFrame:
    """Write estimates over two dimensions as ``value [lower, upper] (n)``, one per cell."""
    return pd.DataFrame(
        {
            str(column): {
                row: formatted(summary.sel({rows: row, columns: column}), digits)
                for row in summary[rows].values.tolist()
            }
            for column in summary[columns].values.tolist()
        }
    ).rename_axis(index=str(summary[rows].attrs.get("long_name", rows)))


def _scored(
    tables: Mapping[str, xr.Dataset],
) -> Iterator[tuple[xr.Dataset, Protocol, str]]:
    """Every metric that has a value, with its protocol and the table it stands in."""
    for name, table in tables.items():
        for scored in named_protocols(scoring(name)):
            for metric in TAKEN.get(scored.task, ()):
                if metric in table and bool(table[metric].notnull().any()):
                    yield table, scored, metric


def _prediction(path: str) -> dict[str, np.ndarray]:
    with open_run(path) as run:
        prediction = run["prediction"].to_dataset()
        return {
            "depth": prediction["depth"].values.astype(np.float64),
            "centre": prediction["pose"].values[:, :3, 3].astype(np.float64),
        }


def _stacked(
    found: Mapping[str, xr.DataArray],
    like: xr.Dataset,
    rows: Mapping[str, tuple[str, str, str, str]],
    long_name: str,
) -> xr.DataArray:
    """Stack measures; without any, keep the sweep's dimensions around an empty one."""
    if found:
        parts = {label: part.astype(float).assign_attrs({}) for label, part in found.items()}
        stacked = beside(parts, "measure", join="exact")
    else:
        dims = [dim for dim in like.dims if dim != "frame"]
        stacked = xr.DataArray(
            np.empty([0, *(like.sizes[dim] for dim in dims)]),
            dims=("measure", *dims),
            coords={dim: like[dim].values for dim in dims if dim in like.coords},
        )
    columns = {
        name: ("measure", np.array([row[place] for row in rows.values()], dtype=object))
        for place, name in enumerate(("metric", "task", "protocol", "units"))
    }
    labels = {"measure": np.array(list(rows), dtype=object)}
    return stacked.assign_coords(labels | columns).assign_attrs(long_name=long_name)
