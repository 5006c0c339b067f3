"""Beyond the length of training: errors, cue, state and write rates over time."""

from collections.abc import Iterable, Sequence

import xarray as xr

from mut3r_analysis.studies.estimates import change
from mut3r_analysis.studies.finding import Finding, Row, rows

QUESTION = "What changes in a run that is longer than those the model was trained on?"
RULES_QUESTION = "Does a rule that writes less help in long runs?"


def against_training(values: xr.DataArray) -> xr.Dataset:
    """Return the change from the first window, which training has seen, to each, percent."""
    found = change(values, values.isel(window=0, drop=True))
    found["value"].attrs["long_name"] = "change from the first frames"
    return found


def finding(values: xr.DataArray, measures: Iterable[str]) -> Finding:
    """Say how the last window differs from the first.

    Parameters
    ----------
    values : DataArray
        (model, sequence, measure, window).
    measures : iterable of str
        Those that the answer tells.
    """
    first, last = (str(values["window"].values[place]) for place in (0, -1))
    late = against_training(values).isel(window=-1, drop=True)
    table: list[Row] = rows(late.sel(measure=list(measures)).transpose("model", "measure"))
    return Finding(
        QUESTION, table, f"In frames {last}, against frames {first} of the same run, the mean is"
    )


def rules_finding(
    values: xr.DataArray, backbones: Iterable[str], rules: Sequence[str], measures: Iterable[str]
) -> Finding:
    """Say how errors differ between two write rules, in the first window and in the last.

    Parameters
    ----------
    values : DataArray
        (model, sequence, measure, window); models are called ``"backbone, rule"``.
    backbones : iterable of str
    rules : sequence of str
        The plain rule, and the one that is set against it.
    measures : iterable of str
    """
    plain, other = rules
    held = values.sel(measure=list(measures)).isel(window=[-1, 0])
    table: list[Row] = []
    for backbone in backbones:
        less, full = (held.sel(model=f"{backbone}, {rule}", drop=True) for rule in (other, plain))
        found = change(less, full).transpose("window", "measure")
        table += rows(found, f"{backbone}, frames {{}}")
    about = f"Under {other}, against {plain}, the mean is"
    return Finding(RULES_QUESTION, table, about)
