"""DUSt3R computes what the official implementation computes, array by array."""

import gzip
import json
from argparse import Namespace
from collections import defaultdict
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from mut3r_analysis.attention import logits
from mut3r_analysis.backbones import (
    DUSt3R,
    DUSt3RConfig,
    Frame,
    Preparation,
    load_backbone,
    read_checkpoint,
    write_checkpoint,
)
from mut3r_analysis.backbones.constructor_string import parse_constructor
from mut3r_analysis.backbones.geometry import (
    pose_matrix,
    rigid_alignment,
    translation_and_quaternion,
)
from mut3r_analysis.backbones.random_weights import NAMED_CONFIGS
from mut3r_analysis.errors import CheckpointError, InvalidArgument

TOLERANCES = {
    "dpt": {"pts3d": 5e-5, "conf": 1e-5},
    "linear": {"pts3d": 3e-4, "conf": 2e-4},
}
TOKENS = 2e-5
HEADS = sorted(TOLERANCES)
SITES = {
    "self1": "view1_self", "cross1": "view1_to_view2",
    "self2": "view2_self", "cross2": "view2_to_view1",
}  # fmt: skip
"""Name in the official arrays -> our kind of site."""


def configuration(golden, head: str) -> DUSt3RConfig:
    settings = golden.settings("dust3r")
    widths = settings["dpt_widths_overridden_for_size"] if head == "dpt" else {}
    return DUSt3RConfig.from_dict(settings["tiny"][head] | widths)


def model_of(golden, head: str) -> DUSt3R:
    model = DUSt3R(configuration(golden, head))
    model.load_state_dict(golden.weights(f"dust3r/weights_{head}"))
    return model.eval().requires_grad_(False)


@pytest.fixture(scope="module")
def models(golden) -> dict[str, DUSt3R]:
    return {head: model_of(golden, head) for head in HEADS}


def encoded(model: DUSt3R, images: np.ndarray) -> list:
    return [model.encode(Frame(image[None])) for image in torch.from_numpy(images)]


def pairs_of(model: DUSt3R, first: list, second: list, edges) -> dict[str, list[np.ndarray]]:
    """Predictions of pairs under the official names."""
    found = defaultdict(list)
    for a, b in edges:
        pair = model.decode_pair(first[a], second[b])
        found["pts3d"].append(pair.points_view1[0].numpy())
        found["conf"].append(pair.confidence_view1[0].numpy())
        found["pts3d_in_other_view"].append(pair.points_view2[0].numpy())
        found["conf_other"].append(pair.confidence_view2[0].numpy())
    return found


def check(found, expected: np.ndarray, atol: float, name: str) -> None:
    found = np.asarray(found)
    assert found.shape == expected.shape, name
    np.testing.assert_allclose(found, expected, rtol=0, atol=atol, err_msg=name)


def test_network_input(golden):
    arrays = golden.arrays("dust3r/inputs")
    for part in ("", "portrait_"):
        images = arrays[f"{part}images_uint8" if not part else f"{part}uint8"]
        long_edge = max(images.shape[1:3])
        prepared = [Preparation(long_edge).image(image) for image in images]
        np.testing.assert_array_equal(prepared, arrays[f"{part}img"])
        assert (arrays[f"{part}true_shape"] == images.shape[1:3]).all()


@pytest.mark.parametrize("head", HEADS)
def test_every_pair(golden, models, head):
    inputs, expected = golden.arrays("dust3r/inputs"), golden.arrays(f"dust3r/outputs_{head}")
    model = models[head]
    frames = encoded(model, inputs["img"])
    portrait = encoded(model, inputs["portrait_img"])
    sets = {"": (frames, frames, expected["edges"])}
    if "portrait_edges" in expected:
        sets["portrait_"] = (portrait, portrait, expected["portrait_edges"])
        sets["mixed_"] = (frames, portrait, [(0, 0)])
    compared = {"edges", "portrait_edges"}
    for part, given in sets.items():
        for name, values in pairs_of(model, *given).items():
            atol = TOLERANCES[head][name.split("_")[0]]
            check(values, expected[part + name], atol, part + name)
            compared.add(part + name)
    assert compared >= set(expected)


def test_a_batch_of_pairs_is_the_pairs_one_by_one(golden, models):
    inputs, expected = golden.arrays("dust3r/inputs"), golden.arrays("dust3r/outputs_dpt")
    model, edges = models["dpt"], expected["edges"]
    images = torch.from_numpy(inputs["img"])
    views = [model.encode(Frame(images[edges[:, side]])) for side in (0, 1)]
    pair = model.decode_pair(*views)
    check(pair.points_view2, expected["pts3d_in_other_view"], 5e-5, "pts3d_in_other_view")


def seen_of(model: DUSt3R, images: np.ndarray) -> tuple[dict, dict]:
    """Every intermediate of the pair (0, 1), and its logits by site kind, layers stacked."""
    found, maps = {}, defaultdict(list)

    def keep(name):
        def hook(module, args, out):
            found[name] = out

        return hook

    blocks = {"enc_block": model.enc_blocks, "dec1_block": model.dec_blocks,
              "dec2_block": model.dec_blocks2}  # fmt: skip
    watched = {f"{name}{i}": block for name, rows in blocks.items() for i, block in enumerate(rows)}
    for view, head in ((1, model.downstream_head1), (2, model.downstream_head2)):
        watched |= {f"head{view}_proj": head.proj} if head.linear else {f"head{view}_raw": head.dpt}
    watched["patch_embed"] = model.patch_embed
    hooks = [module.register_forward_hook(keep(name)) for name, module in watched.items()]
    embedded = []
    hooks.append(model.decoder_embed.register_forward_hook(lambda *a: embedded.append(a[-1])))
    both = model.encode(Frame(torch.from_numpy(images[:2])))
    one, two = (replace(both, features=both.features[i : i + 1]) for i in (0, 1))
    model.decode_pair(one, two, probe=lambda site, q, k: maps[site.kind].append(logits(q, k)[0]))
    for hook in hooks:
        hook.remove()
    last = model.config.dec_depth - 1
    for view in (1, 2):
        found[f"dec_embed{view}"] = embedded[view - 1]
        found[f"dec_norm{view}"] = model.dec_norm(found[f"dec{view}_block{last}"])
    found["feat"] = both.features
    rows, columns = both.grid
    place = torch.stack(
        torch.meshgrid(torch.arange(rows), torch.arange(columns), indexing="ij"), -1
    )
    found["pos"] = place.reshape(1, -1, 2).expand(2, -1, -1)
    return found, {kind: torch.stack(layers) for kind, layers in maps.items()}


@pytest.mark.parametrize("head", HEADS)
def test_every_intermediate_of_a_pair(golden, models, head):
    expected = golden.arrays(f"dust3r/intermediates_{head}")
    found, _ = seen_of(models[head], golden.arrays("dust3r/inputs")["img"])
    for name, values in expected.items():
        check(found[name], values, TOKENS, name)


def test_logits_of_every_site(golden, models):
    expected = golden.arrays("easi3r/attention_pair01")
    _, maps = seen_of(models["dpt"], golden.arrays("dust3r/inputs")["img"])
    for name, kind in SITES.items():
        check(maps[kind], expected[f"{name}_logits"], TOKENS, name)
    assert len(expected) == len(SITES)


def test_frames_higher_than_wide_are_read_as_they_are(models):
    # What training with landscape_only=True would return is transposed, and never what is read.
    model = models["dpt"]
    turned = encoded(model, np.zeros((2, 3, 64, 48), np.float32))
    pair = model.decode_pair(*turned)
    assert pair.points_view1.shape == pair.points_view2.shape == (1, 64, 48, 3)
    with pytest.raises(InvalidArgument, match=r"landscape_only must be False; got True"):
        DUSt3RConfig(landscape_only=True)


RELEASED = {
    "224_linear": "random:dust3r-224-linear",
    "512_linear": "random:dust3r-512-linear",
    "512_dpt": "random:dust3r-512-dpt",
}


def test_names_and_shapes_of_the_released_models(golden):
    path = golden.folder / "dust3r" / "param_shapes_full.json.gz"
    expected = json.loads(gzip.decompress(path.read_bytes()))
    counts = {"dpt": (1009, 571_171_208), "linear": (877, 532_342_784)}
    compared = 0
    for name, shapes in expected.items():
        config = NAMED_CONFIGS[RELEASED[name].removeprefix("random:")]
        with torch.device("meta"):
            model = DUSt3R(config)
        assert {key: list(tensor.shape) for key, tensor in model.state_dict().items()} == shapes
        parameters = sum(parameter.numel() for parameter in model.parameters())
        assert (len(shapes), parameters) == counts[config.head_type]
        compared += 1
    assert compared == len(RELEASED)


# Checkpoints


@pytest.mark.parametrize("head", HEADS)
def test_an_official_file_is_read_by_its_constructor(golden, models, head, tmp_path):
    said = golden.settings("dust3r")["official_constructor_strings"][head]
    weights = models[head].state_dict()
    torch.save({"args": Namespace(model=said), "model": weights, "epoch": 3}, tmp_path / "a.pth")
    read = load_backbone(tmp_path / "a.pth", device="cpu")
    assert isinstance(read, DUSt3R)
    assert read.config == configuration(golden, head)
    assert all(torch.equal(read.state_dict()[name], tensor) for name, tensor in weights.items())
    assert "landscape_only: not given, set to False" in read.origin.report
    assert not any("as released" in line for line in read.origin.report)
    target = write_checkpoint(tmp_path / "a.safetensors", read.state_dict(), read.config)
    assert load_backbone(target, device="cpu").config == read.config


RELEASED_STRING = (
    "AsymmetricCroCo3DStereo(pos_embed='RoPE100', patch_embed_cls='ManyAR_PatchEmbed', "
    "img_size=(512, 512), head_type='dpt', output_mode='pts3d', depth_mode=('exp', -inf, inf), "
    "conf_mode=('exp', 1, inf), enc_embed_dim=1024, enc_depth=24, enc_num_heads=16, "
    "dec_embed_dim=768, dec_depth=12, dec_num_heads=12, freeze='encoder')"
)


def test_released_strings_are_read():
    assert parse_constructor(RELEASED_STRING) == DUSt3RConfig(freeze="encoder")
    monst3r = RELEASED_STRING.replace("(512, 512)", "512").replace(
        "'encoder'", "'encoder_and_decoder'"
    )
    assert parse_constructor(monst3r) == DUSt3RConfig(freeze="encoder_and_decoder")
    few = "AsymmetricCroCo3DStereo(pos_embed='RoPE100')"
    assert parse_constructor(few) == DUSt3RConfig(
        img_size=(224, 224), enc_embed_dim=768, enc_depth=12, enc_num_heads=12, dec_embed_dim=512,
        dec_depth=8, dec_num_heads=16, head_type="linear",
    )  # fmt: skip


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (("pos_embed='RoPE100', ", ""), "pos_embed must be 'RoPE'"),
        (("'pts3d'", "'pts3d+desc24'"), r"output_mode must be pts3d; got 'pts3d\+desc24'"),
        (("freeze", "two_confs"), "variant of DUSt3R"),
        (("'encoder'", "open('marker', 'w')"), "never evaluated"),
        (("AsymmetricCroCo3DStereo", "AsymmetricMASt3R"), "AsymmetricMASt3R"),
        (("ManyAR_PatchEmbed", "PatchEmbed"), "patch_embed_cls"),
    ],
)
def test_a_string_that_cannot_be_built_is_refused(change, named):
    with pytest.raises(CheckpointError, match=named):
        parse_constructor(RELEASED_STRING.replace(*change))


def small_weights(**changes) -> tuple[DUSt3RConfig, dict[str, torch.Tensor]]:
    config = DUSt3RConfig(
        enc_embed_dim=64, enc_depth=1, dec_embed_dim=48, dec_depth=2, feature_dim=8, last_dim=4,
        layer_dims=(4, 4, 4, 4), **changes,
    )  # fmt: skip
    torch.manual_seed(0)
    return config, DUSt3R(config).state_dict()


@pytest.mark.parametrize("head", HEADS)
def test_a_file_without_words_is_known_by_its_tensors(head, tmp_path):
    config, weights = small_weights(head_type=head)
    if head == "linear":
        config = replace(config, feature_dim=256, last_dim=128, layer_dims=(96, 192, 384, 768))
    torch.save({"model": {f"module.{name}": each for name, each in weights.items()}},
               tmp_path / "bare.pth")  # fmt: skip
    read = read_checkpoint(tmp_path / "bare.pth")
    assert read.config == config
    assert any("known as dust3r by dec_blocks2" in line for line in read.report)
    assert any("prefix 'module.'" in line for line in read.report)
    for said in ("img_size: (512, 512)", "enc_num_heads: 16", "dec_num_heads: 12"):
        assert any(line.startswith(said) for line in read.report), said
    fewer = replace(config, enc_num_heads=4, img_size=(224, 224))
    assert read_checkpoint(tmp_path / "bare.pth", config=fewer).config == fewer


def test_a_file_of_a_hub_has_each_shared_tensor_once_and_is_known_by_its_tensors(tmp_path):
    config, weights = small_weights()
    once = {name: each for name, each in weights.items() if ".scratch.layer_rn." not in name}
    assert len(weights) - len(once) == 8
    save_file(once, tmp_path / "model.safetensors", metadata={"format": "pt"})
    read = load_backbone(tmp_path / "model.safetensors", device="cpu")
    assert read.config == config
    assert all(torch.equal(read.state_dict()[name], each) for name, each in weights.items())
    assert any("known as dust3r" in line for line in read.origin.report)
    # A model that holds a pair network is not taken for one.
    whole = load_backbone("random:spann3r-small", device="cpu")
    save_file({name: each.clone() for name, each in whole.state_dict().items()},
              tmp_path / "whole.safetensors")  # fmt: skip
    config = replace(whole.config, img_size=(224, 224))
    assert read_checkpoint(tmp_path / "whole.safetensors", config=config).config == config


def test_weights_of_before_its_training_start_the_second_decoder_from_the_first(tmp_path):
    config, weights = small_weights()
    said = RELEASED_STRING
    for name in ("enc_embed_dim", "enc_depth", "dec_embed_dim", "dec_depth"):
        released = getattr(DUSt3RConfig(), name)
        said = said.replace(f"{name}={released}", f"{name}={getattr(config, name)}")
    first = {name: each for name, each in weights.items() if not name.startswith("dec_blocks2")}
    torch.save({"args": Namespace(model=said), "model": first}, tmp_path / "croco.pth")
    read = load_backbone(tmp_path / "croco.pth", device="cpu")
    assert any("the decoder of view 2 is untrained" in line for line in read.origin.report)
    for one, two in zip(read.dec_blocks.parameters(), read.dec_blocks2.parameters(), strict=True):
        assert torch.equal(one, two)


def test_weights_of_another_model_are_refused(golden, tmp_path):
    said = golden.settings("dust3r")["official_constructor_strings"]["dpt"]
    other = load_backbone("random:spann3r-small", device="cpu").state_dict()
    torch.save({"args": Namespace(model=said), "model": other}, tmp_path / "other.pth")
    with pytest.raises(CheckpointError, match=r"(?s)do not fit the model.*unexpected: attn_head"):
        load_backbone(tmp_path / "other.pth")
    _, weights = small_weights()
    weights["downstream_head1.head_local_features.fc1.weight"] = torch.zeros(2, 2)
    torch.save({"model": weights}, tmp_path / "mast3r.pth")
    with pytest.raises(CheckpointError, match=r"unexpected: downstream_head1.head_local_features"):
        load_backbone(tmp_path / "mast3r.pth")


def test_random_models_have_a_small_and_the_released_sizes():
    small = load_backbone("random:dust3r-small", device="cpu")
    assert small.preparation.shape(480, 640) == (48, 64)
    assert small.patch_grid(48, 64) == (6, 8)
    assert NAMED_CONFIGS["dust3r-512-dpt"] == DUSt3RConfig()
    with pytest.raises(InvalidArgument, match="update='cut3r' only"):
        load_backbone("random:dust3r-small", update="ttt3r")


# Frames beside an anchor


@pytest.fixture(scope="module")
def small() -> DUSt3R:
    return load_backbone("random:dust3r-small", device="cpu")


def images(count: int, batch: int = 1, seed: int = 0) -> list[Frame]:
    generator = torch.Generator().manual_seed(seed)
    return [Frame(torch.rand(batch, 3, 48, 64, generator=generator) * 2 - 1) for _ in range(count)]


def walk(model: DUSt3R, frames: list[Frame], **changes) -> list:
    steps, state = [], None
    for frame in frames:
        steps.append(model.step(frame, state, **changes))
        state = steps[-1].state
    return steps


def test_frames_beside_the_anchor_are_the_official_pairs(golden, models):
    inputs, expected = golden.arrays("dust3r/inputs"), golden.arrays("dust3r/outputs_dpt")
    edges = [tuple(edge) for edge in expected["edges"].tolist()]
    steps = walk(models["dpt"], [Frame(image[None]) for image in torch.from_numpy(inputs["img"])])
    for t, step in enumerate(steps[1:], 1):
        own, world = edges.index((t, 0)), edges.index((0, t))
        found = step.prediction
        check(found.points_self[0], expected["pts3d"][own], 5e-5, "own camera")
        check(found.confidence_self[0], expected["conf"][own], 1e-5, "own camera")
        check(found.points_world[0], expected["pts3d_in_other_view"][world], 5e-5, "anchor's")
        check(found.confidence_world[0], expected["conf_other"][world], 1e-5, "anchor's")
    assert [int(step.state.anchor) for step in steps] == [0, 0, 0]
    assert [float(step.rate.mean()) for step in steps] == [1, 0, 0]


def test_the_anchor_is_paired_with_itself(small):
    (step,) = walk(small, images(1))
    frame = small.encode(images(1)[0])
    pair = small.decode_pair(frame, frame)
    assert torch.equal(step.prediction.points_self, pair.points_view1)
    assert torch.equal(step.prediction.points_world, pair.points_view2)


def test_the_pose_takes_own_points_into_the_world_up_to_scale(small):
    found = walk(small, images(3))[-1].prediction
    weight = (found.confidence_self.log() * found.confidence_world.log()).flatten(1).double()
    own, world = (each.flatten(1, 2).double() for each in (found.points_self, found.points_world))
    pose = pose_matrix(found.pose.double())

    def misfit(turn, place, scale):
        moved = scale * own @ turn.mT + place
        return (weight * (moved - world).square().sum(-1)).sum() / weight.sum()

    # With this turn and place the best scale is a minimum of the misfit, and so are they.
    turn, place = pose[:, :3, :3], pose[:, None, :3, 3]
    turned = own @ turn.mT
    scale = ((weight[..., None] * turned * (world - place)).sum()
             / (weight[..., None] * turned.square()).sum())  # fmt: skip
    least = misfit(turn, place, scale)
    assert misfit(turn, place, scale * 1.05) > least
    assert misfit(turn, place, scale / 1.05) > least
    for axis in range(3):
        shift = torch.zeros(1, 1, 3, dtype=torch.double)
        shift[..., axis] = 0.05 * place.norm()
        assert misfit(turn, place + shift, scale) > least
        assert misfit(turn, place - shift, scale) > least
        for angle in (0.05, -0.05):
            skew = torch.zeros(3, 3, dtype=torch.double)
            skew[axis, (axis + 1) % 3], skew[(axis + 1) % 3, axis] = angle, -angle
            centre = world.mul(weight[..., None]).sum(1, keepdim=True) / weight.sum()
            tilt = torch.matrix_exp(skew)
            assert misfit(tilt @ turn, centre + (place - centre) @ tilt.mT, scale) > least


def test_a_similarity_is_found_again():
    generator = torch.Generator().manual_seed(3)
    points, weight = torch.randn(2, 50, 3, generator=generator), torch.rand(2, 50)
    raw = torch.randn(2, 7, generator=generator)
    pose = torch.cat([raw[:, :3], torch.nn.functional.normalize(raw[:, 3:], dim=-1)], dim=-1)
    pose[:, 3:] *= pose[:, 3:4].sign()
    motion = pose_matrix(pose)
    there = (2.5 * points) @ motion[:, :3, :3].mT + motion[:, None, :3, 3]
    found = rigid_alignment(points, there, weight, own_scale=True)
    torch.testing.assert_close(found, motion, atol=1e-5, rtol=0)
    torch.testing.assert_close(translation_and_quaternion(found), pose, atol=1e-5, rtol=0)
    assert not torch.allclose(rigid_alignment(points, there, weight), motion, atol=0.1)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_quaternions_of_half_turns(axis):
    half = torch.zeros(1, 7)
    half[0, 4 + axis] = 1
    found = translation_and_quaternion(pose_matrix(half))
    torch.testing.assert_close(found.abs(), half, atol=1e-6, rtol=0)


def test_frames_that_may_not_write_become_no_anchor(small):
    a, b, c = images(3)
    silent = walk(small, [replace(a, update=False), b, c])
    assert [int(step.state.anchor) for step in silent] == [-1, 1, 1]
    fresh = walk(small, [b, c])
    for one, two in zip(silent[1:], fresh, strict=True):
        assert torch.equal(one.prediction.points_world, two.prediction.points_world)
    assert not silent[0].state.tokens.any()


def test_a_reset_takes_the_next_frame_as_anchor(small):
    a, b, c, d = images(4)
    steps = walk(small, [a, replace(b, reset=True), c, d])
    assert [int(step.state.anchor) for step in steps] == [0, -1, 2, 2]
    again = walk(small, [c, d])[-1]
    assert torch.equal(steps[-1].prediction.points_world, again.prediction.points_world)
    assert int(steps[-1].state.read) == 4


def test_samples_of_a_batch_have_anchors_of_their_own(small):
    frames = images(3, batch=2)
    frames[0] = replace(frames[0], reset=torch.tensor([False, True]))
    steps = walk(small, frames)
    assert steps[-1].state.anchor.tolist() == [0, 1]
    for sample, first in ((0, 0), (1, 1)):
        alone = [Frame(frame.image[sample : sample + 1]) for frame in frames[first:]]
        expected = walk(small, alone)[-1].prediction
        torch.testing.assert_close(
            steps[-1].prediction.points_world[sample],
            expected.points_world[0],
            atol=1e-4,
            rtol=1e-4,
        )


def test_every_site_is_seen_once_per_layer_with_its_own_tokens(small):
    a, b = images(2)
    state = small.step(a).state
    seen = defaultdict(list)
    small.step(b, state, probe=lambda site, q, k: seen[site.kind].append((site, q, k)))
    assert set(seen) == set(small.sites())
    for kind, size in small.sites().items():
        assert [site.layer for site, _, _ in seen[kind]] == list(range(size.layers)), kind
        for _, q, k in seen[kind]:
            assert q.shape[1] == k.shape[1] == size.heads
            assert q.shape[3] == k.shape[3] == size.channels
    # The pair (anchor, frame) is the one that decode_pair would make of them.
    swapped = defaultdict(list)
    first, second = small.encode(a), small.encode(b)
    small.decode_pair(first, second, probe=lambda site, q, k: swapped[site.kind].append((q, k)))
    for kind in SITES.values():
        for (q, k), (_, q_, k_) in zip(swapped[kind], seen[f"anchored_{kind}"], strict=True):
            assert torch.equal(q, q_)
            assert torch.equal(k, k_)


def test_outputs_that_are_not_asked_for_are_not_computed(small):
    a, b = images(2)
    state = small.step(a).state
    full = small.step(b, state).prediction
    for outputs, there in (
        (("pose",), {"pose"}),
        (("depth",), {"points_self", "confidence_self"}),
        (("points_world",), {"points_world", "confidence_world"}),
        (("pose", "points_world"), {"pose", "points_world", "confidence_world"}),
    ):
        found = small.step(b, state, outputs=outputs).prediction
        known = {name for name, value in vars(found).items() if value is not None}
        assert known == there
        for name in there:
            assert torch.equal(getattr(found, name), getattr(full, name))


def test_what_the_model_lacks_is_refused(small):
    (a,) = images(1)
    with pytest.raises(InvalidArgument, match="no ray map"):
        small.step(replace(a, ray_map=torch.zeros(1, 48, 64, 6)))
    with pytest.raises(InvalidArgument, match=r"does not predict \['color'\]"):
        small.step(a, outputs=("color",))
    with pytest.raises(InvalidArgument, match=r"multiples of the patch size 8.*50 x 64"):
        small.encode(Frame(torch.zeros(1, 3, 50, 64)))
    state = small.step(a).state
    with pytest.raises(InvalidArgument, match=r"one size.*\(8, 6\).*\(6, 8\).*decode_pair"):
        small.step(Frame(torch.zeros(1, 3, 64, 48)), state)
    other = load_backbone("random:small", device="cpu")
    tokens = other.encode(Frame(torch.zeros(1, 3, 48, 64)))
    with pytest.raises(InvalidArgument, match="cut3r reads frames one after another and no pairs"):
        other.decode_pair(tokens, tokens)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"output_mode": "pts3d+pose"}, "output_mode"),
        ({"enc_num_heads": 5}, "enc_num_heads"),
        ({"patch_size": 14}, "DPT head needs patch size 16"),
        ({"pos_embed": "cosine"}, "pos_embed"),
    ],
)
def test_configurations_that_cannot_be_built_are_refused(changes, message):
    with pytest.raises(InvalidArgument, match=message):
        DUSt3RConfig(**changes)
