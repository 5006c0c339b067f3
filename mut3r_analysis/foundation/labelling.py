"""Labelled data: what a run holds, words and units of variables, and parts side by side."""

from collections.abc import Mapping
from typing import Any

import xarray as xr


def held(run: xr.DataTree, path: str) -> xr.DataArray | None:
    """Return a variable of a run, such as ``"truth/depth"``; None where there is none."""
    group, _, name = path.partition("/")
    found = run[group].to_dataset() if group in run.children else xr.Dataset()
    return found.get(name)


def described(found: xr.Dataset, words: Mapping[str, tuple[str, str]]) -> xr.Dataset:
    """Give the variables that are there their ``(long_name, units)``, in place."""
    for name, (text, units) in words.items():
        if name in found:
            found[name].attrs = {"long_name": text, "units": units}
    return found


def beside(parts: Mapping[Any, Any], dim: str, long_name: str = "", **options: Any) -> Any:
    """Lay Datasets or DataArrays side by side along a new dimension, labelled by their keys.

    Parameters
    ----------
    parts : mapping
        Label to part; labels that only some parts have along other dimensions are filled with NaN.
    dim : str
    long_name : str
        Of the new dimension.
    **options
        As for `xarray.concat`, where not of parts that describe themselves alike.
    """
    label = xr.Variable(dim, list(parts), {"long_name": long_name} if long_name else {})
    how = {"join": "outer", "data_vars": "all", "coords": "minimal", "compat": "override"}
    return xr.concat(list(parts.values()), label, **how | {"combine_attrs": "override"} | options)
