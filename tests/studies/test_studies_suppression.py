"""Suppression depth: ranges, changes, controls and what is said about them."""

import numpy as np
import pytest
import xarray as xr

from mut3r_analysis.errors import InvalidArgument
from mut3r_analysis.foundation.layers import range_label
from mut3r_analysis.motion.gate import Gate
from mut3r_analysis.notebooks.execution import execute_notebook, find_notebook
from mut3r_analysis.studies import measures
from mut3r_analysis.studies.ablation import (
    PLAIN,
    SHUFFLED,
    against,
    against_control,
    best,
    chosen_elsewhere,
    counted,
)
from mut3r_analysis.studies.finding import (
    HIGHER,
    IDENTICAL,
    LOWER,
    NO_TRUTH,
    TOO_FEW,
    findings_of,
    row,
)
from mut3r_analysis.studies.suppression import depths as suppression
from mut3r_analysis.studies.suppression.depths import beside_paper, paper_table

NOTEBOOK = "02_suppression_depth"
RANGES = suppression.layer_ranges(6, [(0, 6), (0, 12)])
CUES = suppression.cues()
ABLATION = suppression.ablation(RANGES, CUES, beta=2.0)
SEQUENCES = [f"clip-{number}" for number in range(8)]


def scores(effects, seed=0):
    """A scored sweep with depth and pose errors: plain times 1 + the effect of a configuration."""
    rng = np.random.default_rng(seed)
    labels = [PLAIN, *ABLATION.design]
    level = rng.uniform(0.5, 1.5, len(SEQUENCES))
    tables = {}
    for name, metric in (("default:depth:metric", "abs_rel"), ("default:pose:sim3", "ate")):
        noise = 1 + 0.001 * rng.standard_normal((len(labels), len(SEQUENCES)))
        factor = np.array([1 + effects.get((metric, label), 0.0) for label in labels])
        tables[name] = xr.Dataset(
            {metric: (("configuration", "sequence"), level * factor[:, None] * noise)},
            coords={"configuration": labels, "sequence": SEQUENCES},
        )
    found = measures.errors(tables)
    plain = found.sel(configuration=PLAIN, drop=True)
    return ABLATION.unfolded(found), plain


def test_at_the_depth_of_the_paper_its_ranges_are_taken_as_they_are():
    ranges = suppression.layer_ranges(12)
    wanted = [f"[{start}, {stop})" for start, stop in suppression.PAPER_RANGES]
    assert ranges["layers"].values.tolist() == wanted
    assert ranges["asked"].values.tolist() == wanted
    assert ranges.attrs["note"] == ""


@pytest.mark.parametrize("depth", [1, 2, 3, 4, 6, 7, 12, 24])
def test_ranges_scale_as_gates_do_and_none_is_kept_twice(depth):
    ranges = suppression.layer_ranges(depth)
    labels = ranges["layers"].values.tolist()
    assert len(set(labels)) == len(labels)
    stands_for = " ".join(ranges["asked"].values.tolist())
    for start, stop in suppression.PAPER_RANGES:
        scaled = Gate.mut3r(layers=(start, stop), of_depth=12).layer_range(depth)
        label = range_label(scaled.start, scaled.stop)
        asked = range_label(start, stop)
        assert (label in labels) == (len(scaled) > 0)
        assert (asked in ranges.attrs["empty"]) == (len(scaled) == 0)
        assert (asked in stands_for) == (len(scaled) > 0)


def test_ranges_that_fall_together_or_vanish_are_named():
    note = suppression.layer_ranges(4)["layers"], suppression.layer_ranges(4).attrs["note"]
    assert "[0, 2) and [0, 4) are both [0, 1) here" in note[1]
    assert "Nothing is left of [0, 2)" in suppression.layer_ranges(2).attrs["note"]
    with pytest.raises(InvalidArgument, match="no range"):
        suppression.layer_ranges(1, [(0, 2)])


def test_every_cue_runs_on_every_range_beside_its_shuffled_control():
    runs = ABLATION.configurations
    assert runs[PLAIN] == {}
    assert len(runs) == 1 + len(CUES) * RANGES.sizes["layers"]
    for label, levels in ABLATION.design.items():
        shuffled = levels["cue"].endswith(SHUFFLED)
        assert (runs[label]["cue"].control == "shuffle") == shuffled
        assert runs[label]["gate"].beta == 2.0
        gated = runs[label]["gate"].layers
        assert range_label(gated.start, gated.stop) == levels["layers"]
    assert not any(name.startswith("oracle") for name in suppression.cues(oracle=False))


def test_changes_are_those_that_were_put_in():
    errors, plain = scores({("abs_rel", "own cue [0, 3)"): -0.2, ("ate", "oracle cue [0, 6)"): 0.1})
    found = against(errors, plain)["value"]
    depth, pose = measures.leading(errors)
    assert float(found.sel(measure=depth, cue="own cue", layers="[0, 3)")) == pytest.approx(
        -20, abs=0.5
    )
    assert float(found.sel(measure=pose, cue="oracle cue", layers="[0, 6)")) == pytest.approx(
        10, abs=0.5
    )
    assert float(found.sel(measure=pose, cue="own cue", layers="[0, 3)")) == pytest.approx(
        0, abs=0.5
    )


def test_a_gain_that_shuffled_scores_share_is_none_against_them():
    both = {("abs_rel", f"own cue{ending} [0, 3)"): -0.2 for ending in ("", SHUFFLED)}
    errors, plain = scores(both)
    name = measures.leading(errors)[0]
    cell = {"measure": name, "cue": "own cue", "layers": "[0, 3)"}
    assert row("", against(errors, plain).sel(cell)).verdict == LOWER
    assert float(against_control(errors)["value"].sel(cell)) == pytest.approx(0, abs=0.5)
    with pytest.raises(InvalidArgument, match="control"):
        against_control(errors.sel(cue=["own cue"]))


def verdicts(effects, count=8):
    errors, plain = scores(effects)
    kept = {"sequence": slice(0, count)}
    said = suppression.finding(errors.isel(kept), plain.isel(kept))
    return {each.effect: each.verdict for each in said.rows}, said


def test_the_finding_follows_the_data():
    gain, said = verdicts({("abs_rel", "own cue [0, 3)"): -0.2})
    assert gain["depth AbsRel (metric) with the own cue"] == LOWER
    assert gain["depth AbsRel (metric) with the own cue, [0, 3), the best"] == LOWER
    best = "depth AbsRel (metric) with the own cue, [0, 3)"
    assert gain[f"{best}, against shuffled scores"] == LOWER
    told = said.row("depth AbsRel (metric) with the own cue")
    assert told.value == pytest.approx(-20, abs=0.5)
    assert said.headline.startswith("Gating layers chosen on other sequences lowers depth AbsRel")
    assert told.magnitude in said.headline

    shared = {("abs_rel", f"own cue{ending} [0, 6)"): -0.2 for ending in ("", SHUFFLED)}
    other, _ = verdicts(shared)
    assert other["depth AbsRel (metric) with the own cue"] == LOWER
    best = "depth AbsRel (metric) with the own cue, [0, 6)"
    assert other[f"{best}, against shuffled scores"] != LOWER

    worse = {(metric, label): 0.3 for metric in ("abs_rel", "ate") for label in ABLATION.design}
    _, said = verdicts(worse)
    assert [each.verdict for each in said.rows[: said.lead]] == [HIGHER] * 4

    few, said = verdicts({("abs_rel", "own cue [0, 3)"): -0.2}, count=3)
    assert set(few.values()) == {TOO_FEW}
    assert "too few" in said.answer


def test_on_one_sequence_no_range_can_be_chosen_elsewhere():
    found, said = verdicts({("ate", "own cue [0, 3)"): -0.2}, count=1)
    assert set(found.values()) <= {TOO_FEW, IDENTICAL}
    assert "ATE (Sim3) with the own cue, [0, 3), the best" in found
    assert "at the best layers" in said.answer


def test_a_choice_made_elsewhere_pays_for_being_lucky():
    # Each option is best on one sequence only, where all its merit comes from.
    lucky = xr.DataArray(
        1.0 - 0.5 * np.eye(4), dims=("option", "sequence"), coords={"option": list("abcd")}
    )
    assert float(lucky.mean("sequence").min()) < 1
    found = chosen_elsewhere(lucky, "option")
    np.testing.assert_array_equal(found["error"], np.ones(4))
    assert all(pick != "abcd"[place] for place, pick in enumerate(found["chosen"].values.tolist()))


def test_a_choice_made_elsewhere_finds_what_is_best_everywhere():
    errors = xr.DataArray([[3.0, 4.0, 5.0], [1.0, 2.0, np.nan]], dims=("option", "sequence"))
    errors = errors.assign_coords(option=["bad", "good"])
    found = chosen_elsewhere(errors, "option")
    assert set(found["chosen"].values.tolist()) == {"good"}
    np.testing.assert_array_equal(found["error"], [1.0, 2.0, np.nan])
    assert best(errors, "option").item() == "good"
    with pytest.raises(InvalidArgument, match="at least two"):
        chosen_elsewhere(errors.isel(sequence=[0]), "option")


def test_a_choice_can_be_made_on_other_renderings_of_other_scenes():
    tested = xr.DataArray([[1.0, 1.0], [5.0, 6.0]], dims=("option", "sequence"))
    tested = tested.assign_coords(option=[0, 1])
    found = chosen_elsewhere(tested, "option", learned=tested.isel(option=[1, 0]).copy(
        data=tested.values))  # fmt: skip
    np.testing.assert_array_equal(found["chosen"], [1, 1])
    np.testing.assert_array_equal(found["error"], [5.0, 6.0])


def test_errors_are_named_by_metric_and_alignment_and_missing_ones_left_out():
    values = xr.DataArray([[1.0, 2.0]], dims=("configuration", "sequence"))
    table = xr.Dataset(
        {
            "abs_rel": values,
            "ate": values,
            "rpe_rotation": values,
            "rpe_translation": values * np.nan,
        },
        coords={"configuration": ["plain"], "sequence": ["a", "b"]},
    )
    table["ate"].attrs["units"] = "m"
    found = measures.errors({"default": table, "default:depth:scale_shift_lstsq": table})
    assert found["measure"].values.tolist() == [
        "depth AbsRel (median scale)", "depth AbsRel (scale and shift)", "ATE (Sim3)",
        "RPE rotation",
    ]  # fmt: skip
    assert measures.leading(found) == ["depth AbsRel (median scale)", "ATE (Sim3)"]
    assert found["units"].sel(measure="ATE (Sim3)").item() == "m"
    assert measures.scoring("default:depth:scale_shift_lstsq").align == "scale_shift_lstsq"
    nothing = measures.errors({"default": table * np.nan})
    assert nothing.sizes["measure"] == 0
    assert measures.leading(nothing) == []


def test_choices_are_counted():
    errors, _ = scores({("ate", "own cue [0, 6)"): -0.2})
    chosen = chosen_elsewhere(errors, "layers")["chosen"]
    found = counted(chosen, "measure", "cue", errors["layers"].values)
    assert found.loc["ATE (Sim3)", "own cue"] == "[0, 6): 8"


def test_published_rows_stand_beside_the_range_they_scale_to():
    paper = paper_table()
    asked = [range_label(*bounds) for bounds in suppression.PAPER_RANGES]
    assert float(paper["change"].sel(asked="none")) == 0
    assert set(paper["asked"].values.tolist()) <= {"none", *asked}
    errors, plain = scores({})
    changes = against(errors, plain)
    ranges = [(0, 2), (0, 6), (0, 12)]
    scaled = suppression.layer_ranges(6, [(0, 6), (0, 12)])
    table = beside_paper(scaled, changes, measures.leading(errors)[0], ranges)
    assert table["layers here"].to_dict() == {
        "none": "none", "[0, 2)": "none", "[0, 6)": "[0, 3)", "[0, 12)": "[0, 6)"
    }  # fmt: skip
    assert table.loc["[0, 6)", "own cue"].endswith(f"(n = {len(SEQUENCES)})")


@pytest.mark.slow
def test_the_notebook_answers_on_scenes(tmp_path):
    notebook = execute_notebook(
        find_notebook(NOTEBOOK),
        {
            "sequences": ["scenes/orbit-03", "scenes/tumble-01"],
            "frames": 3,
            "ranges": [[0, 6]],
            "protocols": ["default:depth:metric", "default:pose:sim3"],
            "out": tmp_path,
            "progress": False,
        },
    )
    (found,) = findings_of(notebook)
    assert found.question == suppression.QUESTION
    assert found.lead == 4
    assert {each.n for each in found.rows} == {2}
    assert {each.verdict for each in found.rows} <= {TOO_FEW, IDENTICAL}


@pytest.mark.slow
def test_the_notebook_runs_on_real_frames(tmp_path, shared):
    folder = shared / "frames" / "static_room"
    if not folder.is_dir():
        pytest.skip(f"no frames at {folder}")
    notebook = execute_notebook(
        find_notebook(NOTEBOOK),
        {
            "backbone": "random:small",
            "sequences": [str(folder)],
            "frames": 2,
            "ranges": [[0, 6]],
            "out": tmp_path,
            "protocols": ["default"],
            "progress": False,
        },
    )
    (found,) = findings_of(notebook)
    assert found.answer.endswith(NO_TRUTH)
    assert {each.effect for each in found.rows} == {
        "depth changed, [0, 2)", "camera moved, [0, 2)"
    }  # fmt: skip
