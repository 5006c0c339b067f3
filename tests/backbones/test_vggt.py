"""VGGT and StreamVGGT compute what the official implementations compute, array by array."""

import gzip
import json
from collections import defaultdict
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from mut3r_analysis.attention import logits
from mut3r_analysis.backbones import Frame, Preparation, load_backbone, write_checkpoint
from mut3r_analysis.backbones.geometry import pose_matrix
from mut3r_analysis.backbones.random_weights import NAMED_CONFIGS
from mut3r_analysis.backbones.rotation import rotate
from mut3r_analysis.backbones.vggt import VGGT, VGGTConfig
from mut3r_analysis.backbones.vggt.camera_head import camera
from mut3r_analysis.errors import CheckpointError, InvalidArgument

TOLERANCE = {"rtol": 1e-5, "atol": 1e-5}


def configuration(golden, variant: str = "main", **changes) -> VGGTConfig:
    said = golden.settings("streamvggt")["models"][variant]
    aggregator, patches = said["aggregator"], said["patch_embed"]
    camera_head, dense = said["camera_head"], said["dense_heads"]
    values = {
        "img_size": (aggregator["img_size"],) * 2,
        "patch_size": aggregator["patch_size"],
        "mlp_ratio": aggregator["mlp_ratio"],
        "pos_embed": f"RoPE{aggregator['rope_freq']}",
        "enc_embed_dim": patches["embed_dim"],
        "enc_depth": patches["depth"],
        "enc_num_heads": patches["num_heads"],
        "dec_embed_dim": aggregator["embed_dim"],
        "dec_depth": aggregator["depth"],
        "dec_num_heads": aggregator["num_heads"],
        "camera_depth": camera_head["trunk_depth"],
        "camera_num_heads": camera_head["num_heads"],
        "camera_iterations": camera_head["num_iterations"],
        "feature_dim": dense["features"],
        "last_dim": dense["output_conv2_hidden"],
        "layer_dims": dense["out_channels"],
        "head_levels": dense["intermediate_layer_idx"],
    }
    assert aggregator["num_register_tokens"] == 4
    return VGGTConfig.from_dict(values | changes)


def model_of(golden, variant: str = "main", **changes) -> VGGT:
    model = VGGT(configuration(golden, variant, **changes))
    stem = "weights" if variant == "main" else f"weights_{variant}"
    model.load_state_dict(golden.weights(f"streamvggt/{stem}"))
    return model.eval().requires_grad_(False)


@pytest.fixture(scope="module")
def model(golden) -> VGGT:
    return model_of(golden)


@pytest.fixture(scope="module")
def deep(golden) -> VGGT:
    return model_of(golden, "deep")


def network_input(images: np.ndarray) -> torch.Tensor:
    """Frames ``(frame, y, x, rgb)`` uint8 as ``(frame, rgb, y, x)`` in [-1, 1]."""
    return ((torch.from_numpy(images).float() / 255 - 0.5) / 0.5).permute(0, 3, 1, 2)


@pytest.fixture(scope="module")
def images(golden) -> torch.Tensor:
    return network_input(golden.arrays("streamvggt/inputs")["images_uint8"])


def check(name: str, found, expected: np.ndarray) -> None:
    found = np.asarray(found)
    assert found.shape == expected.shape, (name, found.shape, expected.shape)
    limits = TOLERANCE | ({"rtol": 1e-4} if "intrinsics" in name else {})
    np.testing.assert_allclose(found, expected, **limits, err_msg=name)


class Walk:
    """Everything that a model does with a sequence, frame by frame."""

    def __init__(self, model: VGGT, images: torch.Tensor) -> None:
        self.steps, self.modules, self.maps, self.tokens = [], [], [], []
        self.states = []
        seen: dict[str, list] = defaultdict(list)
        hooks = [
            module.register_forward_hook(
                lambda *args, name=name: seen[name].append(args[-1])  # every call's output
            )
            for name, module in watched_modules(model).items()
        ]
        state = None
        for image in images:
            seen.clear()
            maps, tokens = defaultdict(list), defaultdict(list)

            def probe(site, q, k, maps=maps, tokens=tokens):
                maps[site.kind].append(logits(q, k))
                tokens[site.kind].append((q, k))

            step = model.step(Frame(image[None]), state, probe=probe)
            state = step.state
            self.steps.append(step)
            self.states.append(state)
            self.modules.append(dict(seen))
            self.maps.append(maps)
            self.tokens.append(tokens)
        for hook in hooks:
            hook.remove()

    def stacked(self, model: VGGT) -> dict[str, np.ndarray]:
        """Arrays as the reference files hold them."""
        predictions = [step.prediction for step in self.steps]
        encodings = torch.cat([step.decoded.encodings for step in self.steps])
        rows, columns = self.steps[0].decoded.grid
        size = model.patch_size
        seen = camera(encodings[:, -1], rows * size, columns * size)
        depth = torch.cat([each.points_self for each in predictions])[..., 2]
        found = {
            "pose_encoding": torch.cat([each.pose_raw for each in predictions]),
            "pose_encoding_iterations": encodings,
            "extrinsics": seen.extrinsics,
            "intrinsics": seen.intrinsics,
            "depth": depth,
            "depth_confidence": torch.cat([each.confidence_self for each in predictions]),
            "world_points": torch.cat([each.points_world for each in predictions]),
            "world_points_confidence": torch.cat([each.confidence_world for each in predictions]),
            "world_points_from_depth_f1": in_the_world(predictions[1]),
        }
        return {name: values.numpy() for name, values in found.items()}


def in_the_world(prediction) -> torch.Tensor:
    """Points in the camera, taken to the world by the predicted pose."""
    pose = pose_matrix(prediction.pose[0])
    return prediction.points_self[0] @ pose[:3, :3].T + pose[:3, 3]


def watched_modules(model: VGGT) -> dict[str, torch.nn.Module]:
    aggregator, embedding = model.aggregator, model.aggregator.patch_embed
    lists = {
        "dino_block": embedding.blocks,
        "frame_block": aggregator.frame_blocks,
        "global_block": aggregator.global_blocks,
        "trunk": model.camera_head.trunk,
    }
    return {
        "dino_patch": embedding.patch_embed,
        "dino_norm": embedding.norm,
        "camera_token_norm": model.camera_head.token_norm,
        "pose_delta": model.camera_head.pose_branch,
        "depth_raw": model.depth_head,
        "point_raw": model.point_head,
        **{f"qkv{i}": block.attn.qkv for i, block in enumerate(aggregator.global_blocks)},
        **{f"{name}{i}": block for name, blocks in lists.items() for i, block in enumerate(blocks)},
    }


@pytest.fixture(scope="module")
def walk(model, images) -> Walk:
    return Walk(model, images)


@pytest.fixture(scope="module")
def deep_images(golden) -> torch.Tensor:
    return network_input(golden.arrays("streamvggt/inputs_deep")["images_uint8"])


def together(model: VGGT, images: torch.Tensor, attention: str) -> dict[str, np.ndarray]:
    """Outputs of all frames at once, by the names of the reference files."""
    encoded = model.encode(Frame(images))
    decoded = model.decode_together(encoded, attention=attention)
    found = model.predict(decoded)
    seen = camera(decoded.encodings[:, -1], *images.shape[-2:])
    return {
        "pose_encoding": found.pose_raw,
        "pose_encoding_iterations": decoded.encodings,
        "extrinsics": seen.extrinsics,
        "intrinsics": seen.intrinsics,
        "depth": found.points_self[..., 2],
        "depth_confidence": found.confidence_self,
        "world_points": found.points_world,
        "world_points_confidence": found.confidence_world,
    }


@pytest.mark.parametrize("variant", ["main", "deep"])
def test_outputs_one_by_one_together_and_masked(golden, variant, request):
    main = variant == "main"
    model = request.getfixturevalue("model" if main else "deep")
    images = request.getfixturevalue("images" if main else "deep_images")
    found = {"stream": Walk(model, images).stacked(model)}
    found |= {mode: together(model, images, mode) for mode in ("causal", "full")}
    expected = golden.arrays("streamvggt/outputs" + ("" if main else "_deep"))
    for name, values in expected.items():
        mode, _, what = name.partition("_")
        check(name, found[mode][what], values)
    assert {"stream_pose_encoding", "full_depth", "causal_pose_encoding"} <= set(expected)


def test_one_by_one_equals_the_masked_batch_but_for_the_camera(golden, model, images, walk):
    causal, stream = together(model, images, "causal"), walk.stacked(model)
    for name in ("depth", "depth_confidence", "world_points", "world_points_confidence"):
        np.testing.assert_allclose(stream[name], causal[name], rtol=1e-5, atol=1e-5)
    name = "pose_encoding_iterations"
    difference = np.abs(stream[name] - causal[name].numpy()).max(axis=-1)
    assert difference[0, 0] < 1e-6
    assert difference[0, 1:].min() > 1e-4
    same = model_of(golden, camera_keys="same_iteration")
    found = Walk(same, images).stacked(same)[name]
    np.testing.assert_allclose(found, causal[name], rtol=1e-5, atol=1e-5)


def test_the_caches_after_the_last_frame_and_after_each(golden, model, walk):
    expected = golden.arrays("streamvggt/cache")
    state = walk.states[-1]
    turn = model.aggregator.turn(walk.steps[0].decoded.grid)
    for layer, block in enumerate(model.aggregator.global_blocks):
        raw = torch.from_numpy(expected["key"][layer]).transpose(0, 1)  # frame, head
        cached = rotate(block.attn.k_norm(raw), turn)
        check(f"key {layer}", torch.cat(state.keys[layer]), cached.numpy())
        check(f"value {layer}", torch.cat(state.values[layer]).transpose(0, 1),
              expected["value"][layer])  # fmt: skip
        for frame, modules in enumerate(walk.modules):
            (qkv,) = modules[f"qkv{layer}"]
            own = qkv.chunk(3, dim=-1)[1].unflatten(-1, (model.config.dec_num_heads, -1))
            check(f"raw key {layer}", own[0].transpose(0, 1), expected["key"][layer][:, frame])
    for name, cached in (("key", state.camera_keys), ("value", state.camera_values)):
        for block, frames in enumerate(cached):
            check(f"camera_{name}", torch.cat(frames, dim=2)[0], expected[f"camera_{name}"][block])
    counts = [sum(each.shape[2] for each in state.camera_keys[0]) for state in walk.states]
    np.testing.assert_array_equal(counts, expected["camera_count"])


def test_logits_of_every_site(golden, model, images, walk):
    expected = golden.arrays("streamvggt/attention")
    found = {
        f"stream_f{frame}_{kind}_logits": torch.cat(maps[kind]).numpy()
        for frame, maps in enumerate(walk.maps)
        for kind in ("frame_self", "global_self")
    }
    q, k = walk.tokens[1]["global_self"][0]
    found |= {"stream_f1_global_self_l0_query": q[0], "stream_f1_global_self_l0_key": k[0]}
    trunk = model.config.camera_depth
    found["stream_camera_trunk0_logits_f1_i2"] = walk.maps[1]["camera_self"][2 * trunk][0]
    full = defaultdict(list)
    encoded = model.encode(Frame(images))
    model.decode_together(
        encoded,
        probe=lambda site, q, k: full[site.kind].append(logits(q, k)),
    )
    first, last = full["global_self"][0], full["global_self"][-1]
    found["full_global_self_logits_first_last"] = torch.cat([first, last])
    found["full_frame_self_logits_last"] = full["frame_self"][-1]
    for name, values in expected.items():
        check(name, found[name], values)
    assert len(expected) >= 10


def test_every_intermediate(golden, model, images, walk):
    expected = golden.arrays("streamvggt/intermediates")
    full: dict[str, torch.Tensor] = {}
    blocks = enumerate(model.aggregator.global_blocks)
    hooks = [
        block.register_forward_hook(lambda *args, i=i: full.update({f"global_block{i}": args[-1]}))
        for i, block in blocks
    ]
    model.reconstruct(images)
    for hook in hooks:
        hook.remove()
    table = model.aggregator.patch_embed.positions(walk.steps[0].decoded.grid)
    for name, values in expected.items():
        if name == "dino_pos_embed_interpolated":
            check(name, table[0], values)
            continue
        mode, _, what = name.partition("_")
        if mode == "full":
            check(name, full[what][0], values)
            continue
        frame, _, what = what.partition("_")
        modules = walk.modules[int(frame.removeprefix("f"))]
        if what == "camera_trunk":
            trunk = [torch.cat(modules[f"trunk{i}"]) for i in range(model.config.camera_depth)]
            check(name, torch.stack(trunk, dim=1)[:, :, 0], values)
        elif what == "pose_delta":
            check(name, torch.cat(modules[what])[:, 0], values)
        elif what == "camera_token_norm":
            check(name, modules[what][0][0, 0], values)
        else:
            check(name, modules[what][0][0], values)
    assert {"stream_f0_depth_raw", "stream_f0_point_raw", "full_global_block0"} < set(expected)


def test_pixels_equal_the_official_loader_bit_for_bit(golden):
    arrays = golden.arrays("streamvggt/extra/preprocess")
    rules = {"crop": "width", "pad": "pad"}
    compared = 0
    for name, expected in arrays.items():
        if not name.startswith("out56_") or name.endswith("_shape"):
            continue
        rule, source = name.removeprefix("out56_").split("_")
        pixels = Preparation(56, rules[rule], 14).pixels(arrays[f"src_{source}"])
        np.testing.assert_array_equal(pixels.transpose(2, 0, 1), expected, err_msg=name)
        compared += 1
    assert compared == 5


def test_sizes_equal_those_of_the_official_loader(golden):
    path = golden.folder / "streamvggt" / "extra" / "preprocess_sizes.json"
    for source, official in json.loads(path.read_text()).items():
        width, height = map(int, source.split("x"))
        for rule, name in (("width", "crop"), ("pad", "pad")):
            assert Preparation(518, rule, 14).shape(height, width) == tuple(official[name]), source


def test_names_and_shapes_of_the_released_model(golden):
    path = golden.folder / "streamvggt" / "extra" / "param_shapes_full.json.gz"
    (official,) = json.loads(gzip.decompress(path.read_bytes())).values()
    said = golden.settings("streamvggt")["full"]
    tracking = {name for name in official if name.startswith("track_head.")}
    with torch.device("meta"):
        model = VGGT(VGGTConfig())
    shapes = {name: list(tensor.shape) for name, tensor in model.state_dict().items()}
    assert shapes == {name: official[name] for name in official.keys() - tracking}
    assert len(official) == said["state_dict_keys"]
    assert len(tracking) == 394
    count = sum(parameter.numel() for parameter in model.parameters())
    assert count == said["parameters_without_track_head"]


def test_epsilons_of_the_norms(model):
    embedding, head = model.aggregator.patch_embed, model.camera_head
    assert {norm.eps for norm in norms(embedding)} == {1e-6}
    rest = (model.aggregator.frame_blocks, model.aggregator.global_blocks, head, model.depth_head)
    assert {norm.eps for part in rest for norm in norms(part)} == {1e-5}


def norms(part: torch.nn.Module) -> list[torch.nn.LayerNorm]:
    return [each for each in part.modules() if isinstance(each, torch.nn.LayerNorm)]


# Preparation


def test_a_margin_is_no_ground_truth():
    preparation = Preparation(56, "pad", 14)
    depth = np.full((40, 80), 2.0, np.float32)
    found = preparation.depth(depth)
    assert found.shape == (56, 56)
    assert np.isnan(found[:14]).all()
    assert np.isnan(found[-14:]).all()
    assert (found[14:-14] == 2).all()
    assert not preparation.mask(np.ones((40, 80), bool))[:14].any()
    moved = preparation.intrinsics(np.eye(3), 40, 80)
    # 80 px become 56, so the left edge of the source stays and its upper edge is 14 px lower.
    assert moved[0, 2] == pytest.approx(0.5 * 0.7 - 0.5)
    assert moved[1, 2] == pytest.approx(0.5 * 0.7 - 0.5 + 14)


# Checkpoints


@pytest.mark.parametrize("prefix", ["", "module.", "module._orig_mod."])
@pytest.mark.parametrize("layout", ["bare", "dict", "safetensors"])
def test_a_released_file_is_known_by_its_tensors(golden, model, images, layout, prefix, tmp_path):
    tensors = {f"{prefix}{name}": tensor for name, tensor in model.state_dict().items()}
    tensors[f"{prefix}track_head.tracker.fc1.weight"] = torch.zeros(2, 2)
    path = tmp_path / ("model.safetensors" if layout == "safetensors" else "model.pt")
    if layout == "safetensors":
        save_file(tensors, path)
    else:
        torch.save(tensors if layout == "bare" else {"model": tensors}, path)
    read = load_backbone(path, device="cpu", config=model.config)
    assert isinstance(read, VGGT)
    assert read.config == model.config
    assert read.preparation == Preparation(56, "width", 14)
    report = "; ".join(read.origin.report)
    assert "known as vggt by aggregator.camera_token" in report
    assert "a file does not say which of the two" in report
    assert "1 tensors of track_head.* left out" in report
    assert (f"prefix '{prefix}' stripped" in report) == bool(prefix)
    found, own = (each.step(Frame(images[:1])).prediction for each in (read, model))
    assert torch.equal(found.points_world, own.points_world)
    target = write_checkpoint(tmp_path / "ours.safetensors", read.state_dict(), read.config)
    assert load_backbone(target, device="cpu").config == model.config


def test_what_no_tensor_says_is_assumed_as_released_and_reported(tmp_path):
    config = VGGTConfig(
        img_size=(28, 28), enc_embed_dim=32, enc_depth=1, enc_num_heads=16, dec_embed_dim=32,
        dec_depth=24, dec_num_heads=4, camera_depth=1, feature_dim=8, last_dim=4,
        layer_dims=(4, 4, 4, 4),
    )  # fmt: skip
    torch.manual_seed(0)
    torch.save(VGGT(config).state_dict(), tmp_path / "model.pt")
    read = load_backbone(tmp_path / "model.pt", device="cpu")
    assert read.config == config
    assert "camera_num_heads: 16, as released; the file does not say it" in read.origin.report
    with pytest.raises(CheckpointError, match=r"dec_num_heads \(file: 4, given: 8\)"):
        load_backbone(tmp_path / "model.pt", config=replace(config, dec_num_heads=8))


def test_a_file_that_lacks_a_part_is_refused(model, tmp_path):
    tensors = model.state_dict()
    kept = {name: tensor for name, tensor in tensors.items() if not name.startswith("point_head")}
    torch.save(kept, tmp_path / "model.pt")
    with pytest.raises(CheckpointError, match=r"62 missing.*\n.*point_head"):
        load_backbone(tmp_path / "model.pt", config=model.config)


def test_random_models_have_a_small_and_the_released_size():
    small = load_backbone("random:vggt-small", device="cpu")
    assert small.preparation.shape(480, 640) == (42, 56)
    assert NAMED_CONFIGS["vggt"] == VGGTConfig()
    with pytest.raises(InvalidArgument, match="update='cut3r' only"):
        load_backbone("random:vggt-small", update="ttt3r")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"enc_embed_dim": 512}, "equally wide"),
        ({"head_levels": (4, 11, 17, 24)}, "layer 24"),
        ({"head_levels": (4, 17, 11, 23)}, "in their order"),
        ({"img_size": (518, 392)}, "square"),
        ({"img_size": (512, 512)}, "multiples of patch_size 14"),
        ({"camera_keys": "none"}, "camera_keys"),
        ({"dec_num_heads": 5, "enc_num_heads": 4}, "dec_num_heads"),
    ],
)
def test_configurations_that_cannot_be_built_are_refused(changes, message):
    with pytest.raises(InvalidArgument, match=message):
        VGGTConfig(**changes)


# Steps


@pytest.fixture(scope="module")
def small() -> VGGT:
    return load_backbone("random:vggt-small", device="cpu")


def frames(count: int, seed: int = 0) -> list[Frame]:
    generator = torch.Generator().manual_seed(seed)
    return [Frame(torch.rand(1, 3, 42, 56, generator=generator) * 2 - 1) for _ in range(count)]


def test_frames_that_may_not_write_leave_the_caches(small):
    a, b, c = frames(3)
    first = small.step(a).state
    silent = small.step(replace(b, update=False), first)
    assert silent.state.keys is first.keys
    assert not silent.rate.any()
    after = small.step(c, silent.state)
    alone = small.step(c, first)
    assert torch.equal(after.prediction.points_world, alone.prediction.points_world)
    assert after.state.frames.tolist() == [[0, 2]]
    assert small.step(c, small.step(b, first).state).state.frames.tolist() == [[0, 1, 2]]


def test_a_reset_starts_over(small):
    a, b, c = frames(3)
    state = small.step(replace(b, reset=True), small.step(a).state).state
    again, fresh = small.step(c, state), small.step(c)
    assert torch.equal(again.prediction.points_world, fresh.prediction.points_world)
    assert torch.equal(again.prediction.pose, fresh.prediction.pose)
    assert again.state.frames.tolist() == [[2]]


def test_a_state_is_never_modified(small):
    a, b = frames(2)
    state = small.step(a).state
    keys = [tuple(key.clone() for key in layer) for layer in state.keys]
    one, two = small.step(b, state), small.step(b, state)
    assert torch.equal(one.prediction.points_world, two.prediction.points_world)
    assert all(torch.equal(x, y) for new, old in zip(state.keys, keys, strict=True)
               for x, y in zip(new, old, strict=True))  # fmt: skip
    assert one.state.keys[0][0] is state.keys[0][0]


def test_every_site_is_seen_once_per_layer(small):
    a, b = frames(2)
    seen = defaultdict(list)
    small.step(
        b, small.step(a).state, probe=lambda site, q, k: seen[site.kind].append((site, q, k))
    )
    for kind, size in small.sites().items():
        times = small.config.camera_iterations if kind == "camera_self" else 1
        assert [site.layer for site, _, _ in seen[kind]] == list(range(size.layers)) * times, kind
        for _, q, k in seen[kind]:
            assert q.shape[1] == k.shape[1] == size.heads
            assert q.shape[3] == k.shape[3] == size.channels
    patches, own = 12, 17
    assert {k.shape[2] for _, _, k in seen["frame_self"]} == {own}
    assert {k.shape[2] for _, _, k in seen["global_self"]} == {2 * own}
    assert len(small.axes((3, 4))["image"]) == own == patches + 5


def test_points_in_the_camera_follow_from_depth_and_field_of_view(model):
    prediction = model.step(frames(1)[0]).prediction
    points, view = prediction.points_self[0], prediction.pose_raw[0, -2:]
    focal = torch.tensor([56 / 2, 42 / 2]) / (view.flip(0) / 2).tan()
    pixel = points[10, 20, :2] / points[10, 20, 2] * focal + torch.tensor([28, 21])
    torch.testing.assert_close(pixel, torch.tensor([20.0, 10.0]))


def test_what_the_model_lacks_is_refused(small):
    a, b = frames(2)
    with pytest.raises(InvalidArgument, match="no ray map"):
        small.step(replace(a, ray_map=torch.zeros(1, 42, 56, 6)))
    with pytest.raises(InvalidArgument, match="does not predict"):
        small.step(a, outputs=("color",))
    with pytest.raises(InvalidArgument, match="one sequence at a time"):
        small.begin(2)
    with pytest.raises(InvalidArgument, match=r"multiples of the patch size 14.*48 x 64"):
        small.encode(Frame(torch.zeros(1, 3, 48, 64)))
    with pytest.raises(InvalidArgument, match=r"one size; this one has 16 patches.*12"):
        small.step(Frame(torch.zeros(1, 3, 56, 56)), small.step(a).state)
    images = torch.cat([a.image, b.image])
    with pytest.raises(InvalidArgument, match="'full' or 'causal'"):
        small.reconstruct(images, attention="both")
    with pytest.raises(InvalidArgument, match="let frames see later"):
        small.reconstruct(images, attention="causal", gate=lambda *args: None)
