"""Runs of a model that keeps the keys and values of all frames: VGGT, frame by frame."""

import numpy as np
import pytest
import torch

import mut3r_analysis as m3
from mut3r_analysis.attention import SITE_KINDS, logits
from mut3r_analysis.backbones import Frame
from mut3r_analysis.errors import InvalidArgument

FRAMES = 4
TOKENS = 17
KINDS = ("frame_self", "global_self")
CAPTURE = m3.Capture(sites=KINDS, archive="float32", maps=["global_self"], layers=[0, 3])


@pytest.fixture(scope="module")
def backbone():
    return m3.load_backbone("random:vggt-small", device="cpu")


@pytest.fixture(scope="module")
def sequence():
    images = np.random.default_rng(0).integers(0, 256, (FRAMES, 42, 56, 3), dtype=np.uint8)
    return m3.open_sequence(images).assign_coords(frame=np.arange(FRAMES) + 10)


def quiet(*args, **kwargs):
    return m3.run(*args, progress=False, **kwargs)


@pytest.fixture(scope="module")
def steps(backbone, sequence):
    """Steps one by one, and queries and keys at their sites ``(layer, head, token, channel)``."""
    found, state = [], None
    for image in sequence["image"].values:
        seen = {}

        def probe(site, q, k, seen=seen):
            seen.setdefault(site.kind, []).append((q[0], k[0]))

        given = Frame(torch.from_numpy(backbone.preparation.image(image))[None])
        step = backbone.step(given, state, probe=probe)
        state = step.state
        found.append((step, seen))
    return found


@pytest.fixture(scope="module")
def stored(backbone, sequence, tmp_path_factory):
    path = tmp_path_factory.mktemp("runs") / "caches.zarr"
    quiet(backbone, sequence, capture=CAPTURE, out=path)
    return path


def test_predictions_are_those_of_steps(stored, steps):
    found = m3.open_run(stored)["prediction"].to_dataset()
    for t, (step, _) in enumerate(steps):
        prediction = step.prediction
        for name, values in {
            "points_world": prediction.points_world,
            "confidence_self": prediction.confidence_self,
            "depth": prediction.points_self[..., 2],
        }.items():
            np.testing.assert_allclose(found[name][t], values[0], rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(found["pose"][t, :3, 3], prediction.pose[0, :3], rtol=1e-4,
                                   atol=1e-5)  # fmt: skip


def test_keys_stand_by_the_frame_they_come_from(stored, steps):
    group = m3.open_run(stored)["attention/global_self"].to_dataset()
    assert group["key_frame"].values.tolist() == list(range(10, 10 + FRAMES))
    roles = ["camera", *["register"] * 4, *["cached"] * 12]
    assert group["key_token"].values.tolist() == roles
    assert group["token"].values.tolist() == [*roles[:5], *["patch"] * 12]
    for t, (_, seen) in enumerate(steps):
        for place, layer in enumerate((0, 3)):
            q, k = seen["global_self"][layer]
            z = logits(q, k)
            weights = z.softmax(dim=-1)
            frame = group.isel(frame=t, layer=place)
            there = slice(0, t + 1)
            keys = k.unflatten(1, (t + 1, TOKENS))
            np.testing.assert_allclose(frame["rotated_key"][:, there], keys, rtol=1e-4, atol=1e-5)
            np.testing.assert_allclose(
                frame["logits"][:, :, there], z.unflatten(-1, (t + 1, TOKENS)), rtol=1e-4, atol=1e-4
            )
            np.testing.assert_allclose(
                frame["received"][:, there],
                weights.mean(dim=-2).unflatten(-1, (t + 1, TOKENS)),
                rtol=1e-3, atol=1e-6,
            )  # fmt: skip
            np.testing.assert_allclose(
                frame["entropy"], torch.special.entr(weights).sum(dim=-1), rtol=1e-3, atol=1e-4
            )
            for name in ("received", "rotated_key"):
                assert np.isnan(frame[name][:, t + 1 :]).all(), name


def test_what_follows_from_the_archive_and_the_maps_agrees(stored, steps):
    group = m3.open_run(stored)["attention/global_self"].to_dataset()
    weights = group["weights"].isel(layer=0, frame=2)
    np.testing.assert_allclose(weights.sum(["key_frame", "key"]), 1, rtol=1e-5)
    own = group["weights"].sel(key_frame=12).isel(frame=2, layer=0).sum("key")
    q, k = steps[2][1]["global_self"][0]
    expected = logits(q, k).softmax(dim=-1)[..., -TOKENS:].sum(dim=-1)
    np.testing.assert_allclose(own, expected, rtol=1e-3)


def test_statistics_of_a_frame_alone(stored, steps):
    group = m3.open_run(stored)["attention/frame_self"].to_dataset()
    for t, (_, seen) in enumerate(steps):
        q, k = seen["frame_self"][3]
        weights = logits(q, k).softmax(dim=-1)
        found = group["received"].isel(frame=t, layer=1)
        np.testing.assert_allclose(found, weights.mean(dim=-2), rtol=1e-3, atol=1e-6)


def test_the_state_says_which_frames_are_cached_and_the_caches_are_not_stored(
    backbone, sequence, stored
):
    state = m3.open_run(stored)["state"].to_dataset()
    assert state["cached_frame_count"].values.tolist() == [1, 2, 3, 4]
    assert state["origin_frame"].values[-1].tolist() == [0, 1, 2, 3]
    assert state["write_rate"].values[2, :3].tolist() == [0, 0, 1]
    kept = quiet(backbone, sequence, capture=m3.Capture(statistics=(), sites=(), state=True))
    assert set(kept["state"].data_vars) == set(state.data_vars)
    with pytest.raises(InvalidArgument, match="not stored"):
        backbone.restore({}, 1, None)


def test_the_plan_says_what_is_stored(backbone, sequence, stored):
    plan = m3.plan(backbone, sequence, capture=CAPTURE)
    shapes = {item.path: (item.dims, item.shape) for item in plan.variables}
    assert shapes["/attention/global_self/received"] == (
        ("frame", "layer", "head", "key_frame", "key"), (FRAMES, 2, 4, FRAMES, TOKENS),
    )  # fmt: skip
    assert {"encoder", "decoder and memory", "heads"} <= set(plan.flops)
    # Of what grows the plan knows the most; a run without it is priced exactly.
    less = m3.Capture(sites=["frame_self"])
    size = stored.parent / "less.zarr"
    quiet(backbone, sequence, capture=less, out=size)
    found = sum(file.stat().st_size for file in size.rglob("*") if file.is_file())
    assert found == pytest.approx(m3.plan(backbone, sequence, capture=less).stored_bytes, rel=0.05)
    assert sum(f.stat().st_size for f in stored.rglob("*") if f.is_file()) <= plan.stored_bytes + 99


@pytest.mark.parametrize("site", KINDS)
def test_a_cue_reads_frame_and_global_sites(backbone, sequence, steps, site):
    run = quiet(backbone, sequence, cue=m3.Cue(reading="logit_key_mean", site=site, layers=(1, 3)))
    assert np.isfinite(run["cue/motion"].values).all()
    for t, (_, seen) in enumerate(steps):
        for place, layer in enumerate((1, 2)):
            mean = logits(*seen[site][layer]).mean(dim=(0, -1))[5:]
            raw = run["cue/logit_key_mean"].values[t, place]
            np.testing.assert_allclose(raw.ravel(), mean, rtol=1e-3, atol=1e-5)


def test_what_it_lacks_is_refused_by_name(backbone, sequence):
    cue = m3.Cue(site="frame_self")
    for gate in (m3.Gate.mut3r(), m3.Gate(image_self=None, image_to_state=None)):
        with pytest.raises(
            InvalidArgument, match=r"gate names .*state_to_image.*lacks.*global_self"
        ):
            quiet(backbone, sequence, cue=cue, gate=gate)
    with pytest.raises(InvalidArgument, match="the cue names image_self"):
        quiet(backbone, sequence, cue=m3.Cue.mut3r())
    with pytest.raises(InvalidArgument, match="capture names state_to_image"):
        quiet(backbone, sequence, capture=m3.Capture(sites=["state_to_image"]))
    with pytest.raises(InvalidArgument, match="does not hold image patches"):
        m3.Cue(site="global_self", reading="received")
    with pytest.raises(InvalidArgument, match=r"pose_complement.*use one of image_self$"):
        m3.Cue(site="frame_self", reading="pose_complement")
    with pytest.raises(InvalidArgument, match=r"mem.hold.*no pose memory"):
        quiet(backbone, sequence, cue=cue, commit="rw.gg mem.hold")
    assert SITE_KINDS["global_self"].keys == "frames"


@pytest.mark.parametrize(
    ("site", "realisation"), [("frame_self", "hard"), ("global_self", "output_scale")]
)
def test_gates_act_where_its_frames_are(backbone, sequence, site, realisation):
    cue = m3.Cue(reading="logit_key_mean", site="frame_self")
    gates = (m3.Gate.at({site: realisation}), m3.Gate.at({site: realisation}, layers=(0, 0)), None)
    acts, empty, none = (
        quiet(backbone, sequence, cue=cue, gate=gate, outputs=("depth",))["prediction/depth"].values
        for gate in gates
    )
    np.testing.assert_array_equal(empty, none)
    assert (acts != none).any(axis=(1, 2)).all()


def test_holding_and_resetting_the_caches(backbone, sequence):
    bare = quiet(backbone, sequence, commit="hold", outputs=("pose",))
    assert not bare["state/cached_frame_count"].values.any()
    anew = quiet(backbone, sequence, commit="rw.gg reset.2", outputs=("points_world",))
    again = quiet(backbone, sequence.isel(frame=slice(2, None)), outputs=("points_world",))
    np.testing.assert_array_equal(
        anew["prediction/points_world"].values[2:], again["prediction/points_world"].values
    )
    assert anew["state/origin_frame"].values[2, 0] == 2


def test_configurations_share_the_encoder_and_each_has_caches_of_its_own(backbone, sequence):
    configurations = [{}, {"cue": m3.Cue(site="frame_self"), "commit": "hold"}]
    runs = m3.run_batch(
        backbone, sequence, configurations, outputs=("points_world",), progress=False
    )
    for run, configuration in zip(runs, configurations, strict=True):
        alone = quiet(backbone, sequence, outputs=("points_world",), **configuration)
        name = "prediction/points_world"
        assert np.array_equal(run[name], alone[name])


@pytest.mark.parametrize("at", [0, 2])
def test_a_fork_that_changes_nothing_differs_by_nothing(backbone, sequence, stored, at):
    run = m3.open_run(stored)
    same = m3.fork(run, 10 + at, backbone=backbone, sequence=sequence)
    assert {"depth_distance", "translation_distance"} <= set(same)
    assert all(not distance.values.any() for distance in same.data_vars.values())
    held = m3.fork(run, 10 + at, backbone=backbone, sequence=sequence, commit="hold")
    assert not held["depth_distance"].values[0].any()
    assert held["depth_distance"].values[1:].any()
