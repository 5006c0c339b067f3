"""Each signature is seen where it was planted, and not in what is like it."""

import numpy as np
import pytest
import xarray as xr

import mut3r_analysis as m3
from mut3r_analysis.explaining import signatures as told
from mut3r_analysis.explaining.measuring import error_measure
from mut3r_analysis.explaining.signatures import Case
from mut3r_analysis.sequences.layouts.ego_motion import moving_speeds

FRAMES = 6


@pytest.fixture(scope="module")
def sequence():
    return m3.open_sequence("scenes/orbit-03", stop=FRAMES)


@pytest.fixture(scope="module")
def right(sequence):
    """A gated run, with the truth in the place of what it predicted."""
    run = m3.run(
        m3.load_backbone("tiny", device="cpu"),
        sequence,
        cue=m3.Cue.mut3r(),
        gate=m3.Gate.mut3r(),
        outputs=("pose", "depth"),
        progress=False,
    )
    return with_group(run, "prediction", run["truth"].to_dataset()[["depth", "pose"]])


def with_group(run, name, values):
    found = run.copy()
    found[name] = xr.DataTree(values)
    return found


def wrong(run, **changes):
    """A run whose predictions are changed: name to a function of the values."""
    predicted = run["prediction"].to_dataset().load()
    changed = {name: change(predicted[name].copy()) for name, change in changes.items()}
    return with_group(run, "prediction", predicted.assign(changed))


def times(factor, where):
    return lambda depth: depth.where(~where, depth * factor)


def test_depth_of_what_rests_gets_wrong(right, sequence):
    moves = right["truth/motion_mask"].astype(bool)
    some = (moves["x"] < 16) & (moves["frame"] == 3)
    found = told.over_suppression(
        Case(right, wrong(right, depth=times(1.4, ~moves & some)), sequence)
    )
    assert found.shown
    assert found.evidence.startswith("δ < 1.25 of what rests 1 → 0.9")
    assert found.evidence.endswith("of what moves 1 → 1")
    only_moving = wrong(right, depth=times(1.4, moves))
    found = told.over_suppression(Case(right, only_moving, sequence))
    assert not found.shown
    assert found.evidence.endswith("of what moves 1 → 0")
    blind = right.copy()
    del blind["truth"]
    assert told.over_suppression(Case(blind, right, sequence)) is None


def turned(run, frames, degrees):
    """A run whose camera is turned about its axis from some frames on, and back in the next one."""
    angle = np.deg2rad(degrees)
    turn = np.eye(4)
    turn[:2, :2] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]

    def change(pose):
        for frame in frames:
            pose.values[frame] = pose.values[frame] @ turn
        return pose

    return wrong(run, pose=change)


def test_rotation_is_lost_on_slow_motion_and_won_back_at_half_the_sharpness(right, sequence):
    speeds = [moving_speeds(sequence, at).mean() for at in range(FRAMES - 1)]
    slow = np.argsort(speeds)[:3]
    asked = []

    def softer(way):
        asked.append(way)
        return turned(right, slow, 2.0)

    found = told.sharpness_too_high(Case(right, turned(right, slow, 5.0), sequence, again=softer))
    assert found.shown
    assert asked == ["at half the sharpness"]
    assert "60% of that goes" in found.evidence
    assert f"up to {np.median(speeds):.3g} px" in found.evidence
    same = Case(right, turned(right, slow, 5.0), sequence, again=lambda _: turned(right, slow, 5.0))
    assert not told.sharpness_too_high(same).shown
    untried = told.sharpness_too_high(Case(right, turned(right, slow, 5.0), sequence))
    assert not untried.shown
    assert untried.evidence.endswith("could not be tried")
    assert told.sharpness_too_high(Case(right, right, sequence.drop_vars("flow"))) is None


def test_a_state_is_corrupted_where_consistency_comes_back_with_what_is_written(right, sequence):
    every_other = right["truth/depth"]["frame"] % 2 == 1
    flickers = wrong(right, depth=times(1.2, every_other))
    again = {told.PROBE_WRITE: flickers, told.STATE_QUERIES: right}
    found = told.corrupted_state(Case(right, flickers, sequence, again=again.get))
    assert found.shown
    assert found.evidence.endswith("with state queries left alone, 100% of that goes")
    assert not told.corrupted_state(Case(right, flickers, sequence, again=lambda _: flickers)).shown
    scaled = wrong(right, depth=lambda depth: 1.2 * depth)
    assert not told.corrupted_state(Case(right, scaled, sequence, again=again.get)).shown


def test_only_scale_and_shift_moved(right, sequence):
    third = right["truth/depth"]["frame"] == 2
    plain = wrong(right, depth=lambda depth: depth + 0.1 * np.sin(np.arange(depth.sizes["x"])))
    moved = wrong(plain, depth=lambda depth: depth.where(~third, 1.3 * depth + 0.2))
    bent = wrong(plain, depth=times(1.3, third & (right["truth/depth"]["x"] < 20)))
    for gated, expected in ((moved, True), (bent, False)):
        _, measure = error_measure("default", sequence, (plain, gated))
        found = told.scale_or_shift(Case(plain, gated, sequence, measure=measure, worst=2))
        assert found.shown == expected
    assert told.scale_or_shift(Case(plain, moved, sequence)) is None


def lit(run, patches):
    """A run whose motion score is 0.9 at some patches and nearly 0.1 elsewhere."""
    cue = run["cue"].to_dataset().load()
    score = cue["motion"].transpose("frame", "patch_row", "patch_col")
    noise = np.random.default_rng(0).uniform(0, 0.1, score.shape)
    return with_group(run, "cue", cue.assign(motion=score.copy(data=np.where(patches, 0.9, noise))))


def test_a_cue_lights_the_border(right, sequence):
    border = np.ones((6, 8), bool)
    border[1:-1, 1:-1] = False
    found = told.cue_at_borders(Case(right, lit(right, border), sequence))
    assert found.shown
    assert found.evidence.startswith("motion score of the border 0.90, of other patches 0.0")
    inside = told.cue_at_borders(Case(right, lit(right, ~border), sequence))
    assert not inside.shown
    moves = right["truth/motion_mask"].values.astype(bool)
    patches = moves.reshape(FRAMES, 6, moves.shape[1] // 6, 8, moves.shape[2] // 8).any((2, 4))
    assert not told.cue_at_borders(Case(right, lit(right, patches), sequence)).shown


def test_a_cue_lights_sinks(right, sequence):
    at = [1, 4]
    received = np.full((2, 2, 2, 49), 1 / 49)
    received[..., 1 + 20] = received[..., 1 + 37] = 0.2
    dims = ("frame", "layer", "head", "key")
    roles = ("key", ["pose"] + ["patch"] * 48)
    values = xr.DataArray(received, {"frame": at, "key_token": roles}, dims)
    looked = xr.DataTree.from_dict({"/attention/image_self": values.to_dataset(name="received")})
    sinks = np.isin(np.arange(48), (20, 37)).reshape(6, 8)
    found = told.cue_at_sinks(Case(right, lit(right, sinks), sequence, looked=looked))
    assert found.shown
    assert found.evidence.startswith("motion score of sinks 0.90")
    assert not told.cue_at_sinks(Case(right, lit(right, ~sinks), sequence, looked=looked)).shown
    even = looked.map_over_datasets(lambda group: group.where(False, 1 / 49))
    found = told.cue_at_sinks(Case(right, lit(right, sinks), sequence, looked=even))
    assert found == (False, "no patch receives 3 times an even share of attention")


def test_what_cannot_be_tested_says_what_it_needs(right, sequence):
    blind = right.copy()
    for group in ("truth", "cue"):
        del blind[group]
    found = told.signatures(Case(blind, blind, sequence[["image"]]))
    assert found["signature"].values.tolist() == list(told.SIGNATURES)
    assert not found["signature_shown"].any()
    for text in found["signature_evidence"].values:
        assert text.startswith("not tested: it needs ")
