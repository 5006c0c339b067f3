"""Beyond the length of training: errors, cue, state and write rates over time."""

from collections.abc import Iterable, Sequence

import xarray as xr

from mut3r_analysis.backbones.protocol import Backbone
from mut3r_analysis.evaluation import evaluate
from mut3r_analysis.foundation.labelling import beside
from mut3r_analysis.motion import Cue
from mut3r_analysis.running import run_batch
from mut3r_analysis.studies.estimates import change
from mut3r_analysis.studies.finding import Finding, Row, rows
from mut3r_analysis.training.long_trial import AUC, ERRORS, STATE, cue_auc

QUESTION = "What changes in a run that is longer than those the model was trained on?"
RULES_QUESTION = "Does a rule that writes less help in long runs?"

NEVER, APART, CHAINED = "never", "apart", "chained"
"""How a state starts anew: not at all, in a world of its own, or where the part before ended."""


def with_resets(
    backbone: Backbone, sequence: xr.Dataset, rules: Sequence[str], every: int, cue: Cue
) -> xr.DataArray:
    """Follow every rule through a sequence: without resets, with resets, and with chained ones.

    Parameters
    ----------
    backbone : Backbone
        With the write rule ``cut3r``.
    sequence : Dataset
        With true depth, poses and motion.
    rules : sequence of str
        In words.
    every : int
        Frames after which the state starts anew.
    cue : Cue
        Measured, and without effect.

    Returns
    -------
    DataArray
        (rule, reset, measure, frame), each measure in its own unit: errors, the cue's AUC, and
        means over the state's tokens. Parts that are apart are no one path and have no errors of
        one.
    """
    words = {NEVER: "", APART: f" reset.{every}", CHAINED: f" reset.{every} reset.chain"}
    cells = [(rule, how) for rule in rules for how in words]
    runs = run_batch(
        backbone,
        sequence,
        [{"cue": cue, "commit": f"rate.{rule}{words[how]}"} for rule, how in cells],
        outputs=("pose", "depth"),
        progress=False,
    )
    found: dict[str, dict[str, xr.DataArray]] = {rule: {} for rule in rules}
    for (rule, how), run in zip(cells, runs, strict=True):
        scores = evaluate(run).isel(sequence=0, drop=True)
        traces = {label: scores[name] for name, label in ERRORS.items() if name in scores}
        traces[AUC] = cue_auc(run)
        state = run["state"].to_dataset()
        traces |= {label: state[name].mean("state_token") for name, label in STATE.items()}
        plain = {label: trace.reset_coords(drop=True) for label, trace in traces.items()}
        found[rule][how] = beside(plain, "measure", combine_attrs="drop")
    values = beside({rule: beside(each, "reset") for rule, each in found.items()}, "rule")
    return values.rename("value")


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
