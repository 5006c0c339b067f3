"""A run records what the backbone did, labelled, lazily readable, at the price that was planned."""

import dataclasses
import json
import os
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
import xarray as xr

import mut3r_analysis as m3
from mut3r_analysis.attention import DECODER_KINDS, STATISTICS, Recorder
from mut3r_analysis.backbones import Frame
from mut3r_analysis.errors import AlreadyExists, BudgetExceeded, InvalidArgument
from mut3r_analysis.metrics import Protocol
from mut3r_analysis.metrics import protocol as find_protocol
from mut3r_analysis.running import inputs

FOLDERS = ("static_room", "walking_woman", "dog_and_geese", "portrait_sparse")


@pytest.fixture(scope="module")
def backbone():
    return m3.load_backbone("random:small")


@pytest.fixture(scope="module")
def sequence():
    frames = np.random.default_rng(0).integers(0, 256, (7, 60, 80, 3), dtype=np.uint8)
    return m3.open_sequence(frames, name="noise")


def size_on_disk(path: Path) -> int:
    return sum(file.stat().st_size for file in path.rglob("*") if file.is_file())


def quiet(*args, **kwargs) -> xr.DataTree:
    return m3.run(*args, progress=False, **kwargs)


def test_a_run_holds_what_the_backbone_computes(backbone, sequence):
    run = quiet(backbone, sequence, capture=m3.Capture(state=True))
    state = None
    for t in range(sequence.sizes["frame"]):
        image = torch.from_numpy(backbone.preparation.image(sequence.image[t].values))[None]
        grid = backbone.patch_grid(*image.shape[-2:])
        recorder = Recorder(m3.Capture(), backbone.sites(), backbone.axes(grid))
        before = state or backbone.begin()
        step = backbone.step(Frame(image), before, probe=recorder)
        state = step.state
        predicted = run["prediction"].isel(frame=t)
        assert np.array_equal(predicted.points_self, step.prediction.points_self[0])
        assert np.array_equal(predicted["depth"], step.prediction.points_self[0, ..., 2])
        assert np.array_equal(predicted.confidence_world, step.prediction.confidence_world[0])
        assert np.array_equal(predicted.color, step.prediction.color[0])
        stored = run["state"].isel(frame=t)
        assert np.array_equal(stored.tokens, state.tokens[0])
        assert np.array_equal(stored.memory, state.memory[0])
        change = (state.tokens - before.tokens)[0].norm(dim=-1)
        assert np.allclose(stored.update_size, change)
        assert np.allclose(stored.norm, state.tokens[0].norm(dim=-1))
        for kind, found in recorder.take().items():
            for name, values in found.items():
                kept = run[f"attention/{kind}"][name].isel(frame=t)
                assert np.array_equal(kept, values[0].numpy()), (kind, name)


def test_the_tree_has_the_declared_shape(backbone, sequence, tmp_path):
    run = quiet(backbone, sequence, capture=m3.Capture(), out=tmp_path / "run.zarr")
    assert set(run.children) == {"prediction", "attention", "state", "timing"}
    assert set(run["attention"].children) == set(DECODER_KINDS)
    assert run["prediction/pose"].dims == ("frame", "row", "col")
    entropy = run["attention/state_to_image/entropy"]
    assert entropy.dims == ("frame", "layer", "head", "query")
    assert run["attention/state_to_image/received"].dims == ("frame", "layer", "head", "key")
    assert "pose_weight" in run["attention/image_self"]
    assert "pose_weight" not in run["attention/state_self"]
    for node in run.subtree:
        for name, variable in node.to_dataset(inherit=False).variables.items():
            assert {"long_name", "units", "source"} <= set(variable.attrs), (node.path, name)


def test_tokens_are_selected_by_meaning(backbone, sequence):
    run = quiet(backbone, sequence, capture=m3.Capture(maps=("image_to_state",)))
    entropy = run["attention/image_self/entropy"]
    rows, columns = backbone.config.patch_grid(48, 64)
    assert entropy.sel(token="patch").sizes["query"] == rows * columns
    chosen = entropy.sel(token="patch", patch_row=2, patch_col=3)
    assert np.array_equal(chosen, entropy.isel(query=1 + 2 * columns + 3))
    assert np.array_equal(entropy.sel(token="pose").squeeze("query"), entropy.isel(query=0))
    logits = run["attention/image_to_state/logits"]
    narrow = logits.sel(token="patch", patch_row=0, patch_col=1, key_token="state")
    assert narrow.dims == ("frame", "layer", "head", "key")
    assert set(run["prediction"].xyz.values) == {"x", "y", "z"}
    assert run["timing"].sel({"pass": "plain"}).seconds.sizes == {"frame": 7}


def test_reading_is_lazy(backbone, sequence, tmp_path):
    run = quiet(backbone, sequence, capture=m3.Capture(archive=True), out=tmp_path / "run.zarr")
    for node in run.subtree:
        for name, variable in node.to_dataset(inherit=False).data_vars.items():
            assert not variable.variable._in_memory, (node.path, name)


@pytest.mark.parametrize("where", ["memory", "disk"])
def test_memory_and_disk_hold_the_same(backbone, sequence, tmp_path, where):
    out = None if where == "memory" else tmp_path / "run.zarr"
    run = quiet(backbone, sequence, capture=m3.Capture(), out=out)
    again = quiet(backbone, sequence, capture=m3.Capture())
    for node in run.subtree:
        if node.path not in ("/", "/timing", "/attention"):
            xr.testing.assert_identical(
                node.to_dataset(inherit=False).load(),
                again[node.path].to_dataset(inherit=False).load(),
            )


def test_provenance(backbone, sequence):
    capture = m3.Capture(statistics=["entropy"], layers=[1])
    attrs = quiet(backbone, sequence, capture=capture, outputs=("pose",)).attrs
    assert m3.Capture.from_json(attrs["capture"]) == capture
    assert attrs["backbone"]["sha256"] == backbone.origin.sha256
    assert attrs["sequence"]["sha256"] == sequence.attrs["sha256"]
    assert attrs["complete"]
    assert attrs["frames"] == attrs["frames_complete"] == 7
    assert attrs["precision"] == "float32"
    assert attrs["outputs"] == ["pose"]
    assert attrs["started"] <= attrs["finished"]
    json.dumps(attrs)


def test_only_what_is_asked_for_is_stored(backbone, sequence):
    run = quiet(backbone, sequence, outputs=("pose", "depth"))
    assert set(run["prediction"].data_vars) == {"pose", "depth", "confidence_self", "focal"}
    assert "attention" not in run.children
    capture = m3.Capture(
        statistics=["entropy"], sites=["image_self"], layers=[1, 3], heads=[0, 2], frames=[2, 5]
    )
    chosen = quiet(backbone, sequence, capture=capture, outputs=("pose",))["attention/image_self"]
    everything = quiet(backbone, sequence, capture=m3.Capture())["attention/image_self"]
    assert set(chosen.data_vars) == {"entropy"}
    wanted = everything.entropy.sel(layer=[1, 3], head=[0, 2], frame=[2, 5])
    # A narrower product may round differently, so equality is to float32 rounding.
    np.testing.assert_allclose(chosen.entropy, wanted, rtol=1e-5)


def test_encoder_and_head_sites_can_be_captured(backbone, sequence):
    run = quiet(backbone, sequence, capture=m3.Capture(sites="all"))
    assert run["attention/encoder_self/entropy"].sizes["layer"] == backbone.config.enc_depth
    assert run["attention/head_self/entropy"].sizes["layer"] == 2
    assert np.isfinite(run["attention/head_self/entropy"]).all()


def test_the_head_site_needs_the_output_that_runs_it(backbone, sequence, tmp_path):
    place = tmp_path / "run.zarr"
    with pytest.raises(InvalidArgument, match="'points_world' alone"):
        quiet(
            backbone,
            sequence,
            capture=m3.Capture(sites="head_self"),
            outputs=("pose", "depth"),
            out=place,
        )
    assert not place.exists()


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"backbone": 3}, r"load_backbone\('tiny'\)"),
        ({"sequence": 3}, r"open_sequence\('scenes/orbit-03'\)"),
        ({"capture": "all"}, "capture must be a Capture"),
    ],
)
def test_what_is_not_open_yet_is_refused_with_how_to_open_it(backbone, sequence, given, message):
    arguments = {"backbone": backbone, "sequence": sequence, "capture": None} | given
    with pytest.raises(InvalidArgument, match=message):
        quiet(arguments["backbone"], arguments["sequence"], capture=arguments["capture"])


def test_a_dataset_made_by_hand_is_checked_labelled_and_known_again(backbone, tmp_path):
    pixels = np.random.default_rng(1).integers(0, 256, (2, 48, 64, 3), dtype=np.uint8)
    image = (("frame", "y", "x", "rgb"), pixels)
    depth = (("frame", "y", "x"), np.ones((2, 48, 64), np.float32))
    run = quiet(backbone, xr.Dataset({"image": image, "depth": depth}), outputs=("pose",))
    assert run["truth/depth"].attrs["units"] == "m"
    assert m3.plan(backbone, xr.Dataset({"image": image})).frames == 2
    assert len(run.attrs["sequence"]["sha256"]) == 64
    place = tmp_path / "run.zarr"
    for wrong in (
        xr.Dataset({"image": (image[0], pixels / 255)}),
        xr.Dataset({"depth": depth}),
        xr.Dataset({"image": image}).isel(frame=0),
    ):
        with pytest.raises(InvalidArgument, match="not a sequence"):
            quiet(backbone, wrong, out=place)
        assert not place.exists()


def test_frames_selected_after_opening_are_told_apart(backbone, sequence):
    runs = [
        quiet(backbone, sequence.isel(frame=part), outputs=("pose",))
        for part in (slice(0, 2), slice(2, 4))
    ]
    assert runs[0].attrs["sequence"]["sha256"] == runs[1].attrs["sequence"]["sha256"]
    digests = {run.attrs["sequence"]["frames_sha256"] for run in runs}
    assert len(digests) == 2
    with pytest.raises(InvalidArgument, match="these are others"):
        m3.fork(runs[0], 0, backbone=backbone, sequence=sequence.isel(frame=slice(1, 3)))


def declared(**changes) -> Protocol:
    """Sintel's pose protocol, changed."""
    return dataclasses.replace(find_protocol("pose:sintel14:sim3"), id="mine", **changes)


def test_a_protocol_chooses_frames_and_a_preparation_is_the_run_s_own(backbone, sequence):
    mine = declared(preparation="given", frames={"start": 1, "step": 2, "limit": 2})
    run = quiet(backbone, sequence, protocol=mine)
    assert run["prediction"].frame.values.tolist() == [1, 3]
    resized = quiet(backbone, sequence.isel(frame=[0]), preparation="resize")
    assert resized.attrs["backbone"]["preparation"]["rule"] == "resize"
    assert backbone.preparation.rule == "crop"


@pytest.mark.parametrize(
    ("changes", "kind", "frames", "said"),
    [
        ({}, "sintel", slice(None), "long edge of 512 px .* with size=64, patch=8"),
        ({"preparation": "given"}, "tum", slice(None), "of 'tum', mine is of 'sintel'"),
        ({"preparation": "given"}, "sintel", slice(2, None), "lacks 2 of these 7, from frame 0"),
        ({"preparation": "given"}, "sintel", [0, 1, 3, 6], "lacks 3 of these 7, from frame 2"),
    ],
)
def test_what_a_protocol_would_not_score_is_not_run(
    backbone, sequence, changes, kind, frames, said
):
    given = sequence.isel(frame=frames).assign_attrs(kind=kind)
    with pytest.raises(InvalidArgument, match=said):
        quiet(backbone, given, protocol=declared(**changes))


def test_a_preparation_beside_that_of_a_protocol_is_refused(backbone, sequence):
    with pytest.raises(InvalidArgument, match="says how frames are prepared, 'crop'"):
        quiet(backbone, sequence, protocol="pose:sintel14:sim3", preparation="resize")


def test_a_backbone_may_be_named(sequence):
    two = sequence.isel(frame=slice(2))
    named, loaded = (
        quiet(each, two) for each in ("random:small", m3.load_backbone("random:small"))
    )
    xr.testing.assert_identical(named["prediction"].to_dataset(), loaded["prediction"].to_dataset())


def test_a_sequence_may_be_named_wherever_one_is_run(tmp_path):
    named = m3.export_sequence(
        m3.open_sequence("scenes/orbit-01", stop=3), tmp_path, layout="davis"
    )
    images = next(tmp_path.rglob("*.jpg")).parent
    assert quiet("tiny", named, outputs=("pose",))["prediction"].sizes["frame"] == 3
    kept = m3.Capture(state=True)
    (run,) = m3.run_batch("tiny", images, [{}], capture=kept, progress=False)
    same = m3.fork(run, 1, backbone="tiny", sequence=images)
    assert float(same["state_distance"].max()) == 0
    pairs = m3.run_pairs("random:dust3r-small", images, graph=[(0, 1)], progress=False)
    assert pairs["prediction"].sizes["pair"] == 1
    assert m3.reconstruct("random:vggt-small", images, outputs=("pose",))["pose"].shape == (3, 4, 4)


def test_a_sequence_may_have_a_slash_in_its_name(backbone, tmp_path):
    frames = m3.open_sequence(np.zeros((1, 48, 64, 3), np.uint8), name="a/b")
    place = tmp_path / "run.zarr"
    quiet(backbone, frames, outputs=("pose",), out=place)
    assert m3.open_run(place).attrs["sequence"]["name"] == "a/b"


@pytest.mark.parametrize(
    "capture",
    [
        None,
        m3.Capture(),
        m3.Capture(statistics=["entropy"], frames=[0, 6]),
        m3.Capture(maps=DECODER_KINDS, archive=True, state=True),
        m3.Capture(statistics=[], sites=["image_self"], archive="float32", dtype="float16"),
    ],
)
def test_a_store_has_the_planned_size(backbone, sequence, tmp_path, capture):
    plan = m3.plan(backbone, sequence, capture=capture)
    quiet(backbone, sequence, capture=capture, out=tmp_path / "run.zarr")
    assert size_on_disk(tmp_path / "run.zarr") == pytest.approx(plan.stored_bytes, rel=0.01)


@pytest.mark.parametrize("frames", [1, 2, 33, 70])
def test_any_number_of_frames_is_stored_whole(backbone, frames):
    pixels = np.random.default_rng(frames).integers(0, 256, (frames, 48, 64, 3), dtype=np.uint8)
    sequence = m3.open_sequence(pixels)
    run = quiet(backbone, sequence, outputs=("pose",), capture=m3.Capture(sites=["image_self"]))
    assert run["attention/image_self/entropy"].notnull().all()
    assert run["prediction/pose"].sizes["frame"] == frames
    assert run["prediction/pose"].notnull().all()


def test_plan_prints_shapes_bytes_and_operations(backbone, sequence):
    plan = m3.plan(backbone, sequence, capture=m3.Capture())
    text = str(plan)
    assert "/attention/image_self/entropy" in text
    assert "(frame, layer, head, query)" in text
    assert "7x4x4x49" in text
    assert "MFLOP per frame (encoder" in text
    assert "estimated time on this device" in text
    assert "<table>" in plan._repr_html_()
    pose = m3.plan(backbone, sequence, outputs=("pose",))
    assert pose.flops["heads"] < plan.flops["heads"] / 10
    assert pose.stored_bytes < plan.stored_bytes / 10


def test_operations_of_the_released_model_match_the_analysis():
    frames = np.zeros((2, 480, 640, 3), np.uint8)
    with torch.device("meta"):
        shadow = m3.backbones.CUT3R(m3.backbones.CUT3RConfig())
    from mut3r_analysis.running.planning import frame_flops

    flops = frame_flops(shadow, m3.open_sequence(frames), m3.backbones.heads.OUTPUTS)
    giga = {name: value / 1e9 for name, value in flops.items()}
    assert giga["encoder"] == pytest.approx(522, rel=0.01)
    assert giga["decoder and memory"] == pytest.approx(436 + 35 + 5, rel=0.01)
    assert giga["heads"] == pytest.approx(585, rel=0.01)


def test_archive_equals_direct_capture(backbone, sequence):
    direct = quiet(backbone, sequence, capture=m3.Capture(maps=DECODER_KINDS))
    capture = m3.Capture(statistics=[], archive="float32")
    archived = quiet(backbone, sequence, capture=capture)
    for kind in DECODER_KINDS:
        ours, theirs = archived[f"attention/{kind}"], direct[f"attention/{kind}"]
        np.testing.assert_allclose(ours.logits, theirs.logits, rtol=1e-5, atol=1e-5)
        np.testing.assert_allclose(ours.weights, theirs.weights, rtol=1e-4, atol=1e-6)
        for name in STATISTICS:
            if name in theirs:
                np.testing.assert_allclose(ours[name], theirs[name], rtol=1e-4, atol=1e-5)
    assert "pose_weight" not in archived["attention/state_self"]


def test_half_precision_archive_is_close(backbone, sequence):
    direct = quiet(backbone, sequence, capture=m3.Capture(maps=["image_self"]))
    archived = quiet(backbone, sequence, capture=m3.Capture(archive=True))
    difference = np.abs(
        archived["attention/image_self/weights"].values
        - direct["attention/image_self/weights"].values
    )
    assert difference.max() < 2e-3


def test_derived_maps_can_be_selected_like_stored_ones(backbone, sequence):
    run = quiet(backbone, sequence, capture=m3.Capture(statistics=["entropy"], archive="float32"))
    group = run["attention/image_to_state"]
    whole = group.weights.values
    assert np.allclose(whole.sum(-1), 1, atol=1e-5)
    picks = {"frame": [1, 4], "layer": 2, "head": [3, 0], "query": 5, "key": slice(3, 20, 2)}
    np.testing.assert_allclose(
        group.weights.isel(picks).values, whole[[1, 4]][:, 2][:, [3, 0]][:, :, 5, 3:20:2], rtol=1e-5
    )
    p = group.weights.isel(frame=1).values.astype(np.float64)
    entropy = -(p * np.log(p)).sum(-1)
    np.testing.assert_allclose(group.entropy.isel(frame=1), entropy, rtol=1e-4)


def test_stored_maps_give_weights(backbone, sequence):
    run = quiet(backbone, sequence, capture=m3.Capture(maps=["image_self"]))
    weights = run["attention/image_self/weights"]
    assert weights.dims == ("frame", "layer", "head", "query", "key")
    row = weights.isel(frame=3, layer=1, head=2, query=7)
    assert float(row.sum()) == pytest.approx(1, abs=1e-5)
    np.testing.assert_allclose(
        weights.max("key"), run["attention/image_self/max_weight"], rtol=1e-5
    )
    assert "weights" not in run["attention/state_self"]


def test_truth_is_brought_to_the_prediction_grid(backbone):
    frames = np.zeros((3, 96, 128, 3), np.uint8)
    rows = np.broadcast_to(np.arange(96.0)[:, None], (3, 96, 128))
    known = m3.open_sequence(frames).assign(
        depth=(("frame", "y", "x"), rows),
        pose=(("frame", "row", "col"), np.tile(np.eye(4), (3, 1, 1))),
        motion_mask=(("frame", "y", "x"), rows > 40),
    )
    truth = quiet(backbone, known, outputs=("pose",))["truth"].to_dataset()
    assert truth.depth.shape == (3, 48, 64)
    assert (np.diff(truth.depth.isel(frame=0, x=0)) == 2).all()
    assert truth.motion_mask.dtype == bool
    assert np.array_equal(truth.motion_mask, truth.depth > 40)
    assert truth.pose.shape == (3, 4, 4)


def test_twice_into_one_store_is_refused_and_loses_nothing(backbone, sequence, tmp_path):
    out = tmp_path / "run.zarr"
    quiet(backbone, sequence, outputs=("pose",), out=out)
    before = size_on_disk(out)
    with pytest.raises(AlreadyExists, match="open_run"):
        quiet(backbone, sequence, out=out)
    assert size_on_disk(out) == before


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"capture": m3.Capture(layers=[9])}, r"layers \[9\].*has 4 layers"),
        ({"capture": m3.Capture(heads=[3])}, r"heads \[3\].*state_self has 3 heads"),
        ({"capture": m3.Capture(frames=[7])}, r"frames \[7\].*has 7 frames"),
        ({"outputs": ["depths"]}, "does not predict"),
        ({"commit": "rw.pg"}, "needs a gate"),
    ],
)
def test_refusals_come_before_anything_is_written(backbone, sequence, tmp_path, arguments, message):
    with pytest.raises(InvalidArgument, match=message):
        quiet(backbone, sequence, out=tmp_path / "run.zarr", **arguments)
    assert not (tmp_path / "run.zarr").exists()


def test_a_budget_is_checked_before_anything_runs(backbone, sequence, tmp_path):
    capture = m3.Capture(maps=DECODER_KINDS, budget="1 MB")
    with pytest.raises(BudgetExceeded, match="nothing was run"):
        quiet(backbone, sequence, capture=capture, out=tmp_path / "run.zarr")
    assert not os.listdir(tmp_path)


def test_frames_too_small_are_refused(backbone, tmp_path):
    sequence = m3.open_sequence(np.zeros((2, 2, 64, 3), np.uint8))
    with pytest.raises(InvalidArgument, match="patch"):
        quiet(backbone, sequence, out=tmp_path / "run.zarr")
    assert not (tmp_path / "run.zarr").exists()


@pytest.mark.parametrize("folder", FOLDERS)
def test_real_video(backbone, shared, tmp_path, folder):
    sequence = m3.open_sequence(shared / "frames" / folder)
    capture = m3.Capture()
    plan = m3.plan(backbone, sequence, capture=capture)
    run = quiet(backbone, sequence, capture=capture, out=tmp_path / "run.zarr")
    assert size_on_disk(tmp_path / "run.zarr") == pytest.approx(plan.stored_bytes, rel=0.01)
    assert run.attrs["frames_complete"] == sequence.sizes["frame"]
    for kind in DECODER_KINDS:
        for values in run[f"attention/{kind}"].data_vars.values():
            assert np.isfinite(values).all()


def test_memory_does_not_grow_with_frames(backbone):
    import tracemalloc

    def peak(frames):
        pixels = np.broadcast_to(np.uint8(128), (frames, 48, 64, 3))
        sequence = xr.Dataset(
            {"image": (("frame", "y", "x", "rgb"), pixels)},
            {"frame": np.arange(frames)},
            {"name": "gray", "sha256": "", "source": "", "kind": ""},
        )
        backends = quiet(backbone, sequence, outputs=("pose",))  # warm caches
        del backends
        tracemalloc.start()
        from mut3r_analysis.running import streaming

        plain = streaming.Configuration()
        schema = streaming.run_schema(backbone, sequence, None, ("pose",), plain)
        for _ in streaming._frames(
            [plain],
            backbone,
            sequence,
            [schema],
            None,
            ("pose",),
            False,
            streaming.Observers(),
        ):
            pass
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        return peak

    assert peak(60) < 1.5 * peak(15) + 100_000


def test_frames_without_a_true_mask_are_not_scored_as_resting(backbone):
    sequence = m3.open_sequence("scenes/orbit-03", stop=3)
    sequence["motion_mask"][2] = False
    known = sequence.assign_coords(motion_known=("frame", [True, True, False]))
    scores = [
        m3.evaluate(quiet(backbone, frames, cue=m3.Cue.mut3r()), "default:motion:roc")
        for frames in (known, sequence)
    ]
    assert [int(each["n_frames"][0]) for each in scores] == [2, 3]


def test_a_specimen_is_announced_once_where_it_reads_anything_but_scenes(sequence):
    inputs._announce.cache_clear()
    tiny, scene = m3.load_backbone("tiny"), m3.open_sequence("scenes/orbit-03", stop=2)
    assert "a specimen" in tiny.origin.report[-1]
    assert tiny.origin.report[-1] in repr(tiny)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        quiet(tiny, scene, outputs=("pose",))
        quiet(m3.load_backbone("random:small"), sequence, outputs=("pose",))
        assert not said
        for _ in range(2):
            quiet(tiny, sequence, outputs=("pose",))
    (only,) = said
    assert "official weights" in str(only.message)
    assert only.filename == __file__
