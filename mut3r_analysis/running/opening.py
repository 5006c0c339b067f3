"""Opening a run: the labelled tree that a store holds, read lazily."""

import importlib.util
import warnings
from collections.abc import Collection
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np
import xarray as xr
from xarray.core import indexing
from zarr.abc.store import Store
from zarr.storage import LocalStore

from mut3r_analysis.errors import InvalidArgument, MissingFile, Mut3rError, StoreError
from mut3r_analysis.foundation.paths import user_path
from mut3r_analysis.running.derived import derived_variables
from mut3r_analysis.running.inventory import (
    UNFINISHED,
    RunStore,
    StoredArray,
    altered,
    damaged,
    lacking,
)
from mut3r_analysis.running.provenance import FORMAT_VERSION
from mut3r_analysis.running.schema import KEY_FRAME
from mut3r_analysis.running.token_index import TokenIndex


def open_run(path: str | Path | Store, *, chunks: str | None = None) -> xr.DataTree:
    """Open the store of a run.

    Parameters
    ----------
    path : str or Path
        What was given to ``run(out=...)``, or a zip archive of it; or where ``to_zarr`` of an
        opened run wrote, with whatever was added to it. Such a copy is read as it is, unverified.
    chunks : {"auto"}, optional
        By default arrays are lazy and a selection reads only itself. With ``"auto"`` they are Dask
        arrays, for computations larger than memory: one Dask chunk per block of the store (per
        frame and layer of what is derived), which is also the least that a selection then reads.

    Returns
    -------
    xarray.DataTree
        Arrays are read from the store when they are used. Where whole maps or archived queries
        and keys were captured, ``logits``, ``weights`` and every statistic that was not stored
        are there as well, computed for the part that is selected. Select tokens by meaning:
        ``.sel(token="patch", patch_row=3, patch_col=4)``, and on the key side ``key_token``,
        ``key_patch_row``, ``key_patch_col``.

    Raises
    ------
    InvalidArgument
        For other `chunks`, or when Dask is not installed.
    MissingFile
        When there is nothing at the path.
    StoreError
        When it is not a run, was written by a newer version, or is damaged: files that are
        missing, cut or altered. Chunks are verified when they are read, where this may be raised
        as well; ``mut3r check`` reads all of a store.

    Warns
    -----
    UserWarning
        When the run was interrupted: the tree then holds the frames that are whole, and
        ``attrs["frames_complete"]`` says how many.

    Examples
    --------
    >>> scene = m3.open_sequence("scenes/orbit-03", stop=2)
    >>> tree = m3.run("tiny", scene, outputs=("pose",), out="orbit.zarr", progress=False)
    >>> open_run("orbit.zarr")["prediction/pose"].equals(tree["prediction/pose"])
    True

    For programs that read NetCDF, in which attributes are no mappings (``pip install netCDF4``):

    >>> import json
    >>> flat = tree.copy()
    >>> flat.attrs = {"run": json.dumps(tree.attrs)}
    >>> flat.to_netcdf("orbit.nc")
    >>> with xr.open_datatree("orbit.nc") as again:
    ...     again["prediction/pose"].equals(tree["prediction/pose"])
    ...     json.loads(again.attrs["run"]) == tree.attrs
    True
    True
    """
    _check_chunks(chunks)
    store = store_at(path)
    place = Path("memory")
    if isinstance(store, RunStore | LocalStore):
        place = store.place if isinstance(store, RunStore) else store.root
    try:
        opened = _opened(store, place, chunks)
    except Mut3rError:
        raise
    except Exception as error:  # what the metadata say may be wrong in any way
        raise damaged(place, [f"{type(error).__name__}: {error}"]) from error
    frames, complete = opened.attrs["frames"], opened.attrs["frames_complete"]
    if complete < frames:
        warnings.warn(
            f"the run at {place} was interrupted: {complete} of {frames} frames are whole, "
            "and these are shown",
            stacklevel=2,
        )
    return opened


def store_at(path: str | Path | Store, arrays: Collection[str] | None = None) -> Store:
    """Return the store at a path, once it is known to be that of a run which can be read.

    With `arrays`, of a folder, nothing but these is looked at.

    Raises
    ------
    MissingFile, StoreError
    """
    if isinstance(path, LocalStore):
        path = path.root
    if not isinstance(path, str | Path):
        return path
    place = user_path(path)
    if not place.exists():
        raise MissingFile(f"no run at {place}")
    try:
        store = RunStore(place, arrays)
        attrs = store.attributes()
    except (OSError, ValueError) as error:
        if isinstance(error, StoreError):
            raise
        raise StoreError(f"{place} is not the Zarr store of a run: {error}") from error
    described = "zarr.json" in store.metadata
    # The folder of a run is made first, then what shows that it is unfinished, and its root last;
    # by now a short run may be whole. Asked in this order, no moment of it is missed.
    if not described and place.is_dir() and not any(place.iterdir()):
        raise StoreError(
            f"{place} is not the Zarr store of a run: it is empty, unless one is just being created"
        )
    if not described and not ((place / UNFINISHED).is_dir() or (place / "zarr.json").is_file()):
        raise StoreError(f"{place} is not the Zarr store of a run: it has no zarr.json")
    version = attrs.get("format_version") if isinstance(attrs, dict) else None
    if version == FORMAT_VERSION and attrs.get("complete") is True and "checksums" not in attrs:
        return LocalStore(place, read_only=True)  # which xarray wrote, of an opened run
    if not described or (version == FORMAT_VERSION and "checksums" not in attrs):
        raise StoreError(
            f"{place} is being created by a run, which has no frames yet, or was stopped while it "
            "was; try again, or run the sequence again"
        )
    if isinstance(version, int) and version > FORMAT_VERSION:
        raise StoreError(
            f"{place} has format version {version}, this package reads up to {FORMAT_VERSION}: it "
            f"was written by a newer one ({attrs.get('package_version')}); update the package with "
            "pip install --upgrade mut3r-analysis"
        )
    if not isinstance(version, int) or version < 1:
        found = "has no format version" if version is None else f"has format version {version!r}"
        raise StoreError(
            f"{place} {found}, so it is not the store of a run of this package, or is damaged; "
            "run the sequence again"
        )
    return store


def _opened(store: Store, place: Path, chunks: str | None) -> xr.DataTree:
    checked = store if isinstance(store, RunStore) else None
    if checked and (problems := list(altered(checked))):
        raise damaged(place, problems)
    groups = xr.open_groups(store, engine="zarr", consolidated=False, chunks=None)  # type: ignore[arg-type]
    attrs = groups["/"].attrs
    lost = [name for name in ("frames", "frames_complete", "sequence") if name not in attrs]
    if lost or "/prediction" not in groups:
        raise damaged(place, [f"it has no {', '.join(lost) or 'group /prediction'}"])
    frames, complete = attrs["frames"], attrs["frames_complete"]
    if not 0 <= complete <= frames:
        raise damaged(place, [f"it says that {complete} of {frames} frames are whole"])
    # Every run has a prediction of every frame; it tells which source frames are whole.
    labels = groups["/prediction"]["frame"].values
    if len(labels) != frames:
        raise damaged(place, [f"it has predictions of {len(labels)} frames, not of {frames}"])
    whole = set(labels[:complete].tolist())
    shown = {name: value for name, value in attrs.items() if name not in ("checksums", "grown")}
    nodes: dict[str, xr.Dataset] = {"/": xr.Dataset(attrs=shown)}
    longest = _longest(groups.get("/state"))
    for path, dataset in groups.items():
        if path == "/" or not dataset.variables:
            continue
        if checked is None and "frame" not in dataset.coords:
            nodes[path] = dataset  # added to a run that was then written again
            continue
        kept = sum(int(frame) in whole for frame in dataset["frame"].values)
        if checked and (problems := list(lacking(checked, path[1:], kept))):
            raise damaged(place, problems)
        told = _told(dataset, f"{place}{path}")
        if complete < frames:
            told = told.isel(frame=slice(0, kept))
        growing = {dim for value in told.values() for dim in value.attrs.pop("grows", ())}
        growing.discard(KEY_FRAME)  # as long as the sequence
        told = told.isel({dim: slice(longest) for dim in growing}) if growing else told
        told = label(told.assign(derived_variables(told, path.rpartition("/")[2])))
        if chunks is not None:
            blocks = {name: in_blocks(str(name), told[name].variable) for name in told.data_vars}
            told = told.assign(blocks)
        nodes[path] = told
    # The path of a node in a tree is made of names, which so cannot hold a slash.
    name = str(attrs["sequence"]["name"]).replace("/", "_")
    opened = xr.DataTree.from_dict(nodes, name=name)
    opened.set_close(groups["/"].close)
    return opened


def _told(dataset: xr.Dataset, what: str) -> xr.Dataset:
    """Let damage that shows when a variable is read be told in words."""
    stored = {}
    for name, array in dataset.data_vars.items():
        found = array.variable
        lazy: Any = indexing.LazilyIndexedArray(StoredArray(found, f"{what}/{name}"))
        cached = indexing.MemoryCachedArray(indexing.CopyOnWriteArray(lazy))
        stored[name] = xr.Variable(found.dims, cached, found.attrs, found.encoding)
    return dataset.assign(stored)


def _longest(state: xr.Dataset | None) -> int | None:
    """Return the most tokens that a growing memory held; None where none grows."""
    counts = [values for name, values in (state or {}).items() if str(name).endswith("_count")]
    return max((int(values.max()) for values in counts), default=None)


def label(dataset: xr.Dataset) -> xr.Dataset:
    """Turn coded coordinates into their labels and index tokens by what they are."""
    coded = {}
    for name, coordinate in dataset.coords.items():
        if "labels" in coordinate.attrs:
            attrs = dict(coordinate.attrs)
            labels = np.array(attrs.pop("labels"), dtype=object)
            coded[name] = coordinate.dims, labels[coordinate.values], attrs
    dataset = dataset.assign_coords(coded)  # at once: each assignment copies all variables
    for prefix in ("", "key_"):
        names = [f"{prefix}{part}" for part in ("token", "patch_row", "patch_col")]
        if all(name in dataset.coords for name in names):
            dataset = dataset.set_xindex(names, TokenIndex)
    return dataset


def _check_chunks(chunks: str | None) -> None:
    if chunks not in (None, "auto"):
        raise InvalidArgument(
            f"chunks must be None or 'auto', got {chunks!r}; for other chunks rechunk what "
            "open_run(path, chunks='auto') gives with .chunk(...)"
        )
    if chunks is not None and importlib.util.find_spec("dask") is None:
        raise InvalidArgument(
            "chunks='auto' needs Dask, which is not installed: "
            "pip install 'mut3r-analysis[cluster]'; without chunks runs open lazily as well"
        )


def in_blocks(name: str, variable: xr.Variable) -> xr.Variable:
    """Turn a variable into a Dask array whose chunks are what one access to the store gives."""
    stored = variable.encoding.get("shards") or variable.encoding.get("chunks")
    if stored is None:
        # What is derived is computed by frame and layer.
        stored = (1, 1, *variable.shape[2:])
    sizes = dict(zip(variable.dims, stored, strict=True))
    # The name is given: finding one by content would read the array.
    return variable.chunk(sizes, name=f"{name}-{uuid4().hex}")
