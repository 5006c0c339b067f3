"""Failure cases: from a sweep to the sequences, frames, patches, layers and heads it went wrong at.

Harm is the error with a treatment minus the error without, on the same sequence or frame. Where
there is no truth there is no harm to be known, and what is ranked is how far two runs differ.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from mut3r_analysis.attention.capture import Capture
from mut3r_analysis.backbones.protocol import Backbone
from mut3r_analysis.errors import InvalidArgument
from mut3r_analysis.evaluation.error_maps import depth_error
from mut3r_analysis.foundation.fields import one_of
from mut3r_analysis.foundation.labelling import beside, described
from mut3r_analysis.metrics.catalogue import PROTOCOLS
from mut3r_analysis.running import Configuration, open_run, run_batch
from mut3r_analysis.studies.estimates import change
from mut3r_analysis.studies.finding import NO_TRUTH, Finding, Row, row
from mut3r_analysis.studies.measures import measure_label

ERRORS = ("abs_rel", "rpe_translation", "rpe_rotation", "ate")
"""Metrics that are errors, in the order in which they are looked for."""

DIFFERENCE = "depth_difference"
_SITES = ("image_self", "image_to_state")
_STATISTICS = ("entropy", "logsumexp", "max_weight")

Labels = Mapping[str, Any]


def metric_of(table: xr.Dataset) -> str:
    """Return the first error metric that a sweep has per frame; else `DIFFERENCE`."""
    for name in ERRORS:
        if f"frame_{name}" in table and bool(table[f"frame_{name}"].notnull().any()):
            return name
    return DIFFERENCE


def harms(table: xr.Dataset, reference: Labels, treatment: Labels, metric: str) -> xr.Dataset:
    """Compare two cells of a sweep, sequence by sequence and frame by frame.

    Parameters
    ----------
    table : Dataset
        From `sweep`.
    reference, treatment : mapping
        Labels that select one configuration each, for example ``{"configuration": "plain"}``.
    metric : str
        One of `ERRORS`, or `DIFFERENCE`: the median over pixels of the absolute difference of log
        depth between the two runs, in percent, which needs no truth.

    Returns
    -------
    Dataset
        ``reference``, ``treatment`` and ``harm`` (sequence), the worst first, and ``frame_harm``
        (sequence, frame), all in the unit of the metric and named as it is under its protocol.
    """
    first, second = _cell(table, reference), _cell(table, treatment)
    if metric == DIFFERENCE:
        return _differences(first, second)
    one_of("metric", metric, [name for name in ERRORS if name in table])
    name, units = _named(table[metric]), str(table[metric].attrs.get("units", "1"))
    changed = f"change of {name} by gating"
    words = {"reference": name, "treatment": name, "harm": changed, "frame_harm": changed}
    first, second = (cell.reset_coords(drop=True) for cell in (first, second))
    found = xr.Dataset(
        {
            "reference": first[metric],
            "treatment": second[metric],
            "harm": second[metric] - first[metric],
            "frame_harm": second[f"frame_{metric}"] - first[f"frame_{metric}"],
        }
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
    """
    flat = found["frame_harm"].to_series().dropna().rename("harm").reset_index()
    flat = flat.sort_values("harm", ascending=gain, kind="stable").head(count)
    return flat[["sequence", "frame", "harm"]].reset_index(drop=True)


def patch_harm(
    table: xr.Dataset, reference: Labels, treatment: Labels, sequence: str, frame: int, patch: int
) -> xr.DataArray:
    """Return where in a frame a treatment did harm, by the error that the frame was scored with.

    Parameters
    ----------
    table, reference, treatment
        As for :func:`harms`.
    sequence : str
    frame : int
        Label of the frame.
    patch : int
        Side of a patch, px.

    Returns
    -------
    DataArray
        (patch_row, patch_col), percent: the mean over a patch's pixels of the relative error of
        depth, each run aligned as its score was, with the treatment minus without. Where there is
        no true depth, the absolute difference of the runs' log depths. ``comment`` says which.
    """
    cells = [_cell(table, labels) for labels in (reference, treatment)]
    runs = [open_run(str(cell["run"].sel(sequence=sequence).item())) for cell in cells]
    before, after = (depth_error(run, cell, frame) for run, cell in zip(runs, cells, strict=True))
    if before is not None and after is not None:
        errors = after - before
        name, units = "change of the relative depth error", "% of the true depth"
        comment = "depth of each run aligned as in its score"
    else:
        errors = _log_difference(*(_depth(run).sel(frame=frame) for run in runs)).values
        name, units = "difference of depth", "%"
        comment = "no true depth: how far the runs differ"
    pixels = xr.DataArray(100 * errors, dims=("patch_row", "patch_col"))
    found = pixels.coarsen(patch_row=patch, patch_col=patch, boundary="trim").mean()
    sides = {dim: np.arange(size) for dim, size in found.sizes.items()}
    return found.assign_coords(sides).assign_attrs(long_name=name, units=units, comment=comment)


def attention_change(
    backbone: Backbone,
    sequence: xr.Dataset,
    reference: Configuration,
    treatment: Configuration,
    frame: int,
    row: int,
    column: int,
) -> xr.DataArray:
    """Return at which layers and heads a treatment changed what a patch attends to.

    The two configurations run again up to the frame, whose attention is captured: logits before a
    gate of that layer acts on them, so a change comes from the layers and frames before.

    Parameters
    ----------
    backbone : Backbone
    sequence : Dataset
    reference, treatment : Configuration
    frame : int
        Label of the frame.
    row, column : int
        The patch.

    Returns
    -------
    DataArray
        (site, statistic, layer, head): absolute change of the statistic, in units of its standard
        deviation over the patches of the reference.
    """
    labels = sequence["frame"].values.tolist()
    place = labels.index(one_of("frame", frame, labels))
    capture = Capture(statistics=_STATISTICS, sites=_SITES, frames=[place])
    short = sequence.isel(frame=slice(0, place + 1))
    runs = run_batch(
        backbone, short, [reference, treatment], capture=capture, outputs=("pose",), progress=False
    )

    def changed(site: str, name: str) -> xr.DataArray:
        one, other = (run[f"attention/{site}/{name}"].isel(frame=0) for run in runs)
        here = abs(other - one).sel(token="patch", patch_row=row, patch_col=column)
        spread = one.sel(token="patch").std("query")
        return (here.squeeze(drop=True) / spread).reset_coords(drop=True)

    sites = {
        site: beside({name: changed(site, name) for name in _STATISTICS}, "statistic")
        for site in _SITES
    }
    words = {"long_name": "change of attention", "units": "sd over patches"}
    return beside(sites, "site").assign_attrs(words)


def finding(found: xr.Dataset, worst: Mapping[str, Any]) -> Finding:
    """Tell what gating changes on average, and where the sweep's worst case is.

    Parameters
    ----------
    found : Dataset
        From :func:`harms`.
    worst : mapping
        ``sequence``, ``frame``, ``row``, ``column``, ``score``, ``moving`` (None without truth),
        ``site``, ``layer``, ``head`` of the worst frame; ``beta`` of the gates; ``outside``, what
        of the sequence's scene the backbone was not trained on.
    """
    harm = found["harm"].dropna("sequence")
    count, unit = harm.sizes["sequence"], harm.attrs["units"].replace("1", "")
    note = (
        f"Worst: frame {worst['frame']} of {worst['sequence']}, patch ({worst['row']}, "
        f"{worst['column']}); attention changed most at {worst['site']}, layer {worst['layer']}, "
        f"head {worst['head']}."
    )
    if worst["outside"]:
        note += f" Unlike the scenes of training: {'; '.join(worst['outside'])}."
    if "treatment" in found:
        about = f"Against the plain run, with gates of β = {worst['beta']:g}, the error is"
        mean = change(found["treatment"], found["reference"])
        rows = [row(found["treatment"].attrs["long_name"], mean)]
        raised = int((harm > 0).sum())
        rows.append(Row("sequences whose error is raised", raised, n=count, reference=None))
    else:
        about, note = f"Gates of β = {worst['beta']:g} change", f"{NO_TRUTH} {note}"
        rows = [Row("depth", float(harm.mean()), n=count, unit=unit, reference=None)]
    for text, place in (("most raised", 0), ("least raised", -1)):
        effect = f"{text}: {harm['sequence'].values[place]}"
        rows.append(Row(effect, float(harm[place]), unit=unit, reference=None))
    rows.append(Row("motion score of the worst patch", worst["score"], reference=None))
    if worst["moving"] is not None:
        rows.append(Row("moving share of the worst patch", worst["moving"], reference=None))
    return Finding("Where does gating fail?", rows, about, note, lead=1)


def _cell(table: xr.Dataset, labels: Labels) -> xr.Dataset:
    cell = table.sel(dict(labels))
    left = set(cell["run"].dims) - {"sequence"}
    if left:
        raise InvalidArgument(f"select one configuration; {sorted(map(str, left))} are left")
    return cell


def _differences(first: xr.Dataset, second: xr.Dataset) -> xr.Dataset:
    rows = []
    for paths in zip(first["run"].values, second["run"].values, strict=True):
        if not all(paths):
            rows.append(xr.DataArray([], dims="frame", coords={"frame": np.array([], int)}))
            continue
        apart = _log_difference(*(_depth(open_run(str(path))) for path in paths))
        rows.append((100 * apart).median(["y", "x"]).reset_coords(drop=True))
    frames = xr.concat(rows, dim=first["sequence"].reset_coords(drop=True), join="outer")
    found = xr.Dataset({"harm": frames.mean("frame"), "frame_harm": frames})
    words = dict.fromkeys(("harm", "frame_harm"), ("difference of depth", "%"))
    return _worst_first(described(found, words))


def _worst_first(found: xr.Dataset) -> xr.Dataset:
    order = np.argsort(-found["harm"].fillna(-np.inf).values, kind="stable")
    return found.isel(sequence=order)


def _depth(run: xr.DataTree) -> xr.DataArray:
    return run["prediction"].to_dataset()["depth"]


def _log_difference(one: xr.DataArray, other: xr.DataArray) -> xr.DataArray:
    first, second = (xr.apply_ufunc(np.log, depth.clip(1e-6)) for depth in (one, other))
    return abs(second - first)


def _named(scores: xr.DataArray) -> str:
    """Name a column of a sweep under its protocol; in its own words where that is not known."""
    scored = PROTOCOLS.get(str(scores.attrs.get("protocol")))
    if scored is not None:
        return measure_label(str(scores.name), scored.align)
    return str(scores.attrs.get("long_name", scores.name))
