"""The labelled result of a sweep, read from its folder."""

import json
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import xarray as xr

from mut3r_analysis.errors import UnreadableFile
from mut3r_analysis.foundation.paths import user_path
from mut3r_analysis.sweeps.declaration import SweepIndex
from mut3r_analysis.sweeps.ledger import Ledger


def open_sweep(folder: str | Path) -> xr.Dataset:
    """Open the result of the last sweep in a folder, finished or not.

    Parameters
    ----------
    folder : str or Path
        What was given to ``sweep(out=...)``.

    Returns
    -------
    Dataset
        As :func:`~mut3r_analysis.sweep` returns it.

    Raises
    ------
    MissingFile, UnreadableFile
        When the folder holds no sweep, or a damaged one.

    Examples
    --------
    >>> table = m3.sweep("tiny", sequence, out="sweeps/plain", progress=False)
    >>> open_sweep("sweeps/plain")["status"].values.tolist()
    ['done']
    """
    folder = user_path(folder)
    return results_of(folder, SweepIndex.read(folder))


def results_of(folder: Path, cells: SweepIndex) -> xr.Dataset:
    """Lay out what a folder holds of the runs of a sweep, as `open_sweep` does."""
    ledger = Ledger(folder)
    entries = list(ledger.entries())
    endings = ledger.endings(entries)
    # The share of each run in the wall time of its unit.
    seconds = {
        digest: entry.seconds / len(entry.runs) for entry in entries for digest in entry.runs
    }
    dims = tuple(cells.labels)
    shape = cells.digests.shape
    status = np.full(shape, "missing", dtype=object)
    error, run, skipped = (np.full(shape, "", dtype=object) for _ in range(3))
    spent = np.full(shape, np.nan)
    scored, undefined = np.zeros((2, *shape), bool)
    rows: dict[tuple[int, ...], _Scores] = {}
    for place, digest in np.ndenumerate(cells.digests):
        ended = endings.get(digest)
        if ended is None:
            continue
        status[place], error[place] = ended.status, ended.error
        spent[place] = seconds[digest]
        if ended.status == "failed":
            skipped[place] = f"the run failed: {ended.error}"
            continue
        run[place] = str(ledger.run_path(digest))
        found = _read_scores(ledger.score_path(digest, cells.scoring))
        if isinstance(found, _Skipped):
            skipped[place], undefined[place] = found
        else:
            rows[place], scored[place] = found, True
            skipped[place] = str(found["skipped"].values.item())
    table = _assembled(rows, dims, shape)
    for name, values, text, units in (
        ("run", run, "store of the run", "1"),
        ("status", status, "done, failed, or missing where nothing was done yet", "1"),
        ("error", error, "why the run failed", "1"),
        ("skipped", skipped, "why there is no score", "1"),
        ("scored", scored, "whether the run has a score", "1"),
        ("undefined", undefined, "whether the metric has no value on the sequence", "1"),
        ("seconds", spent, "wall time, a share of the batch's", "s"),
    ):
        kept = values if values.dtype.kind in "fb" else values.astype(str)
        table[name] = (dims, kept, {"long_name": text, "units": units})
    coords = {name: np.array(labels) for name, labels in cells.labels.items()}
    table = table.assign_coords(coords)
    return table.assign_attrs(
        {"folder": str(folder), "protocol": cells.protocol, "sequences": shape[-1]}
    )


class _Scored(NamedTuple):
    """What a file of scores says of one variable; a Variable would cost more than reading it."""

    dims: tuple[str, ...]
    values: np.ndarray
    attrs: dict[str, Any]


class _Skipped(NamedTuple):
    """Why a run has no score, and whether that is because the metric has no value on it."""

    reason: str
    undefined: bool


_Scores = dict[str, _Scored]


def _read_scores(path: Path) -> _Scores | _Skipped:
    """Read the scores of one run, or why there are none."""
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        if "data_vars" not in values:
            return _Skipped(str(values["skipped"]), bool(values.get("undefined")))
        return {
            name: _Scored(tuple(item["dims"]), np.array(item["data"]), item["attrs"])
            for part in ("coords", "data_vars")
            for name, item in values[part].items()
        }
    except FileNotFoundError:
        return _Skipped("not scored under this protocol yet", False)
    except (ValueError, KeyError, TypeError) as error:
        raise UnreadableFile(
            f"{path} is damaged ({error}); remove it and start the sweep again, which scores the "
            "run again"
        ) from error


def _assembled(
    rows: dict[tuple[int, ...], _Scores], dims: tuple[str, ...], shape: tuple[int, ...]
) -> xr.Dataset:
    """Put the scores of single sequences into arrays with a cell per run."""
    labels = [row["frame"].values for row in rows.values() if "frame" in row]
    frames = np.unique(np.concatenate(labels)) if labels else np.empty(0, int)
    table = xr.Dataset()
    first: _Scores = {}
    for row in rows.values():
        first = row | first
    for name, like in first.items():
        # What is known of frames whatever the sequence is a label, such as which have a mask.
        if like.values.dtype.kind not in "fiub" or "sequence" not in like.dims:
            continue
        inner = tuple(dim for dim in like.dims if dim != "sequence")
        lengths = dict(zip(like.dims, like.values.shape, strict=True)) | {"frame": len(frames)}
        values = np.full((*shape, *(lengths[dim] for dim in inner)), np.nan)
        for place, row in rows.items():
            if name not in row:
                continue
            there = np.searchsorted(frames, row["frame"].values) if "frame" in inner else None
            cell: Any = values[(*place, ...)]  # type: ignore[arg-type]
            where = tuple(there if dim == "frame" else slice(None) for dim in inner)
            cell[where] = row[name].values.take(0, like.dims.index("sequence"))
        table[name] = ((*dims, *inner), values, like.attrs)
        known = {dim: first[dim] for dim in inner if dim in first and dim != "frame"}
        table = table.assign_coords(
            {dim: (dim, one.values, one.attrs) for dim, one in known.items()}
        )
    return table.assign_coords(frame=frames) if len(frames) else table
