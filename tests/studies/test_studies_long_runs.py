"""A longer look: windows, the cue over time, and what changes beyond the length of training."""

import numpy as np
import pytest
import xarray as xr

import mut3r_analysis as m3
from mut3r_analysis.notebooks.execution import execute_notebook, find_notebook
from mut3r_analysis.studies import long_runs
from mut3r_analysis.studies.finding import HIGHER, IDENTICAL, LOWER, findings_of
from mut3r_analysis.training.long_trial import ERRORS, RULES, cue_auc, long_test, over_time, windows


@pytest.fixture(scope="module")
def run():
    sequence = m3.open_sequence("scenes:seed=590000,frames=12,movers=2-3,mover_speed=0.4-1.0")
    cue = m3.Cue.oracle()
    return m3.run("tiny", sequence, cue=cue, outputs=("pose", "depth"), progress=False)


def test_windows_are_half_open_and_named_by_their_frames():
    assert list(windows([1, 8, 16])) == [("1-7", slice(1, 7)), ("8-15", slice(8, 15))]


def test_each_window_holds_the_mean_of_its_frames(run):
    found = over_time(run, [1, 8, 12])
    rotation = m3.evaluate(run)["frame_rpe_rotation"].isel(sequence=0)
    expected = [np.nanmean(rotation.values[1:8]), np.nanmean(rotation.values[8:12])]
    np.testing.assert_allclose(found.sel(measure="rotation error (degree)"), expected)
    written = run["state/update_size"].values.mean(axis=1)
    expected = [written[1:8].mean(), written[8:12].mean()]
    np.testing.assert_allclose(found.sel(measure="change of state tokens"), expected)
    assert (found.sel(measure="write rate") == 1).all()


def test_the_true_mask_tells_what_moves_in_every_frame(run):
    areas = cue_auc(run)
    known = areas.notnull()
    assert known.any()
    np.testing.assert_allclose(areas.values[known], 1)


def test_the_finding_compares_the_last_window_with_the_first():
    rng = np.random.default_rng(0)
    early = rng.uniform(1, 2, (1, 8, 1))
    values = xr.DataArray(
        np.concatenate([early, 1.5 * early], axis=2)[:, :, None],
        dims=("model", "sequence", "measure", "window"),
        coords={
            "model": ["tiny"],
            "measure": ["rotation error (degree)"],
            "window": ["1-7", "8-15"],
        },
    )
    (row,) = long_runs.finding(values, ["rotation error (degree)"]).rows
    assert row.effect == "rotation error (degree) of tiny"
    assert row.value == pytest.approx(50)
    assert row.verdict == HIGHER


def test_rules_are_compared_on_the_same_sequences():
    rng = np.random.default_rng(0)
    plain = rng.uniform(1, 2, (1, 8, 1, 2))
    values = xr.DataArray(
        np.concatenate([plain, plain * [1.0, 0.8]]),
        dims=("model", "sequence", "measure", "window"),
        coords={
            "model": ["tiny, cut3r", "tiny, ttt3r"],
            "measure": ["rotation error (degree)"],
            "window": ["1-7", "8-15"],
        },
    )
    found = long_runs.rules_finding(values, ["tiny"], ["cut3r", "ttt3r"], values.measure.values)
    late, early = found.rows
    assert late.effect == "rotation error (degree) of tiny in frames 8-15"
    assert late.value == pytest.approx(-20)
    assert late.verdict == LOWER
    assert early.verdict == IDENTICAL


@pytest.mark.slow
def test_the_notebook_answers(tmp_path):
    notebook = execute_notebook(
        find_notebook("15_a_longer_look"),
        {
            "backbones": ["tiny"],
            "rules": ["cut3r", "ttt3r"],
            "scenes": 2,
            "edges": [1, 4, 8],
            "reset_rules": ["cut3r"],
            "reset_scenes": 2,
            "every": 4,
            "out": tmp_path,
            "progress": False,
        },
    )
    found, less, resets = findings_of(notebook)
    assert found.question == long_runs.QUESTION
    assert len(found.rows) == 2 * len(ERRORS)
    assert less.question == long_runs.RULES_QUESTION
    assert [row.effect for row in less.rows] == [
        f"{measure} of tiny in frames {window}"
        for window in ("4-7", "1-3")
        for measure in list(ERRORS.values())[:2]
    ]
    assert resets.question == long_runs.RESETS_QUESTION
    assert [row.effect for row in resets.rows] == [
        f"{name} under cut3r" for name in ERRORS.values()
    ]


def test_the_long_test_of_a_card_is_the_study_in_numbers():
    found = long_test("tiny", scenes=2, edges=(1, 3, 6))
    assert found["windows"] == ["1-2", "3-5"]
    assert list(found["means"]) == list(RULES)
    rotation = "rotation error (degree)"
    plain, other = (found["means"][rule][rotation] for rule in RULES)
    expected = [100 * (b / a - 1) for a, b in zip(plain, other, strict=True)]
    assert [row[0] for row in found["by_rule"][rotation]] == pytest.approx(expected)
    first, late = found["from_first"]["cut3r"][rotation]
    assert first == [0, 0, 0]
    assert late[0] == pytest.approx(100 * (plain[1] / plain[0] - 1))
    assert found["means"]["cut3r"]["write rate"] == [1, 1]
    assert max(found["means"]["ttt3r"]["write rate"]) < 1


def test_every_rule_is_followed_with_resets_and_without(tmp_path):
    model = m3.load_backbone("tiny")
    scene = "scenes:seed=590000,frames=10,movers=2-3,mover_speed=0.4-1.0"
    cue, rules = m3.Cue.mut3r(), ["cut3r", "const(0.5)"]
    found = long_runs.with_resets(model, [scene], rules, 4, cue, out=tmp_path, progress=False)
    assert found.dims == ("rule", "reset", "sequence", "measure", "frame")
    assert found.shape == (2, 3, 1, 8, 10)
    found = found.isel(sequence=0)
    path = found.sel(measure="distance of aligned cameras (m)")
    assert path.sel(reset=["never", "chained"]).notnull().all()
    assert path.sel(reset="apart").isnull().all()
    # Until the first reset nothing differs; then the state starts anew, and writes whole once.
    states = found.sel(measure=["norm of state tokens", "write rate"])
    np.testing.assert_allclose(
        states.isel(frame=slice(3)).sel(reset="apart"),
        states.isel(frame=slice(3)).sel(reset="never"), rtol=1e-4,
    )  # fmt: skip
    rate = states.sel(rule="const(0.5)", measure="write rate")
    assert rate.sel(reset="never").values.tolist() == [1, *[0.5] * 9]
    assert rate.sel(reset="apart").values.tolist() == [1, 0.5, 0.5, 0.5] * 2 + [1, 0.5]
    # The frame between two parts is read twice: the second reading wrote whole, unrecorded.
    assert rate.sel(reset="chained").values.tolist() == [1, *[0.5] * 9]
    sequence = m3.open_sequence(scene)
    one = m3.run(model, sequence, cue=cue, commit="reset.4 reset.chain", progress=False)
    expected = m3.evaluate(one)["frame_ate"].isel(sequence=0)
    mine = path.sel(rule="cut3r", reset="chained")
    np.testing.assert_allclose(mine, expected, rtol=1e-2, atol=1e-4)


def test_chained_parts_are_held_against_the_run_that_never_starts_anew():
    rng = np.random.default_rng(0)
    never = rng.uniform(1, 2, (2, 1, 8, 1, 2))
    values = xr.DataArray(
        np.concatenate([never, never * np.nan, never * [1.0, 0.75]], axis=1),
        dims=("rule", "reset", "sequence", "measure", "window"),
        coords={
            "rule": ["cut3r", "ttt3r"],
            "reset": ["never", "apart", "chained"],
            "measure": ["rotation error (degree)"],
            "window": ["1-7", "8-15"],
        },
    )
    found = long_runs.resets_finding(values, values.measure.values)
    assert [row.effect for row in found.rows] == [
        "rotation error (degree) under cut3r",
        "rotation error (degree) under ttt3r",
    ]
    assert all(row.value == pytest.approx(-25) and row.verdict == LOWER for row in found.rows)
    assert "frames 8-15" in found.answer
