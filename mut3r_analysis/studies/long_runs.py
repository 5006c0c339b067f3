"""Beyond the length of training: errors, cue, state and write rates over time."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import xarray as xr

from mut3r_analysis.attention.capture import Capture
from mut3r_analysis.backbones.protocol import Backbone
from mut3r_analysis.foundation.labelling import beside
from mut3r_analysis.motion import Cue
from mut3r_analysis.running import open_run
from mut3r_analysis.studies.ablation import Ablation
from mut3r_analysis.studies.estimates import change
from mut3r_analysis.studies.finding import Finding, Row, rows
from mut3r_analysis.sweeps import sweep
from mut3r_analysis.training.long_trial import traces

QUESTION = "What changes in a run that is longer than those the model was trained on?"
RULES_QUESTION = "Does a rule that writes less help in long runs?"
RESETS_QUESTION = "Does it help to let the state start anew?"

NEVER, APART, CHAINED = "never", "apart", "chained"
"""How a state starts anew: not at all, in a world of its own, or where the part before ended."""


def with_resets(
    backbone: Backbone,
    sequences: Sequence[str],
    rules: Sequence[str],
    every: int,
    cue: Cue,
    *,
    out: str | Path,
    progress: bool = True,
) -> xr.DataArray:
    """Follow every rule through sequences: without resets, with resets, and with chained ones.

    Parameters
    ----------
    backbone : Backbone
        With the write rule ``cut3r``.
    sequences : sequence of str
        With true depth, poses and motion.
    rules : sequence of str
        In words.
    every : int
        Frames after which the state starts anew.
    cue : Cue
        Measured, and without effect.
    out : str or Path
        Where runs are kept; what is there is not run again.
    progress : bool

    Returns
    -------
    DataArray
        (rule, reset, sequence, measure, frame) of what
        :func:`~mut3r_analysis.training.long_trial.traces` follows. Parts that are apart are no one
        path and have no errors of one.
    """
    words = {NEVER: "", APART: f" reset.{every}", CHAINED: f" reset.{every} reset.chain"}

    def configure(rule: str, reset: str) -> dict[str, Any]:
        return {"cue": cue, "commit": f"rate.{rule}{words[reset]}"}

    study = Ablation({"rule": rules, "reset": list(words)}, configure, "{}, {}")
    table = sweep(
        backbone,
        sequences,
        configurations={label: made for label, _, made in study.cells},
        capture=Capture(statistics=[], sites=[]),
        outputs=("pose", "depth"),
        out=out,
        progress=progress,
    )
    found = {
        label: beside(
            {
                name: traces(open_run(str(path)), table.sel(configuration=label, sequence=name))
                for name, path in row.items()
            },
            "sequence",
        )
        for label, row in table["run"].transpose("configuration", "sequence").to_pandas().iterrows()
    }
    followed: xr.DataArray = study.unfolded(beside(found, "configuration"))
    return followed


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
    effect = "{measure} of {model}"
    table: list[Row] = rows(late.sel(measure=list(measures)).transpose("model", "measure"), effect)
    return Finding(QUESTION, table, f"Running on to frames {last}, against frames {first},")


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
        table += rows(found, f"{{measure}} of {backbone} in frames {{window}}")
    about = f"Writing by {other}, not {plain},"
    return Finding(RULES_QUESTION, table, about)


def resets_finding(values: xr.DataArray, measures: Iterable[str]) -> Finding:
    """Say how errors of the last window differ where parts are chained from those of one run.

    Parameters
    ----------
    values : DataArray
        (rule, reset, sequence, measure, window).
    measures : iterable of str
    """
    late = values.sel(measure=list(measures)).isel(window=-1)
    chained, never = (late.sel(reset=how, drop=True) for how in (CHAINED, NEVER))
    table: list[Row] = rows(
        change(chained, never).transpose("measure", "rule"), "{measure} under {rule}"
    )
    about = f"Starting the state anew, in frames {late['window'].item()},"
    return Finding(RESETS_QUESTION, table, about)
