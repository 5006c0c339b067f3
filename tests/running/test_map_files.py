"""Large maps are written past the codecs: the files must be those that Zarr itself writes."""

from pathlib import Path

import numpy as np
import pytest
import zarr

from mut3r_analysis.running.chunks import stored_bytes
from mut3r_analysis.running.new_store import create_store
from mut3r_analysis.running.schema import Group, Schema
from mut3r_analysis.running.store import BlockWriter

SIZES = {"one file per head": (2, 3, 870, 860), "one file per layer": (3, 12, 350, 340)}


def schema_of(sizes: tuple[int, ...], dtype: str, frames: tuple[int, ...] = (0, 1)) -> Schema:
    prediction = Group(np.arange(2))
    prediction.add("pose", {"row": 4, "col": 4}, "float32", "pose", "m", "made up")
    site = Group(np.array(frames))
    named = dict(zip(("layer", "head", "query", "key"), sizes, strict=True))
    site.add("logits", named, dtype, "scaled logit before softmax", "nat", "made up")
    return {"prediction": prediction, "attention/image_self": site}


def frames_of(sizes: tuple[int, ...], dtype: str) -> list[dict]:
    random = np.random.default_rng(4)
    return [
        {
            "prediction": {"pose": random.random((4, 4), np.float32)},
            "attention/image_self": {"logits": random.random(sizes, np.float32).astype(dtype)},
        }
        for _ in range(2)
    ]


def contents(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in folder.iterdir() if file.is_file()}


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("sizes", SIZES.values(), ids=SIZES)
def test_the_files_of_a_map_are_those_that_zarr_writes(
    tmp_path: Path, sizes: tuple[int, ...], dtype: str
) -> None:
    schema, frames = schema_of(sizes, dtype), frames_of(sizes, dtype)
    root, block = create_store(schema, {}, tmp_path / "ours")
    writer = BlockWriter(root, schema, block)
    for position, found in enumerate(frames):
        writer.add(position, found)
    writer.flush()
    reference, _ = create_store(schema, {}, tmp_path / "theirs")
    maps = np.stack([found["attention/image_self"]["logits"] for found in frames])
    reference["attention/image_self/logits"][...] = maps
    place = "attention/image_self/logits"
    ours, theirs = contents(tmp_path / "ours" / place), contents(tmp_path / "theirs" / place)
    assert ours == theirs
    by_head = sizes == SIZES["one file per head"]
    assert len(ours) - 1 == 2 * sizes[0] * (sizes[1] if by_head else 1)
    np.testing.assert_array_equal(root[place][...], maps)
    variable = schema["attention/image_self"].variables["logits"]
    assert stored_bytes(variable, block, dense=True) == sum(
        len(content) for name, content in ours.items() if name != "zarr.json"
    )


def test_maps_in_memory_are_copies_of_what_was_added() -> None:
    sizes = SIZES["one file per layer"]
    schema, (found, _) = schema_of(sizes, "float32"), frames_of(sizes, "float32")
    root, block = create_store(schema, {}, None)
    writer = BlockWriter(root, schema, block)
    writer.add(0, found)
    writer.flush()
    kept = found["attention/image_self"]["logits"].copy()
    found["attention/image_self"]["logits"][...] = 0
    np.testing.assert_array_equal(root["attention/image_self/logits"][0], kept)


def test_strided_maps_and_maps_of_chosen_frames_arrive_in_their_places(tmp_path: Path) -> None:
    sizes = SIZES["one file per head"]
    schema = schema_of(sizes, "float32", frames=(1,))
    frames = frames_of(sizes, "float32")
    root, block = create_store(schema, {}, tmp_path / "store")
    writer = BlockWriter(root, schema, block)
    for position, found in enumerate(frames):
        strided = found["attention/image_self"]["logits"].swapaxes(2, 3).copy().swapaxes(2, 3)
        writer.add(position, found | {"attention/image_self": {"logits": strided}})
    writer.flush()
    stored = zarr.open_group(tmp_path / "store", mode="r")["attention/image_self/logits"]
    np.testing.assert_array_equal(stored[0], frames[1]["attention/image_self"]["logits"])
