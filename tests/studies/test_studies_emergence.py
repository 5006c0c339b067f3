"""The emergence study finds what was planted, and says so when there is nothing to find."""

import nbformat
import numpy as np
import pytest
import torch
import xarray as xr
from PIL import Image

import mut3r_analysis as m3
from mut3r_analysis.errors import InvalidArgument
from mut3r_analysis.metrics.ranking import LEAST_PAIRS, area, frame_wins
from mut3r_analysis.motion import Cue
from mut3r_analysis.notebooks.execution import execute_notebook, find_notebook
from mut3r_analysis.studies.emergence import cells as cue_cells
from mut3r_analysis.studies.emergence.observation import SITES, observe, prepared
from mut3r_analysis.studies.emergence.readings import (
    OVER_TIME,
    SIGNS,
    corner_rank,
    on_grid,
    patch_readings,
    sink_shares,
)
from mut3r_analysis.studies.emergence.survey import (
    CONTROLS_OUT,
    LOCAL,
    OBJECTS,
    PERMUTED,
    TESTS,
    TWIN,
    WHOLE,
    place_auc,
    survey,
)
from mut3r_analysis.studies.emergence.truth import patch_truth
from mut3r_analysis.studies.emergence.twins import frozen_twin, twin_evidence, twin_frames
from mut3r_analysis.studies.finding import (
    HIGHER,
    LOWER,
    NO_TRUTH,
    NOT_SIGNIFICANT,
    TOO_FEW,
    findings_of,
)
from mut3r_analysis.training.evidence import without_controls

NOTEBOOK = "01_motion_cue_emergence"


@pytest.fixture(scope="module")
def tiny():
    return m3.load_backbone("tiny")


@pytest.fixture(scope="module")
def found(tiny):
    scenes = ["scenes/follow-01", "scenes/occlusion-02", "scenes/static-01"]
    return survey(tiny, scenes, frames=3, batch=2, progress=False)


# Separation


def test_pairs_are_those_of_one_frame_with_ties_counted_half():
    rng = np.random.default_rng(1)
    score = rng.integers(0, 4, (2, 3, 12)).astype(float)
    positive = rng.random((3, 12)) < 0.4
    negative = ~positive & (rng.random((3, 12)) < 0.7)
    won, pairs = frame_wins(score, positive, negative)
    for cell in range(2):
        for frame in range(3):
            above = score[cell, frame][positive[frame]][:, None]
            below = score[cell, frame][negative[frame]][None]
            assert won[cell, frame] == (above > below).sum() + 0.5 * (above == below).sum()
            assert pairs[frame] == above.size * below.size


def test_a_score_that_only_follows_the_frames_separates_nothing():
    score = np.broadcast_to(np.arange(4.0)[:, None], (4, 20))
    positive = np.arange(20) < np.arange(4)[:, None] * 3 + 2
    assert area(*frame_wins(score, positive, ~positive)) == 0.5


def test_an_area_of_few_pairs_is_not_given():
    assert np.isnan(area(np.array([3.0]), np.array([LEAST_PAIRS - 1])))
    assert area(np.array([LEAST_PAIRS / 4]), np.array([LEAST_PAIRS])) == 0.25


def test_what_controls_predict_is_taken_out_and_motion_stays():
    rng = np.random.default_rng(2)
    control = rng.normal(size=(2, 3, 30))
    moving = np.zeros((3, 30), bool)
    moving[:, 4:9] = True
    level = rng.normal(size=(3, 1))
    looks = 2 * control[0] - control[1] + level
    rest = without_controls(np.stack([looks, looks + moving]), control, ~moving)
    np.testing.assert_allclose(rest[0], 0, atol=1e-12)
    np.testing.assert_allclose(rest[1], moving, atol=1e-12)


# Readings


def test_stored_statistics_give_the_readings_of_a_cue(tiny):
    video = m3.open_sequence("scenes/orbit-03", stop=3)
    cues = [
        Cue(reading=label.split()[1], site=site)
        for site in ("image_self", "encoder_self")
        for label in SIGNS
        if label not in OVER_TIME and not (site == "encoder_self" and label.startswith("R6"))
    ]
    cues += [Cue(reading="received", site="state_to_image")]
    cues += [Cue(reading="instability", of=name) for name in ("received", "logit_query_mean")]
    with_cues = m3.run_batch(
        tiny, video, [{"cue": cue} for cue in cues], outputs=("pose",), progress=False
    )
    (seen,) = observe(tiny, prepared(tiny, video)[None], Cue.mut3r())
    codes = {label.split()[1]: label for label in SIGNS if label not in OVER_TIME}
    codes |= {"instability": "R5 instability of "}
    for cue, own in zip(cues, with_cues, strict=True):
        label = codes[cue.reading]
        if cue.reading == "instability":
            label += codes[cue.of].split()[0]
        read = patch_readings(seen, cue.site).sel(reading=label, head="mean")
        first = int(cue.reading == "instability")  # without a past there is no instability
        read = on_grid(read, seen.grid, [0, 1, 2]).transpose("frame", "layer", ...)[first:]
        known = own[f"cue/{cue.reading}"].transpose("frame", "layer", ...)[first:]
        np.testing.assert_allclose(read, known, rtol=2e-3, atol=2e-4, err_msg=str(cue))


def test_a_batch_of_clips_says_what_single_runs_say(tiny):
    videos = [m3.open_sequence(f"scenes/{name}", stop=3) for name in ("orbit-03", "slide-01")]
    clips = torch.stack([prepared(tiny, video) for video in videos])
    for video, clip, seen in zip(videos, clips, observe(tiny, clips, Cue.mut3r()), strict=True):
        run = m3.run(tiny, video, cue=Cue.mut3r(), outputs=("pose",), progress=False)
        (alone,) = observe(tiny, clip[None], Cue.mut3r())
        np.testing.assert_allclose(seen.motion, run["cue/motion"].values.reshape(3, -1), atol=1e-4)
        for site in SITES:
            xr.testing.assert_allclose(
                patch_readings(seen, site), patch_readings(alone, site), rtol=1e-3, atol=1e-3
            )


def test_a_state_reading_goes_to_the_patches_that_read_the_state(tiny):
    clip = torch.zeros(1, 2, 3, 48, 64)
    (seen,) = observe(tiny, clip, Cue.mut3r())
    statistics = {"logit_mean": np.full_like(seen.statistics["state_self"]["logit_mean"], 7.0)}
    statistics["received"] = seen.statistics["state_self"]["received"]
    same = seen._replace(statistics=seen.statistics | {"state_self": statistics})
    carried = patch_readings(same, "state_self").sel(reading="R1 logit_key_mean")
    np.testing.assert_allclose(carried, 7.0, rtol=1e-5)  # weights of a patch sum to 1


def test_a_mask_is_no_reading(tiny):
    with pytest.raises(InvalidArgument, match="must read attention"):
        observe(tiny, torch.zeros(1, 2, 3, 48, 64), Cue.oracle())


# Truth, twins, sinks


def square_world():
    """Two objects of one patch each on a grid of 8 px patches; the first one moves."""
    shape = (3, 48, 64)
    instance = np.zeros(shape, np.int64)
    instance[:, 8:16, 8:16] = 1
    instance[:, 24:32, 40:48] = 2
    image = np.zeros((*shape, 3), np.uint8)
    image[1:, 8:16, 8:16] = 255
    return m3.open_sequence(
        xr.Dataset(
            {
                "image": (("frame", "y", "x", "rgb"), image),
                "motion_mask": (("frame", "y", "x"), instance == 1),
                "instance": (("frame", "y", "x"), instance),
                "depth": (("frame", "y", "x"), np.full(shape, 4.0, np.float32)),
            }
        )
    )


def test_truth_is_reduced_to_patches(tiny):
    truth = patch_truth(tiny, square_world())
    moving, resting = 1 * 8 + 1, 3 * 8 + 5
    for name, patch in (("moving", moving), ("resting", resting)):
        assert np.flatnonzero(truth[name].values[1]).tolist() == [patch]
    assert truth["still"].values[1].sum() == 47
    np.testing.assert_allclose(truth["nearness"], 0.25)
    change = truth["frame_difference"].values
    assert np.isnan(change[0]).all()
    assert change[1, moving] == 1
    assert change[1].sum() == 1
    assert truth["object_share"].values[0].sum() == 2


def test_twins_share_one_picture_and_not_the_past():
    scene = m3.open_sequence("scenes/follow-01", stop=5)
    twin = frozen_twin(scene, 4)
    same = (scene["image"] == twin["image"]).all(["y", "x", "rgb"]).values
    assert same[4]
    assert not same[:4].any()
    assert not twin["motion_mask"].any()
    with pytest.raises(InvalidArgument, match="no procedural scene"):
        frozen_twin(square_world(), 1)


def test_twin_frames_have_a_past_and_motion():
    moving = np.zeros((6, 4), bool)
    moving[[0, 2, 3, 5], 1] = True
    truth = xr.Dataset({"moving": (("frame", "patch"), moving)})
    assert twin_frames(truth, 1) == [5]
    assert set(twin_frames(truth, 9)) == {2, 3, 5}
    assert twin_frames(truth.drop_vars("moving"), 1) == []
    assert twin_frames(truth.isel(frame=[0]), 1) == []


def test_a_change_where_things_moved_is_told_from_one_everywhere():
    rng = np.random.default_rng(3)
    other = rng.normal(size=(2, 40))
    moving = np.arange(40) < 8
    own = other.copy()
    own[0, moving] += 10
    own[1] += 10
    separation, locality, change = twin_evidence([(own, other, moving, ~moving)])
    np.testing.assert_allclose(separation, 1)
    np.testing.assert_allclose(locality, [1, 0.5], atol=1e-6)
    assert (change > 0).all()


def test_a_planted_sink_is_found(tiny):
    (seen,) = observe(tiny, torch.zeros(1, 2, 3, 48, 64), Cue.mut3r())
    received = np.zeros_like(seen.statistics["image_self"]["received"])
    received[:, 1, :, 0] = 1.0  # head 1 looks at the pose token only
    statistics = seen.statistics | {"image_self": {"received": received}}
    shares = sink_shares(seen._replace(statistics=statistics)).sel(site="image_self")
    keys = received.shape[-1]
    pose = shares.sel(token="pose token")
    np.testing.assert_allclose(pose.sel(head="1"), keys)
    np.testing.assert_allclose(pose.sel(head="mean"), keys / received.shape[1])
    assert (shares.sel(token="patch (0, 0)") == 0).all()
    assert shares.sel(token="strongest state token").isnull().all()


def test_the_rank_of_the_corner_is_that_among_its_frame():
    assert corner_rank(np.array([[1.0, 0, 0], [0, 1, 1]])) == 0.5
    assert corner_rank(np.array([[1.0, 0, 0], [2, 1, 1]])) == 1


def test_the_place_is_learned_from_other_sequences_only():
    def truth(patch):
        moving = np.zeros((4, 24), bool)
        moving[:, patch] = True
        values = {"moving": (("frame", "patch"), moving), "still": (("frame", "patch"), ~moving)}
        return xr.Dataset(values, attrs={"grid": (4, 6)})

    tested = place_auc([truth(5), truth(5), truth(7), xr.Dataset()]).sel(
        test=WHOLE, control="place"
    )
    assert tested[0] > 0.9
    assert tested[2] < 0.5
    assert np.isnan(tested[3])


# The survey


def test_the_encoder_sees_no_past(found):
    encoder = found.sel(site="encoder_self", sequence="scenes/follow-01")
    one_frame = encoder["auc"].sel(reading=list(cue_cells.OF_ONE_FRAME))
    for test in (TWIN, LOCAL):
        measured = one_frame.sel(test=test).values
        assert set(measured[np.isfinite(measured)]) == {0.5}
    assert not encoder["change"].fillna(0).any()


def test_what_a_sequence_cannot_tell_is_missing(found):
    assert found["truth"].values.tolist() == [
        "motion mask, instances, twin",
        "motion mask, instances, twin",
        "motion mask, instances",
    ]
    assert found["auc"].sel(sequence="scenes/static-01").isnull().all()
    assert found["auc"].sel(sequence="scenes/follow-01", test=OBJECTS).notnull().any()
    assert found["auc"].sel(test=TWIN, reading=list(OVER_TIME)).isnull().all()
    assert found["sink"].sel(site="image_self", token="pose token").notnull().all()
    patches = found["auc"].sel(test=WHOLE, sequence="scenes/follow-01", head="mean", layer=0)
    described = patches.notnull().to_pandas()
    assert (
        described.loc["state_to_image"][lambda row: row]
        .index.str[:2]
        .isin(["R2", "R4", "R5"])
        .all()
    )
    assert not described.loc["image_to_state", ["R2 received", "R4 logit_query_mean"]].any()


def test_the_order_of_sequences_and_batches_does_not_matter(tiny, found):
    other = survey(
        tiny, ["scenes/static-01", "scenes/follow-01"], frames=3, batch=1, progress=False
    )
    names = ["whole image", "against resting objects", "against twins at rest"]
    for name in ("auc", "cue_auc"):
        ours, theirs = (
            each[name].sel(sequence="scenes/follow-01", test=names) for each in (found, other)
        )
        assert abs(ours - theirs).max() < 0.02  # rounding may swap near ties


def test_sequences_with_and_without_truth_stand_side_by_side(tiny, tmp_path):
    rng = np.random.default_rng(6)
    for frame in range(2):
        pixels = rng.integers(0, 255, (72, 64, 3), np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"{frame}.png")
    found = survey(tiny, [str(tmp_path), "scenes/follow-01"], frames=3, progress=False)
    assert found["truth"].values.tolist() == ["none", "motion mask, instances, twin"]
    known = found["cue_auc"].sel(test=WHOLE).notnull()
    assert known.values.tolist() == [False, True]
    assert found["sink"].sel(site="image_self", token="pose token").notnull().all()
    assert cue_cells.finding(found).answer.startswith(NO_TRUTH)


def test_the_same_sequence_twice_is_refused(tiny):
    with pytest.raises(InvalidArgument, match="all different"):
        survey(tiny, ["scenes/orbit-03", "scenes/orbit-03"], progress=False)


# The choice and the sentence

PLANTED = {"site": "image_self", "reading": "R3 entropy", "layer": 2, "head": "1"}


def table(sequences=24, planted=0.0, twin=None, noise=0.05, seed=0, at=PLANTED):
    """Build a survey whose AUC is chance everywhere but in one cell."""
    rng = np.random.default_rng(seed)
    coords = {
        "sequence": [f"s{i}" for i in range(sequences)],
        "test": list(TESTS),
        "site": list(SITES),
        "reading": list(SIGNS),
        "layer": range(4),
        "head": ["mean", "0", "1"],
    }
    shape = [len(values) for values in coords.values()]
    auc = xr.DataArray(0.5 + noise * rng.standard_normal(shape), coords)
    for test in (OBJECTS, WHOLE):
        auc.loc[at | {"test": test}] += planted
    for test in (TWIN, LOCAL):
        auc.loc[at | {"test": test}] += planted if twin is None else twin
    of_cue = 0.5 + noise * rng.standard_normal((sequences, len(TESTS)))
    return xr.Dataset(
        {
            "auc": auc,
            "cue_auc": (("sequence", "test"), of_cue),
            "control_auc": (
                ("sequence", "control", "test"),
                np.tile([[0.6], [0.8]], (sequences, 1, len(TESTS))),
            ),
        },
        {"control": ["contrast", "place"]},
    )


def verdicts(found):
    return {each.effect: each.verdict for each in cue_cells.finding(found).rows}


def test_the_planted_cell_is_chosen_and_holds_up():
    found = table(planted=0.3)
    cell = cue_cells.chosen_cells(found)[cue_cells.BEST]
    assert cell._asdict() == PLANTED | {"sign": 1}
    assert cell.as_declared
    said = cue_cells.finding(found)
    assert "R3 entropy at image_self, layer 2, head 1; high values mean motion" in said.answer
    best = said.row(f"{cue_cells.BEST}, {OBJECTS}")
    assert best.value == pytest.approx(0.8, abs=0.03)
    assert (best.n, best.verdict) == (12, HIGHER)
    assert said.row(f"{cue_cells.BEST}, {LOCAL}").verdict == HIGHER


def test_a_reading_that_points_the_other_way_is_turned():
    cell = cue_cells.chosen_cells(table(planted=-0.3))[cue_cells.BEST]
    assert cell.sign == -1
    assert cell.signed_code == "−R3"
    said = cue_cells.finding(table(planted=-0.3)).answer
    assert "low values mean motion, opposite to the declared sign" in said


def test_the_finding_follows_the_data():
    elsewhere = PLANTED | {"site": "state_to_image", "layer": 3}
    assert "state_to_image, layer 3" in cue_cells.finding(table(planted=0.3, at=elsewhere)).answer
    looks_only = verdicts(table(planted=0.3, twin=0.0))
    assert looks_only[f"{cue_cells.BEST}, {LOCAL}"] == NOT_SIGNIFICANT
    few = verdicts(table(sequences=6, planted=0.3))
    assert few[f"{cue_cells.BEST}, {OBJECTS}"] == TOO_FEW
    found = table(planted=0.3)
    assert cue_cells.finding(found).row(f"place, without a model, {WHOLE}").value == (
        pytest.approx(0.8)
    )
    found["auc"].loc[PLANTED | {"test": CONTROLS_OUT[WHOLE]}] -= 0.05
    share = cue_cells.finding(found).row("share of the whole image that controls explain")
    assert share.value == pytest.approx(100 * 0.35 / 0.3, abs=5)


def test_the_cue_is_judged_by_each_test_on_its_own():
    found = table(planted=0.3)
    found["cue_auc"][:] = 0.5 + 0.01 * (-1) ** np.arange(24)[:, None]
    found["cue_auc"].loc[{"test": [CONTROLS_OUT[OBJECTS], LOCAL]}] += 0.2
    told = verdicts(found)
    assert told[f"{cue_cells.CUE}, {OBJECTS}"] == NOT_SIGNIFICANT
    assert told[f"{cue_cells.CUE}, {CONTROLS_OUT[OBJECTS]}"] == HIGHER
    assert told[f"{cue_cells.CUE}, {LOCAL}"] == HIGHER
    found["cue_auc"] -= 0.4
    assert verdicts(found)[f"{cue_cells.CUE}, {OBJECTS}"] == LOWER


def test_the_deciding_test_is_told_with_its_controls():
    found = table(planted=0.3)
    rest = f"{cue_cells.BEST}, {CONTROLS_OUT[OBJECTS]}"
    found["auc"].loc[PLANTED | {"test": CONTROLS_OUT[OBJECTS]}] = 0.5 + 0.01 * (
        (-1) ** (np.arange(24) // 2)
    )
    assert verdicts(found)[rest] == NOT_SIGNIFICANT
    found["auc"].loc[PLANTED | {"test": CONTROLS_OUT[OBJECTS]}] += 0.2
    found["control_auc"].loc[{"control": "contrast", "test": OBJECTS}] = 0.1
    told = verdicts(found)
    assert told[rest] == HIGHER
    assert told[f"contrast, without a model, {OBJECTS}"] == LOWER


def test_the_control_without_a_past_reads_one_frame_only():
    over_time = PLANTED | {"site": "encoder_self", "reading": OVER_TIME[0]}
    found = table(planted=0.4, at=over_time)
    looks = over_time | {"reading": "R1 logit_key_mean"}
    found["auc"].loc[looks | {"test": OBJECTS}] += 0.2
    cells = cue_cells.chosen_cells(found)
    assert cells[cue_cells.ENCODER].reading == "R1 logit_key_mean"
    looks = cue_cells.finding(found).row(f"{cue_cells.ENCODER}, {OBJECTS}")
    assert looks.value == pytest.approx(0.7, abs=0.05)


def test_every_reading_is_defined():
    defined = cue_cells.definitions().set_index("reading")
    assert defined.index.tolist() == list(SIGNS)
    assert defined.loc["R2 received"].tolist() == ["M mean_i p_ij", "low"]
    assert set(defined.loc[list(OVER_TIME), "read as motion"]) == {"high"}


def test_chance_is_not_sold_as_a_finding():
    told = verdicts(table(sequences=40, noise=0.1, seed=4))
    assert told[f"{cue_cells.BEST}, {OBJECTS}"] == NOT_SIGNIFICANT


def test_a_choice_that_does_not_hold_up_is_below_chance():
    found = table(planted=0.3)
    found["auc"].loc[PLANTED | {"test": [OBJECTS, LOCAL]}] -= 0.6 * (np.arange(24) % 2)[:, None]
    assert verdicts(found)[f"{cue_cells.BEST}, {OBJECTS}"] == LOWER


def test_choosing_flatters_and_permuted_labels_show_it():
    measured = cue_cells.selection(table(sequences=16, noise=0.2, seed=5))["value"]
    assert (measured.sel(half="chose") > 0.55).all()
    assert (abs(measured.sel(half="unseen") - 0.5) < measured.sel(half="chose") - 0.5).all()


def test_without_resting_objects_the_whole_image_is_tested():
    found = table(planted=0.3)
    found["auc"].loc[{"test": [OBJECTS, CONTROLS_OUT[OBJECTS], TWIN, LOCAL]}] = np.nan
    found["cue_auc"].loc[{"test": [OBJECTS, CONTROLS_OUT[OBJECTS], TWIN, LOCAL]}] = np.nan
    assert cue_cells.choosing_tests(found) == [WHOLE]
    told = verdicts(found)
    assert told[f"{cue_cells.BEST}, {WHOLE}"] == HIGHER
    assert not any(OBJECTS in effect or TWIN in effect for effect in told)


def test_without_ground_truth_nothing_is_claimed():
    found = table()[["control_auc"]].drop_vars("control_auc")
    said = cue_cells.finding(found)
    assert said.answer.startswith(NO_TRUTH)
    assert cue_cells.chosen_cells(found) == {}


def test_controls_explain_what_vanishes_with_them():
    areas = xr.DataArray(np.full((8, len(TESTS)), 0.5), {"test": list(TESTS)}, ("sequence", "test"))
    areas.loc[{"test": WHOLE}] = np.linspace(0.7, 0.9, 8)
    assert float(cue_cells.explained(areas)["value"]) == pytest.approx(100)
    areas.loc[{"test": CONTROLS_OUT[WHOLE]}] = areas.sel(test=WHOLE) * 0.5 + 0.25
    assert float(cue_cells.explained(areas)["value"]) == pytest.approx(50)


def test_figures_show_the_half_that_did_not_choose():
    found = table(planted=0.3)
    _, half = cue_cells.halves(found)
    assert half["sequence"].values.tolist() == [f"s{i}" for i in range(1, 24, 2)]
    grid = cue_cells.layers_and_heads(found, OBJECTS).sel(panel="image_self, +R3")
    wanted = half["auc"].sel(PLANTED, drop=True).sel(test=OBJECTS).mean()
    assert float(grid.sel(layer=2, head="1")) == pytest.approx(float(wanted))
    lines = cue_cells.over_layers(found, [OBJECTS, PERMUTED])
    assert set(lines["value"].dims) == {"site", "test", "layer"}


# The notebook


def test_the_emergence_notebook_is_committed_clean():
    notebook = nbformat.read(find_notebook(NOTEBOOK), as_version=nbformat.NO_CONVERT)
    nbformat.validate(notebook)
    code = [each for each in notebook.cells if each.cell_type == "code"]
    assert all(not each.outputs and each.execution_count is None for each in code)
    assert len({each.id for each in notebook.cells}) == len(notebook.cells)


def outputs(notebook, name):
    (cell,) = (each for each in notebook.cells if each.id == name)
    return [output for output in cell.outputs if "data" in output]


@pytest.mark.slow
def test_the_emergence_notebook_answers_with_scenes():
    notebook = execute_notebook(
        find_notebook(NOTEBOOK),
        {
            "sequences": [
                f"scenes/{name}" for name in ("follow-01", "occlusion-02", "slide-01", "orbit-03")
            ],
            "drawn": 0,
            "frames": 3,
            "progress": False,
        },
    )
    (said,) = findings_of(notebook)
    best = said.row(f"{cue_cells.BEST}, {OBJECTS}")
    assert (best.n, best.verdict) == (2, TOO_FEW)
    for name in ("main-figure", "table", "over-layers", "controls", "readings", "change",
                 "sinks"):  # fmt: skip
        assert any("image/png" in output["data"] for output in outputs(notebook, name)), name


@pytest.mark.slow
def test_the_emergence_notebook_shows_folders_without_ground_truth(shared):
    folder = str(shared / "frames" / "walking_woman")
    notebook = execute_notebook(
        find_notebook(NOTEBOOK),
        {
            "backbone": "random:small",
            "sequences": [folder],
            "drawn": 0,
            "frames": 3,
            "progress": False,
        },
    )
    (said,) = findings_of(notebook)
    assert said.answer.startswith(NO_TRUTH)
    assert not outputs(notebook, "main-figure")
    assert len(outputs(notebook, "maps")) == 2
    assert any("image/png" in output["data"] for output in outputs(notebook, "sinks"))
