"""Readings against dense float64 definitions, and their memory."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from layout import axes, sites
from torch.utils._python_dispatch import TorchDispatchMode

from mut3r_analysis.attention import Site
from mut3r_analysis.attention.tokens import image_axis
from mut3r_analysis.backbones import Frame, load_backbone
from mut3r_analysis.motion import READINGS, Cue, CueProbe
from mut3r_analysis.motion.readings import patch_values


def sides(tokens):
    """A pose token, then patches: as many as there are tokens."""
    axis = image_axis((1, tokens.shape[-2] - 1), ("pose",))
    return axis, axis


def dense(reading, q, k, *, pose, diagonal):
    """One number per patch (batch, head, patch) of a self-attention site, pose token first."""
    q, k = q.double().numpy(), k.double().numpy()
    z = q @ np.swapaxes(k, -1, -2) / np.sqrt(q.shape[-1])
    if not pose:
        z = z[..., 1:, 1:]
    counted = np.ones(z.shape, dtype=bool)
    if not diagonal:
        counted &= ~np.eye(z.shape[-1], dtype=bool)
    inside = np.where(counted, z, np.nan)
    e = np.where(counted, np.exp(z), 0)
    p = e / e.sum(axis=-1, keepdims=True)
    keys = counted.sum(axis=-1)
    values = {
        "logit_key_mean": lambda: np.nanmean(inside, axis=-1),
        "received": lambda: z.shape[-1] * p.mean(axis=-2),
        "entropy": lambda: -(p * np.log(np.where(p > 0, p, 1))).sum(axis=-1) / np.log(keys),
        "peak_complement": lambda: 1 - p.max(axis=-1),
        "collision_complement": lambda: 1 - (p**2).sum(axis=-1),
        "logit_query_mean": lambda: np.nanmean(inside, axis=-2),
        "pose_complement": lambda: (1 - p[..., 0]) / (keys - 1),
        "logit_key_std": lambda: np.nanstd(inside, axis=-1),
        "maxpool_similarity": lambda: np.nanmax(inside, axis=-1),
    }[reading]()
    return values[..., 1:] if pose else values


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from(list(READINGS)),
    st.booleans(),
    st.booleans(),
    st.integers(4, 40),
    st.integers(0, 10**6),
)
def test_every_reading_equals_its_dense_definition(reading, pose, diagonal, count, seed):
    pose = pose or reading == "pose_complement"
    make = torch.Generator().manual_seed(seed)
    q = torch.randn(2, 3, count, 8, generator=make)
    k = torch.randn(2, 3, count, 8, generator=make) + 1.5
    options = {"pose": pose, "diagonal": diagonal}
    found = patch_values(reading, q, k, *sides(q), **options)
    expected = dense(reading, q, k, **options)
    assert found.shape == (2, 3, count - 1)
    # The root of a variance near zero magnifies rounding without bound: compare the variance.
    power = 2 if reading == "logit_key_std" else 1
    values, truth = found.double().numpy() ** power, expected**power
    scale = np.abs(truth).max() + 1e-2
    assert np.abs(values - truth).max() / scale < 1e-5
    exact = patch_values(reading, q.double(), k.double(), *sides(q), **options)
    np.testing.assert_allclose(exact.numpy(), expected, rtol=1e-9, atol=1e-9)


def test_received_attention_is_one_on_average():
    q, k = torch.randn(2, 1, 2, 30, 8)
    values = patch_values("received", q, k, *sides(q), pose=False)
    assert float(values.mean()) == pytest.approx(1)


def test_the_softmax_row_average_is_constant_whatever_the_image():
    q, k = torch.randn(2, 1, 2, 30, 8).double()
    weights = (q @ k.mT / 8**0.5).softmax(dim=-1)
    assert float((weights.mean(dim=-1) - 1 / 30).abs().max()) < 1e-15


class LargestOutput(TorchDispatchMode):
    numbers = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        out = function(*args, **(kwargs or {}))
        if isinstance(out, torch.Tensor):
            held = out.untyped_storage().nbytes() // out.element_size()  # views hold nothing
            self.numbers = max(self.numbers, held)
        return out


@pytest.mark.parametrize("reading", list(READINGS))
def test_no_reading_makes_the_whole_map(reading):
    q, k = torch.randn(1, 2, 401, 8), torch.randn(1, 2, 401, 8)
    with LargestOutput() as seen:
        patch_values(reading, q, k, *sides(q), diagonal=False)
    limit = 401 * 8 + 1 if READINGS[reading].closed_form else 401 * 402 // 2
    assert seen.numbers <= 2 * limit


@pytest.mark.parametrize(
    ("site", "reading", "queries", "keys"),
    [
        ("image_self", "entropy", 13, 13),
        ("image_to_state", "logit_key_mean", 13, 7),
        ("state_to_image", "received", 7, 13),
        ("encoder_self", "logit_query_mean", 12, 12),
    ],
)
def test_a_probe_reads_the_patches_of_its_site_and_nothing_else(site, reading, queries, keys):
    probe = CueProbe(
        Cue(reading=reading, site=site, layers=(1, 3)), (3, 4), sites(4, 2), axes((3, 4), state=7)
    )
    assert probe.raw() is None
    for kind in (site, "state_self"):
        for layer in range(4):
            assert not probe.complete or layer == 3 or kind != site
            probe(Site(kind, layer), torch.randn(2, 2, queries, 8), torch.randn(2, 2, keys, 8))
    assert probe.complete
    assert probe.raw().shape == (2, 2, 3, 4)
    assert probe.raw(before=2).shape == (2, 1, 3, 4)


def test_heads_are_chosen_and_reduced_by_mean_or_median():
    q, k = torch.randn(2, 1, 4, 13, 8)
    per_head = patch_values("logit_key_mean", q, k, *sides(q))
    chosen = per_head[:, [0, 2, 3]]
    for reduction, expected in (("mean", chosen.mean(dim=1)), ("median", chosen.median(dim=1)[0])):
        cue = Cue(reading="logit_key_mean", heads=[0, 2, 3], head_reduction=reduction)
        probe = CueProbe(cue, (3, 4), sites(1, 4), axes((3, 4)))
        probe(Site("image_self", 0), q, k)
        torch.testing.assert_close(probe.raw()[:, 0].flatten(1), expected)


def test_a_site_of_another_grid_is_refused():
    probe = CueProbe(Cue(), (3, 5), sites(1, 2), axes((3, 4)))
    probe(Site("image_self", 0), *torch.randn(2, 1, 2, 13, 8))
    with pytest.raises(ValueError, match=r"grid of 3 x 5 patches; image_self.0 has 12"):
        probe.raw()


def test_half_precision_inputs_are_read_in_float32():
    q, k = torch.randn(2, 1, 2, 30, 8).bfloat16()
    for reading in READINGS:
        low, high = (
            patch_values(reading, *pair, *sides(q)) for pair in ((q, k), (q.float(), k.float()))
        )
        assert low.dtype == torch.float32
        torch.testing.assert_close(low, high)


@pytest.mark.parametrize("reading", ["logit_query_mean", "entropy", "received"])
def test_a_cue_reads_layers_together_as_it_reads_each(monkeypatch, reading):
    backbone = load_backbone("random:small", device="cpu")
    cue = Cue(reading=reading, layers=(0, 3))
    frame, axes = Frame(torch.rand(2, 3, 48, 64)), backbone.axes((6, 8))

    def read():
        probe = CueProbe(cue, (6, 8), backbone.sites(), axes)
        with torch.no_grad():
            backbone.step(frame, probe=probe)
        assert probe.complete
        return probe.raw(), probe.raw(before=2)

    each = read()
    monkeypatch.setattr("mut3r_analysis.motion.probe.layers_at_once", lambda q, k: 2)
    for found, expected in zip(read(), each, strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)
