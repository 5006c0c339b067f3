"""Whether a cue and a gate do the same when another rule writes the memory."""

from collections.abc import Callable, Iterable, Sequence

import xarray as xr

from mut3r_analysis.errors import InvalidArgument
from mut3r_analysis.studies.ablation import PLAIN, against_control
from mut3r_analysis.studies.estimates import change, difference
from mut3r_analysis.studies.finding import Finding, Row, row, rows
from mut3r_analysis.studies.generalisation.memories import OWN
from mut3r_analysis.studies.labelling import beside

DEPTH, POSE = "abs_rel", "ate"
"""The metric of each task that a finding speaks of."""

NAMES = {DEPTH: "depth error (AbsRel)", POSE: "trajectory error (ATE)"}

QUESTION = "Does gating by the same cue do the same when another rule writes the memory?"


def has_truth(table: xr.Dataset) -> bool:
    """Say whether anything could be scored."""
    return any(name in table and bool(table[name].notnull().any()) for name in (DEPTH, POSE))


def gated_treatments(table: xr.Dataset) -> list[str]:
    """Return the treatments that gate."""
    return [str(name) for name in table["treatment"].values if name != PLAIN]


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
    return _by_metric(table, metrics, lambda errors: change(*_gated_and_plain(errors)))


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
    return _by_metric(table, metrics, _contrast)


def _contrast(errors: xr.DataArray) -> xr.Dataset:
    gated, plain = _gated_and_plain(errors)
    paired = gated - plain
    effect = 100 * paired / plain.where(paired.notnull()).mean("sequence")
    effect.attrs = {"long_name": "change by gating", "units": "percentage points"}
    return difference(effect.isel(memory=slice(1, None)), effect.isel(memory=0, drop=True))


def place_effects(table: xr.Dataset, metrics: Iterable[str] = (DEPTH, POSE)) -> xr.Dataset:
    """Return the change of the error by a score, against the same score at shuffled patches.

    Both gate as strongly; only the place differs.

    Returns
    -------
    Dataset
        (metric, memory, treatment), treatments and memories that were run with both: as `change`.
    """

    def compared(errors: xr.DataArray) -> xr.Dataset:
        both = against_control(errors, "treatment")
        return both.sel(memory=(both["n"] > 0).any("treatment"))

    return _by_metric(table, metrics, compared)


def finding(
    effects: xr.Dataset,
    rules: Sequence[str],
    *,
    contrasts: xr.Dataset | None,
    place: xr.Dataset,
    written: xr.Dataset,
    alike: xr.Dataset | None,
) -> Finding:
    """Tell what the own cue's gates change under every write rule, and whether rules differ.

    Parameters
    ----------
    effects : Dataset
        From :func:`gating_effects`.
    rules : sequence of str
        Memories that are write rules, at least one.
    contrasts : Dataset or None
        From :func:`rule_contrasts`; None where there is nothing to compare.
    place : Dataset
        From :func:`place_effects`.
    written : Dataset
        (memory, treatment) ``value`` in percent: how much of the state a frame replaces. Rules
        that write alike are no test of each other.
    alike : Dataset or None
        (memory) as `estimate`, without the first rule: correlation of the cue's maps with those
        under it.
    """

    def of_rules(found: xr.Dataset, effect: str) -> list[Row]:
        known = [rule for rule in rules if rule in found["memory"].values]
        return [
            row(effect.format(cells["name"].item(), rule), cells.sel(memory=rule))
            for cells in (found.sel(metric=name) for name in found["metric"].values)
            for rule in known
        ]

    table = of_rules(effects.sel(treatment=OWN), "{} under {}")
    lead = len(table)
    if contrasts is not None:
        first = f"{{}} under {{}}, effect less that under {rules[0]}"
        table += of_rules(contrasts.sel(treatment=OWN), first)
    if OWN in place["treatment"].values:
        table += of_rules(place.sel(treatment=OWN), "{} under {}, against shuffled scores")
    shares = written.sel(treatment=PLAIN, memory=list(rules), drop=True)
    table += rows(shares, "state replaced per frame, {}", reference=None)
    if alike is not None:
        others = alike.sel(memory=list(rules[1:]))
        told = f"correlation of cue maps with those under {rules[0]}, {{}}"
        table += rows(others, told, reference=None)
    about = "Against the same rule without gates, with gates by the own cue,"
    return Finding(QUESTION, table, f"{about} the error is", lead=lead)


def _gated_and_plain(errors: xr.DataArray) -> tuple[xr.DataArray, xr.DataArray]:
    return errors.drop_sel(treatment=PLAIN), errors.sel(treatment=PLAIN, drop=True)


def _by_metric(
    table: xr.Dataset, metrics: Iterable[str], compare: Callable[[xr.DataArray], xr.Dataset]
) -> xr.Dataset:
    """Compare the errors of every metric that was scored, (metric, memory, treatment)."""
    present = [name for name in metrics if name in table and bool(table[name].notnull().any())]
    if not present:
        raise InvalidArgument(
            f"the table scores none of {', '.join(metrics)}; it holds {', '.join(map(str, table))}"
        )
    parts = {name: compare(table[name]).transpose("memory", ...) for name in present}
    found = beside(parts, "metric")
    for part in ("value", "lower", "upper"):
        found[part].attrs["long_name"] = "change by gating"
    for dim in ("memory", "treatment"):
        found[dim].attrs = table[dim].attrs
    words = [NAMES.get(name, str(table[name].attrs.get("long_name", name))) for name in present]
    return found.assign_coords(name=("metric", words))
