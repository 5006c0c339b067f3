"""The runs to score: opened, told apart by sequence, and of one system."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import xarray as xr

from mut3r_analysis.errors import InvalidArgument

Run = xr.DataTree | xr.Dataset | str | Path
"""A run, its store, or what `reconstruct` gave."""

_NAMED = (
    "Give the runs of each system under a name: a mapping, or NAME=RUN on the command line, as "
    "plain=a.zarr gated=b.zarr"
)
_SYSTEM = ("name", "sha256", "update", "preparation")


def read_runs(runs: Run | Iterable[Run]) -> dict[str, xr.DataTree]:
    """Open what is a path, and name every run by its sequence.

    Raises
    ------
    InvalidArgument
        No runs, something that is none, two of one sequence, or runs of several systems.
    """
    if not isinstance(runs, Iterable | Path):
        raise InvalidArgument(f"a {type(runs).__name__} is not a run; give a DataTree or a path")
    given = [runs] if isinstance(runs, Run) else list(runs)
    if not given:
        raise InvalidArgument("no runs were given; pass what run(...) returned, or its store")
    trees: dict[str, xr.DataTree] = {}
    systems: dict[str, str] = {}
    for one in given:
        tree = opened_run(one)
        name = str(tree.attrs["sequence"]["name"])
        if name in trees:
            raise InvalidArgument(
                f"two runs are of the sequence {name!r}; a benchmark has one run per sequence. "
                f"{_NAMED}"
            )
        trees[name] = tree
        systems.setdefault(_system(tree), name)
    if len(systems) > 1:
        listed = "; ".join(f"{name}: {system}" for system, name in systems.items())
        raise InvalidArgument(
            f"the runs are of {len(systems)} systems, and a mean over systems has no meaning: "
            f"{listed}. {_NAMED}"
        )
    return trees


def opened_run(run: Run) -> xr.DataTree:
    """Return a run, opened where its store is given.

    Raises
    ------
    InvalidArgument
        Something else.
    """
    if isinstance(run, str | Path):
        from mut3r_analysis.running import open_run

        run = open_run(run)
    if isinstance(run, xr.Dataset) and "provenance" in run.attrs:
        run = _read_together(run)
    if not isinstance(run, xr.DataTree):
        raise InvalidArgument(f"a {type(run).__name__} is not a run; give a DataTree or a path")
    if "prediction" not in run.children or "name" not in run.attrs.get("sequence", {}):
        raise InvalidArgument(
            "this DataTree is not a run: it needs a group 'prediction' and an attribute "
            "'sequence' with a name; import_predictions makes one of other code's results"
        )
    return run


def _read_together(found: xr.Dataset) -> xr.DataTree:
    """Lay out what `reconstruct` gave as a run: what its cue found stands in a group of its own."""
    of_cue = [name for name, each in found.items() if name == "mask" or "patch_row" in each.dims]
    groups = {
        "/": xr.Dataset(attrs=json.loads(found.attrs["provenance"])),
        "/prediction": found.drop_vars(of_cue).drop_attrs(deep=False),
        "/cue": found[of_cue].drop_attrs(deep=False),
    }
    return xr.DataTree.from_dict(groups)


def _system(run: xr.DataTree) -> str:
    """Say what made a run, as far as it can change a number."""
    backbone = run.attrs.get("backbone") or {}
    parts = {name: backbone.get(name) for name in _SYSTEM}
    parts |= {name: run.attrs.get(name) for name in ("cue", "gate", "commit", "precision")}
    return json.dumps({name: value for name, value in parts.items() if value is not None})


def provenance(run: xr.DataTree) -> dict[str, Any]:
    """Return what a run says of itself, without its captures, which change no score."""
    dropped = ("capture", "outputs")
    return json.loads(
        json.dumps({k: v for k, v in run.attrs.items() if k not in dropped}, default=str)
    )
