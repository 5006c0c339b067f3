"""The tables of MUT3R's paper, rebuilt from published numbers, with protocols and conflicts."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from mut3r_analysis.foundation.fields import one_of
from mut3r_analysis.literature import conflicts, published
from mut3r_analysis.literature.conflicts import joined_conflicts
from mut3r_analysis.literature.rows import UNSPECIFIED
from mut3r_analysis.metrics import PROTOCOLS, find_metric
from mut3r_analysis.metrics.reconstruction import RECONSTRUCTION_METRICS

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
LONG = (BEFORE, f"{BEFORE}+Reset", "TTT3R", "TTT3R+Reset")
"""Systems of TTT3R's table of long sequences, those that are run here."""

EVERY = (*SYSTEMS, *ABLATION, *LONG)
_PAPER = "arXiv:2512.03939"
_KINDS = ("paper", "quotation", "readme", "rerun", "summary")
"""How far a source is from the measurement, nearest first."""

_ALIGNMENTS = {
    "metric": "metric scale",
    "scale_irls": "scale per sequence",
    "sim3": "Sim(3)",
}


@dataclass(frozen=True)
class PaperTable:
    """One table of the paper, or one that it builds on: which numbers stand in it.

    Attributes
    ----------
    title : str
    protocols : tuple of str
        In the order of its columns.
    metrics : tuple of str
    systems : tuple of str
    source : str
        Text that a source must hold; empty takes every source.
    """

    title: str
    protocols: tuple[str, ...]
    metrics: tuple[str, ...]
    systems: tuple[str, ...] = SYSTEMS
    source: str = ""


PAPER_TABLES = {
    "depth": PaperTable(
        "Table 1: video depth",
        tuple(
            f"video-depth:{data}:{align}"
            for align in ("scale_irls", "metric")
            for data in ("sintel23", "bonn5", "kitti13")
        ),
        ("abs_rel", "delta_1"),
    ),
    "pose": PaperTable(
        "Table 2: camera pose",
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
        ("reconstruction:dycheck-stride10:sim3",),
        tuple(RECONSTRUCTION_METRICS),
    ),
    "ablation": PaperTable(
        "Table 4: ablations",
        ("video-depth:bonn5:metric",),
        ("abs_rel", "delta_1"),
        ABLATION,
        "Table 4",
    ),
    "long": PaperTable(
        "Long sequences, with and without resets: Table 5 of TTT3R's paper",
        ("pose:tum8-stride1-1000:sim3", "video-depth:kitti13-500:metric"),
        ("ate", "rpe_rotation", "abs_rel", "delta_1"),
        LONG,
        "TTT3R arXiv:2509.26645 Table 5",
    ),
}  # fmt: skip

SHOWN = {metric for table in PAPER_TABLES.values() for metric in table.metrics}
"""Every metric that stands in a table."""


def base_system(name: str) -> str:
    """Return the system that one of an ablation, or one with resets, is of."""
    return name.partition(" (")[0].partition("+")[0]


def published_table(name: str) -> pd.DataFrame:
    """Return one table as the literature reports it.

    Parameters
    ----------
    name : str
        Key of `PAPER_TABLES`.

    Returns
    -------
    DataFrame
        One row per published ``cell`` and ``system``: ``value``, as MUT3R's paper gives it, else of
        the source nearest to the measurement; ``half_unit``, half of the last digit it is given
        with; ``minimum``, ``maximum``, ``n_sources`` over all sources; ``conflict``, ids joined by
        ``;``; ``source``. A cell is one metric of one protocol: ``dataset``, ``protocol``,
        ``metric``, ``unit``, ``sequences``, how many the protocol has (0 where it does not say),
        and ``comparable``, whether there is a protocol at all. Without one a cell holds what the
        paper itself reports, and nothing can be put beside it. The categories of ``system`` are all
        of the table's.
    """
    chosen = PAPER_TABLES[one_of("table", name, PAPER_TABLES)]
    groups = _rows(chosen).groupby(["place", "dataset", "rank", "cell", "system"], observed=True)
    first = ("value", "half_unit", "source", "protocol", "metric", "unit")
    table = groups.agg(
        **{column: (column, "first") for column in first},
        minimum=("value", "min"),
        maximum=("value", "max"),
        n_sources=("source", "nunique"),
        conflict=("conflict", joined_conflicts),
    )
    table = table.reset_index().drop(columns=["place", "rank"])
    table["sequences"] = table["protocol"].map(_expected)
    table["comparable"] = table["protocol"] != UNSPECIFIED
    return table


def gating_deltas(table: pd.DataFrame) -> pd.DataFrame:
    """Return what the literature says gating changes, and what else could make that change.

    Parameters
    ----------
    table : DataFrame
        From :func:`published_table`.

    Returns
    -------
    DataFrame
        Indexed by ``cell``, those with both values: ``before``, ``after``, ``change`` in the unit
        of the cell; ``value``, the change in percent, between ``lower`` and ``upper`` whatever the
        digits that were rounded away; ``better`` (1 gain, -1 loss, 0 none); ``rounding``, whether
        rounding alone could make it; ``scatter``, the range of the published values of the
        baseline (NaN for a single one), and ``in_scatter``, whether the change lies within it.
    """
    cells = table.set_index("cell")
    before, after = (cells[cells["system"] == name] for name in (BEFORE, AFTER))
    both = before.index.intersection(after.index, sort=False)
    before, after = before.loc[both], after.loc[both]
    change = after["value"] - before["value"]
    low, high = after["value"] - after["half_unit"], after["value"] + after["half_unit"]
    higher = [find_metric(name).higher_is_better for name in after["metric"]]
    # A hair of tolerance, since decimal halves are not exact in binary.
    slack = (before["half_unit"] + after["half_unit"]) * (1 + 1e-9)
    scatter = (before["maximum"] - before["minimum"]).where(before["n_sources"] > 1)
    return after[["protocol", "metric", "comparable"]].assign(
        before=before["value"],
        after=after["value"],
        change=change,
        value=100 * (after["value"] / before["value"] - 1),
        lower=100 * (low / (before["value"] + before["half_unit"]) - 1),
        upper=100 * (high / (before["value"] - before["half_unit"]) - 1),
        better=np.sign(change) * np.where(higher, 1, -1),
        rounding=change.abs() <= slack,
        scatter=scatter,
        in_scatter=change.abs() <= scatter * (1 + 1e-9),
        conflict=[*map(joined_conflicts, zip(before["conflict"], after["conflict"], strict=True))],
    )


def conflict_table(tables: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """Return the known conflicts that touch these tables, with what to do about each.

    Returns
    -------
    DataFrame
        Indexed by ``conflict``: ``title``, ``flag``, ``advice``, ``numbers``, how many values of
        the tables take part, and ``where``, their data sets.
    """
    rows = pd.concat(tables)
    rows = rows.assign(conflict=rows["conflict"].str.split(";")).explode("conflict")
    touched = rows[rows["conflict"] != ""].groupby("conflict")["dataset"]
    counts = touched.agg(numbers="size", where=lambda names: ", ".join(names.unique()))
    known = conflicts().drop_duplicates("conflict").set_index("conflict")
    found = known[["title", "flag", "advice"]].join(counts, how="inner")
    return found.sort_index(key=lambda ids: ids.str[1:].astype(int))


def cell_name(protocol: str, dataset: str, metric: str) -> str:
    """Name a number as a table of a paper would: data set, alignment, metric."""
    name = find_metric(metric).label
    if protocol == UNSPECIFIED:
        return f"{dataset}, no protocol: {name}"
    align = PROTOCOLS[protocol].align
    return f"{dataset}, {_ALIGNMENTS.get(align, align)}: {name}"


def _rows(chosen: PaperTable) -> pd.DataFrame:
    """Rows of the table: those of its protocols, and what the paper says without one."""
    rows = published().assign(half_unit=_half_units())
    rows = rows[rows["system"].isin(chosen.systems) & rows["metric"].isin(chosen.metrics)]
    rows = rows[rows["source"].str.contains(chosen.source, regex=False)]
    own = rows["source"].str.contains(_PAPER, regex=False)
    loose = (
        (rows["task"] == PROTOCOLS[chosen.protocols[0]].task)
        & (rows["protocol"] == UNSPECIFIED)
        & own
    )
    rows = rows[rows["protocol"].isin(chosen.protocols) | loose]
    # Baselines of the paper's own table come first: its changes are against those.
    distance = rows["kind"].map(_KINDS.index).where(~own.loc[rows.index], -1)
    order = (*chosen.protocols, UNSPECIFIED)
    names = rows[["protocol", "dataset", "metric"]].itertuples(index=False, name=None)
    return rows.assign(
        cell=[cell_name(*each) for each in names],
        system=pd.Categorical(rows["system"], chosen.systems),
        place=rows["protocol"].map(order.index),
        rank=rows["metric"].map(chosen.metrics.index),
    ).iloc[np.argsort(distance, kind="stable")]


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
