"""Opening a run: the labelled tree that a store holds, read lazily."""

import importlib.util
import warnings
from pathlib import Path
from uuid import uuid4

import numpy as np
import xarray as xr
from xarray.indexes import PandasMultiIndex
from zarr.abc.store import Store
from zarr.errors import ZarrUserWarning
from zarr.storage import LocalStore

from mut3r_analysis.errors import InvalidArgument, MissingFile, StoreError
from mut3r_analysis.running.derived import derived_variables
from mut3r_analysis.running.provenance import FORMAT_VERSION


def open_run(path: str | Path | Store, *, chunks: str | None = None) -> xr.DataTree:
    """Open the store of a run.

    Parameters
    ----------
    path : str or Path
        What was given to ``run(out=...)``.
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
        When it is not a run, or was written by an incompatible version.

    Warns
    -----
    UserWarning
        When the run was interrupted: the tree then holds the frames that are whole, and
        ``attrs["frames_complete"]`` says how many.
    """
    _check_chunks(chunks)
    if isinstance(path, str | Path):
        location = Path(path).expanduser()
        if not location.exists():
            raise MissingFile(f"no run at {location}")
        store: Store = LocalStore(location, read_only=True)
    else:
        location, store = Path("memory"), path
    try:
        with warnings.catch_warnings():
            # A writer that was killed may leave a temporary file, which is not part of the store.
            warnings.filterwarnings("ignore", r"Object at .*\.partial", ZarrUserWarning)
            tree = xr.open_datatree(store, engine="zarr", consolidated=False, chunks=None)  # type: ignore[arg-type]
    except Exception as error:
        raise StoreError(f"{location} is not the Zarr store of a run: {error}") from error
    version = tree.attrs.get("format_version")
    if version != FORMAT_VERSION:
        found = "has no format version" if version is None else f"has format version {version}"
        raise StoreError(
            f"{location} {found}, this package reads version {FORMAT_VERSION}; "
            "run the sequence again, or use the package version named in its attributes"
        )
    lacking = [name for name in ("frames", "frames_complete", "sequence") if name not in tree.attrs]
    if lacking or "prediction" not in tree.children:
        raise StoreError(
            f"{location} is damaged: it has no {', '.join(lacking) or 'group /prediction'}; run "
            "the sequence again"
        )
    frames, complete = tree.attrs["frames"], tree.attrs["frames_complete"]
    if complete < frames:
        warnings.warn(
            f"the run at {location} was interrupted: {complete} of {frames} frames are whole "
            "and are shown",
            stacklevel=2,
        )
    longest = _longest(tree)
    # Every run has a prediction of every frame; it tells which source frames are whole.
    whole = set(tree["prediction"].to_dataset()["frame"].values[:complete].tolist())
    nodes: dict[str, xr.Dataset] = {"/": xr.Dataset(attrs=tree.attrs)}
    for node in tree.subtree:
        dataset = node.to_dataset(inherit=False)
        if node.path == "/" or not dataset.variables:
            continue
        if complete < frames:
            kept = [i for i, frame in enumerate(dataset["frame"].values) if int(frame) in whole]
            dataset = dataset.isel(frame=slice(0, len(kept)))
        growing = {dim for value in dataset.values() for dim in value.attrs.pop("grows", ())}
        dataset = dataset.isel({dim: slice(longest) for dim in growing})
        dataset = label(dataset.assign(derived_variables(dataset, str(node.name))))
        nodes[node.path] = dataset if chunks is None else _blocks(dataset)
    # The path of a node in a tree is made of names, which so cannot hold a slash.
    name = str(tree.attrs["sequence"]["name"]).replace("/", "_")
    opened = xr.DataTree.from_dict(nodes, name=name)
    opened.set_close(tree.close)
    return opened


def _longest(tree: xr.DataTree) -> int | None:
    """Return the most tokens that a growing memory held; None where none grows."""
    state = tree["state"].to_dataset() if "state" in tree.children else xr.Dataset()
    counts = [values for name, values in state.items() if str(name).endswith("_count")]
    return max((int(values.max()) for values in counts), default=None)


def label(dataset: xr.Dataset) -> xr.Dataset:
    """Turn coded coordinates into their labels and index tokens by what they are."""
    dataset = dataset.copy()
    coded = {
        str(name): coordinate
        for name, coordinate in dataset.coords.items()
        if "labels" in coordinate.attrs
    }
    for name, coordinate in coded.items():
        attrs = {key: value for key, value in coordinate.attrs.items() if key != "labels"}
        labels = np.array(coordinate.attrs["labels"])
        dataset = dataset.assign_coords({name: (coordinate.dims, labels[coordinate.values], attrs)})
    for prefix in ("", "key_"):
        names = [f"{prefix}{part}" for part in ("token", "patch_row", "patch_col")]
        if all(name in dataset.coords for name in names):
            attrs = {name: dict(dataset[name].attrs) for name in names}
            dim = dataset[names[0]].dims[0]
            dataset = dataset.set_xindex(names, PandasMultiIndex)
            for name in names:
                dataset[name].attrs.update(attrs[name])
            tokens = f"token, as its role, row and column: {', '.join(names)}"
            dataset[dim].attrs.update(long_name=tokens, units="1", source="layout")
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


def _blocks(dataset: xr.Dataset) -> xr.Dataset:
    """Turn data variables into Dask arrays whose chunks are what one access to the store gives."""
    chunked = {}
    for name, array in dataset.data_vars.items():
        variable = array.variable
        stored = variable.encoding.get("shards") or variable.encoding.get("chunks")
        if stored is None:
            # What is derived is computed by frame and layer.
            stored = (1, 1, *variable.shape[2:])
        sizes = dict(zip(variable.dims, stored, strict=True))
        # The name is given: finding one by content would read the array.
        chunked[name] = variable.chunk(sizes, name=f"{name}-{uuid4().hex}")
    return dataset.assign(chunked)
