"""The paper's tables as text: published values, their changes, and own values beside them."""

import math
from collections.abc import Callable, Mapping

import numpy as np
import pandas as pd
import xarray as xr

from mut3r_analysis.errors import InvalidArgument
from mut3r_analysis.studies.paper_tables.published import (
    METRIC_NAMES,
    PAPER_TABLES,
    gating_deltas,
    joined_conflicts,
)
from mut3r_analysis.studies.paper_tables.rebuilt import STAND_INS

_FACTORS = {("1", "%"): 100.0, ("%", "1"): 0.01}


def paper_columns(table: xr.Dataset) -> pd.DataFrame:
    """Write a published table: values with the range of their sources, protocol, n, conflicts.

    Returns
    -------
    DataFrame
        Indexed by ``cell``: one column per system, then ``unit``, ``protocol``, ``sequences`` and
        ``conflicts``.
    """

    def written(one: xr.Dataset) -> dict[str, str]:
        count, known = int(one["sequences"]), joined_conflicts(one["conflict"].values.tolist())
        return {
            **{name: _published(one.sel(system=name)) for name in one["system"].values.tolist()},
            "unit": str(one["unit"].item()),
            "protocol": str(one["protocol"].item()),
            "sequences": str(count or "not stated"),
            "conflicts": known or "none known",
        }

    return _by_cell(table, written)


def delta_columns(table: xr.Dataset) -> pd.DataFrame:
    """Write what a published table says gating changes, and what else could make that change.

    Returns
    -------
    DataFrame
        Indexed by ``cell``: ``change``, in percent with the bounds that rounding leaves,
        ``direction``, ``rounding alone`` and ``scatter of the baseline``.
    """
    words = {1.0: "better", -1.0: "worse", 0.0: "the same"}

    def written(one: xr.Dataset) -> dict[str, str]:
        value, lower, upper = (float(one[part]) for part in ("value", "lower", "upper"))
        scatter = "one source" if bool(one["comparable"]) else "no protocol"
        if bool(one["comparable"]) and one["scatter"].notnull():
            inside = "as large" if bool(one["in_scatter"]) else "smaller"
            scatter = f"{float(one['scatter']):.2g}, {inside}"
        return {
            "change": f"{value:+.1f} [{lower:+.1f}, {upper:+.1f}] %",
            "direction": words[float(one["better"])],
            "rounding alone": "possible" if bool(one["rounding"]) else "no",
            "scatter of the baseline": scatter,
            "conflicts": str(one["conflict"].item()) or "none known",
        }

    return _by_cell(gating_deltas(table), written)


def in_unit(values: xr.Dataset, metric: str, unit: str) -> xr.Dataset:
    """Return one metric of own values, (system), in the unit that the literature uses.

    Raises
    ------
    InvalidArgument
        When one cannot be turned into the other.
    """
    cell = values.sel(metric=metric)
    own = str(cell["unit"].item())
    if unit in (own, "unstated"):
        return cell
    if (own, unit) not in _FACTORS:
        raise InvalidArgument(f"{metric} is in {own!r} here and in {unit!r} in the literature")
    scaled = cell.copy()
    for part in ("value", "lower", "upper", "scores"):
        scaled[part] = cell[part] * _FACTORS[own, unit]
    return scaled


def own_column(table: xr.Dataset, own: Mapping[str, xr.Dataset]) -> pd.DataFrame:
    """Write own values of a published table's numbers: ``value [lower, upper] (n of expected)``.

    Returns
    -------
    DataFrame
        Indexed by ``cell``, one column per system; ``"–"`` where there is none.
    """

    def written(place: xr.Dataset) -> dict[str, str]:
        values = own.get(str(place["protocol"].item()))
        metric, unit = str(place["metric"].item()), str(place["unit"].item())
        row = dict.fromkeys(table["system"].values.tolist(), "–")
        if values is not None and metric in values["metric"]:
            scaled = in_unit(values, metric, unit)
            for system in set(row) & set(values["system"].values.tolist()):
                row[system] = _formatted(scaled.sel(system=system), int(values.attrs["expected"]))
        return row

    return _by_cell(table, written).rename_axis("cell")


def stand_in_column(table: str, own: Mapping[str, xr.Dataset]) -> pd.DataFrame:
    """Write the values of a table's `STAND_INS`, one column per system of that table."""
    rows: dict[str, dict[str, str]] = {}
    rows: dict[str, dict[str, str]] = {}
    for name in (name for name in STAND_INS[table] if name in own):
        for metric in PAPER_TABLES[table].metrics:
            cell = own[name].sel(metric=metric)
            unit = str(cell["unit"].item())
            label = f"{METRIC_NAMES[metric]}{'' if unit == '1' else f' ({unit})'}, {name}"
            present = [each for each in PAPER_TABLES[table].systems if each in cell["system"]]
            rows[label] = {each: _formatted(cell.sel(system=each), 0) for each in present}
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("number")


def _by_cell(table: xr.Dataset, written: Callable[[xr.Dataset], dict[str, str]]) -> pd.DataFrame:
    rows = {cell: written(table.sel(cell=cell)) for cell in table["cell"].values.tolist()}
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("number")


def _published(cell: xr.Dataset) -> str:
    if cell["value"].isnull().item():
        return "–"
    digits = round(-math.log10(2 * float(cell["half_unit"])))
    text = f"{float(cell['value']):.{digits}f}"
    low, high = float(cell["minimum"]), float(cell["maximum"])
    if low < high:
        text += f" (sources: {low:.{digits}f} to {high:.{digits}f})"
    return text


def _formatted(cell: xr.Dataset, expected: int) -> str:
    if not int(cell["n"]):
        return "–"
    digits = 3 if abs(float(cell["value"])) < 10 else 1
    value, lower, upper = (
        f"{float(cell[part]):.{digits}f}" for part in ("value", "lower", "upper")
    )
    counted = f"{int(cell['n'])} of {expected}" if expected else f"n = {int(cell['n'])}"
    interval = f" [{lower}, {upper}]" if np.isfinite(float(cell["lower"])) else ""
    return f"{value}{interval} ({counted})"
