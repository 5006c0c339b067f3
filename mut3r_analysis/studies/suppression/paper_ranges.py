"""The paper's ablation of suppression depth, beside one's own."""

import re
from collections.abc import Sequence

import pandas as pd
import xarray as xr

from mut3r_analysis.foundation.layers import range_label
from mut3r_analysis.literature import published
from mut3r_analysis.studies.estimates import formatted


def paper_table() -> xr.Dataset:
    """Return the published ablation of suppression depth.

    Returns
    -------
    Dataset
        Along ``asked``, ``"none"`` and the ranges published: ``abs_rel`` and ``delta_1`` on Bonn
        at metric scale, ``change`` of the first against none in percent; attribute ``source``.
    """
    rows = published(["CUT3R", "MUT3R", "MUT3R (layers*"], protocol="video-depth:bonn5:metric")
    rows = rows[rows["source"].str.contains("Table 4")]
    spans = rows["note"].str.extract(r"range\((\d+), (\d+)\)")
    labels = [
        "none" if pd.isna(start) else range_label(int(start), int(stop))
        for start, stop in spans.itertuples(index=False)
    ]
    table = rows.assign(asked=labels).pivot(index="asked", columns="metric", values="value")
    order = sorted(table.index, key=lambda label: (label != "none", _bounds(label)))
    found = table.loc[order, ["abs_rel", "delta_1"]].to_xarray()
    found["change"] = 100 * (found["abs_rel"] / found["abs_rel"].sel(asked="none") - 1)
    for name, units in (("abs_rel", "1"), ("delta_1", "%"), ("change", "%")):
        found[name].attrs["units"] = units
    found.attrs["source"] = f"{rows['source'].iloc[0]}; Bonn, 5 sequences, metric scale"
    return found


def beside_paper(
    ranges: xr.Dataset, changes: xr.Dataset, measure: str, asked: Sequence[Sequence[int]]
) -> pd.DataFrame:
    """Put the published changes beside one's own, range by range of the paper.

    The published ones are of another model on other data: only signs and orders compare.
    """
    paper = paper_table()
    rows: dict[str, dict[str, str]] = {}
    for label in ["none", *(range_label(start, stop) for start, stop in asked)]:
        row = dict.fromkeys(("paper AbsRel", "paper δ1.25 (%)", "paper change (%)"), "")
        if label in paper["asked"].values:
            cell = paper.sel(asked=label)
            row["paper AbsRel"] = f"{float(cell['abs_rel']):.3f}"
            row["paper δ1.25 (%)"] = f"{float(cell['delta_1']):.1f}"
            row["paper change (%)"] = "" if label == "none" else f"{float(cell['change']):+.1f}"
        here = [
            name
            for name, stands_for in zip(
                ranges["layers"].values.tolist(), ranges["asked"].values.tolist(), strict=True
            )
            if label in re.findall(r"\[.*?\)", stands_for)
        ]
        row["layers here"] = here[0] if here else "none"
        for cue in changes["cue"].values.tolist():
            row[cue] = (
                formatted(changes.sel(measure=measure, cue=cue, layers=here[0]))
                if here
                else "plain"
            )
        rows[label] = row
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("layers of 12, paper")


def _bounds(label: str) -> tuple[int, ...]:
    return tuple(int(number) for number in re.findall(r"\d+", label))
