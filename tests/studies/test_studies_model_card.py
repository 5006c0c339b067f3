"""The model card as tables, figures and sentences: they say what the card holds."""

import copy
import json

import nbformat
import numpy as np
import pytest

from mut3r_analysis.data import data_path
from mut3r_analysis.errors import UnreadableFile
from mut3r_analysis.notebook import execute_notebook, find_notebook
from mut3r_analysis.studies.finding import findings_of
from mut3r_analysis.studies.model_card import tables
from mut3r_analysis.studies.model_card.finding import (
    gating_by_truth,
    late_change,
    learned,
    motion_in_attention,
)
from mut3r_analysis.training.card_words import cell_name

NOTEBOOK = "13_model_card"


@pytest.fixture(scope="module")
def bundled():
    return tables.find_card("tiny")


@pytest.fixture
def card(bundled):
    return copy.deepcopy(bundled)


def test_a_card_is_found_by_name_and_beside_a_checkpoint(bundled, tmp_path):
    assert bundled["name"] == "tiny"
    beside = tmp_path / "other.safetensors"
    (tmp_path / "other.json").write_text(data_path("checkpoints", "tiny.json").read_text())
    assert tables.find_card(str(beside)) == bundled
    assert tables.find_card("random:small") is None
    assert tables.find_card(str(tmp_path / "official.pth")) is None


@pytest.mark.parametrize("text", ["{", "[]", json.dumps({"format": "something else"})])
def test_what_is_no_card_is_refused(tmp_path, text):
    (tmp_path / "other.json").write_text(text)
    with pytest.raises(UnreadableFile, match="model card"):
        tables.find_card(str(tmp_path / "other.safetensors"))


def test_a_target_is_reached_from_a_share_of_one_on(card):
    held = tables.targets(card)
    before = [row for row in card["targets"] if row["set"] == "before training"]
    assert held["target"].values.tolist() == [row["target"] for row in before]
    assert (held["lower"] <= held["value"]).all()
    assert (held["value"] <= held["upper"]).all()
    plain = np.array(["interval" not in name for name in held["target"].values])
    np.testing.assert_array_equal(held["value"].values[plain] >= 1, held["reached"].values[plain])
    below = next(row for row in card["targets"] if not row["above"])
    share = held["value"].sel(target=below["target"])
    assert float(share) == pytest.approx(below["bound"] / below["value"][0])


def test_areas_stand_by_what_was_asked_and_how_their_cell_was_named(card):
    found = tables.areas(card)
    rows = [row for row in card["targets"] if row["target"].startswith("AUC")]
    assert found["value"].size == len(rows)
    for row in rows:
        words = [str(name).split(": ") for name in found["cell"].values]
        ((how, cell),) = (each for each in words if f"a {each[0]} ({each[1]})" in row["target"])
        (asked,) = (name for name in found["asked"].values if f"{name}, " in row["target"])
        held = found.sel(cell=f"{how}: {cell}", asked=asked)
        assert [float(held[name]) for name in ("value", "lower", "upper")] == row["value"]


def test_tables_hold_the_numbers_of_the_card(card):
    eight = card["scores"]["moving"]["8"]["model"]["ate_ratio"]
    found = tables.scores(card).sel(scenes="moving", score=tables.RATIOS["ate_ratio"])
    assert [float(found[name].sel(length=8)) for name in ("value", "lower", "upper")] == eight
    assert np.isnan(found["value"].sel(length=2))
    last = card["curve"][-1]
    curve = tables.curve(card).sel(length=int(last["length"]), frames=last["frames"] / 1e3)
    assert curve.values.tolist() == [last[name] for name in tables.RATIOS]
    axes = tables.correlations(card).sel(length=int(last["length"]), frames=last["frames"] / 1e3)
    assert float(axes.sel(axis="yaw")) == last["correlation_yaw"]
    chosen = tables.cues(card)["value"].sel(against=tables.AGAINST["twin"])
    row = [str(name).startswith("chosen: ") for name in chosen["cell"].values].index(True)
    assert float(chosen[row]) == card["cue_test"]["best"]["twin"][0]
    assert tables.probe(card).sizes["layer"] == card["config"]["dec_depth"]
    gates = card["gating_test"]["trained"]["gates"]
    first = next(iter(gates))
    changed = tables.gating(card)["value"].sel(gate=first, error="depth", mask="own masks")
    assert float(changed) == gates[first]["depth"]["oracle"][0]


def test_the_sentence_on_targets_follows_the_card(card):
    before = learned(card)
    reached = [row for row in card["targets"] if row["set"] == "before training" and row["reached"]]
    assert before.values["reached"] == [row["target"] for row in reached]
    assert before.values["missed"] == [
        row["target"]
        for row in card["targets"]
        if row["set"] == "before training" and not row["reached"]
    ]
    for row in card["targets"]:
        row["reached"] = "yaw" not in row["target"]
        if "yaw" in row["target"]:
            row["value"] = [0.7, 0.6, 0.85]
    card["scores"]["moving"]["8"]["model"]["ate_ratio"] = [0.123, 0.1, 0.2]
    after = learned(card)
    count = len(before.values["reached"] + before.values["missed"])
    assert f"It reaches {count - 1} of {count} targets" in after.answer
    assert (
        "It misses correlation of predicted and true yaw above 0.8, T = 2: 0.70 [0.60, 0.85]."
        in (after.answer)
    )
    assert "whole interval beyond the bound" in after.answer
    assert "0.12 [0.10, 0.20] of a straight line's" in after.answer
    for row in card["targets"]:
        row["reached"] = True
    assert "It misses none." in learned(card).answer


def test_the_sentence_on_training_says_whether_scores_still_fell(card):
    seen = {row["frames"] for row in card["curve"]}
    for row in card["curve"]:
        late = row["frames"] > 0.95 * max(seen)
        row |= dict.fromkeys(tables.RATIOS, 0.5 if late else 0.75)
    assert late_change(card).values == pytest.approx(-0.25)
    assert "-0.25" in learned(card).answer
    assert "still falling" in learned(card).answer
    for row in card["curve"]:
        row |= dict.fromkeys(tables.RATIOS, 0.75)
    assert "none was still falling" in learned(card).answer
    card["curve"] = []
    assert "last tenth" not in learned(card).answer


@pytest.mark.parametrize(
    ("low", "rest", "said"),
    [
        (0.51, 0.51, "above chance, also beyond the nuisances"),
        (0.51, 0.49, "above chance, but not beyond the nuisances"),
        (0.49, 0.51, "not both are above chance"),
    ],
)
def test_the_sentence_on_attention_follows_the_intervals(card, low, rest, said):
    best = card["cue_test"]["best"]
    best |= {name: [0.6, low, 0.7] for name in ("objects", "twin")}
    best["objects_without_nuisances"] = [0.61, rest, 0.7]
    found = motion_in_attention(card)
    assert f"(0.61 [{rest}, 0.70] with nuisances" in found.answer
    (chosen,) = [part for part in found.answer.split(". ") if part.startswith("The cell that half")]
    assert chosen.endswith(said)
    assert found.values["chosen twin"] == [0.6, low, 0.7]


def test_the_sentence_on_attention_counts_the_cells_above_chance(card):
    for number, row in enumerate(card["cue_test"]["declared_later"]):
        row |= {name: [0.7, 0.6 if number else 0.4, 0.8] for name in ("objects", "twin")}
    count = len(card["cue_test"]["declared_later"])
    said = f"{count - 1} of these {count} tell both apart above chance"
    assert said in motion_in_attention(card).answer


@pytest.mark.parametrize(("high", "said"), [(0.47, "so it is confounded"), (0.55, "not told from")])
def test_the_linear_probe_is_told_with_what_it_finds_at_rest(card, high, said):
    for row in card["cue_test"]["probe"]:
        row["at_rest"] = [0.41, 0.36, high]
    assert f"at rest it has 0.41 [0.36, {high}]" in motion_in_attention(card).answer
    assert said in motion_in_attention(card).answer.rsplit("at rest", 1)[1]


def test_the_sentence_on_gates_names_the_errors_that_changed(card):
    gates = card["gating_test"]["trained"]["gates"]
    first = next(iter(gates))
    for errors in gates.values():
        for row in errors.values():
            row |= {"oracle": [0.0, -1.0, 1.0], "shuffled": [2.0, 1.0, 3.0]}
    gates[first]["depth"]["oracle"] = [-2.0, -3.0, -1.0]
    found = gating_by_truth(card)
    assert f"{first}: own masks lower depth and raise none;" in found.answer
    assert "another clip's masks lower none and raise all." in found.answer
    assert found.values[f"{first}, own masks"] == {"lowered": ["depth"], "raised": []}
    assert len(found.values[f"{first}, another clip's masks"]["raised"]) == 5


def test_the_sentence_on_attention_names_the_strongest_cell_declared_later(card):
    for number, row in enumerate(card["cue_test"]["declared_later"]):
        row |= {"objects": [0.6 + 0.1 * number, 0.55, 0.9], "twin": [0.9, 0.55, 0.95]}
    found = motion_in_attention(card)
    last = card["cue_test"]["declared_later"][-1]
    assert found.values["declared later objects"] == last["objects"]
    assert cell_name(last) in found.answer
    assert (tables.cues(card)["cell"] == f"declared later: {cell_name(last)}").sum() == 1


@pytest.mark.parametrize(("low", "said"), [(0.51, "choice holds"), (0.49, "does not hold")])
def test_the_sentence_on_other_scenes_follows_their_intervals(card, low, said):
    card["cue_test"]["again"] = {**card["cue_test"]["best"], "twin": [0.6, low, 0.7]}
    card["cue_test"]["again"]["objects"] = [0.61, 0.55, 0.7]
    found = motion_in_attention(card)
    assert said in found.answer
    assert f"and from its frozen twin with 0.60 [{low}, 0.70]" in found.answer


def test_the_card_notebook_is_committed_clean():
    notebook = nbformat.read(find_notebook(NOTEBOOK), as_version=nbformat.NO_CONVERT)
    nbformat.validate(notebook)
    code = [each for each in notebook.cells if each.cell_type == "code"]
    assert all(not each.outputs and each.execution_count is None for each in code)


@pytest.mark.slow
def test_the_card_notebook_answers_on_the_bundled_model(bundled):
    notebook = execute_notebook(find_notebook(NOTEBOOK), {"frames": 3, "progress": False})
    whole, cue, gates = findings_of(notebook)
    assert whole.answer == learned(bundled).answer
    assert cue.answer == motion_in_attention(bundled).answer
    assert gates.answer == gating_by_truth(bundled).answer


@pytest.mark.slow
def test_the_card_notebook_shows_a_model_without_a_card(shared):
    notebook = execute_notebook(
        find_notebook(NOTEBOOK),
        {
            "backbone": "random:small",
            "sequence": str(shared / "frames" / "dog_and_geese"),
            "frames": 3,
            "progress": False,
        },
    )
    assert not list(findings_of(notebook))
