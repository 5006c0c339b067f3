"""From raw readings to scores: normalisers, sign, contrast, time, masks and controls."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from layout import axes, sites

from mut3r_analysis.attention import Site
from mut3r_analysis.motion import (
    Cue,
    CueBatch,
    CueHistory,
    CueMeasured,
    CueProbe,
    live_score,
    mask_cells,
    motion_score,
)

GRID = (3, 4)


def values(batch=2, layers=3, seed=0):
    return torch.randn(batch, layers, *GRID, generator=torch.Generator().manual_seed(seed)) - 0.8


def score(cue, raw, history=None, **options):
    history = CueHistory.start(len(raw)) if history is None else history
    return motion_score(cue, raw, history, grid=GRID, **options)


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize(
    "normaliser", ["sigmoid", "zscore", "robust", "minmax", "upper_half", "rank"]
)
def test_scores_follow_their_normaliser_frame_by_frame(normaliser, sign):
    raw = values()
    cue = Cue(reading="entropy", normaliser=normaliser, sharpness=2.0, sign=sign)
    found = score(cue, raw)[0].score
    for sample in range(2):
        x = sign * raw[sample].double().mean(dim=0).numpy().ravel()
        median = np.median(x)
        expected = {
            "sigmoid": lambda x=x: sigmoid(2 * x),
            "zscore": lambda x=x: sigmoid(2 * (x - x.mean()) / x.std()),
            "robust": lambda x=x, m=median: sigmoid(2 * (x - m) / (1.4826 * np.median(abs(x - m)))),
            "minmax": lambda x=x: (x - x.min()) / (x.max() - x.min()),
            "upper_half": lambda x=x, m=median: np.clip((x - m) / (np.quantile(x, 0.95) - m), 0, 1),
            "rank": lambda x=x: x.argsort().argsort() / (x.size - 1),
        }[normaliser]()
        np.testing.assert_allclose(found[sample].flatten(), expected, rtol=1e-4, atol=1e-5)


def test_equal_values_share_their_rank():
    raw = torch.tensor([0.0, 1, 1, 2]).reshape(1, 1, 1, 4)
    cue = Cue(reading="entropy", normaliser="rank")
    found, _ = motion_score(cue, raw, CueHistory.start(1), grid=(1, 4))
    torch.testing.assert_close(found.score.flatten(), torch.tensor([0, 0.5, 0.5, 1]))


@settings(max_examples=40, deadline=None)
@given(
    st.sampled_from(["sigmoid", "zscore", "robust", "minmax", "upper_half", "rank"]),
    st.sampled_from([1, -1]),
    st.floats(0.1, 10),
    st.integers(0, 10**6),
)
def test_a_score_lies_in_the_unit_interval_and_rises_with_the_signed_reading(
    normaliser, sign, sharpness, seed
):
    raw = values(seed=seed)
    cue = Cue(reading="entropy", normaliser=normaliser, sign=sign, sharpness=sharpness)
    found = score(cue, raw)[0].score
    assert float(found.min()) >= 0
    assert float(found.max()) <= 1
    order = (sign * raw.mean(dim=1)).flatten(1).argsort(dim=1)
    assert bool((found.flatten(1).gather(1, order).diff(dim=1) >= 0).all())


def test_the_default_cue_calls_a_low_mean_logit_dynamic():
    raw = values()
    found = score(Cue.mut3r(), raw)[0].score
    mean = raw.mean(dim=1)
    assert float(found.flatten(1)[0, mean[0].argmin()]) == float(found[0].max())


@pytest.mark.parametrize("level", [0.0, -0.8, 1 / 769])
def test_a_cue_without_contrast_is_refused_with_the_reason(level):
    noise = 1e-7 * values()
    with pytest.raises(
        ValueError, match=r"without contrast.*softmax weights over keys is constant"
    ):
        score(Cue(), level * (1 + noise))
    with pytest.raises(ValueError, match="not finite"):
        score(Cue(), values() * torch.nan)


def test_raw_scores_must_lie_in_the_unit_interval():
    with pytest.raises(ValueError, match=r"must lie in \[0, 1\]"):
        score(Cue(normaliser="raw"), values())
    inside = values().sigmoid()
    torch.testing.assert_close(
        score(Cue(reading="entropy", normaliser="raw", sign=-1), inside)[0].score,
        1 - inside.mean(dim=1),
    )


def test_a_running_normaliser_averages_location_and_scale_over_frames():
    cue = Cue(reading="entropy", running=0.75, sharpness=1)
    history = CueHistory.start(1)
    location = scale = None
    for frame in range(4):
        raw = values(1, seed=frame) * (frame + 1)
        motion, history = score(cue, raw, history)
        x = raw.mean(dim=1).double().numpy()
        location = x.mean() if location is None else 0.75 * location + 0.25 * x.mean()
        scale = x.std() if scale is None else 0.75 * scale + 0.25 * x.std()
        np.testing.assert_allclose(motion.score, sigmoid((x - location) / scale), rtol=1e-4)


@pytest.mark.parametrize("decay", [None, 0.0, 0.6])
def test_instability_is_the_standard_deviation_over_frames_at_one_patch(decay):
    cue = Cue(reading="instability", decay=decay, normaliser="minmax")
    history = CueHistory.start(2)
    seen = []
    for frame in range(5):
        raw = values(seed=frame) + 1000
        motion, history = score(cue, raw, history)
        seen.append(raw.double())
        past = torch.stack(seen)
        if decay is None:
            expected = past.std(dim=0, correction=0)
        else:
            weights = torch.tensor([decay ** (frame - index) for index in range(frame + 1)])
            weights[1:] *= 1 - decay
            weights = weights.double()[:, None, None, None, None]
            mean = (weights * past).sum(dim=0)
            expected = (weights * (past - mean).square()).sum(dim=0).sqrt()
        torch.testing.assert_close(motion.raw.double(), expected, rtol=1e-4, atol=2e-4)
        if frame == 0:
            assert not motion.score.any()
        if decay == 0.0:
            break


def test_a_reset_forgets_one_sample_and_keeps_the_others():
    cue = Cue(reading="instability", source="previous_ema(0.5)", running=0.5)
    old, kept = CueHistory.start(2), CueHistory.start(2)
    for frame in range(3):
        _, old = score(cue, values(seed=frame), old)
        kept = old
    old = old.reset(torch.tensor([True, False]))
    fresh = CueHistory.start(2)
    for frame in range(3, 6):
        motion, old = score(cue, values(seed=frame), old)
        restarted, fresh = score(cue, values(seed=frame), fresh)
        continued, kept = score(cue, values(seed=frame), kept)
        torch.testing.assert_close(motion.score[0], restarted.score[0])
        torch.testing.assert_close(motion.score[1], continued.score[1])
        torch.testing.assert_close(old.carried[0], fresh.carried[0])
        torch.testing.assert_close(old.carried[1], kept.carried[1])


def test_frames_that_are_not_remembered_leave_the_history_of_their_sample():
    cue = Cue(reading="instability", source="previous")
    _, first = score(cue, values(seed=0), CueHistory.start(2))
    _, second = score(cue, values(seed=1), first)
    merged = second.unless(torch.tensor([True, False]), first)
    assert merged.frames.tolist() == [1, 2]
    torch.testing.assert_close(merged.mean[0], first.mean[0])
    torch.testing.assert_close(merged.mean[1], second.mean[1])
    _, start = score(cue, values(seed=0), CueHistory.start(2))
    never = start.unless(torch.tensor([True, True]), CueHistory.start(2))
    again, _ = score(cue, values(seed=1), never)
    assert not again.score.any()


def test_previous_scores_are_carried_with_and_without_averaging():
    plain, averaged = Cue(source="previous"), Cue(source="previous_ema(0.75)")
    one, many = CueHistory.start(2), CueHistory.start(2)
    assert one.carried is None
    expected = None
    for frame in range(4):
        motion, one = score(plain, values(seed=frame), one)
        _, many = score(averaged, values(seed=frame), many)
        expected = motion.score if expected is None else 0.75 * expected + 0.25 * motion.score
        torch.testing.assert_close(one.carried, motion.score)
        torch.testing.assert_close(many.carried, expected)
    assert score(Cue(), values())[1].carried is None


def test_controls_replace_the_score():
    raw = values()
    g = score(Cue(), raw)[0].score
    constant = score(Cue(control="const(0.25)"), raw)[0]
    assert constant.raw is None
    assert constant.score.unique().tolist() == [0.25]
    shuffled = score(Cue(control="shuffle", seed=3), raw, position=5)[0].score
    torch.testing.assert_close(shuffled.flatten(1).sort().values, g.flatten(1).sort().values)
    assert not torch.equal(shuffled, g)
    torch.testing.assert_close(score(Cue(control="invert"), raw)[0].score, 1 - g)
    drawn = [score(Cue(control="random", seed=1), raw, position=p)[0].score for p in (0, 0, 1)]
    assert torch.equal(drawn[0], drawn[1])
    assert not torch.equal(drawn[0], drawn[2])
    assert torch.equal(drawn[0][0], drawn[0][1])


def test_a_shifted_score_is_that_of_an_earlier_frame():
    cue, history, plain = Cue(control="shift(2)"), CueHistory.start(2), []
    for frame in range(5):
        plain.append(score(Cue(), values(seed=frame))[0].score)
        motion, history = score(cue, values(seed=frame), history)
        expected = plain[frame - 2] if frame >= 2 else torch.zeros_like(plain[0])
        torch.testing.assert_close(motion.score, expected)


def test_a_mask_is_pooled_to_its_patches():
    mask = torch.zeros(1, 12, 16, dtype=torch.bool)
    mask[0, :2, :4] = True
    assert mask_cells(mask, GRID).shape == (1, 1, 3, 4)
    assert mask_cells(mask, GRID)[0, 0, 0].tolist() == [0.5, 0, 0, 0]
    assert mask_cells(mask, GRID, "max")[0, 0, 0].tolist() == [1, 0, 0, 0]
    torch.testing.assert_close(
        score(Cue.oracle(), mask_cells(mask, GRID))[0].score, mask_cells(mask, GRID)[:, 0]
    )


@pytest.mark.parametrize("shape", [(1, 12, 12), (1, 13, 16), (1, 6, 16), (12, 16)])
def test_a_mask_of_another_size_is_refused(shape):
    with pytest.raises(ValueError, match=r"does not fit a grid of 3 x 4 square patches"):
        mask_cells(torch.zeros(shape), GRID)


def test_a_mask_of_other_values_or_another_grid_is_refused():
    with pytest.raises(ValueError, match="boolean or hold values"):
        mask_cells(torch.full((1, 3, 4), 255.0), GRID)
    with pytest.raises(ValueError, match=r"grid of \(3, 4\) patches, the frame \(4, 4\)"):
        motion_score(Cue(), values(), CueHistory.start(2), grid=(4, 4))
    with pytest.raises(ValueError, match="was not measured"):
        motion_score(Cue(), None, CueHistory.start(2), grid=GRID)
    _, history = score(Cue(reading="instability"), values())
    with pytest.raises(ValueError, match="the grid changed"):
        motion_score(Cue(reading="instability"), torch.randn(2, 3, 2, 2), history, grid=(2, 2))


SIZES = sites(4, 2)


def show(probe, layers=range(4), batch=2):
    make = torch.Generator().manual_seed(1)
    for layer in layers:
        for kind, queries in (("image_self", 13), ("state_to_image", 6)):
            q = torch.randn(batch, 2, queries, 8, generator=make)
            probe(Site(kind, layer), q, torch.randn(batch, 2, 13, 8, generator=make))


@pytest.mark.parametrize(("source", "last"), [("layer_causal", 2), ("same_site", 3)])
def test_a_live_score_uses_the_layers_seen_so_far(source, last):
    cue = Cue(source=source)
    probe = CueProbe(cue, GRID, SIZES, axes(GRID))
    live = live_score(cue, probe, CueHistory.start(2))
    assert live(Site("image_self", 0)) is None
    show(probe, range(3))
    found = live(Site("state_to_image", 2))
    expected = score(cue, probe.raw()[:, :last])[0].score
    torch.testing.assert_close(found, expected)
    assert live(Site("image_to_state", 2)) is found


def test_a_meter_measures_one_cue_per_sample_as_if_each_were_alone():
    cues = [
        Cue(),
        Cue(reading="entropy", layers=(0, 2)),
        Cue(),
        Cue.oracle(),
        Cue(control="random"),
    ]
    meter = CueBatch(cues, SIZES)
    history = meter.start(batch=5)
    probe = meter.probe(GRID, axes(GRID))
    show(probe, batch=5)
    mask = {"motion_mask": torch.rand(5, 6, 8)}
    motions, history = meter.score(probe, history, grid=GRID, position=2, masks=mask)
    joined = meter.joined(motions)
    for sample, cue in enumerate(cues):
        single = CueBatch(cue, SIZES)
        alone = single.probe(GRID, axes(GRID))

        def only(site, q, k, own=slice(sample, sample + 1), alone=alone):
            alone(site, q[own], k[own])

        show(only, batch=5)
        own = {"motion_mask": mask["motion_mask"][sample : sample + 1]}
        found, _ = single.score(alone, single.start(1), grid=GRID, position=2, masks=own)
        torch.testing.assert_close(joined[sample], single.joined(found)[0])


def test_a_probe_pass_ends_when_every_cue_has_seen_its_last_layer():
    meter = CueBatch([Cue(layers=(0, 2)), Cue(layers=(1, 3))], SIZES)
    probe = meter.probe(GRID, axes(GRID), stop=True)
    show(probe, range(2))
    with pytest.raises(CueMeasured):
        show(probe, range(2, 3))
    cut = CueBatch(Cue(source="two_pass_cut(2)"), SIZES).probe(GRID, axes(GRID), stop=True)
    with pytest.raises(CueMeasured):
        show(cut, range(2))
    assert cut.probes[0].raw().shape[1] == 2


def test_a_meter_resets_and_withholds_by_the_batchs_order():
    meter = CueBatch([Cue(source="previous"), Cue(reading="entropy", source="previous")] * 2, SIZES)
    start = meter.start(batch=4)
    assert meter.carried(start) is None
    probe = meter.probe(GRID, axes(GRID))
    show(probe, batch=4)
    motions, after = meter.score(probe, start, grid=GRID)
    torch.testing.assert_close(meter.carried(after), meter.joined(motions))
    which = torch.tensor([True, False, False, False])
    forgotten = meter.carried(meter.reset(after, which))
    assert not forgotten[0].any()
    torch.testing.assert_close(forgotten[1:], meter.joined(motions)[1:])
    kept = meter.unless(which, after, start)
    assert [item.frames.tolist() for item in kept] == [[0, 1], [1, 1]]


def test_a_live_meter_joins_its_cues():
    cues = [
        Cue(source="layer_causal"),
        Cue(reading="entropy", source="layer_causal", layers=(1, 4)),
    ]
    meter = CueBatch(cues, SIZES)
    probe = meter.probe(GRID, axes(GRID))
    live = meter.live(probe, meter.start(2))
    assert live(Site("image_self", 0)) is None
    show(probe, range(2))
    first = live(Site("image_self", 1))
    assert first[0].any()
    assert not first[1].any()
    assert live(Site("image_self", 2))[1].any()


def test_a_meter_refuses_what_cannot_share_a_pass():
    with pytest.raises(ValueError, match="they need one source; got"):
        CueBatch([Cue(), Cue(source="previous")], SIZES)
    with pytest.raises(ValueError, match="reaches outside the 4 layers"):
        CueBatch(Cue(layers=(0, 6)), SIZES)
    with pytest.raises(ValueError, match="reaches outside the 4 layers"):
        CueBatch(Cue(source="two_pass_cut(6)"), SIZES)
    with pytest.raises(ValueError, match=r"there are 2 \(0 to 1\)"):
        CueBatch(Cue(heads=[2]), SIZES)
    with pytest.raises(ValueError, match="2 cues for a batch of 3"):
        CueBatch([Cue(), Cue(reading="entropy")], SIZES).start(batch=3)
    meter = CueBatch(Cue.oracle(), SIZES)
    with pytest.raises(ValueError, match="the mask 'motion_mask', which this sequence does not"):
        meter.score(None, meter.start(1), grid=GRID)
