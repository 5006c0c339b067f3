"""Several configurations in one batch equal runs one by one; forks compare two futures."""

import numpy as np
import pytest

import mut3r_analysis as m3
from mut3r_analysis.errors import AlreadyExists, InvalidArgument
from mut3r_analysis.running import Configuration, grouping
from mut3r_analysis.running.grouping import grouped

FRAMES = 4
CUE, GATE = m3.Cue.mut3r(), m3.Gate.mut3r()
CONFIGURATIONS = (
    {},
    {"commit": m3.Commit.ttt3r(reset=3)},
    {"cue": CUE, "gate": GATE},
    {"cue": CUE, "gate": GATE, "commit": "rw.gp warm.2 reset.3"},
    {"cue": m3.Cue(reading="entropy"), "gate": m3.Gate.easi3r(), "commit": "rw.pg rate.frame"},
    {"cue": m3.Cue(site="encoder_self"), "gate": GATE, "commit": "mix(0.3) rate.static_mass"},
    {"cue": CUE, "gate": m3.Gate(image_to_state="A3", null_logit=1.0), "commit": "read.split"},
    {"cue": m3.Cue(source="previous"), "gate": GATE, "commit": "rw.gg reset.2"},
    {"cue": m3.Cue(source="previous"), "gate": GATE, "commit": "rw.pp"},
)


@pytest.fixture(scope="module")
def backbone():
    return m3.load_backbone("random:small", device="cpu")


@pytest.fixture(scope="module")
def sequence():
    frames = np.random.default_rng(0).integers(0, 256, (FRAMES, 48, 64, 3), dtype=np.uint8)
    return m3.open_sequence(frames, name="noise")


CAPTURE = m3.Capture(statistics=["entropy"], sites=["image_self", "encoder_self"], state=True)


@pytest.fixture(scope="module")
def together(backbone, sequence):
    return m3.run_batch(backbone, sequence, CONFIGURATIONS, capture=CAPTURE, progress=False)


@pytest.mark.parametrize("index", range(len(CONFIGURATIONS)))
def test_a_batch_equals_runs_one_by_one(backbone, sequence, together, index):
    how = CONFIGURATIONS[index]
    alone = m3.run(backbone, sequence, capture=CAPTURE, progress=False, **how)
    found = together[index]
    assert {name: found.attrs[name] for name in ("cue", "gate", "commit")} == {
        name: alone.attrs[name] for name in ("cue", "gate", "commit")
    }
    assert list(found["timing"]["pass"].values) == list(alone["timing"]["pass"].values)
    for group in ("prediction", "state", "attention", *(["cue"] if "cue" in how else [])):
        for node in alone[group].subtree:
            for name, values in node.to_dataset(inherit=False).data_vars.items():
                np.testing.assert_allclose(
                    found[node.path][name], values, rtol=1e-3, atol=2e-4, err_msg=name
                )


def room_for(samples, backbone):
    """Bytes that the MLPs of so many samples fill, and not of one more."""
    config = backbone.config
    rows, columns = config.patch_grid(*backbone.preparation.shape(48, 64))
    tokens = max(1 + rows * columns, config.state_size)
    return int(samples * tokens * config.dec_embed_dim * config.mlp_ratio * 4)


def test_batches_hold_what_pays_on_a_cpu_and_only_configurations_with_the_same_passes(
    backbone, monkeypatch
):
    settled = [Configuration.of(how) for how in CONFIGURATIONS]
    assert max(map(len, grouped(backbone, settled, 48, 64))) == 5
    monkeypatch.setattr(grouping, "REUSED_BYTES", room_for(2, backbone))
    groups = grouped(backbone, settled, 48, 64)
    assert sorted(index for group in groups for index in group) == list(range(len(settled)))
    assert max(map(len, groups)) == 2
    assert all(len({settled[i].shape for i in group}) == 1 for group in groups)
    monkeypatch.setattr(grouping, "REUSED_BYTES", 1)
    assert len(grouped(backbone, settled, 48, 64)) == len(settled)


def test_results_do_not_depend_on_how_large_batches_are(backbone, sequence, together, monkeypatch):
    monkeypatch.setattr(grouping, "REUSED_BYTES", room_for(2, backbone))
    split = m3.run_batch(backbone, sequence, CONFIGURATIONS, capture=CAPTURE, progress=False)
    for one, other in zip(split, together, strict=True):
        np.testing.assert_allclose(
            one["prediction/depth"], other["prediction/depth"], rtol=1e-3, atol=2e-4
        )
        np.testing.assert_allclose(
            one["attention/image_self/entropy"],
            other["attention/image_self/entropy"],
            rtol=1e-3,
            atol=2e-4,
        )


def test_a_batch_writes_one_store_each_and_overwrites_none(backbone, sequence, tmp_path):
    out = [tmp_path / "a.zarr", tmp_path / "b.zarr"]
    runs = m3.run_batch(
        backbone, sequence, [{}, {"cue": CUE}], out=out, outputs=("pose",), progress=False
    )
    assert [m3.open_run(path).attrs["cue"] for path in out] == [run.attrs["cue"] for run in runs]
    with pytest.raises(AlreadyExists):
        m3.run_batch(backbone, sequence, [{}, {}], out=[tmp_path / "c.zarr", out[0]])
    assert not (tmp_path / "c.zarr").exists()
    with pytest.raises(InvalidArgument, match="one store per configuration"):
        m3.run_batch(backbone, sequence, [{}, {}], out=[tmp_path / "c.zarr"] * 2)
    with pytest.raises(InvalidArgument, match="at least one"):
        m3.run_batch(backbone, sequence, [])


@pytest.fixture(scope="module")
def plain(backbone, sequence):
    return m3.run(backbone, sequence, capture=m3.Capture(statistics=[], state=True), progress=False)


def test_a_fork_without_a_change_differs_by_nothing(backbone, sequence, plain):
    fork = m3.fork(plain, 1, backbone=backbone, sequence=sequence)
    assert fork.sizes["frame"] == FRAMES - 1
    assert all(not values.any() for values in fork.data_vars.values())


def test_a_fork_is_the_difference_of_the_two_runs(backbone, sequence, plain):
    gated = m3.run(backbone, sequence, cue=CUE, gate=GATE, commit="rw.gg warm.2",
                   capture=m3.Capture(statistics=[], state=True), progress=False)  # fmt: skip
    fork = m3.fork(plain, 2, backbone=backbone, sequence=sequence, cue=CUE, gate=GATE)
    change = gated["state/tokens"].values - plain["state/tokens"].values
    np.testing.assert_allclose(
        fork["state_distance"], np.linalg.norm(change, axis=-1)[2:], rtol=1e-4, atol=1e-5
    )
    depth = np.abs(gated["prediction/depth"].values - plain["prediction/depth"].values)
    np.testing.assert_allclose(fork["depth_distance"], depth[2:], rtol=1e-4, atol=1e-5)
    poses = [run["prediction/pose"].values[2:] for run in (plain, gated)]
    np.testing.assert_allclose(
        fork["translation_distance"],
        np.linalg.norm(poses[0][:, :3, 3] - poses[1][:, :3, 3], axis=-1),
        atol=1e-5,
    )
    turn = np.einsum("fij,fik->fjk", poses[0][:, :3, :3], poses[1][:, :3, :3])
    angle = np.degrees(np.arccos((np.trace(turn, axis1=1, axis2=2) - 1) / 2))
    np.testing.assert_allclose(fork["rotation_distance"], angle, atol=0.05)
    assert fork["state_distance"].sel(token="state", patch_row=0).sizes["frame"] == FRAMES - 2
    assert {"units", "long_name", "source"} <= set(fork["rotation_distance"].attrs)


@pytest.mark.parametrize("reset", ["", "reset.2 reset.pose.learned"])
def test_a_held_state_and_a_replayed_one_give_the_same_future(backbone, sequence, reset):
    runs = [
        m3.run(backbone, sequence, commit=reset, capture=capture, progress=False)
        for capture in (None, m3.Capture(statistics=[], state=True))
    ]
    for at in (2, 3):
        one, other = (
            m3.fork(run, at, backbone=backbone, sequence=sequence, cue=CUE, gate=GATE)
            for run in runs
        )
        for name in one.data_vars:
            assert np.array_equal(one[name], other[name]), name


def test_a_cue_that_remembers_is_replayed(backbone, sequence):
    how = {"cue": m3.Cue(source="previous"), "gate": GATE}
    capture = m3.Capture(statistics=[], state=True)
    run = m3.run(backbone, sequence, capture=capture, progress=False, **how)
    fork = m3.fork(run, 2, backbone=backbone, sequence=sequence, commit="rw.gg warm.99", frames=1)
    assert fork["state_distance"].any()  # the run's own future is gated from the first frame on


def test_content_can_be_exchanged(backbone, sequence, plain):
    other = sequence.copy()
    image = sequence["image"].values.copy()
    image[3, :24] = 0
    other["image"] = (sequence["image"].dims, image)
    fork = m3.fork(plain, 2, backbone=backbone, sequence=sequence, content=other)
    assert not fork["depth_distance"][0].any()
    assert fork["depth_distance"][1].any()


def test_what_cannot_be_forked_is_refused(backbone, sequence, plain):
    here = {"backbone": backbone, "sequence": sequence}
    with pytest.raises(InvalidArgument, match=r"no frame 99.*0 to 3"):
        m3.fork(plain, 99, **here)
    with pytest.raises(InvalidArgument, match="do not fit"):
        m3.fork(plain, 1, frames=9, **here)
    with pytest.raises(InvalidArgument, match="one of pose, depth, points_world; got 'color'"):
        m3.fork(plain, 1, outputs=("color",), **here)
    with pytest.raises(InvalidArgument, match="as many frames"):
        m3.fork(plain, 1, content=sequence.isel(frame=slice(2)), **here)
    with pytest.raises(InvalidArgument, match="open the sequence as it was run"):
        m3.fork(plain, 1, backbone=backbone, sequence=sequence.isel(frame=slice(2)))
    other = m3.load_backbone("random:small", device="cpu", update="ttt3r")
    with pytest.raises(InvalidArgument, match="load that one"):
        m3.fork(plain, 1, backbone=other, sequence=sequence)
