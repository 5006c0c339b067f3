"""A run opened with Dask has the same values, in blocks of the store, read when computed."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from zarr.storage import LocalStore

import mut3r_analysis as m3
from mut3r_analysis.errors import InvalidArgument

FRAMES = 36


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Two runs: with archived queries and keys, and with whole maps of some frames."""
    folder = tmp_path_factory.mktemp("runs")
    frames = np.random.default_rng(0).integers(0, 256, (FRAMES, 48, 64, 3), dtype=np.uint8)
    backbone = m3.load_backbone("random:small", device="cpu")
    captures = {
        "archive": m3.Capture(statistics=["entropy"], sites=["image_self"], archive=True),
        "maps": m3.Capture(
            statistics=["entropy"], sites=["image_to_state"], maps=["image_to_state"],
            frames=[1, 2, 4],
        ),
    }  # fmt: skip
    for name, capture in captures.items():
        shown = frames if name == "archive" else frames[:6]
        m3.run(
            backbone, m3.open_sequence(shown), capture=capture, outputs=("pose",),
            out=folder / name, progress=False,
        )  # fmt: skip
    return {name: folder / name for name in captures}


@pytest.mark.parametrize("kind", ["archive", "maps"])
def test_values_coordinates_and_attributes_are_those_of_the_lazy_tree(
    stored: dict[str, Path], kind: str
) -> None:
    lazy, blocks = m3.open_run(stored[kind]), m3.open_run(stored[kind], chunks="auto")
    assert lazy.attrs == blocks.attrs
    assert set(lazy.groups) == set(blocks.groups)
    for path in lazy.groups:
        dataset = blocks[path].to_dataset()
        assert all(array.chunks for array in dataset.data_vars.values())
        if path == "/attention/image_self":
            dataset = dataset.isel(frame=slice(3))
            xr.testing.assert_identical(lazy[path].to_dataset().isel(frame=slice(3)), dataset)
        else:
            xr.testing.assert_identical(lazy[path].to_dataset(), dataset)


def test_one_dask_chunk_is_one_block_of_the_store_or_one_derived_frame_and_layer(
    stored: dict[str, Path],
) -> None:
    tree = m3.open_run(stored["archive"], chunks="auto")
    site = tree["attention/image_self"]
    depth = site.sizes["layer"]
    files = [path for path in (stored["archive"] / "attention/image_self/entropy/c").rglob("*")
             if path.is_file()]  # fmt: skip
    assert site["entropy"].data.npartitions == len(files) == 2
    assert site["weights"].data.npartitions == FRAMES * depth
    assert site["weights"].data.chunksize[:2] == (1, 1)
    assert site["weights"].data.chunksize[2:] == site["weights"].shape[2:]


def test_nothing_is_read_before_compute_and_then_only_the_blocks_that_are_needed(
    stored: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    tree = m3.open_run(stored["archive"], chunks="auto")
    lazy = m3.open_run(stored["archive"])
    read: list[str] = []
    get = LocalStore.get

    async def counted(self, key, *args, **kwargs):
        read.append(key)
        return await get(self, key, *args, **kwargs)

    monkeypatch.setattr(LocalStore, "get", counted)
    site = tree["attention/image_self"]
    entropy = site["entropy"].sel(token="patch").mean(["head", "query"])
    weights = site["weights"].isel(frame=35, drop=True).sel(key_token="pose").sum("query")
    assert read == []
    found = weights.isel(layer=0, drop=True).compute()
    assert {key.rsplit("/c/", 1)[0] for key in read} == {
        "attention/image_self/rotated_query", "attention/image_self/rotated_key",
    }  # fmt: skip
    assert {key.rsplit("/c/", 1)[1].split("/")[0] for key in read} == {"1"}
    monkeypatch.undo()
    whole = lazy["attention/image_self"]
    expected = whole["weights"].isel(frame=35, layer=0, drop=True).sel(key_token="pose")
    xr.testing.assert_allclose(found, expected.sum("query"))
    expected = whole["entropy"].sel(token="patch").mean(["head", "query"])
    xr.testing.assert_allclose(entropy.compute(), expected)


def test_an_interrupted_run_opens_in_blocks_too(stored: dict[str, Path], tmp_path: Path) -> None:
    import shutil

    import zarr

    copy = tmp_path / "killed.zarr"
    shutil.copytree(stored["archive"], copy)
    zarr.open_group(copy).attrs["frames_complete"] = 25
    with pytest.warns(UserWarning, match="25 of 36"):
        tree = m3.open_run(copy, chunks="auto")
    with pytest.warns(UserWarning, match="25 of 36"):
        lazy = m3.open_run(copy)
    assert tree["state/norm"].sizes["frame"] == 25
    xr.testing.assert_identical(tree["state/norm"].compute(), lazy["state/norm"])


def test_blocks_travel_to_other_processes(stored: dict[str, Path]) -> None:
    cloudpickle = pytest.importorskip("cloudpickle")
    weights = m3.open_run(stored["archive"], chunks="auto")["attention/image_self/weights"]
    part = weights.isel(frame=2, layer=1)
    sent = cloudpickle.loads(cloudpickle.dumps(part))
    np.testing.assert_array_equal(sent.compute(), part.compute())


def test_without_dask_the_error_says_what_to_install(
    stored: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *rest: None if name == "dask" else find(name)
    )
    with pytest.raises(InvalidArgument, match=r"pip install 'mut3r-analysis\[cluster\]'"):
        m3.open_run(stored["archive"], chunks="auto")
    assert m3.open_run(stored["archive"])["state/norm"].chunks is None


def test_other_chunks_are_refused_before_anything_is_opened(stored: dict[str, Path]) -> None:
    with pytest.raises(InvalidArgument, match=r"None or 'auto', got \{'frame': 1\}"):
        m3.open_run(stored["archive"], chunks={"frame": 1})
    with pytest.raises(InvalidArgument, match="chunks"):
        m3.open_run("nowhere", chunks="big")
