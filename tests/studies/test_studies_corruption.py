"""Moving content by one path or both: pairs of contents, injections, and the answer."""

from pathlib import Path

import numpy as np
import pytest
import xarray as xr

import mut3r_analysis as m3
from mut3r_analysis.errors import InvalidArgument
from mut3r_analysis.notebooks.execution import execute_notebook, find_notebook
from mut3r_analysis.studies.ablation import PLAIN
from mut3r_analysis.studies.corruption import traces as corruption
from mut3r_analysis.studies.corruption.content_pairs import content_pair
from mut3r_analysis.studies.corruption.figure import show_pair
from mut3r_analysis.studies.corruption.traces import INJECTIONS, inject
from mut3r_analysis.studies.finding import (
    HIGHER,
    IDENTICAL,
    LOWER,
    NOT_SIGNIFICANT,
    TOO_FEW,
    findings_of,
)

NOTEBOOK = "09_state_corruption"
CUES = ["own", "true mask", "true mask, shuffled"]


@pytest.fixture(scope="module")
def backbone():
    return m3.load_backbone("tiny")


@pytest.fixture(scope="module")
def video():
    return m3.open_sequence("scenes/orbit-03", stop=7)


@pytest.fixture(scope="module")
def pair(video):
    return content_pair(video)


@pytest.fixture(scope="module")
def injected(backbone, pair):
    gate = m3.Gate.mut3r(directions=["state_to_image"])
    configurations = {
        "none": {},
        "own": {"cue": m3.Cue.mut3r(), "gate": gate},
        "mask": {"cue": m3.Cue.oracle(), "gate": gate},
    }
    return inject(backbone, pair, configurations)


@pytest.fixture
def photographs():
    frames = np.random.default_rng(0).integers(0, 255, (5, 32, 48, 3), dtype=np.uint8)
    return m3.open_sequence(frames)


def test_contents_differ_within_the_window_only(pair, video):
    start, stop = pair.attrs["start"], pair.attrs["stop"]
    rest, moving = pair["image"].values
    same = (rest == moving).all(axis=(1, 2, 3))
    assert same[:start].all()
    assert not same[start:stop].any()
    assert same[stop:].all()
    np.testing.assert_array_equal(moving[start:stop], video["image"].values[start:stop])
    assert not pair["changed"].values[~np.isin(np.arange(len(same)), range(start, stop))].any()


def test_what_rests_has_no_motion(pair):
    assert not pair["motion_mask"].sel(content="rest").any()
    assert pair["motion_mask"].sel(content="moving").any(("y", "x")).sum() == (
        pair.attrs["stop"] - pair.attrs["start"]
    )


def test_frames_of_any_kind_get_a_square_that_moves(photographs):
    pair = content_pair(photographs, (2, 4))
    rest, moving = pair["image"].values
    assert (rest[:2] == moving[:2]).all()
    assert (rest[4] == moving[4]).all()
    masks = pair["motion_mask"].values
    assert not masks[0].any()
    assert masks[1].sum(axis=(1, 2)).tolist() == [0, 0, 64, 64, 0]
    square = moving[2][masks[1][2]]
    np.testing.assert_array_equal(square, moving[3][masks[1][3]])
    assert (masks[1][2] != masks[1][3]).any()
    differs = (rest != moving).any(axis=-1)
    assert (differs <= pair["changed"].values).all()


def test_a_long_window_keeps_the_square_in_the_image():
    frames = np.zeros((40, 16, 24, 3), np.uint8)
    pair = content_pair(m3.open_sequence(frames), (1, 39))
    assert (pair["motion_mask"].sel(content="moving")[1:39].sum(("y", "x")) == 16).all()


def test_what_moves_in_the_frames_anyway_moves_in_both(photographs):
    mask = np.zeros((5, 32, 48), bool)
    mask[:, :4] = True
    pair = content_pair(photographs.assign(motion_mask=(("frame", "y", "x"), mask)), (2, 4))
    assert pair["motion_mask"].values[:, :, :4].all()


@pytest.mark.parametrize("window", [(0, 2), (3, 3), (2, 5)])
def test_a_window_needs_a_frame_before_and_after(photographs, window):
    with pytest.raises(InvalidArgument, match="one frame before and one after"):
        content_pair(photographs, window)


def test_a_scene_where_nothing_moves_is_refused():
    with pytest.raises(InvalidArgument, match="of the pixels differ"):
        content_pair(m3.open_sequence("scenes/static-01", stop=6))


def test_after_the_window_only_what_was_written_differs(injected):
    after = injected.where(injected["after"] > 0, drop=True)
    for name in ("state", "memory", "translation", "rotation", "depth"):
        assert (after[name].sel(injection="image") == 0).all()
        np.testing.assert_array_equal(
            after[name].sel(injection="both"), after[name].sel(injection="state")
        )
    assert (after["state"].sel(injection="state") > 0).all()


def test_within_the_window_the_paths_are_crossed(injected):
    within = injected.where(injected["in_view"], drop=True)
    assert (within["state"].sel(injection="image") == 0).all()
    assert (within["translation"].sel(injection="image") > 0).all()
    first = within.isel(after=0)
    assert (first["translation"].sel(injection="state") == 0).all()
    np.testing.assert_array_equal(
        first["depth"].sel(injection="image"), first["depth"].sel(injection="both")
    )
    assert (within["translation"].sel(injection="state").isel(after=slice(1, None)) > 0).all()


def test_before_the_window_nothing_differs(injected, pair):
    before = injected.isel(after=slice(0, pair.attrs["start"]))
    assert float(before["state"].max()) == float(before["translation"].max()) == 0


def test_a_true_mask_changes_nothing_in_a_world_at_rest(injected):
    assert float(injected["price"].sel(configuration="mask").max()) < 1e-3
    assert float(injected["price"].sel(configuration="own").max()) > 1e-3
    assert float(injected["price"].sel(configuration="none").max()) == 0


def test_reading_moving_content_is_what_a_fork_does(backbone, pair, injected):
    resting, moving = (
        m3.open_sequence(
            xr.Dataset({"image": pair["image"].sel(content=name, drop=True)}), name="resting"
        )
        for name in ("rest", "moving")
    )
    run = m3.run(backbone, resting, outputs=("pose", "depth"), progress=False)
    at = int(resting["frame"][pair.attrs["start"]])
    fork = m3.fork(run, at, backbone=backbone, sequence=resting, content=moving)
    both = injected.sel(configuration="none", injection="both")
    window = pair.attrs["stop"] - pair.attrs["start"]
    for name in ("translation", "rotation"):
        np.testing.assert_allclose(
            fork[f"{name}_distance"][:window], both[name].where(injected["in_view"], drop=True),
            rtol=1e-3, atol=1e-5,
        )  # fmt: skip


def test_a_pair_is_shown_frame_by_frame(pair):
    figure = show_pair(pair)
    assert len(figure.axes) % 2 == 0
    assert figure.axes[0].get_title().startswith("frame")


def table_of(effects, *, count=8):
    """Injections whose distances after the window change by given percents, per cue."""
    gates = [PLAIN, "state_to_image"]
    dims = ("sequence", "gate", "cue", "injection", "after")
    coords = {
        "sequence": [f"scene-{i}" for i in range(count)],
        "gate": gates,
        "cue": CUES,
        "injection": list(INJECTIONS),
        "after": [0, 1, 2],
    }
    base = np.zeros([len(coords[dim]) for dim in dims])
    base[:, :, :, 2:] = 1 + 0.1 * np.sin(np.arange(count))[:, None, None, None, None]
    base[:, 1] *= 1 + np.asarray(effects)[None, :, None, None] / 100
    measures = ("state", "memory", "translation", "rotation", "depth")
    variables = dict.fromkeys(measures, (dims, base))
    in_view = (("sequence", "after"), np.tile([True, False, False], (count, 1)))
    attrs = {"contents": "a pasted square", "skipped": ""}
    return xr.Dataset({**variables, "in_view": in_view}, coords, attrs)


def test_what_remains_is_the_change_of_the_mean_afterwards():
    left = corruption.remaining(table_of([-30, -60, 0]))
    values = left["value"].sel(measure="state", gate="state_to_image")
    np.testing.assert_allclose(values, [-30, -60, 0], atol=1e-9)
    assert (left["n"] == 8).all()


@pytest.mark.parametrize(
    ("effects", "own", "mask", "place"),
    [
        ((-30, -60, 0), LOWER, LOWER, LOWER),
        ((0, -60, -60), IDENTICAL, LOWER, IDENTICAL),
        ((10, -60, -80), HIGHER, LOWER, HIGHER),
    ],
)
def test_the_finding_follows_the_effects(effects, own, mask, place):
    found = corruption.finding(table_of(effects))
    told = {each.effect: each.verdict for each in found.rows}
    assert told["the trace of motion with the own cue"] == own
    assert told["the trace of motion with the true mask"] == mask
    assert told["the trace of motion with the true mask, against shuffled scores"] == place
    assert [each.value for each in found.rows[: found.lead]] == pytest.approx(list(effects[:2]))


def test_an_effect_of_either_sign_is_not_significant():
    table = table_of((0, 0, 0))
    scale = xr.DataArray([1.3, 0.7] * 4, dims="sequence")
    gated = xr.where(table["gate"] == "state_to_image", scale, 1.0)
    found = corruption.finding(table.assign(state=table["state"] * gated))
    assert {each.verdict for each in found.rows[: found.lead]} == {NOT_SIGNIFICANT}


def test_few_sequences_are_too_few():
    found = corruption.finding(table_of((-30, -60, 5), count=2))
    assert {each.verdict for each in found.rows[: found.lead]} == {TOO_FEW}


def test_a_trace_of_the_image_path_is_not_passed_over():
    table, effect = table_of((0, 0, 0)), "state left behind by frames that are only read"
    table["state"].loc[{"injection": "image"}] = 0.0
    assert corruption.finding(table).row(effect).value == 0
    table["state"].loc[{"injection": "image"}] = 0.5
    assert corruption.finding(table).row(effect).value == 0.5


def test_gates_are_compared_with_none(backbone):
    gates = corruption.gates_by_direction(2.0)
    assert gates[PLAIN] is None
    alone = {name: gate for name, gate in gates.items() if gate and name != corruption.ALL_GATES}
    for name, gate in alone.items():
        others = [other for other in alone if other != name]
        assert getattr(gate, name) is not None
        assert [getattr(gate, other) for other in others] == [None] * len(others)
    with pytest.raises(InvalidArgument, match="compared with"):
        corruption.measure_injections(backbone, [], {"all": gates[corruption.ALL_GATES]})


def test_gates_that_only_read_leave_the_state_as_it_would_be(backbone):
    gate = m3.Gate.mut3r()
    found = corruption.measure_injections(
        backbone,
        ["scenes/orbit-03"],
        {PLAIN: None, "read": gate, "written": gate},
        cues={"own": m3.Cue.mut3r()},
        commits={"read": "rw.gp", "written": "rw.pg"},
        frames=4,
        progress=False,
    ).isel(sequence=0, cue=0)
    state = found["state"].sel(injection="state")
    np.testing.assert_allclose(state.sel(gate="read"), state.sel(gate=PLAIN), atol=1e-3)
    assert (found["price"].sel(gate="written")[-1] > 0.01).all()
    camera = found["translation"].sel(injection="image")
    assert not np.allclose(camera.sel(gate="read"), camera.sel(gate=PLAIN), atol=1e-6)


def test_sequences_that_cannot_be_injected_are_named(backbone):
    gates = {PLAIN: None, "state_to_image": m3.Gate.mut3r()}
    found = corruption.measure_injections(
        backbone,
        ["scenes/orbit-03", "scenes/static-01"],
        gates,
        cues={"own": m3.Cue.mut3r()},
        frames=4,
        progress=False,
    )
    assert found["sequence"].values.tolist() == ["orbit-03"]
    assert found.attrs["skipped"].startswith("static-01: only")
    with pytest.raises(InvalidArgument, match="nothing could be injected"):
        corruption.measure_injections(
            backbone, ["scenes/static-01"], gates, frames=4, progress=False
        )


@pytest.mark.slow
def test_the_notebook_answers(tmp_path):
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
    assert [each.effect for each in found.rows[:3]] == [
        f"the trace of motion with the {cue}"
        for cue in ("own cue", "true mask", "shuffled true mask")
    ]
    assert found.row("state left behind by frames that are written").value > 0
    assert found.row("state left behind by frames that are only read").value == 0
    assert (
        found.row(
            "change of the state at rest by gates in all three directions with the own cue"
        ).value
        > 0
    )
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
    assert "a pasted square" in found.answer
    assert found.rows[0].verdict == TOO_FEW
