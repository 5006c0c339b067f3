"""Where published numbers disagree, or are quoted together without belonging together."""

from collections.abc import Iterable
from functools import lru_cache
from typing import Any

import pandas as pd

from mut3r_analysis.errors import UnreadableFile
from mut3r_analysis.foundation.bundled import data_path
from mut3r_analysis.foundation.text_files import read_yaml
from mut3r_analysis.literature.rows import COLUMNS, Patterns, read_rows, select_rows

FLAGS = (
    "sources disagree",
    "mixes datasets",
    "mixes protocols",
    "impossible under the scorer",
    "sequence set unclear",
    "claim changed",
)
"""What can be wrong with a set of published numbers."""

_HEADER = ("conflict", "title", "flag", "side", "claim")


def conflicts(conflict: Patterns | None = None) -> pd.DataFrame:
    """Return the known conflicts, each with all of its sides.

    Parameters
    ----------
    conflict : str or iterable of str, optional
        Conflict ids (``"C1"`` to ``"C14"``) or patterns; all of them by default.

    Returns
    -------
    pandas.DataFrame
        One row per number of a side: ``conflict``, ``title``, ``flag`` (one of `FLAGS`),
        ``side`` (1, 2, ...), ``claim``, then the columns of the published table, then
        ``statement`` and ``advice``.

    Raises
    ------
    InvalidArgument
        When no conflict has the id; the message lists the known ones.

    Examples
    --------
    >>> from mut3r_analysis.literature import conflicts
    >>> conflicts("C1")["value"].tolist()
    [0.621, 0.473, 0.445, 0.446]
    """
    return select_rows(_sides(), {"conflict": conflict}).reset_index(drop=True)


def joined_conflicts(cells: Iterable[str]) -> str:
    """Join lists of conflict ids, each once and in order."""
    ids = {each for cell in cells for each in cell.split(";") if each}
    return ";".join(sorted(ids, key=lambda name: int(name[1:])))


def headlines() -> pd.DataFrame:
    """Return the four headline pairs of MUT3R's summary, each with a label saying how to read it.

    Returns
    -------
    pandas.DataFrame
        One row per pair: ``statement``, ``label``, ``metric``, ``unit``, and dataset, protocol
        and value ``before`` and ``after``; ``conflict`` is a conflict id or empty.

    Examples
    --------
    >>> len(headlines())
    4
    """
    path = data_path("published", "headlines.csv")
    table = pd.read_csv(path, keep_default_na=False, dtype=str)
    return table.astype({"value_before": float, "value_after": float})


@lru_cache(maxsize=1)
def conflicts_of_rows() -> pd.Series:
    """Return the conflict ids of every published row, joined by ``;``, indexed as the rows are."""
    rows = read_rows()
    sides = _sides()
    ids = sides[sides["row"] >= 0].groupby("row", sort=True)["conflict"]
    joined = ids.agg(lambda names: ";".join(dict.fromkeys(names)))
    return joined.reindex(rows.index, fill_value="").rename("conflict")


@lru_cache(maxsize=1)
def _sides() -> pd.DataFrame:
    """Return every number of every side; ``row`` is its row in the published table or -1."""
    path = data_path("published", "conflicts.yaml")
    records: list[dict[str, Any]] = []
    for entry in read_yaml(path):
        if entry["flag"] not in FLAGS:
            raise UnreadableFile(
                f"{path}: conflict {entry['id']} has the flag {entry['flag']!r}; "
                f"allowed: {', '.join(FLAGS)}; restore the file"
            )
        for number, side in enumerate(entry["sides"], start=1):
            for values in _numbers(entry["id"], side):
                told = {name: entry[name] for name in ("title", "flag", "statement", "advice")}
                header = {"conflict": entry["id"], "side": number, "claim": side["claim"]}
                records.append(told | header | values)
    table = pd.DataFrame.from_records(records)
    return table[[*_HEADER, *COLUMNS, "statement", "advice", "row"]]


def _numbers(conflict: str, side: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the numbers of one side: rows it selects, and values no row holds."""
    published = read_rows()
    selections = side.get("rows", [])
    found: list[dict[str, Any]] = []
    for patterns in [selections] if isinstance(selections, dict) else selections:
        chosen = select_rows(published, patterns)
        if chosen.empty:
            raise UnreadableFile(
                f"conflicts.yaml: conflict {conflict}, side {side['claim']!r} selects no row of "
                f"published.csv with {patterns}; the two files are not of one version"
            )
        found += [
            dict(zip(COLUMNS, row[1:], strict=True)) | {"row": row[0]}
            for row in chosen[list(COLUMNS)].itertuples(name=None)
        ]
    blank = dict.fromkeys(COLUMNS, "") | {"source": side.get("source", ""), "row": -1}
    found += [{**blank, **values} for values in side.get("values", [])]
    return found
