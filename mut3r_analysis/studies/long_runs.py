"""Beyond the length of training: errors, cue, state and write rates over time."""

from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise

import numpy as np
import xarray as xr

from mut3r_analysis.evaluation import evaluate
from mut3r_analysis.metrics.ranking import weighted_auc
from mut3r_analysis.studies.estimates import change
from mut3r_analysis.studies.finding import Finding, Row, rows

QUESTION = "What changes in a run that is longer than those the model was trained on?"
RULES_QUESTION = "Does a rule that writes less help in long runs?"

_ERRORS = {
    "frame_rpe_rotation": "rotation error (degree)",
    "frame_rpe_translation": "translation error (m)",
    "frame_ate": "distance of aligned cameras (m)",
    "frame_abs_rel": "relative depth error",
}
_STATE = {
    "norm": "norm of state tokens",
    "update_size": "change of state tokens",
    "write_rate": "write rate",
}
AUC = "AUC of the cue"
ERRORS = tuple(_ERRORS.values())


def windows(edges: Sequence[int]) -> Iterator[tuple[str, slice]]:
    """Yield label and frames of each window between edges, half-open: ``"8-15"``."""
    for first, last in pairwise(edges):
        yield f"{first}-{last - 1}", slice(first, last - 1)


def over_time(run: xr.DataTree, edges: Sequence[int]) -> xr.DataArray:
    """Mean of every error, of the cue's AUC and of the state's numbers in windows of frames.

    Parameters
    ----------
    run : DataTree
        With truth, and with a cue that was measured.
    edges : sequence of int
        Of the windows, frames of the source.

    Returns
    -------
    DataArray
        (measure, window), each measure in its own unit; NaN where a window has none.
    """
    scores = evaluate(run).isel(sequence=0)
    traces = {label: scores[name] for name, label in _ERRORS.items() if name in scores}
    traces |= {AUC: cue_auc(run)}
    for name, label in _STATE.items():
        held = run["state"].to_dataset()[name]
        traces[label] = held.mean([dim for dim in held.dims if dim != "frame"])
    parts = [
        xr.concat([trace.sel(frame=frames).mean("frame") for _, frames in windows(edges)], "window")
        for trace in traces.values()
    ]
    found = xr.concat(parts, "measure", coords="minimal", compat="override", join="override")
    labels = [label for label, _ in windows(edges)]
    found = found.reset_coords(drop=True).assign_coords(measure=list(traces), window=labels)
    found.attrs = {"long_name": "mean over frames"}  # each measure has a unit of its own
    found["window"].attrs = {"long_name": "frames"}
    return found


def cue_auc(run: xr.DataTree) -> xr.DataArray:
    """Return how well a run's cue tells moving patches in each frame: the AUC ``(frame,)``.

    A patch moves when at least half of its pixels do. NaN where none or all do.
    """
    motion = run["cue/motion"].transpose("frame", "patch_row", "patch_col")
    mask = run["truth/motion_mask"].transpose("frame", "y", "x").values
    rows_, columns = motion.shape[1:]
    cells = mask.reshape(len(mask), rows_, -1, columns, mask.shape[2] // columns)
    moving = cells.mean(axis=(2, 4)) >= 0.5
    areas = [
        weighted_auc(score.ravel(), label.ravel())[0]
        for score, label in zip(motion.values, moving, strict=True)
    ]
    return motion["frame"].copy(data=np.array(areas)).rename("auc")


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
