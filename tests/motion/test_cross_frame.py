"""Readings across frames: what means and covariances give is what all products would give."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import mut3r_analysis as m3
from mut3r_analysis.backbones import load_backbone
from mut3r_analysis.errors import InvalidArgument
from mut3r_analysis.motion import Cue
from mut3r_analysis.motion.cross_frame import (
    CROSS_FRAME,
    frame_moments,
    products,
    window_moments,
)
from mut3r_analysis.motion.normalisers import location_and_scale, normalise


@settings(max_examples=30, deadline=None)
@given(
    patches=st.integers(1, 60),
    frames=st.integers(1, 5),
    heads=st.integers(1, 4),
    channels=st.integers(1, 24),
    offset=st.sampled_from([0.0, 1.0, 5.0]),
    seed=st.integers(0, 2**16),
)
def test_moments_of_products_are_those_of_the_whole_map(
    patches, frames, heads, channels, offset, seed
):
    generator = torch.Generator().manual_seed(seed)
    own = torch.randn(2, heads, patches + 3, channels, generator=generator)
    past = torch.randn(2, frames, heads, patches, channels, generator=generator) + offset
    mean, covariance = window_moments(frame_moments(past), torch.ones(2, frames))
    everything = past.double().transpose(1, 2).flatten(2, 3)
    z = own.double() @ everything.mT / channels**0.5
    scale = z.abs().amax()
    found = products(own, mean, covariance, "mean")
    torch.testing.assert_close(found.double() / scale, z.mean(-1) / scale, atol=1e-5, rtol=0)
    spread = z.var(-1, correction=0)
    found = products(own, mean, covariance, "variance").double()
    scale = spread.amax().clamp_min(1e-12) if patches * frames > 1 else 1.0
    torch.testing.assert_close(found / scale, spread / scale, atol=1e-5, rtol=0)


SUPPORTS = {
    "past_only": lambda i, j: j < i,
    "near12": lambda i, j: 0 < abs(i - j) <= 2,
    "off246": lambda i, j: abs(i - j) in (2, 4, 6),
    "full": lambda i, j: i != j,
}


@pytest.fixture
def released(golden):
    """Arrays of the released code, and its tokens: heads averaged, then of unit length."""
    arrays = {
        key: torch.from_numpy(value) for key, value in golden.arrays("write_rules/gram").items()
    }
    for side in ("q", "k"):
        heads = arrays[side][:, :, :, 1:].mean(dim=2)
        arrays[side] = torch.nn.functional.normalize(heads, dim=-1)
    return arrays


def cosines(own, other, around, moment="mean"):
    """Moments (layer, patch) of the cosines with all patches of the frames around."""
    weight = torch.zeros(1, len(other))
    weight[0, around] = 1
    mean, covariance = window_moments(frame_moments(other)[None], weight)
    channels = own.shape[-1]
    found = products(own, mean[0], covariance[0], moment)
    return found * (channels if moment == "variance" else channels**0.5)


def by_patch(rows):
    return torch.stack(rows).unflatten(1, (3, 4))


def assert_normalised_as_released(arrays, name):
    """The score that a cue makes of the values is the released one."""
    expected = arrays[f"{name}_robustq"]
    for value, score in zip(arrays[name].flatten(1), expected.flatten(1), strict=True):
        if value.any():
            found = location_and_scale("upper_half", value[None])
            ours = normalise("upper_half", value[None], 1.0, found)[0]
            torch.testing.assert_close(ours, score, atol=1e-4, rtol=0)


@pytest.mark.parametrize(
    ("name", "layers"),
    [
        ("qq_low_g1_2_past_only", [1, 2]),
        ("kk_low_g1_2_past_only", [1, 2]),
        ("qq_low_g0_near12", [0]),
        ("qq_low_g0_2_off246", [0, 1, 2]),
        ("qq_low_g1_2_full", [1, 2]),
    ],
)
def test_released_means_are_products_with_means(released, name, layers):
    tokens = released[name[0]][:, layers]
    allowed = SUPPORTS[next(each for each in SUPPORTS if name.endswith(each))]
    rows = []
    for t in range(len(tokens)):
        around = [j for j in range(len(tokens)) if allowed(t, j)]
        dynamic = 1 - (cosines(tokens[t], tokens, around).mean(dim=0) + 1) / 2
        rows.append(dynamic if around else torch.zeros(12))
    torch.testing.assert_close(by_patch(rows), released[name], atol=1e-6, rtol=0)
    assert_normalised_as_released(released, name)


@pytest.mark.parametrize(
    ("name", "layers"), [("qq_var_g1_2_past_only", [1, 2]), ("qk_var_g0_1_past_only", [0, 1])]
)
def test_released_variances_over_frames_are_of_products_with_each_ones_mean(released, name, layers):
    own, other = (released[side][:, layers] for side in name[:2])
    rows = [torch.zeros(12)]
    for t in range(1, len(own)):
        frames = torch.stack([(cosines(own[t], other, [s]) + 1) / 2 for s in range(t)])
        rows.append(frames.var(dim=0, correction=0).mean(dim=0))
    torch.testing.assert_close(by_patch(rows), released[name], atol=1e-6, rtol=0)
    assert_normalised_as_released(released, name)


def test_released_products_of_all_pairs_are_moments_of_the_window(released):
    def found(sides, moment):
        own, other = (released[side] for side in sides)
        windows = [[j for j in range(8) if SUPPORTS["near12"](t, j)] for t in range(8)]
        return by_patch(
            [cosines(own[t], other, each, moment).mean(0) for t, each in enumerate(windows)]
        )

    def stretched(values):
        low, high = values.amin((1, 2), keepdim=True), values.amax((1, 2), keepdim=True)
        return (values - low) / (high - low)

    keys, queries = ((found(pair, "mean") + 1) / 2 for pair in ("kk", "qq"))
    spread = stretched(found("qk", "variance"))
    close = {"atol": 1e-6, "rtol": 0}
    torch.testing.assert_close(keys, released["dyn4d_kk_mean_patch"], **close)
    torch.testing.assert_close(queries, released["dyn4d_qq_mean_patch"], **close)
    torch.testing.assert_close(spread, released["dyn4d_qk_var_patch"], atol=2e-5, rtol=0)
    dynamic = stretched(0.25 * (1 - keys) + 0.35 * (1 - queries) + 0.4 * spread)
    torch.testing.assert_close(dynamic, released["dyn4d_patch"], atol=2e-5, rtol=0)


@pytest.fixture(scope="module")
def scene():
    return m3.open_sequence("scenes/orbit-02").isel(frame=slice(4))


@pytest.mark.parametrize("reading", CROSS_FRAME)
def test_a_run_reads_what_its_archive_says(scene, reading):
    run = m3.run(
        load_backbone("tiny"),
        scene,
        cue=Cue(reading=reading, of="past(2)", heads=[0]),
        commit="rw.gg reset.3",
        capture=m3.Capture(statistics=(), sites=["image_self"], archive="float32"),
        outputs=["pose"],
        progress=False,
    )
    group = run["attention/image_self"].to_dataset()
    row = CROSS_FRAME[reading]
    own, other = (
        torch.from_numpy(group[f"rotated_{side}"].values)[:, :, 0, 1:].double()
        for side in (row.own, row.other)
    )
    found = torch.from_numpy(run[f"cue/{reading}"].values).flatten(2)
    assert not found[0].any()
    assert not found[3].any()  # a reset forgets
    assert not run["cue/motion"].values[[0, 3]].any()
    past = torch.cat([other[0], other[1]], dim=1)
    z = own[2] @ past.mT / own.shape[-1] ** 0.5
    wanted = z.mean(-1) if row.moment == "mean" else z.var(-1, correction=0)
    torch.testing.assert_close(found[2].double(), wanted, rtol=1e-4, atol=1e-5)
    assert run["cue"][reading].attrs["units"] == row.units


def test_what_is_kept_does_not_grow_with_patches_or_frames():
    few, many = (frame_moments(torch.randn(2, n, 8)) for n in (10, 1000))
    assert few.shape == many.shape == (2, 9, 8)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"of": "past(0)"}, "whole number from 1 to 64"),
        ({"of": "past(2.5)"}, "whole number of frames"),
        ({"of": "next(2)"}, "must be past"),
        ({"site": "image_to_state"}, "compares image patches of frames"),
    ],
)
def test_what_cannot_be_compared_is_refused(given, message):
    with pytest.raises(InvalidArgument, match=message):
        Cue(**{"reading": "gram_query_key_mean"} | given)


def test_conventions_of_the_literature_have_names():
    low, high = (Cue.convention(f"mut3r_{side}") for side in ("low", "high"))
    assert (low.sign, high.sign) == (-1, 1)
    assert (low.reading, low.normaliser, low.sharpness) == ("logit_key_mean", "zscore", 0.5)
    assert Cue.convention("mut3r_low", sign=1) == high
    assert Cue.convention("gram_low").window == 8
    assert Cue.convention("gram_low").normaliser == "upper_half"
    with pytest.raises(InvalidArgument, match="mut3r_low, mut3r_high, raymap3r, gram_low"):
        Cue.convention("mut3r")


def test_the_linear_output_gate_takes_one_minus_the_score(scene):
    def run(cue, **changes):
        capture = m3.Capture(statistics=(), head_outputs=("image_to_state:values",))
        return m3.run(
            load_backbone("tiny"), scene.isel(frame=slice(1)), cue=cue, capture=capture,
            outputs=["pose"], progress=False, **changes,
        )["attention/image_to_state/output"].values[0, 0]  # fmt: skip

    cue = Cue.convention("mut3r_low", control="const(0.25)")
    plain, gated = run(cue), run(cue, gate=m3.Gate.linear_output())
    np.testing.assert_allclose(gated[:, 1:], 0.75 * plain[:, 1:], rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(gated[:, 0], plain[:, 0])  # the pose token is never gated


def test_signs_and_windows_are_said():
    cue = Cue(reading="gram_key_key_variance")
    assert (cue.sign, cue.of, cue.window) == (-1, "past(8)", 8)
    assert Cue.from_json(cue.to_json()) == cue
    assert Cue(reading="gram_key_key_variance", sign=1).sign == 1
    assert Cue().window == 0
