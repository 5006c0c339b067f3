"""Point3R computes what the official implementation computes, array by array."""

import gzip
import json
import re
from collections import defaultdict

import numpy as np
import pytest
import torch

from mut3r_analysis.attention import SITE_KINDS, logits
from mut3r_analysis.backbones import Frame, Point3R, Point3RConfig, load_backbone
from mut3r_analysis.backbones.geometry import pose_matrix
from mut3r_analysis.backbones.point3r.pointers import Candidates, Pointers
from mut3r_analysis.backbones.point3r.rotation import part_widths, spatial_rotation
from mut3r_analysis.backbones.rotation import rotate
from mut3r_analysis.backbones.steps import FrameRead, Write
from mut3r_analysis.errors import InvalidArgument

SITES = {
    "image_self": "image_self",
    "image_to_state": "image_to_memory",
    "state_self": "memory_self",
    "state_to_image": "memory_to_image",
}
"""Site kind here -> in the official arrays."""

EXACT = ("count", "nearest", "append")
TOLERANCES = (
    (r"pts3d_in_self_view", 1e-4, 1e-3),
    (r"pts3d_in_other_view", 1e-4, 3e-4),
    (r"camera_pose|c2w", 0, 3e-5),
    (r"(features|positions)_f\d+|candidate_.*|threshold|min_dist", 1e-4, 3e-4),
    (
        r"f\d+_(memory_in|memory_pos_in|img_pos_in|pts_patch_embed|value_block\d+|feat_value)",
        1e-4,
        3e-4,
    ),
    # A last bit can flip a float16 rounding of the encoder's queries and keys.
    (r"enc_block\d+|f\d+_feat", 1e-4, 2e-4),
    (r".*", 1e-4, 1e-4),
)
"""Array -> relative and absolute tolerance; the first match counts."""


def configuration(golden) -> Point3RConfig:
    settings = golden.settings("point3r")
    values = settings["tiny"] | settings["dpt_widths_overridden_for_size"]
    assert values.pop("norm") == "LayerNorm eps 1e-6"
    value = settings["value_encoder_overridden_for_size"]
    assert value["enc_embed_dim"] == value["out_dim"] == values["enc_embed_dim"]
    return Point3RConfig.from_dict(
        values | {"value_depth": value["enc_depth"], "value_num_heads": value["enc_num_heads"]}
    )


@pytest.fixture(scope="module")
def model(golden) -> Point3R:
    model = Point3R(configuration(golden))
    model.load_state_dict(golden.weights("point3r/weights"))
    return model.eval().requires_grad_(False)


def network_input(images: np.ndarray) -> torch.Tensor:
    """Frames ``(frame, y, x, rgb)`` uint8 as ``(frame, 1, rgb, y, x)``."""
    return ((torch.from_numpy(images).float() / 255 - 0.5) / 0.5).permute(0, 3, 1, 2)[:, None]


class Maps:
    """Keeps queries, keys and logits of the decoder's sites, layer by layer."""

    def __init__(self) -> None:
        self.logits = defaultdict(list)
        self.tokens = defaultdict(list)

    def __call__(self, site, q, k):
        self.logits[site.kind].append(logits(q, k))
        self.tokens[site.kind].append((q, k))


def check(name: str, found: torch.Tensor, expected: np.ndarray) -> None:
    found = np.asarray(found)
    assert found.shape == expected.shape, name
    if name in EXACT:
        np.testing.assert_array_equal(found, expected, err_msg=name)
        return
    rtol, atol = next(rest for pattern, *rest in TOLERANCES if re.fullmatch(pattern, name))
    np.testing.assert_allclose(found, expected, rtol=rtol, atol=atol, err_msg=name)


def watched_modules(model: Point3R) -> dict[str, torch.nn.Module]:
    blocks = {
        "enc_block": model.enc_blocks,
        "dec_img_block": model.dec_blocks,
        "dec_memory_block": model.dec_blocks_memory,
        "value_block": model.value_encoder,
        "final_transform": model.downstream_head.final_transform,
    }
    return {
        "patch_embed": model.patch_embed,
        "feat": model.enc_norm,
        "dec_last_normed": model.dec_norm,
        "memory_out_normed_discarded": model.dec_norm_memory,
        "pose_raw": model.downstream_head.pose_head,
        "pts_patch_embed": model.pts_patch_embed,
        "feat_value": model.value_out,
        "feat_key": model.memory_attn_head,
        **{f"{name}{i}": block for name, list_ in blocks.items() for i, block in enumerate(list_)},
    } | (
        {}
        if model.config.head_type == "linear"
        else {
            "dpt_self_raw": model.downstream_head.dpt_self,
            "dpt_cross_raw": model.downstream_head.dpt_cross,
        }
    )


@pytest.fixture(scope="module")
def found(golden, model) -> dict[str, torch.Tensor]:
    """Everything the reference arrays of the single sequence hold, by their names."""
    seen: dict[str, torch.Tensor] = {}
    hooks = [
        module.register_forward_hook(lambda *args, name=name: seen.update({name: args[-1][0]}))
        for name, module in watched_modules(model).items()
    ]
    images = network_input(golden.arrays("point3r/inputs")["images_uint8"])
    per_frame, found, state = defaultdict(list), {}, model.begin()
    per_frame["pose_memory"].append(state.memory[0])
    for t, image in enumerate(images):
        maps = Maps()
        encoded = model.encode(Frame(image))
        entered = model.enter(encoded, state)
        decoded = model.decode(entered, probe=maps)
        prediction = model.predict(decoded)
        candidates = model.offer(encoded, decoded, prediction.points_world)
        decisions = state.pointers.decide(candidates.positions)
        found |= {f"f{t}_memory_in": entered.state[0], f"f{t}_pose_feat_in": entered.image[0, :1]}
        if t == 0:
            found["initial_features"] = entered.state[0]
        else:
            found[f"f{t}_memory_pos_in"] = state.pointers.positions[0]
            found[f"f{t}_img_pos_in"] = state.places[0]
        state, _ = model.commit(
            FrameRead(Frame(image), encoded, decoded, prediction), state, Write()
        )
        found |= {f"f{t}_{name}": value for name, value in seen.items()}
        found |= {
            f"f{t}_pose_memory_out": state.memory[0],
            f"features_f{t}": state.pointers.features[0],
            f"positions_f{t}": state.pointers.positions[0],
        }
        for kind, official in SITES.items():
            found[f"f{t}_{official}_logits"] = torch.cat(maps.logits[kind])
            q, k = maps.tokens[kind][0]
            found |= {f"f{t}_{official}_l0_query": q[0], f"f{t}_{official}_l0_key": k[0]}
        for name, value in {
            "pts3d_in_self_view": prediction.points_self,
            "pts3d_in_other_view": prediction.points_world,
            "conf_self": prediction.confidence_self,
            "conf": prediction.confidence_world,
            "camera_pose": prediction.pose,
            "c2w": pose_matrix(prediction.pose),
            "count": state.pointers.count,
            "candidate_features": candidates.features,
            "candidate_positions": candidates.positions,
            "threshold": decisions.threshold,
            "min_dist": decisions.distance,
            "nearest": decisions.nearest,
            "append": decisions.append,
            "pose_memory": state.memory,
            **{name: seen[name][None] for name in seen if re.match("patch_embed|enc_block", name)},
        }.items():
            per_frame[name].append(value[0])
    for hook in hooks:
        hook.remove()
    return found | {name: torch.stack(values) for name, values in per_frame.items()}


NOT_COMPARED = {"focal"}
"""The focal length that these random points imply means nothing."""


@pytest.mark.parametrize("file", ["outputs", "memory", "attention", "intermediates"])
def test_every_array_of_a_sequence(golden, found, file):
    expected = golden.arrays(f"point3r/{file}")
    for name in expected.keys() - NOT_COMPARED:
        check(name, found[name], expected[name])
    assert len(expected.keys() - NOT_COMPARED) >= 6


def test_the_rotation_of_places_in_space(golden):
    arrays = golden.arrays("point3r/rope3d")
    compared = set()
    for name, expected in arrays.items():
        width, _, kind = name.partition("_")
        if not kind.startswith("out"):
            continue
        pose = kind == "out_posetoken"
        places = torch.from_numpy(arrays[f"{width}_pos"])
        turn = spatial_rotation(places[:, :-1] if pose else places, int(width[1:]), pose=pose)
        turned = rotate(torch.from_numpy(arrays[f"{width}_in"]), turn)
        np.testing.assert_allclose(turned, expected, rtol=0, atol=2e-6, err_msg=name)
        compared |= {name, f"{width}_in", f"{width}_pos"}
    assert compared == set(arrays)


def test_channels_of_a_head_are_cut_into_three_parts():
    assert part_widths(48) == (16, 16, 16)
    assert part_widths(64) == (21, 21, 22)
    assert part_widths(16) == (5, 5, 6)


def test_vectors_far_from_the_origin_get_shorter():
    tokens = torch.randn(1, 1, 50, 48, generator=torch.Generator().manual_seed(0))
    far = rotate(tokens, spatial_rotation(torch.full((1, 50, 3), 3.0), 48))
    here = rotate(tokens, spatial_rotation(torch.zeros(1, 50, 3), 48))
    assert torch.equal(here, tokens)
    assert 0.9 < (far.norm(dim=-1) / tokens.norm(dim=-1)).mean() < 0.99


def test_a_batch_of_two_as_the_official_code_pads_it(golden, model):
    expected = golden.arrays("point3r/extra/batch_of_two")
    first = golden.arrays("point3r/inputs")["images_uint8"]
    frames = torch.cat([network_input(first), network_input(expected["images_uint8"])], dim=1)
    state, found, compared = model.begin(2), defaultdict(list), {"images_uint8"}
    for t, image in enumerate(frames):
        exists, maps = state.pointers.exists, Maps()
        if f"mask_f{t}" in expected:
            everywhere = torch.ones(state.tokens.shape[:2], dtype=torch.bool)
            mask = everywhere if exists is None else exists
            np.testing.assert_array_equal(mask, expected[f"mask_f{t}"])
            compared.add(f"mask_f{t}")
        step = model.step(Frame(image), state, probe=maps)
        for name in (name for name in expected if name.startswith(f"f{t}_")):
            there = np.ones(state.tokens.shape[:2], bool) if exists is None else exists.numpy()
            if name.endswith("discarded"):
                values = step.decoded.proposal
                axes = {1: there}
            else:
                kind = next(kind for kind, called in SITES.items() if f"_{called}_" in name)
                values = torch.stack(maps.logits[kind], dim=1)
                streams = ("queries", "keys")
                axes = {
                    3 + side: there
                    for side, stream in enumerate(streams)
                    if getattr(SITE_KINDS[kind], stream) == "state"
                }
            for sample in range(2):  # rows of padding mean nothing
                chosen = [np.arange(size) for size in values.shape[1:]]
                for axis, rows in axes.items():
                    chosen[axis - 1] = np.flatnonzero(rows[sample])
                own = np.ix_(*chosen)
                check(name, values[sample].numpy()[own], expected[name][sample][own])
            compared.add(name)
        state = step.state
        found["count"].append(state.pointers.count)
        found["camera_pose"].append(step.prediction.pose)
    for name, values in found.items():
        check(name, torch.stack(values), expected[name])
    assert compared | set(found) == set(expected)


def test_a_batch_equals_its_sequences_one_by_one(golden, model):
    first = network_input(golden.arrays("point3r/inputs")["images_uint8"])
    second = network_input(golden.arrays("point3r/extra/batch_of_two")["images_uint8"])
    together, alone = model.begin(2), [model.begin(), model.begin()]
    for pair in zip(first, second, strict=True):
        step = model.step(Frame(torch.cat(pair)), together)
        together = step.state
        for sample, image in enumerate(pair):
            single = model.step(Frame(image), alone[sample])
            alone[sample] = single.state
            count = int(together.pointers.count[sample])
            assert count == int(single.state.pointers.count[0])
            for name in ("features", "positions", "birth", "updated"):
                torch.testing.assert_close(
                    getattr(together.pointers, name)[sample, :count],
                    getattr(single.state.pointers, name)[0],
                    rtol=0,
                    atol=5e-5,
                )
            torch.testing.assert_close(
                step.prediction.pose[sample], single.prediction.pose[0], rtol=0, atol=1e-5
            )


@pytest.mark.parametrize(
    ("key", "config", "count", "parameters"),
    [
        ("point3r_512_dpt", Point3RConfig(), 1231, 828_014_991),
        (
            "point3r_224_linear",
            Point3RConfig(img_size=(224, 224), head_type="linear"),
            1103,
            798_629_895,
        ),
    ],
)
def test_names_and_shapes_of_full_models(golden, key, config, count, parameters):
    path = golden.folder / "point3r" / "extra" / "param_shapes_full.json.gz"
    expected = json.loads(gzip.decompress(path.read_bytes()))[key]
    with torch.device("meta"):
        model = Point3R(config)
    shapes = {name: list(tensor.shape) for name, tensor in model.state_dict().items()}
    assert shapes == expected
    assert len(shapes) == count
    assert sum(parameter.numel() for parameter in model.parameters()) == parameters


def test_the_float16_rotation_of_the_encoder_is_there(golden):
    images = network_input(golden.arrays("point3r/inputs")["images_uint8"])
    arrays = golden.arrays("point3r/intermediates")
    model = Point3R(configuration(golden))
    model.load_state_dict(golden.weights("point3r/weights"))

    def error() -> float:
        encoded = {t: model.encode(Frame(image)).features[0] for t, image in enumerate(images)}
        found = [
            encoded[t].numpy() - arrays[f"f{t}_feat"] for t in encoded if f"f{t}_feat" in arrays
        ]
        return float(np.linalg.norm(np.concatenate(found)))

    with torch.no_grad():
        rounded = error()
        model.rotate_encoder_in(None)
        assert 3 * rounded < error()


# How pointers are written


def pointers_at(*places: float) -> Pointers:
    """Pointers on the x axis, whose features are their numbers."""
    count = len(places)
    positions = torch.tensor([[place, 0.0, 0.0] for place in places])
    frames = torch.zeros(1, count, dtype=torch.long)
    features = torch.arange(count, dtype=torch.float32)[None, :, None]
    return Pointers(features, positions[None], frames, frames, torch.tensor([count]))


def test_candidates_of_one_pointer_replace_it_by_their_own_mean():
    before = pointers_at(0.0, 10.0, 20.0)
    offered = torch.tensor([[[9.8, 0, 0], [10.4, 0, 0], [13.0, 0, 0], [19.9, 0, 0], [7.0, 0, 0]]])
    features = torch.tensor([[[100.0], [300.0], [5.0], [8.0], [6.0]]])
    decisions = before.decide(offered)
    assert decisions.threshold.tolist() == [1.0]
    assert decisions.nearest.tolist() == [[1, 1, 1, 2, 1]]
    assert decisions.append.tolist() == [[False, False, True, False, True]]
    after = before.written(Candidates(features, offered), decisions, torch.tensor([7]))
    assert after.count.tolist() == [5]
    assert after.features[0, :, 0].tolist() == [0, 200, 8, 5, 6]
    torch.testing.assert_close(after.positions[0, :, 0], torch.tensor([0, 10.1, 19.9, 13, 7]))
    assert after.birth.tolist() == [[0, 0, 0, 7, 7]]
    assert after.updated.tolist() == [[0, 7, 7, 7, 7]]
    assert before.features[0, :, 0].tolist() == [0, 1, 2]


def test_one_far_candidate_coarsens_the_memory():
    near, far = (torch.tensor([[[x, 0, 0], [2.0, 0, 0]]]) for x in (3.0, 300.0))
    assert pointers_at(0.0).decide(near).append.tolist() == [[True, True]]
    assert pointers_at(0.0).decide(far).append.tolist() == [[True, False]]


def test_all_candidates_of_a_first_frame_become_pointers():
    none = Pointers.none(1, 1, torch.device("cpu"), torch.float32)
    offered = torch.zeros(1, 4, 3)
    decisions = none.decide(offered)
    assert decisions.nearest.tolist() == [[-1] * 4]
    assert not decisions.append.any()
    assert decisions.threshold.isnan().all()
    assert decisions.distance.isnan().all()
    written = none.written(Candidates(torch.ones(1, 4, 1), offered), decisions, torch.tensor([0]))
    assert written.count.tolist() == [4]


# What holds at any size


def images(count: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(count, 1, 3, 48, 64, generator=generator) * 2 - 1


def roll(model: Point3R, frames: list[Frame], state=None) -> list:
    steps = []
    for frame in frames:
        steps.append(model.step(frame, state))
        state = steps[-1].state
    return steps


@pytest.fixture(scope="module")
def small() -> Point3R:
    return load_backbone("random:point3r-small", device="cpu")


def test_pointers_only_grow_and_say_when_they_were_written(small):
    steps = roll(small, [Frame(image) for image in images(4)])
    counts = [int(step.state.pointers.count) for step in steps]
    assert counts == sorted(counts)
    for t, step in enumerate(steps):
        pointers = step.state.pointers
        assert step.state.tokens.shape[1] == counts[t]
        assert torch.equal(step.rate, (pointers.updated == t).float())
        assert (pointers.birth <= pointers.updated).all()
        if t:
            old = counts[t - 1]
            assert torch.equal(pointers.birth[:, :old], steps[t - 1].state.pointers.birth)
            assert (pointers.birth[:, old:] == t).all()
            kept = pointers.updated[:, :old] < t
            assert torch.equal(pointers.features[:, :old][kept], steps[t - 1].state.tokens[kept])


def test_frames_that_may_not_write_leave_no_trace_but_their_number(small):
    a, b, c = images(3)
    visited = roll(small, [Frame(a), Frame(b, update=False), Frame(c)])
    skipped = roll(small, [Frame(a), Frame(c)])
    one, other = visited[-1], skipped[-1]
    for name in ("memory", "places", "tokens"):
        assert torch.equal(getattr(one.state, name), getattr(other.state, name)), name
    assert torch.equal(one.prediction.pose, other.prediction.pose)
    assert not visited[1].rate.any()
    assert int(visited[-1].state.age) == 3


def test_a_reset_starts_over_also_for_one_of_a_batch(small):
    a, b, c = images(3)
    fresh = roll(small, [Frame(b), Frame(c)])
    going = roll(small, [Frame(a), Frame(b), Frame(c)])
    both = roll(
        small,
        [
            Frame(torch.cat([x, x]), reset=torch.tensor([not t, False]))
            for t, x in enumerate((a, b, c))
        ],
    )
    for t in (1, 2):
        for sample, alone in ((0, fresh[t - 1]), (1, going[t])):
            count = int(alone.state.pointers.count)
            assert int(both[t].state.pointers.count[sample]) == count
            pairs = (
                (both[t].prediction.pose[sample], alone.prediction.pose[0]),
                (both[t].state.tokens[sample, :count], alone.state.tokens[0]),
                (both[t].state.pointers.birth[sample, :count], alone.state.pointers.birth[0]),
            )
            for one, other in pairs:
                torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


def test_the_decoder_of_pointers_never_reaches_the_written_memory_by_itself(small):
    frame = Frame(images(1)[0])
    plain, watched = small.step(frame), small.step(frame, probe=lambda site, q, k: None)
    assert plain.decoded.proposal is None
    assert watched.decoded.proposal is not None
    assert torch.equal(plain.state.tokens, watched.state.tokens)
    assert torch.equal(plain.prediction.points_self, watched.prediction.points_self)


def test_every_site_is_seen_once_per_layer(small):
    seen = defaultdict(list)
    small.step(Frame(images(1)[0]), probe=lambda site, q, k: seen[site.kind].append((site, q, k)))
    for kind, size in small.sites().items():
        assert [site.layer for site, _, _ in seen[kind]] == list(range(size.layers)), kind
        for _, q, k in seen[kind]:
            assert q.shape[1] == k.shape[1] == size.heads
            assert q.shape[3] == k.shape[3] == size.channels


def test_asking_for_less_computes_the_same_numbers(small):
    a, b = images(2)
    everything = roll(small, [Frame(a), Frame(b)])[1]
    first = small.step(Frame(a), outputs=("pose",))
    pose = small.step(Frame(b), first.state, outputs=("pose",))
    assert torch.equal(pose.prediction.pose, everything.prediction.pose)
    assert torch.equal(pose.state.tokens, everything.state.tokens)
    assert pose.prediction.points_self is None


def test_what_the_model_lacks_is_refused(small):
    image = images(1)[0]
    with pytest.raises(InvalidArgument, match="no ray map"):
        small.step(Frame(image, ray_map=torch.zeros(1, 48, 64, 6)))
    with pytest.raises(InvalidArgument, match="does not predict"):
        small.step(Frame(image), outputs=("color",))
    with pytest.raises(InvalidArgument, match="update='cut3r' only"):
        load_backbone("random:point3r-small", update="ttt3r")
    encoded = small.encode(Frame(image))
    state = small.begin()
    decoded = small.decode(small.enter(encoded, state))
    pose = small.predict(decoded, ("pose",))
    with pytest.raises(InvalidArgument, match="points_world"):
        small.commit(FrameRead(Frame(image), encoded, decoded, pose), state, Write())


def test_a_gate_is_refused_where_samples_have_different_numbers_of_pointers(golden, model):
    first = network_input(golden.arrays("point3r/inputs")["images_uint8"])
    second = network_input(golden.arrays("point3r/extra/batch_of_two")["images_uint8"])
    state = model.begin(2)
    for pair in zip(first[:3], second[:3], strict=True):
        state = model.step(Frame(torch.cat(pair)), state).state
    assert state.pointers.exists is not None

    def gate(site, q, k, v):
        return torch.zeros_like(q) if site.kind == "image_to_state" else None

    with pytest.raises(InvalidArgument, match="one at a time"):
        model.step(Frame(torch.cat([first[3], second[3]])), state, gate=gate)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"memory_dec_num_heads": 5}, "memory_dec_num_heads"),
        ({"value_num_heads": 15}, "4 x value_num_heads"),
        ({"dec_embed_dim": 50}, "4 x dec_num_heads"),
        ({"pos_embed_3d": "None"}, "RoPE3D100"),
        ({"pose_head": False}, "pose_head"),
        ({"value_depth": 0}, "at least 1"),
    ],
)
def test_configurations_that_cannot_be_built_are_refused(changes, message):
    with pytest.raises(InvalidArgument, match=message):
        Point3RConfig(**changes)


def test_configuration_round_trip():
    config = Point3RConfig(dec_depth=6, value_depth=3)
    assert Point3RConfig.from_json(config.to_json()) == config
    with pytest.raises(InvalidArgument, match=r"configuration: unknown.*state_size"):
        Point3RConfig.from_dict({"state_size": 3})
