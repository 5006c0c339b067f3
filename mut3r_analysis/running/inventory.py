"""What lies in a store, and what should: lost, cut and altered files are found, clutter is not."""

import json
import math
import os
import re
import zipfile
from collections.abc import AsyncIterator, Collection, Iterable, Iterator, Mapping
from functools import partial
from itertools import product
from pathlib import Path, PurePosixPath
from typing import Any, Self

import google_crc32c
import numpy as np
import xarray as xr
from xarray.backends import BackendArray
from xarray.core import indexing
from zarr.abc.store import ByteRequest, Store
from zarr.core.buffer import Buffer, BufferPrototype, default_buffer_prototype
from zarr.storage import LocalStore, WrapperStore, ZipStore

from mut3r_analysis.errors import Mut3rError, StoreError

UNFINISHED = ".unfinished"
"""Folder in a store that is being written: what a run needs to go on."""

CHANGING = {"frames_complete", "complete", "finished", "grown", "not_finite", "checksums"}
"""Root attributes that change while a run is written."""

_FOREIGN = re.compile(
    r"\._.*|\.DS_Store|Thumbs\.db|desktop\.ini|__MACOSX|.*\.partial|" + re.escape(UNFINISHED),
    re.IGNORECASE,
)
_METADATA = "zarr.json"
_CHECKSUM = 4
_INDEX_ENTRY = 16


def checksums(files: Mapping[str, bytes], attrs: Mapping[str, Any]) -> dict[str, dict[str, int]]:
    """Return the CRC-32C of everything in a new store that no chunk's own checksum covers.

    Parameters
    ----------
    files : mapping of str to bytes
        Every ``zarr.json`` by its key.
    attrs : mapping
        Root attributes.
    """
    return {
        "metadata": {
            key.removesuffix(f"/{_METADATA}"): google_crc32c.value(text)
            for key, text in files.items()
            if key != _METADATA
        },
        "attributes": {
            name: _of_json(value) for name, value in attrs.items() if name not in CHANGING
        },
    }


def _of_json(value: Any) -> int:
    return google_crc32c.value(json.dumps(value, sort_keys=True).encode())


def files_in(place: Path, arrays: Collection[str] | None = None) -> dict[str, int]:
    """Return the size of every file of a store by its key; clutter of systems is left out.

    With `arrays`: of these arrays of a folder, and of the groups they are in.
    """
    if arrays is not None:
        found = {}
        for group in {"", *groups_of(arrays)}:
            if (file := place / group / _METADATA).is_file():
                found[f"{group}/{_METADATA}".lstrip("/")] = file.stat().st_size
        for array in arrays:
            if (place / array).is_dir():
                found |= _walk(str(place / array), f"{array}/")
        return found
    if place.is_dir():
        return dict(_walk(str(place), ""))
    try:
        with zipfile.ZipFile(place) as archive:
            entries = archive.infolist()
    except zipfile.BadZipFile as error:
        raise StoreError(
            f"{place} is neither a folder nor a whole zip archive, so it is not the Zarr store of "
            f"a run ({error}); copy it again"
        ) from error
    return {
        entry.filename: entry.file_size
        for entry in entries
        if not entry.is_dir() and not any(map(_FOREIGN.fullmatch, entry.filename.split("/")))
    }


def groups_of(arrays: Iterable[str]) -> set[str]:
    """Return the groups that arrays are in, and those that these are in; not the root."""
    return {str(group) for array in arrays for group in PurePosixPath(array).parents[:-1]}


def _walk(folder: str, prefix: str) -> Iterator[tuple[str, int]]:
    with os.scandir(folder) as entries:
        for entry in entries:
            if _FOREIGN.fullmatch(entry.name):
                continue
            if entry.is_dir():
                yield from _walk(entry.path, f"{prefix}{entry.name}/")
            else:
                yield prefix + entry.name, entry.stat().st_size


class RunStore(WrapperStore[Store]):
    """The files of a run as they lay when it was opened: a folder, or a zip archive of one.

    Parameters
    ----------
    place : Path
    arrays : collection of str, optional
        Of a folder: nothing else of it is looked at.

    Attributes
    ----------
    place : Path
    files : dict of str to int
        Size by key.
    metadata : dict of str to bytes
        Contents of every ``zarr.json`` by key.
    """

    def __init__(self, place: Path, arrays: Collection[str] | None = None) -> None:
        # Before its files are listed: where a run is being written, they then are at least those
        # that it speaks of. It is the last file of a new store.
        root = place / _METADATA
        described = root.read_bytes() if root.is_file() else None
        files = files_in(place, arrays)
        store = LocalStore(place, read_only=True) if place.is_dir() else ZipStore(place)
        super().__init__(store)
        archived = [] if place.is_dir() else files
        roots = [key for key in archived if key.rpartition("/")[2] == _METADATA]
        # An archive may hold the folder of the store, or what is in it.
        self._root = min(roots, key=len, default="").removesuffix(_METADATA)
        self.place = place
        self._covered = None if arrays is None else {*arrays, *groups_of(arrays)}
        self.files = {
            key.removeprefix(self._root): size
            for key, size in files.items()
            if key.startswith(self._root)
        }
        keys = [key for key in self.files if key.rpartition("/")[2] == _METADATA]
        if place.is_dir():
            self.metadata = {key: (place / key).read_bytes() for key in keys if key != _METADATA}
            if described is not None:
                self.metadata[_METADATA] = described
        else:
            with zipfile.ZipFile(place) as archive:
                self.metadata = {key: archive.read(self._root + key) for key in keys}

    def _with_store(self, store: Store) -> Self:
        return self

    def covers(self, path: str) -> bool:
        """Say whether a group or array is among what is looked at."""
        return self._covered is None or path in self._covered

    def attributes(self) -> Any:
        """Return the root attributes, unchecked; none where there is no Zarr group."""
        root = json.loads(self.metadata.get(_METADATA, b"{}"))
        return root.get("attributes", {}) if isinstance(root, dict) else {}

    async def get(
        self,
        key: str,
        prototype: BufferPrototype | None = None,
        byte_range: ByteRequest | None = None,
    ) -> Buffer | None:
        """Return a file; one that should be there is not taken for empty."""
        prototype = prototype or default_buffer_prototype()
        if key in self.metadata and byte_range is None:
            return prototype.buffer.from_bytes(self.metadata[key])
        found = await self._store.get(self._root + key, prototype, byte_range)
        if found is None and key in self.files:
            raise StoreError(f"{self.place} has lost {key} since it was opened")
        return found

    async def list_dir(self, prefix: str) -> AsyncIterator[str]:
        """Yield the groups and arrays in a group, and nothing else that may lie there."""
        start = f"{prefix.rstrip('/')}/" if prefix.rstrip("/") else ""
        for key in self.metadata:
            name, _, rest = key.removeprefix(start).partition("/")
            if key.startswith(start) and rest == _METADATA:
                yield name


def altered(store: RunStore) -> Iterator[str]:
    """Say which metadata are not those that the run wrote; nothing for stores without checksums."""
    attrs = store.attributes()
    known = attrs.get("checksums")
    if known is None:
        return
    for path, checksum in known["metadata"].items():
        if not store.covers(path):
            continue
        text = store.metadata.get(f"{path}/{_METADATA}")
        if text is None:
            yield f"{path} is missing"
        elif google_crc32c.value(text) != checksum:
            yield f"the description of {path} was altered"
    for name, checksum in known["attributes"].items():
        if name not in attrs or _of_json(attrs[name]) != checksum:
            yield f"the attribute {name!r} of the run was altered"


def lacking(store: RunStore, group: str, frames: int) -> Iterator[str]:
    """Say which files of a group are missing or cut, where so many of its frames are whole.

    Stores of format 1, which have no checksums, left out chunks that were zero or NaN throughout.
    """
    complete = "checksums" in store.attributes()
    for file, size in expected(store, group, frames):
        found = store.files.get(file)
        if found is None and complete:
            yield f"{file} is missing"
        elif found is not None and found < size:
            yield f"{file} is cut: {found} of {size} bytes"


def expected(store: RunStore, group: str, frames: int) -> Iterator[tuple[str, int]]:
    """Yield every file of chunks that a group should hold, and its least size in bytes."""
    grown = store.attributes().get("grown", {})
    for key, text in store.metadata.items():
        path = key.removesuffix(f"/{_METADATA}")
        if path.rpartition("/")[0] != group:
            continue
        described = json.loads(text)
        if described["node_type"] != "array":
            continue
        if "grows" in described["attributes"]:
            yield from _of_growing(store, path, described, frames, grown.get(path))
        else:
            yield from _of_array(path, described, frames)


def _of_array(path: str, described: Mapping[str, Any], frames: int) -> Iterator[tuple[str, int]]:
    """Yield the files of an array and their least sizes."""
    shape = list(described["shape"])
    if described["dimension_names"][:1] == ["frame"]:
        shape[0] = min(frames, shape[0])
    chunk = described["chunk_grid"]["configuration"]["chunk_shape"]
    counts = [math.ceil(length / size) for length, size in zip(shape, chunk, strict=True)]
    key = partial(_chunk_key, path, described)
    codec = described["codecs"][0]
    whole = math.prod(chunk) * np.dtype(described["data_type"]).itemsize
    if codec["name"] != "sharding_indexed":
        size = whole + _CHECKSUM * _has_checksum(described["codecs"])
        yield from ((key(index), size) for index in product(*map(range, counts)))
        return
    inner = math.prod(chunk) // math.prod(codec["configuration"]["chunk_shape"])
    per_frame = whole // chunk[0] + _CHECKSUM * _has_checksum(codec["configuration"]["codecs"])
    index_size = _INDEX_ENTRY * inner + _CHECKSUM
    for index in product(*map(range, counts)):
        held = min(chunk[0], shape[0] - index[0] * chunk[0])
        yield key(index), held * per_frame + index_size


def _of_growing(
    store: RunStore,
    path: str,
    described: Mapping[str, Any],
    frames: int,
    count: int | None,
) -> Iterator[tuple[str, int]]:
    """Yield the files of an array that is filled in part: those that are there, if enough are."""
    chunk = described["chunk_grid"]["configuration"]["chunk_shape"]
    size = math.prod(chunk) * np.dtype(described["data_type"]).itemsize
    size += _CHECKSUM * _has_checksum(described["codecs"])
    start = f"{path}/c/"
    there = [
        key
        for key in store.files
        if key.startswith(start) and int(key.removeprefix(start).split("/")[0]) < frames
    ]
    if count is not None and len(there) < count:
        yield f"{path} ({count - len(there)} of {count} files)", size
    yield from ((key, size) for key in there)


def _chunk_key(path: str, described: Mapping[str, Any], index: Iterable[int]) -> str:
    separator = described["chunk_key_encoding"]["configuration"]["separator"]
    return separator.join([f"{path}/c", *map(str, index)])


def _has_checksum(codecs: Iterable[Mapping[str, Any]]) -> bool:
    return any(codec["name"] == "crc32c" for codec in codecs)


class StoredArray(BackendArray):
    """An array of a store whose damage is told in words when it is read.

    Parameters
    ----------
    variable : xarray.Variable
        Lazy.
    what : str
        Store and path, for the message.
    """

    def __init__(self, variable: xr.Variable, what: str) -> None:
        self.shape, self.dtype = variable.shape, variable.dtype
        self._variable, self._what = variable, what

    def __getitem__(self, key: indexing.ExplicitIndexer) -> Any:
        outer = indexing.IndexingSupport.OUTER
        return indexing.explicit_indexing_adapter(key, self.shape, outer, self._read)

    def _read(self, key: tuple[Any, ...]) -> np.ndarray:
        try:
            return np.asarray(self._variable[key].values)
        except Mut3rError:
            raise
        except Exception as error:  # of whatever layer stumbles over the damage
            raise damaged(self._what, [str(error)]) from error


def damaged(what: object, problems: Iterable[str]) -> StoreError:
    """Return the error of a damaged store."""
    found = list(problems)
    more = f", and {len(found) - 3} more" if len(found) > 3 else ""
    return StoreError(
        f"{what} is damaged: {'; '.join(found[:3])}{more}. Copy the store again from where it is "
        "whole, or run the sequence again; 'mut3r check STORE' lists all that is damaged"
    )
