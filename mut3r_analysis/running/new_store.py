"""The files of a run's Zarr v3 store before its first frame: metadata and coordinates.

They are composed here, as the Zarr v3 specification describes them, and written all at once: made
array by array by the library they took as long as two frames of a small model. A test compares each
with what the library writes.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import google_crc32c
import numpy as np
import zarr
from zarr.buffer.cpu import Buffer
from zarr.storage import LocalStore, MemoryStore

from mut3r_analysis.errors import StoreError
from mut3r_analysis.running.chunks import CHECKSUM, block_length, chunking, is_large_map
from mut3r_analysis.running.inventory import checksums
from mut3r_analysis.running.schema import Group, Schema, Variable

_METADATA = "zarr.json"
_CRC: dict[str, Any] = {"name": "crc32c"}
_LITTLE: dict[str, Any] = {"name": "bytes", "configuration": {"endian": "little"}}


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
    files = new_files(schema, attrs)
    store: LocalStore | MemoryStore
    if out is None:
        store = MemoryStore({key: Buffer.from_bytes(content) for key, content in files.items()})
    else:
        store = LocalStore(Path(out))
        try:
            _write(Path(out), files)
        except OSError as error:
            raise StoreError(f"cannot create the store {out}: {error}") from error
    return zarr.open_group(store, mode="r+", zarr_format=3), block_length(schema)


def new_files(schema: Schema, attrs: Mapping[str, Any]) -> dict[str, bytes]:
    """Return every file of a store that has no frames yet, by its key; that of its root is last."""
    block = block_length(schema)
    files: dict[str, bytes] = {}
    for path, group in schema.items():
        *above, _ = path.split("/")
        for depth in range(len(above)):
            files["/".join([*above[: depth + 1], _METADATA])] = _document("group", attributes={})
        files[f"{path}/{_METADATA}"] = _document("group", attributes=_coordinates(group))
        dense = _is_dense(schema, group)
        for variable in group.variables.values():
            place = f"{path}/{variable.name}"
            files[f"{place}/{_METADATA}"] = _array(variable, block, dense)
            if variable.values is not None and variable.values.size:
                key = "/".join(["c", *("0" for _ in variable.shape)])
                files[f"{place}/{key}"] = _chunk(variable)
    metadata = {key: content for key, content in files.items() if key.endswith(_METADATA)}
    known = {"checksums": checksums(metadata, attrs), "grown": none_grown(schema)}
    # The root is written anew by the library, with indents, so that a plan counts them.
    return files | {_METADATA: _document("group", indent=2, attributes={**attrs, **known})}


def none_grown(schema: Schema) -> dict[str, int]:
    """Return how many chunks of each variable that grows are written: none so far."""
    return {
        f"{path}/{name}": 0
        for path, group in schema.items()
        for name, variable in group.variables.items()
        if variable.grows
    }


def _is_dense(schema: Schema, group: Group) -> bool:
    """Whether a group has rows of all frames of a run."""
    return len(group.frames) == len(schema["prediction"].frames)


def _write(place: Path, files: Mapping[str, bytes]) -> None:
    """Write files; that of the root, which makes it a store, appears whole and after all others."""
    for folder in {(place / key).parent: None for key in files}:
        folder.mkdir(parents=True, exist_ok=True)
    for key, content in files.items():
        if key != _METADATA:
            (place / key).write_bytes(content)
    begun = place / f"{_METADATA}.partial"
    begun.write_bytes(files[_METADATA])
    begun.replace(place / _METADATA)


def _document(kind: str, *, indent: int | None = None, **fields: Any) -> bytes:
    # Without indents: a hundred such documents take ten times as long to write with them.
    return json.dumps({"zarr_format": 3, "node_type": kind, **fields}, indent=indent).encode()


def _coordinates(group: Group) -> dict[str, Any]:
    """Return what CF conventions say of coordinates that are no dimensions."""
    names = [
        item.name
        for item in group.variables.values()
        if item.values is not None and item.name not in item.dims
    ]
    return {"coordinates": " ".join(names)} if names else {}


def _array(variable: Variable, block: int, dense: bool) -> bytes:
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
    codecs = [_LITTLE if variable.dtype.itemsize > 1 else {"name": "bytes"}, _CRC]
    if shards is not None:
        sharding = {
            "chunk_shape": chunks,
            "codecs": codecs,
            "index_codecs": [_LITTLE, _CRC],
            "index_location": "end",
        }
        codecs = [{"name": "sharding_indexed", "configuration": sharding}]
    # Files of maps lie side by side: a folder per index would cost as much as a file.
    separator = "." if is_large_map(variable) else "/"
    return _document(
        "array",
        shape=variable.shape,
        data_type=variable.dtype.name,
        chunk_grid={"name": "regular", "configuration": {"chunk_shape": shards or chunks}},
        chunk_key_encoding={"name": "default", "configuration": {"separator": separator}},
        fill_value=_fill_value(variable),
        codecs=codecs,
        attributes=attributes,
        dimension_names=variable.dims,
        storage_transformers=[],
    )


def _fill_value(variable: Variable) -> str | int | bool:
    if variable.dtype.kind == "f":
        return "NaN"
    if variable.dtype.kind == "b":
        return False
    return -1 if variable.grows else 0


def _chunk(variable: Variable) -> bytes:
    """Return the only chunk of a coordinate: its numbers and their checksum."""
    values = np.ascontiguousarray(variable.values, variable.dtype.newbyteorder("<")).tobytes()
    return values + google_crc32c.value(values).to_bytes(CHECKSUM, "little")
