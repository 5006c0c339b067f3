"""Sweeps give what single runs give, do nothing twice, and never mix what changed."""

import json
from collections import Counter

import numpy as np
import pytest
import xarray as xr
from PIL import Image

import mut3r_analysis as m3
from mut3r_analysis.errors import InvalidArgument, MissingFile, UnreadableFile
from mut3r_analysis.sweeps import gather

SCENES = ["scenes/orbit-03", "scenes/slow-01"]
SMALL = {"frames": "0:4", "outputs": ("pose", "depth"), "progress": False}


def units(folder):
    """How often each run was done, by the ledger."""
    entries = [json.loads(path.read_text()) for path in (folder / "units").glob("*.json")]
    return Counter(digest for entry in entries for digest in entry["runs"])


def scores_of(table):
    """All of a table but where its runs are and how long they took."""
    return table.drop_vars(["run", "seconds"]).drop_attrs(deep=False)


@pytest.fixture(scope="module")
def swept(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sweep")
    grid = {"gate.layers": [(0, 2), (0, 4)], "gate.beta": [0.5, 2.0]}
    return m3.sweep("tiny", SCENES, grid=grid, out=folder, **SMALL), folder, grid


def test_the_result_is_labelled_by_what_varies(swept):
    table, _, _ = swept
    assert table["ate"].dims == ("gate_layers", "gate_beta", "sequence")
    assert table["frame_abs_rel"].dims == (*table["ate"].dims, "frame")
    assert table["gate_layers"].values.tolist() == ["[0, 2)", "[0, 4)"]
    assert table["gate_beta"].values.tolist() == [0.5, 2.0]
    assert table["sequence"].values.tolist() == ["orbit-03", "slow-01"]
    assert (table["status"] == "done").all()
    assert table["ate"].attrs["units"] == "m"


def test_every_cell_equals_its_run_alone(swept):
    table, _, _ = swept
    backbone = m3.load_backbone("tiny", device="cpu")
    for scene in SCENES:
        sequence = m3.open_sequence(scene, stop=4)
        for layers, beta in (((0, 2), 0.5), ((0, 4), 2.0)):
            run = m3.run(
                backbone,
                sequence,
                cue=m3.Cue.mut3r(),
                gate=m3.Gate.mut3r(layers=layers, beta=beta),
                outputs=SMALL["outputs"],
                progress=False,
            )
            name = sequence.attrs["name"]
            cell = table.sel(gate_layers=f"[0, {layers[1]})", gate_beta=beta, sequence=name)
            stored = m3.open_run(str(cell["run"].item()))
            for variable in ("depth", "pose"):
                one, other = run[f"prediction/{variable}"], stored[f"prediction/{variable}"]
                np.testing.assert_allclose(other, one, rtol=1e-5, atol=1e-5)
            alone = m3.evaluate(run)
            for metric in ("abs_rel", "rpe_translation", "rpe_rotation"):
                assert float(cell[metric]) == pytest.approx(float(alone[metric][0]), rel=1e-4)


def test_a_second_start_does_nothing_and_gives_the_same(swept):
    table, folder, grid = swept
    before = units(folder)
    again = m3.sweep("tiny", SCENES, grid=grid, out=folder, **SMALL)
    assert units(folder) == before
    assert again.identical(table)
    assert m3.open_sweep(folder).identical(table)


def test_a_changed_value_runs_what_it_affects_and_nothing_else(swept, tmp_path):
    _, folder, _ = swept
    before = units(folder)
    grid = {"gate.layers": [(0, 2), (0, 4)], "gate.beta": [0.5, 3.0]}
    plan = m3.plan("tiny", SCENES, grid=grid, out=folder, frames="0:4", outputs=("pose", "depth"))
    assert (plan.runs, plan.runs_done) == (8, 4)
    m3.sweep("tiny", SCENES, grid=grid, out=folder, **SMALL)
    fresh = units(folder) - before
    assert len(fresh) == 4
    assert not set(fresh) & set(before)


def test_another_checkpoint_shares_nothing(tmp_path):
    first = m3.load_backbone("random:small", device="cpu", seed=0)
    second = m3.load_backbone("random:small", device="cpu", seed=1)
    settings = {**SMALL, "configurations": [{}], "frames": "0:2"}
    m3.sweep(first, SCENES[:1], out=tmp_path, **settings)
    table = m3.sweep({"a": first, "b": second}, SCENES[:1], out=tmp_path, **settings)
    assert table["ate"].dims == ("backbone", "configuration", "sequence")
    assert sorted(units(tmp_path).values()) == [1, 1]


def test_one_changed_frame_runs_its_sequence_again(tmp_path):
    rng = np.random.default_rng(0)
    for name in ("a", "b"):
        (tmp_path / "clips" / name).mkdir(parents=True)
        for frame in range(3):
            pixels = rng.integers(0, 255, (48, 64, 3), np.uint8)
            Image.fromarray(pixels).save(tmp_path / "clips" / name / f"{frame}.png")
    settings = {"configurations": [{}], "out": tmp_path / "out", **SMALL}
    table = m3.sweep("tiny", str(tmp_path / "clips" / "*"), **settings)
    assert table["sequence"].values.tolist() == ["a", "b"]
    assert all("truth" in text for text in table["skipped"].values.ravel())
    Image.fromarray(rng.integers(0, 255, (48, 64, 3), np.uint8)).save(
        tmp_path / "clips" / "b" / "1.png"
    )
    again = m3.sweep("tiny", str(tmp_path / "clips" / "*"), **settings)
    same = again["run"] == table["run"]
    assert same.sel(sequence="a").all()
    assert not same.sel(sequence="b").any()
    assert sorted(units(tmp_path / "out").values()) == [1, 1, 1]


def test_what_fails_is_recorded_and_takes_nothing_with_it(tmp_path):
    whole = m3.open_sequence(SCENES[0], stop=3)
    blind = m3.open_sequence(whole.drop_vars("motion_mask"), name="blind")
    oracle = {"cue": m3.Cue(reading="mask", normaliser="raw"), "gate": m3.Gate.mut3r()}
    settings = {"configurations": {"plain": {}, "oracle": oracle}, "out": tmp_path, **SMALL}
    table = m3.sweep("tiny", [whole, blind], **settings)
    status = table["status"].sel(configuration="oracle")
    assert status.values.tolist() == ["done", "failed"]
    assert (table["status"].sel(configuration="plain") == "done").all()
    failed = table.sel(configuration="oracle", sequence="blind")
    assert "motion_mask" in str(failed["error"].item())
    assert np.isnan(float(failed["ate"]))
    traces = [
        outcome["traceback"]
        for path in (tmp_path / "units").glob("*.json")
        for outcome in json.loads(path.read_text())["runs"].values()
    ]
    assert any("InvalidArgument" in text for text in traces)
    before = units(tmp_path)
    m3.sweep("tiny", [whole, blind], **settings)
    tried_again = units(tmp_path) - before
    assert sum(tried_again.values()) == 1


def test_nothing_starts_when_no_sequence_can_take_a_configuration(tmp_path):
    deep = {"gate.layers": [(0, 99)]}
    with pytest.raises(InvalidArgument, match="layers"):
        m3.sweep("tiny", SCENES, grid=deep, out=tmp_path / "out", **SMALL)
    assert not (tmp_path / "out").exists()


def test_a_protocol_added_later_scores_finished_runs_without_running_them(swept, monkeypatch):
    _, folder, grid = swept

    def refuse(*args, **kwargs):
        raise AssertionError("a finished run was run again")

    monkeypatch.setattr("mut3r_analysis.sweeps.working.run_batch", refuse)
    table = m3.sweep("tiny", SCENES, grid=grid, out=folder, protocol="default:pose:sim3", **SMALL)
    assert (table["status"] == "done").all()
    assert "ate" in table
    assert "abs_rel" not in table


def test_gather_brings_a_variable_of_all_runs_together(swept):
    table, folder, grid = swept
    table = m3.sweep("tiny", SCENES, grid=grid, out=folder, **SMALL)
    norms = gather(table, "state/norm")
    assert norms.dims == ("gate_layers", "gate_beta", "sequence", "frame", "state_token")
    for beta in table["gate_beta"].values:
        cell = table.sel(gate_layers="[0, 4)", gate_beta=beta, sequence="slow-01")
        run = m3.open_run(str(cell["run"].item()))
        found = norms.sel(gate_layers="[0, 4)", gate_beta=beta, sequence="slow-01")
        np.testing.assert_array_equal(found, run["state/norm"])
    one = gather(table.isel(gate_layers=0, gate_beta=0, sequence=0), "state/norm")
    assert one.dims == ("frame", "state_token")
    pytest.importorskip("dask.array")
    lazy = gather(table, "state/norm", chunks="auto")
    assert lazy.chunks is not None
    np.testing.assert_array_equal(lazy, norms)
    with pytest.raises(InvalidArgument, match="hold no"):
        gather(table, "state/nothing")


def test_processes_give_what_this_process_gives(swept, tmp_path):
    table, _, grid = swept
    other = m3.sweep("tiny", SCENES, grid=grid, out=tmp_path, workers=2, **SMALL)
    xr.testing.assert_allclose(scores_of(other), scores_of(table), rtol=1e-3, atol=1e-4)


def test_runs_name_an_opened_folder_as_it_names_itself_and_see_that_it_was_changed(tmp_path):
    rng = np.random.default_rng(0)
    (tmp_path / "clip").mkdir()
    for frame in range(2):
        pixels = rng.integers(0, 255, (48, 64, 3), np.uint8)
        Image.fromarray(pixels).save(tmp_path / "clip" / f"{frame}.png")
    opened = m3.open_sequence(tmp_path / "clip")
    settings = {"configurations": [{}], "out": tmp_path / "out", "outputs": ("pose",)}
    table = m3.sweep("tiny", opened, progress=False, **settings)
    run = m3.open_run(tmp_path / "out" / str(table["run"].item()))
    assert run.attrs["sequence"]["sha256"] == opened.attrs["sha256"]
    darker = opened.assign(image=opened["image"] // 2)
    again = m3.sweep("tiny", darker, progress=False, **settings)
    assert again["run"].item() != table["run"].item()


def test_processes_need_what_they_can_open(tmp_path):
    here = m3.open_sequence(np.zeros((2, 48, 64, 3), np.uint8))
    with pytest.raises(InvalidArgument, match="other processes cannot open"):
        m3.sweep("tiny", here, configurations=[{}], out=tmp_path, workers=1, progress=False)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"batch": 0}, "batch"),
        ({"workers": -1}, "workers"),
        ({"frames": "a:b"}, "START:STOP"),
        ({"protocol": "nothing"}, "nothing"),
        ({"capture": "all"}, "Capture"),
    ],
)
def test_arguments_that_cannot_mean_anything_are_refused(changes, words, tmp_path):
    settings = {**SMALL, "configurations": [{}], **changes}
    with pytest.raises(InvalidArgument, match=words):
        m3.sweep("tiny", SCENES[:1], out=tmp_path / "out", **settings)


def test_a_folder_that_holds_no_sweep_is_named(tmp_path):
    with pytest.raises(MissingFile, match=r"sweep\.json"):
        m3.open_sweep(tmp_path)
    (tmp_path / "sweep.json").write_text("{")
    with pytest.raises(UnreadableFile, match="damaged"):
        m3.open_sweep(tmp_path)


def test_a_plan_prices_without_running(tmp_path):
    plan = m3.plan("tiny", SCENES, grid={"gate.beta": [1.0, 2.0]}, frames="0:4")
    assert (plan.units, plan.runs, plan.runs_done, plan.frames_left) == (2, 4, 0, 16)
    assert plan.stored_bytes > 0
    assert plan.seconds > 0
    assert "4 runs in 2 units" in str(plan)
