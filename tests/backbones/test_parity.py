"""The model computes what the official implementation computes, array by array."""

import gzip
import json

import numpy as np
import pytest
import torch
from golden.weights import drawn_weights

from mut3r_analysis.attention import DECODER_KINDS, logits
from mut3r_analysis.backbones import blocks, pair_network
from mut3r_analysis.backbones.cut3r import CUT3R, CUT3RConfig
from mut3r_analysis.backbones.cut3r.model import State
from mut3r_analysis.backbones.families import FAMILIES
from mut3r_analysis.backbones.geometry import (
    focal_length,
    pose_matrix,
    principal_point,
    rigid_alignment,
)
from mut3r_analysis.backbones.parity import parity
from mut3r_analysis.backbones.point3r.model import Point3R
from mut3r_analysis.backbones.protocol import Step
from mut3r_analysis.backbones.spann3r import bank
from mut3r_analysis.backbones.steps import Frame

OUTPUTS = {
    "pts3d_in_self_view": ("points_self", 5e-4),
    "conf_self": ("confidence_self", 1e-4),
    "pts3d_in_other_view": ("points_world", 5e-4),
    "conf": ("confidence_world", 1e-4),
    "rgb": ("color", 2e-5),
    "camera_pose": ("pose", 2e-5),
    "pose_raw": ("pose_raw", 2e-5),
}
EXACT = {"camera_pose", "rgb", "pose_raw"}


def roll(model: CUT3R, images: np.ndarray, masks=None) -> tuple[list[Step], list[State]]:
    state = model.begin()
    steps, states = [], [state]
    for t, image in enumerate(images):
        flags = {}
        if masks is not None:
            flags = {"update": bool(masks[0][t]), "reset": bool(masks[1][t])}
        step = model.step(Frame(torch.from_numpy(image[None]), **flags), state)
        state = step.state
        steps.append(step)
        states.append(state)
    return steps, states


def check(found: torch.Tensor, expected: np.ndarray, atol: float, rtol: float = 0.0) -> None:
    np.testing.assert_allclose(found.numpy(), expected, rtol=rtol, atol=atol)


def check_outputs(steps: list[Step], expected: dict[str, np.ndarray], prefix: str = "") -> None:
    for name, (field, atol) in OUTPUTS.items():
        if prefix + name in expected:
            found = torch.cat([getattr(step.prediction, field) for step in steps])
            check(found, expected[prefix + name], atol, rtol=0 if name in EXACT else 1e-4)


def check_states(states: list[State], expected: dict[str, np.ndarray], prefix: str = "") -> None:
    check(torch.cat([s.tokens for s in states]), expected[prefix + "state"], 2e-5)
    check(torch.cat([s.memory for s in states]), expected[prefix + "mem"], 1e-4, rtol=1e-4)


@pytest.mark.parametrize("head", ["dpt", "linear"])
def test_outputs_and_states(golden, head):
    steps, states = roll(golden.backbone(head), golden.arrays("inputs")["img"])
    expected = golden.arrays(f"outputs_cut3r_{head}")
    check_outputs(steps, expected)
    check_states(states, expected)
    check(pose_matrix(torch.cat([s.prediction.pose for s in steps])), expected["c2w"], 2e-5)


@pytest.mark.parametrize("name", ["outputs_cut3r_dpt", "outputs_cut3r_linear", "outputs_ttt3r_dpt"])
def test_cameras_that_pointmaps_imply(golden, name):
    expected = {key: torch.from_numpy(value) for key, value in golden.arrays(name).items()}
    points = expected["pts3d_in_self_view"]
    check(focal_length(points), expected["focal"].numpy(), 1e-6, rtol=1e-4)
    assert principal_point(*points.shape[1:3])[::1] == tuple(expected["pp"][0].int().tolist())
    weight = (expected["conf_self"].log() * expected["conf"].log()).flatten(1)
    motion = rigid_alignment(
        points.flatten(1, 2), expected["pts3d_in_other_view"].flatten(1, 2), weight
    )
    check(motion, expected["c2w_procrustes"].numpy(), 2e-4)


@pytest.mark.parametrize("name", ["outputs_cut3r_dpt", "outputs_cut3r_linear", "outputs_ttt3r_dpt"])
def test_trajectory_rows_of_the_official_evaluation(golden, name):
    expected = golden.arrays(name)
    rows = torch.from_numpy(expected["tum_wxyz"])
    check(pose_matrix(rows), expected["c2w"], 2e-6)


def test_portrait_frames(golden):
    expected = golden.arrays("extra/outputs_cut3r_dpt_variants")
    steps, states = roll(golden.backbone(), golden.arrays("inputs")["portrait_img"])
    check_outputs(steps, expected, "portrait_")
    check_states(states, expected, "portrait_")


def test_update_and_reset_masks(golden):
    inputs, expected = (
        golden.arrays("inputs"),
        golden.arrays("extra/outputs_cut3r_dpt_variants"),
    )
    steps, states = roll(
        golden.backbone(), inputs["img"], (inputs["mask_update"], inputs["mask_reset"])
    )
    check_outputs(steps, expected, "masks_")
    check_states(states, expected, "masks_")
    queries = torch.cat([step.decoded.pose_query for step in steps])
    check(queries, expected["masks_pose_feat_in"], 1e-4)


def test_encoder_rotation_in_float32(golden):
    expected = golden.arrays("extra/outputs_cut3r_dpt_encfp32")
    model = golden.backbone()
    model.rotate_encoder_in(None)
    images = golden.arrays("inputs")["img"]
    features = torch.cat(
        [model.encode(Frame(torch.from_numpy(image[None]))).features for image in images]
    )
    check(features, expected["feat"], 2e-5)
    steps, states = roll(model, images)
    check_outputs(steps, expected)
    check_states(states, expected)


def test_the_float16_rotation_is_there(golden):
    features = golden.arrays("intermediates_dpt")["f0_feat"]
    image = torch.from_numpy(golden.arrays("inputs")["img"][:1])
    model = golden.backbone()
    rounded = np.abs(model.encode(Frame(image)).features.numpy() - features).max()
    model.rotate_encoder_in(None)
    plain = np.abs(model.encode(Frame(image)).features.numpy() - features).max()
    assert rounded < 1e-4 < 3e-4 < plain


def test_ray_map_query_leaves_the_state(golden):
    expected = golden.arrays("extra/outputs_cut3r_dpt_raymap")
    model = golden.backbone()
    _, states = roll(model, golden.arrays("inputs")["img"])
    step = model.step(Frame(ray_map=torch.from_numpy(expected["ray_map"][None])), states[-1])
    check_outputs([step], expected)
    assert torch.equal(step.state.tokens, states[-1].tokens)
    assert torch.equal(step.state.memory, states[-1].memory)
    assert not step.rate.any()


def test_dpt_of_released_widths(golden):
    expected = golden.arrays("extra/outputs_cut3r_dpt_realheads")
    small = golden.config("dpt")
    released = CUT3RConfig()
    widths = {name: getattr(released, name) for name in ("feature_dim", "last_dim", "layer_dims")}
    model = CUT3R(CUT3RConfig.from_dict(small.to_dict() | widths)).requires_grad_(False)
    shapes = {name: list(tensor.shape) for name, tensor in model.state_dict().items()}
    weights = drawn_weights("", golden.settings(), "weights_dpt", shapes)
    for name, values in expected.items():
        if name.startswith("check_first4_"):
            drawn = weights[name.removeprefix("check_first4_")].flatten()[: len(values)]
            np.testing.assert_array_equal(drawn.numpy(), values)
    model.load_state_dict(weights)
    steps, _ = roll(model, golden.arrays("inputs")["img"][:1])
    check_outputs(steps, expected)


def test_ttt3r(golden):
    expected = golden.arrays("outputs_ttt3r_dpt")
    images = golden.arrays("inputs")["img"]
    steps, states = roll(golden.backbone(update="ttt3r"), images)
    check_outputs(steps, expected)
    check_states(states, expected)
    check(torch.cat([step.rate for step in steps]), expected["gate"], 2e-5)
    means = torch.cat([step.decoded.signals["mean_logit"] for step in steps])
    check(means, expected["gate_logit_mean"], 1e-4)


def test_ttt3r_masks_restart_after_a_reset(golden):
    inputs, expected = golden.arrays("inputs"), golden.arrays("outputs_ttt3r_dpt")
    steps, states = roll(
        golden.backbone(update="ttt3r"),
        inputs["img"],
        (inputs["mask_update"], inputs["mask_reset"]),
    )
    check_outputs(steps, expected, "masks_")
    check_states(states, expected, "masks_")
    queries = torch.cat([step.decoded.pose_query for step in steps])
    check(queries, expected["masks_pose_feat_in"], 1e-4)


def test_cut3r_in_the_other_repository(golden):
    expected = golden.arrays("outputs_ttt3r_dpt")
    steps, states = roll(golden.backbone(), golden.arrays("inputs")["img"])
    check_outputs(steps, expected, "cut3rmode_")
    check_states(states, expected, "cut3rmode_")


def test_intermediates(golden):
    expected = golden.arrays("intermediates_dpt")
    model = golden.backbone()
    seen: dict[str, torch.Tensor] = {}
    watched = {
        "patch_embed": model.patch_embed,
        "feat": model.enc_norm,
        "dec_last_normed": model.dec_norm,
        "new_state": model.dec_norm_state,
        "pose_raw": model.downstream_head.pose_head,
        **{f"enc_block{i}": block for i, block in enumerate(model.enc_blocks)},
        **{f"dec_img_block{i}": block for i, block in enumerate(model.dec_blocks)},
        **{f"dec_state_block{i}": block for i, block in enumerate(model.dec_blocks_state)},
        **{
            f"final_transform{i}": block
            for i, block in enumerate(model.downstream_head.final_transform)
        },
        **{
            f"dpt_{name}_raw": model.downstream_head.get_submodule(f"dpt_{name}")
            for name in ("self", "cross", "rgb")
        },
    }
    for name, module in watched.items():
        module.register_forward_hook(
            lambda module, inputs, output, name=name: seen.__setitem__(name, output)
        )
    state = model.begin()
    compared = set()
    for t, image in enumerate(golden.arrays("inputs")["img"][:2]):
        check(state.tokens, expected[f"f{t}_state_in"], 2e-5)
        check(state.memory, expected[f"f{t}_mem_in"], 1e-4, rtol=1e-4)
        step = model.step(Frame(torch.from_numpy(image[None])), state)
        state = step.state
        check(step.decoded.pose_query, expected[f"f{t}_pose_feat_in"], 1e-4)
        check(state.memory, expected[f"f{t}_new_mem"], 1e-4, rtol=1e-4)
        for name, values in seen.items():
            if f"f{t}_{name}" in expected:
                check(values, expected[f"f{t}_{name}"], 1e-4, rtol=1e-4)
                compared.add(f"f{t}_{name}")
        seen.clear()
    positions = {"f0_pos", "f0_state_pos", "f0_pose_pos", "f1_pos", "f1_state_pos", "f1_pose_pos"}
    carried = {
        f"f{t}_{name}" for t in (0, 1) for name in ("state_in", "mem_in", "pose_feat_in", "new_mem")
    }
    assert set(expected) == compared | positions | carried | {"f1_inquire_out"}
    np.testing.assert_array_equal(expected["f1_inquire_out"], expected["f1_pose_feat_in"])


def test_positions(golden):
    from mut3r_analysis.backbones.rotation import positions, state_positions

    expected = golden.arrays("intermediates_dpt")
    config, image = golden.config("dpt"), golden.arrays("inputs")["img"]
    cpu = torch.device("cpu")
    with_pose = positions(*config.patch_grid(*image.shape[-2:]), True, cpu).numpy()
    np.testing.assert_array_equal(with_pose[1:], expected["f0_pos"][0])
    np.testing.assert_array_equal(with_pose[:1], expected["f0_pose_pos"][0])
    states = state_positions(config.state_size, cpu).numpy()
    np.testing.assert_array_equal(states, expected["f0_state_pos"][0])


OFFICIAL_SITES = dict(
    zip(
        ("img_self", "img_cross", "state_self", "state_cross"),
        DECODER_KINDS,
        strict=True,
    )
)


@pytest.mark.parametrize("update", ["cut3r", "ttt3r"])
def test_attention_maps(golden, update):
    expected = golden.arrays("attention_dpt")
    model = golden.backbone(update=update)
    maps: dict[str, list[torch.Tensor]] = {}

    def probe(site, q, k):
        maps.setdefault(site.kind, []).append(logits(q, k)[0])

    state, compared = model.begin(), 0
    for t, image in enumerate(golden.arrays("inputs")["img"][:3]):
        maps.clear()
        state = model.step(Frame(torch.from_numpy(image[None])), state, probe=probe).state
        for official, kind in OFFICIAL_SITES.items():
            found = torch.stack(maps[kind])
            for quantity, values in (("logits", found), ("softmax", found.softmax(-1))):
                name = f"{update}_f{t}_{official}_{quantity}"
                if name in expected:
                    check(values, expected[name], 1e-4, rtol=1e-4)
                    compared += 1
    assert compared == sum(name.startswith(update) for name in expected)


@pytest.mark.parametrize(
    ("name", "config", "count", "parameters"),
    [
        ("full_512_dpt", CUT3RConfig(), 1248, 793_307_858),
        (
            "full_224_linear",
            CUT3RConfig(img_size=(224, 224), head_type="linear"),
            1056,
            748_443_655,
        ),
    ],
)
def test_names_and_shapes_of_released_models(golden, name, config, count, parameters):
    path = golden.folder / "extra" / "param_shapes_full.json.gz"
    expected = json.loads(gzip.decompress(path.read_bytes()))[name]
    with torch.device("meta"):
        model = CUT3R(config)
    found = {key: list(tensor.shape) for key, tensor in model.state_dict().items()}
    assert found == expected
    assert len(found) == count
    assert sum(p.numel() for p in model.parameters()) == parameters


def test_bundled_parity_numbers():
    assert all(item.holds for item in parity())


def test_bundled_parity_detects_a_wrong_model(monkeypatch):
    monkeypatch.setattr(CUT3R, "rotate_encoder_in", lambda self, dtype: None)
    assert not all(item.holds for item in parity())


def test_bundled_parity_speaks_of_every_kind_of_model():
    assert {item.model for item in parity()} == set(FAMILIES)


def test_bundled_parity_detects_wrong_memories(monkeypatch):
    monkeypatch.setattr(Point3R, "rotate_encoder_in", lambda self, dtype: None)
    monkeypatch.setattr(bank, "LEAST_WEIGHT", 0.0)
    held = {(item.model, item.name): item.holds for item in parity()}
    assert not held["point3r", "pose"]
    assert not held["spann3r", "world"]
    assert held["spann3r", "rows"]


def test_bundled_parity_detects_another_epsilon(monkeypatch):
    def other(width):
        return torch.nn.LayerNorm(width, eps=1e-5)

    for module in (blocks, pair_network):
        monkeypatch.setattr(module, "layer_norm", other)
    held = {item.name: item.holds for item in parity() if item.model == "dust3r"}
    assert len(held) == 4
    assert not any(held.values())


def test_bundled_parity_detects_another_epsilon_beside_caches(monkeypatch):
    norm = torch.nn.LayerNorm
    monkeypatch.setattr(torch.nn, "LayerNorm", lambda width, eps=0.0: norm(width, eps=1e-6))
    held = {item.name: item.holds for item in parity() if item.model == "vggt"}
    assert set(held) == {"pose_encoding", "depth", "world"}
    assert not held["pose_encoding"]
