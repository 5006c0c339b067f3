"""The same tables from one's own runs, new or made before, or on other data."""

from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import xarray as xr

from mut3r_analysis.errors import MissingFile, Mut3rError
from mut3r_analysis.evaluation import evaluate
from mut3r_analysis.foundation.labelling import beside
from mut3r_analysis.metrics import FrameSelection, Protocol, UndefinedMetric
from mut3r_analysis.metrics import protocol as find_protocol
from mut3r_analysis.motion import DIRECTIONS, Cue, Gate
from mut3r_analysis.motion.gate import PAPER_DEPTH, PAPER_LAYERS
from mut3r_analysis.running import Commit, Configuration, open_run
from mut3r_analysis.sequences import open_sequence
from mut3r_analysis.studies.paper_tables.published import (
    ABLATION,
    AFTER,
    BEFORE,
    SYSTEMS,
)
from mut3r_analysis.sweeps import sweep

STAND_INS = {
    "depth": ("default:depth:scale_median", "default:depth:metric"),
    "pose": ("default:pose:sim3",),
    "reconstruction": ("given:reconstruction:sim3",),
    "ablation": ("default:depth:metric",),
}
"""For every table of the paper, protocols that take any sequence."""


def system_configurations(
    beta: float, names: Iterable[str] = (*SYSTEMS, *ABLATION), *, edition: int = 2
) -> dict[str, Configuration]:
    """Return what the systems of the paper are, on the weights of CUT3R.

    Parameters
    ----------
    beta : float
        Sharpness of MUT3R's gates, which no source states.
    names : iterable of str
        Among those of the tables.
    edition : {2, 1}
        Of :meth:`Cue.mut3r` and :meth:`Gate.mut3r`, on the layers of the paper.
    """
    gates = {
        AFTER: Gate.mut3r(beta=beta, edition=edition, **PAPER_LAYERS),
        **{
            f"MUT3R (layers 0-{stop})": Gate.mut3r(
                beta=beta, edition=edition, layers=(0, stop), of_depth=PAPER_DEPTH
            )
            for stop in (2, 12)
        },
        **{
            f"MUT3R (without {name.replace('_', '-')} gate)": Gate.mut3r(
                beta=beta,
                directions=[each for each in DIRECTIONS if each != name],
                edition=edition,
                **PAPER_LAYERS,
            )
            for name in DIRECTIONS
        },
    }
    # Resets are those of TTT3R's released code, for CUT3R too; its demos reset after 100 frames.
    again: dict[str, Any] = {"reset": 100, "reset_chain": True}
    known = {
        BEFORE: Configuration(),
        f"{BEFORE}+Reset": Configuration(commit=Commit(reset_pose="learned", **again)),
        "TTT3R": Configuration(commit=Commit.ttt3r()),
        "TTT3R+Reset": Configuration(commit=Commit.ttt3r(**again)),
    }
    known |= {
        label: Configuration(cue=Cue.mut3r(edition=edition), gate=gate)
        for label, gate in gates.items()
    }
    return {name: known[name] for name in dict.fromkeys(names)}


def named_stand_in(name: str) -> Protocol:
    """Return a protocol of `STAND_INS`: of the catalogue, or the paper's for any sequence."""
    if name != "given:reconstruction:sim3":
        return find_protocol(name)
    return replace(
        find_protocol("reconstruction:dycheck-stride10:sim3"),
        id=name,
        dataset="any",
        preparation="given",
        frames=FrameSelection(),
        source="this package; for sequences of one's own",
        note="",
    )


def runs_of(table: xr.Dataset) -> list[tuple[str, list[str]]]:
    """Return the stores of a sweep over ``configuration``, one system per configuration."""
    systems = table["configuration"].values.tolist()
    stores = {name: table["run"].sel(configuration=name).values.tolist() for name in systems}
    return [(name, [path for path in paths if path]) for name, paths in stores.items()]


def own_values(
    runs: Iterable[tuple[str, Sequence[Any]]], protocol: Protocol, truth: Any = None
) -> xr.Dataset:
    """Score runs by system.

    Parameters
    ----------
    runs : iterable of (str, sequence of runs)
        A system and what :func:`~mut3r_analysis.evaluate` takes; a later one of the same name
        replaces an earlier one.
    protocol : Protocol
    truth
        As :func:`~mut3r_analysis.evaluate` takes it.

    Returns
    -------
    Dataset
        (metric, system): ``value``, ``lower``, ``upper`` (bootstrap over sequences and frames),
        ``n``, sequences with a value; and per sequence ``scores`` (metric, system, sequence).
        Along ``metric`` its ``unit``. Attributes: ``protocol``, ``expected``, sequences a complete
        data set has, and ``reasons``, why sequences or systems have no value.

    Raises
    ------
    UndefinedMetric
        When no system could be scored, or none on all that the protocol takes.
    """
    parts: dict[str, xr.Dataset] = {}
    reasons: list[str] = []
    for system, group in runs:
        try:
            scores = evaluate(group, protocol, truth=truth)
        except Mut3rError as error:
            reasons.append(f"{system}: {' '.join(str(error).split())}")
            continue
        reasons += filter(None, scores["skipped"].values.tolist())
        if lacks := scores.attrs["incomplete"]:
            reasons.append(f"{system}: {lacks}")
            continue
        parts[system] = summarised(scores, protocol)
    return systems_beside(parts, protocol, reasons)


def systems_beside(
    parts: Mapping[str, xr.Dataset], protocol: Protocol, reasons: Iterable[str]
) -> xr.Dataset:
    """Lay the summaries of systems side by side, as :func:`own_values` returns them.

    Raises
    ------
    UndefinedMetric
        There are none.
    """
    reasons = list(dict.fromkeys(reasons))
    if not parts:
        raise UndefinedMetric("; ".join(reasons))
    joined = beside(parts, "system", combine_attrs="drop")
    joined["n"] = joined["n"].fillna(0).astype(int)
    return joined.assign_attrs(
        protocol=protocol.id,
        expected=protocol.expected_sequences or 0,
        reasons=reasons,
    )


def bundled_values(
    backbone: Any,
    sequences: Sequence[Any],
    configurations: Mapping[str, Configuration],
    *,
    frames: int | None = None,
    out: str | Path,
    progress: bool = True,
) -> dict[str, xr.Dataset]:
    """Run all systems on sequences of one's own, and score them by `STAND_INS`.

    Another model on other data: nothing here reproduces a number of the paper.

    Returns
    -------
    dict of str to Dataset
        Per protocol, as of :func:`own_values`; without any that no sequence could be scored under.
        Empty, and nothing is run, without any ground truth.
    """
    opened = [open_sequence(each, stop=frames) for each in sequences]
    if not any({"depth", "pose"} & set(each) for each in opened):
        return {}
    table = sweep(
        backbone,
        sequences,
        configurations=dict(configurations),
        frames="::" if frames is None else f":{frames}:",
        outputs=("pose", "depth"),
        out=out,
        progress=progress,
    )
    truth = {str(each.attrs["name"]): each for each in opened}
    asked = {each: key for key, names in STAND_INS.items() for each in names}
    found: dict[str, xr.Dataset] = {}
    for name, key in asked.items():
        systems = [label for label in configurations if key == "ablation" or label in SYSTEMS]
        # The truth on the grid of the predictions is in the runs; only points need the cameras of
        # the source.
        given = truth if key == "reconstruction" else None
        with suppress(UndefinedMetric):
            chosen = table.sel(configuration=systems)
            found[name] = own_values(runs_of(chosen), named_stand_in(name), given)
    return found


def summarised(scores: xr.Dataset, protocol: Protocol) -> xr.Dataset:
    """Return what :func:`own_values` holds of one system, from what ``evaluate`` gave."""
    rows = {}
    for metric in protocol.metrics:
        mean, bounds = scores[f"mean_{metric}"], scores[f"interval_{metric}"]
        row: dict[str, Any] = {
            end: bounds.sel(bound=end, drop=True) for end in bounds["bound"].values
        }
        row |= {"value": mean, "n": int(mean.attrs["n_valid"]), "scores": scores[metric]}
        rows[metric] = xr.Dataset(row).assign_coords(unit=str(mean.attrs.get("units", "1")))
    return beside(rows, "metric", coords=["unit"])[["value", "lower", "upper", "n", "scores"]]


def read_results(
    folders: str | Path | Sequence[str | Path],
    protocols: Iterable[str],
    configurations: Mapping[str, Configuration],
    locations: Mapping[str, str] | None = None,
) -> tuple[dict[str, xr.Dataset], list[str]]:
    """Score runs that were made before, under every protocol that they fit.

    Parameters
    ----------
    folders : path or sequence of path
        Stores of runs are looked for at any depth, so the folder of a sweep will do.
    protocols : iterable of str
    configurations : mapping of str to Configuration
        A run belongs to the system whose configuration it records.
    locations : mapping of str to str, optional
        Data set -> where it lies: protocols for depth and reconstruction compare at the size of
        its ground truth.

    Returns
    -------
    dict of str to Dataset
        Per protocol that anything fits, as of :func:`own_values`.
    list of str
        What was left out, and why.
    """
    listed = [folders] if isinstance(folders, str | Path) else list(folders)
    runs: dict[tuple[str, str, str], list[xr.DataTree]] = {}
    left_out: list[str] = []
    for path in (path for folder in listed for path in _stores(Path(folder))):
        run = open_run(path)
        system = _system_of(run, configurations)
        if system is None:
            left_out.append(f"{path.name}: its cue, gate or commit is of no system of the tables")
            continue
        sequence, made = run.attrs["sequence"], run.attrs["backbone"]
        rule = (made.get("preparation") or {}).get("rule", "")
        runs.setdefault((system, str(sequence["kind"]), rule), []).append(run)
    found: dict[str, xr.Dataset] = {}
    order = list(configurations)
    for protocol in map(find_protocol, protocols):
        groups = [
            (system, group) for (system, kind, _), group in runs.items() if kind == protocol.dataset
        ]
        if not groups:
            continue
        groups.sort(key=lambda each: order.index(each[0]))
        try:
            truth = (locations or {}).get(protocol.dataset)
            found[protocol.id] = own_values(groups, protocol, truth)
            reasons = found[protocol.id].attrs["reasons"]
        except UndefinedMetric as error:
            reasons = [str(error)]
        left_out += [f"{protocol.id}: {reason}" for reason in reasons]
    return found, left_out


def _stores(folder: Path) -> list[Path]:
    """Find the stores below a folder: the outermost groups."""
    if not folder.is_dir():
        raise MissingFile(f"{folder} is no folder; give one that holds runs")
    groups = {path.parent for path in folder.rglob("zarr.json")}
    return sorted(group for group in groups if group.parent not in groups)


def _system_of(run: xr.DataTree, configurations: Mapping[str, Configuration]) -> str | None:
    """Name the system that a run is of: by its configuration, and its backbone's write rule."""
    configuration = Configuration.of_run(run.attrs)
    update = str((run.attrs.get("backbone") or {}).get("update", "cut3r"))
    if update == "ttt3r":
        # What the backbone does by itself, in the words of a commit.
        commit = replace(configuration.commit, rate="ttt3r", reset_pose="learned")
        configuration = replace(configuration, commit=commit)
    elif update != "cut3r":
        return None
    if configuration.gate is None and not configuration.commit.needs_motion:
        # A cue without a gate is measured and changes nothing.
        configuration = replace(configuration, cue=None)
    return next((name for name, each in configurations.items() if each == configuration), None)
