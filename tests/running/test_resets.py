"""Resets, by count and by trigger: when they come, how chained parts go on, what refuses them."""

import numpy as np
import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

import mut3r_analysis as m3
from mut3r_analysis.backbones import Frame
from mut3r_analysis.backbones.geometry import pose_matrix
from mut3r_analysis.errors import InvalidArgument
from mut3r_analysis.metrics import UndefinedMetric
from mut3r_analysis.running import chunks
from mut3r_analysis.running.inputs import frame_inputs

STATE = m3.Capture(statistics=(), state=True)
CUE = m3.Cue.mut3r()


@pytest.fixture(scope="module")
def backbone():
    return m3.load_backbone("random:small", device="cpu")


@pytest.fixture(scope="module")
def scene():
    return m3.open_sequence("scenes/orbit-03", stop=7)


def quiet(backbone, sequence, commit, **arguments):
    return m3.run(backbone, sequence, commit=commit, progress=False, **arguments)


def read_as_released(model, sequence, every):
    """Poses, world points and states of the released recipe, its second readings left out."""
    base, state = torch.eye(4), model.begin()
    poses, points, tokens = [], [], []
    for given in frame_inputs(model, sequence):
        ends = (given.position + 1) % every == 0
        step = model.step(Frame(given.image, reset=ends), state)
        own = pose_matrix(step.prediction.pose)[0]
        poses.append(base @ own)
        points.append(step.prediction.points_world[0] @ base[:3, :3].T + base[:3, 3])
        state = step.state
        if ends:
            base = base @ own
            state = model.step(Frame(given.image), state).state
        tokens.append(state.tokens[0])
    return (torch.stack(values).numpy() for values in (poses, points, tokens))


@pytest.mark.parametrize("update", ["cut3r", "ttt3r", "ttsa3r"])
def test_chained_parts_are_read_and_joined_as_released(scene, update):
    model = m3.load_backbone("random:small", update=update)
    found = quiet(model, scene, "reset.3 reset.chain", capture=STATE)
    poses, points, tokens = read_as_released(model, scene, 3)
    np.testing.assert_array_equal(found["state/tokens"], tokens)
    np.testing.assert_allclose(found["prediction/pose"], poses, atol=2e-6)
    np.testing.assert_allclose(found["prediction/points_world"], points, atol=1e-5, rtol=1e-5)
    assert found["state/reset"].values.tolist() == [False, False, True] * 2 + [False]


def test_the_released_recipe_repairs_a_path_that_resets_break():
    model, scene = m3.load_backbone("tiny"), m3.open_sequence("scenes/orbit-03")
    commits = [m3.Commit.ttt3r(), m3.Commit.ttt3r(reset=8, reset_chain=True)]
    runs = m3.run_batch(
        model, scene, [{"commit": each} for each in commits], outputs=["pose"], progress=False
    )
    errors = [float(m3.evaluate(each, "default:pose:sim3")["mean_ate"]) for each in runs]
    assert errors == pytest.approx([0.397, 0.200], abs=5e-4)
    plain = quiet(model, scene, "rate.ttt3r reset.8", outputs=["pose"])
    with pytest.raises(UndefinedMetric, match=r"after every 8 frames.*'reset.chain' in the commit"):
        m3.evaluate(plain, "default:pose:sim3")


def test_depth_alone_is_chained_without_poses(backbone, scene):
    alone = quiet(backbone, scene, "reset.3 reset.chain", outputs=["depth"])
    whole = quiet(backbone, scene, "reset.3 reset.chain")
    np.testing.assert_array_equal(alone["prediction/depth"], whole["prediction/depth"])


def test_motion_resets_after_frames_that_move_and_are_not_the_first_of_a_part(backbone, scene):
    cue = m3.Cue.oracle("motion_mask")
    share = quiet(backbone, scene, "", cue=cue)["cue/motion"].mean(["patch_row", "patch_col"])
    threshold = float(share.median())
    found = quiet(backbone, scene, f"reset.motion({threshold!r})", cue=cue)
    expected, age = [], 0
    for value in share.values:
        expected.append(bool(age > 0 and value >= threshold))
        age = 0 if expected[-1] else age + 1
    assert found["state/reset"].values.tolist() == expected
    assert 0 < sum(expected) < len(expected)


def test_saturation_resets_where_the_changes_of_the_state_add_up(backbone, scene):
    kept = quiet(backbone, scene, "", capture=STATE)["state/tokens"].values.astype(np.float64)
    change = np.linalg.norm(np.diff(kept, axis=0), axis=-1) / np.linalg.norm(kept[:-1], axis=-1)
    total = np.concatenate([[0], np.cumsum(change.mean(axis=-1))])
    threshold = float(total[2] + total[3]) / 2
    found = quiet(backbone, scene, f"reset.saturation({threshold!r})", capture=STATE)
    assert int(found["state/reset"].values.argmax()) == 3
    np.testing.assert_array_equal(found["state/tokens"][:3], kept[:3].astype(np.float32))
    np.testing.assert_array_equal(found["state/tokens"][3], backbone.begin().tokens[0])


MANNERS = {
    "count": {"commit": "reset.3 reset.chain"},
    "motion": {"commit": "reset.motion(0.05) reset.chain", "cue": m3.Cue.oracle("motion_mask")},
    "saturation": {"commit": "reset.saturation(0.5) reset.chain reset.cue.keep", "cue": CUE},
    "a gate by the frame before": {
        "commit": "rw.gp rate.ttsa3r reset.2 reset.chain", "cue": m3.Cue.mut3r(source="previous"),
        "gate": m3.Gate.mut3r(),
    },
}  # fmt: skip


def test_samples_of_a_batch_start_anew_by_themselves(backbone, scene):
    kinds = [{}, {"commit": "reset.2"}, *MANNERS.values()]
    together = m3.run_batch(backbone, scene, kinds, capture=STATE, progress=False)
    for kind, one in zip(kinds, together, strict=True):
        alone = m3.run(backbone, scene, capture=STATE, progress=False, **kind)
        for name in ("state/tokens", "prediction/pose", "prediction/points_world"):
            np.testing.assert_allclose(one[name], alone[name], atol=2e-4, rtol=1e-3, err_msg=name)
        if "commit" in kind:
            assert alone["state/reset"].any()
            np.testing.assert_array_equal(one["state/reset"], alone["state/reset"])


@pytest.mark.parametrize("how", MANNERS)
def test_a_run_with_resets_goes_on_where_it_stopped_and_forks(
    backbone, scene, how, tmp_path, monkeypatch
):
    monkeypatch.setattr(chunks, "MOST_FRAMES", 2)
    whole = m3.run(backbone, scene, capture=STATE, progress=False, **MANNERS[how])
    calls = []
    encode = backbone.encode

    def stop(*arguments, **named):
        calls.append(1)
        if len(calls) > 5:
            raise KeyboardInterrupt
        return encode(*arguments, **named)

    monkeypatch.setattr(backbone, "encode", stop)
    with pytest.raises(KeyboardInterrupt):
        m3.run(backbone, scene, capture=STATE, progress=False, out=tmp_path / "r", **MANNERS[how])
    monkeypatch.undo()
    resumed = m3.run(
        backbone, scene, capture=STATE, progress=False, out=tmp_path / "r", resume=True,
        **MANNERS[how],
    )  # fmt: skip
    for name in ("state/tokens", "prediction/pose", "state/reset"):
        np.testing.assert_array_equal(resumed[name], whole[name], err_msg=name)
    same = m3.fork(whole, 5, backbone=backbone, sequence=scene)
    assert not any(values.any() for values in same.data_vars.values())
    other = m3.fork(whole, 1, backbone=backbone, sequence=scene, commit="hold")
    assert bool((other["state_distance"][-1] > 0).any())


def test_a_cue_that_remembers_sees_the_frame_between_two_parts_once(backbone, scene):
    cue = m3.Cue.mut3r(source="previous_ema(0.5)")
    measured = {
        which: quiet(backbone, scene, f"reset.3 reset.chain reset.cue.{which}", cue=cue,
                     gate=m3.Gate.mut3r())
        for which in ("keep", "clear")
    }  # fmt: skip
    kept = measured["keep"]
    score, used = kept["cue/motion"].values, kept["cue/used"].values
    np.testing.assert_allclose(used[2], (score[0] + score[1]) / 2, atol=1e-6)
    np.testing.assert_allclose(used[3], (used[2] + score[2]) / 2, atol=1e-6)
    # The new part's own first reading of the frame is all that a cleared cue remembers.
    assert bool(measured["clear"]["cue/gated"][3])
    assert not np.allclose(measured["clear"]["cue/used"][3], score[2])


@pytest.mark.parametrize("spec", ["random:point3r-small", "random:vggt-small"])
def test_memories_that_grow_are_chained(spec, scene):
    model = m3.load_backbone(spec)
    found = quiet(model, scene.isel(frame=slice(4)), "reset.2 reset.chain", outputs=["pose"])
    base, state, expected = torch.eye(4), model.begin(), []
    for given in frame_inputs(model, scene.isel(frame=slice(4))):
        step = model.step(Frame(given.image, reset=given.position == 1), state)
        expected.append(base @ pose_matrix(step.prediction.pose)[0])
        state = step.state
        if given.position == 1:
            base = expected[-1]
            state = model.step(Frame(given.image), state).state
    np.testing.assert_allclose(found["prediction/pose"], torch.stack(expected), atol=1e-5)


@pytest.mark.parametrize(
    ("spec", "arguments", "message"),
    [
        ("random:small", {"commit": "reset.chain"}, "there are none; say when"),
        ("random:small", {"commit": "reset.motion(0.3)"}, "needs a cue"),
        ("random:small", {"commit": "reset.motion(1.5)", "cue": CUE}, r"number in \[0, 1\]"),
        ("random:small", {"commit": "reset.motion"}, "a trigger with its threshold such as"),
        ("random:small", {"commit": "reset.light(3)"}, r"saturation\(0.5\) or motion\(0.5\)"),
        ("random:small", {"commit": "hold reset.saturation(1)"}, "writes nothing, so it never"),
        ("random:small", {"commit": "rate.const(0) reset.saturation(1)"}, "writes nothing"),
        ("random:vggt-small", {"commit": "reset.saturation(1)"}, "not rewritten token by token"),
        ("random:spann3r-small", {"commit": "reset.motion(0.5)", "cue": m3.Cue(site="view1_self")},
         "may leave the last of 7 frames alone"),
        ("random:spann3r-small", {"commit": "reset.3 reset.chain"}, "together with the next one"),
        ("random:small", {"commit": "reset.3 reset.chain", "outputs": ["points_world"]},
         "ask for the output 'pose' beside"),
    ],
)  # fmt: skip
def test_resets_that_cannot_be_are_refused_in_words(spec, arguments, message, scene):
    with pytest.raises(InvalidArgument, match=message):
        m3.run(m3.load_backbone(spec), scene, progress=False, **arguments)


def test_parts_by_trigger_are_one_path_where_it_never_fired(scene):
    model = m3.load_backbone("tiny")
    never = quiet(model, scene, "reset.motion(1)", cue=CUE, outputs=["pose"])
    assert not never["state/reset"].any()
    assert m3.evaluate(never, "default:pose:sim3").attrs["n_valid"] == 1
    often = quiet(model, scene, "reset.motion(0)", cue=CUE, outputs=["pose"])
    with pytest.raises(UndefinedMetric, match=r"was reset 3 times, by motion\(0\)"):
        m3.evaluate(often, "default:pose:sim3")


@pytest.mark.parametrize(
    ("how", "uncounted"),
    [
        ({}, 0),
        ({"commit": "rate.ttt3r"}, 0),
        ({"cue": CUE, "gate": m3.Gate.mut3r(), "commit": "rw.gp rate.static_mass"}, 0.03),
    ],
    ids=["plain", "rule", "two passes"],
)
def test_a_plan_counts_what_is_read_twice(backbone, scene, how, uncounted):
    def operations(words):
        named = {**how, "commit": f"{how.get('commit', 'rw.gg')} {words}", "outputs": ("depth",)}
        # The fused kernel of a CPU is one that the counter does not know.
        with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
            m3.run(backbone, scene, progress=False, **named)
        return counter.get_total_flops(), m3.plan(backbone, scene, **named)

    apart, plain = operations("reset.3")
    chained, planned = operations("reset.3 reset.chain")
    assert (plain.read_twice, planned.read_twice) == (0, 2)
    assert planned.flops == plain.flops
    twice = planned.read_twice * planned.again
    assert twice <= chained - apart <= (1 + uncounted) * twice  # gates' own work is not counted
    assert "2 read twice" in planned.summary
    assert "read twice" not in plain.summary
