"""What the paper's tables say of gating and one's own runs beside them, as changes and as text."""

import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import pandas as pd
import xarray as xr

from mut3r_analysis.errors import InvalidArgument
from mut3r_analysis.metrics import find_metric
from mut3r_analysis.studies.estimates import change
from mut3r_analysis.studies.finding import Finding, Row, row
from mut3r_analysis.studies.labelling import described
from mut3r_analysis.studies.paper_tables.published import (
    AFTER,
    BEFORE,
    METRIC_NAMES,
    PAPER_TABLES,
    gating_deltas,
    joined_conflicts,
)
from mut3r_analysis.studies.paper_tables.rebuilt import STAND_INS

QUESTION = "How much of the paper's tables stands on common ground, and what does gating do here?"
_LEADING = (("default:depth:scale_median", "abs_rel"), ("default:pose:sim3", "ate"))
"""What the finding says of one's own sequences."""

_NEAREST = ("accuracy_", "completion_")
"""Distances to nearest points, which published tables report in contradiction to the scorer."""


def own_changes(own: Mapping[str, xr.Dataset]) -> dict[tuple[str, str], xr.Dataset]:
    """Return the paired change by MUT3R's gates of every metric that own runs have.

    The change is that of plain means over sequences, also where a protocol weighs them.

    Returns
    -------
    dict
        (protocol, metric) -> scalars as of `change`.
    """
    found = {}
    for protocol, values in own.items():
        if not {BEFORE, AFTER} <= set(values["system"].values.tolist()):
            continue
        for metric in values["metric"].values.tolist():
            scores = (
                values["scores"].sel(metric=metric, drop=True).drop_vars("unit", errors="ignore")
            )
            after, before = (scores.sel(system=name, drop=True) for name in (AFTER, BEFORE))
            if metric in METRIC_NAMES and bool((after + before).notnull().any()):
                found[protocol, metric] = change(after, before)
    return found


def error_changes(
    tables: Sequence[xr.Dataset], own: Mapping[str, xr.Dataset], here: str
) -> xr.Dataset:
    """Return all changes of errors by gating in one column: published ones, then one's own.

    Parameters
    ----------
    tables : sequence of Dataset
        From `published_table`.
    own : mapping of str to Dataset
        Protocol -> own values, of the paper's protocols and of others.
    here : str
        What to call own runs under protocols that are not the paper's.

    Returns
    -------
    Dataset
        Along ``number``: ``value``, ``lower``, ``upper`` in percent, and ``n``. Bounds of published
        changes come from rounding (``n`` is 0), those of one's own from the bootstrap over ``n``
        sequences.
    """
    rows: dict[str, xr.Dataset] = {}
    for table in tables:
        deltas = gating_deltas(table)
        for cell in deltas["cell"].values.tolist():
            one = deltas.sel(cell=cell)
            if (
                bool(one["comparable"])
                and not find_metric(str(one["metric"].item())).higher_is_better
            ):
                rows.setdefault(f"paper: {cell}", one)
    known = {
        (str(table["protocol"].sel(cell=cell).item()), str(table["metric"].sel(cell=cell).item())):
        str(cell) for table in tables for cell in table["cell"].values
    }  # fmt: skip
    for (protocol, metric), cell in own_changes(own).items():
        if find_metric(metric).higher_is_better or metric.startswith(_NEAREST):
            continue
        if (protocol, metric) in known:
            rows[f"own runs: {known[protocol, metric]}"] = cell
        else:
            align = protocol.rpartition(":")[2].replace("_", " ")
            rows[f"{here}: {METRIC_NAMES[metric]} ({align})"] = cell
    parts = ("value", "lower", "upper")
    values = {part: [float(row[part]) for row in rows.values()] for part in parts}
    values["n"] = [int(row.get("n", 0)) for row in rows.values()]
    found = xr.Dataset(
        {name: ("number", each) for name, each in values.items()}, {"number": list(rows)}
    )
    return described(found, dict.fromkeys(parts, ("change of the error by gating", "%")))


def finding(
    tables: Sequence[xr.Dataset],
    own: Mapping[str, xr.Dataset],
    bundled: Mapping[str, xr.Dataset] | None,
    here: str,
) -> Finding:
    """Say how much could be rebuilt and compared, and what gating changes here.

    Parameters
    ----------
    tables : sequence of Dataset
        From `published_table`.
    own : mapping of str to Dataset
        Own values under the paper's protocols.
    bundled : mapping of str to Dataset or None
        Own values on other data; None or empty without ground truth.
    here : str
        What the other model and data are called.
    """
    count = _counts(tables, own)
    changes = own_changes(bundled or {})
    lead = [row(METRIC_NAMES[key[1]], changes[key]) for key in _LEADING if key in changes]
    note = (
        f"Of {count['published values']} published values, {count['with a named protocol']} have a "
        f"named protocol and {count['with own runs']} own runs beside them; of "
        f"{count['changes by gating']} published changes by gating, {count['for the better']} are "
        f"for the better, and {count['within rounding']} could be rounding alone."
    )
    if not lead:
        note += " No ground truth: nothing of the model at hand could be scored beside them."
    return Finding(
        QUESTION,
        [*lead, *(Row(effect, value, reference=None) for effect, value in count.items())],
        f"With {here}, another model on other data and no reproduction, the error with gates is",
        note,
        lead=len(lead),
    )


def _counts(tables: Sequence[xr.Dataset], own: Mapping[str, xr.Dataset]) -> dict[str, int]:
    """Count values and changes, each once however many tables hold it."""
    values, changes = (
        pd.concat([part.to_dataframe().reset_index() for part in parts])
        for parts in (
            [table[["value", "conflict"]] for table in tables],
            [gating_deltas(table) for table in tables],
        )
    )
    values = values.dropna(subset="value").drop_duplicates(["cell", "protocol", "system"])
    changes = changes[changes["comparable"].astype(bool)].drop_duplicates("cell")
    disputed = values.loc[values["conflict"] != "", "conflict"].tolist()
    keys = values[["protocol", "metric", "system"]].itertuples(index=False, name=None)
    return {
        "published values": len(values),
        "with a named protocol": int(values["comparable"].sum()),
        "with own runs": sum(_is_computed(own.get(protocol), *cell) for protocol, *cell in keys),
        "known conflicts": len({each for text in disputed for each in text.split(";")}),
        "values in conflict": len(disputed),
        "changes by gating": len(changes),
        "for the better": int((changes["better"] > 0).sum()),
        "for the worse": int((changes["better"] < 0).sum()),
        "within rounding": int(changes["rounding"].sum()),
        "within the scatter of the baseline": int(changes["in_scatter"].sum()),
    }


def _is_computed(values: xr.Dataset | None, metric: str, system: str) -> bool:
    if values is None or metric not in values["metric"] or system not in values["system"]:
        return False
    return int(values["n"].sel(metric=metric, system=system)) > 0


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
