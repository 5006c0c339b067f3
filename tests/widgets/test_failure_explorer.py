"""The failure explorer shows what the evaluation found, and leads to the patch behind it."""

import numpy as np
import pytest
import xarray as xr

import mut3r_analysis as m3
from mut3r_analysis.errors import InvalidArgument
from mut3r_analysis.widgets import FailureExplorer
from mut3r_analysis.widgets.failures import frame_series


@pytest.fixture(scope="module")
def scores(archived) -> xr.Dataset:
    return m3.evaluate(archived)


@pytest.fixture
def explorer(archived, cued, scene, scores) -> FailureExplorer:
    runs = {"plain": archived, "gated": cued}
    return FailureExplorer(runs, scene, scores=dict.fromkeys(runs, scores))


def test_strips_are_the_evaluation_frame_by_frame(explorer, archived, scores):
    _, (values,) = explorer.answer({"ask": "strips"})
    names = [each["name"] for each in explorer.held["series"]]
    assert names[:4] == ["abs_rel", "ate", "rpe_translation", "rpe_rotation"]
    assert {"state_update", "cue_mass"} <= set(names)
    values = values.reshape(len(names), 2, len(explorer.held["frames"]))
    for at, name in enumerate(names[:4]):
        expected = scores[f"frame_{name}"].isel(sequence=0).values.astype(np.float32)
        np.testing.assert_array_equal(values[at, 0], expected)
        np.testing.assert_array_equal(explorer.series(name, "gated").values, expected)
    update = archived["state/update_size"].mean("state_token").values
    np.testing.assert_array_equal(values[names.index("state_update"), 0], update)


def test_the_cue_mass_is_the_mean_motion_score(explorer, cued):
    expected = cued["cue/motion"].mean(["patch_row", "patch_col"]).values
    np.testing.assert_allclose(explorer.series("cue_mass", "gated").values, expected, rtol=1e-6)
    assert np.isnan(explorer.series("cue_mass", "plain").values).all()


def test_the_error_map_is_what_the_score_averages(explorer, scores):
    """The mean of |aligned - true| / true over the frame's pixels is its relative error."""
    for frame in (0, 2):
        explorer.frame = frame
        error = explorer.error_map("plain")
        expected = float(scores["frame_abs_rel"].isel(sequence=0).sel(frame=frame))
        assert float(np.nanmean(error)) == pytest.approx(expected, rel=1e-5)


def test_frames_are_ranked_by_the_chosen_run_and_by_the_difference(archived, cued, scores):
    worse = scores.copy(deep=True)
    worse["frame_ate"] = scores["frame_ate"] + xr.DataArray([0.0, 5.0, 1.0], dims="frame")
    explorer = FailureExplorer(
        {"plain": archived, "gated": cued}, scores={"plain": scores, "gated": worse}
    )
    assert explorer.rank == "difference"
    explorer.metric = "ate"
    assert explorer.worst(2) == [1, 2]
    explorer.rank = "plain"
    expected = np.argsort(-scores["frame_ate"].isel(sequence=0).values)
    assert explorer.worst() == expected.tolist()


def test_a_metric_that_should_be_high_is_ranked_from_below(archived, scores):
    explorer = FailureExplorer(archived, scores=scores, metrics=["delta_1"])
    values = scores["frame_delta_1"].isel(sequence=0).values
    assert explorer.worst()[0] == int(np.argmin(values))


def test_a_clicked_patch_is_held_in_a_linked_attention_explorer(explorer):
    attention = explorer.attention_explorer(site="image_self")
    explorer.frame, explorer.layer = 2, 3
    explorer.patch = {"patch_row": 4, "patch_col": 1}
    assert (attention.frame, attention.layer, attention.pinned) == (2, 3, True)
    assert attention.token == {"token": "patch", "patch_row": 4, "patch_col": 1}
    attention.site = "state_self"
    explorer.patch = {"patch_row": 0, "patch_col": 1}
    assert attention.token["token"] == "state"


def test_a_run_without_truth_shows_its_state(archived):
    bare = archived.copy()
    del bare["truth"]
    explorer = FailureExplorer(bare)
    assert [each["name"] for each in explorer.held["series"]] == ["state_update"]
    content, arrays = explorer.answer({"ask": "frame", "frame": 1})
    # Nothing is grey: where no error is known, depth is shown.
    (at,) = content["maps"]
    np.testing.assert_array_equal(arrays[at], bare["prediction/depth"].sel(frame=1).values)
    assert explorer.held["map"]["title"] == "depth (no truth to compare with)"
    assert explorer.figure() is not None


def test_what_does_not_fit_is_refused_in_words(archived, cued, scores):
    with pytest.raises(InvalidArgument, match="metric per frame must be one of abs_rel"):
        frame_series(archived, scores, ["beauty"])
    with pytest.raises(InvalidArgument, match="scores of each run"):
        FailureExplorer({"plain": archived, "gated": cued}, scores=scores)
    with pytest.raises(InvalidArgument, match="sequence must be other; got 'orbit-03'"):
        FailureExplorer(archived, scores=scores.assign_coords(sequence=["other"]))
    explorer = FailureExplorer(archived, scores=scores)
    with pytest.raises(InvalidArgument, match="metric must be one of"):
        explorer.metric = "beauty"
    with pytest.raises(InvalidArgument, match=r"frames must be among .*got \[9\]"):
        explorer.save_html("page.html", frames=[9])


def test_figure_and_page_are_made(explorer, tmp_path):
    assert explorer.save_html(tmp_path / "failures.html").stat().st_size > 10_000
    figure = explorer.figure(size="column")
    labels = [axis.get_title(loc="left") for part in figure.subfigs for axis in part.axes]
    assert "AbsRel" in labels
    assert "plain" in labels


def deeper(run: xr.DataTree, frame: int, row: int, column: int) -> xr.DataTree:
    """The run with one patch of a frame twice as deep."""
    predicted = run["prediction"].to_dataset().load()
    depth = predicted["depth"].copy()
    depth.loc[{"frame": frame}][8 * row : 8 * row + 8, 8 * column : 8 * column + 8] *= 2
    changed = run.copy()
    changed["prediction"] = xr.DataTree(predicted.assign(depth=depth))
    return changed


def test_two_runs_are_drawn_by_their_difference_on_one_scale(archived, scene, scores):
    changed = deeper(archived, 1, 4, 2)
    runs = {"plain": archived, "changed": changed}
    explorer = FailureExplorer(runs, scene, scores=dict.fromkeys(runs, scores))
    explorer.frame = 1
    found = explorer.difference_map()
    np.testing.assert_array_equal(
        found, explorer.error_map("changed") - explorer.error_map("plain")
    )
    assert set(np.argwhere(found)[:, 0] // 8) == {4}
    assert set(np.argwhere(found)[:, 1] // 8) == {2}
    content, arrays = explorer.answer({"ask": "frame", "frame": 1})
    np.testing.assert_array_equal(arrays[content["difference"]], found)
    assert content["worst_patch"] == [4, 2]
    every = [explorer._error(name, frame) for name in runs for frame in (0, 1, 2)]
    expected = np.nanpercentile(np.concatenate([each.ravel() for each in every]), 98)
    assert explorer.held["map"]["high"] == pytest.approx(float(expected))
    assert explorer.held["difference"]["title"] == "changed minus plain"
    titles = [axis.get_title(loc="left") for axis in explorer.figure().subfigs[1].axes]
    assert "changed minus plain" in titles
    with pytest.raises(InvalidArgument, match="there is one run; give two"):
        FailureExplorer(archived, scene, scores=scores).difference_map()


def test_without_truth_two_runs_are_ranked_and_drawn_by_their_depth(archived, scene):
    plain, changed = archived.copy(), deeper(archived, 2, 0, 5)
    for run in (plain, changed):
        del run["truth"]
    # The median over pixels is what ranks: change more than half of them.
    depth = changed["prediction/depth"].load().copy()
    depth.loc[{"frame": 1}] *= 1.1
    changed["prediction"] = xr.DataTree(changed["prediction"].to_dataset().assign(depth=depth))
    explorer = FailureExplorer({"plain": plain, "changed": changed}, scene)
    assert explorer.metric == "depth_difference"
    assert explorer.worst(1) == [1]
    assert float(explorer.series("depth_difference", "changed").sel(frame=1)) == pytest.approx(
        100 * np.log(1.1), rel=1e-4
    )
    explorer.frame = 2
    found = explorer.difference_map()
    assert found[0, 8 * 5] == pytest.approx(100 * np.log(2), rel=1e-4)
    assert found[40, 0] == 0
    assert explorer.held["difference"]["bar"] == "change of log depth, %"


@pytest.fixture(scope="module")
def gated_at_a_head(model, scene) -> dict[str, xr.DataTree]:
    """A plain run, and one gated at head 1 of layer 2, whose cue is the plain one's."""
    gate = m3.Gate.at({"image_to_state": "output_scale"}, layers=(2, 3), heads=(1,))
    parts = {"plain": {}, "gated": {"cue": m3.Cue.mut3r(), "gate": gate}}
    return {name: m3.run(model, scene, progress=False, **more) for name, more in parts.items()}


def test_heads_are_ranked_and_opened_in_both_runs(model, scene, gated_at_a_head):
    explorer = FailureExplorer(gated_at_a_head, scene, backbone=model)
    explorer.frame = 0
    place = {"frame": 0, "patch_row": 3, "patch_col": 1}
    content, _ = explorer.answer({"ask": "heads", **place})
    first = content["heads"][0]
    assert (first["site"], first["layer"], first["head"]) == ("image_to_state", 2, 1)
    assert content["layers"][0]["layer"] == 2
    assert content["label"] == "change of what heads write (share of its norm)"
    explorer.patch = {"patch_row": 3, "patch_col": 1}
    changes = explorer.head_changes()
    assert float(changes.sel(site="image_to_state", layer=2, head=1)) == pytest.approx(
        first["size"]
    )
    shown, _ = explorer.answer({"ask": "attention held", "frame": 0})
    assert shown["held"]["runs"] == ["plain", "gated"]
    row = {"site": "image_to_state", "frame": 0, "layer": 2, "heads": [1], "show": "weights"}
    asked = {"ask": "attention row", **row, "side": "query", "token": 1 + 3 * 8 + 1}
    _, rows = explorer.answer(asked)
    assert len(rows) == 2
    assert rows[0].sum() == pytest.approx(1, abs=1e-2)


def test_heads_of_runs_without_attention_say_what_is_missing(scene, gated_at_a_head, tmp_path):
    explorer = FailureExplorer(gated_at_a_head, scene)
    explorer.frame = 0
    with pytest.raises(InvalidArgument, match=r"no attention of frame 0; give .*backbone="):
        explorer.head_changes()
    # A page says it, too.
    page = explorer.save_html(tmp_path / "page.html").read_text(encoding="utf-8")
    assert "these runs kept no attention of frame 0" in page


def test_explorers_say_what_they_are(explorer):
    assert repr(explorer).startswith("Failure explorer of plain, gated (orbit-03, 3 frames)")


@pytest.fixture(scope="module")
def table(model, scene, tmp_path_factory) -> xr.Dataset:
    """Two kinds of gates at two strengths, on one scene."""
    gates = {"mut3r": m3.Gate.mut3r(), "keys": m3.Gate(image_self="key_bias")}
    return m3.sweep(
        model, scene, grid={"gate": gates, "gate.beta": [0.5, 2.0]},
        out=tmp_path_factory.mktemp("sweep"), outputs=("pose", "depth"), progress=False,
    )  # fmt: skip


def cells(**labels) -> dict:
    return {"one": {"gate": "mut3r", "gate_beta": 2.0}, "other": {"gate": "mut3r"} | labels}


def test_cells_of_a_sweep_are_explored_by_their_labels(table, scene):
    cell = {"gate": "keys", "gate_beta": 0.5}
    explorer = FailureExplorer.of_sweep(table, "orbit-03", cells(**cell), scene, metrics=["ate"])
    assert explorer.held["runs"] == ["one", "other"]
    first, second = explorer.held["gates"]
    assert "beta 2;" in first
    assert "image_to_state" in first
    assert second.startswith("image_self key_bias")
    assert "beta 0.5;" in second
    for name, labels in cells(**cell).items():
        expected = table["frame_ate"].sel(labels).sel(sequence="orbit-03").values
        np.testing.assert_allclose(explorer.series("ate", name).values, expected, rtol=1e-5)
    assert explorer.answer({"ask": "frame", "frame": 1})[0]["image"] is not None


def test_a_cell_that_is_not_one_finished_run_is_refused(table):
    explore = FailureExplorer.of_sweep
    with pytest.raises(InvalidArgument, match=r"no cell gate='mut3r', gate_beta=7.*\[0.5, 2.0\]"):
        explore(table, "orbit-03", cells(gate_beta=7.0))
    with pytest.raises(InvalidArgument, match="sequence='elsewhere'; it has"):
        explore(table, "elsewhere", cells(gate_beta=0.5))
    with pytest.raises(InvalidArgument, match=r"no cell .*colour='red'"):
        explore(table, "orbit-03", cells(gate_beta=0.5, colour="red"))
    with pytest.raises(InvalidArgument, match="leaves gate_beta open; give a label for each"):
        explore(table, "orbit-03", cells())
    unfinished = table.copy(deep=True)
    unfinished["run"].loc[{"gate": "mut3r", "gate_beta": 0.5}] = ""
    with pytest.raises(InvalidArgument, match=r"gate_beta=0.5.* is not finished"):
        explore(unfinished, "orbit-03", cells(gate_beta=0.5))
    with pytest.raises(InvalidArgument, match=r"m3\.sweep or m3\.open_sweep"):
        explore(table.drop_vars("run"), "orbit-03", cells(gate_beta=0.5))
