"""Runs of a model that reads each frame with the next one: Spann3R and its bank."""

from dataclasses import replace

import numpy as np
import pytest
import torch

import mut3r_analysis as m3
from mut3r_analysis.attention import SITE_KINDS
from mut3r_analysis.backbones import Frame, Spann3R
from mut3r_analysis.backbones.random_weights import NAMED_CONFIGS, random_backbone
from mut3r_analysis.errors import InvalidArgument
from mut3r_analysis.widgets import AttentionExplorer

FRAMES = 7
VIEWS = ("view1_self", "view1_to_view2", "view2_self", "view2_to_view1")


@pytest.fixture(scope="module")
def backbone():
    """A small model whose bank is pruned within a few frames."""
    config = replace(NAMED_CONFIGS["spann3r-small"], working_frames=1, long_tokens=40)
    return random_backbone(config).eval().requires_grad_(False)


@pytest.fixture(scope="module")
def sequence():
    images = np.random.default_rng(0).integers(0, 256, (FRAMES, 48, 64, 3), dtype=np.uint8)
    opened = m3.open_sequence(images)
    return opened.assign_coords(frame=np.arange(FRAMES) + 10)


def quiet(*args, **kwargs):
    return m3.run(*args, progress=False, **kwargs)


class Keys:
    """Queries and keys of one step, by site kind: ``(layer, head, token, channel)``."""

    def __init__(self):
        self.seen = {}

    def __call__(self, site, q, k):
        self.seen.setdefault(site.kind, []).append((q[0], k[0]))

    def take(self):
        seen, self.seen = self.seen, {}
        return {
            kind: tuple(torch.stack(side).double() for side in zip(*pairs, strict=True))
            for kind, pairs in seen.items()
        }


@pytest.fixture(scope="module")
def steps(backbone, sequence):
    """Steps one by one, the state each began with, and the tokens at its sites."""
    images = [
        torch.from_numpy(backbone.preparation.image(image))[None]
        for image in sequence["image"].values
    ]
    found, state = [], None
    for t, image in enumerate(images):
        following = Frame(images[t + 1]) if t + 1 < FRAMES else None
        probe, before = Keys(), state or backbone.begin()
        step = backbone.step(Frame(image), state, following=following, probe=probe)
        state = step.state
        found.append((step, before, probe.take()))
    return found


CAPTURE = m3.Capture(sites="all", archive="float32", state=True, maps=["bank_read", "view1_self"])


@pytest.fixture(scope="module")
def stored(backbone, sequence, tmp_path_factory):
    path = tmp_path_factory.mktemp("runs") / "spans.zarr"
    quiet(backbone, sequence, capture=CAPTURE, out=path)
    return path


def held(state) -> np.ndarray:
    """Frame and patch of every row of a bank."""
    return torch.stack([state.bank.frame[0], state.bank.patch[0]], dim=1).numpy()


def test_the_bank_of_these_runs_is_pruned(steps):
    sizes = [len(step.state.bank) for step, _, _ in steps]
    assert max(sizes) > sizes[-1]


def test_predictions_are_of_the_frame_they_stand_at(stored, steps):
    found = m3.open_run(stored)["prediction"].to_dataset()
    assert found["frame"].values.tolist() == list(range(10, 10 + FRAMES))
    assert {"pose", "focal", "depth", "points_world", "confidence_world"} <= set(found.data_vars)
    for t, (step, _, _) in enumerate(steps):
        points = step.prediction.points_world[0]
        np.testing.assert_allclose(found["points_world"][t], points, rtol=1e-5, atol=1e-5)


def test_the_last_frame_is_as_it_was_seen_beside_the_one_before(backbone, stored, steps):
    (step, _, _), (last, _, _) = steps[-2:]
    encoded = torch.cat([last.decoded.levels[0]])
    points, _ = backbone.dust3r.downstream_head2([encoded, *step.decoded.second], step.decoded.grid)
    found = m3.open_run(stored)["prediction/points_world"][-1]
    np.testing.assert_allclose(found, points[0], rtol=1e-5, atol=1e-5)


def test_statistics_and_archives_of_views_are_of_their_frame(stored, steps):
    run = m3.open_run(stored)
    for kind in VIEWS:
        group = run[f"attention/{kind}"].to_dataset()
        for t, (_, _, seen) in enumerate(steps[:-1]):
            q, k = seen[kind]
            weights = (q @ k.mT / q.shape[-1] ** 0.5).softmax(dim=-1)
            frame = group.isel(frame=t)
            np.testing.assert_allclose(frame["rotated_query"], q, rtol=1e-4, atol=1e-4)
            np.testing.assert_allclose(
                frame["entropy"], torch.special.entr(weights).sum(dim=-1), rtol=1e-3, atol=1e-4
            )
            np.testing.assert_allclose(frame["received"], weights.mean(dim=-2), rtol=1e-3)
        for name in ("entropy", "received", "rotated_query"):
            assert np.isnan(group[name].isel(frame=-1)).all(), (kind, name)
    roles = {kind: (set(run[f"attention/{kind}/token"].values),
                    set(run[f"attention/{kind}/key_token"].values)) for kind in VIEWS}  # fmt: skip
    assert roles["view1_self"] == ({"patch"}, {"patch"})
    assert roles["view1_to_view2"] == ({"patch"}, {"partner"})
    assert roles["view2_to_view1"] == ({"partner"}, {"patch"})


def test_encoder_and_values_are_recorded_where_they_are_passed(stored, steps):
    run = m3.open_run(stored)
    assert np.isfinite(run["attention/encoder_self/entropy"].values).all()
    values = run["attention/value_self/entropy"]
    assert np.isfinite(values[:-1].values).all()
    assert np.isnan(values[-1].values).all()


def test_keys_of_the_bank_stand_by_the_frame_they_come_from(stored, steps):
    group = m3.open_run(stored)["attention/bank_read"].to_dataset()
    assert group["key_frame"].values.tolist() == list(range(10, 10 + FRAMES))
    patches = group.sizes["key"]
    for t, (_, before, seen) in enumerate(steps):
        frame = group.isel(frame=t)
        place = held(before)
        expected = np.full((1, 1, FRAMES, patches), np.nan)
        if "bank_read" in seen:
            q, k = seen["bank_read"]
            z = q @ k.mT / q.shape[-1] ** 0.5
            weights = z.softmax(dim=-1)
            expected[:, :, place[:, 0], place[:, 1]] = weights.mean(dim=-2)
            rows = frame["logits"].values[..., place[:, 0], place[:, 1]]
            np.testing.assert_allclose(rows, z, rtol=1e-4, atol=1e-4)
            keys = frame["rotated_key"].values[:, :, place[:, 0], place[:, 1]]
            np.testing.assert_allclose(keys, k, rtol=1e-4, atol=1e-5)
        assert (t in (0, FRAMES - 1)) == ("bank_read" not in seen)
        np.testing.assert_allclose(frame["received"], expected, rtol=1e-3, atol=1e-6)
        assert np.isfinite(frame["entropy"].values).all() == ("bank_read" in seen)
    chosen = group["received"].sel(key_frame=11, key_patch_row=1, key_patch_col=2)
    np.testing.assert_array_equal(
        chosen.values.squeeze(), group["received"].values[:, 0, 0, 1, 1 * 4 + 2]
    )


def test_weights_and_statistics_of_the_bank_follow_from_its_archive(backbone, sequence, stored):
    full = m3.open_run(stored)["attention/bank_read"].to_dataset()
    names = ("entropy", "received", "max_weight", "received_logit")
    bare = m3.Capture(statistics=(), sites=["bank_read"], archive="float32")
    group = quiet(backbone, sequence, capture=bare)["attention/bank_read"].to_dataset()
    for name in names:
        assert group[name].dims == full[name].dims
        np.testing.assert_allclose(group[name], full[name], rtol=1e-4, atol=1e-5, err_msg=name)
    weights = group["weights"].isel(frame=slice(1, -1))
    np.testing.assert_allclose(weights.sum(["key_frame", "key"]), 1, rtol=1e-5)
    np.testing.assert_allclose(
        weights.mean("query"), full["received"].isel(frame=slice(1, -1)), rtol=1e-3, atol=1e-6
    )
    one = group["weights"].sel(key_frame=10).isel(frame=2, query=3)
    np.testing.assert_allclose(one, group["weights"].values[2, :, :, 3, 0], rtol=1e-5)


def test_the_bank_is_stored_row_by_row_and_reopened(stored, steps):
    state = m3.open_run(stored)["state"].to_dataset()
    counts = [len(step.state.bank) for step, _, _ in steps]
    assert state["bank_row_count"].values.tolist() == counts
    assert state.sizes["bank_row"] == max(counts)
    assert state["removed"].values.sum() > 0
    for t, ((step, before, _), count) in enumerate(zip(steps, counts, strict=True)):
        frame, bank = state.isel(frame=t), step.state.bank
        for name, values in {
            "origin_frame": bank.frame, "origin_patch": bank.patch, "count": bank.count,
        }.items():  # fmt: skip
            assert np.array_equal(frame[name].values[:count], values[0]), name
            assert (frame[name].values[count:] == -1).all()
        np.testing.assert_allclose(frame["usage"][:count], bank.usage[0], rtol=1e-4, atol=1e-6)
        np.testing.assert_allclose(frame["tokens"][:count], bank.keys[0], rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(frame["values"][:count], bank.values[0], rtol=1e-4, atol=1e-5)
        assert np.isnan(frame["norm"].values[count:]).all()
        gone = {tuple(row) for row in held(before)} - {tuple(row) for row in held(step.state)}
        assert int(frame["removed"]) == len(gone)
        written = held(step.state)[frame["write_rate"].values[:count] == 1]
        assert (written[:, 0] == t).all()
        assert len(written) in (0, 16)


def test_what_is_not_there_costs_nothing_and_the_plan_says_at_most(backbone, sequence, stored):
    plan = m3.plan(backbone, sequence, capture=CAPTURE)
    size = sum(file.stat().st_size for file in stored.rglob("*") if file.is_file())
    assert size <= plan.stored_bytes + 100  # what a run says of itself when it has finished
    shapes = {item.path: (item.dims, item.shape) for item in plan.variables}
    dims, shape = shapes["/attention/bank_read/received"]
    assert dims == ("frame", "layer", "head", "key_frame", "key")
    assert shape == (FRAMES, 1, 1, FRAMES, 16)
    assert {"encoder", "decoder and memory", "heads"} <= set(plan.flops)


def test_a_cue_scores_the_frames_that_pass_its_site(backbone, sequence, steps):
    run = quiet(backbone, sequence, cue=m3.Cue(site="view1_self"), capture=CAPTURE)
    motion = run["cue/motion"].values
    assert np.isfinite(motion[:-1]).all()
    assert np.isnan(motion[-1]).all()
    raw = run["cue/logit_query_mean"].values
    q, k = steps[2][2]["view1_self"]
    mean = (q @ k.mT / q.shape[-1] ** 0.5).mean(dim=-2).mean(dim=1)
    np.testing.assert_allclose(raw[2].reshape(mean.shape), mean, rtol=1e-3, atol=1e-5)
    reads = quiet(backbone, sequence, cue=m3.Cue(site="bank_read", reading="entropy"))
    known = np.isfinite(reads["cue/motion"].values).all(axis=(1, 2))
    assert known.tolist() == [False, *[True] * (FRAMES - 2), False]
    early = quiet(backbone, sequence, cue=m3.Cue(site="encoder_self"))
    assert np.isfinite(early["cue/motion"].values).all()


def test_a_cue_reads_patches_of_the_frame_at_hand_alone():
    m3.Cue(site="view2_to_view1", reading="logit_query_mean")
    with pytest.raises(InvalidArgument, match="does not hold image patches"):
        m3.Cue(site="view1_to_view2", reading="logit_query_mean")
    with pytest.raises(InvalidArgument, match="view2_self"):
        m3.Cue(site="view2_self")


def test_gates_on_sites_that_it_lacks_are_refused_by_name(backbone, sequence):
    cue = m3.Cue(site="view1_self")
    with pytest.raises(InvalidArgument, match=r"the gate names image_self.*lacks.*view1_self"):
        quiet(backbone, sequence, cue=cue, gate=m3.Gate.mut3r())
    with pytest.raises(InvalidArgument, match="the cue names image_self"):
        quiet(backbone, sequence, cue=m3.Cue.mut3r())
    with pytest.raises(InvalidArgument, match="capture names image_to_state"):
        quiet(backbone, sequence, capture=m3.Capture(sites=["image_to_state"]))


def test_commits_that_it_has_no_word_for_are_refused(backbone, sequence):
    cue = m3.Cue(site="view1_self")
    for commit, word in (
        ("rw.gg mem.hold", "mem.hold"),
        ("rw.gg mem.masked_mean", "mem.masked_mean"),
        ("rw.gg reset.4 reset.pose.memory", "reset.pose.memory"),
    ):
        with pytest.raises(InvalidArgument, match=rf"{word}.*no pose memory"):
            quiet(backbone, sequence, cue=cue, commit=commit)
    with pytest.raises(InvalidArgument, match=r"rate 'static_mass'.*spann3r grows"):
        quiet(backbone, sequence, cue=cue, commit="rw.gg rate.static_mass")


def test_one_frame_is_refused_before_anything_is_made(backbone, sequence, tmp_path):
    with pytest.raises(InvalidArgument, match="at least two"):
        quiet(backbone, sequence.isel(frame=slice(1)), out=tmp_path / "one.zarr")
    assert not list(tmp_path.iterdir())
    two = quiet(backbone, sequence.isel(frame=slice(2)), capture=CAPTURE)
    assert np.isfinite(two["prediction/points_world"].values).all()
    assert np.isnan(two["attention/bank_read/entropy"].values).all()


def test_holding_and_resetting_the_bank(backbone, sequence):
    bare = quiet(backbone, sequence, commit="hold")
    assert not bare["state/bank_row_count"].values.any()
    anew = quiet(backbone, sequence, commit="rw.gg reset.4", capture=m3.Capture(state=True))
    again = quiet(backbone, sequence.isel(frame=slice(4, None)))
    np.testing.assert_array_equal(
        anew["prediction/points_world"].values[4:], again["prediction/points_world"].values
    )
    assert anew["state/bank_row_count"].values[3] == 0
    origins = anew["state/origin_frame"].values[-1]
    assert set(origins[origins >= 0]) <= {4, 5, 6}
    for reset in (1, 2, 3, 6):
        with pytest.raises(InvalidArgument, match=f"reset = {reset} leaves the last of 7"):
            quiet(backbone, sequence, commit=f"rw.gg reset.{reset}")


def test_what_is_asked_for_does_not_change_what_is_computed(backbone, sequence, stored):
    full = m3.open_run(stored)
    less = quiet(backbone, sequence, outputs=())
    some = quiet(backbone, sequence, capture=m3.Capture(sites=["view2_self"], frames=[2, 5]))
    assert "points_world" not in less["prediction"]
    assert np.array_equal(less["state/usage"], full["state/usage"], equal_nan=True)
    assert np.array_equal(
        some["attention/view2_self/entropy"], full["attention/view2_self/entropy"][[2, 5]]
    )


def test_observers_see_a_run_as_it_is_and_may_change_it(backbone, sequence, stored):
    seen = set()

    def watch(site, q, k, v, out):
        seen.add(site.kind)

    def silence(site, q, k, v, out):
        return torch.zeros_like(out) if site.kind == "bank_read" else None

    plain = m3.open_run(stored)["prediction/points_world"].values
    watched = quiet(backbone, sequence, probe=watch)
    assert np.array_equal(watched["prediction/points_world"], plain)
    assert seen >= {*VIEWS, "bank_read", "encoder_self"}
    changed = quiet(backbone, sequence, intervene=silence)["prediction/points_world"].values
    assert np.array_equal(changed[0], plain[0])
    assert not np.array_equal(changed[1], plain[1])


def test_configurations_share_the_encoder_and_each_has_a_bank_of_its_own(backbone, sequence):
    cue = m3.Cue(site="view1_self")
    configurations = [{}, {"cue": cue, "commit": "hold"}, {"commit": "rw.gg reset.4"}]
    together = m3.run_batch(backbone, sequence, configurations, progress=False)
    for run, configuration in zip(together, configurations, strict=True):
        alone = quiet(backbone, sequence, **configuration)
        for name in ("prediction/points_world", "state/usage"):
            assert np.array_equal(run[name], alone[name], equal_nan=True)


@pytest.mark.parametrize("kept", [True, False], ids=["kept state", "replayed"])
@pytest.mark.parametrize("at", [0, 3, FRAMES - 1])
def test_a_fork_that_changes_nothing_differs_by_nothing(backbone, sequence, stored, kept, at):
    run = m3.open_run(stored) if kept else quiet(backbone, sequence)
    same = m3.fork(run, 10 + at, backbone=backbone, sequence=sequence)
    assert same.sizes["frame"] == FRAMES - at
    assert not same["depth_distance"].values.any()
    for name, distance in same.data_vars.items():
        assert not np.nan_to_num(distance.values).any(), name


def test_a_forks_future_is_the_runs_own_also_where_it_ends_early(backbone, sequence, stored):
    run = m3.open_run(stored)
    whole, part = (
        m3.fork(run, 12, backbone=backbone, sequence=sequence, commit="hold", frames=frames)
        for frames in (None, 2)
    )
    np.testing.assert_array_equal(part["depth_distance"], whole["depth_distance"][:2])
    np.testing.assert_array_equal(part["state_distance"], whole["state_distance"][:2])
    assert not whole["depth_distance"].values[0].any()
    assert whole["depth_distance"].values[1:].any()
    # Rows are those at the fork; in the run's own future some are pruned later.
    assert whole.sizes["bank_row"] == int(run["state/bank_row_count"][1])
    assert np.isnan(whole["state_distance"].values).any()


def test_a_fork_on_other_content_looks_at_it_from_the_frame_before(backbone, sequence, stored):
    content = sequence.copy(deep=True)
    content["image"].values[3:] = 255 - content["image"].values[3:]
    run = m3.open_run(stored)
    forked = m3.fork(run, 13, backbone=backbone, sequence=sequence, content=content)
    other = quiet(backbone, m3.open_sequence(content["image"].values))
    expected = np.abs(other["prediction/depth"].values - run["prediction/depth"].values)[3:]
    np.testing.assert_allclose(forked["depth_distance"], expected, rtol=1e-3, atol=1e-4)


def test_a_model_that_needs_no_next_frame_reads_no_further_than_it_is(sequence):
    from mut3r_analysis.running.batch import Batch
    from mut3r_analysis.running.configuration import Configuration
    from mut3r_analysis.running.inputs import frame_inputs
    from mut3r_analysis.running.loop import stream

    taken = []

    def watched(backbone):
        for given in frame_inputs(backbone, sequence, stop=3):
            taken.append((given.position, given.ahead))
            yield given

    for model, first in (
        (m3.load_backbone("random:small"), [(0, False)]),
        (m3.load_backbone("random:spann3r-small"), [(0, False), (1, False)]),
    ):
        taken.clear()
        walk = stream([Batch(model, [Configuration()])], watched(model))
        next(walk)
        assert taken == first
        assert len(list(walk)) == 2
        assert taken[3:] == ([(3, True)] if model.looks_ahead else [])


def test_weights_start_the_same_from_a_name_and_a_configuration():
    named = m3.load_backbone("random:spann3r-small")
    assert isinstance(named, Spann3R)
    built = m3.load_backbone(named.config)
    assert all(
        torch.equal(a, b) for a, b in zip(named.parameters(), built.parameters(), strict=True)
    )
    assert SITE_KINDS["bank_read"].keys == "bank"


def test_an_explorer_shows_sites_of_the_frame_at_hand(backbone, sequence, stored):
    explorer = AttentionExplorer(m3.open_run(stored))
    shown = [site["name"] for site in explorer.held["sites"]]
    assert shown == ["view1_self", "encoder_self", "value_self"]
    only = quiet(backbone, sequence, capture=m3.Capture(sites=["bank_read"], archive=True))
    with pytest.raises(InvalidArgument, match=r"of other frames.*run\['attention/bank_read'\]"):
        AttentionExplorer(only)


def test_gates_act_at_the_views_of_frames_that_have_a_next_one(backbone, sequence, stored):
    cue = m3.Cue(site="view1_self")
    run = quiet(backbone, sequence, cue=cue, gate=m3.Gate.at({"view1_self": "C1"}, beta=2))
    assert run["cue/gated"].values.tolist() == [True] * (FRAMES - 1) + [False]
    plain = m3.open_run(stored)["prediction/points_world"].values
    found = run["prediction/points_world"].values
    assert np.isfinite(found).all()
    assert not any(np.array_equal(a, b) for a, b in zip(found, plain, strict=True))
    with pytest.raises(InvalidArgument, match=r"elsewhere.*got 'bank_read'"):
        m3.Gate.at({"bank_read": "A1"})
