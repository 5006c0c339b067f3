"""What a treatment does to the error: by sequence, by frame and by patch.

Harm is the error with a treatment minus the error without. Where there is no truth there is no harm
to be known, and what is ranked is how far two runs differ.
"""

from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from mut3r_analysis.evaluation.eligibility import UnmetProtocol
from mut3r_analysis.evaluation.error_maps import errors_of, over_patches
from mut3r_analysis.foundation.fields import one_of
from mut3r_analysis.foundation.labelling import described
from mut3r_analysis.metrics.catalogue import PROTOCOLS
from mut3r_analysis.metrics.protocols import Protocol, measure_label

ERRORS = ("abs_rel", "rpe_translation", "rpe_rotation", "ate")
"""Metrics that are errors, in the order in which they are looked for."""

DIFFERENCE = "depth_difference"
"""Stands for a metric where there is no truth."""


def harms(plain: xr.Dataset, gated: xr.Dataset, metric: str | None = None) -> xr.Dataset:
    """Compare the scores of two systems, sequence by sequence and frame by frame.

    Parameters
    ----------
    plain, gated : Dataset
        From :func:`evaluate`, or one configuration each of a sweep:
        ``table.sel(configuration="plain")``.
    metric : str, optional
        One of `ERRORS`, or `DIFFERENCE`: the median over pixels of the absolute difference of log
        depth between the two runs of a sweep, in percent, which needs no truth. None takes the
        first of them that has values.

    Returns
    -------
    Dataset
        ``plain``, ``gated`` and ``harm`` (sequence), the worst first, and ``frame_harm``
        (sequence, frame), all in the unit of the metric and named as it is under its protocol. Its
        attribute ``metric`` says which.

    Raises
    ------
    InvalidArgument
        For a metric that the scores do not have.

    Examples
    --------
    >>> found = harms(m3.evaluate(run), m3.evaluate(gated))
    >>> found.attrs["metric"], found["frame_harm"].dims
    ('abs_rel', ('sequence', 'frame'))
    """
    if metric is None:
        metric = next((name for name in ERRORS if _has_values(gated, name)), DIFFERENCE)
    if metric == DIFFERENCE:
        return _differences(plain, gated)
    one_of("metric", metric, [name for name in ERRORS if name in gated])
    name, units = _named(gated[metric]), str(gated[metric].attrs.get("units", "1"))
    changed = f"change of {name} by gating"
    words = {"plain": name, "gated": name, "harm": changed, "frame_harm": changed}
    first, second = (scores.reset_coords(drop=True) for scores in (plain, gated))
    found = xr.Dataset(
        {
            "plain": first[metric],
            "gated": second[metric],
            "harm": second[metric] - first[metric],
            "frame_harm": second[f"frame_{metric}"] - first[f"frame_{metric}"],
        },
        attrs={"metric": metric},
    )
    return _worst_first(described(found, {part: (text, units) for part, text in words.items()}))


def worst_frames(found: xr.Dataset, count: int = 8, *, gain: bool = False) -> pd.DataFrame:
    """List the frames with the greatest harm, or gain.

    Parameters
    ----------
    found : Dataset
        From :func:`harms`.
    count : int
    gain : bool
        The frames that a treatment helped most instead.

    Returns
    -------
    DataFrame
        Columns ``sequence``, ``frame``, ``harm``.

    Examples
    --------
    >>> found = harms(m3.evaluate(run), m3.evaluate(gated))
    >>> worst_frames(found, count=2).columns.tolist()
    ['sequence', 'frame', 'harm']
    """
    flat = found["frame_harm"].to_series().dropna().rename("harm").reset_index()
    flat = flat.sort_values("harm", ascending=gain, kind="stable").head(count)
    return flat[["sequence", "frame", "harm"]].reset_index(drop=True)


def patch_harm(
    plain: xr.DataTree,
    gated: xr.DataTree,
    protocol: str | Protocol = "default",
    *,
    truth: Any = None,
) -> xr.DataArray:
    """Return where in each frame a treatment did harm, by the error that the frame was scored with.

    Parameters
    ----------
    plain, gated : DataTree
        Runs of one sequence.
    protocol, truth
        As for :func:`errors_of`.

    Returns
    -------
    DataArray
        (frame, patch_row, patch_col), percent: the mean over a patch's pixels of the relative error
        of depth, each run aligned as its score was, with the treatment minus without. Where there
        is no true depth, the absolute difference of the runs' log depths. ``comment`` says which.

    Examples
    --------
    >>> harm = patch_harm(run, gated)
    >>> harm.dims, harm.attrs["units"]
    (('frame', 'patch_row', 'patch_col'), '% of the true depth')
    """
    try:
        before, after = (errors_of(run, protocol, truth=truth) for run in (plain, gated))
    except UnmetProtocol:
        pixels = depth_difference(plain, gated)
        patch = int(plain.attrs["backbone"]["preparation"]["patch"])
        found = over_patches(pixels, (pixels.sizes["y"] // patch, pixels.sizes["x"] // patch))
        name, units = "difference of depth", "%"
        comment = "no true depth: how far the runs differ"
    else:
        found = 100 * (after["patch_error"] - before["patch_error"])
        name, units = "change of the relative depth error", "% of the true depth"
        comment = "depth of each run aligned as in its score"
    return found.assign_attrs(long_name=name, units=units, comment=comment)


def depth_difference(plain: xr.DataTree, gated: xr.DataTree) -> xr.DataArray:
    """Return how far the depths of two runs differ (frame, y, x), percent; it needs no truth.

    It is the absolute difference of their logarithms.
    """
    first, second = (
        xr.apply_ufunc(np.log, run["prediction"].to_dataset()["depth"].clip(1e-6))
        for run in (plain, gated)
    )
    words = {"long_name": "difference of depth", "units": "%"}
    return (100 * abs(second - first)).assign_attrs(words)


def _differences(plain: xr.Dataset, gated: xr.Dataset) -> xr.Dataset:
    from mut3r_analysis.running import open_run

    rows = []
    for paths in zip(plain["run"].values, gated["run"].values, strict=True):
        if not all(paths):
            rows.append(xr.DataArray([], dims="frame", coords={"frame": np.array([], int)}))
            continue
        apart = depth_difference(*(open_run(str(path)) for path in paths))
        rows.append(apart.median(["y", "x"]).reset_coords(drop=True))
    frames = xr.concat(rows, dim=plain["sequence"].reset_coords(drop=True), join="outer")
    found = xr.Dataset({"harm": frames.mean("frame"), "frame_harm": frames})
    words = dict.fromkeys(("harm", "frame_harm"), ("difference of depth", "%"))
    return _worst_first(described(found, words)).assign_attrs(metric=DIFFERENCE)


def _worst_first(found: xr.Dataset) -> xr.Dataset:
    order = np.argsort(-found["harm"].fillna(-np.inf).values, kind="stable")
    return found.isel(sequence=order)


def _has_values(scores: xr.Dataset, metric: str) -> bool:
    return f"frame_{metric}" in scores and bool(scores[f"frame_{metric}"].notnull().any())


def _named(scores: xr.DataArray) -> str:
    """Name a metric under its protocol; in its own words where that is not known."""
    scored = PROTOCOLS.get(str(scores.attrs.get("protocol")))
    if scored is not None:
        return measure_label(str(scores.name), scored.align)
    return str(scores.attrs.get("long_name", scores.name))
