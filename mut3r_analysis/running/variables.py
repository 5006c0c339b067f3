"""One variable of a run by itself: nothing else of its store is opened or checked."""

import json
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import xarray as xr
import zarr
from xarray.backends.zarr import ZarrArrayWrapper
from xarray.core import indexing

from mut3r_analysis.errors import Mut3rError
from mut3r_analysis.running.inventory import RunStore, StoredArray, altered, damaged, lacking
from mut3r_analysis.running.opening import label, store_at


class StoredVariable(NamedTuple):
    """A variable ``(frame, ...)`` that is read when it is used, and the labels of its frames."""

    variable: xr.Variable
    frames: np.ndarray


def stored_variable(path: str | Path, name: str) -> StoredVariable | None:
    """Find a variable in the store of a run.

    Parameters
    ----------
    path : str or Path
    name : str
        With its group, such as ``"state/norm"``.

    Returns
    -------
    StoredVariable or None
        None where the run has to be opened for it: when it was interrupted or lies in a zip
        archive, or the variable grows, follows from others, or is not there.

    Raises
    ------
    StoreError
        When what belongs to the variable is damaged.
    """
    place, (group, _, last) = Path(path), name.strip("/").rpartition("/")
    wanted = f"{group}/{last}", f"{group}/frame"
    with _damage_told(place):
        store = _whole_run(place, wanted)
        if store is None or not all(f"{part}/zarr.json" in store.metadata for part in wanted):
            return None
        found, frame = (
            zarr.open_array(store, path=part, mode="r", zarr_format=3) for part in wanted
        )
        dims: Any = found.metadata.dimension_names  # type: ignore[union-attr]
        if dims[:1] != ("frame",) or last == "frame" or {"grows", "labels"} & set(found.attrs):
            return None
        _refuse_damage(store, group, frame.shape[0])
        lazy: Any = indexing.LazilyIndexedArray(ZarrArrayWrapper(found))
        told: Any = StoredArray(xr.Variable(dims, lazy), f"{place}/{group}/{last}")
        chunks = {"chunks": found.chunks, "shards": found.shards}
        variable = xr.Variable(dims, indexing.LazilyIndexedArray(told), encoding=chunks)
        return StoredVariable(variable, np.asarray(frame[...]))


def labelled_variable(path: str | Path, name: str) -> xr.DataArray | None:
    """Open a variable with its labels as `open_run` does; None where `stored_variable` has none.

    Raises
    ------
    StoreError
        When they are damaged.
    """
    if stored_variable(path, name) is None:
        return None
    place, (group, _, last) = Path(path), name.strip("/").rpartition("/")
    with _damage_told(place):
        of_group, described = (
            json.loads((place / part / "zarr.json").read_text(encoding="utf-8"))
            for part in (group, f"{group}/{last}")
        )
        coordinates = of_group["attributes"].get("coordinates", "").split()
        parts = {last, *described["dimension_names"], *coordinates}
        store = _whole_run(place, [f"{group}/{part}" for part in parts])
        assert store is not None
        _refuse_damage(store, group, described["shape"][0])
        opened = xr.open_zarr(store, group=group, consolidated=False, chunks=None)
        return label(opened)[last]


def _whole_run(place: Path, arrays: Collection[str]) -> RunStore | None:
    """Return the store of a run with some arrays alone; None if it is not a folder and whole."""
    if ".." in Path(*arrays).parts or not (place / "zarr.json").is_file():
        return None
    store = store_at(place, arrays)
    if not isinstance(store, RunStore):
        return None
    attrs = store.attributes()
    return store if attrs["frames_complete"] == attrs["frames"] else None


def _refuse_damage(store: RunStore, group: str, frames: int) -> None:
    if problems := [*altered(store), *lacking(store, group, frames)]:
        raise damaged(store.place, problems)


@contextmanager
def _damage_told(place: Path) -> Iterator[None]:
    """Turn what damaged metadata lead to into an error that says so."""
    try:
        yield
    except Mut3rError:
        raise
    except Exception as error:  # what the metadata say may be wrong in any way
        raise damaged(place, [f"{type(error).__name__}: {error}"]) from error
