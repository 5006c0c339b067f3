"""A store knows what it should hold: what is lost or altered is found, clutter is not minded."""

import json
import re
import shutil
import warnings
import zipfile
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
import zarr

import mut3r_analysis as m3
from mut3r_analysis.cli.main import main
from mut3r_analysis.errors import StoreError
from mut3r_analysis.running.checking import check_store
from mut3r_analysis.running.new_store import create_store
from mut3r_analysis.running.schema import Group
from mut3r_analysis.running.store import BlockWriter

SITE = "attention/image_self"


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    out = tmp_path_factory.mktemp("runs") / "whole.zarr"
    capture = m3.Capture(statistics=["entropy"], sites=["image_self"])
    sequence = m3.open_sequence("scenes/orbit-03", stop=3)
    m3.run(m3.load_backbone("random:small"), sequence, capture=capture, progress=False, out=out)
    return out


@pytest.fixture(scope="module")
def growing(tmp_path_factory):
    out = tmp_path_factory.mktemp("runs") / "growing.zarr"
    sequence = m3.open_sequence("scenes/orbit-03", stop=2)
    backbone = m3.load_backbone("random:point3r-small")
    m3.run(backbone, sequence, capture=m3.Capture(state=True), progress=False, out=out)
    return out


@pytest.fixture
def store(whole, tmp_path):
    return Path(shutil.copytree(whole, tmp_path / "run.zarr"))


def chunk_of(store: Path, variable: str) -> Path:
    return next(file for file in (store / variable / "c").rglob("*") if file.is_file())


def remove(file: Path) -> None:
    file.unlink()


def cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-5])


def empty(file: Path) -> None:
    file.write_bytes(b"")


def flip(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[7] ^= 1
    file.write_bytes(content)


def read_all(store: Path) -> xr.DataTree:
    run = m3.open_run(store)
    for node in run.subtree:
        node.to_dataset().load()
    return run


@pytest.mark.parametrize("damage", [remove, cut, empty, flip])
@pytest.mark.parametrize(
    "variable", ["prediction/points_world", "state/norm", f"{SITE}/entropy", f"{SITE}/layer"]
)
def test_damaged_chunks_are_named_and_never_read_as_numbers(store, variable, damage):
    damage(chunk_of(store, variable))
    with pytest.raises(StoreError, match=r"(?s)damaged.*mut3r check") as raised:
        read_all(store)
    # What is wrong with a coordinate keeps its whole group from being read.
    assert variable in str(raised.value) or variable.endswith("layer")
    found = check_store(store)
    assert found
    assert all(line.startswith(variable) for line in found)


@pytest.mark.parametrize("damage", [remove, cut, empty, flip])
@pytest.mark.parametrize("variable", ["state/positions", "state/norm", "state/tokens"])
def test_damage_of_what_grows_is_found(growing, tmp_path, variable, damage):
    store = Path(shutil.copytree(growing, tmp_path / "growing.zarr"))
    assert check_store(store) == []
    damage(chunk_of(store, variable))
    with pytest.raises(StoreError, match=variable):
        read_all(store)
    assert all(line.startswith(variable) for line in check_store(store))


def test_other_variables_of_a_damaged_chunk_can_still_be_read(store, whole):
    flip(chunk_of(store, "prediction/depth"))
    run = m3.open_run(store)
    with pytest.raises(StoreError, match="prediction/depth"):
        run["prediction/depth"].isel(frame=0).values  # noqa: B018
    expected = m3.open_run(whole)["prediction/pose"]
    np.testing.assert_array_equal(run["prediction/pose"], expected)


def test_a_chunk_that_is_lost_after_opening_is_not_read_as_missing_numbers(store):
    run = m3.open_run(store)
    remove(chunk_of(store, "prediction/pose"))
    with pytest.raises(StoreError, match="has lost prediction/pose"):
        run["prediction/pose"].values  # noqa: B018


def alter(path: Path, change) -> None:
    described = json.loads(path.read_text())
    change(described)
    path.write_text(json.dumps(described))


def changed(**values):
    return lambda described: described["attributes"].update(values)


LIES = {
    "a variable's shape": ("prediction/depth", lambda d: d.update(shape=[3, 10, 10])),
    "a variable's dtype": ("state/norm", lambda d: d.update(data_type="int32")),
    "names of dimensions": (f"{SITE}/entropy", lambda d: d.update(dimension_names=["a"] * 4)),
    "labels": ("prediction/xyz", changed(labels=["y", "x", "z"])),
    "units": ("prediction/depth", changed(units="mm")),
    "a cue": ("", changed(cue="{}")),
    "a commit": ("", changed(commit="rw.pp")),
    "the sequence": ("", changed(sequence={"name": "other"})),
    "more whole frames than frames": ("", changed(frames_complete=4)),
    "less than no frames": ("", changed(frames_complete=-1)),
    "frames in words": ("", changed(frames_complete="three")),
    "frames that are a list": ("", changed(frames=[3])),
    "no attributes": ("", lambda d: d.pop("attributes")),
    "attributes that are a list": ("", lambda d: d.update(attributes=[1])),
    "checksums of nothing": ("", changed(checksums=3)),
}


@pytest.mark.parametrize("lie", LIES)
def test_metadata_that_lie_are_refused_in_words(store, lie):
    path, change = LIES[lie]
    alter(store / path / "zarr.json", change)
    with pytest.raises(StoreError) as raised:
        read_all(store)
    assert str(store) in str(raised.value)


@pytest.mark.parametrize("content", [b"", b"{", b"\x00" * 50, b"[]", b'{"node_type": "group"}'])
@pytest.mark.parametrize("path", ["", "prediction", "prediction/pose"])
def test_metadata_that_are_no_metadata_are_refused_in_words(store, path, content):
    (store / path / "zarr.json").write_bytes(content)
    with pytest.raises(StoreError):
        read_all(store)


@pytest.mark.parametrize("lost", ["prediction", "state", f"{SITE}/entropy", "prediction/frame"])
def test_a_variable_or_group_that_is_gone_is_missed(store, lost):
    shutil.rmtree(store / lost)
    with pytest.raises(StoreError, match=f"{lost}.* is missing"):
        m3.open_run(store)


CLUTTER = ["._{}", ".DS_Store", "Thumbs.db", "desktop.ini"]


@pytest.mark.parametrize("name", CLUTTER)
def test_clutter_of_operating_systems_is_ignored_quietly(store, whole, name):
    for file in [file for file in store.rglob("*") if file.is_file()]:
        file.with_name(name.format(file.name)).write_bytes(b"\0\5\x16\7" + bytes(40))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        run = read_all(store)
    xr.testing.assert_identical(run, m3.open_run(whole))
    assert check_store(store) == []


@pytest.mark.parametrize("compression", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
@pytest.mark.parametrize("inside", ["", "run.zarr/"])
def test_zipped_stores_open(whole, tmp_path, inside, compression):
    place = tmp_path / "run.zarr.zip"
    with zipfile.ZipFile(place, "w", compression) as archive:
        for file in whole.rglob("*"):
            archive.write(file, inside + file.relative_to(whole).as_posix())
        archive.writestr("__MACOSX/._run.zarr", b"\0\5\x16\7")
    xr.testing.assert_identical(read_all(place), m3.open_run(whole))
    assert check_store(place) == []


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 and no more", b"a file"])
def test_files_that_are_no_archive_are_refused(tmp_path, content):
    (tmp_path / "run.zarr.zip").write_bytes(content)
    with pytest.raises(StoreError, match=r"run\.zarr\.zip is neither"):
        m3.open_run(tmp_path / "run.zarr.zip")


def test_zips_are_checked_as_folders_are(whole, tmp_path):
    place, lost = tmp_path / "run.zip", chunk_of(whole, "prediction/pose")
    with zipfile.ZipFile(place, "w") as archive:
        for file in whole.rglob("*"):
            if file != lost:
                archive.write(file, file.relative_to(whole).as_posix())
    with pytest.raises(StoreError, match=r"prediction/pose.* is missing"):
        m3.open_run(place)


def as_format_1(store: Path, target: Path) -> Path:
    """Write a store again as the first version of the package did: without checksums."""
    source = zarr.open_group(store, mode="r")
    attrs = {k: v for k, v in source.attrs.items() if k not in ("checksums", "grown")}
    root = zarr.create_group(target, attributes=attrs | {"format_version": 1})
    for path, item in source.members(max_depth=None):
        if isinstance(item, zarr.Group):
            root.require_group(path).attrs.update(item.attrs)
            continue
        parent = root.require_group(path.rpartition("/")[0])
        array = parent.create_array(
            path.rpartition("/")[2], shape=item.shape, dtype=item.dtype, chunks=item.chunks,
            shards=item.shards, dimension_names=item.metadata.dimension_names,
            attributes=dict(item.attrs), compressors=None, fill_value=item.fill_value,
            config={"write_empty_chunks": True},
        )  # fmt: skip
        array[...] = item[...]
    return target


@pytest.mark.parametrize("value", [0, np.nan, -1])
def test_chunks_of_one_value_are_data_too(tmp_path, value):
    prediction, state = Group(np.arange(3)), Group(np.arange(3), grows=frozenset({"pointer"}))
    prediction.coordinate("frame", "frame", np.arange(3), "frame")
    state.coordinate("frame", "frame", np.arange(3), "frame")
    prediction.add("depth", {"y": 200, "x": 300}, "float32", "depth", "m", "made up")
    prediction.add("pose", {"row": 4}, "float64", "pose", "m", "made up")
    prediction.add("mask", {"row": 4}, "bool", "mask", "1", "made up")
    state.add("pointer_count", {}, "int64", "pointers", "1", "made up")
    state.add("birth", {"pointer": 300}, "int64", "frame", "1", "made up")
    schema = {"prediction": prediction, "state": state}
    attrs = {"format_version": 2, "frames": 3, "sequence": {"name": "made up"}}
    root, block = create_store(schema, attrs, tmp_path / "run")
    writer = BlockWriter(root, schema, block)
    for position in range(3):
        filled = {
            name: np.full(variable.shape[1:], value if variable.dtype.kind == "f" else 0,
                          variable.dtype)
            for name, variable in prediction.variables.items() if variable.values is None
        }  # fmt: skip
        grown = {"pointer_count": np.array(280), "birth": np.full(280, -1)}
        writer.add(position, {"prediction": filled, "state": grown})
    writer.flush()
    assert check_store(tmp_path / "run") == []
    found = m3.open_run(tmp_path / "run")
    assert (found["state/birth"] == -1).all()
    np.testing.assert_array_equal(found["prediction/pose"], np.full((3, 4), value))
    remove(chunk_of(tmp_path / "run", "prediction/mask"))
    with pytest.raises(StoreError, match=r"prediction/mask.* is missing"):
        m3.open_run(tmp_path / "run")


def test_stores_of_the_first_format_open_and_miss_what_they_lost(whole, growing, tmp_path):
    for name, store in (("whole", whole), ("growing", growing)):
        old = as_format_1(store, tmp_path / name)
        for path, node in m3.open_run(store).subtree_with_keys:
            xr.testing.assert_equal(read_all(old)[path].to_dataset(), node.to_dataset())
        assert check_store(old) == []
    cut(chunk_of(tmp_path / "whole", "prediction/pose"))
    with pytest.raises(StoreError, match=r"prediction/pose.* is cut"):
        m3.open_run(tmp_path / "whole")


@pytest.mark.parametrize(
    ("version", "words"),
    [(3, "up to 2.*written by a newer one.*pip install --upgrade"), (99, "newer"),
     (0, "has format version 0"), ("two", "has format version 'two'"), (None, "no format version")],
)  # fmt: skip
def test_other_formats_are_refused_in_words(store, version, words):
    alter(store / "zarr.json", changed(format_version=version))
    with pytest.raises(StoreError, match=words):
        m3.open_run(store)


def test_the_command_reads_all_of_a_store_and_lists_all_its_damage(store, whole, capsys):
    assert main(["check", str(whole)]) == 0
    assert capsys.readouterr().out == f"{whole}: whole\n"
    remove(chunk_of(store, "prediction/pose"))
    flip(chunk_of(store, "state/norm"))
    cut(chunk_of(store, f"{SITE}/entropy"))
    assert main(["check", str(whole), str(store)]) == 1
    printed = capsys.readouterr().out
    for path in ("prediction/pose", "state/norm", f"{SITE}/entropy"):
        assert re.search(rf"^  {path}", printed, re.MULTILINE), path


@pytest.mark.parametrize("damage", [remove, cut, empty, flip])
@pytest.mark.parametrize(
    "path", ["state", "state/norm", "prediction", "prediction/frame", f"{SITE}/entropy"]
)
def test_damaged_descriptions_are_listed_beside_what_else_is_damaged(store, path, damage):
    damage(store / path / "zarr.json")
    flip(chunk_of(store, "timing/seconds"))
    found = check_store(store)
    assert any(path in line for line in found)
    if path != "prediction/frame":  # without it nobody knows which frames are whole
        assert any("timing/seconds" in line for line in found)
    with pytest.raises(StoreError, match="is damaged"):
        m3.open_run(store)
