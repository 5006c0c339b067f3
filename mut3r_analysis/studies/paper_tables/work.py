"""What the paper's tables take to compute: data that are checked, runs that are priced and done."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import xarray as xr

from mut3r_analysis.backbones.loading import load_backbone
from mut3r_analysis.backbones.protocol import Backbone
from mut3r_analysis.errors import InvalidArgument, Mut3rError
from mut3r_analysis.evaluation.averages import add_means
from mut3r_analysis.evaluation.check import DatasetReport, ProtocolReport, check_dataset
from mut3r_analysis.evaluation.scores import lacking
from mut3r_analysis.evaluation.truth import of_sequence
from mut3r_analysis.foundation.fields import meant
from mut3r_analysis.metrics.catalogue import protocol as find_protocol
from mut3r_analysis.metrics.protocols import TASKS, Protocol
from mut3r_analysis.running.configuration import Configuration
from mut3r_analysis.running.planning import human_bytes, human_seconds
from mut3r_analysis.sequences.layouts.catalogue import LAYOUTS, find_layout
from mut3r_analysis.studies.paper_tables.published import PAPER_TABLES, base_system
from mut3r_analysis.studies.paper_tables.rebuilt import summarised, systems_beside
from mut3r_analysis.sweeps.declaration import Declaration, declare
from mut3r_analysis.sweeps.pricing import SweepPlan, price
from mut3r_analysis.sweeps.results import results_of
from mut3r_analysis.sweeps.sweeping import carry_out, executor

_BATCH = 8
_NAMED = 4


def systems_by_protocol(tables: Iterable[str], systems: Collection[str]) -> dict[str, list[str]]:
    """Return the protocols of tables and, of each, the systems that are asked for.

    What a system has without some part, or with resets, is asked for with it, in the table that has
    it.
    """
    wanted: dict[str, list[str]] = {}
    for table in tables:
        chosen = PAPER_TABLES[table]
        for protocol in chosen.protocols:
            listed = wanted.setdefault(protocol, [])
            listed += [
                each
                for each in chosen.systems
                if base_system(each) in systems and each not in listed
            ]
    return wanted


@dataclass(frozen=True)
class Work:
    """The runs behind the paper's tables.

    Attributes
    ----------
    wanted : dict of str to list of str
        Protocol to the systems that are asked for.
    locations : dict of str to str
        Data set to where it lies, as `open_sequence` names it.
    refused : dict of str to str
        Protocol to why nothing is run for it.
    runs : tuple of Declaration
        Sweeps that do not share runs, each under the first of its protocols.
    scorings : dict of str to Declaration
        Protocol to its sweep: of `runs`, or the same runs scored anew.
    """

    wanted: dict[str, list[str]]
    locations: dict[str, str]
    refused: dict[str, str]
    runs: tuple[Declaration, ...]
    scorings: dict[str, Declaration]

    def prices(self) -> list[SweepPlan]:
        """Price what is left of each of the `runs`."""
        return [price(each) for each in self.runs]

    def __str__(self) -> str:
        lines = [f"{id}: {why}" for id, why in self.refused.items()]
        lines += [f"{id}: data complete" for id in self.scorings]
        prices = self.prices()
        done, runs = (sum(getattr(p, key) for p in prices) for key in ("runs_done", "runs"))
        if done == runs:
            return "\n".join([*lines, f"{runs} runs, all done" if runs else "nothing to run"])
        lines.append(
            f"{runs} runs, {done} done; left: {sum(p.frames_left for p in prices)} frames, "
            f"{human_bytes(sum(p.stored_bytes for p in prices))} to store, about "
            f"{human_seconds(sum(p.seconds for p in prices))} in one process "
            f"({'; '.join(dict.fromkeys(p.basis for p in prices))})"
        )
        return "\n".join(lines)

    def carry_out(self, workers: int = 0, client: Any = None, progress: bool = True) -> None:
        """Run and score what is left, under one line of progress; goes on where it stopped."""
        again = [each for each in self.scorings.values() if all(each is not r for r in self.runs)]
        carry_out([*self.runs, *again], executor(workers, client), progress, "paper")

    def values(self) -> tuple[dict[str, xr.Dataset], dict[tuple[str, str], str]]:
        """Return the protocols' numbers, and for each protocol and system without one, why.

        The numbers are as of :func:`~mut3r_analysis.studies.paper_tables.rebuilt.own_values`.
        """
        own, reasons = {}, {}
        for id, declared in self.scorings.items():
            table, protocol = results_of(declared.folder, declared.cells), find_protocol(id)
            parts: dict[str, xr.Dataset] = {}
            for system in table["configuration"].values.tolist():
                scores = _counted(table.sel(configuration=system, drop=True))
                if why := _missing(protocol, scores):
                    reasons[id, system] = why
                else:
                    parts[system] = summarised(add_means(scores, protocol), protocol)
            if parts:
                said = [reasons[key] for key in reasons if key[0] == id]
                own[id] = systems_beside(parts, protocol, said)
        return own, reasons


def prepare(
    tables: Iterable[str],
    backbone: Backbone | str | Path,
    data: Mapping[str, str | Path],
    configurations: Mapping[str, Configuration],
    systems: Collection[str],
    out: str | Path,
) -> Work:
    """Check data sets, and lay out what is to be run on those that are complete.

    Parameters
    ----------
    tables : iterable of str
        Keys of `PAPER_TABLES`.
    backbone : Backbone, str or Path
    data : mapping of str to str or Path
        Data set to where it lies: its folder, or as `open_sequence` names it.
    configurations : mapping of str to Configuration
        System to what it is.
    systems : collection of str
    out : str or Path
        Folder of the runs.

    Raises
    ------
    InvalidArgument
        For a data set that is not known, or a location of another one.
    """
    wanted = systems_by_protocol(tables, systems)
    locations = {name: _location(name, place) for name, place in data.items()}
    checked, refused = {}, {}
    for name, place in locations.items():
        root = place.partition(":")[2].partition("?")[0]
        checked[name] = check_dataset(root, name)
    groups: dict[tuple[Any, ...], list[Protocol]] = {}
    model = backbone
    for protocol in map(find_protocol, wanted):
        if why := _refusal(protocol, checked.get(protocol.dataset)):
            refused[protocol.id] = why
        else:
            key = protocol.dataset, protocol.preparation, protocol.sequences, protocol.frames
            groups.setdefault((*key, protocol.task), []).append(protocol)
    if groups and isinstance(model, str | Path):
        model = load_backbone(model)
    runs: list[Declaration] = []
    scorings: dict[str, Declaration] = {}
    for protocols in groups.values():
        place = locations[protocols[0].dataset]
        try:
            found = _declared(protocols, model, place, wanted, configurations, Path(out))
        except Mut3rError as error:
            refused |= dict.fromkeys((p.id for p in protocols), " ".join(str(error).split()))
            continue
        runs.append(found[0])
        scorings |= {p.id: one for p, one in zip(protocols, found[1:], strict=True)}
    return Work(wanted, locations, refused, tuple(runs), scorings)


def _declared(
    protocols: Sequence[Protocol],
    model: Any,
    place: str,
    wanted: Mapping[str, list[str]],
    configurations: Mapping[str, Configuration],
    out: Path,
) -> list[Declaration]:
    """Lay out the runs that protocols of the same frames share, then each one's scoring."""
    first = max(protocols, key=lambda each: len(wanted[each.id]))
    names = list(dict.fromkeys(name for each in protocols for name in wanted[each.id]))
    runs = declare(
        model,
        [of_sequence(place, name) for name in first.sequences] or of_sequence(place, "*"),
        grid=None,
        configurations={name: configurations[name] for name in names},
        base=Configuration(),
        frames="::",
        capture=None,
        outputs=TASKS[first.task].outputs,
        protocol=first.id,
        preparation=None,
        folder=out.absolute(),
        batch=_BATCH,
    )
    return [
        runs,
        *(
            runs if each is first and wanted[each.id] == names
            else runs.scored_by(each, wanted[each.id])
            for each in protocols
        ),
    ]  # fmt: skip


def _location(dataset: str, place: str | Path) -> str:
    """Return where a data set lies as `open_sequence` names it, from its folder or from that."""
    if dataset not in LAYOUTS:
        raise InvalidArgument(
            f"no data set {dataset!r}{meant([dataset], LAYOUTS)}; there are {', '.join(LAYOUTS)}"
        )
    text = str(place)
    prefix, colon, _ = text.partition(":")
    if colon and prefix in LAYOUTS:
        if prefix != dataset:
            raise InvalidArgument(f"{text!r} is of {prefix!r}, and was given as {dataset!r}")
        return text
    return f"{dataset}:{text}"


def _refusal(protocol: Protocol, report: DatasetReport | None) -> str:
    """Say why a protocol cannot be run on what lies there; empty where it can."""
    if report is None:
        if protocol.dataset not in LAYOUTS:
            return f"{protocol.dataset} has no loader here; evaluate imported predictions instead"
        where = next(iter(find_layout(protocol.dataset).obtain.values()))
        return f"no data given: {protocol.dataset}=FOLDER; get it from {where}"
    group = next(each for each in report.protocols if protocol.id in each.ids)
    if group.satisfied:
        return ""
    return f"data incomplete: {_lack(group)}; mut3r datasets check {report.path} says all"


def _lack(group: ProtocolReport) -> str:
    """Say what a data set lacks of a protocol, in a line."""
    lacks = [f"{name}: {what}" for name, what in group.incomplete.items()]
    more = [f"and {len(lacks) - _NAMED} more"] if len(lacks) > _NAMED else []
    lacks = lacks[:_NAMED] + more
    if group.missing:
        names = ", ".join(group.missing[:_NAMED])
        lacks.append(f"{len(group.missing)} sequences are missing ({names}, ...)")
    frames = f"{group.frames} of {group.expected_frames} frames"
    return "; ".join([frames, *lacks] if group.expected_frames else lacks)


def _counted(scores: xr.Dataset) -> xr.Dataset:
    """Return scores in which what was skipped counts for nothing."""
    counts = [name for name in ("n_frames", "n_pixels", "frame_pixels") if name in scores]
    return scores.assign({name: scores[name].fillna(0).astype(int) for name in counts})


def _missing(protocol: Protocol, scores: xr.Dataset) -> str:
    """Say why the runs of a system give no number of a protocol; empty where they do."""
    unscored = ~scores["scored"] & ~scores["undefined"]
    if bool(unscored.any()):
        first = scores.isel(sequence=int(unscored.values.argmax()))
        why = " ".join(str(first["skipped"].item()).split()) or "not run yet"
        return f"{first['sequence'].item()}: {why}"
    if "n_frames" not in scores:
        return "the metric has no value on any sequence"
    return lacking(protocol, scores)
