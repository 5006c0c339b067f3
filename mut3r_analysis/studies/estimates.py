"""Means over sequences, their changes, and how far either can be trusted."""

import numpy as np
import xarray as xr

from mut3r_analysis.metrics.bootstrap import (
    LEVEL,
    drawn_counts,
    percentile_bounds,
    resampled_means,
)


def estimate(values: xr.DataArray, over: str = "sequence") -> xr.Dataset:
    """Return the mean over sequences with a bootstrap interval.

    Parameters
    ----------
    values : DataArray
        (sequence, ...). Sequences without a value (NaN) are left out, cell by cell.
    over : str
        The dimension that is resampled.

    Returns
    -------
    Dataset
        Without that dimension: ``value``, ``lower`` and ``upper`` in the unit of `values` (the
        percentile interval at `LEVEL`), and ``n``, how many sequences have a value. Where `n` is
        below 2 the interval is NaN.

    Notes
    -----
    Over few sequences percentile intervals are too narrow. In 4000 samples of 6, 8, 10 and 29
    values, those at 95 % held the true mean in 87, 88, 90 and 93 % of cases where values are
    normal, and in 74, 77, 80 and 88 % where they are log-normal (sigma 1). BCa intervals do little
    better (88 to 93 and 76 to 89 %); Student's t holds 95 % of normal means and 82 to 89 % of
    log-normal ones.
    """
    return _summary(values, values.mean(over), _resampled(values, over), values.attrs, over)


def change(values: xr.DataArray, reference: xr.DataArray, over: str = "sequence") -> xr.Dataset:
    """Return the paired change of the mean against a reference, in percent of the reference.

    Parameters
    ----------
    values : DataArray
        (sequence, ...).
    reference : DataArray
        (sequence, ...), broadcast against `values`; the same sequences. A sequence that either
        lacks is left out of both.
    over : str
        The dimension that is resampled; both sides are drawn together.

    Returns
    -------
    Dataset
        As of :func:`estimate`; negative is lower than the reference.

    Notes
    -----
    The change is that of the means, not the mean of the changes: no sequence with a tiny error
    dominates it.
    """
    values, reference = xr.broadcast(*xr.align(values, reference, join="inner"))
    both = values.notnull() & reference.notnull()
    values, reference = values.where(both), reference.where(both)
    found = 100 * (values.mean(over) / reference.mean(over) - 1)
    drawn = 100 * (_resampled(values, over) / _resampled(reference, over) - 1)
    name = values.attrs.get("long_name", values.name or "value")
    attrs = {"long_name": f"change of {name}", "units": "%"}
    return _summary(values, found, drawn, attrs, over)


def difference(values: xr.DataArray, reference: xr.DataArray, over: str = "sequence") -> xr.Dataset:
    """Return the mean paired difference to a reference, in their unit, as :func:`estimate`."""
    values, reference = xr.broadcast(*xr.align(values, reference, join="inner"))
    paired = values - reference
    name = values.attrs.get("long_name", values.name or "value")
    paired.attrs = {**values.attrs, "long_name": f"difference of {name}"}
    return estimate(paired, over)


def interval_note(found: xr.Dataset, of: str = "sequences") -> str:
    """Say for a caption what the intervals of estimates are, and over how many they were drawn.

    Parameters
    ----------
    found : Dataset
        From :func:`estimate`, :func:`change` or :func:`difference`.
    of : str
        What was resampled.
    """
    counts = np.unique(found["n"].values)
    counts = counts[counts > 1]
    if not counts.size:
        return "no intervals: fewer than two values each"
    count = " to ".join(f"{each:.0f}" for each in dict.fromkeys((counts[0], counts[-1])))
    return f"intervals: {100 * LEVEL:g} % percentile bootstrap over {count} {of}"


def formatted(cell: xr.Dataset, digits: int = 1) -> str:
    """Write one cell as ``value [lower, upper] unit (n)``, or that there is no value."""
    if not int(cell["n"]):
        return "no value"
    units = cell["value"].attrs.get("units", "1")
    unit = "" if units == "1" else f" {units}"
    sign = "+" if "change" in cell["value"].attrs.get("long_name", "") else ""
    numbers = [
        format(float(cell[name]), f"{sign}.{digits}f") for name in ("value", "lower", "upper")
    ]
    if not np.isfinite(float(cell["lower"])):
        return f"{numbers[0]}{unit} (n = {int(cell['n'])})"
    return f"{numbers[0]} [{numbers[1]}, {numbers[2]}]{unit} (n = {int(cell['n'])})"


def _resampled(values: xr.DataArray, over: str) -> xr.DataArray:
    """Means over the same draws of sequences, ``(draw, ...)``."""
    held = values.transpose(over, ...)
    means = resampled_means(held.values, drawn_counts(held.sizes[over]))
    return held.isel({over: 0}, drop=True).expand_dims(draw=len(means)).copy(data=means)


def _summary(
    values: xr.DataArray,
    found: xr.DataArray,
    drawn: xr.DataArray,
    attrs: dict,
    over: str,
) -> xr.Dataset:
    n = values.notnull().sum(over)
    like = drawn.transpose("draw", ...)
    lower, upper = (
        like.isel(draw=0, drop=True).copy(data=each).where(n > 1)
        for each in percentile_bounds(like.values)
    )
    summary = xr.Dataset({"value": found, "lower": lower, "upper": upper, "n": n})
    name = attrs.get("long_name", "value")
    for part, text in (("value", name), ("lower", f"{name}, {LEVEL:.0%} from"),
                       ("upper", f"{name}, {LEVEL:.0%} to")):  # fmt: skip
        summary[part].attrs = {"long_name": text, "units": attrs.get("units", "1")}
    summary["n"].attrs = {"long_name": "sequences with a value", "units": "1"}
    return summary
