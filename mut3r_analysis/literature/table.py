"""The published numbers as one labelled table."""

import pandas as pd

from mut3r_analysis.literature.conflicts import conflicts_of_rows
from mut3r_analysis.literature.rows import Patterns, read_rows, select_rows


def published(
    system: Patterns | None = None,
    dataset: Patterns | None = None,
    task: Patterns | None = None,
    protocol: Patterns | None = None,
    metric: Patterns | None = None,
) -> pd.DataFrame:
    """Return published numbers, filtered.

    Every argument is a name, a shell-style pattern (``"CUT3R*"``), or several of them; case does
    not matter and ``None`` keeps everything.

    Parameters
    ----------
    system : str or iterable of str, optional
        Method, as its paper calls it.
    dataset : str or iterable of str, optional
        Dataset, ``"none"`` for numbers that belong to none.
    task : str or iterable of str, optional
        ``video-depth``, ``mono-depth``, ``pose``, ``reconstruction``, ``multiview``,
        ``motion`` or ``cost``.
    protocol : str or iterable of str, optional
        Protocol id, such as ``"pose:sintel14:sim3"``, or ``"unspecified"``.
    metric : str or iterable of str, optional
        Metric, for example ``abs_rel`` or ``ate``.

    Returns
    -------
    pandas.DataFrame
        One row per number and source: the columns of ``data/published/published.csv`` and
        ``conflict``, the ids of the known conflicts the row takes part in, joined by ``;`` (see
        :func:`~mut3r_analysis.literature.conflicts`). Values keep the unit of their source, so a
        share may be in percent. The table is empty when every name is known but no number has
        all of them.

    Raises
    ------
    InvalidArgument
        When a name or pattern matches nothing; the message lists the known names.

    Examples
    --------
    >>> from mut3r_analysis.literature import published
    >>> rows = published("CUT3R", protocol="pose:tum8-stride3-90:sim3", metric="rpe_rotation")
    >>> rows["value"].tolist()
    [0.473, 0.446]
    """
    rows = select_rows(
        read_rows(),
        {
            "system": system,
            "dataset": dataset,
            "task": task,
            "protocol": protocol,
            "metric": metric,
        },
    )
    return rows.join(conflicts_of_rows()).reset_index(drop=True)
