"""Own scores beside published numbers, one protocol at a time."""

from collections.abc import Mapping

import numpy as np
import pandas as pd
import xarray as xr

from mut3r_analysis.errors import InvalidArgument
from mut3r_analysis.literature.conflicts import joined_conflicts
from mut3r_analysis.literature.rows import UNSPECIFIED
from mut3r_analysis.literature.table import published

_KEYS = ["metric", "system", "unit"]


def compare(
    scores: xr.Dataset | Mapping[str, xr.Dataset], against: pd.DataFrame | None = None
) -> pd.DataFrame:
    """Put own scores and published numbers of the same protocol side by side.

    Parameters
    ----------
    scores : xarray.Dataset or mapping of str to xarray.Dataset
        One evaluation, or several by name, as `evaluate` returns them. Each carries

        - ``attrs["protocol"]``, the id of the protocol that produced it;
        - per metric a variable ``<metric>`` (sequence), the value of every sequence, and a
          variable ``mean_<metric>`` without dimensions, the number of the benchmark: it cannot be
          derived here, since protocols weight sequences differently. A variable ``<metric>``
          without dimensions is that number itself;
        - ``attrs["units"]`` on ``<metric>``: ``"1"`` or ``"%"`` for shares and ratios, ``"m"``,
          ``"degree"``.
    against : pandas.DataFrame, optional
        Rows of :func:`~mut3r_analysis.literature.published`; by default all rows of the protocol.

    Returns
    -------
    pandas.DataFrame
        Indexed by ``metric`` and ``system``. Columns: ``unit``, the one of the literature; one
        column per evaluation (``own``, or the names given) in that unit, NaN where an evaluation
        lacks the metric; ``minimum``, ``maximum``, ``spread`` (their difference) and
        ``n_sources`` over the sources of the published number; ``conflict``, ids of known
        conflicts joined by ``;``; ``sources``. ``attrs["protocol"]`` names the protocol,
        ``attrs["n_sequences"]`` and ``attrs["n_valid"]`` say per evaluation how many sequences
        it holds and how many of them have a finite value of every metric compared.

    Raises
    ------
    InvalidArgument
        When a score is no dataset or names no protocol, when it is of fewer frames or sequences
        than its protocol's (``attrs["incomplete"]``), when evaluations or ``against`` mix
        protocols, when nothing is published under the protocol or for these metrics, and when a
        mean or a unit is missing or does not fit.

    Examples
    --------
    >>> import xarray as xr
    >>> own = ((), 0.2, {"units": "m"})
    >>> scores = xr.Dataset({"mean_ate": own, "ate": own}, attrs={"protocol": "pose:sintel14:sim3"})
    >>> compare(scores).loc[("ate", "CUT3R"), ["own", "minimum", "maximum"]].tolist()
    [0.2, 0.208, 0.216]
    """
    evaluations = {"own": scores} if isinstance(scores, xr.Dataset) else dict(scores)
    protocol = _one_protocol(evaluations)
    rows = published(protocol=protocol) if against is None else against
    _refuse_other_protocols(rows, protocol)
    variables = {str(name) for scored in evaluations.values() for name in scored.data_vars}
    table = _literature(rows[rows["metric"].isin(variables)])
    if table.empty:
        raise InvalidArgument(
            f"no metric is both scored ({', '.join(sorted(variables))}) and published under "
            f"protocol {protocol!r} ({', '.join(sorted(set(rows['metric'])))}); evaluate one of "
            "the published metrics, named as they are"
        )
    metrics = list(dict.fromkeys(table["metric"]))
    for column, (name, scored) in enumerate(evaluations.items(), start=len(_KEYS)):
        values = [
            _benchmark_number(scored, metric, unit, name)
            for metric, unit in zip(table["metric"], table["unit"], strict=True)
        ]
        table.insert(column, name, values)
    table = table.set_index(["metric", "system"])
    counts = {name: _sequence_counts(scored, metrics) for name, scored in evaluations.items()}
    table.attrs = {
        "protocol": protocol,
        "n_sequences": {name: total for name, (total, _) in counts.items()},
        "n_valid": {name: valid for name, (_, valid) in counts.items()},
    }
    return table


def _one_protocol(evaluations: Mapping[str, xr.Dataset]) -> str:
    """Return the protocol all evaluations share."""
    if not evaluations:
        raise InvalidArgument("no scores were given; pass the result of an evaluation")
    protocols: dict[str, str] = {}
    for name, scored in evaluations.items():
        if not isinstance(scored, xr.Dataset):
            raise InvalidArgument(
                f"scores {name!r} are a {type(scored).__name__}; expected an xarray.Dataset as an "
                "evaluation returns it"
            )
        protocol = scored.attrs.get("protocol")
        if not isinstance(protocol, str) or protocol in ("", UNSPECIFIED):
            raise InvalidArgument(
                f"scores {name!r} have the protocol {protocol!r}; a number can be compared only "
                "under a named protocol, so set attrs['protocol'] to the id it was computed with"
            )
        if lacks := scored.attrs.get("incomplete"):
            raise InvalidArgument(
                f"scores {name!r} are of {lacks}; the published number is of all of it, so score "
                "the missing sequences and frames first (mut3r datasets check names them)"
            )
        protocols[name] = protocol
    if len(set(protocols.values())) > 1:
        listed = ", ".join(f"{name}: {protocol}" for name, protocol in protocols.items())
        raise InvalidArgument(
            f"scores of different protocols cannot be compared ({listed}); call compare once "
            "per protocol"
        )
    return next(iter(protocols.values()))


def _refuse_other_protocols(rows: pd.DataFrame, protocol: str) -> None:
    others = sorted(set(rows["protocol"]) - {protocol})
    if others:
        raise InvalidArgument(
            f"the scores follow protocol {protocol!r}, but rows to compare against follow "
            f"{', '.join(map(repr, others))}; numbers of different protocols cannot be compared: "
            f"pass published(protocol={protocol!r}) or evaluate under the other protocol"
        )


def _literature(rows: pd.DataFrame) -> pd.DataFrame:
    """Gather the sources of each number: one row per metric and system, metric by metric."""
    table = (
        rows.groupby(_KEYS, sort=False)
        .agg(
            minimum=("value", "min"),
            maximum=("value", "max"),
            n_sources=("source", "nunique"),
            conflict=("conflict", joined_conflicts),
            sources=("source", "; ".join),
        )
        .reset_index()
    )
    table["spread"] = table["maximum"] - table["minimum"]
    order = {metric: position for position, metric in enumerate(dict.fromkeys(table["metric"]))}
    table = table.sort_values("metric", key=lambda names: names.map(order), kind="stable")
    return table[[*_KEYS, "minimum", "maximum", "spread", "n_sources", "conflict", "sources"]]


def unit_factor(own: str | None, published: str) -> float | None:
    """Return what turns a number into the unit that the literature uses; None if nothing does."""
    if own is not None and published in (own, "unstated"):
        return 1.0
    return {("1", "%"): 100.0, ("%", "1"): 0.01}.get((str(own), published))


def _benchmark_number(scored: xr.Dataset, metric: str, unit: str, name: str) -> float:
    """Return an evaluation's number of a metric in the unit of the literature."""
    if metric not in scored.data_vars:
        return float("nan")
    number = scored[metric]
    if number.ndim:
        mean = scored.get(f"mean_{metric}")
        if number.dims != ("sequence",) or mean is None or mean.ndim:
            raise InvalidArgument(
                f"scores {name!r}: {metric!r} has the dimensions {number.dims} and "
                f"{'mean_' + metric!r} is {'absent' if mean is None else mean.dims}; expected "
                f"values per ('sequence',) and a mean without dimensions"
            )
        number = mean
    own_unit = scored[metric].attrs.get("units")
    if (factor := unit_factor(own_unit, unit)) is None:
        raise InvalidArgument(
            f"scores {name!r}: {metric!r} has the unit {own_unit!r} in attrs['units'], the "
            f"literature reports {unit!r}; set or convert the unit"
        )
    return float(number) * factor


def _sequence_counts(scored: xr.Dataset, metrics: list[str]) -> tuple[int, int]:
    """Return how many sequences were evaluated, and how many have a finite value throughout."""
    values = [
        scored[metric].to_numpy()
        for metric in metrics
        if metric in scored.data_vars and scored[metric].dims == ("sequence",)
    ]
    valid = np.isfinite(np.stack(values)).all(axis=0).sum() if values else 0
    return int(scored.sizes.get("sequence", 0)), int(valid)
