"""The labelled result of a sweep, read from its folder."""

import json
from collections.abc import Hashable
from pathlib import Path

import numpy as np
import pandas as pd
import xarray as xr

from mut3r_analysis.errors import InvalidArgument, UnreadableFile
from mut3r_analysis.running.opening import open_run
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
    """
    folder = Path(folder)
    cells = SweepIndex.read(folder)
    ledger = Ledger(folder)
    endings = ledger.endings()
    # The share of each run in the wall time of its unit.
    seconds = {
        digest: entry.seconds / len(entry.runs)
        for entry in ledger.entries()
        for digest in entry.runs
    }
    dims = tuple(cells.labels)
    shape = cells.digests.shape
    status = np.full(shape, "missing", dtype=object)
    error, run, skipped = (np.full(shape, "", dtype=object) for _ in range(3))
    spent = np.full(shape, np.nan)
    rows: dict[tuple[int, ...], xr.Dataset] = {}
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
        if isinstance(found, str):
            skipped[place] = found
        else:
            rows[place] = found
            skipped[place] = str(found["skipped"].item())
    table = _assembled(rows, dims, shape)
    for name, values, text, units in (
        ("run", run, "store of the run", "1"),
        ("status", status, "done, failed, or missing where nothing was done yet", "1"),
        ("error", error, "why the run failed", "1"),
        ("skipped", skipped, "why there is no score", "1"),
        ("seconds", spent, "wall time, a share of the batch's", "s"),
    ):
        kept = values if values.dtype.kind == "f" else values.astype(str)
        table[name] = (dims, kept, {"long_name": text, "units": units})
    coords = {name: np.array(labels) for name, labels in cells.labels.items()}
    table = table.assign_coords(coords)
    return table.assign_attrs(
        {"folder": str(folder), "protocol": cells.protocol, "sequences": shape[-1]}
    )


def gather(table: xr.Dataset, path: str, *, chunks: str | None = None) -> xr.DataArray:
    """Bring one variable of all runs of a sweep together.

    Parameters
    ----------
    table : Dataset
        From :func:`~mut3r_analysis.sweep`, or a part of it selected by label.
    path : str
        Variable in a run, for example ``"state/norm"``.
    chunks : "auto", optional
        Lazily, as a Dask array, for what does not fit into memory. By default it is read.

    Returns
    -------
    DataArray
        Dims of the table's cells, then those of the variable. Sequences of different length are
        NaN where they have no frame; cells without a finished run are NaN.

    Raises
    ------
    InvalidArgument
        When no cell has a run, or the variable differs in more than its frames.
    """
    stores = table["run"]
    found: dict[tuple[int, ...], xr.DataArray] = {}
    for place, store in np.ndenumerate(np.asarray(stores.values)):
        if store:
            run = open_run(str(store), chunks=chunks)
            found[place] = _variable(run, path).reset_coords(drop=True)
    if not found:
        raise InvalidArgument("no cell of this table has a finished run")
    first = next(iter(found.values()))
    sizes = {tuple(n for d, n in one.sizes.items() if d != "frame") for one in found.values()}
    if len(sizes) > 1:
        raise InvalidArgument(
            f"{path!r} has different sizes in these runs: {sorted(sizes)}; select sequences of one "
            "size first"
        )
    frames = np.unique(np.concatenate([one["frame"].values for one in found.values()]))
    aligned = {place: one.reindex(frame=frames) for place, one in found.items()}
    nothing = xr.full_like(next(iter(aligned.values())), np.nan, dtype=float)
    flat = [aligned.get(place, nothing) for place in np.ndindex(stores.shape)]
    joined = xr.concat(flat, dim="cell", coords="minimal", compat="override", join="override")
    if not stores.dims:
        return joined.isel(cell=0, drop=True).assign_attrs(first.attrs)
    index = pd.MultiIndex.from_product(
        [stores[dim].values for dim in stores.dims], names=list(stores.dims)
    )
    labelled = joined.assign_coords(xr.Coordinates.from_pandas_multiindex(index, "cell"))
    # Unstacking sorts labels; the table's own order is restored.
    whole = labelled.unstack("cell").sel({dim: stores[dim].values for dim in stores.dims})
    return whole.transpose(*stores.dims, *first.dims).assign_attrs(first.attrs)


def _variable(run: xr.DataTree, path: str) -> xr.DataArray:
    group, _, name = path.rpartition("/")
    try:
        return run[group].to_dataset()[name]
    except KeyError:
        raise InvalidArgument(
            f"the runs hold no /{path}; they hold the groups {', '.join(run.children)}, and a "
            "capture decides what is in them"
        ) from None


def _read_scores(path: Path) -> xr.Dataset | str:
    if not path.is_file():
        return "not scored under this protocol yet"
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        return values["skipped"] if set(values) == {"skipped"} else xr.Dataset.from_dict(values)
    except (ValueError, KeyError) as error:
        raise UnreadableFile(
            f"{path} is damaged ({error}); remove it and start the sweep again, which scores the "
            "run anew"
        ) from error


def _assembled(
    rows: dict[tuple[int, ...], xr.Dataset], dims: tuple[str, ...], shape: tuple[int, ...]
) -> xr.Dataset:
    """Put the scores of single sequences into arrays with a cell per run."""
    labels = [row["frame"].values.tolist() for row in rows.values() if "frame" in row.coords]
    frames = sorted({int(frame) for some in labels for frame in some})
    table = xr.Dataset()
    first: dict[Hashable, xr.DataArray] = {}
    for row in rows.values():
        for name, variable in row.data_vars.items():
            first.setdefault(name, variable)
    for name, like in first.items():
        if like.dtype.kind not in "fiub":
            continue
        inner = tuple(dim for dim in like.dims if dim != "sequence")
        sizes = tuple(len(frames) if dim == "frame" else like.sizes[dim] for dim in inner)
        values = np.full((*shape, *sizes), np.nan)
        for place, row in rows.items():
            if name not in row:
                continue
            one = row[name].isel(sequence=0)
            if "frame" in inner:
                one = one.reindex(frame=frames)
            values[place] = one.transpose(*inner).values
        table[str(name)] = ((*dims, *inner), values, like.attrs)
        table = table.assign_coords(
            {d: like[d] for d in inner if d in like.coords and d != "frame"}
        )
    return table.assign_coords(frame=frames) if frames else table
