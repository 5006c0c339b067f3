"""Runs of pairs: graphs, predictions and attention per pair, masks, gates, stores."""

from dataclasses import replace

import numpy as np
import pytest
import torch

import mut3r_analysis as m3
from mut3r_analysis.attention.seam import observed
from mut3r_analysis.backbones import DUSt3R, DUSt3RConfig, Frame, Preparation
from mut3r_analysis.errors import (
    AlreadyExists,
    BudgetExceeded,
    InvalidArgument,
    MissingFile,
    StoreError,
)
from mut3r_analysis.running import pair_edges

VIEWS = ("view1_self", "view1_to_view2", "view2_self", "view2_to_view1")
CUE, GATE = m3.PairCue.easi3r(clusters=24), m3.PairGate.easi3r()
CAPTURE = m3.Capture(archive="float32", maps=["view2_self"], head_outputs=["view1_to_view2"])


def quiet(*args, **kwargs):
    return m3.run_pairs(*args, progress=False, **kwargs)


@pytest.fixture(scope="module")
def backbone():
    return m3.load_backbone("random:dust3r-small", device="cpu")


@pytest.fixture(scope="module")
def sequence():
    opened = m3.open_sequence("scenes/orbit-03", stop=4)
    return opened.assign_coords(frame=np.arange(4) + 20)


@pytest.fixture(scope="module")
def plain(backbone, sequence):
    return quiet(backbone, sequence, capture=CAPTURE)


@pytest.fixture(scope="module")
def gated(backbone, sequence, tmp_path_factory):
    place = tmp_path_factory.mktemp("pairs") / "gated.zarr"
    return quiet(backbone, sequence, cue=CUE, gate=GATE, capture=CAPTURE, out=place), place


def decoded(backbone, sequence, a, b, **changes):
    frames = [
        backbone.encode(
            Frame(torch.from_numpy(backbone.preparation.image(sequence["image"].values[n]))[None])
        )
        for n in (a, b)
    ]
    return backbone.decode_pair(*frames, **changes)


def test_every_pair_is_what_the_model_makes_of_it(backbone, sequence, plain):
    found = plain["prediction"].to_dataset()
    assert found.sizes["pair"] == 12
    for a, b in ((0, 1), (3, 1)):
        chosen = found.sel(view1=20 + a, view2=20 + b)
        pair = decoded(backbone, sequence, a, b)
        for name, values in vars(pair).items():
            assert np.array_equal(chosen[name], values[0]), name
    assert all(
        {"long_name", "units", "source"} <= set(variable.attrs) for variable in found.values()
    )


def test_attention_of_every_pair(backbone, sequence, plain):
    seen = {}

    def look(site, q, k):
        seen.setdefault(site.kind, []).append((q[0], k[0]))

    decoded(backbone, sequence, 2, 0, probe=look)
    for kind in VIEWS:
        pair = plain[f"attention/{kind}"].to_dataset().sel(view1=22, view2=20)
        q, k = (torch.stack(side).double() for side in zip(*seen[kind], strict=True))
        z = q @ k.mT / q.shape[-1] ** 0.5
        np.testing.assert_allclose(pair["received_logit"], z.mean(dim=-2), rtol=1e-3, atol=1e-5)
        np.testing.assert_allclose(pair["logits"], z, rtol=1e-3, atol=1e-5)
        np.testing.assert_allclose(pair["weights"], z.softmax(dim=-1), rtol=1e-3)
        np.testing.assert_array_equal(pair["rotated_query"], q.float())
    assert "output_norm" in plain["attention/view1_to_view2"]
    roles = plain["attention/view1_to_view2"]
    assert set(roles["token"].values) == {"patch"}
    assert set(roles["key_token"].values) == {"partner"}


def test_a_cue_alone_changes_nothing_and_is_the_one_of_the_probe_pass(
    backbone, sequence, plain, gated
):
    cued = quiet(backbone, sequence, cue=CUE)
    both, _ = gated
    assert cued["prediction"].to_dataset().equals(plain["prediction"].to_dataset())
    assert cued["cue"].to_dataset().equals(both["cue"].to_dataset())
    assert "cue_gated" not in cued
    found = cued["cue"].to_dataset()
    k1 = plain["attention/view1_to_view2/received_logit"]
    own = k1.values[k1["view2"].values == 21].reshape(3, 4, 3, 6, 8)
    mean = np.moveaxis(own.mean(axis=0), (0, 1), (2, 3))
    np.testing.assert_allclose(
        found["mean_view2"].sel(frame=21).values[1:], mean[1:], rtol=1e-4, atol=1e-6
    )
    k2 = plain["attention/view2_to_view1/received_logit"]
    own = k2.values[k2["view1"].values == 21].reshape(3, 4, 3, 6, 8)
    std = np.moveaxis(own.std(axis=0, ddof=1), (0, 1), (2, 3))
    np.testing.assert_allclose(
        found["std_view1"].sel(frame=21).values[1:], std[1:], rtol=1e-3, atol=1e-6
    )


def test_the_mask_gates_the_second_pass(backbone, sequence, plain, gated):
    both, _ = gated
    cells = both["cue/motion"]
    assert 0 < float(cells.mean()) < 1
    size = backbone.patch_size
    pooled = both["cue/mask"].values.reshape(4, 6, size, 8, size).any(axis=(2, 4))
    np.testing.assert_array_equal(cells.values.astype(bool), pooled)
    # Of the first layer queries and keys are those of the plain pass; only the weights differ.
    kind = "attention/view1_to_view2"
    pair = {"view1": 21, "view2": 23}
    q, k = (plain[f"{kind}/rotated_{side}"].sel(pair).values[0] for side in ("query", "key"))
    weights = torch.from_numpy(q @ k.swapaxes(-1, -2) / q.shape[-1] ** 0.5).softmax(dim=-1)
    queries, keys = (cells.sel(frame=frame).values.ravel() > 0.5 for frame in (21, 23))
    kept = weights * torch.from_numpy(queries[:, None] | ~keys[None])
    values = {}

    def look(site, q, k, v, out):
        if site.kind == "view1_to_view2" and site.layer == 0:
            values["v"] = v[0]

    decoded(backbone, sequence, 1, 3, gate=observed(None, look))
    norm = (kept @ values["v"]).norm(dim=-1)
    np.testing.assert_allclose(both[f"{kind}/output_norm"].sel(pair)[0], norm, rtol=1e-3, atol=1e-5)
    changed = both["prediction/points_view1"] - plain["prediction/points_view1"]
    assert np.abs(changed).max() > 1e-3
    assert not both["cue"]["dynamic"].equals(both["cue_gated"]["dynamic"])


def test_the_pass_that_is_read_is_the_commits(backbone, sequence, plain):
    probe = quiet(backbone, sequence, cue=CUE, gate=GATE, commit="rw.pp", capture=CAPTURE)
    assert probe["prediction"].to_dataset().equals(plain["prediction"].to_dataset())
    for kind in VIEWS:
        assert probe[f"attention/{kind}/entropy"].equals(plain[f"attention/{kind}/entropy"])
    assert "cue_gated" in probe


def test_a_mask_of_the_sequence_gates_as_well(backbone, sequence, plain):
    oracle = m3.Cue.oracle(pool="max")
    run = quiet(backbone, sequence, cue=oracle, gate=GATE)
    mask = np.stack([backbone.preparation.mask(each) for each in sequence["motion_mask"].values])
    size = backbone.patch_size
    cells = mask.reshape(4, 6, size, 8, size).any(axis=(2, 4))
    assert cells.any()
    np.testing.assert_array_equal(run["cue/motion"].values.astype(bool), cells)
    moved = [frame for frame in range(4) if cells[frame].any()]
    pair = {"view1": 20 + (moved[0] + 1) % 4, "view2": 20 + moved[0]}
    assert not np.array_equal(
        run["prediction/points_view1"].sel(pair), plain["prediction/points_view1"].sel(pair)
    )
    still = sequence.assign(motion_mask=sequence["motion_mask"] & False)
    run = quiet(backbone, still, cue=oracle, gate=GATE)
    assert run["prediction"].to_dataset().equals(plain["prediction"].to_dataset())


def test_the_official_pairs_and_maps(golden):
    settings = golden.settings("dust3r")
    values = settings["tiny"]["dpt"] | settings["dpt_widths_overridden_for_size"]
    model = DUSt3R(DUSt3RConfig.from_dict(values))
    model.load_state_dict(golden.weights("dust3r/weights_dpt"))
    model.eval().requires_grad_(False)
    expected = golden.arrays("easi3r/cue")
    images = expected["images_uint8"]
    model.preparation = Preparation(max(images.shape[1:3]))
    edges = [tuple(edge) for edge in expected["edges"].tolist()]
    run = quiet(model, m3.open_sequence(images), graph=edges, cue=m3.PairCue.easi3r(clusters=12))
    found = run["cue"].to_dataset()
    np.testing.assert_allclose(found["dynamic"], expected["dynamic_map"], rtol=0, atol=5e-5)
    for ours, name in (("mean_view2", "mu1"), ("std_view2", "sd1"),
                       ("mean_view1", "mu2"), ("std_view1", "sd2")):  # fmt: skip
        stacked = found[ours].values.reshape(expected[name].shape)
        np.testing.assert_allclose(stacked, expected[name], rtol=0, atol=2e-5)
        np.testing.assert_allclose(found[f"fused_{ours}"], expected[f"{name}_fused"], rtol=0,
                                   atol=5e-5)  # fmt: skip
    confidence = run["prediction/confidence_view1"].sel(view1=0, view2=1)
    plain = golden.arrays("easi3r/second_pass")["unmasked_conf"][0]
    np.testing.assert_allclose(confidence, plain, rtol=0, atol=1e-5)


def test_a_store_opens_as_what_was_run(gated):
    run, place = gated
    again = m3.open_pairs(place)
    for path, node in run.subtree_with_keys:
        if node.variables:
            assert again[path].to_dataset().equals(node.to_dataset()), path
    assert again.attrs["graph"] == "complete"
    assert m3.PairCue.from_json(again.attrs["cue"]) == CUE
    assert m3.PairGate.from_json(again.attrs["gate"]) == GATE
    assert not list(place.parent.glob("*.partial"))


def test_what_is_no_store_of_pairs_is_told(backbone, sequence, gated, tmp_path):
    with pytest.raises(MissingFile, match="no run of pairs"):
        m3.open_pairs(tmp_path / "nothing.zarr")
    (tmp_path / "empty").mkdir()
    with pytest.raises(StoreError, match="not the store of a run of pairs"):
        m3.open_pairs(tmp_path / "empty")
    m3.run(backbone, sequence, out=tmp_path / "stream.zarr", progress=False, outputs=("pose",))
    with pytest.raises(StoreError, match="opened by open_run"):
        m3.open_pairs(tmp_path / "stream.zarr")
    _, place = gated
    with pytest.raises(AlreadyExists, match=r"gated.zarr exists"):
        quiet(backbone, sequence, out=place)


# Graphs


def both(edges):
    return {*edges, *((b, a) for a, b in edges)}


@pytest.mark.parametrize(
    ("graph", "frames", "expected"),
    [
        ("complete", 3, {(0, 1), (0, 2), (1, 2)}),
        ("swin-1-noncyclic", 4, {(0, 1), (1, 2), (2, 3)}),
        ("swin-1", 4, {(0, 1), (1, 2), (2, 3), (0, 3)}),
        ("swin-2-noncyclic", 4, {(0, 1), (0, 2), (1, 2), (1, 3), (2, 3)}),
        ("swinstride-2-noncyclic", 5, {(0, 1), (1, 2), (2, 3), (3, 4), (0, 3), (1, 4)}),
        ("swin2stride-2-noncyclic", 5, {(0, 1), (1, 2), (2, 3), (3, 4), (0, 4)}),
        ("logwin-2-noncyclic", 4, {(0, 1), (1, 2), (2, 3), (0, 2), (1, 3)}),
        ("oneref-1", 3, {(0, 1), (1, 2)}),
        ("oneref", 3, {(0, 1), (0, 2)}),
        ("swin-9", 3, {(0, 1), (0, 2), (1, 2)}),
    ],
)
def test_graphs_hold_every_pair_both_ways(graph, frames, expected):
    edges = pair_edges(graph, frames)
    assert len(edges) == len(set(edges))
    assert set(edges) == both(expected)
    half = len(edges) // 2
    assert edges[half:] == [(b, a) for a, b in edges[:half]]


def test_the_official_graph_of_the_cue(golden):
    edges = golden.arrays("easi3r/cue")["edges"].tolist()
    frames = max(map(max, edges)) + 1
    assert set(pair_edges("swin-2-noncyclic", frames)) == {tuple(edge) for edge in edges}


def test_given_pairs_are_taken_as_they_are(backbone, sequence):
    run = quiet(backbone, sequence, graph=[(2, 0), (1, 1)])
    assert run["prediction/view1"].values.tolist() == [22, 21]
    assert run["prediction/view2"].values.tolist() == [20, 21]


@pytest.mark.parametrize(
    ("graph", "message"),
    [
        ("full", "unknown graph of pairs 'full'; known: complete"),
        ("swim-3", "did you mean 'swin-3'?"),
        ("complete-3", "unknown graph"),
        ("swin--1", "unknown graph"),
        ("oneref-9", "names frame 9, and the last one is 3"),
        ([(0, 4)], r"positions of two frames, from 0 to 3.*\(0, 4\)"),
        ([(0, 1, 2)], "positions of two frames"),
        ([], "positions of two frames"),
        (3, "positions of two frames"),
    ],
)
def test_graphs_that_cannot_be_are_refused(graph, message):
    with pytest.raises(InvalidArgument, match=message):
        pair_edges(graph, 4)


# What is refused before the first frame


@pytest.fixture
def untouched(backbone, monkeypatch):
    def encode(*args, **kwargs):
        raise AssertionError("a frame was encoded")

    monkeypatch.setattr(backbone, "encode", encode)
    return backbone


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"gate": GATE}, "a gate needs masks"),
        ({"cue": CUE, "gate": m3.Gate.mut3r()}, "the gate of pairs must be a PairGate"),
        ({"cue": m3.Cue(site="view1_self")}, "a cue of pairs is PairCue.easi3r"),
        ({"cue": m3.Cue.oracle(control="invert")}, "or a mask of the sequence as it is"),
        ({"cue": m3.Cue.oracle("shadow")}, "mask 'shadow', which this sequence lacks"),
        ({"cue": "easi3r"}, "a cue of pairs is a PairCue or a mask"),
        ({"cue": CUE, "commit": "rw.gp"}, "pairs have no state"),
        ({"cue": CUE, "graph": "oneref-0"}, r"positions \[1, 2, 3\] are view 1 of fewer than 2"),
        ({"capture": m3.Capture(sites=["encoder_self"])}, "encoder_self, which pairs do not have"),
        ({"capture": m3.Capture(state=True)}, "frames or a state, which pairs do not have"),
        ({"graph": "full"}, "unknown graph"),
    ],
)
def test_what_pairs_cannot_do_is_refused(untouched, sequence, changes, message):
    with pytest.raises(InvalidArgument, match=message):
        quiet(untouched, sequence, **changes)


def test_what_pairs_hold_is_known_before_the_first_frame(untouched, sequence, plain):
    held = sum(plain["prediction"].to_dataset()[name].nbytes for name in plain["prediction"])
    stored = {"logits", "rotated_query", "rotated_key", "output_norm", *m3.Capture().statistics}
    for kind in VIEWS:
        group = plain[f"attention/{kind}"].to_dataset()
        own = stored - ({"logits"} if kind != "view2_self" else set())
        held += sum(group[name].nbytes for name in own & set(group.data_vars))
    for budget, refused in ((held - 1, BudgetExceeded), (held, AssertionError)):
        capture = replace(CAPTURE, budget=budget)
        with pytest.raises(refused, match=f"would hold {held:,}|a frame was encoded"):
            quiet(untouched, sequence, capture=capture)


def test_models_of_streams_and_single_frames_are_refused(untouched, sequence):
    with pytest.raises(InvalidArgument, match=r"cut3r reads.*no pairs.*random:dust3r-small"):
        quiet(m3.load_backbone("random:small"), sequence)
    with pytest.raises(InvalidArgument, match="a pair needs two frames, and the sequence has 1"):
        quiet(untouched, sequence.isel(frame=slice(1)))
    with pytest.raises(InvalidArgument, match=r"positions \[0, 1\] are view 1 of fewer than 2"):
        quiet(untouched, sequence.isel(frame=slice(2)), cue=CUE)
