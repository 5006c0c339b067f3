"""VGGT4D's mask and second reading equal the official arrays; the factors are what they say."""

import numpy as np
import pytest
import torch
from backbones.test_vggt import check, model_of, network_input

from mut3r_analysis.backbones import Frame, load_backbone
from mut3r_analysis.errors import InvalidArgument
from mut3r_analysis.motion import (
    GRAM_FACTORS,
    GramProbe,
    WindowCue,
    WindowGate,
    WindowSiteGate,
    motion_of_window,
)

SPECIAL = 5
OFFICIAL = {"mean1": "mean1", "std1": "var1", "mean2": "mean2", "mean3": "mean3", "std3": "var3"}
"""Factor -> name of its array."""


@pytest.fixture(scope="module")
def model(golden):
    return model_of(golden, "deep")


@pytest.fixture(scope="module")
def official(golden):
    return golden.arrays("streamvggt/vggt4d")


@pytest.fixture(scope="module")
def encoded(golden, model):
    images = network_input(golden.arrays("streamvggt/inputs_deep")["images_uint8"])
    return model.encode(Frame(images))


class Seen:
    """Patches of the queries and keys of all layers ``(frame, head, patch, channel)``."""

    def __init__(self, frames: int) -> None:
        self.frames, self.query, self.key = frames, [], []

    def __call__(self, site, q, k):
        if site.kind == "global_self":
            for side, tokens in ((self.query, q), (self.key, k)):
                framed = tokens[0].unflatten(1, (self.frames, -1))[:, :, SPECIAL:]
                side.append(framed.transpose(0, 1))


@pytest.fixture(scope="module")
def first(model, encoded):
    """The first reading: what it gives, the factors, and all queries and keys."""
    frames = len(encoded.features)
    patches = model.axes(encoded.grid)["image"].patches
    probe, seen = GramProbe(WindowCue(), model.sites(), frames, patches), Seen(frames)

    def both(site, q, k):
        probe(site, q, k)
        seen(site, q, k)

    decoded = model.decode_together(encoded, probe=both)
    return decoded, probe.factors(encoded.grid), seen


@pytest.fixture(scope="module")
def motion(encoded, first, official):
    features = encoded.features.unflatten(1, encoded.grid)
    size = tuple(14 * side for side in encoded.grid)
    labels = torch.from_numpy(official["cluster_labels"])
    return motion_of_window(WindowCue(), first[1], features, size, labels)


def close(found, expected, atol, name):
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=atol, err_msg=name)


def test_tokens_that_the_cue_reads(encoded, first, official):
    _, _, seen = first
    check("encoder_features", encoded.features, official["encoder_features"])
    queries = torch.stack([seen.query[0], seen.query[3]], dim=1)
    check("global_query_layer0_3", queries, official["global_query_layer0_3"])
    check("global_key_layer0", seen.key[0][:, None], official["global_key_layer0"])


def test_factors_map_and_mask(motion, official):
    for name, theirs in OFFICIAL.items():
        close(motion.factors[name], official[theirs], 2e-5, name)
    close(motion.dynamic, official["dynamic_map"], 2e-5, "dynamic_map")
    close(motion.smooth, official["cluster_map"], 2e-5, "cluster_map")
    assert motion.otsu.threshold == pytest.approx(float(official["otsu_threshold"]), abs=2e-5)
    np.testing.assert_array_equal(motion.cells, official["mask_cells"])
    mask = motion.mask.numpy()
    theirs = np.unpackbits(official["mask_pixels"])[: mask.size].reshape(mask.shape).astype(bool)
    assert (mask != theirs).mean() < 1e-3
    close(mask.mean(axis=(1, 2)), official["mask_fraction"], 1e-3, "mask_fraction")


def test_both_readings(model, encoded, first, official):
    decoded, _, _ = first
    check("pass1_pose_encoding", decoded.encodings[:, -1], official["pass1_pose_encoding"])
    cells = torch.from_numpy(official["mask_cells"])
    gate = WindowSiteGate(WindowGate(), cells, SPECIAL)
    masked = model.decode_together(encoded, gate=gate)
    check("pass2_pose_encoding", masked.encodings[:, -1], official["pass2_pose_encoding"])
    depth = model.predict(masked, ("depth",)).points_self[0, ..., 2]
    check("pass2_depth_f0", depth, official["pass2_depth_f0"])


def test_factors_equal_products_of_all_patches(first):
    _, factors, seen = first
    frames = seen.frames
    for factor in GRAM_FACTORS:
        own, other = (
            torch.cat([getattr(seen, side)[layer] for layer in factor.layers], dim=1).double()
            for side in (factor.own, factor.other)
        )
        for frame in range(frames):
            around = [frame + step for step in WindowCue().offsets if 0 <= frame + step < frames]
            products = torch.einsum("hnd,mhpd->mnp", own[frame], other[around]) / own.shape[1]
            dense = products.mean(dim=(0, 2))
            if factor.statistic == "std":
                dense = products.mean(dim=0).std(dim=-1)
            close(factors[factor.name][frame].flatten(), dense, 1e-4, (factor.name, frame))


def test_frames_without_any_around_them_have_no_score():
    class Depth:
        layers = 24

    probe = GramProbe(WindowCue(), {"global_self": Depth}, 3, slice(1, 5))
    generator = torch.Generator().manual_seed(0)
    from mut3r_analysis.attention.sites import Site

    for layer in range(24):
        q, k = (torch.randn(1, 2, 15, 4, generator=generator) for _ in range(2))
        probe(Site("global_self", layer), q, k)
    factors = probe.factors((2, 2))
    for values in factors.values():
        assert torch.isnan(values[1]).all()
        assert torch.isfinite(values[[0, 2]]).all()
    features = torch.randn(3, 2, 2, 4, generator=generator)
    found = motion_of_window(WindowCue(clusters=None), factors, features, (28, 28))
    assert not found.mask.any()
    assert np.isnan(found.otsu.threshold)


def test_a_gate_that_removes_nothing_leaves_every_bit():
    model = load_backbone("random:vggt-small", device="cpu")
    images = torch.rand(3, 3, 42, 56, generator=torch.Generator().manual_seed(0))
    cells = torch.zeros(3, 3, 4, dtype=torch.bool)
    plain = model.reconstruct(images, outputs=("pose",)).pose
    none = WindowSiteGate(WindowGate(), cells, SPECIAL)
    assert torch.equal(model.reconstruct(images, gate=none, outputs=("pose",)).pose, plain)
    cells[1, 0] = True
    some = WindowSiteGate(WindowGate(layers=(0, 2)), cells, SPECIAL)
    assert not torch.equal(model.reconstruct(images, gate=some, outputs=("pose",)).pose, plain)
    with pytest.raises(InvalidArgument, match="the mask is of 3 frames of 17 tokens"):
        model.reconstruct(images[:2], gate=some)


def test_what_cannot_mean_anything_is_refused():
    small = load_backbone("random:vggt-small", device="cpu")
    with pytest.raises(InvalidArgument, match=r"layers up to 21 of global_self.*has 4"):
        GramProbe(WindowCue(), small.sites(), 3, slice(5, 17))
    with pytest.raises(InvalidArgument, match=r"layers up to 21 of global_self.*has 0"):
        GramProbe(WindowCue(), {}, 3, slice(5, 17))
    for changes, message in (
        ({"offsets": (0, 2)}, "other than 0"),
        ({"offsets": ()}, "offsets"),
        ({"classes": (1, 2)}, "from 2 to 8"),
        ({"clusters": 0}, "clusters"),
    ):
        with pytest.raises(InvalidArgument, match=message):
            WindowCue(**changes)
    with pytest.raises(InvalidArgument, match="state_to_image"):
        WindowGate(sites=("state_to_image",))


def test_declared_objects_round_trip():
    for item in (WindowCue(offsets=(-1, 1), clusters=8), WindowGate(layers=None), WindowGate()):
        assert type(item).from_dict(item.to_dict()) == item
