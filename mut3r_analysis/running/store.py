"""A run's Zarr v3 store: created from a schema, filled in blocks of whole frames.

A block is the unit of writing: one file per variable and block, and several for whole maps. A
frame, or a head's map of it, is the unit of reading, and has a checksum (CRC-32C).
The root attribute ``frames_complete`` is raised after every array of a block is on disk, so a store
whose writer was killed says truthfully how many frames are whole.
"""

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import google_crc32c
import numpy as np
import zarr
from zarr.codecs import Crc32cCodec
from zarr.storage import LocalStore, MemoryStore

from mut3r_analysis.errors import StoreError
from mut3r_analysis.running.inventory import checksums
from mut3r_analysis.running.schema import KEY_FRAME, Schema, Variable

BLOCK_BYTES = 32 * 2**20
"""A block holds as many frames as fit here (at least one), so that buffers stay small."""

MOST_FRAMES = 32
_WHOLE_BLOCK_CHUNK = 32 * 2**10
_GROWING_CHUNK = 256
"""Tokens of a growing memory in one chunk."""
_MAP_BYTES = 16 * 2**20
_FILE_BYTES = 2**20
_CHECKSUM = 4
_FLAT: Any = {"name": "default", "separator": "."}


def block_length(schema: Schema) -> int:
    """Frames per block; the blocks of a run are nearly equal in length."""
    per_frame = sum(
        frame_bytes(variable)
        for group in schema.values()
        for variable in group.variables.values()
        if variable.values is None
    )
    frames = max(len(group.frames) for group in schema.values())
    longest = min(MOST_FRAMES, max(1, BLOCK_BYTES // max(per_frame, 1)))
    return math.ceil(frames / math.ceil(frames / longest))


def frame_bytes(variable: Variable) -> int:
    """Bytes of one frame of a variable."""
    return math.prod(variable.shape[1:]) * variable.dtype.itemsize


def chunking(
    variable: Variable, block: int, dense: bool
) -> tuple[tuple[int, ...], tuple[int, ...] | None]:
    """Chunk and shard shapes of a variable.

    Small variables are chunked by block, larger ones by frame within a shard per block, and whole
    maps by head, or by layer where heads are small: without shards, which are put together in
    memory before they are written. A group that holds only some frames is not sharded, since its
    rows do not arrive in whole blocks.
    """
    if variable.values is not None:
        return variable.shape, None
    if variable.grows:
        return _growing_chunks(variable), None
    size = frame_bytes(variable)
    if _is_large_map(variable):
        heads, *rest = variable.shape[2:]
        by_head = math.prod(rest) * variable.dtype.itemsize >= _FILE_BYTES
        return (1, 1, 1 if by_head else heads, *rest), None
    shape = variable.shape[1:]
    if not dense or size > _MAP_BYTES:
        return (1, *shape), None
    block = min(block, variable.shape[0])
    if size <= _WHOLE_BLOCK_CHUNK:
        return (block, *shape), None
    return (1, *shape), (block, *shape)


def _growing_chunks(variable: Variable) -> tuple[int, ...]:
    """Chunks of a variable of which only a part is filled; those that stay empty cost nothing."""
    shape = list(variable.shape)
    shape[0] = 1
    for axis, dim in enumerate(variable.dims):
        if dim in variable.grows:
            per_place = shape[axis + 1] if dim == KEY_FRAME else 1
            shape[axis] = max(1, min(_GROWING_CHUNK // per_place, shape[axis]))
    return tuple(shape)


def _is_large_map(variable: Variable) -> bool:
    if variable.grows:
        return False
    return frame_bytes(variable) > _MAP_BYTES and variable.dims[1:3] == ("layer", "head")


def stored_bytes(variable: Variable, block: int, dense: bool) -> int:
    """Bytes that the chunks of a variable take on disk (nothing is compressed)."""
    chunks, shards = chunking(variable, block, dense)
    per_axis = [math.ceil(n / c) for n, c in zip(variable.shape, chunks, strict=True)]
    stored = math.prod(per_axis) * (math.prod(chunks) * variable.dtype.itemsize + _CHECKSUM)
    if shards is not None:
        count = math.prod(math.ceil(n / s) for n, s in zip(variable.shape, shards, strict=True))
        inner = math.prod(s // c for s, c in zip(shards, chunks, strict=True))
        stored += count * (16 * inner + 4)
    return stored


def create_store(
    schema: Schema, attrs: Mapping[str, Any], out: str | Path | None
) -> tuple[zarr.Group, int]:
    """Create every group, array and coordinate of a run, empty of frames.

    Parameters
    ----------
    schema : Schema
    attrs : mapping
        Root attributes.
    out : path, optional
        Where; None keeps the store in memory.

    Returns
    -------
    root : zarr.Group
    block : int
        Frames per block.

    Raises
    ------
    StoreError
        When it cannot be created.
    """
    store = MemoryStore() if out is None else LocalStore(Path(out))
    block = block_length(schema)
    try:
        root = zarr.create_group(store, zarr_format=3, attributes=dict(attrs))
        for path_in_store, group in schema.items():
            _create_group(root, path_in_store, group.variables, block, _is_dense(schema, group))
        sums = checksums(_metadata(store), attrs)
        root.attrs.update({"checksums": sums, "grown": _none_grown(schema)})
    except OSError as error:
        raise StoreError(f"cannot create the store {out}: {error}") from error
    return root, block


def _metadata(store: LocalStore | MemoryStore) -> dict[str, bytes]:
    """Return every ``zarr.json`` of a new store by its key."""
    if isinstance(store, LocalStore):
        files = store.root.rglob("zarr.json")
        return {file.relative_to(store.root).as_posix(): file.read_bytes() for file in files}
    held = store._store_dict.items()
    return {key: value.to_bytes() for key, value in held if key.endswith("zarr.json")}


def _none_grown(schema: Schema) -> dict[str, int]:
    """Return how many chunks of each variable that grows are written: none so far."""
    return {
        f"{path}/{name}": 0
        for path, group in schema.items()
        for name, variable in group.variables.items()
        if variable.grows
    }


def _is_dense(schema: Schema, group: Any) -> bool:
    return len(group.frames) == len(schema["prediction"].frames)


def _create_group(
    root: zarr.Group, path: str, variables: Mapping[str, Variable], block: int, dense: bool
) -> None:
    extra = [v.name for v in variables.values() if v.values is not None and v.name not in v.dims]
    named = {"coordinates": " ".join(extra)} if extra else {}
    group = root.create_group(path, attributes=named)
    for variable in variables.values():
        chunks, shards = chunking(variable, block, dense)
        attributes: dict[str, Any] = {
            "long_name": variable.long_name,
            "units": variable.units,
            "source": variable.source,
        }
        if variable.grows:
            attributes["grows"] = list(variable.grows)
        if variable.labels is not None:
            attributes["labels"] = list(variable.labels)
        array = group.create_array(
            variable.name,
            shape=variable.shape,
            dtype=variable.dtype,
            chunks=chunks,
            shards=shards,
            dimension_names=variable.dims,
            attributes=attributes,
            compressors=[Crc32cCodec()],
            # Files of maps lie side by side: a folder per index would cost as much as a file.
            chunk_key_encoding=_FLAT if _is_large_map(variable) else None,
            fill_value=_fill_value(variable),
            # An array of zeros is data too: what is written is what was planned.
            config={"write_empty_chunks": True},
        )
        if variable.values is not None:
            array[...] = variable.values


def _fill_value(variable: Variable) -> float | int | None:
    if variable.dtype.kind == "f":
        return np.nan
    return -1 if variable.grows else None


class BlockWriter:
    """Collects frames and writes them to a store block by block.

    Parameters
    ----------
    root : zarr.Group
    schema : Schema
    block : int
        Frames per block.
    keep : callable, optional
        Told, before the store says so, how many frames are whole and what was carried after them.

    Attributes
    ----------
    complete : int
        Whole frames in the store; those of a run that is resumed to begin with.
    notes : dict
        Root attributes to write with the next block.
    """

    def __init__(
        self,
        root: zarr.Group,
        schema: Schema,
        block: int,
        keep: Callable[[int, Any], None] | None = None,
    ) -> None:
        self._keep, self._carried = keep, None
        self.notes: dict[str, Any] = {}
        self._root = root
        self._block = block
        self._row = {
            path: {int(frame): row for row, frame in enumerate(group.frames)}
            for path, group in schema.items()
        }
        self._arrays: dict[tuple[str, str], zarr.Array[Any]] = {}
        self._maps = {
            (path, name)
            for path, group in schema.items()
            for name, variable in group.variables.items()
            if variable.values is None and _is_large_map(variable)
        }
        self._expected = {
            path: {item.name for item in group.variables.values() if item.values is None}
            for path, group in schema.items()
        }
        self._rows: dict[tuple[str, str], list[np.ndarray]] = {}
        self._first: dict[str, int] = {}
        known: Any = root.attrs
        self._grown = _none_grown(schema) | known.get("grown", {})
        self._buffered = 0
        self.complete: int = known.get("frames_complete", 0)

    def add(
        self,
        position: int,
        found: Mapping[str, Mapping[str, np.ndarray]],
        carried: Any = None,
    ) -> None:
        """Add what is known of the frame at a position: group -> name -> array.

        `carried` is what the next frame starts from.

        Raises
        ------
        StoreError
            When a variable that the store promises was not filled, such as the statistics of a
            site that the model never passed.
        """
        for path, expected in self._expected.items():
            row = self._row[path].get(position)
            if row is None:
                continue
            values = found.get(path, {})
            if set(values) != expected:
                missing = sorted(expected - set(values)) or sorted(set(values) - expected)
                raise StoreError(
                    f"{path} of frame {position} does not hold what the run declared: "
                    f"{', '.join(missing)}. A captured site must be passed in every frame, once "
                    "per layer, with the heads that the backbone says it has"
                )
            self._first.setdefault(path, row)
            for name, value in values.items():
                self._rows.setdefault((path, name), []).append(value)
        self._buffered, self._carried = self._buffered + 1, carried
        # Blocks of a run that is resumed are those of an undisturbed one.
        if (self.complete + self._buffered) % self._block == 0:
            self.flush()

    def flush(self) -> None:
        """Write what is buffered and say how many frames are whole.

        Raises
        ------
        StoreError
            When the file system refuses; frames before this block remain readable.
        """
        if not self._buffered:
            return
        grown = dict(self._grown)
        try:
            for (path, name), rows in self._rows.items():
                array, first = self._array(path, name), self._first[path]
                if (path, name) in self._maps and isinstance(array.store, LocalStore):
                    for index, row in enumerate(rows, start=first):
                        _write_map(array, index, row)
                elif f"{path}/{name}" in grown:
                    for index, row in enumerate(rows, start=first):
                        part = tuple(slice(0, size) for size in row.shape)
                        if row.size:
                            array[(index, *part)] = row  # type: ignore[index]
                            grown[f"{path}/{name}"] += _chunks_of(row.shape, array.chunks[1:])
                else:
                    array[first : first + len(rows)] = np.stack(rows)
            done = self.complete + self._buffered
            if self._keep is not None:
                self._keep(done, self._carried)
            self._root.attrs.update({"frames_complete": done, "grown": grown, **self.notes})
        except OSError as error:
            raise StoreError(
                f"could not write frames {self.complete} to {self.complete + self._buffered - 1} "
                f"to {self._root.store_path}: {error}. The first {self.complete} frames are whole "
                "and can be read with open_run"
            ) from error
        self._grown = grown
        self._rows.clear()
        self._first.clear()
        self._buffered = 0
        self.complete = done

    def _array(self, path: str, name: str) -> "zarr.Array[Any]":
        """Open an array once: its metadata are read from the store each time it is opened."""
        key = (path, name)
        if key not in self._arrays:
            found = self._root[f"{path}/{name}"]
            assert isinstance(found, zarr.Array)
            # A chunk of nothing but NaN or False is written too, or it would be missed on opening.
            self._arrays[key] = found.with_config({"write_empty_chunks": True})
        return self._arrays[key]


def _chunks_of(shape: tuple[int, ...], chunks: tuple[int, ...]) -> int:
    return math.prod(math.ceil(size / chunk) for size, chunk in zip(shape, chunks, strict=True))


def _write_map(array: "zarr.Array[Any]", index: int, row: np.ndarray) -> None:
    """Write the chunks of one frame of a large map.

    They are the numbers as they are in memory. Written one after the other they take the time of
    the disk; the store's own way copies them twice and costs more than that.
    """
    assert isinstance(array.store, LocalStore)
    folder = array.store.root / array.path
    values = np.ascontiguousarray(row, array.dtype.newbyteorder("<"))
    layers, heads = array.chunks[1:3]
    for layer, head in np.ndindex(row.shape[0] // layers, row.shape[1] // heads):
        chunk = (index, layer, head, 0, 0)
        part = values[layer * layers :, head * heads :][:layers, :heads]
        with (folder / array.metadata.encode_chunk_key(chunk)).open("wb") as file:
            file.write(part.data)
            file.write(google_crc32c.value(part).to_bytes(_CHECKSUM, "little"))
