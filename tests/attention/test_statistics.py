"""Statistics equal their dense float64 definitions, and nobody forms the map to get them."""

from types import SimpleNamespace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode

from mut3r_analysis.attention import STATISTICS, Capture, Recorder, attend, site_statistics
from mut3r_analysis.attention.sites import Site
from mut3r_analysis.attention.statistics import (
    DEVICE_TILE_BYTES,
    largest,
    layers_at_once,
    tile_rows,
)
from mut3r_analysis.backbones import CUT3RConfig, Frame, load_backbone
from mut3r_analysis.errors import InvalidArgument

TOLERANCE = {torch.float64: 1e-12, torch.float32: 1e-5, torch.bfloat16: 1e-3, torch.float16: 1e-3}


def dense(q, k):
    q, k = q.double(), k.double()
    z = q @ k.mT / q.shape[-1] ** 0.5
    p = z.softmax(-1)
    return {
        "logit_mean": z.mean(-1),
        "logit_variance": z.var(-1, unbiased=False),
        "logsumexp": z.logsumexp(-1),
        "entropy": -torch.special.xlogy(p, p).sum(-1),
        "max_weight": p.amax(-1),
        "argmax_key": p.argmax(-1),
        "pose_weight": p[..., 0],
        "received": p.mean(-2),
        "received_logit": z.mean(-2),
    }


def tokens(generator, heads, count, channels, dtype, offset=1.0, sink=0.0):
    x = torch.randn(1, heads, count, channels, generator=generator, dtype=torch.float64)
    x = x + offset * torch.randn(1, heads, 1, channels, generator=generator, dtype=torch.float64)
    x[:, :, 0] += sink
    return x.to(dtype)


def largest_relative_error(found, expected):
    return ((found.double() - expected).abs().max() / expected.abs().max().clamp_min(1e-30)).item()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
@settings(max_examples=40, deadline=None)
@given(
    queries=st.integers(2, 90),
    keys=st.integers(2, 90),
    heads=st.integers(1, 5),
    quarter=st.integers(1, 16),
    offset=st.sampled_from([0.0, 1.0, 4.0]),
    sink=st.sampled_from([0.0, 2.0]),
    seed=st.integers(0, 2**16),
)
def test_every_statistic_equals_its_definition(
    dtype, queries, keys, heads, quarter, offset, sink, seed
):
    generator = torch.Generator().manual_seed(seed)
    q = tokens(generator, heads, queries, 4 * quarter, dtype, offset)
    k = tokens(generator, heads, keys, 4 * quarter, dtype, offset, sink)
    found = site_statistics(STATISTICS, q, k, pose_key=0)
    assert set(found) == set(STATISTICS)
    for name, expected in dense(q, k).items():
        assert found[name].dtype == torch.promote_types(dtype, torch.float32)
        if name == "entropy":
            # A row that is all on one key has entropy 0: compare on the scale of log(keys).
            expected, values = expected + 1, found[name].double() + 1
        else:
            values = found[name]
        if name == "argmax_key":
            # Which of two keys alike wins is rounding; what it weighs is not.
            weights = (q.double() @ k.double().mT / q.shape[-1] ** 0.5).softmax(-1)
            values = weights.gather(-1, values.long()[..., None])[..., 0]
            expected = weights.amax(-1)
        assert largest_relative_error(values, expected) < TOLERANCE[dtype], name


def test_full_size_site():
    generator = torch.Generator().manual_seed(0)
    q = tokens(generator, 12, 769, 64, torch.float32)
    k = tokens(generator, 12, 768, 64, torch.float32, sink=1.0)
    found = site_statistics(STATISTICS, q, k, pose_key=0)
    for name, expected in dense(q, k).items():
        assert largest_relative_error(found[name], expected) < 2e-6, name


@given(keys=st.integers(1, 200), levels=st.integers(1, 9), seed=st.integers(0, 99))
@settings(deadline=None)
def test_the_largest_logit_is_found_in_blocks_of_keys_as_among_all(keys, levels, seed):
    z = torch.randint(levels, (2, 7, keys), generator=torch.Generator().manual_seed(seed)).float()
    peak, place = largest(z)
    assert torch.equal(peak, z.amax(-1))
    # Where some are equal, the first: so does `argmax` on a CPU.
    assert torch.equal(place, z.argmax(-1))


@pytest.mark.parametrize("keys", [6, 70])
def test_statistics_can_be_differentiated(keys):
    q, k = (
        torch.randn(1, 2, count, 8, dtype=torch.float64, requires_grad=True) for count in (6, keys)
    )
    smooth = set(STATISTICS) - {"argmax_key"}
    torch.autograd.gradcheck(
        lambda q, k: tuple(site_statistics(smooth, q, k, pose_key=0).values()), (q, k)
    )


def test_extreme_logits_stay_finite():
    q = torch.full((1, 1, 4, 8), 60.0)
    k = torch.cat([torch.full((1, 1, 1, 8), 60.0), torch.full((1, 1, 5, 8), -60.0)], dim=2)
    found = site_statistics(STATISTICS, q, k, pose_key=0)
    assert all(values.isfinite().all() for values in found.values())
    assert torch.allclose(found["max_weight"], torch.ones(1, 1, 4))
    assert found["entropy"].abs().max() < 1e-6


def test_one_query_and_one_key():
    q, k = torch.randn(1, 2, 1, 8), torch.randn(1, 2, 1, 8)
    found = site_statistics(STATISTICS, q, k, pose_key=0)
    assert torch.equal(found["received"], torch.ones(1, 2, 1))
    assert torch.equal(found["logit_variance"], torch.zeros(1, 2, 1))


def test_pose_weight_needs_a_pose_key():
    q, k = torch.randn(1, 2, 5, 8), torch.randn(1, 2, 6, 8)
    assert "pose_weight" not in site_statistics(STATISTICS, q, k)


def test_unknown_statistics_are_refused():
    with pytest.raises(InvalidArgument, match=r"unknown statistic.*mean_logit.*known: logit_mean"):
        site_statistics(["mean_logit"], torch.zeros(1, 1, 2, 4), torch.zeros(1, 1, 2, 4))


class LargestMap(TorchDispatchMode):
    """Notes every tensor that an operation makes whose last two sizes span queries x keys."""

    def __init__(self, extents: set[tuple[int, int]]) -> None:
        super().__init__()
        self._extents = extents
        self.exact: set[tuple[int, int]] = set()
        self.seen: list[tuple[str, tuple[int, ...]]] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        for value in result if isinstance(result, list | tuple) else [result]:
            if isinstance(value, torch.Tensor) and self._is_map(value.shape):
                self.seen.append((str(func), tuple(value.shape)))
        return result

    def _is_map(self, shape) -> bool:
        sizes = list(shape)
        return (
            tuple(sizes[-2:]) in self.exact
            or any(
                sizes[i] >= queries and sizes[i + 1] >= keys
                for queries, keys in self._extents
                for i in range(len(sizes) - 1)
            )
            or any(
                size == queries * keys * factor
                for queries, keys in self._extents
                for size in sizes
                for factor in (1, 2, 3, 4)
            )
        )


def test_the_watcher_sees_a_map():
    q, k = torch.randn(1, 2, 70, 8), torch.randn(1, 2, 50, 8)
    with LargestMap({(70, 50)}) as watch:
        _ = q @ k.mT
    assert watch.seen


@pytest.mark.parametrize(("queries", "keys"), [(1537, 1536), (13, 28), (70, 50), (9, 10)])
def test_no_statistic_allocates_a_map(queries, keys):
    q, k = torch.randn(1, 3, queries, 4), torch.randn(1, 3, keys, 4)
    with LargestMap({(queries, keys)}) as watch:
        site_statistics(STATISTICS, q, k, pose_key=0)
        attend(Site("image_self", 0), q, k, k, probe=lambda site, q, k: None)
    assert not watch.seen
    assert tile_rows(3, queries, keys) < queries


def test_no_map_in_a_whole_captured_frame():
    config = CUT3RConfig(
        img_size=(64, 64),
        patch_size=8,
        enc_embed_dim=64,
        enc_depth=1,
        enc_num_heads=4,
        dec_embed_dim=24,
        dec_depth=2,
        dec_num_heads=2,
        state_dec_num_heads=3,
        state_size=30,
        local_mem_size=7,
        head_type="linear",
    )
    backbone = load_backbone(config)
    recorder = Recorder(Capture(sites="all"), backbone.sites(), backbone.axes((8, 8)))
    # 65 image tokens, 64 patches and 30 state tokens; no layer has a width of 65 or 30.
    with LargestMap(set()) as watch, torch.no_grad():
        watch.exact = {(65, 65), (65, 30), (30, 65), (30, 30)}
        backbone.step(Frame(torch.rand(1, 3, 64, 64)), probe=recorder)
    assert not watch.seen
    found = recorder.take()
    assert set(found) == set(backbone.sites())
    assert found["image_self"]["entropy"].shape == (1, 2, 2, 65)


def record(capture, scale, v=1.0):
    """What a recorder keeps of one site whose queries and keys are as large as `scale`."""
    config = CUT3RConfig(
        img_size=(32, 32), patch_size=8, enc_embed_dim=64, enc_depth=1, enc_num_heads=2,
        dec_embed_dim=64, dec_depth=2, dec_num_heads=2, state_size=5, local_mem_size=4,
        head_type="linear",
    )  # fmt: skip
    backbone = load_backbone(config)
    recorder = Recorder(capture, backbone.sites(), backbone.axes((4, 4)))
    site, generator = Site("image_self", 0), torch.Generator().manual_seed(0)
    q, k = (scale * torch.randn(1, 2, 17, 8, generator=generator) for _ in range(2))
    recorder(site, q, k)
    recorder.output(site, q, k, k, v * torch.ones(1, 2, 17, 8))
    return recorder


@pytest.mark.parametrize(
    ("options", "scale", "v", "named"),
    [
        ({"dtype": "float16"}, 1e3, 1.0, "image_self/logit_variance"),
        ({"dtype": "float16", "maps": "image_self"}, 1e3, 1.0, "image_self/logits"),
        ({"archive": "float16"}, 1e5, 1.0, "image_self/rotated_query"),
        ({"dtype": "float16", "head_outputs": "image_self"}, 1.0, 1e5, "image_self/output_norm"),
    ],
)
def test_what_float16_cannot_hold_is_named_once(options, scale, v, named):
    recorder = record(Capture(sites=["image_self"], **options), scale, v)
    with pytest.warns(UserWarning, match="beyond what float16 holds") as caught:
        kept = recorder.take()
    messages = [str(each.message) for each in caught]
    assert any(f"attention/{named}:" in message for message in messages)
    assert len(set(messages)) == len(messages)
    kind, name = named.split("/")
    assert torch.isinf(kept[kind][name]).any()


@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_what_fits_is_kept_without_a_word(dtype):
    scale = 1.0 if dtype == "float16" else 1e5
    kept = record(Capture(sites=["image_self"], dtype=dtype), scale).take()
    assert torch.isfinite(kept["image_self"]["logit_variance"]).all()


@pytest.mark.parametrize("together", [2, 5])
def test_layers_that_are_measured_together_have_the_numbers_of_each(monkeypatch, together):
    backbone = load_backbone("random:small", device="cpu")
    capture = Capture(statistics="all", sites="all", archive="float32", head_outputs="image_self")
    frame, axes = Frame(torch.rand(2, 3, 48, 64)), backbone.axes((6, 8))

    def records():
        recorder = Recorder(capture, backbone.sites(), axes)
        with torch.no_grad():
            backbone.step(frame, probe=recorder)
        return recorder.take()

    each = records()
    monkeypatch.setattr("mut3r_analysis.attention.recorder.layers_at_once", lambda q, k: together)
    found = records()
    assert {kind: set(values) for kind, values in found.items()} == {
        kind: set(values) for kind, values in each.items()
    }
    for kind, values in each.items():
        for name, value in values.items():
            assert found[kind][name].shape == value.shape
            torch.testing.assert_close(found[kind][name], value, rtol=1e-5, atol=1e-6)


def test_on_a_cpu_layers_are_measured_together_as_long_as_they_fit_into_one_tile():
    for tokens, layers in {49: 109, 513: 1, 4097: 1}.items():  # 2^20 numbers, 4 heads
        q = torch.empty(1, 4, tokens, 8, device="meta")
        assert layers_at_once(q, q) == layers


def test_a_tile_of_a_gpu_holds_what_its_bytes_allow():
    assert tile_rows(12, 769, 769, "cuda") == 769
    assert tile_rows(16, 10_000, 10_000, "cuda") == DEVICE_TILE_BYTES // (4 * 16 * 10_000)
    for device, layers in (("cuda", DEVICE_TILE_BYTES // (4 * 12 * 769 * 768)), ("cpu", 1)):
        q, k = (
            SimpleNamespace(device=torch.device(device), shape=(1, 12, tokens, 64))
            for tokens in (769, 768)
        )
        assert layers_at_once(q, k) == layers
