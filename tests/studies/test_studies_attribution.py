"""Attribution of a change of the trajectory error: to paths, parts and sequences."""

from itertools import permutations
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

import mut3r_analysis as m3
from mut3r_analysis.errors import InvalidArgument
from mut3r_analysis.metrics import find_metric
from mut3r_analysis.metrics.trajectory import score_trajectory
from mut3r_analysis.notebooks.execution import execute_notebook, find_notebook
from mut3r_analysis.studies.finding import HIGHER, LOWER, NO_TRUTH, TOO_FEW, findings_of
from mut3r_analysis.studies.trajectories import attribution, read_write
from mut3r_analysis.studies.trajectories.figure import show_paths
from mut3r_analysis.studies.trajectories.path_parts import apart, path_parts

PATHS = ["read", "write"]
NOTEBOOK = "04_sintel_ate_regression"
RNG = np.random.default_rng(3)


def cells_of(*, count=8, ate=None, rpe=None, cue=("own",)):
    """Cells with given effects (percent) of read, write and their interaction on two errors."""
    names = [f"scene-{i}" for i in range(count)]
    shape = (len(cue), 2, 2, count)
    dims = ("cue", *PATHS, "sequence")
    levels = list(read_write.LEVELS)
    coords = {"cue": list(cue), "read": levels, "write": levels, "sequence": names}
    spread = 1 + 0.01 * np.sin(np.arange(count))
    found = {}
    for name, effects in (("ate", ate), ("rpe_translation", rpe)):
        values = np.ones(shape) * spread
        if effects is not None:
            read, write, both = np.asarray(effects) / 100
            values[:, 1] += read
            values[:, :, 1] += write
            values[:, 1, 1] += both
        found[name] = (dims, values, {"long_name": name, "units": "m"})
    return xr.Dataset(found, coords, {"paths": PATHS})


def poses_of(centres):
    """Poses (frame, row, col) that look straight ahead from the centres."""
    poses = np.tile(np.eye(4), (len(centres), 1, 1))
    poses[:, :3, 3] = centres
    return poses


def labelled(poses):
    return xr.DataArray(poses, dims=("frame", "row", "col"))


def helix(frames=48):
    turn = np.linspace(0, 5, frames)
    return np.stack([np.cos(turn), np.sin(turn), 0.2 * turn], axis=-1)


@pytest.mark.parametrize("paths", [["read", "write"], ["read", "state", "memory"]])
def test_contributions_are_the_mean_over_all_orders_of_gating(paths):
    levels = list(read_write.LEVELS)
    values = xr.DataArray(
        RNG.normal(size=(2,) * len(paths)), dict.fromkeys(paths, levels), tuple(paths)
    )
    found = attribution.contributions(values, paths)

    def value(gated):
        return values.values[tuple(int(path in gated) for path in paths)]

    orders = list(permutations(paths))
    for path in paths:
        steps = [
            value([*order[: order.index(path)], path]) - value(order[: order.index(path)])
            for order in orders
        ]
        np.testing.assert_allclose(found.sel(path=path), np.mean(steps))
    np.testing.assert_allclose(found.sel(path=paths).sum(), found.sel(path="total"))
    np.testing.assert_allclose(found.sel(path="total"), value(paths) - value([]))


def test_effects_that_add_up_have_no_interaction():
    found = attribution.contributions(cells_of(ate=(20, -5, 0))["ate"], PATHS)
    np.testing.assert_allclose(found.sel(path="interaction"), 0, atol=1e-12)
    np.testing.assert_allclose(found.sel(path="read"), 0.2)
    np.testing.assert_allclose(found.sel(path="write"), -0.05)


def test_an_interaction_is_shared_by_both_paths():
    found = attribution.contributions(cells_of(ate=(0, 0, 10))["ate"], PATHS)
    for path in PATHS:
        np.testing.assert_allclose(found.sel(path=path), 0.05)


def test_relative_contributions_are_percent_of_the_plain_mean():
    cells = cells_of(ate=(20, -5, 0))
    found = attribution.metric_contributions(cells).sel(cue="own", metric="ATE")
    plain = float(attribution.gated_and_plain(cells["ate"], PATHS)[1].mean())
    np.testing.assert_allclose(found["value"].sel(path="read"), 100 * 0.2 / plain)
    assert (found["n"] == 8).all()


def test_values_without_a_path_are_refused():
    with pytest.raises(InvalidArgument, match="no path write"):
        attribution.contributions(cells_of()["ate"].isel(write=0, drop=True), PATHS)


def test_parts_of_a_path_add_up_and_agree_with_the_metric():
    truth = poses_of(helix())
    estimate = poses_of(1.4 * helix() + RNG.normal(scale=0.05, size=(48, 3)))
    found = path_parts(labelled(estimate), labelled(truth))
    shift = truth[0, :3, 3] - estimate[0, :3, 3]
    squares = ((estimate[:, :3, 3] + shift - truth[:, :3, 3]) ** 2).sum(axis=1)
    np.testing.assert_allclose(found["mean_square"].sum(), squares.mean())
    np.testing.assert_allclose(found["drift"], np.sqrt(squares))
    scores = score_trajectory(labelled(truth), labelled(estimate))
    np.testing.assert_allclose(found["ate"], scores["ate"])
    np.testing.assert_allclose(found["path_scale"], scores["alignment_scale"])
    np.testing.assert_allclose(found["accumulation"], scores["ate"] / scores["rpe_translation"])
    np.testing.assert_allclose(found["aligned"], scores["frame_ate"])
    assert (found["mean_square"] > -1e-12).all()


@pytest.mark.parametrize(
    ("name", "wrong"),
    [
        ("scale", lambda path: 1.5 * path),
        ("bend", lambda path: path + 0.1 * np.cos(np.linspace(0, 9, 48))[:, None] * [0, 0, 1]),
        ("jitter", lambda path: path + 0.1 * (-1.0) ** np.arange(48)[:, None] * [0, 0, 1]),
    ],
)
def test_each_part_names_its_own_error(name, wrong):
    path = helix() - helix()[0]
    estimate = wrong(path)
    found = path_parts(labelled(poses_of(estimate - estimate[0])), labelled(poses_of(path)))
    after = found["mean_square"].sel(part=["scale", "bend", "jitter"])
    assert str(after.idxmax("part").item()) == name
    assert float(after.sel(part=name) / after.sum()) > 0.8


def test_a_path_that_is_only_moved_rigidly_has_no_error():
    truth = poses_of(helix())
    motion = np.eye(4)
    motion[:3, :3] = [[0, -1, 0], [1, 0, 0], [0, 0, 1]]
    motion[:3, 3] = 5, 6, 7
    found = path_parts(labelled(motion @ truth), labelled(truth))
    np.testing.assert_allclose(found["mean_square"], 0, atol=1e-12)


def test_a_camera_at_rest_has_a_drift_and_no_alignment():
    truth, estimate = poses_of(np.zeros((8, 3))), poses_of(helix(8))
    found = path_parts(labelled(estimate), labelled(truth))
    assert found["mean_square"].isnull().all()
    assert found["drift"].notnull().all()
    assert float(found["late"]) > 0


def test_frames_that_a_sequence_lacks_are_left_out():
    truth, estimate = poses_of(helix(20)), poses_of(1.1 * helix(20) + 0.01)
    longer = [np.concatenate([each, np.full((5, 4, 4), np.nan)]) for each in (estimate, truth)]
    short, long = (
        path_parts(labelled(estimate), labelled(truth)),
        path_parts(*map(labelled, longer)),
    )
    np.testing.assert_allclose(long["ate"], short["ate"])
    assert long["drift"][20:].isnull().all()


def test_cameras_apart_in_metres_and_degrees():
    turned = np.eye(4)
    turned[:2, :2] = [[0.5, -(3**0.5) / 2], [3**0.5 / 2, 0.5]]
    turned[:3, 3] = 3, 0, 4
    found = apart(
        xr.DataArray(turned, dims=("row", "col")), xr.DataArray(np.eye(4), dims=("row", "col"))
    )
    np.testing.assert_allclose([found["translation"], found["rotation"]], [5, 60])


def test_one_sequence_that_carries_the_mean_is_named():
    values = xr.DataArray([-0.1, -0.1, -0.1, 1.0], {"sequence": list("abcd")}, "sequence")
    found = attribution.influence(values)
    assert found["flips"].values.tolist() == [False, False, False, True]
    np.testing.assert_allclose(found["without"].sel(sequence="d"), -0.1)
    assert not attribution.influence(abs(values))["flips"].any()


def test_rank_correlations_know_order_and_constants():
    names = {"sequence": list("abcdef")}
    effect = xr.DataArray([1.0, 2, 4, 8, 16, 32], names, "sequence")
    facts = xr.Dataset(
        {
            "motion": ("sequence", [0.0, 1, 2, 3, 4, 5]),
            "speed": ("sequence", [5.0, 4, 3, 2, 1, 0]),
            "texture": ("sequence", [1.0] * 6),
        },
        names,
    )
    found = attribution.rank_correlations(effect, facts)
    np.testing.assert_allclose(found["value"], [1, -1, np.nan])
    assert found["n"].values.tolist() == [6, 6, 6]


def test_split_reads_take_pose_and_depth_from_different_cells():
    cells = cells_of(ate=(10, 20, 0)).assign(abs_rel=cells_of(ate=(1, 2, 0))["ate"])
    found = read_write.split_reads(cells).isel(cue=0, sequence=0)
    split = found.sel(commit="read.split write.gated")
    assert float(split["ate"]) == float(found["ate"].sel(commit="rw.gg"))
    assert float(split["abs_rel"]) == float(found["abs_rel"].sel(commit="rw.pg"))
    reverse = found.sel(commit="read.split_rev write.probe")
    assert float(reverse["ate"]) == float(found["ate"].sel(commit="rw.pp"))
    assert float(reverse["abs_rel"]) == float(found["abs_rel"].sel(commit="rw.gp"))


def test_paths_of_another_design_are_refused():
    with pytest.raises(InvalidArgument, match="paths must be"):
        read_write.commit_of({"read": "gated", "heads": "probe"})
    commits = {
        str(read_write.commit_of({"read": read, "write": write}))
        for read in read_write.LEVELS
        for write in read_write.LEVELS
    }
    assert commits == {"rw.pp", "rw.pg", "rw.gp", "rw.gg"}


@pytest.mark.parametrize(
    ("ate", "rpe", "verdicts", "count"),
    [
        ((20, 10, 0), (-10, -5, 0), [HIGHER, LOWER], 8),
        ((-20, -10, 0), (10, 5, 0), [LOWER, HIGHER], 0),
        ((20, 10, 0), (10, 5, 0), [HIGHER, HIGHER], 0),
        (None, None, None, None),
    ],
)
def test_the_finding_says_what_the_errors_do(ate, rpe, verdicts, count):
    found = attribution.finding(cells_of(ate=ate, rpe=rpe))
    told = [
        found.row(f"{find_metric(name).label} with the own cue").verdict
        for name in attribution.ASKED
    ]
    if verdicts is None:
        assert not {HIGHER, LOWER} & set(told)
        return
    assert told == verdicts
    assert found.row("sequences in which ATE rises and RPE falls, own cue").value == count


def test_the_finding_says_which_path_and_which_sequence():
    cells = cells_of(ate=(0, 30, 0), rpe=(0, -10, 0))
    found = attribution.finding(cells)
    assert found.row("ATE through write, own cue").value == pytest.approx(30, rel=0.01)
    assert found.row("ATE through read, own cue").value == pytest.approx(0, abs=1e-9)
    assert not any("flipped" in each.effect for each in found.rows)
    cells["ate"][{"sequence": slice(0, 7), "read": 1, "write": 1}] = 0.99
    cells["ate"][{"sequence": 7, "read": 1, "write": 1}] = 9.0
    flipped = attribution.finding(cells).row(
        "mean change of ATE, sign flipped without scene-7, own cue"
    )
    assert flipped.value < 0


def test_few_sequences_are_too_few():
    found = attribution.finding(cells_of(count=3, ate=(20, 10, 0), rpe=(-10, -5, 0)))
    assert {each.verdict for each in found.rows[: found.lead]} == {TOO_FEW}


@pytest.fixture(scope="module")
def measured():
    backbone = m3.load_backbone("tiny")
    return read_write.measure_cells(
        backbone, ["scenes/orbit-03", "scenes/fixed-01"], m3.Gate.mut3r(), frames=5, progress=False
    )


def test_cells_hold_what_holds_by_construction(measured):
    plain = measured["pose"].sel(read="probe", write="probe")
    assert (plain == plain.isel(cue=0)).all()
    state = measured["state_distance"]
    assert (state.sel(read="gated", write="probe") < 1e-3).all()
    np.testing.assert_allclose(
        state.sel(read="probe", write="gated"), state.sel(read="gated", write="gated"), rtol=1e-3,
        atol=1e-3,
    )  # fmt: skip
    first = measured["pose"].isel(frame=0)
    np.testing.assert_allclose(
        first.sel(read="probe", write="gated"), first.sel(read="probe", write="probe"), atol=1e-5
    )
    parts = path_parts(measured["pose"], measured["true_pose"])
    np.testing.assert_allclose(
        parts["ate"], measured["ate"].transpose(*parts["ate"].dims), atol=1e-6
    )


def test_a_sequence_without_a_metric_says_why(measured):
    skipped = measured["skipped"].sel(sequence="fixed-01").item()
    assert "stands still" in skipped
    assert measured["ate"].sel(sequence="fixed-01").isnull().all()
    assert measured["abs_rel"].sel(sequence="fixed-01").notnull().all()


def test_paths_of_a_sequence_are_drawn_per_cue(measured):
    figure = show_paths(measured, "orbit-03", PATHS)
    assert [axis.get_title(loc="left") for axis in figure.axes] == measured["cue"].values.tolist()
    assert all(len(axis.lines) == 6 for axis in figure.axes)


@pytest.mark.slow
def test_the_notebook_ends_in_a_computed_attribution(tmp_path):
    notebook = execute_notebook(
        find_notebook(NOTEBOOK),
        {
            "sequences": ["scenes/orbit-03"],
            "frames": 5,
            "out": tmp_path,
            "progress": False,
        },
    )
    (found,) = findings_of(notebook)
    assert found.lead == 4
    for cue in ("own cue", "true mask"):
        paths = {
            name: found.row(f"ATE through {name}, {cue}").value
            for name in ("read", "write", "total")
        }
        assert paths["read"] + paths["write"] == pytest.approx(paths["total"], abs=1e-6)
        assert found.row(f"ATE with the {cue}").value == pytest.approx(paths["total"], abs=1e-6)
    assert {path.suffix for path in Path(tmp_path).iterdir()} == {".pdf"}


@pytest.mark.slow
def test_the_notebook_runs_on_frames_without_truth(tmp_path, shared):
    notebook = execute_notebook(
        find_notebook(NOTEBOOK),
        {
            "backbone": "random:small",
            "sequences": [str(shared / "frames" / "static_room")],
            "frames": 3,
            "out": tmp_path,
            "progress": False,
        },
    )
    (found,) = findings_of(notebook)
    assert found.answer.endswith(NO_TRUTH)
