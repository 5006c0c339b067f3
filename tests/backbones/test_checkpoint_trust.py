"""A checkpoint is read right or not at all: what tools and damage do to files of weights."""

import pickle
import resource
import zipfile

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

import mut3r_analysis as m3
from mut3r_analysis.backbones.checkpoint import read_checkpoint
from mut3r_analysis.errors import CheckpointError


@pytest.fixture(scope="module")
def backbone():
    return m3.load_backbone("tiny")


@pytest.fixture(scope="module")
def weights(backbone):
    return backbone.state_dict()


def saved(path, entries, new_format=True):
    torch.save({"model": entries}, path, _use_new_zipfile_serialization=new_format)
    return path


def repacked(source, target, compression, change=lambda name, content: content):
    """Write an archive again, as a tool that compresses or edits it would."""
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w", compression) as new:
        for entry in old.infolist():
            new.writestr(entry.filename, change(entry.filename, old.read(entry)))
    return target


def assert_same(read, weights):
    assert read.weights.keys() == weights.keys()
    for name, tensor in weights.items():
        assert torch.equal(read.weights[name], tensor), name


PREFIXES = [
    "module.", "_orig_mod.", "model.", "module._orig_mod.", "_orig_mod.module.",
    "model._orig_mod.", "module.module.",
]  # fmt: skip


@pytest.mark.parametrize("layout", ["official", "safetensors"])
@pytest.mark.parametrize("prefix", PREFIXES)
def test_prefixes_that_tools_leave_are_stripped_and_reported(
    tmp_path, backbone, weights, prefix, layout
):
    named = {prefix + name: tensor.clone() for name, tensor in weights.items()}
    path = tmp_path / "weights.pth"
    if layout == "official":
        saved(path, named)
    else:
        save_file(named, path)
    read = read_checkpoint(path, config=backbone.config)
    assert_same(read, weights)
    assert f"prefix '{prefix}' stripped from all {len(weights)} names" in read.report
    assert m3.load_backbone(path, config=backbone.config).origin.report == read.report


def test_what_compiling_a_part_leaves_within_names_goes_too(tmp_path, backbone, weights):
    start = "dec_blocks.0."
    named = {name.replace(start, f"{start}_orig_mod."): tensor for name, tensor in weights.items()}
    marked = sum("_orig_mod" in name for name in named)
    assert marked > 10
    read = read_checkpoint(saved(tmp_path / "w.pth", named), config=backbone.config)
    assert_same(read, weights)
    assert f"'_orig_mod.' taken out of {marked} names" in read.report


@pytest.mark.parametrize(
    "compression", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA]
)
def test_compressed_archives_give_the_same_numbers_or_none(
    tmp_path, backbone, weights, compression
):
    plain = saved(tmp_path / "plain.pth", weights)
    packed = repacked(plain, tmp_path / "packed.pth", compression)
    if compression in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        assert_same(read_checkpoint(packed, config=backbone.config), weights)
    else:
        with pytest.raises(CheckpointError, match=r"packed\.pth"):
            read_checkpoint(packed, config=backbone.config)


def test_an_archive_that_unpacks_to_far_more_than_its_size_is_refused(tmp_path, backbone):
    plain = saved(tmp_path / "plain.pth", {"a": torch.zeros(2**20)})
    packed = repacked(plain, tmp_path / "packed.pth", zipfile.ZIP_DEFLATED)
    with pytest.raises(CheckpointError, match="unpacks to more than 8 times its size"):
        read_checkpoint(packed, config=backbone.config)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda content: content[:-4], "declares 4000 bytes .* holds 3996"),
        (lambda content: b"", "holds 0"),
        (lambda content: content + content, "holds 8000"),
    ],
    ids=["cut", "empty", "twice"],
)
def test_numbers_are_never_taken_from_the_bytes_of_others(tmp_path, backbone, change, words):
    plain = saved(tmp_path / "plain.pth", {"a": torch.ones(1000), "b": torch.zeros(1000)})
    altered = repacked(
        plain, tmp_path / "altered.pth", zipfile.ZIP_STORED,
        lambda name, content: change(content) if name.endswith("/data/0") else content,
    )  # fmt: skip
    with pytest.raises(CheckpointError, match=words):
        read_checkpoint(altered, config=backbone.config)


@pytest.mark.parametrize("place", [0.2, 0.5, 0.8])
def test_a_flipped_bit_is_found(tmp_path, backbone, weights, place):
    path = saved(tmp_path / "w.pth", weights)
    content = bytearray(path.read_bytes())
    content[int(place * len(content))] ^= 1
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=r"checksum|damaged"):
        read_checkpoint(path, config=backbone.config)


class Called:
    """Pickles as a call of a function."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


class Encoded:
    """Pickles as bytes that are encoded to twice their length, again and again."""

    def __reduce__(self):
        import _codecs

        value = Called(_codecs.encode, "ab", "utf-16")
        for _ in range(30):
            value = Called(_codecs.encode, value, "hex")
        return _codecs.encode, (value, "hex")


GREEDY = {
    "bytearray": lambda: Called(bytearray, 4 * 2**30),
    "storage": lambda: Called(torch.UntypedStorage, 4 * 2**30),
    "tensor": lambda: Called(torch.Tensor, 2**15, 2**15),
    "encoded": Encoded,
    "expanded": lambda: torch.ones(1).expand(2**15, 2**15),
    "overlapping": lambda: torch.ones(2**15).as_strided((2**14, 2**14), (1, 1)),
    "many views": lambda: [torch.ones(2**12).expand(2**18, 2**12)] * 3,
}


@pytest.mark.parametrize("new_format", [True, False])
@pytest.mark.parametrize("kind", GREEDY)
def test_a_small_file_cannot_fill_the_memory(tmp_path, backbone, kind, new_format):
    found = GREEDY[kind]()
    entries = {f"a{i}": item for i, item in enumerate(found if kind == "many views" else [found])}
    path = saved(tmp_path / "greedy.pth", entries, new_format)
    assert path.stat().st_size < 2**18
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(CheckpointError, match=r"refused before|again and again"):
        read_checkpoint(path, config=backbone.config)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 64 * 2**10  # KiB


@pytest.mark.parametrize("count", [2**20, 2**33, 2**60])
@pytest.mark.parametrize("new_format", [True, False])
def test_storages_that_declare_more_than_the_file_are_refused(
    tmp_path, backbone, monkeypatch, new_format, count
):
    path = saved(tmp_path / "w.pth", {"a": torch.ones(1000)}, new_format)
    content = path.read_bytes()
    declared = pickle.BININT2 + (1000).to_bytes(2, "little")
    huge = pickle.LONG1 + bytes([8]) + count.to_bytes(8, "little")

    def change(name, text):
        if not name.endswith("data.pkl"):
            return text
        assert text.count(declared) >= 1
        return text.replace(declared, huge, 1)

    if new_format:
        path = repacked(path, tmp_path / "huge.pth", zipfile.ZIP_STORED, change)
    else:
        path.write_bytes(change("data.pkl", content))
    with pytest.raises(CheckpointError, match=r"declares|declare"):
        read_checkpoint(path, config=backbone.config)


def test_views_and_shared_tensors_are_read_as_they_are(tmp_path, backbone):
    base = torch.arange(24.0).reshape(4, 6)
    entries = {
        "transposed": base.T, "sliced": base[:, 2:4], "row": base[1], "again": base,
        "half": torch.arange(7.0).half().expand(2, 7),
    }  # fmt: skip
    for new_format in (True, False):
        path = saved(tmp_path / f"{new_format}.pth", entries, new_format)
        read = read_checkpoint(path, config=backbone.config).weights
        for name, tensor in entries.items():
            assert torch.equal(read[name], tensor.float()), name


@pytest.mark.parametrize("layout", ["official", "old", "safetensors"])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_weights_that_are_no_numbers_are_named(tmp_path, backbone, weights, value, layout):
    bad = {name: tensor.clone() for name, tensor in weights.items()}
    chosen = sorted(name for name in weights if name.startswith("dec_blocks.1"))[:2]
    for name in chosen:
        bad[name].view(-1)[-1] = value
    path = tmp_path / "w.pth"
    if layout == "safetensors":
        save_file(bad, path)
    else:
        saved(path, bad, layout == "official")
    with pytest.raises(CheckpointError, match=r"2 of .* tensors hold NaN or infinite") as raised:
        m3.load_backbone(path, config=backbone.config)
    assert all(name in str(raised.value) for name in chosen)
