"""The model card as tables, figures and findings: they say what the card holds."""

import copy
import json

import nbformat
import numpy as np
import pytest

from mut3r_analysis.errors import UnreadableFile
from mut3r_analysis.foundation.bundled import data_path
from mut3r_analysis.notebooks.execution import execute_notebook, find_notebook
from mut3r_analysis.studies.finding import HIGHER, LOWER, NOT_SIGNIFICANT, findings_of
from mut3r_analysis.studies.model_card import tables
from mut3r_analysis.studies.model_card.tables import (
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
    changed = tables.gating(card)["value"].sel(gate=first, error="depth error", mask="true masks")
    assert float(changed) == gates[first]["depth"]["oracle"][0]


def test_the_finding_on_targets_follows_the_card(card):
    held = [row for row in card["targets"] if row["set"] == "before training"]
    before = learned(card).row("targets reached")
    assert (before.value, before.n) == (sum(row["reached"] for row in held), len(held))
    for row in card["targets"]:
        row["reached"] = "yaw" not in row["target"]
        if "yaw" in row["target"]:
            row["value"] = [0.7, 0.6, 0.75]
    card["scores"]["moving"]["8"]["model"]["ate_ratio"] = [0.123, 0.1, 0.2]
    after = learned(card)
    missed = "correlation of predicted and true yaw above 0.8, T = 2 (missed)"
    assert after.row("targets reached").value == len(held) - 1
    assert f"{len(held) - 1} of {len(held)} targets" in after.answer
    assert after.row(missed).verdict == LOWER
    path = after.row("ATE / a straight line's, 8 frames")
    assert (path.value, path.lower, path.upper, path.verdict) == (0.123, 0.1, 0.2, LOWER)
    card["scores"]["moving"]["8"]["model"]["ate_ratio"] = [1.2, 0.9, 1.4]
    assert learned(card).row(path.effect).verdict == NOT_SIGNIFICANT
    for row in card["targets"]:
        row["reached"] = True
    assert not any("(missed)" in row.effect for row in learned(card).rows)


def test_the_finding_tells_how_scores_changed_at_the_end_of_training(card):
    seen = {row["frames"] for row in card["curve"]}
    for row in card["curve"]:
        late = row["frames"] > 0.95 * max(seen)
        row |= dict.fromkeys(tables.RATIOS, 0.5 if late else 0.75)
    assert late_change(card).values == pytest.approx(-0.25)
    late = [row for row in learned(card).rows if "last tenth" in row.effect]
    assert [row.value for row in late] == pytest.approx([-0.25] * len(tables.RATIOS))
    card["curve"] = []
    assert not any("last tenth" in row.effect for row in learned(card).rows)


@pytest.mark.parametrize(
    ("low", "rest", "verdicts"),
    [
        (0.51, 0.51, [HIGHER, HIGHER, HIGHER]),
        (0.51, 0.49, [HIGHER, NOT_SIGNIFICANT, HIGHER]),
        (0.49, 0.51, [NOT_SIGNIFICANT, HIGHER, NOT_SIGNIFICANT]),
    ],
)
def test_the_finding_on_attention_follows_the_intervals(card, low, rest, verdicts):
    best = card["cue_test"]["best"]
    best |= {name: [0.6, low, 0.7] for name in ("objects", "twin")}
    best["objects_without_nuisances"] = [0.61, rest, 0.7]
    found = motion_in_attention(card)
    names = ("objects", "objects_without_nuisances", "twin")
    told = [found.row(f"chosen: {cell_name(best)}, {tables.AGAINST[name]}") for name in names]
    assert [row.verdict for row in told] == verdicts
    assert [told[2].value, told[2].lower, told[2].upper] == [0.6, low, 0.7]


def test_the_finding_on_attention_counts_the_cells_above_chance(card):
    later = card["cue_test"]["declared_later"]
    for number, row in enumerate(later):
        row |= {name: [0.7, 0.6 if number else 0.4, 0.8] for name in ("objects", "twin")}
    count = motion_in_attention(card).row("cells declared later with both AUCs above chance")
    assert (count.value, count.n) == (len(later) - 1, len(later))


@pytest.mark.parametrize(("high", "verdict"), [(0.47, LOWER), (0.55, NOT_SIGNIFICANT)])
def test_the_linear_probe_is_told_with_what_it_finds_at_rest(card, high, verdict):
    for row in card["cue_test"]["probe"]:
        row["at_rest"] = [0.41, 0.36, high]
    (rest,) = [
        row
        for row in motion_in_attention(card).rows
        if "probe" in row.effect and row.effect.endswith("at rest")
    ]
    assert (rest.value, rest.upper, rest.verdict) == (0.41, high, verdict)


def test_the_finding_on_gates_names_the_errors_that_changed(card):
    gates = card["gating_test"]["trained"]["gates"]
    first = next(iter(gates))
    for errors in gates.values():
        for row in errors.values():
            row |= {"oracle": [0.0, -1.0, 1.0], "shuffled": [2.0, 1.0, 3.0]}
    gates[first]["depth"]["oracle"] = [-2.0, -3.0, -1.0]
    found = gating_by_truth(card)
    assert [row.effect for row in found.rows if row.verdict == LOWER] == [
        f"depth error with true masks, {first}"
    ]
    raised = [row.effect for row in found.rows if row.verdict == HIGHER]
    assert len(raised) == 5 * len(gates)
    assert all("masks of another clip" in effect for effect in raised)


def test_the_finding_on_attention_names_the_strongest_cell_declared_later(card):
    for number, row in enumerate(card["cue_test"]["declared_later"]):
        row |= {"objects": [0.6 + 0.1 * number, 0.55, 0.9], "twin": [0.9, 0.55, 0.95]}
    found = motion_in_attention(card)
    last = card["cue_test"]["declared_later"][-1]
    told = found.row(f"declared later: {cell_name(last)}, {tables.AGAINST['objects']}")
    assert [told.value, told.lower, told.upper] == last["objects"]
    assert f"{told.interval} for {told.effect}, above 0.5" in found.headline
    assert (tables.cues(card)["cell"] == f"declared later: {cell_name(last)}").sum() == 1


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
