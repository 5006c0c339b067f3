"""What is measured on each sequence: errors of scored sweeps, or departures without truth."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import pandas as pd
import xarray as xr

from mut3r_analysis.errors import InvalidArgument
from mut3r_analysis.evaluation.scores import named_protocols
from mut3r_analysis.foundation.labelling import beside
from mut3r_analysis.metrics import PROTOCOLS, Protocol, protocol
from mut3r_analysis.metrics.protocols import UNALIGNED, measure_label
from mut3r_analysis.running.opening import open_run
from mut3r_analysis.studies.ablation import PLAIN
from mut3r_analysis.studies.estimates import formatted

TAKEN = {"video-depth": ("abs_rel",), "pose": ("ate", "rpe_translation", "rpe_rotation")}
"""Metrics of a task that the studies look at. All are errors: lower is better."""

_DEPARTURES = ("depth changed", "camera moved")


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


def errors(
    tables: Mapping[str, xr.Dataset], taken: Mapping[str, Sequence[str]] = TAKEN
) -> xr.DataArray:
    """Gather the errors of one sweep scored under several protocols.

    Parameters
    ----------
    tables : mapping of str to Dataset
        Name of the protocol to what ``sweep(..., protocol=...)`` returned: metrics over
        ``sequence`` and the sweep's own dimensions, the same in all.
    taken : mapping of str to sequence of str
        Task to the metrics that are looked at.

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
    scored = [
        (table, each, metric)
        for name, table in tables.items()
        for each in named_protocols(scoring(name))
        for metric in taken.get(each.task, ())
        if metric in table and bool(table[metric].notnull().any())
    ]
    found: dict[str, tuple[xr.DataArray, tuple[str, ...]]] = {}
    for table, each, metric in sorted(scored, key=lambda row: list(taken).index(row[1].task)):
        label = measure_label(metric, each.align)
        if label not in found:
            values = table[metric].drop_vars(set(table.coords) - set(table.dims))
            units = str(table[metric].attrs.get("units", "1"))
            found[label] = values, (metric, each.task, each.id, units)
        elif metric not in UNALIGNED:
            raise InvalidArgument(
                f"{each.id} and {found[label][1][2]} both give {label}; score under one of them"
            )
    return _stacked(found, next(iter(tables.values())), "error")


def departures(
    table: xr.Dataset, reference: Mapping[str, str] = {"configuration": PLAIN}
) -> xr.DataArray:
    """Measure how far runs depart from a reference run of the same sequence: needs no truth.

    Parameters
    ----------
    table : Dataset
        Result of a sweep, with the stores in ``run``.
    reference : mapping
        Labels of the runs that the others are compared with.

    Returns
    -------
    DataArray
        (measure, ...): ``"depth changed"``, the mean absolute difference of
        depth in percent of the reference's mean depth, and ``"camera moved"``, the mean distance
        between the camera centres in percent of the reference's mean depth. NaN where a run is
        missing.
    """
    runs = table["run"]
    parts = xr.apply_ufunc(
        _apart, runs, runs.sel(reference, drop=True), vectorize=True, output_core_dims=[[], []]
    )
    row = ("", "", "none", "%")
    found = {kind: (part, row) for kind, part in zip(_DEPARTURES, parts, strict=True)}
    stacked = _stacked(found, table, "departure from the plain run")
    return stacked.assign_attrs(units="% of the mean depth")


def first_of(values: xr.DataArray | xr.Dataset, task: str) -> str | None:
    """Return the first measure of a task, which stands for it in sentences; None without one."""
    labels = values["measure"].values[values["task"].values == task]
    return str(labels[0]) if len(labels) else None


def leading(values: xr.DataArray | xr.Dataset) -> list[str]:
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


def _apart(*paths: str) -> tuple[float, float]:
    """How far the depth and the camera of a run lie from those of another, percent of its depth."""
    if not all(paths):
        return np.nan, np.nan
    runs = [open_run(str(path)) for path in paths]
    depth, base = (np.asarray(run["prediction/depth"], np.float64) for run in runs)
    pose, start = (np.asarray(run["prediction/pose"], np.float64) for run in runs)
    away = np.linalg.norm((pose - start)[:, :3, 3], axis=-1)
    return 100 * np.abs(depth - base).mean() / base.mean(), 100 * away.mean() / base.mean()


def _stacked(
    found: Mapping[str, tuple[xr.DataArray, tuple[str, ...]]], like: xr.Dataset, long_name: str
) -> xr.DataArray:
    """Stack measures; without any, keep the sweep's dimensions around an empty one."""
    if found:
        parts = {label: part.astype(float).assign_attrs({}) for label, (part, _) in found.items()}
        stacked = beside(parts, "measure", join="exact")
    else:
        dims = [dim for dim in like.dims if dim != "frame"]
        coords = {dim: like[dim].values for dim in dims if dim in like.coords}
        empty = np.empty([0, *(like.sizes[dim] for dim in dims)])
        stacked = xr.DataArray(empty, coords, ("measure", *dims))
    names = ("metric", "task", "protocol", "units")
    columns = np.array([row for _, row in found.values()], dtype=object).reshape(-1, len(names)).T
    labels = {name: ("measure", column) for name, column in zip(names, columns, strict=True)}
    labels["measure"] = ("measure", np.array(list(found), dtype=object))
    return stacked.assign_coords(labels).assign_attrs(long_name=long_name)
