"""Scores as tables: for reading, for files, for other programs."""

import json
import math
from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
import pandas as pd
import xarray as xr

from mut3r_analysis.errors import InvalidArgument
from mut3r_analysis.evaluation.averages import metric_names
from mut3r_analysis.foundation.fields import one_of

SUMMARY = ("mean", "lower", "upper")
"""Rows below the sequences: the mean as the protocol weighs it, and its interval."""


def table(
    scores: xr.Dataset | Mapping[str, xr.Dataset], per: Literal["sequence", "frame"] = "sequence"
) -> pd.DataFrame:
    """Turn the result of `evaluate` into a table, which a notebook shows as HTML.

    Parameters
    ----------
    scores : Dataset or mapping of str to Dataset
        From `evaluate`.
    per : {"sequence", "frame"}
        One row per sequence, then `SUMMARY`; or one per sequence and frame that was scored.

    Returns
    -------
    pandas.DataFrame
        Columns are metrics, ``n_frames`` (in the summary that of all sequences) and ``skipped``;
        per frame, what each frame contributes.
        ``attrs["units"]`` maps columns to units, ``attrs["protocol"]`` is the protocol's id and
        ``attrs["incomplete"]`` what the mean lacks to be the protocol's number. Of a mapping the
        first level of the index is ``run``, and ``attrs["incomplete"]`` has what any of them lacks.

    Examples
    --------
    >>> scene = m3.open_sequence("scenes/orbit-03", stop=3)
    >>> scores = m3.evaluate(m3.run("tiny", scene, outputs=("depth",), progress=False))
    >>> table(scores).index.tolist()
    ['orbit-03', 'mean', 'lower', 'upper']
    """
    one_of("per", per, ("sequence", "frame"))
    # A Dataset is a mapping as well, of its variables.
    if not isinstance(scores, xr.Dataset):
        return _of_runs({name: table(own, per) for name, own in scores.items()})
    found = _per_sequence(scores) if per == "sequence" else _per_frame(scores)
    found.attrs = {
        "protocol": scores.attrs["protocol"],
        "incomplete": scores.attrs["incomplete"],
        "units": {
            str(name): scores[name].attrs["units"]
            for name in found.columns
            if "units" in scores[name].attrs
        },
    }
    return found


def _of_runs(tables: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    if not tables:
        raise InvalidArgument("no scores were given; pass what evaluate returned")
    about = [each.attrs for each in tables.values()]
    if len({each["protocol"] for each in about}) > 1:
        raise InvalidArgument("the scores are under several protocols; a table has one")
    found = pd.concat(tables, names=["run"])
    found.attrs = {
        "protocol": about[0]["protocol"],
        "incomplete": "; ".join(
            f"{name}: {each['incomplete']}"
            for name, each in zip(tables, about, strict=True)
            if each["incomplete"]
        ),
        "units": {name: unit for each in about for name, unit in each["units"].items()},
    }
    return found


def record(scores: xr.Dataset) -> dict[str, Any]:
    """Return everything but the values per frame as plain values, ready for JSON.

    A value that does not exist is None, since JSON has no NaN.
    """
    metrics = metric_names(scores)
    details = [
        str(name)
        for name, variable in scores.data_vars.items()
        if "sequence" in variable.dims and "frame" not in variable.dims
    ]
    sequences = {
        str(name): {detail: _plain(scores[detail].sel(sequence=name)) for detail in details}
        for name in scores["sequence"].values
    }
    means = {
        metric: {
            "value": _plain(scores[f"mean_{metric}"]),
            "interval": _plain(scores[f"interval_{metric}"]),
            **scores[f"mean_{metric}"].attrs,
        }
        for metric in metrics
    }
    attrs = dict(scores.attrs)
    for name in ("protocols", "runs"):
        attrs[name] = json.loads(attrs[name])
    return {"protocol": attrs.pop("protocol"), "means": means, "sequences": sequences, **attrs}


def _per_sequence(scores: xr.Dataset) -> pd.DataFrame:
    metrics = metric_names(scores)
    columns = [*metrics, "n_frames", "skipped"]
    found = scores[columns].to_dataframe()[columns]
    summary = pd.DataFrame(
        {
            metric: [float(scores[f"mean_{metric}"]), *scores[f"interval_{metric}"].values]
            for metric in metrics
        },
        index=pd.Index(SUMMARY, name="sequence"),
    )
    summary["n_frames"] = int(scores["n_frames"].sum())
    summary["skipped"] = ""
    return pd.concat([found, summary])


def _per_frame(scores: xr.Dataset) -> pd.DataFrame:
    names = [
        str(name) for name, variable in scores.data_vars.items() if str(name).startswith("frame_")
    ]
    if not names:
        return pd.DataFrame(index=pd.MultiIndex.from_arrays([[], []], names=["sequence", "frame"]))
    values = scores[names].to_dataframe(dim_order=["sequence", "frame"])[names]
    measured = [name for name in names if name != "frame_pixels"]
    return values.dropna(how="all", subset=measured)


def _plain(values: xr.DataArray) -> Any:
    found = values.values
    if found.ndim:
        return [_plain(part) for part in values]
    single = found.item()
    return None if isinstance(single, float) and not math.isfinite(single) else single


def format_value(value: float) -> str:
    """Write a score with four significant digits; a dash where there is none."""
    if not np.isfinite(value):
        return "–"
    return f"{value:.4g}" if abs(value) < 1e-3 and value else f"{value:.4f}"
