"""Runs of a model whose memory grows: Point3R's pointers, stored, reopened, gated and forked."""

import numpy as np
import pytest
import torch

import mut3r_analysis as m3
from mut3r_analysis.attention import DECODER_KINDS
from mut3r_analysis.backbones import Frame
from mut3r_analysis.errors import InvalidArgument

FRAMES = 5


@pytest.fixture(scope="module")
def backbone():
    return m3.load_backbone("random:point3r-small")


@pytest.fixture(scope="module")
def sequence():
    return m3.open_sequence("scenes/orbit-03").isel(frame=slice(FRAMES))


def quiet(*args, **kwargs):
    return m3.run(*args, progress=False, **kwargs)


@pytest.fixture(scope="module")
def steps(backbone, sequence):
    found, state = [], None
    with torch.no_grad():
        for image in sequence["image"].values:
            pixels = torch.from_numpy(backbone.preparation.image(image))[None]
            found.append(backbone.step(Frame(pixels), state))
            state = found[-1].state
    return found


@pytest.fixture(scope="module")
def stored(backbone, sequence, tmp_path_factory):
    path = tmp_path_factory.mktemp("runs") / "points.zarr"
    capture = m3.Capture(sites="all", archive="float32", state=True, maps=["image_to_state"])
    quiet(backbone, sequence, capture=capture, out=path)
    return path


def test_pointers_are_stored_with_their_number_and_reopened(stored, steps):
    state = m3.open_run(stored)["state"].to_dataset()
    counts = [int(step.state.pointers.count) for step in steps]
    assert state["pointer_count"].values.tolist() == counts
    assert counts[-1] > counts[0]
    assert state.sizes["pointer"] == max(counts)
    for t, (step, count) in enumerate(zip(steps, counts, strict=True)):
        frame, pointers = state.isel(frame=t), step.state.pointers
        for name in ("positions", "birth", "updated"):
            here = frame[name].values
            assert np.array_equal(here[:count], getattr(pointers, name)[0])
        assert np.array_equal(frame["tokens"].values[:count], pointers.features[0])
        assert np.array_equal(frame["write_rate"].values[:count], step.rate[0])
        assert np.isnan(frame["norm"].values[count:]).all()
        assert (frame["birth"].values[count:] == -1).all()


def test_statistics_of_pointers_follow_from_archived_queries_and_keys(stored, steps):
    run = m3.open_run(stored)
    for kind in DECODER_KINDS:
        group = run[f"attention/{kind}"].to_dataset()
        for t in (0, 1, FRAMES - 1):
            seen = 12 * 4 if t == 0 else int(steps[t - 1].state.pointers.count)
            frame = group.isel(frame=t)
            sizes = {"image": 49, "state": seen}
            q, k = (
                torch.from_numpy(frame[f"rotated_{side}"].values[:, :, : sizes[stream]]).double()
                for side, stream in zip(("query", "key"), kind_streams(kind), strict=True)
            )
            assert torch.isfinite(q).all()
            assert torch.isfinite(k).all()
            weights = (q @ k.mT / q.shape[-1] ** 0.5).softmax(dim=-1)
            entropy = torch.special.entr(weights).sum(dim=-1)
            here = frame["entropy"].values
            np.testing.assert_allclose(
                here[..., : entropy.shape[-1]], entropy, rtol=1e-4, atol=1e-5
            )
            assert np.isnan(here[..., entropy.shape[-1] :]).all()
            received = frame["received"].values
            np.testing.assert_allclose(
                received[..., : weights.shape[-1]], weights.mean(dim=-2), rtol=1e-4, atol=1e-6
            )


def test_weights_among_the_pointers_that_were_there_sum_to_one(stored, steps):
    group = m3.open_run(stored)["attention/image_to_state"].to_dataset()
    for t in (1, FRAMES - 1):
        seen = int(steps[t - 1].state.pointers.count)
        weights = group["weights"].isel(frame=t).values
        np.testing.assert_allclose(weights[..., :seen].sum(axis=-1), 1, rtol=1e-5)
        assert np.isnan(weights[..., seen:]).all()


def kind_streams(kind):
    return {
        "image_self": ("image", "image"),
        "image_to_state": ("image", "state"),
        "state_self": ("state", "state"),
        "state_to_image": ("state", "image"),
    }[kind]


def test_what_is_not_there_costs_nothing_and_the_plan_says_at_most(backbone, sequence, stored):
    capture = m3.Capture(sites="all", archive="float32", state=True, maps=["image_to_state"])
    plan = m3.plan(backbone, sequence, capture=capture)
    size = sum(file.stat().st_size for file in stored.rglob("*") if file.is_file())
    assert size <= plan.stored_bytes + 100  # what a run says of itself when it has finished


def test_a_cue_is_measured_and_gates_act_inside_the_frame(backbone, sequence):
    plain = quiet(backbone, sequence)
    cue = m3.Cue.mut3r()
    gated = quiet(backbone, sequence, cue=cue, gate=m3.Gate.mut3r())
    assert not np.array_equal(gated["prediction/pose"], plain["prediction/pose"])
    off = quiet(backbone, sequence, cue=cue, gate=m3.Gate.mut3r(beta=0))
    probe = quiet(backbone, sequence, cue=cue, gate=m3.Gate.mut3r(), commit="rw.pp")
    for same in (off, probe):
        assert np.array_equal(same["prediction/pose"], plain["prediction/pose"])
        assert np.array_equal(same["state/positions"], plain["state/positions"], equal_nan=True)
    written = quiet(backbone, sequence, cue=cue, gate=m3.Gate.mut3r(), commit="rw.gp")
    assert np.array_equal(written["state/positions"], plain["state/positions"], equal_nan=True)
    assert not np.array_equal(written["prediction/depth"], plain["prediction/depth"])


def test_holding_and_resetting_pointers(backbone, sequence):
    held = quiet(backbone, sequence, commit="hold", outputs=("pose",))
    assert not held["state/pointer_count"].values.any()
    anew = quiet(backbone, sequence, commit="rw.gg reset.2", outputs=("pose",))
    assert anew["state/pointer_count"].values.tolist()[1] == 0
    again = quiet(backbone, sequence.isel(frame=slice(2, 4)), outputs=("pose",))
    np.testing.assert_array_equal(
        anew["prediction/pose"].values[2:4], again["prediction/pose"].values
    )


def test_a_fork_that_changes_nothing_differs_by_nothing(backbone, sequence, stored):
    run = m3.open_run(stored)
    at = int(sequence["frame"][3])
    same = m3.fork(run, at, backbone=backbone, sequence=sequence)
    for name, distance in same.data_vars.items():
        assert not np.nan_to_num(distance.values).any(), name
    replayed = quiet(backbone, sequence)
    other = m3.fork(
        replayed, at, backbone=backbone, sequence=sequence, cue=m3.Cue.mut3r(),
        gate=m3.Gate.mut3r(),
    )  # fmt: skip
    assert other["state_distance"].sizes["pointer"] == int(run["state/pointer_count"][2])
    assert other["translation_distance"].values.all()


def test_what_needs_a_state_of_fixed_size_is_refused_by_name(backbone, sequence):
    cue = m3.Cue.mut3r()
    with pytest.raises(InvalidArgument, match=r"rate 'static_mass'.*point3r grows"):
        quiet(backbone, sequence, cue=cue, commit="rw.gg rate.static_mass")
    with pytest.raises(InvalidArgument, match="point3r grows, differently in each"):
        quiet(backbone, sequence, cue=cue, gate=m3.Gate.mut3r(), commit="mix(0.5)")
    with pytest.raises(InvalidArgument, match=r"write rate \(B3\)"):
        quiet(backbone, sequence, cue=cue, gate=m3.Gate(state_to_image="B3"))


def test_configurations_share_the_encoder_and_each_has_pointers_of_its_own(backbone, sequence):
    cue, gate = m3.Cue.mut3r(), m3.Gate.mut3r()
    both = m3.run_batch(backbone, sequence, [{}, {"cue": cue, "gate": gate}], progress=False)
    alone = quiet(backbone, sequence), quiet(backbone, sequence, cue=cue, gate=gate)
    for one, other in zip(both, alone, strict=True):
        for name in ("prediction/pose", "state/positions"):
            assert np.array_equal(one[name], other[name], equal_nan=True)
