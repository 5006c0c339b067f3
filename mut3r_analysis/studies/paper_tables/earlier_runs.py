"""Own values for the paper's tables from runs that were made before."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import xarray as xr

from mut3r_analysis.errors import MissingFile, Mut3rError
from mut3r_analysis.metrics import protocol as find_protocol
from mut3r_analysis.running import Commit, Configuration
from mut3r_analysis.studies.paper_tables.rebuilt import joined_systems, summarised


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
    from mut3r_analysis.evaluation import evaluate
    from mut3r_analysis.running import open_run

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
    for name in protocols:
        protocol = find_protocol(name)
        parts: dict[str, xr.Dataset] = {}
        for (system, kind, rule), group in runs.items():
            if kind != protocol.dataset:
                continue
            try:
                truth = (locations or {}).get(kind)
                parts[system] = summarised(evaluate(group, protocol, truth=truth), protocol)
            except Mut3rError as error:
                left_out.append(f"{name}, {system}, {rule}: {' '.join(str(error).split())}")
        if parts:
            ordered = {system: parts[system] for system in configurations if system in parts}
            found[name] = joined_systems(ordered, protocol, [])
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
        configuration = replace(configuration, commit=Commit.ttt3r())
    elif update != "cut3r":
        return None
    if configuration.gate is None and not configuration.commit.needs_motion:
        # A cue without a gate is measured and changes nothing.
        configuration = replace(configuration, cue=None)
    return next((name for name, each in configurations.items() if each == configuration), None)
