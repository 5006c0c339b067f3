"""A store before its first frame: what is composed at once is what Zarr itself would write."""

import json
from pathlib import Path

import numpy as np
import pytest
import zarr
from zarr.codecs import Crc32cCodec
from zarr.storage import MemoryStore

import mut3r_analysis as m3
from mut3r_analysis.errors import StoreError
from mut3r_analysis.running.chunks import block_length, chunking, is_large_map
from mut3r_analysis.running.configuration import Configuration
from mut3r_analysis.running.new_store import create_store, new_files
from mut3r_analysis.running.schema import Schema, run_schema
from mut3r_analysis.sequences import open_sequence

CAPTURES = {
    "statistics": m3.Capture(statistics="all"),
    "maps of chosen frames": m3.Capture(maps=("image_self",), frames=(1, 2)),
    "archive": m3.Capture(archive="float16", sites=("state_to_image",)),
}


@pytest.fixture(scope="module", params=["tiny", "random:point3r-small"])
def model(request):
    return m3.load_backbone(request.param)


def schema_of(model, capture: m3.Capture) -> Schema:
    pixels = np.random.default_rng(0).integers(0, 256, (3, 64, 96, 3), np.uint8)
    sequence = open_sequence(pixels, name="noise")
    return run_schema(model, sequence, capture, model.outputs, Configuration())


@pytest.mark.parametrize("capture", CAPTURES.values(), ids=CAPTURES)
def test_every_file_says_what_zarr_would_have_written(model, capture) -> None:
    schema = schema_of(model, capture)
    files, theirs = new_files(schema, {"frames": 3}), MemoryStore()
    root = zarr.create_group(theirs, zarr_format=3)
    block = block_length(schema)
    for path, group in schema.items():
        for name, variable in group.variables.items():
            dense = len(group.frames) == len(schema["prediction"].frames)
            chunks, shards = chunking(variable, block, dense)
            array = root.require_group(path).create_array(
                name,
                shape=variable.shape,
                dtype=variable.dtype,
                chunks=chunks,
                shards=shards,
                dimension_names=variable.dims,
                compressors=[Crc32cCodec()],
                chunk_key_encoding={
                    "name": "default",
                    "separator": "." if is_large_map(variable) else "/",
                },
                fill_value=np.nan if variable.dtype.kind == "f" else -1 if variable.grows else None,
                attributes=json.loads(files[f"{path}/{name}/zarr.json"])["attributes"],
                config={"write_empty_chunks": True},
            )
            if variable.values is not None:
                array[...] = variable.values
    expected = {key: value.to_bytes() for key, value in theirs._store_dict.items()}
    assert set(files) == set(expected)
    for key, content in expected.items():
        if key.endswith("zarr.json"):
            ours, library = json.loads(files[key]), json.loads(content)
            ours["attributes"] = library["attributes"] = None
            assert ours == library, key
        else:
            assert files[key] == content, key


def test_what_is_said_of_variables_is_in_the_store(tmp_path: Path) -> None:
    model = m3.load_backbone("random:point3r-small")
    schema = schema_of(model, CAPTURES["statistics"])
    stores = [create_store(schema, {"frames": 3}, place)[0] for place in (tmp_path / "a", None)]
    for root in stores:
        assert root.attrs["frames"] == 3
        assert root.attrs["grown"]
        for path, group in schema.items():
            named = root[path].attrs.get("coordinates", "").split()
            for name, variable in group.variables.items():
                array = root[f"{path}/{name}"]
                assert array.attrs["long_name"] == variable.long_name
                assert array.attrs["units"] == variable.units
                assert tuple(array.attrs.get("labels", ())) == (variable.labels or ())
                assert tuple(array.attrs.get("grows", ())) == variable.grows
                if variable.values is not None:
                    assert (name in named) == (name not in variable.dims)
                    np.testing.assert_array_equal(array[...], variable.values)


def test_the_root_is_the_last_file_of_a_store(tmp_path: Path, monkeypatch) -> None:
    schema = schema_of(m3.load_backbone("tiny"), CAPTURES["statistics"])
    assert list(new_files(schema, {}))[-1] == "zarr.json"

    def full(self: Path, target: Path) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(StoreError, match=r"cannot create the store .*no space left"):
        create_store(schema, {}, tmp_path / "run.zarr")
    assert not (tmp_path / "run.zarr" / "zarr.json").exists()
