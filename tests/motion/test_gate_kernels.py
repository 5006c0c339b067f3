"""Gated attention against float64 references, and the identities the gates obey."""

from dataclasses import replace

import gate_references
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from layout import axes, sites
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from mut3r_analysis.attention import Site
from mut3r_analysis.motion import REALISATIONS, Cue, CueProbe, Gate, GatePlan
from mut3r_analysis.motion.kernels import biased, binomial, key_gate, pair_gate, powers
from mut3r_analysis.motion.site_gates import over_largest

HEADS, DEPTH = 3, 4
GRID = (3, 4)


SIZES = sites(DEPTH, HEADS)
ACTIVE = [
    (site, name)
    for site, items in REALISATIONS.items()
    for name in items
    if name not in ("literal", "pair_state")
]


def bind(gates, motion, sizes, **options):
    """The gate of one frame whose patches lie on the motion score's grid."""
    grid = GRID if callable(motion) else motion.shape[-2:]
    return GatePlan(gates, sizes).of_frame(motion, axes(grid), **options)


def one_direction(site, name, **changes):
    off = dict.fromkeys(REALISATIONS)
    return Gate(**(off | {site: name} | changes))


def tokens(site, *, batch=2, grid=(3, 4), state=10, channels=8, seed=0):
    """Random q, k, v of a site and a motion score; keys share an offset, as trained ones do."""
    make = torch.Generator().manual_seed(seed)
    image = grid[0] * grid[1] + 1
    queries = state if site == "state_to_image" else image
    keys = state if site == "image_to_state" else image

    def draw(count):
        return torch.randn(batch, HEADS, count, channels, generator=make)

    q, k, v = draw(queries), draw(keys) + draw(1), draw(keys)
    motion = torch.rand(batch, *grid, generator=make)
    motion[:, 0, 0], motion[:, 0, 1], motion[:, 1, 0] = 1.0, 0.0, 0.9999999
    return q, k, v, motion


def scores(motion):
    return F.pad(motion.flatten(1), (1, 0)).double().numpy()


def relative(got, expected):
    expected = np.asarray(expected, dtype=np.float64)
    return np.abs(np.asarray(got, dtype=np.float64) - expected).max() / np.abs(expected).max()


@pytest.mark.parametrize("kernel", ["values", "dense"])
@pytest.mark.parametrize("beta", [0.0, 0.5, 1.0, 2.0, 3.0, 4.0, 7.0])
@pytest.mark.parametrize(("site", "name"), ACTIVE)
def test_every_gate_equals_its_formula(site, name, beta, kernel):
    if name == "pair_bias" and beta == 0.5:
        kernel = "auto"
    q, k, v, motion = tokens(site)
    gate = one_direction(site, name, beta=beta, kernel=kernel)
    out = bind(gate, motion, SIZES)(Site(site, 0), q, k, v)
    expected = gate_references.gated(site, name, q, k, v, scores(motion), beta)
    if out is None:
        assert beta == 0
        out = F.scaled_dot_product_attention(q, k, v)
    assert relative(out, expected) < 3e-6


@settings(max_examples=40, deadline=None)
@given(
    st.sampled_from(ACTIVE),
    st.integers(1, 3),
    st.tuples(st.integers(2, 5), st.integers(2, 5)),
    st.integers(1, 20),
    st.sampled_from([4, 8, 12]),
    st.sampled_from([(0.3, "auto"), (1.0, "values"), (2.0, "values"), (2.7, "dense")]),
    st.integers(0, 10**6),
)
def test_every_gate_equals_its_formula_at_any_shape(case, batch, grid, state, channels, form, seed):
    (site, name), (beta, kernel) = case, form
    q, k, v, motion = tokens(
        site, batch=batch, grid=grid, state=state, channels=channels, seed=seed
    )
    gate = one_direction(site, name, beta=beta, kernel=kernel)
    out = bind(gate, motion, SIZES)(Site(site, 1), q, k, v)
    expected = gate_references.gated(site, name, q, k, v, scores(motion), beta)
    assert relative(out, expected) < 1e-5


@pytest.mark.parametrize("null_logit", [-2.0, 0.0, 3.0])
def test_a_fixed_null_key_equals_softmax_with_one_more_key(null_logit):
    q, k, v, motion = tokens("image_to_state")
    gate = one_direction("image_to_state", "null_key", beta=1.5, null_logit=null_logit)
    out = bind(gate, motion, SIZES)(Site("image_to_state", 0), q, k, v)
    expected = gate_references.gated(
        "image_to_state", "null_key", q, k, v, scores(motion), 1.5, null_logit=null_logit
    )
    assert relative(out, expected) < 3e-6


@pytest.mark.parametrize(
    ("beta", "kernel"), [(0.7, "dense"), (1.0, "values"), (2.0, "dense"), (4.0, "values")]
)
def test_pair_state_weighs_state_tokens_by_the_motion_they_read_in_the_layer_before(beta, kernel):
    q, k, v, motion = tokens("image_to_state")
    write = tokens("state_to_image", seed=5)[:3]
    gate = one_direction("image_to_state", "pair_state", beta=beta, kernel=kernel)
    seam = bind(gate, motion, SIZES)
    assert seam(Site("image_to_state", 0), q, k, v) is None
    assert seam(Site("state_to_image", 0), *write) is None
    out = seam(Site("image_to_state", 1), q, k, v)
    g = scores(motion)
    read = gate_references.softmax(gate_references.logits(*write[:2])) @ g[:, None, :, None]
    read = read[..., 0].mean(axis=1)
    low, high = read.min(axis=1, keepdims=True), read.max(axis=1, keepdims=True)
    expected = gate_references.gated(
        "image_to_state", "pair_state", q, k, v, g, beta, r=(read - low) / (high - low)
    )
    assert relative(out, expected) < 1e-5


@pytest.mark.parametrize("beta", [1, 2, 3, 4])
def test_value_groups_equal_the_dense_bias(beta):
    q, k, v, motion = tokens("image_self")
    site = Site("image_self", 0)
    by_values, by_bias = (
        bind(one_direction("image_self", "pair_bias", beta=beta, kernel=kernel), motion, SIZES)(
            site, q, k, v
        )
        for kernel in ("values", "dense")
    )
    torch.testing.assert_close(by_values, by_bias, rtol=2e-5, atol=2e-6)


def test_value_groups_equal_the_dense_bias_to_float64_rounding():
    q, k, v, motion = (part.double() for part in tokens("image_self"))
    g = F.pad(motion.flatten(1), (1, 0)).clamp_max(1 - 1e-4)
    for beta in (1, 2, 3, 4):

        def log_weight(rows, beta=beta):
            return beta * torch.log1p(-(1 - g[:, rows, None]) * g[:, None])

        dense = biased(q, k, v, log_weight)
        gated = pair_gate(q, k, v, binomial(g, 1 - g, beta), powers(1 - g, beta))
        torch.testing.assert_close(gated, dense, rtol=1e-11, atol=1e-12)
        dense = biased(q, k, v, lambda rows, beta=beta: beta * torch.log1p(-g)[:, None])
        gated, _ = key_gate(q, k, v, over_largest(beta * torch.log1p(-g)), normalise=True)
        torch.testing.assert_close(gated, dense, rtol=1e-11, atol=1e-12)


def test_scaling_the_output_masking_weights_and_a_matched_null_key_agree():
    q, k, v, motion = tokens("image_to_state")
    site = Site("image_to_state", 0)
    scaled, masked, null = (
        bind(one_direction("image_to_state", name, beta=1.7), motion, SIZES)(site, q, k, v)
        for name in ("output_scale", "postmask", "null_key")
    )
    torch.testing.assert_close(masked, scaled, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(null, scaled, rtol=1e-5, atol=1e-6)


def test_the_literal_query_bias_is_invisible_to_softmax():
    q, k, v, motion = tokens("image_to_state")
    expected = gate_references.gated("image_to_state", "literal", q, k, v, scores(motion), 3.0)
    plain = F.scaled_dot_product_attention(q.double(), k.double(), v.double())
    assert relative(plain, expected) < 1e-14
    gate = one_direction("image_to_state", "literal", beta=3.0)
    assert bind(gate, motion, SIZES)(Site("image_to_state", 0), q, k, v) is None


@pytest.mark.parametrize(
    ("site", "name"), [case for case in ACTIVE if REALISATIONS[case[0]][case[1]].beta]
)
def test_beta_zero_leaves_every_bit(site, name):
    q, k, v, motion = tokens(site)
    assert bind(one_direction(site, name, beta=0), motion, SIZES)(Site(site, 0), q, k, v) is None


def test_layers_outside_the_range_are_left_alone():
    q, k, v, motion = tokens("image_self")
    seam = bind(Gate(layers=range(1, 3)), motion, SIZES)
    acts = [seam(Site("image_self", layer), q, k, v) is not None for layer in range(DEPTH)]
    assert acts == [False, True, True, False]
    nothing = bind(Gate(layers=(2, 2)), motion, SIZES)
    assert all(nothing(Site("image_self", layer), q, k, v) is None for layer in range(DEPTH))
    assert seam(Site("state_self", 1), q, k, v) is None


@pytest.mark.parametrize("level", [0.0, 0.3, 0.97, 1.0])
@pytest.mark.parametrize("beta", [1, 2, 4, 30])
def test_a_constant_cue_is_a_no_op_in_softmax_gates_where_no_token_is_exempt(level, beta):
    q, k, v, _ = tokens("image_self")
    plain = F.scaled_dot_product_attention(q, k, v)
    g = torch.full((2, q.shape[2]), level).clamp_max(1 - 1e-4)
    gated, _ = key_gate(q, k, v, over_largest(beta * torch.log1p(-g)), normalise=True)
    assert relative(gated, plain) < 1e-6
    if beta <= 4:
        assert (
            relative(pair_gate(q, k, v, binomial(g, 1 - g, beta), powers(1 - g, beta)), plain)
            < 1e-6
        )


@pytest.mark.parametrize("site", ["image_self", "state_to_image"])
@pytest.mark.parametrize("level", [0.3, 0.9])
def test_with_the_pose_token_exempt_a_constant_cue_moves_weight_to_it_by_one_factor(site, level):
    q, k, v, motion = tokens(site)
    motion = torch.full_like(motion, level)
    gate = one_direction(site, "key_bias", beta=2)
    out = bind(gate, motion, SIZES)(Site(site, 0), q, k, v)
    p = gate_references.softmax(gate_references.logits(q, k))
    factor = (1 - np.float64(np.float32(level))) ** 2
    weights = p * np.where(np.arange(k.shape[2]) == 0, 1, factor)
    total = p[..., :1] + (1 - p[..., :1]) * factor
    assert relative(out, weights / total @ v.double().numpy()) < 3e-6


def test_gated_heads_are_gated_and_the_others_keep_every_bit():
    q, k, v, motion = tokens("image_self")
    site = Site("image_self", 0)
    plain = F.scaled_dot_product_attention(q, k, v)
    out = bind(one_direction("image_self", "pair_bias", heads=[1]), motion, SIZES)(site, q, k, v)
    full = bind(one_direction("image_self", "pair_bias"), motion, SIZES)(site, q, k, v)
    assert torch.equal(out[:, [0, 2]], plain[:, [0, 2]])
    torch.testing.assert_close(out[:, 1], full[:, 1])
    assert not torch.allclose(out[:, 1], plain[:, 1])


def test_static_mass_is_measured_on_plain_weights_gated_or_not():
    q, k, v, motion = tokens("state_to_image")
    site = Site("state_to_image", 2)
    p = gate_references.softmax(gate_references.logits(q, k))
    expected = (p * (1 - scores(motion))[:, None, None]).sum(axis=-1).mean(axis=1)
    for gate in (Gate(beta=3), Gate(layers=(0, 1)), Gate(heads=[0]), Gate(state_to_image="B2")):
        seam = bind(gate, motion, SIZES, record_mass=True)
        seam(site, q, k, v)
        assert relative(seam.static_mass[2], expected) < 1e-6


def test_a_write_gate_scales_the_rate_by_the_static_mass_of_its_layers():
    _, _, _, motion = tokens("state_to_image")
    plain = Gate(image_to_state=None)
    gates = [replace(plain, state_to_image="key_bias_write", layers=range(1, 3)), plain]
    seam, one = bind(gates, motion, SIZES), bind(gates[0], motion, SIZES)
    assert seam.write_factor() is None
    for layer in range(DEPTH):
        q, k, v, _ = tokens("state_to_image", seed=layer)
        seam(Site("state_to_image", layer), q, k, v)
        one(Site("state_to_image", layer), q, k, v)
    assert list(seam.static_mass) == [1, 2]
    factor = seam.write_factor()
    torch.testing.assert_close(factor[0], (seam.static_mass[1] + seam.static_mass[2])[0] / 2)
    assert factor[1].unique().tolist() == [1.0]
    torch.testing.assert_close(one.write_factor()[0], factor[0])
    for gate in (plain, Gate(state_to_image="B3", beta=0)):
        seam = bind(gate, motion, SIZES)
        seam(Site("state_to_image", 0), q, k, v)
        assert seam.write_factor() is None


def test_a_row_whose_keys_are_all_but_removed_stays_finite():
    q, k, v, motion = tokens("state_to_image")
    for name in REALISATIONS["state_to_image"]:
        for beta in (1, 40):
            gate = one_direction("state_to_image", name, beta=beta)
            out = bind(gate, torch.ones_like(motion), SIZES)(Site("state_to_image", 0), q, k, v)
            assert torch.isfinite(out).all()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize(("site", "name"), ACTIVE)
def test_half_precision_costs_no_more_than_half_precision(site, name, dtype):
    q, k, v, motion = tokens(site)
    q, k, v = (part.to(dtype) for part in (q, k, v))
    expected = gate_references.gated(
        site, name, q.double(), k.double(), v.double(), scores(motion), 2.0
    )
    for kernel in ("values", "dense"):
        gate = one_direction(site, name, beta=2.0, kernel=kernel)
        out = bind(gate, motion, SIZES)(Site(site, 0), q, k, v)
        assert out.dtype == dtype
        assert relative(out.float(), expected) < (2e-2 if dtype == torch.bfloat16 else 3e-3)


class LargestOutput(TorchDispatchMode):
    """Most numbers per head in any tensor that an operation makes."""

    numbers = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        out = function(*args, **(kwargs or {}))
        for item in out if isinstance(out, tuple | list) else (out,):
            if isinstance(item, torch.Tensor) and item.dim() >= 2:
                self.numbers = max(self.numbers, item.shape[-1] * item.shape[-2])
        return out


@pytest.mark.parametrize(("site", "name"), ACTIVE)
@pytest.mark.parametrize("beta", [1.0, 2.0])
def test_no_gate_makes_a_query_by_key_tensor_on_the_fused_path(site, name, beta):
    q, k, v, motion = tokens(site, batch=1, grid=(16, 20), state=300, channels=8)
    whole = q.shape[2] * k.shape[2]
    seam = bind(one_direction(site, name, beta=beta, kernel="values"), motion, SIZES)
    with LargestOutput() as seen:
        seam(Site(site, 0), q, k, v)
    limit = whole if name in ("postmask", "null_key") else 60 * max(q.shape[2], k.shape[2])
    assert seen.numbers < limit


@pytest.mark.parametrize("beta", [1.0, 1.5])
def test_the_dense_form_makes_only_tiles_of_the_bias(beta):
    q, k, v, motion = tokens("image_self", batch=1, grid=(16, 20))
    seam = bind(one_direction("image_self", "pair_bias", beta=beta, kernel="dense"), motion, SIZES)
    with LargestOutput() as seen:
        seam(Site("image_self", 0), q, k, v)
    assert seen.numbers < q.shape[2] * k.shape[2]


MANY = [
    Gate(),
    Gate(beta=0),
    Gate(beta=2.5, layers=(1, 3)),
    Gate(beta=2, kernel="values"),
    Gate(beta=1, kernel="values"),
    Gate(beta=2, image_self="C2", state_to_image="B2", image_to_state="A5"),
    Gate(beta=3, heads=[0, 2], image_to_state="A6"),
    Gate.easi3r(0.4),
    Gate(beta=0.5, image_self=None, image_to_state="A4"),
    Gate(beta=4, image_to_state="A0"),
]


@pytest.mark.parametrize("site", list(REALISATIONS))
@pytest.mark.parametrize("layer", [0, 1, 3])
def test_many_gates_in_one_batch_equal_one_by_one(site, layer):
    q, k, v, motion = tokens(site, batch=len(MANY))
    write = tokens("state_to_image", batch=len(MANY), seed=9)[:3]
    together = bind(MANY, motion, SIZES, record_mass=True)
    together(Site("state_to_image", layer - 1 if layer else 3), *write)
    out = together(Site(site, layer), q, k, v)
    for sample, gate in enumerate(MANY):
        own = slice(sample, sample + 1)
        alone = bind(gate, motion[own], SIZES, record_mass=True)
        alone(Site("state_to_image", layer - 1 if layer else 3), *(part[own] for part in write))
        single = alone(Site(site, layer), q[own], k[own], v[own])
        if single is None:
            single = F.scaled_dot_product_attention(q[own], k[own], v[own])
        torch.testing.assert_close(out[own], single, rtol=2e-5, atol=2e-6)


def test_a_score_of_another_grid_batch_or_range_is_refused():
    q, k, v, motion = tokens("image_self")
    site = Site("image_self", 0)
    with pytest.raises(
        ValueError, match=r"another grid: 3 x 3 patches, while image_self\.0 has 12"
    ):
        bind(Gate(), motion[:, :, :3], SIZES)(site, q, k, v)
    with pytest.raises(ValueError, match="3 samples"):
        bind(Gate(), motion[[0, 1, 1]], SIZES)(site, q, k, v)
    with pytest.raises(ValueError, match="3 gates were planned for a batch of 2"):
        bind([Gate()] * 3, motion[:1], SIZES)(site, q, k, v)
    for bad in (motion + 1, -motion, motion * torch.nan):
        with pytest.raises(ValueError, match=r"lies in \[0, 1\]"):
            bind(Gate(), bad, SIZES)
    with pytest.raises(ValueError, match="patch_row"):
        bind(Gate(), motion[0], SIZES)


def test_layers_and_heads_that_the_backbone_lacks_are_refused():
    with pytest.raises(ValueError, match="outside the 4 layers"):
        GatePlan(Gate(layers=(0, 6)), SIZES)
    with pytest.raises(ValueError, match=r"there are 3 \(0 to 2\)"):
        GatePlan(Gate(heads=[3]), SIZES)
    with pytest.raises(ValueError, match="at least one gate"):
        GatePlan([], SIZES)
    with pytest.raises(ValueError, match="outside the 4 layers"):
        CueProbe(Cue(layers=range(5)), GRID, SIZES, axes(GRID))


class Operations(TorchDispatchMode):
    """How many operations compute something."""

    count = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.count += not function.is_view and "promote_types" not in str(function)
        return function(*args, **(kwargs or {}))


def operations(call):
    with Operations() as seen:
        call()
    return seen.count


@pytest.mark.parametrize("beta", [1, 3])
def test_on_a_device_value_forms_add_few_operations_to_the_attention(beta):
    """Every one is a launch at each gated site; the meta device has the shapes of a GPU's path."""
    q, k, v = (torch.zeros(1, 3, 20, 64, device="meta") for _ in range(3))
    g = torch.zeros(1, 20, device="meta")
    terms, kept = binomial(g, g, beta), powers(g, beta)
    plain = operations(lambda: F.scaled_dot_product_attention(q, k, v))
    assert operations(lambda: pair_gate(q, k, v, terms, kept)) - plain <= 5
    assert operations(lambda: key_gate(q, k, v, g, normalise=True, also=g)) - plain <= 4
