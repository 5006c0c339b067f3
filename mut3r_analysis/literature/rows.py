"""The rows of ``data/published/published.csv`` and how they are selected."""

from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from fnmatch import fnmatchcase
from functools import lru_cache

import pandas as pd

from mut3r_analysis.errors import InvalidArgument, UnreadableFile
from mut3r_analysis.foundation.bundled import data_path

COLUMNS = (
    "system",
    "dataset",
    "task",
    "protocol",
    "metric",
    "value",
    "unit",
    "source",
    "kind",
    "note",
)
"""Columns of the file, in order; ``data/published/README.md`` says what each one means."""

UNSPECIFIED = "unspecified"
"""Protocol of a row whose source names none, or one outside the registry; its note says which."""

Patterns = str | Iterable[str]
"""One shell-style pattern or several, matched without regard to case."""


@lru_cache(maxsize=1)
def read_rows() -> pd.DataFrame:
    """Read the bundled file; the result is shared, so callers copy before they change it.

    Returns
    -------
    pandas.DataFrame
        One row per published number, with :data:`COLUMNS`; ``value`` is float64, the rest is text.

    Raises
    ------
    UnreadableFile
        When the columns are not the ones this version reads or a value is not a number.
    """
    path = data_path("published", "published.csv")
    # "" and "none" are texts here, where pandas would guess missing values.
    rows = pd.read_csv(path, dtype=str, keep_default_na=False)
    if tuple(rows) != COLUMNS:
        raise UnreadableFile(
            f"{path} has the columns {list(rows)}; expected {list(COLUMNS)}; "
            "reinstall the package or restore the file"
        )
    try:
        rows["value"] = rows["value"].astype("float64")
    except ValueError as error:
        raise UnreadableFile(f"{path}, column value: {error}; restore the file") from error
    return rows


def select_rows(rows: pd.DataFrame, patterns: Mapping[str, Patterns | None]) -> pd.DataFrame:
    """Keep the rows that match a pattern in every column named.

    Parameters
    ----------
    rows : pandas.DataFrame
        Table to select from.
    patterns : mapping of str to str, iterable of str or None
        Column name to patterns (``*``, ``?``, ``[...]``), any of which may match; ``None``
        keeps everything.

    Returns
    -------
    pandas.DataFrame
        The selected rows with their index; it may be empty when each pattern is known but no
        row has all of them.

    Raises
    ------
    InvalidArgument
        When a pattern matches no value of its column; the message lists the known values.
    """
    keep = pd.Series(True, index=rows.index)
    for column, given in patterns.items():
        if given is None:
            continue
        accepted: set[str] = set()
        known = sorted(set(rows[column]))
        for pattern in [given] if isinstance(given, str) else list(given):
            folded = str(pattern).casefold()
            matching = [value for value in known if fnmatchcase(value.casefold(), folded)]
            if not matching:
                raise InvalidArgument(_unknown(column, pattern, known))
            accepted.update(matching)
        keep &= rows[column].isin(accepted)
    return rows[keep]


def _unknown(column: str, pattern: str, known: list[str]) -> str:
    close = get_close_matches(str(pattern), known, n=3)
    hint = f" Did you mean {' or '.join(map(repr, close))}?" if close else ""
    return (
        f"no published number has the {column} {pattern!r}.{hint} Known: {', '.join(known)}; "
        "patterns may use * and ?"
    )
