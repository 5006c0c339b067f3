"""Whether a cue and a gate do the same when another rule writes the memory."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import product
from typing import Any

import numpy as np
import xarray as xr

from mut3r_analysis.errors import InvalidArgument
from mut3r_analysis.studies.answers import Finding, finite
from mut3r_analysis.studies.estimates import change, difference, estimate, spelled, verdict
from mut3r_analysis.studies.generalisation.memories import CONTROLS, OPEN, OWN

DEPTH, POSE = "abs_rel", "ate"
"""The metric of each task that a finding speaks of."""

NAMES = {DEPTH: "the depth error (AbsRel)", POSE: "the trajectory error (ATE)"}

QUESTION = "Does gating by the same cue do the same when another rule writes the memory?"


def has_truth(table: xr.Dataset) -> bool:
    """Say whether anything could be scored."""
    return any(name in table and bool(table[name].notnull().any()) for name in (DEPTH, POSE))


def gated_treatments(table: xr.Dataset) -> list[str]:
    """Return the treatments that gate."""
    return [str(name) for name in table["treatment"].values if name != OPEN]


def gating_effects(table: xr.Dataset, metrics: Iterable[str] = (DEPTH, POSE)) -> xr.Dataset:
    """Return the paired change of the error by every treatment, in percent of the same memory.

    Parameters
    ----------
    table : Dataset
        From `sweep_memories`.
    metrics : iterable of str
        Those the table lacks are left out.

    Returns
    -------
    Dataset
        (metric, memory, treatment): ``value``, ``lower``, ``upper``, ``n`` as of
        `change`.

    Raises
    ------
    InvalidArgument
        When the table has none of the metrics.
    """
    present = _present(table, metrics)
    found = [_by_treatment(table, name, change) for name in present]
    return _over_metrics(found, table, present)


def rule_contrasts(table: xr.Dataset, metrics: Iterable[str] = (DEPTH, POSE)) -> xr.Dataset:
    """Return how far the effect of gating differs from that under the first memory.

    Each sequence's change is put in percent of its memory's mean error without a gate, so that the
    mean over sequences is that of :func:`gating_effects`; the resampling takes that divisor as
    given.

    Returns
    -------
    Dataset
        (metric, memory, treatment), without the first memory: percentage points, as
        `difference`.
    """
    present = _present(table, metrics)
    found = [_by_treatment(table, name, _contrast) for name in present]
    return _over_metrics(found, table, present)


def _contrast(gated: xr.DataArray, plain: xr.DataArray) -> xr.Dataset:
    paired = gated - plain
    effect = 100 * paired / plain.where(paired.notnull()).mean("sequence")
    effect.attrs = {"long_name": "change by gating", "units": "percentage points"}
    first = effect.isel(memory=0, drop=True)
    return difference(effect.isel(memory=slice(1, None)), first)


def place_effects(table: xr.Dataset, metrics: Iterable[str] = (DEPTH, POSE)) -> xr.Dataset:
    """Return the change of the error by a score, against the same score at shuffled patches.

    Both gate as strongly; only the place differs.

    Returns
    -------
    Dataset
        (metric, memory, treatment), treatments and memories that were run with both: as `change`.
    """
    present = _present(table, metrics)
    ran = table["treatment"].values
    treatments = [name for name, control in CONTROLS.items() if name in ran and control in ran]
    found = []
    for name in present:
        cells = []
        for treatment in treatments:
            pair = table[name].sel(treatment=[treatment, CONTROLS[treatment]])
            pair = pair.sel(memory=pair.notnull().any("sequence").all("treatment"))
            own, control = (pair.isel(treatment=place, drop=True) for place in (0, 1))
            cells.append(change(own, control).expand_dims(treatment=[treatment]))
        found.append(_joined(cells, table))
    return _over_metrics(found, table, present)


def finding(
    effects: xr.Dataset | None,
    rules: Sequence[str],
    *,
    contrasts: xr.Dataset | None,
    place: xr.Dataset | None,
    written: xr.Dataset,
    alike: xr.Dataset | None,
    moved: xr.DataArray,
) -> Finding:
    """Say whether the own cue's gates do the same under every write rule.

    Parameters
    ----------
    effects : Dataset or None
        From :func:`gating_effects`; None without any truth.
    rules : sequence of str
        Memories that are write rules, at least one.
    contrasts : Dataset or None
        From :func:`rule_contrasts`; None where there is nothing to compare.
    place : Dataset or None
        From :func:`place_effects`; None without any truth.
    written : Dataset
        (memory, treatment) ``value`` in percent: how much of the state a frame replaces. Rules
        that write alike are no test of each other.
    alike : Dataset or None
        (memory) as `estimate`, without the first rule: correlation of the cue's maps with those
        under it.
    moved : DataArray
        (what, memory, sequence): how far gating moves predictions, which is what is said where
        there is no truth.
    """
    replaced = written["value"].sel(treatment=OPEN)
    shares = [f"{float(replaced.sel(memory=rule)):.0f} % with {rule}" for rule in rules]
    control = f"A frame replaces {_listed(shares)} of the state."
    if len(rules) > 1 and alike is not None:
        others = alike.sel(memory=list(rules[1:]))
        least = str(others["memory"].values[np.argmin(others["value"].values)])
        control += (
            f" The cue's maps correlate with those under {rules[0]} by "
            f"{spelled(others.sel(memory=least), 3)} on average under {least}, the least alike."
        )
    if effects is None:
        return _without_truth(rules, moved, control)
    sentences: list[str] = []
    values: dict[str, Any] = {}
    told = 0
    for metric in effects["metric"].values.tolist():
        cells = {rule: effects.sel(metric=metric, memory=rule, treatment=OWN) for rule in rules}
        name = effects["name"].sel(metric=metric).item()
        parts = [f"{spelled(cell)} with {rule}" for rule, cell in cells.items()]
        verdicts = {rule: verdict(cell) for rule, cell in cells.items()}
        told += sum(text in ("lower", "higher") for text in verdicts.values())
        sentences.append(f"Gating by the own cue changes {name} by {_listed(parts)}: "
                         f"{_agreement(cells)}.")  # fmt: skip
        values[metric] = {
            rule: {
                **{part: finite(cell[part]) for part in ("value", "lower", "upper")},
                "n": int(cell["n"]),
                "verdict": verdicts[rule],
            }
            for rule, cell in cells.items()
        }
    count = len(rules) * effects.sizes["metric"]
    few = all(part["verdict"].startswith("too few") for each in values.values()
              for part in each.values())  # fmt: skip
    if few:
        sentences.append("There are too few sequences to tell any of these effects from chance.")
    else:
        sentences.append(f"{told or 'None'} of these {count} effects can be told from zero.")
        sentences.append(_apart(contrasts, rules, dict(effects["name"].to_series())))
        sentences.append(_placed(place, rules))
    return Finding(QUESTION, " ".join([*filter(None, sentences), control]), values)


def _apart(contrasts: xr.Dataset | None, rules: Sequence[str], names: Mapping[str, str]) -> str:
    """Say under which rules the effect is another one than under the first."""
    if contrasts is None or len(rules) < 2:
        return ""
    found = []
    for rule, metric in product(rules[1:], contrasts["metric"].values.tolist()):
        cell = contrasts.sel(memory=rule, metric=metric, treatment=OWN)
        if verdict(cell) in ("lower", "higher"):
            found.append(f"{rule} by {spelled(cell)} for {names[metric]}")
    if not found:
        return f"Under no rule can the effect be told from that under {rules[0]}."
    return f"The effect differs from that under {rules[0]} with {_listed(found)}."


def _placed(place: xr.Dataset | None, rules: Sequence[str]) -> str:
    """Say where the own cue does better or worse than its own scores at other patches."""
    if place is None or OWN not in place["treatment"].values:
        return ""
    parts = []
    for metric in place["metric"].values.tolist():
        cells = place.sel(metric=metric, treatment=OWN)
        said = {rule: verdict(cells.sel(memory=rule)) for rule in rules}
        lower, higher = (
            _listed([rule for rule in rules if said[rule] == word]) or "no rule"
            for word in ("lower", "higher")
        )
        name = cells["name"].item()
        parts.append(f"{name} is shown to be lower under {lower} and higher under {higher}")
    return f"With the own cue instead of the same scores at shuffled patches, {'; '.join(parts)}."


def _without_truth(rules: Sequence[str], moved: xr.DataArray, control: str) -> Finding:
    sentences = [
        "No ground truth: only differences between runs are shown, and none of them is better or "
        "worse."
    ]
    values: dict[str, Any] = {}
    for name in moved["what"].values.tolist():
        cells = estimate(moved.sel(what=name))
        parts = [f"{spelled(cells.sel(memory=rule))} with {rule}" for rule in rules]
        sentences.append(f"Gating by the own cue moves the {name} by {_listed(parts)}.")
        values[name] = {rule: finite(cells["value"].sel(memory=rule)) for rule in rules}
    return Finding(QUESTION, " ".join([*sentences, control]), values)


def _agreement(cells: Mapping[str, xr.Dataset]) -> str:
    """Say whether the effects of several rules have one sign, and which of them are shown."""
    signs = {rule: np.sign(float(cell["value"])) for rule, cell in cells.items()}
    known = {rule: sign for rule, sign in signs.items() if np.isfinite(sign)}
    if len(known) < 2:
        return "fewer than two rules have a value, so there is nothing to agree"
    if not any(known.values()):
        return "gating changes nothing under any rule"
    up, down = ([r for r, s in known.items() if s == sign] for sign in (1, -1))
    sure = [rule for rule in known if verdict(cells[rule]) in ("lower", "higher")]
    shown = f"shown under {_listed(sure) or 'none of them'}"
    for word, side in (("higher", up), ("lower", down)):
        if len(side) == len(known):
            return f"the mean is {word} under all {len(known)} rules; {shown}"
    sides = [f"{word} under {_listed(each)}" for word, each in (("higher", up), ("lower", down))
             if each]  # fmt: skip
    return f"the mean is {', '.join(sides)}; {shown}"


def _present(table: xr.Dataset, metrics: Iterable[str]) -> list[str]:
    present = [name for name in metrics if name in table and bool(table[name].notnull().any())]
    if not present:
        raise InvalidArgument(
            f"the table scores none of {', '.join(metrics)}; it holds {', '.join(map(str, table))}"
        )
    return present


def _by_treatment(
    table: xr.Dataset, metric: str, compare: Callable[[xr.DataArray, xr.DataArray], xr.Dataset]
) -> xr.Dataset:
    """Compare every treatment with no gate, over the memories it was run with."""
    found = []
    for name in gated_treatments(table):
        gated = table[metric].sel(treatment=name, drop=True)
        gated = gated[gated.notnull().any("sequence")]
        plain = table[metric].sel(treatment=OPEN, memory=gated["memory"], drop=True)
        found.append(compare(gated, plain).expand_dims(treatment=[name]))
    return _joined(found, table)


def _joined(found: list[xr.Dataset], table: xr.Dataset) -> xr.Dataset:
    """Lay treatments side by side, over every memory that any of them was run with."""
    joined = xr.concat(found, dim="treatment", join="outer", combine_attrs="override")
    memories = [name for name in table["memory"].values if name in joined["memory"].values]
    joined["n"] = joined["n"].fillna(0).astype(int)
    return joined.sel(memory=memories)


def _over_metrics(found: list[xr.Dataset], table: xr.Dataset, metrics: list[str]) -> xr.Dataset:
    words = [NAMES.get(name, str(table[name].attrs.get("long_name", name))) for name in metrics]
    found = [each.transpose("memory", ...) for each in found]
    joined = xr.concat(found, dim=xr.Variable("metric", metrics), combine_attrs="override")
    for part in ("value", "lower", "upper"):
        joined[part].attrs["long_name"] = "change by gating"
    joined = joined.assign_coords(name=("metric", words))
    for dim in ("memory", "treatment"):
        if dim in joined.dims:
            joined[dim].attrs = table[dim].attrs
    return joined


def _listed(parts: Sequence[str]) -> str:
    return " and ".join(filter(None, (", ".join(parts[:-1]), *parts[-1:])))
