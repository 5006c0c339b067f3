"""Checkpoint files: what is read, what is rewritten, what is refused and how nothing ever runs."""

import argparse
import contextlib
import hashlib
import json
import os
import pathlib
import pickle
import resource
import struct
import sys
import zipfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf
from safetensors.torch import load_file, save_file

from mut3r_analysis.backbones import checkpoint as checkpoint_module
from mut3r_analysis.backbones.checkpoint import (
    FORMAT,
    check_weights,
    convert_checkpoint,
    expected_shapes,
    read_checkpoint,
    write_checkpoint,
)
from mut3r_analysis.backbones.cut3r import CUT3R
from mut3r_analysis.backbones.cut3r.config import CUT3RConfig
from mut3r_analysis.backbones.loading import load_backbone
from mut3r_analysis.backbones.point3r import Point3R, Point3RConfig
from mut3r_analysis.backbones.steps import Frame
from mut3r_analysis.backbones.unpickling import load_unexecuted
from mut3r_analysis.errors import (
    AlreadyExists,
    CheckpointError,
    InvalidArgument,
    MissingFile,
    Mut3rError,
    UnreadableFile,
)

SMALL = CUT3RConfig(
    freeze="encoder",
    img_size=(64, 64),
    enc_embed_dim=64,
    enc_depth=1,
    enc_num_heads=4,
    dec_embed_dim=16,
    dec_depth=2,
    dec_num_heads=2,
    state_dec_num_heads=4,
    state_size=5,
    local_mem_size=3,
    ray_enc_depth=1,
    feature_dim=8,
    last_dim=4,
    layer_dims=(4, 6, 8, 10),
)
OFFICIAL_STRING = (
    "ARCroco3DStereo(ARCroco3DStereoConfig(freeze='encoder', state_size=5, state_pe='2d', "
    "pos_embed='RoPE100', rgb_head=True, pose_head=True, patch_embed_cls='ManyAR_PatchEmbed', "
    "img_size=(64, 64), head_type='dpt', output_mode='pts3d+pose', "
    "depth_mode=('exp', -inf, inf), conf_mode=('exp', 1, inf), pose_mode=('exp', -inf, inf), "
    "enc_embed_dim=64, enc_depth=1, enc_num_heads=4, dec_embed_dim=16, dec_depth=2, "
    "dec_num_heads=2, state_dec_num_heads=4, local_mem_size=3, ray_enc_depth=1))"
)
ARGS = argparse.Namespace(model=OFFICIAL_STRING, lr=1e-6, output_dir=pathlib.Path("checkpoints"))
DUPLICATE = "downstream_head.dpt_self.scratch.layer_rn.2.weight"
ORIGINAL = "downstream_head.dpt_self.scratch.layer3_rn.weight"


@pytest.fixture(scope="module")
def weights() -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    return CUT3R(SMALL).state_dict()


def official(path, weights, args=ARGS, **more):
    torch.save({"args": args, "model": weights, **more}, path)
    return path


def assert_same(read, written):
    assert read.keys() == written.keys()
    for name, tensor in read.items():
        assert tensor.dtype == torch.float32
        assert torch.equal(tensor, written[name].float()), name


# What is read


def test_the_official_layout_is_read_into_configuration_weights_and_hash(tmp_path, weights):
    path = official(tmp_path / "cut3r.pth", weights)
    read = read_checkpoint(str(path))
    assert read.config == SMALL
    assert read.layout == "official"
    assert read.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert_same(read.weights, weights)
    check_weights(read.weights, expected_shapes(read.config))
    CUT3R(read.config).load_state_dict(read.weights)


def hydra_args():
    register = getattr(OmegaConf, "register_resolver", OmegaConf.register_new_resolver)
    register("thrice", lambda x: 3 * x, use_cache=True, replace=True)
    args = OmegaConf.create(
        {
            "model": OFFICIAL_STRING,
            "lr": 1e-6,
            "resume": None,
            "amp": True,
            "resolution": [[512, 384], {"width": "${num_views}"}],
            "num_views": 4,
            "views": "${thrice:${num_views}}",
            "unset": "???",
            "raw": b"bytes",
            "folder": pathlib.Path("checkpoints"),
        }
    )
    assert args.views == 12
    return args


@pytest.mark.parametrize(
    "args",
    [ARGS, {"model": OFFICIAL_STRING}, hydra_args()],
    ids=["namespace", "dict", "omegaconf"],
)
def test_every_container_of_arguments_is_understood(tmp_path, args):
    read = read_checkpoint(official(tmp_path / "cut3r.pth", {"a": torch.ones(2)}, args))
    assert read.config == replace(
        SMALL, feature_dim=256, last_dim=128, layer_dims=(96, 192, 384, 768)
    )


def test_omegaconf_need_not_be_importable_and_is_not_imported(tmp_path, monkeypatch):
    path = official(tmp_path / "cut3r.pth", {"a": torch.ones(2)}, hydra_args())
    for name in [name for name in sys.modules if name.split(".")[0] == "omegaconf"]:
        monkeypatch.setitem(sys.modules, name, None)
    assert read_checkpoint(path).config.state_size == 5


def test_several_threads_may_read_at_once(tmp_path, weights):
    path = official(tmp_path / "cut3r.pth", weights)
    with ThreadPoolExecutor(4) as pool:
        hashes = set(pool.map(lambda _: read_checkpoint(path).sha256, range(12)))
    assert len(hashes) == 1


def test_what_training_adds_to_the_file_is_ignored(tmp_path, weights):
    parameter = torch.nn.Parameter(torch.ones(3))
    optimizer = torch.optim.AdamW([parameter])
    parameter.sum().backward()
    optimizer.step()
    path = official(
        tmp_path / "cut3r.pth",
        weights,
        optimizer=optimizer.state_dict(),
        scaler={"scale": 65536.0, "_growth_tracker": 0},
        epoch=np.int64(10),
        best_so_far=np.float64(0.25),
        losses=np.arange(3.0),
    )
    assert_same(read_checkpoint(path).weights, weights)


def test_the_old_torch_format_is_read(tmp_path, weights):
    path = tmp_path / "old.pth"
    torch.save({"args": ARGS, "model": weights}, path, _use_new_zipfile_serialization=False)
    assert_same(read_checkpoint(path).weights, weights)


def test_the_content_and_not_the_suffix_says_what_a_file_is(tmp_path, weights):
    assert read_checkpoint(official(tmp_path / "a.safetensors", weights)).layout == "official"
    written = write_checkpoint(tmp_path / "b.safetensors", weights, SMALL)
    assert read_checkpoint(written.rename(tmp_path / "b.pth")).layout == "safetensors"


def test_parameters_of_a_saved_model_become_plain_tensors(tmp_path, weights):
    parameters = {name: torch.nn.Parameter(tensor) for name, tensor in weights.items()}
    read = read_checkpoint(official(tmp_path / "cut3r.pth", parameters))
    assert not any(tensor.requires_grad for tensor in read.weights.values())


# What is rewritten


def test_the_rewrites_of_the_official_loader_are_applied_and_reported(tmp_path, weights):
    trained = {
        f"module.{name}": tensor
        for name, tensor in weights.items()
        if not name.startswith("dec_blocks_state.")
    }
    read = read_checkpoint(official(tmp_path / "cut3r.pth", trained))
    check_weights(read.weights, expected_shapes(SMALL))
    for name, tensor in read.weights.items():
        source = name.replace("dec_blocks_state.", "dec_blocks.")
        assert torch.equal(tensor, weights[source])
    report = "\n".join(read.report)
    for said in ("ManyAR_PatchEmbed", "landscape_only", "prefix 'module.'", "dec_blocks_state"):
        assert said in report


def test_a_prefix_that_is_not_on_every_name_is_left_alone(tmp_path, weights):
    partly = {
        f"module.{name}" if name.startswith("enc") else name: tensor
        for name, tensor in weights.items()
    }
    read = read_checkpoint(official(tmp_path / "cut3r.pth", partly))
    with pytest.raises(CheckpointError, match=r"unexpected: module\.enc_blocks"):
        check_weights(read.weights, expected_shapes(SMALL))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_weights_are_read_as_float32_and_reported(tmp_path, weights, dtype):
    halved = {name: tensor.to(dtype) for name, tensor in weights.items()}
    read = read_checkpoint(official(tmp_path / "cut3r.pth", halved))
    assert_same(read.weights, halved)
    assert f"{len(weights)} tensors stored as {str(dtype)[6:]}" in read.report[-1]


def test_the_widths_the_official_string_cannot_say_are_read_off_the_tensors(tmp_path, weights):
    read = read_checkpoint(official(tmp_path / "cut3r.pth", weights))
    assert (read.config.feature_dim, read.config.last_dim) == (8, 4)
    assert "layer_dims: (4, 6, 8, 10), as the tensors have it" in read.report


@pytest.mark.parametrize("kept", [DUPLICATE, ORIGINAL])
def test_of_a_tensor_with_two_names_one_is_enough(tmp_path, weights, kept):
    lost = ({DUPLICATE, ORIGINAL} - {kept}).pop()
    partly = {name: tensor for name, tensor in weights.items() if name != lost}
    assert_same(read_checkpoint(official(tmp_path / "cut3r.pth", partly)).weights, weights)


def test_two_names_with_different_numbers_are_an_error(tmp_path, weights):
    changed = weights | {DUPLICATE: weights[DUPLICATE] + 1}
    with pytest.raises(CheckpointError, match=r"differ from their copies.*layer_rn\.2"):
        read_checkpoint(official(tmp_path / "cut3r.pth", changed))


# What does not fit


def test_missing_unexpected_and_misshaped_tensors_are_counted_and_listed():
    expected = {f"layer.{index}": (2, 3) for index in range(40)}
    found = {name: torch.zeros(2, 3) for name in list(expected)[30:]}
    found |= {"layer.39": torch.zeros(3, 2), "extra": torch.zeros(1)}
    with pytest.raises(CheckpointError) as refused:
        check_weights(found, expected)
    message = str(refused.value)
    assert "30 missing, 1 unexpected, 1 mis-shaped of 40 tensors" in message
    assert "and 10 more" in message
    assert "unexpected: extra" in message
    assert "layer.39 (expected (2, 3), found (3, 2))" in message


def test_weights_of_another_size_do_not_pass(tmp_path, weights):
    args = {"model": OFFICIAL_STRING.replace(" enc_depth=1", " enc_depth=2")}
    read = read_checkpoint(official(tmp_path / "cut3r.pth", weights, args))
    with pytest.raises(CheckpointError, match="12 missing, 0 unexpected, 0 mis-shaped"):
        check_weights(read.weights, expected_shapes(read.config))


# What is refused unexecuted


class Hostile:
    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize("new_format", [True, False])
@pytest.mark.parametrize("place", ["file", "args", "attribute", "omegaconf", "model", "optimizer"])
def test_code_hidden_anywhere_in_a_file_is_refused_unexecuted(tmp_path, place, new_format):
    marker = tmp_path / "executed"
    hostile = Hostile(os.system, f"touch {marker}")
    entries = {"args": ARGS, "model": {"a": torch.ones(2)}}
    match place:
        case "file":
            entries = hostile
        case "attribute":
            entries["args"] = argparse.Namespace(model=OFFICIAL_STRING, seed=hostile)
        case "omegaconf":
            args = hydra_args()
            args._get_node("lr").__dict__["_val"] = hostile
            entries["args"] = args
        case _:
            entries[place] = hostile
    path = tmp_path / "cut3r.pth"
    torch.save(entries, path, _use_new_zipfile_serialization=new_format)
    with pytest.raises(CheckpointError, match=r"refused before anything in it ran.*\.system"):
        read_checkpoint(path)
    assert not marker.exists()


@pytest.mark.parametrize(
    "call",
    [
        (eval, "open('executed', 'w')"),
        (getattr, pathlib.Path("executed"), "touch"),
        (pickle.loads, b"."),
        (__import__, "this"),
        (torch.load, "executed"),
        (OmegaConf.load, "executed"),
    ],
    ids=lambda call: call[0].__qualname__,
)
def test_functions_that_are_not_stood_in_for_are_refused(tmp_path, monkeypatch, call):
    monkeypatch.chdir(tmp_path)
    path = official(tmp_path / "cut3r.pth", {}, argparse.Namespace(model=Hostile(*call)))
    with pytest.raises(CheckpointError, match="refused before anything in it ran"):
        read_checkpoint(path)
    assert [entry.name for entry in tmp_path.iterdir()] == ["cut3r.pth"]


def test_a_plain_pickle_is_refused_unexecuted(tmp_path):
    marker = tmp_path / "executed"
    path = tmp_path / "cut3r.pth"
    path.write_bytes(pickle.dumps(Hostile(os.system, f"touch {marker}"), protocol=2))
    with pytest.raises(CheckpointError, match=r"\.system"):
        read_checkpoint(path)
    assert not marker.exists()


def test_the_model_string_is_never_evaluated(tmp_path):
    marker = tmp_path / "executed"
    text = OFFICIAL_STRING.replace("state_size=5", f"state_size=open({str(marker)!r}, 'w')")
    with pytest.raises(CheckpointError, match="never evaluated"):
        read_checkpoint(official(tmp_path / "cut3r.pth", {}, {"model": text}))
    assert not marker.exists()


def test_an_object_of_a_class_that_is_not_allowed_is_named(tmp_path, weights):
    optimizer = torch.optim.AdamW([torch.nn.Parameter(torch.ones(3))])
    with pytest.raises(CheckpointError, match=r"torch\.optim\.adamw\.AdamW.*'args' and 'model'"):
        read_checkpoint(official(tmp_path / "cut3r.pth", weights, optimizer=optimizer))


def test_stand_ins_do_nothing_whatever_the_file_asks_of_them(tmp_path):
    path = tmp_path / "cut3r.pth"
    torch.save(Hostile(np.dtype, "f8", 1, 2), path)
    loaded = load_unexecuted(path)
    assert type(loaded).__name__ == "Inert"
    assert vars(loaded) == {}


def test_what_the_process_trusts_elsewhere_is_neither_used_nor_lost(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = official(tmp_path / "cut3r.pth", {}, Hostile(pathlib.Path.touch, pathlib.Path("ran")))
    trusted = [
        (pathlib.Path, "pathlib.Path"),
        (pathlib.PosixPath, "pathlib.PosixPath"),
        (getattr, "builtins.getattr"),
        (pathlib.Path.touch, "pathlib.Path.touch"),
    ]
    with torch.serialization.safe_globals(trusted):
        before = set(torch.serialization.get_safe_globals())
        with pytest.raises(CheckpointError, match="refused before anything in it ran"):
            read_checkpoint(path)
        assert set(torch.serialization.get_safe_globals()) == before
        torch.load(path, weights_only=True)
    assert (tmp_path / "ran").exists(), "the file does run where torch was told to trust it"


# What is damaged or incomplete


@pytest.mark.parametrize("new_format", [True, False])
@pytest.mark.parametrize("kept", [0.02, 0.3, 0.7, 0.999])
def test_a_truncated_official_file_is_refused(tmp_path, weights, kept, new_format):
    path = tmp_path / "cut3r.pth"
    torch.save({"args": ARGS, "model": weights}, path, _use_new_zipfile_serialization=new_format)
    content = path.read_bytes()
    path.write_bytes(content[: int(kept * len(content))])
    with pytest.raises(CheckpointError, match=r"truncated, damaged.*fetch it again"):
        read_checkpoint(path)


@pytest.mark.parametrize("kept", [12, 3000, -1])
def test_a_truncated_safetensors_file_is_refused(tmp_path, weights, kept):
    path = write_checkpoint(tmp_path / "cut3r.safetensors", weights, SMALL)
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(CheckpointError, match="truncated or damaged"):
        read_checkpoint(path)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "is empty"),
        (b"<!DOCTYPE html><html>", "not a checkpoint"),
        (b"version https://git-lfs", "not a checkpoint"),
        (b"PK\x03\x04", "truncated, damaged"),
        (b"\x80", "truncated, damaged"),
    ],
)
def test_a_file_that_is_no_checkpoint_is_refused(tmp_path, content, said):
    path = tmp_path / "cut3r.pth"
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=said):
        read_checkpoint(path)


def test_a_zip_archive_or_torchscript_is_no_checkpoint(tmp_path):
    archive = tmp_path / "archive.pth"
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("notes.txt", "hello")
    script = tmp_path / "script.pth"
    with zipfile.ZipFile(script, "w") as file:
        file.writestr("script/constants.pkl", "")
        file.writestr("script/version", "3")
    for path in (archive, script):
        with pytest.raises(CheckpointError):
            read_checkpoint(path)


@pytest.mark.parametrize(
    ("entries", "said"),
    [
        ({"args": ARGS}, "no weights under 'model'.*'args'"),
        ({"args": ARGS, "model": [1]}, "no weights under 'model'"),
        ([1, 2], "holds a list"),
        ({}, "a dict with nothing"),
        ({"enc_norm.weight": torch.ones(2)}, "bare state_dict"),
        ({"model": {}}, "has no 'args'"),
        ({"model": {}, "args": {"lr": 1}}, "without a 'model' string"),
        ({"model": {}, "args": "text"}, "without a 'model' string"),
        ({"model": {}, "args": argparse.Namespace(model=3)}, "without a 'model' string"),
        ({"model": {}, "args": OmegaConf.create({"model": "${m}", "m": 1})}, "holds the text"),
        ({"model": {"a": 1}, "args": ARGS}, "'a' of the weights is int"),
        ({"model": {"a": torch.ones(2).to_sparse()}, "args": ARGS}, "dense"),
        ({"model": {"a": torch.arange(2)}, "args": ARGS}, "torch.int64"),
        ({"model": {"a": torch.ones(2).to(torch.float8_e4m3fn)}, "args": ARGS}, "16 bits or more"),
        ({"model": {3: torch.ones(2)}, "args": ARGS}, "the entry 3"),
    ],
)
def test_an_incomplete_checkpoint_says_what_it_lacks(tmp_path, entries, said):
    path = tmp_path / "cut3r.pth"
    torch.save(entries, path)
    with pytest.raises(CheckpointError, match=said):
        read_checkpoint(path)


def test_a_path_that_is_no_file_is_told_apart(tmp_path):
    with pytest.raises(MissingFile, match="no checkpoint at"):
        read_checkpoint(tmp_path / "absent.pth")
    with pytest.raises(UnreadableFile, match="cannot read"):
        read_checkpoint(tmp_path)


@settings(
    max_examples=150,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(data=st.data())
def test_a_damaged_file_never_causes_anything_but_a_stated_error(tmp_path, data):
    path = official(tmp_path / "cut3r.pth", {"a": torch.ones(4), "b": torch.zeros(2, 2)})
    content = bytearray(path.read_bytes())
    start = content.index(b"data.pkl")
    for _ in range(data.draw(st.integers(1, 3))):
        content[data.draw(st.integers(start, start + 1500))] = data.draw(st.integers(0, 255))
    path.write_bytes(content)
    with contextlib.suppress(Mut3rError):
        read_checkpoint(path)


# Our safetensors


def test_converting_keeps_every_number_and_the_configuration(tmp_path, weights):
    source = official(tmp_path / "cut3r.pth", weights)
    target = convert_checkpoint(source, tmp_path / "cut3r.safetensors")
    read = read_checkpoint(target)
    assert read.config == SMALL
    assert read.layout == "safetensors"
    assert read.report == ()
    assert hashlib.sha256(source.read_bytes()).hexdigest() in read.card
    assert "ManyAR_PatchEmbed" in read.card
    assert_same(read.weights, weights)
    assert {entry.name for entry in tmp_path.iterdir()} == {source.name, target.name}


def test_a_tensor_with_two_names_is_stored_once(tmp_path, weights):
    stored = load_file(write_checkpoint(tmp_path / "a.safetensors", weights, SMALL))
    assert DUPLICATE not in stored
    assert ORIGINAL in stored
    assert len(weights) - len(stored) == 3 * 4


def test_the_metadata_says_format_backbone_configuration_and_card(tmp_path, weights):
    path = write_checkpoint(tmp_path / "a.safetensors", weights, SMALL, card="trained on scenes")
    (length,) = struct.unpack("<Q", path.read_bytes()[:8])
    metadata = json.loads(path.read_bytes()[8 : 8 + length])["__metadata__"]
    assert metadata == {
        "format": FORMAT,
        "backbone": "cut3r",
        "config": SMALL.to_json(),
        "card": "trained on scenes",
    }
    assert read_checkpoint(path).card == "trained on scenes"


def test_the_same_weights_make_the_same_file(tmp_path, weights):
    written = {
        write_checkpoint(tmp_path / f"{number}.safetensors", weights, SMALL, card="é").read_bytes()
        for number in range(8)
    }
    assert len(written) == 1


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", torch.float16])
def test_converting_to_half_precision_rounds_once(tmp_path, weights, dtype):
    source = official(tmp_path / "cut3r.pth", weights)
    read = read_checkpoint(convert_checkpoint(source, tmp_path / "a.safetensors", dtype=dtype))
    half = torch.bfloat16 if dtype == "bfloat16" else torch.float16
    assert_same(read.weights, {name: tensor.to(half) for name, tensor in weights.items()})
    assert "converted to float32" in read.report[0]


def test_a_number_beyond_float16_is_refused(tmp_path, weights):
    large = weights | {"pose_token": weights["pose_token"] + 1e6}
    with pytest.raises(CheckpointError, match=r"pose_token reaches 1e\+06.*bfloat16"):
        write_checkpoint(tmp_path / "a.safetensors", large, SMALL, dtype="float16")
    assert list(tmp_path.iterdir()) == []


def test_tensors_that_share_memory_can_be_written(tmp_path, weights):
    tied = weights | {"dec_norm.bias": weights["dec_norm_state.bias"]}
    assert_same(
        read_checkpoint(write_checkpoint(tmp_path / "a.safetensors", tied, SMALL)).weights, tied
    )


def test_weights_that_do_not_fit_are_not_converted(tmp_path, weights):
    lacking = {name: tensor for name, tensor in weights.items() if name != "pose_token"}
    with pytest.raises(CheckpointError, match="missing: pose_token"):
        convert_checkpoint(official(tmp_path / "cut3r.pth", lacking), tmp_path / "a.safetensors")
    assert not (tmp_path / "a.safetensors").exists()


def test_an_existing_target_is_kept_unless_told_otherwise(tmp_path, weights):
    source = official(tmp_path / "cut3r.pth", weights)
    target = tmp_path / "a.safetensors"
    target.write_text("precious")
    with pytest.raises(AlreadyExists, match="overwrite=True"):
        convert_checkpoint(source, target)
    assert target.read_text() == "precious"
    convert_checkpoint(source, target, overwrite=True)
    assert read_checkpoint(target).config == SMALL
    convert_checkpoint(target, target, overwrite=True)
    assert_same(read_checkpoint(target).weights, weights)


def test_a_wrong_suffix_or_dtype_is_refused_before_reading(tmp_path):
    with pytest.raises(InvalidArgument, match=r"must end in \.safetensors"):
        convert_checkpoint(tmp_path / "absent.pth", tmp_path / "a.pth")
    with pytest.raises(InvalidArgument, match="float32, float16, bfloat16"):
        convert_checkpoint(tmp_path / "absent.pth", tmp_path / "a.safetensors", dtype="int8")


def test_a_full_disk_leaves_nothing_behind(tmp_path, weights):
    source = official(tmp_path / "cut3r.pth", weights)
    target = tmp_path / "a.safetensors"
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    # The system then refuses to write past the limit, as it does on a full disk.
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, limits[1]))
    try:
        with pytest.raises(CheckpointError, match=r"could not write.*free some space"):
            convert_checkpoint(source, target)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert [entry.name for entry in tmp_path.iterdir()] == [source.name]


def test_a_folder_that_does_not_exist_is_said(tmp_path, weights):
    with pytest.raises(CheckpointError, match="a folder that exists"):
        write_checkpoint(tmp_path / "absent" / "a.safetensors", weights, SMALL)


def test_what_does_not_read_back_is_never_renamed_into_place(tmp_path, weights, monkeypatch):
    def corrupting(tensors, path, metadata):
        save_file(tensors | {"pose_token": tensors["pose_token"] + 1}, path, metadata)

    monkeypatch.setattr(checkpoint_module, "save_file", corrupting)
    with pytest.raises(CheckpointError, match="reading it back gave other values"):
        write_checkpoint(tmp_path / "a.safetensors", weights, SMALL)
    assert list(tmp_path.iterdir()) == []


def test_a_written_file_has_the_permissions_of_any_new_file(tmp_path, weights):
    (tmp_path / "plain").touch()
    target = write_checkpoint(tmp_path / "a.safetensors", weights, SMALL)
    assert target.stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_an_interruption_leaves_the_old_target_whole(tmp_path, weights, monkeypatch):
    target = write_checkpoint(tmp_path / "a.safetensors", weights, SMALL)

    def interrupted(tensors, path, metadata):
        path.write_bytes(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr(checkpoint_module, "save_file", interrupted)
    with pytest.raises(KeyboardInterrupt):
        write_checkpoint(target, weights, SMALL, overwrite=True)
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.safetensors"]
    assert_same(read_checkpoint(target).weights, weights)


# Configurations from the caller


def test_a_file_without_configuration_says_so_and_takes_a_given_one(tmp_path, weights):
    path = tmp_path / "a.safetensors"
    save_file({name: t.clone() for name, t in weights.items()}, path, {"format": "pt"})
    with pytest.raises(CheckpointError, match=r"no configuration in its metadata; pass config="):
        read_checkpoint(path)
    read = read_checkpoint(path, config=SMALL)
    assert read.config == SMALL
    assert_same(read.weights, weights)
    assert "configuration given by the caller" in read.report[0]


def test_an_official_file_in_unknown_words_takes_a_given_configuration(tmp_path, weights):
    args = {"model": OFFICIAL_STRING.replace("(freeze", "(with_gru=True, freeze")}
    path = official(tmp_path / "cut3r.pth", weights, args)
    with pytest.raises(CheckpointError, match="with_gru"):
        read_checkpoint(path)
    read = read_checkpoint(path, config=SMALL)
    assert read.config == SMALL
    assert "with_gru" in read.report[0]


@pytest.mark.parametrize("layout", ["official", "safetensors"])
def test_a_given_configuration_must_agree_with_the_file(tmp_path, weights, layout):
    if layout == "official":
        path = official(tmp_path / "cut3r.pth", weights)
    else:
        path = write_checkpoint(tmp_path / "a.safetensors", weights, SMALL)
    assert read_checkpoint(path, config=SMALL).config == SMALL
    with pytest.raises(CheckpointError, match=r"dec_num_heads \(file: 2, given: 4\)"):
        read_checkpoint(path, config=replace(SMALL, dec_num_heads=4))


@pytest.mark.parametrize(
    ("metadata", "said"),
    [
        ({"format": "mut3r_analysis/2", "config": SMALL.to_json()}, "mut3r_analysis/2"),
        ({"config": SMALL.to_json()}, "is of format None"),
        ({"format": FORMAT, "config": "{"}, "cannot be used"),
        ({"format": FORMAT, "config": "[1]"}, "cannot be used"),
        ({"format": FORMAT, "config": '{"gru": 1}'}, "configuration: unknown"),
        ({"format": FORMAT, "config": '{"enc_embed_dim": 65}'}, "multiple of"),
    ],
)
def test_a_configuration_that_cannot_be_used_is_refused(tmp_path, metadata, said):
    path = tmp_path / "a.safetensors"
    save_file({"a": torch.ones(2)}, path, metadata)
    with pytest.raises(CheckpointError, match=said):
        read_checkpoint(path)


def test_a_checkpoint_prints_without_its_tensors(tmp_path, weights):
    text = repr(read_checkpoint(official(tmp_path / "cut3r.pth", weights)))
    assert "CUT3RConfig" in text
    assert "tensor(" not in text


# Other kinds of model

POINTS = Point3RConfig(
    freeze="encoder",
    img_size=(64, 64),
    enc_embed_dim=32,
    enc_depth=1,
    enc_num_heads=4,
    dec_embed_dim=24,
    dec_depth=2,
    dec_num_heads=2,
    memory_dec_num_heads=3,
    local_mem_size=3,
    value_depth=2,
    value_num_heads=2,
    feature_dim=8,
    last_dim=4,
    layer_dims=(4, 6, 8, 10),
)
POINTS_STRING = (
    "Point3R(Point3RConfig(freeze='encoder', pos_embed='RoPE100', pos_embed_3d='RoPE3D100', "
    "pose_head=True, patch_embed_cls='ManyAR_PatchEmbed', img_size=(64, 64), head_type='dpt', "
    "output_mode='pts3d+pose', depth_mode=('exp', -inf, inf), conf_mode=('exp', 1, inf), "
    "pose_mode=('exp', -inf, inf), enc_embed_dim=32, enc_depth=1, enc_num_heads=4, "
    "dec_embed_dim=24, dec_depth=2, dec_num_heads=2, memory_dec_num_heads=3, local_mem_size=3, "
    "value_num_heads=2, landscape_only=False))"
)


@pytest.fixture(scope="module")
def points_weights() -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    return Point3R(POINTS).state_dict()


def test_the_name_in_the_constructor_string_says_which_model_it_is(tmp_path, points_weights):
    path = official(tmp_path / "point3r.pth", points_weights, {"model": POINTS_STRING})
    read = read_checkpoint(path)
    assert read.config == POINTS
    assert "value_depth: 2, as the tensors have it" in read.report
    assert_same(read.weights, points_weights)
    check_weights(read.weights, expected_shapes(read.config))
    model = load_backbone(path, device="cpu")
    assert isinstance(model, Point3R)
    assert model.origin.report == read.report


def test_safetensors_say_which_model_they_hold(tmp_path, points_weights):
    source = official(tmp_path / "point3r.pth", points_weights, {"model": POINTS_STRING})
    path = convert_checkpoint(source, tmp_path / "point3r.safetensors")
    read = read_checkpoint(path)
    assert read.config == POINTS
    assert_same(read.weights, points_weights)
    assert isinstance(load_backbone(path, device="cpu"), Point3R)


def test_files_of_before_there_was_a_second_model_hold_a_cut3r(tmp_path, weights):
    path = tmp_path / "a.safetensors"
    tensors = {name: tensor.clone() for name, tensor in weights.items()}
    save_file(tensors, path, {"format": FORMAT, "config": SMALL.to_json()})
    assert read_checkpoint(path).config == SMALL


def test_a_kind_of_model_that_is_not_built_here_is_named(tmp_path):
    path = tmp_path / "a.safetensors"
    metadata = {"format": FORMAT, "config": "{}", "backbone": "spline"}
    save_file({"a": torch.ones(2)}, path, metadata)
    with pytest.raises(CheckpointError, match=r"'spline'.*builds cut3r, point3r"):
        read_checkpoint(path)


def test_a_given_configuration_of_another_kind_contradicts_the_file(tmp_path, points_weights):
    path = official(tmp_path / "point3r.pth", points_weights, {"model": POINTS_STRING})
    with pytest.raises(CheckpointError, match=r"family \(file: 'point3r', given: 'cut3r'\)"):
        read_checkpoint(path, config=SMALL)


def test_what_a_point3r_starts_from_dust3r_is_copied_and_reported(tmp_path, points_weights):
    started = {
        name: tensor
        for name, tensor in points_weights.items()
        if not name.startswith(("dec_blocks_memory.", "pts_patch_embed."))
    }
    # Image and memory side have the same shapes whatever their heads.
    path = official(tmp_path / "point3r.pth", started, {"model": POINTS_STRING})
    read = read_checkpoint(path)
    check_weights(read.weights, expected_shapes(POINTS))
    for name, tensor in read.weights.items():
        source = name.replace("dec_blocks_memory.", "dec_blocks.")
        source = source.replace("pts_patch_embed.", "patch_embed.")
        assert torch.equal(tensor, points_weights[source])
    report = "\n".join(read.report)
    for said in ("no dec_blocks_memory.*", "no pts_patch_embed.*", "decoder of pointers"):
        assert said in report


# The reference weights


def constructor_of(settings, calls=("ARCroco3DStereo", "ARCroco3DStereoConfig")):
    """Return the constructor string of an official checkpoint with these keyword values."""
    official_words = settings | {"patch_embed_cls": "ManyAR_PatchEmbed", "landscape_only": True}
    keywords = ", ".join(
        f"{name}={tuple(value) if isinstance(value, list) else value!r}"
        for name, value in official_words.items()
        if name not in ("dpt_adapter_dims_overridden_for_size", "norm")
    )
    return f"{calls[0]}({calls[1]}({keywords}))"


@pytest.mark.parametrize("head", ["dpt", "linear"])
@pytest.mark.parametrize("args", ["namespace", "omegaconf"])
def test_the_golden_weights_in_the_official_layout_give_the_golden_numbers(
    golden, tmp_path, head, args
):
    stored = golden.weights(f"weights_{head}")
    text = constructor_of(golden.settings()["tiny"][head])
    holder = (
        argparse.Namespace(model=text) if args == "namespace" else OmegaConf.create({"model": text})
    )
    path = official(tmp_path / "cut3r.pth", stored, holder, epoch=10)
    read = read_checkpoint(path)
    assert_same(read.weights, stored)
    check_weights(read.weights, expected_shapes(read.config))
    target = convert_checkpoint(path, tmp_path / "cut3r.safetensors", dtype="float16")
    assert_same(read_checkpoint(target).weights, stored)
    images = torch.from_numpy(golden.arrays("inputs")["img"])
    arrays = golden.arrays(f"outputs_cut3r_{head}")
    expected = {name: torch.from_numpy(values) for name, values in arrays.items()}
    for source in (path, target):
        backbone, state, steps = load_backbone(source, device="cpu"), None, []
        for image in images:
            steps.append(backbone.step(Frame(image[None]), state))
            state = steps[-1].state
        found = {
            "camera_pose": (torch.cat([step.prediction.pose for step in steps]), 0, 2e-5),
            "state": (torch.cat([step.state.tokens for step in steps]), 0, 2e-5),
            "conf": (torch.cat([step.prediction.confidence_world for step in steps]), 1e-4, 1e-4),
            "pts3d_in_self_view": (
                torch.cat([step.prediction.points_self for step in steps]),
                1e-4,
                5e-4,
            ),
        }
        for name, (values, rtol, atol) in found.items():
            wanted = expected[name][1:] if name == "state" else expected[name]
            torch.testing.assert_close(values, wanted, rtol=rtol, atol=atol, msg=name)


def test_golden_point3r_weights_in_the_official_layout_give_the_golden_poses(golden, tmp_path):
    settings, stored = golden.settings("point3r"), golden.weights("point3r/weights")
    heads = settings["value_encoder_overridden_for_size"]["enc_num_heads"]
    text = constructor_of(
        settings["tiny"] | {"value_num_heads": heads}, ("Point3R", "Point3RConfig")
    )
    path = official(tmp_path / "point3r.pth", stored, {"model": text})
    target = convert_checkpoint(path, tmp_path / "point3r.safetensors", dtype="float16")
    images = golden.arrays("point3r/inputs")["images_uint8"]
    expected = golden.arrays("point3r/outputs")["camera_pose"]
    for source in (path, target):
        backbone, state, poses = load_backbone(source, device="cpu"), None, []
        for image in images:
            pixels = (torch.from_numpy(image).float() / 255 - 0.5) / 0.5
            step = backbone.step(Frame(pixels.permute(2, 0, 1)[None]), state)
            state = step.state
            poses.append(step.prediction.pose[0])
        np.testing.assert_allclose(torch.stack(poses), expected, rtol=0, atol=3e-5)
