"""Write rules compute what their released codes compute, run by run, and keep their promises."""

import math

import numpy as np
import pytest
import torch

import mut3r_analysis as m3
from mut3r_analysis.backbones import Frame, load_backbone
from mut3r_analysis.backbones.cut3r import CUT3R
from mut3r_analysis.backbones.write_rule import WriteRule
from mut3r_analysis.backbones.write_rules import WRITE_RULES, needs_cue, rule_text
from mut3r_analysis.errors import InvalidArgument

# A released code moves its memory with frames that must not write; FILT3R's starts an average.
HELD = "advance=always"
BATCH = "after_reset=rule"
FILT3R = (
    f"filt3r(variance=0.8,keep=0.95,noise_low=0.05,noise_high=0.9,slope=6,threshold=1,weight=0.3,"
    f"observed=0.4,gain_low=0.3,gain_high=0.62,{HELD}"
)
RELEASED = {
    "filt3r_default": "filt3r",
    "filt3r_default_masks": f"filt3r({HELD})",
    "filt3r_other": FILT3R + ")",
    "filt3r_other_masks": FILT3R + ")",
    "filt3r_other_masks_batch": FILT3R + f",{BATCH})",
    "memix_cut_default": "bottom_k",
    "memix_cut_default_masks": "bottom_k",
    "memix_cut_half": "bottom_k(0.5)",
    "memix_cut_patches_anchor": f"bottom_k({4 / 7},chunks=8,anchor=kept)",
    "memix_ttsa_half_masks": f"bottom_k(0.5)*ttsa3r({HELD},{BATCH},forget=never)",
    "memix_ttt_half": f"bottom_k(0.5)*ttt3r({BATCH})",
    "memix_ttt_half_masks": f"bottom_k(0.5)*ttt3r({BATCH})",
    "recal3r_default": "recal3r",
    "recal3r_default_masks": f"recal3r({HELD})",
    "recal3r_other": "recal3r(base=0.35,decay=0.6,heads=max)",
    "recal3r_other_masks": f"recal3r(base=0.35,decay=0.6,heads=max,{HELD})",
    "recal3r_other_masks_batch": f"recal3r(base=0.35,decay=0.6,heads=max,{HELD},{BATCH})",
    "szy_brake_default_masks": f"ttt3r*brake({HELD})",
    "szy_brake_tau1": "ttt3r*brake(1)",
    "szy_clip_default_masks": f"clip({HELD})",
    "szy_clip_other": "clip(share=0.6,most=1.05,decay=0.8)",
    "szy_constant_033_masks": "ttt3r*const(0.33)",
    "szy_constant_default": "ttt3r*const(0.5)",
    "szy_geogate_default_masks": f"geogate({HELD})",
    "szy_l2gate_default_masks": f"ttt3r*l2gate({HELD})",
    "szy_memgate_default_masks": f"memgate({HELD})",
    "szy_ortho_default": "ttt3r*ortho",
    "szy_ortho_default_masks": f"ttt3r*ortho({HELD})",
    "szy_ortho_default_masks_batch": f"ttt3r({BATCH})*ortho({HELD},{BATCH},forget=never)",
    "szy_ortho_linear": "ttt3r*ortho(decay=0.7,adaptive=yes)",
    "szy_ortho_match": "ttt3r*ortho(decay=0.7,adaptive=yes)",
    "szy_ortho_other": "ttt3r*ortho(novel=0.8,drift=0.2,decay=0.6)",
    "szy_ortho_threshold": "ttt3r*ortho(decay=0.7,threshold=yes)",
    "szy_spectral_default_masks": f"spectral({HELD})",
}


def golden_run(golden, update, expected):
    model = CUT3R(golden.config("linear"), update=update)
    model.load_state_dict(golden.weights("weights_linear"))
    model.eval().requires_grad_(False)
    pixels = golden.arrays("write_rules/inputs")["images_uint8"]
    images = torch.from_numpy(pixels).movedim(-1, 1)[:, None] / 255 * 2 - 1
    state, steps = model.begin(), []
    for image, reset, hold in zip(images, expected["reset"], expected["hold"], strict=False):
        steps.append(model.step(Frame(image, reset=bool(reset), update=not hold), state))
        state = steps[-1].state
    return steps


@pytest.mark.parametrize("name", RELEASED)
def test_a_released_code_is_followed_step_by_step(golden, name):
    expected = golden.arrays(f"write_rules/{name}")
    steps = golden_run(golden, RELEASED[name], expected)
    found = {
        "state": torch.cat([step.state.tokens for step in steps]),
        "mem": torch.cat([step.state.memory for step in steps]),
        "rate": torch.cat([step.rate for step in steps]),
        "proposal": torch.cat([step.decoded.proposal for step in steps]),
        "camera_pose": torch.cat([step.prediction.pose for step in steps]),
    }
    limits = {"mem": 2e-4, "rate": 5e-5 if "geogate" in name else 2e-5}
    for array, values in found.items():
        wanted = expected[array][1:] if array in ("state", "mem") else expected[array]
        limit = limits.get(array, 5e-5)
        np.testing.assert_allclose(values, wanted, rtol=0, atol=limit, err_msg=array)


def test_every_released_run_of_the_set_is_followed(golden):
    runs = golden.settings("write_rules")["runs"]
    assert {name for name in runs if not name.startswith("raymap3r")} == set(RELEASED)


OWN = [name for name in WRITE_RULES if not needs_cue(name)]
PAPERS = [name for name, rule in WRITE_RULES.items() if rule.paper]


def images(count, seed=0):
    return torch.rand(count, 1, 3, 48, 64, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def roll(update, frames):
    model = load_backbone("random:small", update=update)
    state, steps = model.begin(len(frames[0].image)), []
    for frame in frames:
        steps.append(model.step(frame, state))
        state = steps[-1].state
    return steps


def test_the_constant_one_is_cut3r_and_the_constant_zero_holds():
    frames = [Frame(image) for image in images(4)]
    plain, one, zero = (roll(update, frames) for update in ("cut3r", "const(1)", "const(0)"))
    for a, b, c in zip(plain, one, zero, strict=True):
        assert torch.equal(a.state.tokens, b.state.tokens)
        assert torch.equal(a.state.memory, b.state.memory)
        assert torch.equal(c.state.tokens, zero[0].state.tokens)
    assert torch.equal(zero[0].state.tokens, plain[0].state.tokens)
    (held, *_) = roll("const(0,first=rule)", frames)
    assert torch.equal(held.state.tokens, load_backbone("random:small").begin().tokens)


@pytest.mark.parametrize("update", [*OWN, "ttt3r*bottom_k(0.5)", "const(0.4)*ortho"])
def test_a_rule_alone_and_in_a_commit_are_one(update):
    scene = m3.open_sequence("scenes/orbit-02").isel(frame=slice(4))
    capture = m3.Capture(statistics=(), state=True)
    runs = [
        m3.run(model, scene, commit=commit, capture=capture, outputs=["pose"], progress=False)
        for model, commit in (
            (load_backbone("tiny", update=update), "reset.2"),
            (load_backbone("tiny"), f"reset.2 rate.{update}"),
        )
    ]
    for name in ("tokens", "memory", "write_rate"):
        one, other = (run["state"][name].values for run in runs)
        assert np.array_equal(one, other), name
    assert np.isfinite(runs[0]["state/write_rate"].values).all()


@pytest.mark.parametrize("update", OWN)
def test_frames_that_may_not_write_leave_no_trace(update):
    a, b, c, d = images(4)
    visited = roll(update, [Frame(a), Frame(b), Frame(c, update=False), Frame(d)])
    skipped = roll(update, [Frame(a), Frame(b), Frame(d)])
    assert torch.equal(visited[-1].state.tokens, skipped[-1].state.tokens)
    assert torch.equal(visited[-1].state.memory, skipped[-1].state.memory)
    assert not visited[2].rate.any()


@pytest.mark.parametrize("update", OWN)
def test_samples_of_a_batch_keep_memories_and_resets_of_their_own(update):
    left, right = images(4), images(4, seed=1)
    resets = [False, True, False, False]
    together = roll(
        update,
        [
            Frame(torch.cat([a, b]), reset=torch.tensor([reset, False]))
            for a, b, reset in zip(left, right, resets, strict=True)
        ],
    )
    alone = (
        roll(update, [Frame(a, reset=r) for a, r in zip(left, resets, strict=True)]),
        roll(update, [Frame(b) for b in right]),
    )
    for t, step in enumerate(together):
        for row, steps in enumerate(alone):
            torch.testing.assert_close(step.rate[row], steps[t].rate[0], atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("name", OWN)
def test_a_rule_says_whether_it_remembers(name):
    (step,) = roll(name, [Frame(images(1)[0])])
    (_, second) = roll(name, [Frame(image) for image in images(2)])
    held = {**step.state.rules.held, **second.state.rules.held}
    assert bool(held) == WRITE_RULES[name].remembers
    row = WRITE_RULES[name]
    assert row.number is None or row.number in row.settings


def test_rules_known_from_papers_follow_their_formulas():
    assert PAPERS == ["feature_change", "pose_change", "pas3r"]
    frames = [Frame(image) for image in images(3)]
    model = load_backbone("random:small")
    features = [model.encode(frame).features.double() for frame in frames]
    cosine = torch.nn.functional.cosine_similarity(features[2], features[1], dim=-1)
    rate = roll("feature_change(3)", frames)[2].rate
    expected = 1 - math.exp(-3 * float((1 - cosine).mean()))
    np.testing.assert_allclose(rate, expected, rtol=1e-4)
    for name, radius in (("pose_change", None), ("pas3r", 0.125)):
        steps = roll(f"{name}(translation=0.5,rotation=0.25)", frames)
        before, now = (step.prediction.pose.double()[0] for step in steps[1:])
        step = 0.5 * (now - before)[:3].norm() + 0.25 * (now - before)[3:].norm()
        detail = 1.0
        if radius:
            grey = (frames[2].image.double().mean(dim=1)[0] + 1) / 2
            size = np.abs(np.fft.fftshift(np.fft.fft2(grey.numpy())))
            rows, columns = (np.arange(n) / n - 0.5 for n in grey.shape)
            outside = np.hypot(rows[:, None], columns) > radius
            share = size[outside].sum() / size.sum()
            detail = 1 / (1 + math.exp(-20 * (share - 0.1)))
        expected = min(1.0, float(step) * detail)
        np.testing.assert_allclose(steps[2].rate, expected, rtol=1e-4)


@pytest.mark.parametrize("update", OWN)
def test_a_plan_prices_what_a_rule_asks_of_a_frame(update):
    scene = m3.open_sequence("scenes/orbit-02", stop=2)
    plain = load_backbone("random:small")
    named = m3.plan(plain, scene, commit=f"rate.{update}", outputs=["pose"])
    own = m3.plan(load_backbone("random:small", update=update), scene, outputs=["pose"])
    assert named.flops == own.flops
    extra = named.flops["decoder and memory"] - m3.plan(plain, scene).flops["decoder and memory"]
    config = plain.config
    if update == "ttt3r":  # one product of each query with the mean key, in every layer
        assert extra == 2 * config.dec_depth * config.state_size * config.dec_embed_dim
    if update in ("ttsa3r", "recal3r", "bottom_k"):
        assert extra > 0


def test_a_rule_that_needs_what_nothing_gives_is_refused():
    with pytest.raises(InvalidArgument, match="a signal that mine needs must be one of mean_logit"):
        WriteRule("mine", WRITE_RULES["const"].act, ("proposals",))


def test_rules_are_written_in_one_form():
    assert rule_text("const", "rate") == "const(0.5)"
    assert rule_text(f"const({1 / 3})", "rate") == f"const({1 / 3!r})"
    assert rule_text("filt3r( keep = 1 , slope=6)", "rate") == "filt3r(slope=6)"
    assert rule_text("bottom_k(0.5,first=full)", "rate") == "bottom_k(0.5,first=full)"
    assert str(m3.Commit.parse("rate.const(0.5)*ttt3r")) == "rw.gg rate.ttt3r*const(0.5)"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("filt3r*ttt3r", "means nothing: its variance"),
        ("recal3r*ttt3r", "has that of ttt3r in it already"),
        ("ortho*clip", "each moves the state towards a target"),
        ("const(1.5)", r"rate of const\(...\) must be a number in \[0, 1\]"),
        ("const(nan)", r"\[0, 1\]"),
        ("const(half)", r"\[0, 1\]"),
        ("filt3r(3)", "takes no number"),
        ("filt3r(gain=3)", "a setting of filt3r must be one of variance, keep"),
        ("filt3r(keep=1,keep=1)", "sets 'keep' twice"),
        ("bottom_k(0.5,first=half)", "must be one of rule, full"),
        ("ttt3r(", "must be a rule such as 'ttt3r'"),
        ("ttt3r*ttt3r", "named twice"),
        ("static_mass", "needs a motion score"),
    ],
)
def test_what_means_nothing_is_refused_in_words(text, message):
    with pytest.raises(InvalidArgument, match=message):
        load_backbone("random:small", update=text)


@pytest.mark.parametrize("spec", ["random:point3r-small", "random:spann3r-small"])
def test_memories_without_shares_refuse_rates(spec):
    with pytest.raises(InvalidArgument, match="says which share of a state token"):
        load_backbone(spec, update="const(0.5)")
