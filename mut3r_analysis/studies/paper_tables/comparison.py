"""What the paper's tables say of gating and one's own runs beside them, as changes and as text."""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from mut3r_analysis.foundation.labelling import described
from mut3r_analysis.literature.conflicts import joined_conflicts
from mut3r_analysis.metrics import find_metric
from mut3r_analysis.studies.estimates import change
from mut3r_analysis.studies.finding import Finding, Row, row
from mut3r_analysis.studies.paper_tables.published import (
    AFTER,
    BEFORE,
    PAPER_TABLES,
    SHOWN,
    gating_deltas,
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
        scores = values["scores"].drop_vars("unit")
        for metric in (each for each in values["metric"].values.tolist() if each in SHOWN):
            own_scores = scores.sel(metric=metric, drop=True)
            after, before = (own_scores.sel(system=name, drop=True) for name in (AFTER, BEFORE))
            if int((cell := change(after, before))["n"]):
                found[protocol, metric] = cell
    return found


def error_changes(
    tables: Sequence[pd.DataFrame], own: Mapping[str, xr.Dataset], here: str
) -> xr.Dataset:
    """Return all changes of errors by gating in one column: published ones, then one's own.

    Parameters
    ----------
    tables : sequence of DataFrame
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
    rows: dict[str, tuple[float, ...]] = {}
    known: dict[tuple[str, str], str] = {}
    for table in tables:
        known |= {(one.protocol, one.metric): one.cell for one in _rows(table)}
        for one in _rows(gating_deltas(table).query("comparable")):
            if not find_metric(one.metric).higher_is_better:
                rows.setdefault(f"paper: {one.Index}", (one.value, one.lower, one.upper, 0))
    parts = ["value", "lower", "upper"]
    for (protocol, metric), cell in own_changes(own).items():
        label = find_metric(metric).label
        if find_metric(metric).higher_is_better or metric.startswith(_NEAREST):
            continue
        if (protocol, metric) in known:
            name = f"own runs: {known[protocol, metric]}"
        else:
            name = f"{here}: {label} ({protocol.rpartition(':')[2].replace('_', ' ')})"
        rows[name] = (*(float(cell[part]) for part in parts), int(cell["n"]))
    table = pd.DataFrame.from_dict(rows, orient="index", columns=[*parts, "n"])
    found = table.rename_axis("number").to_xarray()
    return described(found, dict.fromkeys(parts, ("change of the error by gating", "%")))


def finding(
    tables: Sequence[pd.DataFrame],
    own: Mapping[str, xr.Dataset],
    bundled: Mapping[str, xr.Dataset] | None,
    here: str,
) -> Finding:
    """Say how much could be rebuilt and compared, and what gating changes here.

    Parameters
    ----------
    tables : sequence of DataFrame
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
    lead = [row(find_metric(key[1]).label, changes[key]) for key in _LEADING if key in changes]
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
        f"Gating {here}, no reproduction of the paper,",
        note,
        lead=len(lead),
    )


def _counts(tables: Sequence[pd.DataFrame], own: Mapping[str, xr.Dataset]) -> dict[str, int]:
    """Count values and changes, each once however many tables hold it."""
    values = pd.concat(tables).drop_duplicates(["cell", "protocol", "system"])
    changes = pd.concat([gating_deltas(table) for table in tables]).query("comparable")
    changes = changes[~changes.index.duplicated()]
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


def paper_columns(table: pd.DataFrame) -> pd.DataFrame:
    """Write a published table: values with the range of their sources, protocol, n, conflicts.

    Returns
    -------
    DataFrame
        Indexed by ``cell``: one column per system, then ``unit``, ``protocol``, ``sequences`` and
        ``conflicts``.
    """
    written = table.assign(text=[_published(one) for one in _rows(table)])
    values = written.pivot(index="cell", columns="system", values="text")
    cells = table.groupby("cell", sort=False).agg(
        unit=("unit", "first"),
        protocol=("protocol", "first"),
        sequences=("sequences", "first"),
        conflicts=("conflict", joined_conflicts),
    )
    cells = cells.astype({"sequences": str}).replace({"sequences": {"0": "not stated"}})
    cells = cells.replace({"conflicts": {"": "none known"}})
    systems = list(table["system"].cat.categories)
    found = values.reindex(index=cells.index, columns=systems).fillna("–").join(cells)
    return found.rename_axis(index="number", columns=None)


def delta_columns(table: pd.DataFrame) -> pd.DataFrame:
    """Write what a published table says gating changes, and what else could make that change.

    Returns
    -------
    DataFrame
        Indexed by ``cell``: ``change``, in percent with the bounds that rounding leaves,
        ``direction``, ``rounding alone`` and ``scatter of the baseline``.
    """
    words = {1.0: "better", -1.0: "worse", 0.0: "the same"}
    rows = {}
    for one in _rows(gating_deltas(table)):
        scatter = "one source" if one.comparable else "no protocol"
        if one.comparable and np.isfinite(one.scatter):
            scatter = f"{one.scatter:.2g}, {'as large' if one.in_scatter else 'smaller'}"
        rows[one.Index] = {
            "change": f"{one.value:+.1f} [{one.lower:+.1f}, {one.upper:+.1f}] %",
            "direction": words[one.better],
            "rounding alone": "possible" if one.rounding else "no",
            "scatter of the baseline": scatter,
            "conflicts": one.conflict or "none known",
        }
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("number")


def stand_in_column(table: str, own: Mapping[str, xr.Dataset]) -> pd.DataFrame:
    """Write the values of a table's `STAND_INS`, one column per system of that table."""
    rows: dict[str, dict[str, str]] = {}
    for name in (name for name in STAND_INS[table] if name in own):
        for metric in PAPER_TABLES[table].metrics:
            cell = own[name].sel(metric=metric)
            unit = str(cell["unit"].item())
            label = f"{find_metric(metric).label}{'' if unit == '1' else f' ({unit})'}, {name}"
            present = [each for each in PAPER_TABLES[table].systems if each in cell["system"]]
            rows[label] = {each: _formatted(cell.sel(system=each)) for each in present}
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("number")


def _rows(table: pd.DataFrame) -> Iterable[Any]:
    return table.itertuples()


def _published(one: Any) -> str:
    digits = round(-math.log10(2 * one.half_unit))
    text = f"{one.value:.{digits}f}"
    if one.minimum < one.maximum:
        text += f" (sources: {one.minimum:.{digits}f} to {one.maximum:.{digits}f})"
    return text


def _formatted(cell: xr.Dataset) -> str:
    """Write ``value [lower, upper] (n)`` of one metric and system."""
    if not int(cell["n"]):
        return "–"
    numbers = [float(cell[part]) for part in ("value", "lower", "upper")]
    digits = 3 if abs(numbers[0]) < 10 else 1
    value, lower, upper = (f"{number:.{digits}f}" for number in numbers)
    interval = f" [{lower}, {upper}]" if math.isfinite(numbers[1]) else ""
    return f"{value}{interval} (n = {int(cell['n'])})"
