"""The frames of a run, written to its Zarr v3 store in blocks of whole frames.

A block is the unit of writing: one file per variable and block, and several for whole maps. A
frame, or a head's map of it, is the unit of reading, and has a checksum (CRC-32C).
The root attribute ``frames_complete`` is raised after every array of a block is on disk, so a store
whose writer was killed says truthfully how many frames are whole.
"""

import math
from collections.abc import Callable, Mapping
from typing import Any

import google_crc32c
import numpy as np
import zarr
from zarr.storage import LocalStore

from mut3r_analysis.errors import StoreError
from mut3r_analysis.running.chunks import CHECKSUM, is_large_map
from mut3r_analysis.running.new_store import none_grown
from mut3r_analysis.running.schema import Schema


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
            if variable.values is None and is_large_map(variable)
        }
        self._expected = {
            path: {item.name for item in group.variables.values() if item.values is None}
            for path, group in schema.items()
        }
        self._rows: dict[tuple[str, str], list[np.ndarray]] = {}
        self._first: dict[str, int] = {}
        known: Any = root.attrs
        self._grown = none_grown(schema) | known.get("grown", {})
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
            file.write(google_crc32c.value(part).to_bytes(CHECKSUM, "little"))
