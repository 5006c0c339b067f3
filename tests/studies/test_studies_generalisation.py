"""The same cue and gate under several write rules: what is compared, and what is then said."""

from pathlib import Path

import nbformat
import numpy as np
import pytest
import xarray as xr

from mut3r_analysis import open_run
from mut3r_analysis.backbones.write_rules import WRITE_RULES, WriteRule
from mut3r_analysis.errors import InvalidArgument
from mut3r_analysis.notebooks.execution import execute_notebook, find_notebook
from mut3r_analysis.studies.finding import findings_of
from mut3r_analysis.studies.generalisation import traces
from mut3r_analysis.studies.generalisation.effects import (
    DEPTH,
    POSE,
    finding,
    gating_effects,
    has_truth,
    place_effects,
    rule_contrasts,
)
from mut3r_analysis.studies.generalisation.memories import (
    OPEN,
    OWN,
    OWN_SHUFFLED,
    SHUFFLED,
    TRUE,
    Memory,
    arranged,
    known_memories,
    sweep_memories,
    treatments,
)

NOTEBOOK = "05_backbone_generalisation"
SEQUENCES = [f"s{i}" for i in range(8)]
FACTORS = {
    "cut3r": {OPEN: 1.0, OWN: 0.8, OWN_SHUFFLED: 1.0, TRUE: 0.5, SHUFFLED: 1.0},
    "ttt3r": {OPEN: 2.0, OWN: 1.8, OWN_SHUFFLED: 1.5, TRUE: 1.0, SHUFFLED: 2.0},
    "held": {OPEN: 1.0, OWN: 1.2},
}


def swept(factors=FACTORS, sequences=SEQUENCES, noise=0.0):
    """What a sweep returns: errors that are a sequence's own times a known factor."""
    base = np.linspace(0.2, 0.4, len(sequences))
    draws = np.random.default_rng(0)
    cells = {f"{m} | {t}": f for m, row in factors.items() for t, f in row.items()}
    errors = np.stack([base * f * draws.normal(1, noise, len(base)) for f in cells.values()])
    dims = ("configuration", "sequence")
    return xr.Dataset(
        {
            DEPTH: (dims, errors, {"units": "1"}),
            POSE: (dims, 3 * errors, {"units": "m"}),
            "run": (dims, np.array([[f"{c}/{s}" for s in sequences] for c in cells])),
        },
        coords={"configuration": list(cells), "sequence": list(sequences)},
    )


def table(factors=FACTORS, **kwargs):
    return arranged([swept(factors, **kwargs)], factors)


def said(effects, rules, contrasts=None, rates=(100.0, 50.0), place=None):
    named = {"memory": list(rules)}
    written = xr.Dataset(
        {"value": (("memory", "treatment"), [[rate] for rate in rates[: len(rules)]])},
        coords={**named, "treatment": [OPEN]},
    )
    parts = {"value": 0.9, "lower": 0.8, "upper": 0.95, "n": 8}
    alike = xr.Dataset(parts).expand_dims(memory=list(rules[1:]))
    moved = xr.DataArray(
        np.ones((2, len(rules), 8)) * [[[4.0]], [[7.0]]],
        dims=("what", "memory", "sequence"),
        coords={**named, "what": ["depth", "camera"]},
        attrs={"units": "%"},
    )
    return finding(
        effects, rules, contrasts=contrasts, place=place, written=written, alike=alike, moved=moved
    )


def test_every_registered_write_rule_takes_part_also_later_ones(monkeypatch):
    assert list(known_memories()) == list(WRITE_RULES)
    monkeypatch.setitem(WRITE_RULES, "later", WriteRule("later", None, restart=False))
    assert known_memories()["later"] == Memory("later")
    assert list(known_memories(["ttt3r"], {"held": "mem.hold"})) == ["ttt3r", "held"]
    assert known_memories(["ttt3r"], {"held": "mem.hold"})["held"] == Memory("ttt3r", "mem.hold")


def test_unknown_rules_and_labels_of_rules_are_refused():
    with pytest.raises(InvalidArgument, match="not registered"):
        known_memories(["no-such-rule"])
    with pytest.raises(InvalidArgument, match="another label"):
        known_memories(None, {"cut3r": "mem.hold"})


def test_a_memory_made_of_a_commit_is_gated_by_the_own_cue_only():
    assert set(treatments(Memory("cut3r"), 1.0)) == {OPEN, OWN, OWN_SHUFFLED, TRUE, SHUFFLED}
    held = treatments(Memory("cut3r", "mem.hold"), 2.0)
    assert set(held) == {OPEN, OWN}
    assert "gate" not in held[OPEN]
    assert held[OWN]["gate"].beta == 2.0
    assert {each["commit"] for each in held.values()} == {"mem.hold"}


def test_sweeps_are_laid_out_over_memory_and_treatment():
    masked = swept({"cut3r": {TRUE: 0.5}}, sequences=SEQUENCES[2:])
    blind = swept({"cut3r": {OPEN: 1.0, OWN: 0.8}})
    found = arranged([blind, masked], ["cut3r"])
    assert found[DEPTH].dims == ("memory", "treatment", "sequence")
    assert found["sequence"].values.tolist() == SEQUENCES
    assert found["treatment"].values.tolist() == [OPEN, OWN, TRUE]
    absent = found.sel(memory="cut3r", treatment=TRUE, sequence="s0")
    assert np.isnan(absent[DEPTH])
    assert absent["run"].item() == ""
    assert found["run"].sel(memory="cut3r", treatment=OWN, sequence="s3").item().endswith("s3")


def test_effects_are_the_paired_change_within_a_memory():
    effects = gating_effects(table())
    for memory, row in FACTORS.items():
        for treatment, factor in row.items():
            if treatment != OPEN:
                cell = effects.sel(memory=memory, treatment=treatment, metric=POSE)
                assert float(cell["value"]) == pytest.approx(100 * (factor / row[OPEN] - 1))
                assert int(cell["n"]) == len(SEQUENCES)
    missing = effects.sel(memory="held", treatment=TRUE, metric=DEPTH)
    assert np.isnan(missing["value"])
    assert int(missing["n"]) == 0


def test_contrasts_are_differences_of_effects():
    noisy = table(noise=0.1)
    effects, contrasts = gating_effects(noisy)["value"], rule_contrasts(noisy)["value"]
    expected = effects - effects.sel(memory="cut3r")
    xr.testing.assert_allclose(
        contrasts.drop_vars("name"), expected.sel(memory=["ttt3r", "held"]).drop_vars("name")
    )


def test_the_place_of_a_score_is_judged_against_its_shuffle():
    place = place_effects(table())
    assert place["memory"].values.tolist() == ["cut3r", "ttt3r"]
    assert place["value"].sel(treatment=TRUE).values == pytest.approx(-50)
    own = place["value"].sel(treatment=OWN, metric=DEPTH)
    assert own.values == pytest.approx([-20, 20])
    answer = said(gating_effects(table()), RULES, place=place).answer
    assert "With the own cue instead of the same scores at shuffled patches, " in answer
    assert answer.count("is shown to be lower under cut3r and higher under ttt3r") == 2


def test_lines_that_lie_on_each_other_are_named():
    values = xr.DataArray([[10.0, 5.0], [10.05, 5.0], [9.0, 5.0]], dims=("memory", "frame"))
    found = xr.Dataset({"value": values}, coords={"memory": ["cut3r", "held", "ttt3r"]})
    assert traces.coinciding(found) == "cut3r and held coincide"
    assert traces.coinciding(found, share=0.001) == ""


def test_metrics_without_values_are_left_out_and_none_is_refused():
    blind = table()
    blind[POSE] = blind[POSE] * np.nan
    assert gating_effects(blind)["metric"].values.tolist() == [DEPTH]
    assert has_truth(blind)
    blind[DEPTH] = blind[DEPTH] * np.nan
    assert not has_truth(blind)
    with pytest.raises(InvalidArgument, match="scores none of"):
        gating_effects(blind)


RULES = ["cut3r", "ttt3r"]


def factors(own, other):
    return {
        "cut3r": {OPEN: 1.0, OWN: own},
        "ttt3r": {OPEN: 1.0, OWN: other},
    }


@pytest.mark.parametrize(
    ("own", "other", "words"),
    [
        (0.8, 0.9, "the mean is lower under all 2 rules; shown under cut3r and ttt3r"),
        (1.2, 1.1, "the mean is higher under all 2 rules; shown under cut3r and ttt3r"),
        (
            0.8,
            1.1,
            "the mean is higher under ttt3r, lower under cut3r; shown under cut3r and ttt3r",
        ),
        (1.0, 1.0, "gating changes nothing under any rule"),
    ],
)
def test_the_sentence_follows_the_signs(own, other, words):
    answer = said(gating_effects(table(factors(own, other))), RULES).answer
    assert answer.count(words) == 2  # for depth and for pose


def test_the_sentence_says_how_much_can_be_told():
    strong = table(factors(0.8, 0.5), noise=0.01)
    found = said(gating_effects(strong), RULES, rule_contrasts(strong))
    assert "4 of these 4 effects can be told from zero" in found.answer
    assert "The effect differs from that under cut3r with ttt3r by -" in found.answer
    assert found.values[DEPTH]["cut3r"]["verdict"] == "lower"
    weak = table(factors(1.0, 1.0))
    up_and_down = xr.DataArray([1.3, 0.7] * 4, dims="sequence")
    for metric in (DEPTH, POSE):
        weak[metric] = weak[metric] * xr.where(weak["treatment"] == OWN, up_and_down, 1.0)
    answer = said(gating_effects(weak), RULES, rule_contrasts(weak)).answer
    assert "shown under none of them" in answer
    assert "None of these 4 effects can be told from zero" in answer
    assert "Under no rule can the effect be told from that under cut3r" in answer
    few = table(factors(0.8, 0.5), sequences=SEQUENCES[:3])
    assert "too few sequences" in said(gating_effects(few), RULES).answer


def test_the_sentence_names_what_could_make_rules_alike():
    effects = gating_effects(table(factors(0.8, 0.9)))
    assert "100 % with cut3r and 50 % with ttt3r of the state" in said(effects, RULES).answer
    assert "99 % with ttt3r" in said(effects, RULES, rates=(100.0, 99.0)).answer
    alike = "with those under cut3r by 0.900 [0.800, 0.950] (n = 8) on average under ttt3r"
    assert alike in said(effects, RULES).answer


def test_without_truth_only_differences_are_reported():
    found = said(None, RULES)
    assert "No ground truth" in found.answer
    assert "moves the depth by 4.0" in found.answer
    assert "moves the camera by 7.0" in found.answer
    assert found.values == {"depth": dict.fromkeys(RULES, 4.0), "camera": dict.fromkeys(RULES, 7.0)}


@pytest.fixture(scope="module")
def ran(tmp_path_factory):
    """Three rules on one scene, one of them a copy of the first under another name."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(WRITE_RULES, "copy", WriteRule("copy", None, restart=False))
        memories = known_memories(["cut3r", "copy", "ttsa3r"])
        return sweep_memories(
            "tiny",
            ["scenes/orbit-02"],
            memories,
            frames=3,
            out=tmp_path_factory.mktemp("sweep"),
            progress=False,
        )


def test_a_rule_that_writes_alike_has_the_same_effect(ran):
    contrasts = rule_contrasts(ran).sel(memory="copy")
    assert np.nanmax(np.abs(contrasts["value"].values)) < 1e-3
    seen = traces.read_traces(ran)
    assert bool(seen["same"].sel(memory="copy", other="cut3r").all())
    np.testing.assert_allclose(
        seen["moved"].sel(memory="copy"), seen["moved"].sel(memory="cut3r"), rtol=1e-3
    )


def test_cue_maps_part_where_the_state_that_is_read_first_differs(ran):
    # The first frame is written whole by every rule, so frames 0 and 1 read the same state.
    seen = traces.read_traces(ran)
    assert traces.first_parting(seen) == 2
    pair = seen["correlation"].sel(memory="ttsa3r", other="cut3r")
    assert (pair.sel(frame=[0, 1]) > 0.9999).all()
    assert float(traces.likeness_to_first(seen)["value"].sel(memory="copy")) > 0.9999
    assert float(seen["write_rate"].sel(memory="cut3r").min()) == pytest.approx(100)
    assert float(seen["write_rate"].sel(memory="ttsa3r").isel(frame=2).max()) < 100


def test_the_auc_counts_pairs_of_a_moving_and_a_still_pixel(ran):
    seen = traces.read_traces(ran)
    cell = {"memory": "cut3r", "sequence": "orbit-02"}
    run = open_run(ran["run"].sel(treatment=OPEN, **cell).item())
    score = run["cue/motion"].values.astype(np.float64)
    mask = run["truth/motion_mask"].values
    size = mask.shape[2] // score.shape[2]
    pixels = score.repeat(size, 1).repeat(size, 2)
    moving, still = pixels[mask], pixels[~mask]
    wins = (moving[:, None] > still[::7]).mean() + 0.5 * (moving[:, None] == still[::7]).mean()
    assert float(seen["auc"].sel(**cell)) == pytest.approx(wins, abs=0.01)


def test_treatments_that_need_a_mask_are_run_where_there_is_one(shared, tmp_path):
    frames = str(shared / "frames" / "static_room")
    found = sweep_memories(
        "random:small",
        [frames],
        known_memories(["cut3r"]),
        frames=1,
        out=tmp_path,
        progress=False,
    )
    assert found["treatment"].values.tolist() == [OPEN, OWN, OWN_SHUFFLED]
    assert not has_truth(found)


def test_the_notebook_is_committed_clean():
    notebook = nbformat.read(find_notebook(NOTEBOOK), as_version=nbformat.NO_CONVERT)
    nbformat.validate(notebook)
    code = [each for each in notebook.cells if each.cell_type == "code"]
    assert all(not each.outputs and each.execution_count is None for each in code)
    assert len({each.id for each in notebook.cells}) == len(notebook.cells)


def executed(tmp_path: Path, **parameters):
    quick = {"out": str(tmp_path), "progress": False, "commits": {}, "frames": 3}
    return execute_notebook(find_notebook(NOTEBOOK), quick | parameters)


def texts(notebook, name):
    (cell,) = (each for each in notebook.cells if each.id == name)
    return "".join(output["data"].get("text/markdown", "") for output in cell.outputs)


@pytest.mark.slow
def test_the_notebook_answers_for_every_registered_rule(tmp_path):
    notebook = executed(tmp_path, sequences=["scenes/orbit-02"])
    (found,) = findings_of(notebook)
    assert set(found.values[DEPTH]) == set(WRITE_RULES)
    assert {each["n"] for each in found.values[DEPTH].values()} == {1}
    assert "too few sequences" in found.answer
    assert "differ from frame 2 on" in texts(notebook, "say-cue")


@pytest.mark.slow
def test_the_notebook_runs_on_frames_without_truth(shared, tmp_path):
    folder = str(shared / "frames" / "walking_woman")
    rules = ["cut3r", "ttsa3r"]
    notebook = executed(
        tmp_path, backbone="random:small", sequences=[folder], write_rules=rules, frames=2
    )
    (found,) = findings_of(notebook)
    assert "No ground truth" in found.answer
    assert set(found.values) == {"depth", "camera"}
    assert "No true motion mask" in texts(notebook, "auc")
