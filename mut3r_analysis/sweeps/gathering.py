"""One variable of all runs of a sweep, in one labelled array."""

from typing import Any

import numpy as np
import xarray as xr

from mut3r_analysis.errors import InvalidArgument
from mut3r_analysis.running.opening import in_blocks, open_run
from mut3r_analysis.running.variables import StoredVariable, labelled_variable, stored_variable


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
    StoreError
        When what is read is damaged; nothing else of the runs is looked at.

    Examples
    --------
    >>> table = m3.sweep("tiny", sequence, out="sweeps/plain", progress=False)
    >>> gather(table, "state/norm").dims
    ('sequence', 'frame', 'state_token')
    """
    stores = table["run"]
    paths = {place: str(path) for place, path in np.ndenumerate(stores.values) if path}
    if not paths:
        raise InvalidArgument("no cell of this table has a finished run")
    found = {place: _values(store, path, chunks) for place, store in paths.items()}
    sizes = {one.variable.shape[1:] for one in found.values()}
    if len(sizes) > 1:
        raise InvalidArgument(
            f"{path!r} has different sizes in these runs: {sorted(sizes)}; select sequences of one "
            "size first"
        )
    frames = np.unique(np.concatenate([one.frames for one in found.values()]))
    aligned = {place: _aligned(one, frames) for place, one in found.items()}
    nothing = xr.full_like(next(iter(aligned.values())), np.nan, dtype=float)
    cells = [aligned.get(place, nothing) for place in np.ndindex(stores.shape)]
    joined = xr.Variable.concat(cells, "cell")
    joined = joined.unstack(cell=dict(stores.sizes)) if stores.dims else joined.isel(cell=0)
    first = next(iter(paths.values()))
    like = labelled_variable(first, path)
    if like is None:
        like = _of_run(open_run(first), path)
    like = like.reset_coords(drop=True)
    labels: dict[Any, Any] = {"frame": ("frame", frames, like["frame"].attrs)}
    labels |= {dim: stores[dim].variable for dim in stores.dims}
    return (
        xr.DataArray(
            joined.transpose(*stores.dims, *like.dims),
            like.drop_vars("frame").coords,
            name=like.name,
        )
        .assign_coords(labels)
        .assign_attrs(like.attrs)
    )


def _values(store: str, path: str, chunks: str | None) -> StoredVariable:
    """Find a variable of one run: as a Dask array where there are to be chunks, else read."""
    found = stored_variable(store, path)
    if found is None:
        array = _of_run(open_run(store, chunks=chunks), path)
        found = StoredVariable(array.variable, array["frame"].values)
    elif chunks is not None:
        found = StoredVariable(in_blocks(path, found.variable), found.frames)
    return found if chunks is not None else StoredVariable(found.variable.load(), found.frames)


def _aligned(one: StoredVariable, frames: np.ndarray) -> xr.Variable:
    if np.array_equal(one.frames, frames):
        return one.variable
    array = xr.DataArray(one.variable, {"frame": one.frames})
    return array.reindex(frame=frames).variable


def _of_run(run: xr.DataTree, path: str) -> xr.DataArray:
    group, _, name = path.rpartition("/")
    try:
        return run[group].to_dataset()[name]
    except KeyError:
        raise InvalidArgument(
            f"the runs hold no /{path}; they hold the groups {', '.join(run.children)}, and a "
            "capture decides what is in them"
        ) from None
