"""One checkpoint with several memories, ungated and gated: scores, and what gating changes."""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import xarray as xr

from mut3r_analysis.attention.sites import PATCH_STREAMS, SITE_KINDS
from mut3r_analysis.backbones import Backbone, load_backbone
from mut3r_analysis.backbones.write_rules import WRITE_RULES, needs_cue
from mut3r_analysis.errors import InvalidArgument
from mut3r_analysis.foundation.fields import some_of
from mut3r_analysis.foundation.labelling import beside
from mut3r_analysis.metrics import find_metric
from mut3r_analysis.motion import Cue, Gate
from mut3r_analysis.motion.readings import MASK
from mut3r_analysis.motion.realisations import DIRECTIONS
from mut3r_analysis.running.configuration import Configuration
from mut3r_analysis.sequences import open_sequence
from mut3r_analysis.studies.ablation import (
    PLAIN,
    SHUFFLED,
    Ablation,
    against_control,
    with_controls,
)
from mut3r_analysis.studies.estimates import change, difference
from mut3r_analysis.studies.finding import Finding, Row, rows
from mut3r_analysis.sweeps import sweep

OWN, TRUE = "own cue", "true mask"
TREATMENTS = (PLAIN, OWN, OWN + SHUFFLED, TRUE, TRUE + SHUFFLED)
"""The plain backbone with its cue measured, and MUT3R's gates by each score and by the same numbers
at other patches, which gate as strongly."""

_JOIN = " | "


@dataclass(frozen=True)
class Memory:
    """One way to carry a frame on to the next.

    Attributes
    ----------
    update : str
        Write rule the checkpoint is loaded with.
    commit : str
        What the commit adds to it.
    """

    update: str
    commit: str = "rw.gg"

    @property
    def plain(self) -> bool:
        """Whether it is a write rule and nothing else."""
        return self.commit == "rw.gg"


def known_memories(
    rules: Sequence[str] | None = None, commits: Mapping[str, str] | None = None
) -> dict[str, Memory]:
    """Return write rules, and other memories made of commits.

    Parameters
    ----------
    rules : sequence of str, optional
        Names of write rules; by default all registered ones that need no cue, which only a commit
        can give. The first is what others are compared with.
    commits : mapping of str to str, optional
        Label -> commit in its text form, on top of the first write rule.

    Raises
    ------
    InvalidArgument
        For a rule that is not registered, or a commit labelled as a rule.
    """
    own = [name for name in WRITE_RULES if not needs_cue(name)]
    names = own if rules is None else list(rules)
    some_of("write rules", names, WRITE_RULES)
    first = names[0]
    found = {name: Memory(name) for name in names}
    for label, commit in (commits or {}).items():
        if label in found:
            raise InvalidArgument(f"{label!r} is a write rule; give the commit another label")
        found[label] = Memory(first, commit)
    return found


def patch_site(sites: Collection[str]) -> str:
    """Return the first kind of site of a decoder at which patches of the frame read each other.

    Parameters
    ----------
    sites : collection of str
        That a model has.

    Raises
    ------
    InvalidArgument
        When there is none.
    """
    for name in sites:
        kind = SITE_KINDS[name]
        if kind.part == "decoder" and kind.queries == kind.keys and kind.keys in PATCH_STREAMS:
            return name
    raise InvalidArgument(
        f"patches of a frame read each other at none of the sites {', '.join(sites)}; leave the "
        "model out"
    )


def possible_memories(
    backbone: str, memories: Mapping[str, Memory], sequence: str | Path
) -> dict[str, Memory]:
    """Keep the memories that a model can have: not every kind has rates, or a pose memory.

    Parameters
    ----------
    backbone : str
        For :func:`~mut3r_analysis.load_backbone`.
    memories : mapping of str to Memory
    sequence : str
        For :func:`~mut3r_analysis.open_sequence`; one that will be run.
    """
    frames = open_sequence(sequence, stop=2)
    kept = {}
    for label, memory in memories.items():
        with suppress(InvalidArgument):
            model = load_backbone(backbone, update=memory.update)
            plain = treatments(memory, 1.0, sites=model.sites())[PLAIN]
            Configuration.of(plain).check(model, frames, model.outputs)
            kept[label] = memory
    return kept


def treatments(
    memory: Memory, beta: float, edition: int = 2, sites: Collection[str] = DIRECTIONS
) -> dict[str, dict[str, Any]]:
    """Return the configurations of a memory by treatment.

    In a model without some of MUT3R's `sites`, its cue and its gate of pairs of patches stand where
    patches of a frame read each other.

    Without a gate the own cue is measured, which changes nothing but where the memory itself
    takes its rate from the cue. Memories made of commits are gated by the own cue only: their rate
    would follow what replaced it.
    """
    site = patch_site(sites)
    own, mask = Cue.mut3r(edition=edition, site=site), Cue(reading=MASK, normaliser="raw")
    gate = Gate.at({site: "pair_bias"}, beta=beta)
    if set(DIRECTIONS) <= set(sites):
        gate = Gate.mut3r(beta=beta, edition=edition)
    scores = with_controls({OWN: own, TRUE: mask}) if memory.plain else {OWN: own}
    found: dict[str, dict[str, Any]] = {PLAIN: {"cue": own}}
    found |= {label: {"cue": cue, "gate": gate} for label, cue in scores.items()}
    return {label: {**parts, "commit": memory.commit} for label, parts in found.items()}


def sweep_memories(
    backbone: str,
    sequences: Sequence[str | Path],
    memories: Mapping[str, Memory],
    *,
    beta: float = 1.0,
    edition: int = 2,
    frames: int | None = None,
    out: str | Path,
    progress: bool = True,
) -> xr.Dataset:
    """Run and score a checkpoint with every memory and treatment.

    Parameters
    ----------
    backbone : str
        For :func:`~mut3r_analysis.load_backbone`; loaded once per write rule, one after the other.
    sequences : sequence of str
        For :func:`~mut3r_analysis.open_sequence`. Those without a true mask get no treatment that
        needs one.
    memories : mapping of str to Memory
    beta : float
        Sharpness of the gates.
    edition : {2, 1}
        Of :meth:`Cue.mut3r` and :meth:`Gate.mut3r`.
    frames : int, optional
        At most so many of each sequence.
    out : path
        Folder of the runs; what is there is not run again.
    progress : bool

    Returns
    -------
    Dataset
        As of :func:`~mut3r_analysis.sweep`, over (memory, treatment, sequence[, frame]); NaN where
        there is no truth.
    """
    taken = "::" if frames is None else f":{frames}:"
    masked = [name for name in sequences if "motion_mask" in open_sequence(name, stop=1)]
    parts = []
    for update in dict.fromkeys(memory.update for memory in memories.values()):
        model = load_backbone(backbone, update=update)
        planned = {
            _JOIN.join((label, treatment)): configuration
            for label, memory in memories.items()
            if memory.update == update
            for treatment, configuration in treatments(memory, beta, edition, model.sites()).items()
        }
        for by_mask, names in ((False, list(sequences)), (True, masked)):
            chosen = {
                cell: each
                for cell, each in planned.items()
                if (each["cue"].reading == MASK) == by_mask
            }
            if chosen and names:
                found = sweep(
                    model,
                    names,
                    configurations=chosen,
                    frames=taken,
                    outputs=scored_outputs(model),
                    out=out,
                    progress=progress,
                )
                parts.append(found)
    return arranged(parts, memories)


def scored_outputs(model: Backbone) -> tuple[str, ...]:
    """Return camera and depth, which are scored, where a model predicts them; else all it does."""
    return tuple(name for name in ("pose", "depth") if name in model.outputs) or model.outputs


def arranged(parts: Iterable[xr.Dataset], memories: Iterable[str]) -> xr.Dataset:
    """Lay sweeps over configurations labelled ``memory | treatment`` out over both."""
    parts = [part[[name for name in part if "sequence" in part[name].dims]] for part in parts]
    parts = [part.drop_dims(set(part.dims) - {"configuration", "sequence", "frame"})
             for part in parts]  # fmt: skip
    joined = xr.concat(
        parts, dim="configuration", data_vars="all", coords="minimal", compat="override",
        join="outer", combine_attrs="override",
    )  # fmt: skip
    order = list(dict.fromkeys(name for part in parts for name in part["sequence"].values.tolist()))
    seen = {text.split(_JOIN)[1] for text in joined["configuration"].values.tolist()}
    kept = [name for name in TREATMENTS if name in seen]
    factors = {"memory": list(memories), "treatment": kept}
    study = Ablation(factors, lambda *levels: levels, f"{{}}{_JOIN}{{}}")
    joined = joined.reindex(configuration=list(study.design), sequence=order)
    # Cells that were not run have no store.
    joined["run"] = joined["run"].fillna("").astype(str)
    table = study.unfolded(joined.transpose("sequence", "configuration", ...))
    table["memory"].attrs = {"long_name": "memory"}
    table["treatment"].attrs = {"long_name": "gated by"}
    return table.transpose("memory", "treatment", "sequence", ...)


DEPTH, POSE = "abs_rel", "ate"
"""The metric of each task that a finding speaks of."""

QUESTION = "Does gating by the same cue do the same when another rule writes the memory?"


def has_truth(table: xr.Dataset) -> bool:
    """Say whether anything could be scored."""
    return bool(_scored(table))


def gating_effects(table: xr.Dataset) -> xr.Dataset:
    """Return the paired change of the error by every treatment, in percent of the same memory.

    Parameters
    ----------
    table : Dataset
        From `sweep_memories`.

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
    return _by_metric(table, lambda errors: change(*_gated_and_plain(errors)))


def rule_contrasts(table: xr.Dataset) -> xr.Dataset:
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
    return _by_metric(table, _contrast)


def _contrast(errors: xr.DataArray) -> xr.Dataset:
    gated, plain = _gated_and_plain(errors)
    paired = gated - plain
    effect = 100 * paired / plain.where(paired.notnull()).mean("sequence")
    effect.attrs = {"long_name": "change by gating", "units": "percentage points"}
    return difference(effect.isel(memory=slice(1, None)), effect.isel(memory=0, drop=True))


def place_effects(table: xr.Dataset) -> xr.Dataset:
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

    return _by_metric(table, compared)


def finding(
    table: xr.Dataset, rules: Sequence[str], written: xr.Dataset, alike: xr.Dataset | None
) -> Finding:
    """Tell what the own cue's gates change under every write rule, and whether rules differ.

    Parameters
    ----------
    table : Dataset
        From :func:`sweep_memories`, with truth.
    rules : sequence of str
        Memories that are write rules, at least one.
    written : Dataset
        (memory, treatment) ``value`` in percent: how much of the state a frame replaces. Rules
        that write alike are no test of each other.
    alike : Dataset or None
        (memory) as `estimate`, without the first rule: correlation of the cue's maps with those
        under it.
    """

    def of_rules(found: xr.Dataset, effect: str) -> list[Row]:
        known = [rule for rule in rules if rule in found["memory"].values]
        found = found.sel(treatment=OWN, memory=known, drop=True)
        named = found.assign_coords(metric=found["name"].values)
        return rows(named.transpose("metric", "memory"), effect)

    found = of_rules(gating_effects(table), "{metric} under {memory}")
    lead = len(found)
    if table.sizes["memory"] > 1:
        less = f"effect less that under {rules[0]}"
        found += of_rules(rule_contrasts(table), f"{{metric}} under {{memory}}, {less}")
    place = place_effects(table)
    if OWN in place["treatment"].values:
        found += of_rules(place, "{metric} under {memory}, against shuffled scores")
    shares = written.sel(treatment=PLAIN, memory=list(rules), drop=True)
    found += rows(shares, "state replaced per frame, {}", reference=None)
    if alike is not None:
        others = alike.sel(memory=list(rules[1:]))
        effect = f"correlation of cue maps with those under {rules[0]}, {{}}"
        found += rows(others, effect, reference=None)
    return Finding(QUESTION, found, "Gating by the own cue", lead=lead)


def _gated_and_plain(errors: xr.DataArray) -> tuple[xr.DataArray, xr.DataArray]:
    return errors.drop_sel(treatment=PLAIN), errors.sel(treatment=PLAIN, drop=True)


def _scored(table: xr.Dataset) -> list[str]:
    return [name for name in (DEPTH, POSE) if name in table and bool(table[name].notnull().any())]


def _by_metric(table: xr.Dataset, compare: Callable[[xr.DataArray], xr.Dataset]) -> xr.Dataset:
    """Compare the errors of every metric that was scored, (metric, memory, treatment)."""
    if not (present := _scored(table)):
        raise InvalidArgument(
            f"the table scores none of {DEPTH}, {POSE}; it holds {', '.join(map(str, table))}"
        )
    parts = {name: compare(table[name]).transpose("memory", ...) for name in present}
    found = beside(parts, "metric")
    for part in ("value", "lower", "upper"):
        found[part].attrs["long_name"] = "change by gating"
    for dim in ("memory", "treatment"):
        found[dim].attrs = table[dim].attrs
    return found.assign_coords(name=("metric", [find_metric(name).label for name in present]))
