"""Spann3R computes what the official implementation computes, array by array."""

import gzip
import json
from argparse import Namespace
from collections import defaultdict
from dataclasses import replace

import numpy as np
import pytest
import torch

from mut3r_analysis.attention import logits
from mut3r_analysis.attention.seam import observed
from mut3r_analysis.backbones import (
    Frame,
    Preparation,
    Spann3R,
    Spann3RConfig,
    load_backbone,
    read_checkpoint,
    write_checkpoint,
)
from mut3r_analysis.backbones.constructor_string import parse_constructor
from mut3r_analysis.backbones.random_weights import NAMED_CONFIGS
from mut3r_analysis.backbones.spann3r.bank import read_weights
from mut3r_analysis.backbones.steps import FrameRead, Write
from mut3r_analysis.errors import CheckpointError, InvalidArgument

TOLERANCES = {"pts3d": 5e-4, "conf": 5e-5, "weights": 1e-5, "usage": 2e-4, "similarity": 1e-5}
"""What an array's name holds -> absolute tolerance; 5e-5 of all others."""

EXACT = ("bank_ids", "bank_size", "skipped", "count_after_write", "long_counter", "working_counter")


def configuration(golden, **changes) -> Spann3RConfig:
    settings = golden.settings("spann3r")
    own = settings["spann3r"]
    values = settings["tiny"]["dpt"] | settings["dpt_widths_overridden_for_size"]
    assert (own["E"], own["D"]) == (values["enc_embed_dim"], values["dec_embed_dim"])
    values |= {
        "value_depth": own["value_depth"],
        "value_num_heads": own["value_heads"],
        **{name: own[name] for name in ("landscape_only", "mem_pos_enc", "use_feat")},
    }
    return Spann3RConfig.from_dict(values | changes)


def model_of(golden, **changes) -> Spann3R:
    model = Spann3R(configuration(golden, **changes))
    model.load_state_dict(golden.weights("spann3r/weights"))
    return model.eval().requires_grad_(False)


@pytest.fixture(scope="module")
def model(golden) -> Spann3R:
    return model_of(golden)


def network_input(images: np.ndarray) -> torch.Tensor:
    """Frames ``(frame, y, x, rgb)`` uint8 as ``(frame, 1, rgb, y, x)``."""
    return ((torch.from_numpy(images).float() / 255 - 0.5) / 0.5).permute(0, 3, 1, 2)[:, None]


def as_official(points: torch.Tensor) -> torch.Tensor:
    """A map ``(batch, y, x, ...)`` as official code returns it: portrait frames transposed."""
    return points.transpose(1, 2) if points.shape[1] > points.shape[2] else points


def check(name: str, found, expected: np.ndarray) -> None:
    found = np.asarray(found)
    assert found.shape == expected.shape, (name, found.shape, expected.shape)
    if name in EXACT:
        np.testing.assert_array_equal(found, expected, err_msg=name)
        return
    atol = next((value for part, value in TOLERANCES.items() if part in name), 5e-5)
    np.testing.assert_allclose(found, expected, rtol=0, atol=atol, err_msg=name)


class Walk:
    """Everything that a model does with a sequence, step by step."""

    def __init__(self, model: Spann3R, images: np.ndarray) -> None:
        self.patches = 0
        self.pruned: list[np.ndarray] = []
        self.steps: dict[str, list] = defaultdict(list)
        self.modules: list[dict[str, torch.Tensor]] = []
        frames = network_input(images)
        seen: dict[str, torch.Tensor] = {}
        hooks = [
            module.register_forward_hook(lambda *args, name=name: seen.update({name: args[-1]}))
            for name, module in watched_modules(model).items()
        ]
        with torch.no_grad():
            encoded = [model.encode(Frame(image)) for image in frames]
            state = model.begin()
            for t, image in enumerate(frames):
                following = encoded[t + 1] if t + 1 < len(frames) else None
                seen.clear()
                state = self._step(model, t, Frame(image), encoded[t], following, state)
                self.modules.append(dict(seen))
        for hook in hooks:
            hook.remove()

    def _step(self, model, t, frame, encoded, following, state):
        encoded = replace(encoded, following=following)
        self.patches = encoded.grid[0] * encoded.grid[1]
        steps, maps = self.steps, {}

        def probe(site, q, k):
            if site.kind == "bank_read":
                maps["read"] = logits(q, k).softmax(dim=-1)[0, 0]

        decoded = model.decode(model.enter(encoded, state), probe=probe)
        prediction = model.predict(decoded)
        steps["pts3d"].append(as_official(prediction.points_world)[0])
        steps["conf"].append(as_official(prediction.confidence_world)[0])
        if following is None:
            after, rate = model.commit(
                FrameRead(frame, encoded, decoded, prediction), state, Write()
            )
            assert after.bank is state.bank
            assert not rate.any()
            return after
        key, value = model.offer(encoded, decoded, prediction.points_world)
        points, confidence = model.dust3r.downstream_head2(
            [following.features, *decoded.second], decoded.grid
        )
        if "read" in maps:
            steps["read_usage_after"].append(state.bank.usage[0] + decoded.usage[0])
            steps["read_query"].append(state.query[0])
            steps["read_fused"].append(decoded.fused[0])
            steps["read_weights"].append(maps["read"])
        before, limits = state.bank, (model.config.working_frames, model.config.long_tokens)
        state, _ = model.commit(FrameRead(frame, encoded, decoded, prediction), state, Write())
        if limits[1] is not None and len(state.bank) < len(before):
            grown = before.read(decoded.usage).offered(key, value, state.read, limits[0], 10**6)
            self.pruned.append(grown.bank.worth(limits[0]))
        for name, found in {
            "key": key[0],
            "value": value[0],
            "second_pts3d": as_official(points)[0],
            "second_conf": as_official(confidence)[0],
            "similarity": state.similarity[0],
            "skipped": state.skipped[0],
            "bank": state.bank,
        }.items():
            steps[name].append(found)
        return state

    def stacked(self) -> dict[str, np.ndarray]:
        """Arrays as the reference files hold them, a row per step."""
        found = {
            name: np.stack([np.asarray(value) for value in self.steps[name]])
            for name in (
                "pts3d", "conf", "second_conf", "key", "value", "similarity", "skipped",
            )
        }  # fmt: skip
        banks = self.steps["bank"]
        found["bank_size"] = np.array([len(bank) for bank in banks])
        found["working_counter"] = np.array([int(bank.working) for bank in banks])
        found["long_counter"] = np.array([bank.long_tokens(self.patches) for bank in banks])
        ids = [(bank.frame * self.patches + bank.patch)[0] for bank in banks]
        found["bank_ids"] = padded(ids, -1)
        found["usage_after_write"] = padded([bank.usage[0] for bank in banks], np.nan)
        found["count_after_write"] = padded([bank.count[0].float() for bank in banks], np.nan)
        if self.steps["read_query"]:
            found["read_usage_after"] = padded(self.steps["read_usage_after"], np.nan)
            found["read_query"] = torch.stack(self.steps["read_query"]).numpy()
            found["read_fused"] = torch.stack(self.steps["read_fused"]).numpy()
        return found


def padded(rows: list[torch.Tensor], fill: float) -> np.ndarray:
    return torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=fill).numpy()


def by_id(ids: np.ndarray, *columns: np.ndarray) -> list[np.ndarray]:
    """Order each row by token, so that banks compare as sets; padding comes last."""
    order = np.argsort(np.where(ids < 0, np.iinfo(np.int64).max, ids), axis=-1, kind="stable")
    return [np.take_along_axis(values, order, axis=-1) for values in (ids, *columns)]


def watched_modules(model: Spann3R) -> dict[str, torch.nn.Module]:
    pair = model.dust3r
    blocks = {
        "dec1_block": pair.dec_blocks, "dec2_block": pair.dec_blocks2,
        "value_block": model.value_encoder,
    }  # fmt: skip
    return {
        "key1": model.attn_head_1,
        "key2": model.attn_head_2,
        "head1_raw": pair.downstream_head1.dpt,
        "value_embed": model.pos_patch_embed,
        "value_out": model.value_out,
        **{f"{name}{i}": block for name, list_ in blocks.items() for i, block in enumerate(list_)},
    }


@pytest.fixture(scope="module")
def main(golden, model) -> Walk:
    return Walk(model, golden.arrays("spann3r/inputs")["images_uint8"])


def test_network_input(golden):
    arrays = golden.arrays("spann3r/inputs")
    found = network_input(arrays["images_uint8"])[:, 0]
    np.testing.assert_array_equal(found, arrays["img"])


def test_outputs_of_every_frame(golden, main):
    expected, found = golden.arrays("spann3r/outputs"), main.stacked()
    seconds = main.steps["second_pts3d"]
    for name, values in expected.items():
        if name.startswith("second_pts3d_step"):
            step = int(name.removeprefix("second_pts3d_step"))
            check(name, seconds[step][None], values)
        else:
            check(name, found[name], values)
    assert {"pts3d", "conf", "second_conf"} < set(expected)


def test_the_memory_of_every_step(golden, main):
    expected, found = golden.arrays("spann3r/memory"), main.stacked()
    reads = [name for name in expected if name.endswith("_weights")]
    for name in expected:
        if name in reads:
            step = int(name.removeprefix("read").removesuffix("_weights"))
            check(name, main.steps["read_weights"][step - 1], expected[name])
        else:
            check(name, found[name], expected[name])
    assert len(reads) == len(expected["read_query"])


def test_every_intermediate_of_step_1(golden, model, main):
    expected = golden.arrays("spann3r/intermediates_step1")
    images = golden.arrays("spann3r/inputs")["images_uint8"]
    frames = [model.encode(Frame(image)) for image in network_input(images)[1:3]]
    found = dict(main.modules[1])
    found |= {f"feat_frame{t}": each.features for t, each in enumerate(frames, start=1)}
    norm, last = model.dust3r.dec_norm, model.config.dec_depth - 1
    found |= {f"dec{view}_normed": norm(found[f"dec{view}_block{last}"]) for view in (1, 2)}
    rows, columns = frames[0].grid
    for name, values in expected.items():
        value = found[name]
        if rows > columns and name.startswith(("value_block", "value_out")):
            # Here the patches stand in the frame's order, there in that of the transposed map.
            value = value.unflatten(1, (rows, columns)).transpose(1, 2).flatten(1, 2)
        check(name, value, values)
    assert {"head1_raw", "value_embed", "key1", "key2", f"dec2_block{last}"} < set(expected)


def limits_of(working: int, long: int) -> dict[str, int | None]:
    """Limits as the official code counts them; no long-term memory is a sliding window."""
    return {"working_frames": working, "long_tokens": long or None}


@pytest.fixture(scope="module")
def pruned(golden) -> Walk:
    limits = golden.arrays("spann3r/pruning")["limits"].tolist()
    images = golden.arrays("spann3r/inputs")["prune_images_uint8"]
    return Walk(model_of(golden, **limits_of(*limits)), images)


def test_a_bank_that_is_pruned_holds_the_official_tokens(golden, pruned):
    expected, found = golden.arrays("spann3r/pruning"), pruned.stacked()
    rows = ("usage_after_write", "count_after_write")
    ours = by_id(found["bank_ids"], *(found[name] for name in rows))
    theirs = by_id(expected["bank_ids"], *(expected[name] for name in rows))
    for name, one, other in zip(("bank_ids", *rows), ours, theirs, strict=True):
        check(name, one, other)
    # A read follows the write of the step before, whose rows it is counted on.
    read = "read_usage_after"
    _, ours = by_id(found["bank_ids"][:-1], found[read])
    _, theirs = by_id(expected["bank_ids"][:-1], expected[read])
    check(read, ours, theirs)
    for name in ("bank_size", "skipped", "long_counter", "working_counter", "key", "value", "conf"):
        check(name, found[name], expected[name])
    last = len(expected["last_pts3d"])
    check("last_pts3d", found["pts3d"][-last:], expected["last_pts3d"])
    check("last_conf", found["conf"][-last:], expected["last_conf"])
    check("fused_last", found["read_fused"][-1:], expected["fused_last"])
    prunes = sorted(name for name in expected if name.startswith("prune"))
    assert len(pruned.pruned) == len(prunes) > 0
    compared = {*rows, read, *prunes, "limits", "bank_ids", "similarity"}
    assert {"bank_size", "last_pts3d", *compared} < set(expected)


def test_similarities_until_a_prune_leaves_their_order_open(golden, pruned):
    expected, found = golden.arrays("spann3r/pruning"), pruned.stacked()
    shrinks = np.flatnonzero(np.diff(expected["bank_size"]) < 0)
    first = int(shrinks[0]) + 1
    check("similarity", found["similarity"][: first + 1], expected["similarity"][: first + 1])
    assert not found["skipped"].any()


def test_what_pruning_goes_by(golden, pruned):
    expected = golden.arrays("spann3r/pruning")
    for number, ours in enumerate(pruned.pruned):
        theirs = expected[f"prune{number}_weights"]
        # The order of rows is known until the first prune, and their multiset after it.
        ours, theirs = (each if not number else np.sort(each) for each in (ours[0].numpy(), theirs))
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=2e-4, err_msg=str(number))


def test_a_sliding_window(golden):
    expected = golden.arrays("spann3r/variants")
    ids = expected["window_bank_ids"]
    working = int((ids[-1] >= 0).sum())
    images = golden.arrays("spann3r/inputs")["prune_images_uint8"][: len(ids) + 1]
    patches = images.shape[1] * images.shape[2] // 256
    walk = Walk(model_of(golden, **limits_of(working // patches, 0)), images)
    found = walk.stacked()
    check("bank_ids", found["bank_ids"], ids)
    check("pts3d", found["pts3d"][-1:], expected["window_last_pts3d"])
    check("conf", found["conf"][-1:], expected["window_last_conf"])


def test_portrait_and_square_frames(golden, model):
    inputs, expected = golden.arrays("spann3r/inputs"), golden.arrays("spann3r/variants")
    portrait = Walk(model, inputs["portrait_uint8"]).stacked()
    check("portrait_pts3d", portrait["pts3d"], expected["portrait_pts3d"])
    check("portrait_conf", portrait["conf"], expected["portrait_conf"])
    square = Walk(model, inputs["square_uint8"]).stacked()
    check("square_conf", square["conf"], expected["square_conf"])
    check("square_last_pts3d", square["pts3d"][-1:], expected["square_last_pts3d"])
    names = {name.split("_")[0] for name in expected}
    assert names == {"window", "portrait", "square"}


def test_a_portrait_frame_may_be_embedded_as_it_is(golden, model):
    images = golden.arrays("spann3r/inputs")["portrait_uint8"]
    upright = Walk(model_of(golden, landscape_only=False), images)
    official = Walk(model, images)
    assert torch.equal(upright.steps["key"][0], official.steps["key"][0])
    assert not torch.allclose(upright.steps["value"][0], official.steps["value"][0], atol=0.1)


def test_pixels_equal_the_official_loader_bit_for_bit(golden):
    arrays = golden.arrays("spann3r/preprocess")
    prepared = [name for name in arrays if name.startswith("out")]
    for name in prepared:
        size, source = name.removeprefix("out").split("_")
        pixels = Preparation(int(size), "cover").pixels(arrays[f"src_{source}"])
        np.testing.assert_array_equal(pixels, arrays[name], err_msg=name)
    assert len(prepared) * 2 == len(arrays)


def test_names_and_shapes_of_the_released_model(golden):
    path = golden.folder / "spann3r" / "param_shapes_full.json.gz"
    (expected,) = json.loads(gzip.decompress(path.read_bytes())).values()
    with torch.device("meta"):
        model = Spann3R(Spann3RConfig())
    shapes = {name: list(tensor.shape) for name, tensor in model.state_dict().items()}
    assert shapes == expected
    assert len(shapes) == 1101
    assert sum(parameter.numel() for parameter in model.parameters()) == 658_691_976


def test_the_norms_of_a_read_have_torchs_own_epsilon(model):
    assert {norm.eps for norm in (model.norm_q, model.norm_k, model.norm_v)} == {1e-5}
    assert model.value_norm.eps == model.dust3r.dec_norm.eps == 1e-6


# What holds at any size


def test_weights_of_a_read_are_cut_and_sum_to_one():
    generator = torch.Generator().manual_seed(0)
    q, k = (3 * torch.randn(1, 1, n, 16, generator=generator) for n in (5, 400))
    plain, weights = logits(q, k).softmax(dim=-1), read_weights(q, k)
    dropped = plain < 5e-4
    assert 0 < dropped.sum() < dropped.numel()
    assert not weights[dropped].any()
    torch.testing.assert_close(weights.sum(dim=-1), torch.ones(1, 1, 5))
    ratio = (weights / plain)[~dropped]
    assert (ratio >= 1).all()


def test_a_read_of_thousands_of_equal_keys_is_no_division_by_zero():
    q, k = torch.zeros(1, 1, 2, 4), torch.zeros(1, 1, 3000, 4)
    assert torch.equal(read_weights(q, k), torch.full((1, 1, 2, 3000), 1 / 3000))


# Checkpoints


SAID = (
    "Spann3R(dus3r_name='./checkpoints/DUSt3R_ViTLarge_BaseDecoder_512_dpt.pth', use_feat=False, "
    "mem_pos_enc=False)"
)


@pytest.mark.parametrize("args", [{"args": Namespace(model=SAID)}, {}], ids=["said", "unsaid"])
def test_an_official_file_is_known_by_what_it_holds(golden, model, main, args, tmp_path):
    path = tmp_path / "spann3r.pth"
    torch.save({"model": model.state_dict(), "epoch": 3, **args}, path)
    config = configuration(golden, img_size=(224, 224))
    read = load_backbone(path, device="cpu", config=config)
    assert isinstance(read, Spann3R)
    assert read.config == config
    assert read.preparation == Preparation(224, "cover")
    assert not any("does not say" in line for line in read.origin.report)
    images = golden.arrays("spann3r/inputs")["images_uint8"][:3]
    again = Walk(read, images).stacked()
    np.testing.assert_array_equal(again["pts3d"][:2], main.stacked()["pts3d"][:2])
    target = write_checkpoint(tmp_path / "spann3r.safetensors", read.state_dict(), read.config)
    assert load_backbone(target, device="cpu").config == config


def test_numbers_of_heads_are_assumed_as_released_and_reported(tmp_path):
    config = Spann3RConfig(
        enc_embed_dim=64, enc_depth=1, dec_embed_dim=48, dec_depth=2, value_depth=1,
        feature_dim=8, last_dim=4, layer_dims=(4, 4, 4, 4),
    )  # fmt: skip
    torch.manual_seed(0)
    torch.save({"model": Spann3R(config).state_dict()}, tmp_path / "small.pth")
    read = read_checkpoint(tmp_path / "small.pth")
    assert read.config == config
    assert "enc_num_heads: 16, as released; the file does not say it" in read.report
    fewer = replace(config, enc_num_heads=4)
    assert read_checkpoint(tmp_path / "small.pth", config=fewer).config == fewer
    with pytest.raises(CheckpointError, match=r"enc_depth \(file: 1, given: 2\)"):
        read_checkpoint(tmp_path / "small.pth", config=replace(config, enc_depth=2))
    narrow = replace(fewer, enc_embed_dim=32, value_num_heads=4)
    torch.save({"model": Spann3R(narrow).state_dict()}, tmp_path / "narrow.pth")
    with pytest.raises(CheckpointError, match="enc_embed_dim must be a multiple of 64"):
        read_checkpoint(tmp_path / "narrow.pth")
    assert read_checkpoint(tmp_path / "narrow.pth", config=narrow).config == narrow


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (("use_feat=False", "use_feat=True"), "use_feat must be False; got True"),
        (("mem_pos_enc=False", "mem_pos_enc=True"), "mem_pos_enc must be False; got True"),
        (("use_feat=False", "use_feat=open('marker', 'w')"), "never evaluated"),
        (("mem_pos_enc", "mem_rope"), "variant of Spann3R"),
        (("dus3r_name=", ""), "positional"),
    ],
)
def test_a_string_that_cannot_be_built_is_refused(change, named):
    with pytest.raises(CheckpointError, match=named):
        parse_constructor(SAID.replace(*change))
    assert parse_constructor(SAID) == Spann3RConfig()


def test_random_models_have_a_small_and_the_released_size():
    small = load_backbone("random:spann3r-small", device="cpu")
    assert small.preparation.shape(480, 640) == (64, 64)
    assert NAMED_CONFIGS["spann3r"] == Spann3RConfig()
    with pytest.raises(InvalidArgument, match="update='cut3r' only"):
        load_backbone("random:spann3r-small", update="ttt3r")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"value_num_heads": 5}, "value_num_heads"),
        ({"head_type": "mlp"}, "head_type"),
        ({"long_tokens": 0}, "at least 1"),
        ({"working_frames": 0}, "at least 1"),
        ({"output_mode": "pts3d+pose"}, "output_mode"),
    ],
)
def test_configurations_that_cannot_be_built_are_refused(changes, message):
    with pytest.raises(InvalidArgument, match=message):
        Spann3RConfig(**changes)


# Steps


@pytest.fixture(scope="module")
def small() -> Spann3R:
    return load_backbone("random:spann3r-small", device="cpu")


def images(count: int, seed: int = 0) -> list[Frame]:
    generator = torch.Generator().manual_seed(seed)
    return [Frame(torch.rand(1, 3, 48, 64, generator=generator) * 2 - 1) for _ in range(count)]


def test_steps_give_what_the_parts_give(golden, model, main):
    frames = [
        Frame(image) for image in network_input(golden.arrays("spann3r/inputs")["images_uint8"])
    ]
    state = None
    for t, frame in enumerate(frames):
        following = frames[t + 1] if t + 1 < len(frames) else None
        step = model.step(frame, state, following=following)
        state = step.state
        points = as_official(step.prediction.points_world)[0]
        np.testing.assert_array_equal(points, main.steps["pts3d"][t])


def test_frames_that_may_not_write_leave_the_bank_and_hand_on_their_query(small):
    a, b, c, d = images(4)
    first = small.step(a, following=b).state
    silent = replace(b, update=False)
    step = small.step(silent, first, following=c)
    loud = small.step(b, first, following=c)
    assert step.state.bank is first.bank
    assert not step.rate.any()
    assert torch.equal(step.state.query, loud.state.query)
    assert torch.equal(step.prediction.points_world, loud.prediction.points_world)
    assert loud.state.bank.usage.sum() > 0
    after = small.step(c, step.state, following=d)
    assert not torch.equal(
        after.prediction.points_world,
        small.step(c, loud.state, following=d).prediction.points_world,
    )


def test_a_pass_that_is_not_written_counts_no_read(small):
    a, b, c = images(3)
    state = small.step(a, following=b).state
    encoded = replace(small.encode(b), following=small.encode(c))
    entered = small.enter(encoded, state)
    probes = [small.decode(entered) for _ in range(3)]
    assert not state.bank.usage.any()
    prediction = small.predict(probes[-1])
    written, _ = small.commit(FrameRead(b, encoded, probes[-1], prediction), state, Write())
    patches = encoded.grid[0] * encoded.grid[1]
    torch.testing.assert_close(written.bank.usage.sum(), torch.tensor(float(patches)))


def test_a_reset_starts_over(small):
    a, b, c, d = images(4)
    state = small.step(a, following=b).state
    state = small.step(replace(b, reset=True), state, following=c).state
    again = small.step(c, state, following=d)
    fresh = small.step(c, following=d)
    assert torch.equal(again.prediction.points_world, fresh.prediction.points_world)
    assert torch.equal(again.state.bank.keys, fresh.state.bank.keys)
    assert again.state.bank.frame.unique().tolist() == [2]


def test_every_site_is_seen_once_per_layer(small):
    a, b, c = images(3)
    state = small.step(a, following=b).state
    seen = defaultdict(list)
    small.step(b, state, following=c, probe=lambda site, q, k: seen[site.kind].append((site, q, k)))
    for kind, size in small.sites().items():
        assert [site.layer for site, _, _ in seen[kind]] == list(range(size.layers)), kind
        for _, q, k in seen[kind]:
            assert q.shape[1] == k.shape[1] == size.heads
            assert q.shape[3] == k.shape[3] == size.channels


def test_an_observer_sees_the_read_as_it_is_and_may_replace_it(small):
    a, b, c = images(3)
    state = small.step(a, following=b).state
    plain = small.step(b, state, following=c)
    seen = {}

    def watch(site, q, k, v, out):
        if site.kind == "bank_read":
            seen["out"] = torch.equal(out, read_weights(q, k) @ v)

    watched = small.step(b, state, following=c, gate=observed(None, watch))
    assert seen == {"out": True}
    assert torch.equal(watched.prediction.points_world, plain.prediction.points_world)

    def silence(site, q, k, v, out):
        return torch.zeros_like(out) if site.kind == "bank_read" else None

    silent = small.step(b, state, following=c, gate=observed(None, silence))
    assert torch.equal(silent.decoded.fused, state.query)


def test_what_the_model_lacks_is_refused(small):
    a, b = images(2)
    with pytest.raises(InvalidArgument, match=r"at least two frames.*following="):
        small.step(a)
    with pytest.raises(InvalidArgument, match="no ray map"):
        small.step(replace(a, ray_map=torch.zeros(1, 48, 64, 6)), following=b)
    with pytest.raises(InvalidArgument, match="does not predict"):
        small.step(a, following=b, outputs=("color",))
    with pytest.raises(InvalidArgument, match="one sequence at a time"):
        small.begin(2)
    with pytest.raises(InvalidArgument, match=r"multiples of the patch size 16.*50 x 64"):
        small.encode(Frame(torch.zeros(1, 3, 50, 64)))
    with pytest.raises(InvalidArgument, match=r"one size.*\(3, 4\).*\(4, 4\)"):
        small.step(a, following=Frame(torch.zeros(1, 3, 64, 64)))
