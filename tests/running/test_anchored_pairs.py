"""Runs of a pair network as a streaming model: every frame beside an anchor."""

import numpy as np
import pytest
import torch

import mut3r_analysis as m3
from mut3r_analysis.backbones import Frame
from mut3r_analysis.backbones.geometry import pose_matrix
from mut3r_analysis.errors import InvalidArgument
from mut3r_analysis.widgets import AttentionExplorer

FRAMES = 5
VIEWS = ("view1_self", "view1_to_view2", "view2_self", "view2_to_view1")
DECODER = (*VIEWS, *(f"anchored_{kind}" for kind in VIEWS))
CAPTURE = m3.Capture(sites="all", archive="float32", state=True, maps=["view1_to_view2"])


@pytest.fixture(scope="module")
def backbone():
    return m3.load_backbone("random:dust3r-small", device="cpu")


@pytest.fixture(scope="module")
def sequence():
    generator = np.random.default_rng(0)
    opened = m3.open_sequence(generator.integers(0, 256, (FRAMES, 48, 64, 3), dtype=np.uint8))
    depth = generator.uniform(1, 4, (FRAMES, 48, 64)).astype(np.float32)
    pose = np.tile(np.eye(4), (FRAMES, 1, 1))
    pose[:, :3, 3] = generator.normal(size=(FRAMES, 3)).cumsum(axis=0)
    opened = opened.assign(depth=(("frame", "y", "x"), depth), pose=(("frame", "row", "col"), pose))
    return opened.assign_coords(frame=np.arange(FRAMES) + 10)


def quiet(*args, **kwargs):
    return m3.run(*args, progress=False, **kwargs)


@pytest.fixture(scope="module")
def steps(backbone, sequence):
    """Steps one by one, and queries and keys of their sites ``(layer, head, token, channel)``."""
    found, state = [], None
    for image in sequence["image"].values:
        seen = {}

        def probe(site, q, k, seen=seen):
            seen.setdefault(site.kind, []).append((q[0], k[0]))

        frame = Frame(torch.from_numpy(backbone.preparation.image(image))[None])
        step = backbone.step(frame, state, probe=probe)
        state = step.state
        stacked = {
            kind: tuple(torch.stack(side).double() for side in zip(*pairs, strict=True))
            for kind, pairs in seen.items()
        }
        found.append((step, stacked))
    return found


@pytest.fixture(scope="module")
def stored(backbone, sequence, tmp_path_factory):
    path = tmp_path_factory.mktemp("runs") / "anchored.zarr"
    quiet(backbone, sequence, capture=CAPTURE, out=path)
    return path


def test_predictions_are_those_of_the_steps(stored, steps):
    found = m3.open_run(stored)["prediction"].to_dataset()
    assert {"pose", "depth", "points_self", "points_world"} < set(found.data_vars)
    for t, (step, _) in enumerate(steps):
        own, frame = step.prediction, found.isel(frame=t)
        close = {"rtol": 1e-4, "atol": 1e-4}
        np.testing.assert_allclose(frame["points_self"], own.points_self[0], **close)
        np.testing.assert_allclose(frame["points_world"], own.points_world[0], **close)
        np.testing.assert_allclose(frame["depth"], own.points_self[0, ..., 2], **close)
        np.testing.assert_allclose(frame["pose"], pose_matrix(own.pose)[0], rtol=0, atol=1e-3)


def test_statistics_maps_and_archives_of_both_pairs(stored, steps):
    run = m3.open_run(stored)
    for kind in (*DECODER, "encoder_self"):
        group = run[f"attention/{kind}"].to_dataset()
        for t, (_, seen) in enumerate(steps):
            q, k = seen[kind]
            z = q @ k.mT / q.shape[-1] ** 0.5
            weights, frame = z.softmax(dim=-1), group.isel(frame=t)
            np.testing.assert_allclose(frame["rotated_query"], q, rtol=1e-4, atol=1e-4)
            np.testing.assert_allclose(
                frame["entropy"], torch.special.entr(weights).sum(dim=-1), rtol=1e-3, atol=1e-4
            )
            np.testing.assert_allclose(frame["received"], weights.mean(dim=-2), rtol=1e-3)
            np.testing.assert_allclose(
                frame["received_logit"], z.mean(dim=-2), rtol=1e-3, atol=1e-5
            )
            if kind == "view1_to_view2":
                np.testing.assert_allclose(frame["logits"], z, rtol=1e-3, atol=1e-5)
    for kind, roles in {
        "view1_to_view2": ({"patch"}, {"partner"}),
        "view2_to_view1": ({"partner"}, {"patch"}),
        "anchored_view1_to_view2": ({"partner"}, {"patch"}),
        "anchored_view2_self": ({"patch"}, {"patch"}),
    }.items():
        group = run[f"attention/{kind}"]
        assert (set(group["token"].values), set(group["key_token"].values)) == roles, kind


def test_weights_follow_from_the_archive(backbone, sequence, stored):
    full = m3.open_run(stored)["attention/view1_to_view2"].to_dataset()
    bare = m3.Capture(statistics=(), sites=["view1_to_view2"], archive="float32")
    group = quiet(backbone, sequence, capture=bare)["attention/view1_to_view2"].to_dataset()
    for name in ("entropy", "received", "received_logit"):
        np.testing.assert_allclose(group[name], full[name], rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(group["logits"], full["logits"], rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(group["weights"].sum("key"), 1, rtol=1e-5)


def test_the_state_is_the_anchor(stored, steps):
    state = m3.open_run(stored)["state"].to_dataset()
    assert state["anchor_frame"].values.tolist() == [0] * FRAMES
    assert state["frames_read"].values.tolist() == [1, 2, 3, 4, 5]
    for tokens in state["tokens"].values:
        np.testing.assert_allclose(tokens, steps[0][0].state.tokens[0], rtol=1e-5, atol=1e-5)
    assert state["write_rate"].mean("state_token").values.tolist() == [1, 0, 0, 0, 0]
    assert not state["update_size"][1:].any()
    assert set(state["token"].values) == {"partner"}


def test_the_plan_says_what_is_stored_to_5_percent(backbone, sequence, stored):
    plan = m3.plan(backbone, sequence, capture=CAPTURE)
    size = sum(file.stat().st_size for file in stored.rglob("*") if file.is_file())
    assert abs(size - plan.stored_bytes) <= 0.05 * plan.stored_bytes
    assert {"encoder", "decoder and memory", "heads"} <= set(plan.flops)


def test_every_frame_costs_two_decodings_and_one_encoding(backbone, sequence):
    linear = backbone.config
    patches, width = 48, linear.dec_embed_dim
    flops = m3.plan(backbone, sequence).flops["decoder and memory"]
    block = 2 * patches * width * width * (4 + 4 + 2 * linear.mlp_ratio)
    maps = 2 * 4 * patches * patches * width
    embedded = 2 * patches * linear.enc_embed_dim * width
    assert flops == 2 * 2 * (linear.dec_depth * (block + maps) + embedded)


def test_a_cue_reads_the_frame_at_hand_on_either_side(backbone, sequence, steps):
    for site, reading in (
        ("view1_self", "logit_key_mean"),
        ("view2_to_view1", "logit_query_mean"),
        ("anchored_view1_to_view2", "logit_query_mean"),
        ("anchored_view2_to_view1", "entropy"),
    ):
        run = quiet(backbone, sequence, cue=m3.Cue(site=site, reading=reading), outputs=())
        assert np.isfinite(run["cue/motion"].values).all()
        q, k = steps[3][1][site]
        z = q @ k.mT / q.shape[-1] ** 0.5
        expected = {
            "logit_key_mean": lambda z: z.mean(dim=-1),
            "logit_query_mean": lambda z: z.mean(dim=-2),
            "entropy": lambda z: torch.special.entr(z.softmax(-1)).sum(-1) / np.log(z.shape[-1]),
        }[reading](z).mean(dim=1)
        found = run[f"cue/{reading}"].values[3].reshape(expected.shape)
        np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-5)
    with pytest.raises(InvalidArgument, match="does not hold image patches"):
        m3.Cue(site="view1_to_view2", reading="logit_query_mean")


def test_the_part_of_easi3rs_cue_that_one_partner_tells(backbone, sequence, steps):
    run = quiet(backbone, sequence, cue=m3.Cue.easi3r(), outputs=())
    q, k = steps[2][1]["anchored_view1_to_view2"]
    mean = (q @ k.mT / q.shape[-1] ** 0.5).mean(dim=-2).mean(dim=(0, 1))
    expected = (mean.max() - mean) / (mean.max() - mean.min())
    np.testing.assert_allclose(run["cue/motion"][2].values.ravel(), expected, atol=1e-3)


def test_gates_and_commits_that_it_lacks_are_refused_by_name(backbone, sequence):
    cue = m3.Cue(site="view1_self")
    with pytest.raises(InvalidArgument, match=r"the gate names image_self.*lacks.*view1_self"):
        quiet(backbone, sequence, cue=cue, gate=m3.Gate.mut3r())
    with pytest.raises(InvalidArgument, match="the cue names image_self"):
        quiet(backbone, sequence, cue=m3.Cue.mut3r())
    with pytest.raises(InvalidArgument, match=r"mem.hold.*no pose memory"):
        quiet(backbone, sequence, cue=cue, commit="rw.gg mem.hold")
    with pytest.raises(InvalidArgument, match=r"rate 'ttt3r'.*no such share"):
        quiet(backbone, sequence, commit="rw.gg rate.ttt3r")


def test_resets_and_holds(backbone, sequence):
    anew = quiet(backbone, sequence, commit="rw.gg reset.2")
    assert anew["state/anchor_frame"].values.tolist() == [0, -1, 2, -1, 4]
    again = quiet(backbone, sequence.isel(frame=slice(2, 4)))
    np.testing.assert_array_equal(
        anew["prediction/points_world"].values[2:4], again["prediction/points_world"].values
    )
    held = quiet(backbone, sequence, commit="hold")
    assert held["state/anchor_frame"].values.tolist() == [-1] * FRAMES
    alone = quiet(backbone, sequence.isel(frame=slice(3, 4)))
    np.testing.assert_array_equal(
        held["prediction/points_self"].values[3], alone["prediction/points_self"].values[0]
    )


def test_configurations_share_the_encoder_and_each_has_its_own_anchor(backbone, sequence):
    configurations = [{}, {"commit": "rw.gg reset.2"}, {"cue": m3.Cue(site="view1_self")}]
    together = m3.run_batch(backbone, sequence, configurations, progress=False)
    for run, configuration in zip(together, configurations, strict=True):
        alone = quiet(backbone, sequence, **configuration)
        for name in ("points_world", "pose"):
            np.testing.assert_allclose(
                run[f"prediction/{name}"], alone[f"prediction/{name}"], rtol=1e-3, atol=1e-3
            )
        assert np.array_equal(run["state/anchor_frame"], alone["state/anchor_frame"])


def test_forks_go_on_from_the_kept_anchor(backbone, sequence, stored):
    run = m3.open_run(stored)
    same = m3.fork(run, 12, backbone=backbone, sequence=sequence)
    for name in ("state_distance", "translation_distance", "depth_distance"):
        assert not same[name].any(), name
    assert same.sizes["state_token"] == run["state"].sizes["state_token"]
    content = sequence.copy(deep=True)
    content["image"].values[3:] = 255 - content["image"].values[3:]
    forked = m3.fork(
        run, 13, backbone=backbone, sequence=sequence, content=content, outputs=("points_world",)
    )
    other = quiet(backbone, m3.open_sequence(content["image"].values))
    own = run["prediction/points_world"].values
    expected = np.linalg.norm(other["prediction/points_world"].values - own, axis=-1)[3:]
    np.testing.assert_allclose(forked["points_distance"], expected, rtol=1e-3, atol=1e-4)
    assert not forked["state_distance"].any()


def test_scores_of_depth_and_pose(stored):
    scores = m3.evaluate(m3.open_run(stored), protocol="default")
    for name in ("abs_rel", "ate"):
        assert np.isfinite(scores[name].values).any(), name


def test_an_explorer_shows_sites_of_the_frame_at_hand(stored):
    explorer = AttentionExplorer(m3.open_run(stored))
    shown = [site["name"] for site in explorer.held["sites"]]
    assert shown == ["view1_self", "anchored_view2_self", "encoder_self"]


def test_frames_higher_than_wide_run_as_they_are(backbone):
    images = np.random.default_rng(1).integers(0, 256, (2, 64, 48, 3), dtype=np.uint8)
    run = quiet(backbone, m3.open_sequence(images))
    assert run["prediction/points_world"].shape == (2, 64, 48, 3)


def changed(run, plain, name="points_self") -> list[bool]:
    pairs = zip(run[f"prediction/{name}"].values, plain[f"prediction/{name}"].values, strict=True)
    return [not np.array_equal(a, b) for a, b in pairs]


@pytest.mark.parametrize("site", DECODER)
def test_a_gate_acts_at_each_site_that_holds_patches_of_the_frame(backbone, sequence, stored, site):
    plain, cue = m3.open_run(stored), m3.Cue(site="view1_self")
    names = {"view1_self": "C1", "view1_to_view2": "A1", "view2_to_view1": "B1",
             "anchored_view1_to_view2": "B5", "anchored_view2_self": "C3",
             "anchored_view2_to_view1": "A5"}  # fmt: skip
    if site not in names:
        with pytest.raises(InvalidArgument, match=f"must be one of .*view1_self.*got '{site}'"):
            m3.Gate.at({site: "key_bias"})
        return
    gate = m3.Gate.at({site: names[site]}, beta=2)
    run = quiet(backbone, sequence, cue=cue, gate=gate)
    other = "points_self" if site.startswith("anchored") else "points_world"
    own = {"points_self": "points_world", "points_world": "points_self"}[other]
    assert all(changed(run, plain, own))
    assert not any(changed(run, plain, other))
    assert m3.Gate.from_json(run.attrs["gate"]) == gate
    off = quiet(backbone, sequence, cue=cue, gate=m3.Gate.at({site: names[site]}, layers=(0, 0)))
    assert not any(changed(off, plain, own))


def test_a_gate_computes_what_its_formula_says(backbone, sequence, steps):
    """Weights of anchor queries on dynamic keys are left out, not renormalised."""
    written = {}

    def look(site, q, k, v, out):
        if str(site) == "anchored_view1_to_view2.0":
            written.setdefault("v", []).append(v[0])
            written.setdefault("out", []).append(out[0])

    cue, gate = m3.Cue.easi3r(), m3.Gate.easi3r(sites=["anchored_view1_to_view2"])
    run = quiet(backbone, sequence, cue=cue, gate=gate, probe=look)
    t = 2
    q, k = (side[0].float() for side in steps[t][1]["anchored_view1_to_view2"])
    static = torch.from_numpy(run["cue/motion"].values[t].ravel() < 0.5)
    assert 0 < static.sum() < len(static)
    weights = (q @ k.mT / q.shape[-1] ** 0.5).softmax(dim=-1) * static
    torch.testing.assert_close(written["out"][t], weights @ written["v"][t], atol=1e-4, rtol=1e-3)


def test_gated_configurations_in_a_batch_are_those_alone(backbone, sequence):
    cue = m3.Cue(site="view1_self")
    gates = [m3.Gate.at({"view1_self": "C1"}), m3.Gate.at({"view2_to_view1": "B2"}, beta=3)]
    configurations = [{"cue": cue, "gate": gate} for gate in gates]
    for run, configuration in zip(
        m3.run_batch(backbone, sequence, configurations, progress=False),
        configurations,
        strict=True,
    ):
        alone = quiet(backbone, sequence, **configuration)
        np.testing.assert_allclose(
            run["prediction/points_self"], alone["prediction/points_self"], rtol=1e-3, atol=1e-3
        )


def test_reading_the_probe_pass_of_a_gated_run_is_the_plain_run(backbone, sequence, stored):
    gate = m3.Gate.at({"view1_self": "C1"}, beta=2)
    run = quiet(backbone, sequence, cue=m3.Cue(site="view1_self"), gate=gate, commit="rw.pp")
    assert not any(changed(run, m3.open_run(stored)))
