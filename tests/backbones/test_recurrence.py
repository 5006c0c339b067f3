"""Masks, batches, write rules and precision of the recurrence."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from mut3r_analysis.backbones import CUT3R, CUT3RConfig, Frame, load_backbone
from mut3r_analysis.errors import InvalidArgument, MissingFile

SIZE = (1, 3, 48, 64)


def images(count, seed=0):
    return torch.rand(count, *SIZE, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def roll(model, frames, state=None):
    steps = []
    for frame in frames:
        steps.append(model.step(frame, state))
        state = steps[-1].state
    return steps


@pytest.mark.parametrize("update", ["cut3r", "ttt3r", "ttsa3r"])
def test_a_batch_equals_its_sequences_one_by_one(update):
    model = load_backbone("random:small", update=update)
    left, right = images(4), images(4, seed=1)
    resets = [False, True, False, False]
    together = roll(
        model,
        [
            Frame(torch.cat([a, b]), reset=torch.tensor([reset, False]))
            for a, b, reset in zip(left, right, resets, strict=True)
        ],
    )
    alone = (
        roll(model, [Frame(a, reset=r) for a, r in zip(left, resets, strict=True)]),
        roll(model, [Frame(b) for b in right]),
    )
    for t, step in enumerate(together):
        for row, steps in enumerate(alone):
            single = steps[t]
            torch.testing.assert_close(step.state.tokens[row], single.state.tokens[0])
            torch.testing.assert_close(step.prediction.pose[row], single.prediction.pose[0])
            torch.testing.assert_close(step.rate[row], single.rate[0])


@pytest.mark.parametrize("update", ["cut3r", "ttt3r", "ttsa3r"])
def test_frames_that_may_not_write_leave_no_trace(update):
    model = load_backbone("random:small", update=update)
    a, b, c = images(3)
    visited = roll(model, [Frame(a), Frame(b, update=False), Frame(c)])
    skipped = roll(model, [Frame(a), Frame(c)])
    assert torch.equal(visited[-1].state.tokens, skipped[-1].state.tokens)
    assert torch.equal(visited[-1].state.memory, skipped[-1].state.memory)
    assert not visited[1].rate.any()


def test_ttt3r_starts_over_after_a_reset():
    model = load_backbone("random:small", update="ttt3r")
    a, b, c = images(3)
    after = roll(model, [Frame(a, reset=True), Frame(b), Frame(c)])[1:]
    fresh = roll(model, [Frame(b), Frame(c)])
    for one, other in zip(after, fresh, strict=True):
        assert torch.equal(one.state.tokens, other.state.tokens)
        assert torch.equal(one.prediction.pose, other.prediction.pose)


@pytest.mark.parametrize("update", ["cut3r", "ttsa3r"])
def test_the_initial_memory_is_read_after_a_reset(update):
    model = load_backbone("random:small", update=update)
    a, b = images(2)
    after = roll(model, [Frame(a, reset=True), Frame(b)])[1]
    fresh = roll(model, [Frame(b)])[0]
    assert not torch.equal(after.decoded.pose_query, fresh.decoded.pose_query)
    assert torch.equal(after.rate, torch.ones_like(after.rate))


def test_ttsa3r_rate_follows_its_formulas():
    model = load_backbone("random:small", update="ttsa3r")
    a, b, c = images(3)
    maps = []

    def probe(site, q, k):
        if site.kind == "state_to_image":
            maps.append(q.double() @ k.double().mT / q.shape[-1] ** 0.5)

    first = model.step(Frame(a))
    assert torch.equal(first.rate, torch.ones_like(first.rate))
    second = model.step(Frame(b), first.state)
    maps.clear()
    third = model.step(Frame(c), second.state, probe=probe)
    before, now = (model.encode(Frame(x)).features.double() for x in (b, c))
    drift = 1 - torch.nn.functional.cosine_similarity(now, before, dim=-1)
    mean = torch.stack(maps).mean(dim=(0, 2))[..., 1:].abs()
    spatial = (mean * drift[:, None]).amax(-1).sigmoid()
    change = (third.decoded.proposal - second.decoded.proposal).double().norm(dim=-1)
    temporal = (change / change.mean() - 1.5).sigmoid()
    torch.testing.assert_close(third.rate.double(), temporal * spatial, rtol=1e-5, atol=1e-6)
    assert (spatial >= 0.5).all()


def test_ttsa3r_forgets_its_buffers_on_a_reset():
    model = load_backbone("random:small", update="ttsa3r")
    a, b, c, d = images(4)
    steps = roll(model, [Frame(a), Frame(b, reset=True), Frame(c, update=False), Frame(d)])
    assert torch.equal(steps[-1].rate, torch.ones_like(steps[-1].rate))


def test_asking_for_less_computes_the_same_numbers():
    model = load_backbone("random:small")
    frame = Frame(images(1)[0])
    everything = model.step(frame).prediction
    pose = model.step(frame, outputs=("pose",)).prediction
    assert torch.equal(pose.pose, everything.pose)
    assert pose.points_self is pose.points_world is pose.color is None
    depth = model.step(frame, outputs="depth").prediction
    assert torch.equal(depth.points_self, everything.points_self)
    assert depth.pose is None


def test_what_is_not_asked_for_is_not_run():
    model = load_backbone("random:small")
    ran = []
    for name, module in model.downstream_head.named_children():
        module.register_forward_hook(lambda *_, name=name: ran.append(name))
    model.step(Frame(images(1)[0]), outputs=("pose",))
    assert ran == ["pose_head"]


def test_unknown_outputs_are_refused():
    model = load_backbone("random:small")
    with pytest.raises(InvalidArgument, match=r"'points'.*points_self"):
        model.step(Frame(images(1)[0]), outputs=("points",))
    colourless = CUT3R(replace(model.config, rgb_head=False))
    with pytest.raises(InvalidArgument, match="does not predict"):
        colourless.step(Frame(images(1)[0]), outputs=("color",))


def test_image_and_ray_map_are_summed():
    model = load_backbone("random:small")
    image, rays = images(1)[0], torch.randn(1, 48, 64, 6)
    both = model.encode(Frame(image, ray_map=rays)).features
    summed = model.encode(Frame(image)).features + model.encode(Frame(ray_map=rays)).features
    torch.testing.assert_close(both, summed)


def test_frames_that_do_not_fit_are_refused():
    model = load_backbone("random:small")
    with pytest.raises(InvalidArgument, match="multiples of the patch size 8"):
        model.step(Frame(torch.zeros(1, 3, 50, 64)))
    with pytest.raises(InvalidArgument, match="neither"):
        model.step(Frame())
    with pytest.raises(InvalidArgument, match="same size"):
        model.step(Frame(torch.zeros(1, 3, 48, 64), ray_map=torch.zeros(1, 64, 48, 6)))


def test_bfloat16_stays_close_and_says_so():
    frame = Frame(images(1)[0])
    exact = load_backbone("random:small", precision="float32-throughout")
    coarse = load_backbone("random:small", dtype=torch.bfloat16)
    assert coarse.precision.name == "bfloat16"
    one, other = (model.step(frame).prediction.pose for model in (exact, coarse))
    assert other.dtype == torch.float32
    assert 0 < (one - other).abs().max() < 0.1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"update": "ttt4r"}, "must be one of cut3r, ttt3r, ttsa3r"),
        ({"precision": "half"}, "unknown precision"),
        ({"precision": "tf32", "device": "cpu"}, "CUDA devices only"),
        ({"precision": "float32", "dtype": torch.bfloat16}, "contradicts precision"),
        ({"dtype": torch.float16}, "dtype must be torch.float32 or torch.bfloat16"),
        ({"device": "cuda:99"}, "cannot be used here"),
        ({"device": "gpu"}, "cannot be used here"),
    ],
)
def test_loading_refuses_what_cannot_be(arguments, message):
    with pytest.raises(InvalidArgument, match=message):
        load_backbone("random:small", **arguments)


def test_unknown_backbones_are_refused():
    with pytest.raises(MissingFile, match="no checkpoint 'tinny'"):
        load_backbone("tinny")
    with pytest.raises(InvalidArgument, match=r"must be one of small, 512-dpt, 224-linear"):
        load_backbone("random:large")


def test_random_weights_are_reproducible_and_say_what_they_are():
    one, same, other = (load_backbone("random:small", seed=seed) for seed in (0, 0, 1))
    frame = Frame(images(1)[0])
    poses = [model.step(frame).prediction.pose for model in (one, same, other)]
    assert torch.equal(poses[0], poses[1])
    assert not torch.equal(poses[0], poses[2])
    assert one.origin.sha256 == same.origin.sha256 != other.origin.sha256
    assert "random weights" in one.origin.report[0]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"enc_embed_dim": 96}, "multiple of"),
        ({"dec_embed_dim": 50}, "4 x dec_num_heads"),
        ({"state_dec_num_heads": 5}, "4 x state_dec_num_heads"),
        ({"dec_depth": 1}, "at least 2"),
        ({"img_size": (60, 64)}, "multiples of patch_size"),
        ({"state_size": 0}, "at least 1"),
        ({"head_type": "mlp"}, "one of dpt, linear"),
        ({"pos_embed": "cosine"}, "RoPE100"),
        ({"depth_mode": ("linear", 0, 1)}, "depth_mode"),
        ({"pose_head": False}, "pose_head"),
        ({"landscape_only": True}, "landscape_only"),
        ({"patch_size": 8, "img_size": (64, 64)}, "patch size 16"),
    ],
)
def test_configurations_that_cannot_be_built_are_refused(changes, message):
    with pytest.raises(InvalidArgument, match=message):
        CUT3RConfig(**changes)


def test_configuration_round_trip():
    config = CUT3RConfig(state_size=30, dec_depth=6)
    assert CUT3RConfig.from_json(config.to_json()) == config
    with pytest.raises(InvalidArgument, match="configuration: unknown"):
        CUT3RConfig.from_dict({"width": 3})


@pytest.mark.parametrize(("rows", "columns"), [(21, 32), (7, 5), (1, 4)])
def test_dpt_head_with_odd_patch_grids(golden, rows, columns):
    model = golden.backbone()
    image = torch.zeros(1, 3, 16 * rows, 16 * columns)
    prediction = model.step(Frame(image), outputs=("depth",)).prediction
    assert prediction.points_self.shape == (1, 16 * rows, 16 * columns, 3)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_cuda_agrees_with_the_cpu(golden):
    inputs = golden.arrays("inputs")["img"]
    expected = golden.arrays("outputs_cut3r_dpt")
    model = golden.backbone().cuda()
    steps = roll(model, [Frame(torch.from_numpy(image[None]).cuda()) for image in inputs])
    pose = torch.cat([step.prediction.pose for step in steps]).cpu().numpy()
    np.testing.assert_allclose(pose, expected["camera_pose"], rtol=0, atol=5e-5)
