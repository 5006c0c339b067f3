"""The tables of MUT3R's paper, rebuilt from published numbers, with protocols and conflicts."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import xarray as xr

from mut3r_analysis.errors import InvalidArgument
from mut3r_analysis.literature import conflicts, published
from mut3r_analysis.literature.rows import UNSPECIFIED
from mut3r_analysis.metrics import PROTOCOLS, find_metric

BEFORE, AFTER = "CUT3R", "MUT3R"
"""The systems without and with gates."""

SYSTEMS = (BEFORE, "TTT3R", AFTER)
ABLATION = (
    BEFORE,
    "MUT3R (layers 0-2)",
    "MUT3R (layers 0-12)",
    "MUT3R (without image-self gate)",
    "MUT3R (without image-to-state gate)",
    "MUT3R (without state-to-image gate)",
    AFTER,
)
_KEY = ["protocol", "dataset", "metric"]
_PAPER = "arXiv:2512.03939"
_KINDS = ("paper", "quotation", "readme", "rerun", "summary")
"""How far a source is from the measurement, nearest first."""

METRIC_NAMES = {
    "abs_rel": "AbsRel",
    "delta_1": "δ<1.25",
    "ate": "ATE",
    "rpe_translation": "RPE translation",
    "rpe_rotation": "RPE rotation",
    "accuracy_mean": "accuracy, mean",
    "accuracy_median": "accuracy, median",
    "completion_mean": "completion, mean",
    "completion_median": "completion, median",
    "distance_mean": "distance, mean",
    "distance_median": "distance, median",
}
_ALIGNMENTS = {
    "metric": "metric scale",
    "scale_irls": "scale per sequence",
    "sim3": "Sim(3)",
}


@dataclass(frozen=True)
class PaperTable:
    """One table of the paper: which numbers stand in it.

    Attributes
    ----------
    title : str
    task : str
    protocols : tuple of str
        In the order of its columns.
    metrics : tuple of str
    systems : tuple of str
    source : str
        Text that a source must hold; empty takes every source.
    """

    title: str
    task: str
    protocols: tuple[str, ...]
    metrics: tuple[str, ...]
    systems: tuple[str, ...] = SYSTEMS
    source: str = ""


PAPER_TABLES = {
    "depth": PaperTable(
        "Table 1: video depth",
        "video-depth",
        tuple(
            f"video-depth:{data}:{align}"
            for align in ("scale_irls", "metric")
            for data in ("sintel23", "bonn5", "kitti13")
        ),
        ("abs_rel", "delta_1"),
    ),
    "pose": PaperTable(
        "Table 2: camera pose",
        "pose",
        (
            "pose:sintel14:sim3",
            "pose:tum8-stride3-90:sim3",
            "pose:scannet100-stride3-90:sim3",
            "pose:adt-stride5:sim3",
        ),
        ("ate", "rpe_translation", "rpe_rotation"),
    ),
    "reconstruction": PaperTable(
        "Table 3: reconstruction of dynamic scenes",
        "reconstruction",
        ("reconstruction:dycheck-stride10:sim3",),
        tuple(name for name in METRIC_NAMES if name.split("_")[0] in
              ("accuracy", "completion", "distance")),
    ),
    "ablation": PaperTable(
        "Table 4: ablations",
        "video-depth",
        ("video-depth:bonn5:metric",),
        ("abs_rel", "delta_1"),
        ABLATION,
        "Table 4",
    ),
}  # fmt: skip


def published_table(name: str) -> xr.Dataset:
    """Return one table of the paper as the literature reports it.

    Parameters
    ----------
    name : str
        Key of `PAPER_TABLES`.

    Returns
    -------
    Dataset
        (cell, system): ``value``, as MUT3R's paper gives it, else of the source nearest to the
        measurement; ``half_unit``, half of the last digit it is given with; ``minimum``,
        ``maximum``, ``n_sources`` over all sources; ``conflict``, ids joined by ``;``; ``source``.
        NaN and empty where nothing is published.
        Along ``cell``, one per protocol and metric: ``dataset``, ``protocol``, ``metric``,
        ``unit``, ``sequences``, how many the protocol has (0 where it does not say), and
        ``comparable``, whether there is a protocol at all. Without one a cell holds what the
        paper itself reports, and nothing can be put beside it.
    """
    if name not in PAPER_TABLES:
        raise InvalidArgument(f"no table {name!r}; there are {', '.join(PAPER_TABLES)}")
    chosen = PAPER_TABLES[name]
    rows = _rows(chosen)
    keys = rows.drop_duplicates(_KEY).sort_values(["place", "dataset", "rank"], kind="stable")
    groups = rows.sort_values("distance", kind="stable").groupby(["cell", "system"], sort=False)
    table = groups.agg(
        value=("value", "first"),
        half_unit=("half_unit", "first"),
        minimum=("value", "min"),
        maximum=("value", "max"),
        conflict=("conflict", joined_conflicts),
        source=("source", "first"),
        n_sources=("source", "nunique"),
    )
    found = table.to_xarray().reindex(cell=keys["cell"].tolist(), system=list(chosen.systems))
    found = found.fillna({"conflict": "", "source": "", "n_sources": 0})
    found["n_sources"] = found["n_sources"].astype(int)
    protocols = keys["protocol"].tolist()
    return found.assign_coords(
        {name: ("cell", keys[name].tolist()) for name in ("dataset", "protocol", "metric")}
        | {
            "unit": ("cell", keys["unit"].to_numpy(object)),
            "sequences": ("cell", [_expected(each) for each in protocols]),
            "comparable": ("cell", [each != UNSPECIFIED for each in protocols]),
        }
    ).assign_attrs(title=chosen.title, name=name)


def gating_deltas(table: xr.Dataset) -> xr.Dataset:
    """Return what the literature says gating changes, and what else could make that change.

    Parameters
    ----------
    table : Dataset
        From :func:`published_table`.

    Returns
    -------
    Dataset
        Along ``cell``, those with both values: ``before``, ``after``, ``change`` in the unit of
        the cell; ``value``, the change in percent, between ``lower`` and ``upper`` whatever the
        digits that were rounded away; ``better`` (1 gain, -1 loss, 0 none); ``rounding``, whether
        rounding alone could make it; ``scatter``, the range of the published values of the
        baseline (NaN for a single one), and ``in_scatter``, whether the change lies within it.
    """
    pair = table.sel(system=[BEFORE, AFTER])
    pair = pair.sel(cell=pair["value"].notnull().all("system"))
    before, after = (pair.sel(system=name, drop=True) for name in (BEFORE, AFTER))
    found = pair.drop_vars([*pair.data_vars, "system"])
    found["before"], found["after"] = before["value"], after["value"]
    found["change"] = after["value"] - before["value"]
    found["value"] = 100 * (after["value"] / before["value"] - 1)
    low, high = after["value"] - after["half_unit"], after["value"] + after["half_unit"]
    found["lower"] = 100 * (low / (before["value"] + before["half_unit"]) - 1)
    found["upper"] = 100 * (high / (before["value"] - before["half_unit"]) - 1)
    higher = xr.DataArray(
        [find_metric(str(name)).higher_is_better for name in pair["metric"].values], dims="cell"
    )
    found["better"] = np.sign(found["change"]) * xr.where(higher, 1, -1)
    # A hair of tolerance, since decimal halves are not exact in binary.
    slack = (before["half_unit"] + after["half_unit"]) * (1 + 1e-9)
    found["rounding"] = abs(found["change"]) <= slack
    several = before["n_sources"] > 1
    found["scatter"] = (before["maximum"] - before["minimum"]).where(several)
    found["in_scatter"] = several & (abs(found["change"]) <= found["scatter"] * (1 + 1e-9))
    joined = [joined_conflicts(cells) for cells in pair["conflict"].values.tolist()]
    found["conflict"] = ("cell", np.array(joined, dtype=object))
    for part in ("value", "lower", "upper"):
        found[part].attrs = {"long_name": "change by gating", "units": "%"}
    found["cell"].attrs = {"long_name": "published number"}
    return found.assign_attrs(table.attrs)


def conflict_table(tables: Sequence[xr.Dataset]) -> pd.DataFrame:
    """Return the known conflicts that touch these tables, with what to do about each.

    Returns
    -------
    DataFrame
        Indexed by ``conflict``: ``title``, ``flag``, ``advice``, ``numbers``, how many values of
        the tables take part, and ``where``, their data sets.
    """
    rows = pd.concat([table[["conflict"]].to_dataframe().reset_index() for table in tables])
    rows = rows.assign(conflict=rows["conflict"].str.split(";")).explode("conflict")
    touched = rows[rows["conflict"] != ""].groupby("conflict")["dataset"]
    known = conflicts().drop_duplicates("conflict").set_index("conflict")
    numbers = [str(each) for each in touched.groups]
    ids = joined_conflicts(numbers).split(";") if numbers else []
    found = known.loc[ids, ["title", "flag", "advice"]]
    found["numbers"] = [len(touched.get_group(each)) for each in ids]
    found["where"] = [", ".join(touched.get_group(each).unique()) for each in ids]
    return found


def cell_name(protocol: str, dataset: str, metric: str) -> str:
    """Name a number as a table of a paper would: data set, alignment, metric."""
    name = METRIC_NAMES.get(metric, metric)
    if protocol == UNSPECIFIED:
        return f"{dataset}, no protocol: {name}"
    align = PROTOCOLS[protocol].align
    return f"{dataset}, {_ALIGNMENTS.get(align, align)}: {name}"


def joined_conflicts(cells: Sequence[str]) -> str:
    """Join lists of conflict ids, each once and in order."""
    ids = {each for cell in cells for each in str(cell).split(";") if each}
    return ";".join(sorted(ids, key=lambda name: int(name[1:])))


def _rows(chosen: PaperTable) -> pd.DataFrame:
    """Rows of the table: those of its protocols, and what the paper says without one."""
    rows = published().assign(half_unit=_half_units())
    rows = rows[rows["system"].isin(chosen.systems) & rows["metric"].isin(chosen.metrics)]
    rows = rows[rows["source"].str.contains(chosen.source, regex=False)]
    own = rows["source"].str.contains(_PAPER, regex=False)
    loose = (rows["task"] == chosen.task) & (rows["protocol"] == UNSPECIFIED) & own
    rows = rows[rows["protocol"].isin(chosen.protocols) | loose]
    # Baselines of the paper's own table come first: its changes are against those.
    distance = rows["kind"].map(_KINDS.index).where(~own.loc[rows.index], -1)
    order = (*chosen.protocols, UNSPECIFIED)
    cells = [cell_name(*key) for key in rows[_KEY].itertuples(index=False, name=None)]
    place, rank = rows["protocol"].map(order.index), rows["metric"].map(chosen.metrics.index)
    return rows.assign(distance=distance, cell=cells, place=place, rank=rank)


def _half_units() -> pd.Series:
    """Half of the last digit of each published value.

    Trailing zeros are not kept everywhere, so the digits are the most that a source gives for a
    metric.
    """
    rows = published()
    digits = rows["value"].map(lambda value: len(f"{value:.10g}".partition(".")[2]))
    most = digits.groupby([rows["source"], rows["metric"], rows["unit"]]).transform("max")
    return 0.5 * 10.0**-most


def _expected(protocol: str) -> int:
    known = PROTOCOLS.get(protocol)
    return 0 if known is None else known.expected_sequences or 0
