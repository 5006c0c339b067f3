"""What figures need from a run: variables by path, reduced and placed by dimension names."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import xarray as xr

from mut3r_analysis.errors import InvalidArgument
from mut3r_analysis.foundation.fields import meant

HEAD_REDUCTIONS = ("mean", "max", "min", "std")
_UNITS = {"nat2": "nat²", "byte": "B"}


Runs = xr.DataTree | Mapping[str, xr.DataTree]
"""One run, or several by name."""


def named_runs(runs: Runs, alone: str = "") -> dict[str, xr.DataTree]:
    """Return runs by name; one run has the name `alone`.

    Raises
    ------
    InvalidArgument
        For something else.
    """
    # A DataTree is a mapping as well, of its groups.
    given = {alone: runs} if isinstance(runs, xr.DataTree) else runs
    if not isinstance(given, Mapping) or not given:
        raise InvalidArgument(
            "give a run, which is the DataTree that m3.run or m3.open_run returned, or a mapping "
            f"such as {{'plain': run, 'gated': other}}; got {type(runs).__name__}"
        )
    for name, run in given.items():
        if not isinstance(run, xr.DataTree):
            raise InvalidArgument(
                f"{name!r} is not a run but a {type(run).__name__}; give the DataTree that m3.run "
                "or m3.open_run returned"
            )
    return {str(name): run for name, run in given.items()}


def of_one_sequence(named: Mapping[str, xr.DataTree]) -> None:
    """Refuse runs that cannot be compared frame by frame.

    Raises
    ------
    InvalidArgument
        When they are of different sequences.
    """
    sequences = {name: run.attrs.get("sequence", {}) for name, run in named.items()}
    if len({each.get("sha256") for each in sequences.values()}) > 1:
        names = ", ".join(f"{name}: {each.get('name')}" for name, each in sequences.items())
        raise InvalidArgument(
            f"runs are compared frame by frame, but these are of different sequences ({names}); "
            "run the same frames of one sequence"
        )


def find_variable(run: xr.DataTree, path: str, advice: str) -> xr.DataArray:
    """Return a variable of a run by its path.

    Parameters
    ----------
    run : xarray.DataTree
    path : str
        For example ``"prediction/depth"``.
    advice : str
        What to do when it is not there; ends the error.

    Raises
    ------
    InvalidArgument
        When the run does not hold it; the message says what it holds instead.
    """
    group, _, name = path.rpartition("/")
    dataset = run[group].to_dataset() if _has_group(run, group) else xr.Dataset()
    held = list(dataset.data_vars)
    if name in held:
        if 0 in dataset[name].shape:
            raise InvalidArgument(f"/{path} is empty, with the sizes {dict(dataset[name].sizes)}")
        return dataset[name]
    present = f"/{group} holds {', '.join(map(str, held))}" if held else f"it has no /{group}"
    near = meant([name], held)
    raise InvalidArgument(f"this run holds no /{path}{near}: {present}. {'' if near else advice}")


def find_statistic(run: xr.DataTree, what: str | xr.DataArray) -> xr.DataArray:
    """Return a statistic of attention, by name or as it is.

    Parameters
    ----------
    run : xarray.DataTree
    what : str or xarray.DataArray
        ``"<site>/<statistic>"``, for example ``"image_self/entropy"``; ``"cue/motion"``; or an
        array computed from one, with the dimensions a statistic has.

    Raises
    ------
    InvalidArgument
        When the run does not hold it; the message says what to capture.
    """
    if isinstance(what, xr.DataArray):
        return what
    site, slash, name = str(what).removeprefix("attention/").partition("/")
    if not slash or not name or "/" in name:
        raise InvalidArgument(
            f"{what!r} does not name a statistic; write it as 'site/statistic', for example "
            "'image_self/entropy', or give a DataArray"
        )
    if site == "cue":
        return find_variable(run, f"cue/{name}", "Run again with cue=m3.Cue.mut3r()")
    sites = list(run["attention"].children) if _has_group(run, "attention") else []
    if site not in sites:
        held = f"attention was captured at {', '.join(sites)}" if sites else "it has no attention"
        near = meant([site], sites)
        advice = "" if near else f" Run again with capture=m3.Capture(sites=[{site!r}], ...)"
        raise InvalidArgument(f"this run holds nothing of {site!r}{near}: {held}.{advice}")
    return find_variable(
        run, f"attention/{site}/{name}", f"Run again with capture=m3.Capture(statistics=[{name!r}])"
    )


def find_statistics(
    named: Mapping[str, xr.DataTree], what: str | xr.DataArray
) -> dict[str, xr.DataArray]:
    """Return a statistic of each run, as :func:`find_statistic` does.

    Raises
    ------
    InvalidArgument
        When a run does not hold it, or several are given an array.
    """
    if isinstance(what, xr.DataArray) and len(named) > 1:
        raise InvalidArgument(
            "an array is of one run; several runs are shown by the name of a statistic, such as "
            "'image_self/entropy'"
        )
    return {name: find_statistic(run, what) for name, run in named.items()}


def on_patches(values: xr.DataArray) -> xr.DataArray:
    """Put a statistic of image tokens on the patch grid.

    Returns
    -------
    xarray.DataArray
        With ``patch_row`` and ``patch_col`` in place of the token dimension, last; the pose token
        is left out.

    Raises
    ------
    InvalidArgument
        When the values belong to no image tokens, or to both sides of a map.
    """
    if {"patch_row", "patch_col"} <= set(values.dims):
        return values.transpose(..., "patch_row", "patch_col")
    side = token_dimension(values)
    prefix = "key_" if side == "key" else ""
    role = f"{prefix}token"
    if "patch" not in np.atleast_1d(values[role].values):
        raise InvalidArgument(
            f"{values.name} at {_source(values)} is known per state token, which has no place in "
            "the image; lay a statistic of image tokens over frames: any of image_self, a query "
            "statistic of image_to_state, or received / received_logit of state_to_image"
        )
    if values[role].ndim:
        values = values.sel({role: "patch"})
    names = {f"{prefix}patch_{axis}": f"patch_{axis}" for axis in ("row", "col")}
    placed = values.unstack(side).drop_vars(role, errors="ignore").rename(names if prefix else {})
    return placed.transpose(..., "patch_row", "patch_col").assign_attrs(values.attrs)


def token_dimension(values: xr.DataArray) -> str:
    """Return ``"query"`` or ``"key"``, whichever the statistic is known for.

    Raises
    ------
    InvalidArgument
        When it has none of them, or both as a map does.
    """
    sides = [dim for dim in ("query", "key") if dim in values.dims]
    if len(sides) != 1:
        raise InvalidArgument(
            f"{values.name} has dimensions ({', '.join(map(str, values.dims))}); a statistic has "
            "either query or key. Select or reduce the other side first, for example "
            "weights.sel(key_token='pose')"
        )
    return sides[0]


def reduce_heads(values: xr.DataArray, head: str | int) -> tuple[xr.DataArray, str]:
    """Reduce or select heads, and say so.

    Returns
    -------
    (xarray.DataArray, str)
        Without ``head``, and words such as ``"mean of 12 heads"``.

    Raises
    ------
    InvalidArgument
        For an unknown reduction or a head that was not captured.
    """
    if "head" not in values.dims:
        return values, ""
    captured = values["head"].values.tolist()
    if isinstance(head, str) and head in HEAD_REDUCTIONS:
        words = {"std": "standard deviation"}.get(head, head)
        reduced = getattr(values, head)("head", keep_attrs=True)
        return reduced, f"{words} of {len(captured)} head{'s' * (len(captured) != 1)}"
    if head in captured:
        return values.sel(head=head, drop=True), f"head {head}"
    raise InvalidArgument(
        f"head must be one of {', '.join(map(repr, HEAD_REDUCTIONS))} or a captured head "
        f"({captured}), got {head!r}"
    )


def choose(values: xr.DataArray, dim: str, wanted: Any, most: int) -> np.ndarray:
    """Labels along a dimension: those wanted, or at most `most` evenly spread over all.

    Raises
    ------
    InvalidArgument
        When a wanted label was not captured.
    """
    labels = values[dim].values
    if wanted is None:
        return labels[np.unique(np.linspace(0, len(labels) - 1, most).round().astype(int))]
    chosen = np.atleast_1d(wanted)
    lacking = [int(label) for label in chosen if label not in labels]
    if lacking or not chosen.size:
        raise InvalidArgument(
            f"{dim} {lacking or 'selection is empty'}: {values.name} has {dim} "
            f"{spell(labels)}; choose among these"
        )
    return chosen


def spell(labels: Any) -> str:
    """Write labels shortly: a range where they are consecutive."""
    labels = np.atleast_1d(labels)
    if len(labels) > 2 and (np.diff(labels) == 1).all():
        return f"{labels[0]}–{labels[-1]}"
    return ", ".join(str(label) for label in labels)


def text_label(values: xr.DataArray) -> str:
    """``long_name`` with its units in parentheses; pure numbers have none."""
    name = str(values.attrs.get("long_name", values.name))
    units = str(values.attrs.get("units", "1"))
    return name if units in ("1", "") else f"{name} ({_UNITS.get(units, units)})"


def source_lines(named: Mapping[str, xr.DataTree]) -> str:
    """Say which runs a figure shows, once what they share."""
    return " ".join(dict.fromkeys(source_line(run) for run in named.values()))


def source_line(run: xr.DataTree) -> str:
    """Say which run it is: sequence, weights, write rule, precision, package."""
    attrs = run.attrs
    backbone, sequence = attrs.get("backbone", {}), attrs.get("sequence", {})
    name = str(backbone.get("name", "unknown"))
    parts = [
        f"Source: {sequence.get('name', 'unknown sequence')}",
        f"backbone {name.rsplit('/', 1)[-1]} ({str(backbone.get('sha256', ''))[:8]}), "
        f"{backbone.get('update', 'unknown')} update, {attrs.get('precision', 'unknown')}",
        f"mut3r_analysis {attrs.get('package_version', '')}".strip(),
    ]
    if name.startswith("random:"):
        parts.append("random weights: values carry no meaning")
    # A dot never starts a line: the space before it does not break.
    return "\N{NO-BREAK SPACE}· ".join(parts)


def heading(values: xr.DataArray) -> str:
    """Title of a statistic's figure: what it is, and at which site."""
    name = str(values.attrs.get("long_name", values.name))
    return f"{name[:1].upper()}{name[1:]}, {_source(values)}"


def worded(name: str, words: str) -> str:
    """Say of which run something is, where there are several."""
    return ", ".join(part for part in (name, words) if part)


def sentence(*parts: str) -> str:
    """Join the parts of a subtitle that say something."""
    return "; ".join(part for part in parts if part)


def _source(values: xr.DataArray) -> str:
    return str(values.attrs.get("source", "computed")).split(",")[0]


def _has_group(run: xr.DataTree, path: str) -> bool:
    return path in run.groups or f"/{path}" in run.groups
