"""Cues and gates on a whole backbone: identities, causality, batches."""

from contextlib import suppress

import pytest
import torch

from mut3r_analysis.backbones.cut3r.config import CUT3RConfig
from mut3r_analysis.backbones.random_weights import random_backbone
from mut3r_analysis.backbones.steps import Frame
from mut3r_analysis.motion import (
    Cue,
    CueBatch,
    CueMeasured,
    Gate,
    GatePlan,
)


@pytest.fixture(scope="module")
def backbone():
    config = CUT3RConfig(
        img_size=(64, 64),
        enc_embed_dim=64,
        enc_depth=2,
        enc_num_heads=4,
        dec_embed_dim=48,
        dec_depth=4,
        dec_num_heads=4,
        state_dec_num_heads=3,
        state_size=20,
        local_mem_size=4,
        head_type="linear",
    )
    return random_backbone(config).eval()


def start(backbone, batch=1):
    make = torch.Generator().manual_seed(2)
    image = torch.rand(1, 3, 48, 64, generator=make) * 2 - 1
    with torch.no_grad():
        encoded = backbone.encode(Frame(image.expand(batch, -1, -1, -1)))
        return encoded, backbone.enter(encoded, backbone.begin(batch))


def decode(backbone, parts, **seam):
    with torch.no_grad():
        out = backbone.decode(parts[1], **seam)
    return torch.cat([out.levels[-1], out.proposal, out.pose_token], dim=1)


def axes(backbone):
    return backbone.axes((3, 4))


def score(backbone, parts, cue):
    meter = CueBatch(cue, backbone.sites())
    probe = meter.probe(parts[0].grid, axes(backbone), stop=True)
    with suppress(CueMeasured):
        decode(backbone, parts, probe=probe)
    batch = len(parts[0].features)
    motions, _ = meter.score(probe, meter.start(batch), grid=parts[0].grid)
    return meter.joined(motions)


@pytest.mark.parametrize(
    "gate",
    [
        Gate.mut3r(beta=0),
        Gate(layers=(2, 2)),
        Gate.mut3r(directions=["image_to_state"], image_to_state="literal"),
    ],
)
def test_an_inert_gate_leaves_every_bit(backbone, gate):
    parts = start(backbone)
    plan = GatePlan(gate, backbone.sites())
    assert plan.inert[0] is not None
    seam = plan.of_frame(score(backbone, parts, Cue.mut3r()), axes(backbone))
    assert torch.equal(decode(backbone, parts, gate=seam), decode(backbone, parts))


def test_each_direction_of_the_default_gate_changes_the_outputs(backbone):
    parts = start(backbone)
    motion = score(backbone, parts, Cue.mut3r())
    plain = decode(backbone, parts)
    for site in ("image_self", "state_to_image", "image_to_state"):
        plan = GatePlan(Gate.mut3r(directions=[site]), backbone.sites())
        assert plan.inert == (None,)
        gated = decode(backbone, parts, gate=plan.of_frame(motion, axes(backbone)))
        assert float((gated - plain).abs().max()) > 1e-4


def test_a_probe_pass_that_stops_early_reads_what_a_whole_pass_reads(backbone):
    parts = start(backbone)
    cut = score(backbone, parts, Cue(source="two_pass_cut(2)"))
    whole = score(backbone, parts, Cue(layers=(0, 2)))
    assert torch.equal(cut, whole)


@pytest.mark.parametrize("source", ["layer_causal", "same_site"])
def test_live_sources_gate_a_single_pass(backbone, source):
    parts = start(backbone)
    meter = CueBatch(Cue(source=source), backbone.sites())
    probe = meter.probe(parts[0].grid, axes(backbone))
    live = meter.live(probe, meter.start(1))
    seam = GatePlan(Gate(), backbone.sites()).of_frame(live, axes(backbone))
    gated = decode(backbone, parts, gate=seam, probe=probe)
    assert probe.probes[0].raw().shape[1] == 4
    assert torch.isfinite(gated).all()
    assert not torch.equal(gated, decode(backbone, parts))


def test_configurations_in_one_batch_equal_runs_one_by_one(backbone):
    gates = [
        Gate.mut3r(),
        Gate.mut3r(beta=0),
        Gate(beta=1.5, layers=(1, 3), image_to_state="A6"),
        Gate.easi3r(),
        Gate(beta=2, image_self="C2", state_to_image="B3", image_to_state="A5", heads=[0, 2]),
    ]
    cues = [Cue(), Cue(), Cue(reading="entropy"), Cue(reading="received"), Cue(pose=False)]
    sizes = backbone.sites()
    batch = start(backbone, len(gates))
    motion = score(backbone, batch, cues)
    together = decode(backbone, batch, gate=GatePlan(gates, sizes).of_frame(motion, axes(backbone)))
    for sample, (gate, cue) in enumerate(zip(gates, cues, strict=True)):
        parts = start(backbone)
        alone = score(backbone, parts, cue)
        torch.testing.assert_close(alone, motion[sample : sample + 1], rtol=1e-4, atol=1e-5)
        single = decode(backbone, parts, gate=GatePlan(gate, sizes).of_frame(alone, axes(backbone)))
        torch.testing.assert_close(together[sample], single[0], rtol=1e-4, atol=1e-5)


def test_the_gate_measures_the_static_mass_of_plain_attention(backbone):
    parts = start(backbone)
    motion = score(backbone, parts, Cue())
    gate = Gate(image_self=None, state_to_image="B1", image_to_state=None, layers=(0, 1))
    acting = GatePlan(gate, backbone.sites()).of_frame(motion, axes(backbone), record_mass=True)
    static = 1 - torch.nn.functional.pad(motion.flatten(1), (1, 0))
    dense = {}

    def probe(site, q, k):
        if site.kind == "state_to_image":
            weights = (q @ k.mT / q.shape[-1] ** 0.5).softmax(dim=-1)
            dense[site.layer] = (weights @ static[:, None, :, None]).squeeze(-1).mean(dim=1)

    decode(backbone, parts, gate=acting, probe=probe)
    assert list(acting.static_mass) == list(dense) == [0, 1, 2, 3]
    for layer, mass in dense.items():
        torch.testing.assert_close(acting.static_mass[layer], mass, rtol=1e-4, atol=1e-5)
        assert mass.shape == (1, 20)


def test_gating_only_the_last_write_changes_the_state_and_no_output_of_this_frame(backbone):
    parts = start(backbone)
    motion = score(backbone, parts, Cue())
    last = Gate.mut3r(directions=["state_to_image"], layers=(3, 4))
    seam = GatePlan(last, backbone.sites()).of_frame(motion, axes(backbone))
    with torch.no_grad():
        plain = backbone.decode(parts[1])
        gated = backbone.decode(parts[1], gate=seam)
    assert torch.equal(plain.levels[-1], gated.levels[-1])
    assert not torch.equal(plain.proposal, gated.proposal)
