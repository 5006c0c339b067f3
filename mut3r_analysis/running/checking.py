"""Checking a store: everything in it is read and compared with what it should be."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import zarr

from mut3r_analysis.errors import InvalidArgument
from mut3r_analysis.running.inventory import RunStore, altered, lacking
from mut3r_analysis.running.opening import store_at


def check_store(path: str | Path) -> list[str]:
    """Read all of a run's store.

    Parameters
    ----------
    path : str or Path
        A store, or a zip archive of one.

    Returns
    -------
    list of str
        What is missing, cut or altered; empty for a whole store. Stores of format 1 have no
        checksums, so that only what is missing or cut is found in them.

    Raises
    ------
    MissingFile, StoreError
        When it is not the store of a run at all.
    """
    store = store_at(path)
    if not isinstance(store, RunStore):
        raise InvalidArgument(
            f"{path!r} has no checksums to check: check the store that a run wrote, not a copy "
            "that xarray wrote of it"
        )
    found = list(altered(store))
    try:
        root = zarr.open_group(store, mode="r", zarr_format=3)
        whole = _array(root, "prediction/frame")[: root.attrs["frames_complete"]]
    except Exception as error:
        return [*found, f"prediction/frame cannot be read: {error}"]
    arrays = []
    for key, text in store.metadata.items():
        try:
            if json.loads(text)["node_type"] == "array":
                arrays.append(key.removesuffix("/zarr.json"))
        except (ValueError, KeyError, TypeError) as error:
            found.append(f"{key} cannot be read: {error}")
    for group in sorted({path.rpartition("/")[0] for path in arrays}):
        try:
            kept = int(np.isin(_array(root, f"{group}/frame")[:], whole).sum())
            found += lacking(store, group, kept)
        except Exception as error:
            found.append(f"{group} cannot be read: {error}")
            continue
        for path in sorted(path for path in arrays if path.rpartition("/")[0] == group):
            try:
                found += _unreadable(_array(root, path), kept)
            except Exception as error:
                found.append(f"{path} cannot be read: {error}")
    return found


def _array(root: zarr.Group, path: str) -> "zarr.Array[Any]":
    found = root[path]
    assert isinstance(found, zarr.Array)
    return found


def _unreadable(array: "zarr.Array[Any]", frames: int) -> Iterator[str]:
    """Read an array block by block, and yield what cannot be."""
    of_frames = (array.metadata.dimension_names or ("",))[0] == "frame"  # type: ignore[union-attr]
    length = min(frames, array.shape[0]) if of_frames else array.shape[0]
    step = (array.shards or array.chunks)[0]
    for start in range(0, length, step):
        try:
            array[start : min(start + step, length)]
        except Exception as error:
            yield f"{array.path}, rows {start} to {min(start + step, length) - 1}: {error}"
