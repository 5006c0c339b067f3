"""Runs with cues, gates and commits: identities, causality, isolation, siblings."""

import json

import numpy as np
import pytest
import xarray as xr

import mut3r_analysis as m3
from mut3r_analysis.errors import BudgetExceeded, InvalidArgument
from mut3r_analysis.motion import SOURCES

FRAMES = 4
CUE, GATE = m3.Cue.mut3r(), m3.Gate.mut3r()
CAPTURE = m3.Capture(statistics=["entropy"], sites=["image_self"], state=True)
SOURCE_FORMS = {"two_pass_cut": "two_pass_cut(2)", "previous_ema": "previous_ema(0.5)",
                "iterate": "iterate(2)"}  # fmt: skip


@pytest.fixture(scope="module")
def backbone():
    return m3.load_backbone("random:small", device="cpu")


@pytest.fixture(scope="module")
def sequence():
    make = np.random.default_rng(0)
    frames = make.integers(0, 256, (FRAMES, 60, 80, 3), dtype=np.uint8)
    sequence = m3.open_sequence(frames, name="noise")
    mask = np.zeros((FRAMES, 60, 80), bool)
    mask[:, 10:30, 20:50] = True
    return sequence.assign(motion_mask=(("frame", "y", "x"), mask))


@pytest.fixture(scope="module")
def run(backbone, sequence):
    def run(*, update=None, capture=CAPTURE, **how):
        model = backbone if update is None else m3.load_backbone(
            "random:small", device="cpu", update=update
        )  # fmt: skip
        return m3.run(model, sequence, progress=False, capture=capture, **how)

    return run


@pytest.fixture(scope="module")
def plain(run):
    return run()


def differences(one: xr.DataTree, other: xr.DataTree, *groups: str) -> set[str]:
    """Variables of some groups that are not the same bit for bit."""
    return {
        f"{node.path}/{name}"
        for group in groups
        for node in one[group].subtree
        for name, values in node.to_dataset(inherit=False).data_vars.items()
        if not np.array_equal(values, other[node.path][name], equal_nan=True)
    }


EVERYTHING = ("prediction", "state", "attention")


@pytest.mark.parametrize(
    "how",
    [
        {"cue": CUE},
        {"cue": CUE, "gate": m3.Gate.mut3r(beta=0)},
        {"cue": CUE, "gate": m3.Gate(layers=(2, 2))},
        {"cue": CUE, "gate": m3.Gate.mut3r(directions=["image_to_state"], image_to_state="A0")},
        {"cue": CUE, "gate": GATE, "commit": "rw.pp"},
        {"cue": CUE, "gate": GATE, "commit": "rw.gg warm.9"},
    ],
    ids=["cue only", "beta 0", "no layers", "A0 literal", "rw.pp", "warm-up"],
)
def test_what_changes_nothing_leaves_every_bit(run, plain, how):
    assert not differences(plain, run(**how), *EVERYTHING)


def test_with_rw_gp_the_state_goes_the_way_of_the_plain_run(run, plain):
    gated = run(cue=CUE, gate=GATE, commit="rw.gp")
    assert not differences(plain, gated, "state")
    assert "/prediction/pose" in differences(plain, gated, "prediction")


@pytest.mark.parametrize(("warm", "first"), [(0, 1), (2, 3)])
def test_with_rw_pg_outputs_are_plain_until_a_gated_state_was_committed(run, plain, warm, first):
    gated = run(cue=CUE, gate=GATE, commit=f"rw.pg warm.{warm}")
    # A focal length is clamped to 0 where random weights put points behind the camera.
    for name, values in plain["prediction"].to_dataset().drop_vars("focal").data_vars.items():
        same = [np.array_equal(values[t], gated["prediction"][name][t]) for t in range(FRAMES)]
        assert same == [t < first for t in range(FRAMES)], name
    assert gated["cue/gated"].values.tolist() == [t >= warm for t in range(FRAMES)]


def test_in_the_first_frame_reading_and_writing_are_those_of_the_passes_named(run, plain):
    runs = {cell: run(cue=CUE, gate=GATE, commit=f"rw.{cell}") for cell in ("gg", "gp", "pg")}
    for path, cell in (("prediction/pose", "gp"), ("state/tokens", "pg"), ("state/memory", "pg")):
        assert np.array_equal(runs[cell][path][0], runs["gg"][path][0])
        assert not np.array_equal(runs[cell][path][0], plain[path][0])


def test_split_reads_take_pose_and_geometry_from_different_passes(run, plain):
    gated = run(cue=CUE, gate=GATE)
    split, reverse = (
        run(cue=CUE, gate=GATE, commit=f"read.{how}") for how in ("split", "split_rev")
    )
    for name in ("pose", "points_self", "points_world"):
        sides = (gated, plain) if name == "pose" else (plain, gated)
        for found, expected in zip((split, reverse), sides, strict=True):
            first = found["prediction"][name][0]
            assert np.array_equal(first, expected["prediction"][name][0]), name


def test_mixtures_and_holds(run, plain):
    gated, mixed = run(cue=CUE, gate=GATE), run(cue=CUE, gate=GATE, commit="mix(0.25)")
    expected = 0.25 * gated["state/tokens"][0] + 0.75 * plain["state/tokens"][0]
    np.testing.assert_allclose(mixed["state/tokens"][0], expected, rtol=1e-5, atol=1e-6)
    for share, cell in ((1, "gg"), (0, "gp")):
        ends = run(cue=CUE, gate=GATE, commit=f"mix({share})")
        assert not differences(ends, run(cue=CUE, gate=GATE, commit=f"rw.{cell}"), "state")
    held = run(commit="hold")
    assert not held["state/update_size"].any()
    assert not held["state/write_rate"].any()
    assert (held["state/memory"] == held["state/memory"][0]).all()
    assert not run(commit="hold mem.gated")["state/update_size"].any()


def test_the_pose_memory_can_follow_another_pass(run, plain):
    memory = run(cue=CUE, gate=GATE, commit="rw.gg mem.probe")
    gated = run(cue=CUE, gate=GATE)
    assert np.array_equal(memory["state/memory"][0], plain["state/memory"][0])
    assert np.array_equal(memory["state/tokens"][0], gated["state/tokens"][0])
    flat = run(cue=m3.Cue(control="const(0.5)"), commit="rw.gg mem.masked_mean")
    np.testing.assert_allclose(flat["state/memory"], plain["state/memory"], rtol=1e-4, atol=1e-5)
    assert differences(plain, run(cue=CUE, commit="mem.masked_mean"), "state")


@pytest.mark.parametrize("source", [SOURCE_FORMS.get(name, name) for name in SOURCES])
def test_every_cue_source_runs_and_its_control_is_exact(run, plain, source):
    cue = m3.Cue(source=source)
    gated = run(cue=cue, gate=GATE, capture=None)
    assert differences(plain, gated, "prediction")
    lags = source.startswith("previous")
    assert gated["cue/gated"].values.tolist() == [not lags or t > 0 for t in range(FRAMES)]
    assert ("used" in gated["cue"]) == lags
    if lags:
        assert np.isnan(gated["cue/used"][0]).all()
        assert np.array_equal(gated["cue/used"][1], gated["cue/motion"][0])
    two = source.startswith(("two_pass", "iterate"))
    assert list(gated["timing"]["pass"].values) == (["probe", "gated"] if two else ["gated"])
    control = run(cue=cue, gate=GATE, commit="rw.pp")
    assert not differences(plain, control, *EVERYTHING)


def test_two_passes_share_the_encoder_the_pose_read_and_what_the_first_layer_projects(
    run, backbone
):
    watched = {
        "enc_blocks.0": FRAMES,
        "pose_retriever.read_blocks.0": FRAMES - 1,  # the first frame has a learned pose token
        "decoder_embed": FRAMES,
        "dec_blocks.0.attn.qkv": FRAMES,
        "dec_blocks.0.cross_attn.projk": FRAMES,
        "dec_blocks_state.0.attn.qkv": FRAMES,
        "dec_blocks_state.0.cross_attn.projv": FRAMES,
        "dec_blocks.0.attn.proj": 2 * FRAMES,
        "dec_blocks.1.attn.qkv": 2 * FRAMES,
    }
    calls = dict.fromkeys(watched, 0)

    def count(name):
        def hook(*_):
            calls[name] += 1

        return hook

    handles = [backbone.get_submodule(n).register_forward_hook(count(n)) for n in watched]
    try:
        run(cue=CUE, gate=GATE)
    finally:
        for handle in handles:
            handle.remove()
    assert calls == watched


@pytest.mark.parametrize("update", ["ttt3r", "ttsa3r"])
def test_siblings_are_commits_too(run, update):
    commit = getattr(m3.Commit, update)(reset=2)
    loaded = run(update=update, commit="reset.2")
    assert not differences(loaded, run(commit=commit), *EVERYTHING)
    rate = loaded["state/write_rate"]
    assert (rate[[0, 2]] == 1).all()  # a start, and the frame after a reset
    assert ((rate[[1, 3]] > 0) & (rate[[1, 3]] < 1)).all()


def test_easi3r_masks_run_through_the_same_call(run, plain):
    masked = run(cue=m3.Cue.oracle(), gate=m3.Gate.easi3r(layers=None))
    assert list(masked["timing"]["pass"].values) == ["gated"]  # the truth needs no probe pass
    assert differences(plain, masked, "prediction")


def test_rates_multiply(run):
    motion = {"cue": CUE, "gate": m3.Gate.mut3r(beta=0)}
    names = ("frame(0.5)", "static_mass", "ttt3r")
    rates = {name: run(**motion, commit=f"rate.{name}")["state/write_rate"] for name in names}
    product = run(**motion, commit=f"rate.{'*'.join(names)}")["state/write_rate"]
    # In the second frame the states are still the same, because every rate is 1 in the first.
    expected = rates["frame(0.5)"] * rates["static_mass"] * rates["ttt3r"]
    np.testing.assert_allclose(product[:2], expected[:2], rtol=1e-5)
    assert (product[0] == 1).all()
    whole = run(cue=CUE, commit="rate.frame(0.5)")
    mean = whole["cue/motion"].mean(["patch_row", "patch_col"])
    np.testing.assert_allclose(
        whole["state/write_rate"][1:, 0], 1 - 0.5 * mean[1:], rtol=1e-5, err_msg="frame rate"
    )


def test_a_static_mass_rate_needs_no_gate(run):
    rated = run(cue=CUE, commit="rate.static_mass")
    inert = run(cue=CUE, gate=m3.Gate.mut3r(beta=0), commit="rate.static_mass")
    assert not differences(rated, inert, "state", "prediction")
    assert (rated["state/write_rate"][1:] < 1).all()


def test_a_write_gate_acts_on_what_it_wrote_only(run, plain):
    gate = m3.Gate.mut3r(directions=["state_to_image"], state_to_image="B3")
    assert float(run(cue=CUE, gate=gate)["state/write_rate"].max()) < 1
    assert not differences(plain, run(cue=CUE, gate=gate, commit="rw.gp"), "state")


def test_resets_start_anew(run, plain):
    reset = run(commit="reset.2")
    initial = reset["state/tokens"][1]
    assert np.array_equal(initial, reset["state/tokens"][3])
    assert np.array_equal(plain["state/tokens"][0], reset["state/tokens"][0])
    learned = run(commit="reset.2 reset.pose.learned")
    assert "/prediction/pose" in differences(reset, learned, "prediction")
    cue = m3.Cue(source="previous")
    for which, acts in (("clear", False), ("keep", True)):
        gated = run(cue=cue, gate=GATE, commit=f"reset.2 reset.cue.{which}", capture=None)
        assert bool(gated["cue/gated"][2]) == acts


def test_a_run_records_cue_gate_and_commit(run, backbone):
    commit = m3.Commit.parse("rw.gp rate.frame(0.5) warm.1 reset.2")
    found = run(cue=CUE, gate=GATE, commit=commit, capture=None)
    recorded = m3.Configuration.of_run(found.attrs)
    assert recorded == m3.Configuration(cue=CUE, gate=GATE, commit=commit)
    assert found.attrs["notes"] == ["gate: [0, 4) of 4 layers"]
    assert m3.Commit.from_json(json.loads(json.dumps(found.attrs["commit"]))) == commit
    rows, columns = backbone.config.patch_grid(48, 64)
    assert found["cue/motion"].dims == ("frame", "patch_row", "patch_col")
    assert found["cue/motion"].shape == (FRAMES, rows, columns)
    assert found["cue/logit_query_mean"].dims == ("frame", "layer", "patch_row", "patch_col")
    raw = found["cue/logit_query_mean"].mean("layer")
    both = np.stack([raw.values.ravel(), found["cue/motion"].values.ravel()])
    assert np.corrcoef(both)[0, 1] < -0.5  # a low mean logit is dynamic
    inert = run(cue=CUE, gate=m3.Gate.mut3r(beta=0), capture=None)
    assert any("inert" in note for note in inert.attrs["notes"])


def test_attention_is_that_of_the_pass_that_is_read(run, plain):
    gated = run(cue=CUE, gate=GATE)
    entropy = "attention/image_self/entropy"
    assert gated[entropy].attrs["source"] == "image_self, gated pass"
    # Statistics are of raw logits, which the first layer has not changed yet.
    assert np.array_equal(gated[entropy][0, 0], plain[entropy][0, 0])
    assert not np.array_equal(gated[entropy][0, 1], plain[entropy][0, 1])


@pytest.mark.parametrize("source", ["two_pass", "previous", "two_pass_cut(2)"])
def test_a_gated_store_has_the_planned_size_and_the_plan_counts_passes(
    backbone, sequence, tmp_path, source
):
    how = {"cue": m3.Cue(source=source), "gate": GATE, "commit": "rw.gg warm.1",
           "capture": m3.Capture(statistics=["entropy"])}  # fmt: skip
    planned = m3.plan(backbone, sequence, **how)
    out = tmp_path / "run.zarr"
    m3.run(backbone, sequence, progress=False, out=out, **how)
    size = sum(file.stat().st_size for file in out.rglob("*") if file.is_file())
    assert size == pytest.approx(planned.stored_bytes, rel=0.01)
    plain = m3.plan(backbone, sequence).flops
    extra = planned.flops.get("probe", 0)
    assert planned.flops == plain | ({"probe": extra} if extra else {})
    share = extra / plain["decoder and memory"]
    low, high = {"two_pass": (0.5, 1), "previous": (0, 0), "two_pass_cut(2)": (0.1, 0.4)}[source]
    assert low <= share <= high


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ({"gate": GATE}, "give a cue"),
        ({"commit": "rw.gp"}, "needs a gate"),
        ({"cue": CUE, "commit": "read.split"}, "needs a gate"),
        ({"commit": "rate.frame"}, "needs a cue"),
        ({"commit": "mem.masked_mean"}, "needs a cue"),
        ({"commit": "rw.gx"}, r"unknown word 'rw.gx'.*rw.gg"),
        ({"commit": 3}, "text form"),
        ({"cue": "mut3r"}, "cue must be a Cue"),
        ({"cue": CUE, "gate": m3.Gate(layers=(0, 6))}, r"outside the 4 layers"),
        ({"cue": m3.Cue(layers=(0, 9))}, r"outside the 4 layers"),
        ({"cue": m3.Cue.oracle("blobs")}, r"'blobs'.*it has: motion_mask"),
        (
            {"cue": m3.Cue(site="head_self", source="previous"), "outputs": ("pose", "depth")},
            "points_world",
        ),
    ],
)
def test_bad_configurations_are_refused_before_anything_is_written(
    backbone, sequence, tmp_path, how, message
):
    with pytest.raises(InvalidArgument, match=message):
        m3.run(backbone, sequence, progress=False, out=tmp_path / "run.zarr", **how)
    assert not (tmp_path / "run.zarr").exists()


def test_masks_of_another_grid_are_refused(backbone, sequence):
    coarse = sequence.assign(cells=(("frame", "rows", "columns"), np.zeros((FRAMES, 6, 8))))
    with pytest.raises(InvalidArgument, match=r"'cells' has the dimensions.*resample it first"):
        m3.run(backbone, coarse, cue=m3.Cue.oracle("cells"), progress=False)


def test_a_rate_is_not_applied_twice(run):
    with pytest.raises(InvalidArgument, match="update='ttt3r'"):
        run(update="ttt3r", commit="rate.ttt3r")
    with pytest.raises(InvalidArgument, match="learned pose token"):
        run(update="ttt3r", commit="reset.2 reset.pose.memory")


def test_a_budget_counts_the_cue(backbone, sequence, tmp_path):
    plain = m3.plan(backbone, sequence, outputs=("pose",)).stored_bytes
    capture = m3.Capture(sites=(), budget=plain + 500)
    with pytest.raises(BudgetExceeded):
        m3.run(backbone, sequence, cue=CUE, outputs=("pose",), capture=capture, progress=False)
