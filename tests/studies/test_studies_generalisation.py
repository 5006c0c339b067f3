"""The same cue and gate under several write rules: what is compared, and what is then said."""

from pathlib import Path

import nbformat
import numpy as np
import pytest
import xarray as xr

from mut3r_analysis import open_run
from mut3r_analysis.backbones.write_rates import full_rate
from mut3r_analysis.backbones.write_rule import WriteRule
from mut3r_analysis.backbones.write_rules import WRITE_RULES, needs_cue
from mut3r_analysis.errors import InvalidArgument
from mut3r_analysis.notebooks.execution import execute_notebook, find_notebook
from mut3r_analysis.studies.ablation import PLAIN, SHUFFLED
from mut3r_analysis.studies.finding import (
    HIGHER,
    IDENTICAL,
    LOWER,
    NO_TRUTH,
    NOT_SIGNIFICANT,
    TOO_FEW,
    findings_of,
)
from mut3r_analysis.studies.generalisation import traces
from mut3r_analysis.studies.generalisation.memories import (
    DEPTH,
    OWN,
    POSE,
    TRUE,
    Memory,
    arranged,
    finding,
    gating_effects,
    has_truth,
    known_memories,
    place_effects,
    rule_contrasts,
    sweep_memories,
    treatments,
)

NOTEBOOK = "05_backbone_generalisation"
SEQUENCES = [f"s{i}" for i in range(8)]
FACTORS = {
    "cut3r": {PLAIN: 1.0, OWN: 0.8, OWN + SHUFFLED: 1.0, TRUE: 0.5, TRUE + SHUFFLED: 1.0},
    "ttt3r": {PLAIN: 2.0, OWN: 1.8, OWN + SHUFFLED: 1.5, TRUE: 1.0, TRUE + SHUFFLED: 2.0},
    "held": {PLAIN: 1.0, OWN: 1.2},
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


def said(swept, rates=(100.0, 50.0)):
    rules = [memory for memory in ("cut3r", "ttt3r") if memory in swept["memory"]]
    named = {"memory": list(rules)}
    written = xr.Dataset(
        {"value": (("memory", "treatment"), [[rate] for rate in rates[: len(rules)]])},
        coords={**named, "treatment": [PLAIN]},
    )
    parts = {"value": 0.9, "lower": 0.8, "upper": 0.95, "n": 8}
    alike = xr.Dataset(parts).expand_dims(memory=list(rules[1:]))
    return finding(swept, rules, written, alike)


def test_every_registered_write_rule_takes_part_also_later_ones(monkeypatch):
    assert list(known_memories()) == [rule for rule in WRITE_RULES if not needs_cue(rule)]
    monkeypatch.setitem(WRITE_RULES, "later", WriteRule("later", full_rate))
    assert known_memories()["later"] == Memory("later")
    assert list(known_memories(["ttt3r"], {"held": "mem.hold"})) == ["ttt3r", "held"]
    assert known_memories(["ttt3r"], {"held": "mem.hold"})["held"] == Memory("ttt3r", "mem.hold")


def test_unknown_rules_and_labels_of_rules_are_refused():
    with pytest.raises(InvalidArgument, match="rules must be among"):
        known_memories(["no-such-rule"])
    with pytest.raises(InvalidArgument, match="another label"):
        known_memories(None, {"cut3r": "mem.hold"})


def test_a_memory_made_of_a_commit_is_gated_by_the_own_cue_only():
    assert set(treatments(Memory("cut3r"), 1.0)) == {
        PLAIN,
        OWN,
        OWN + SHUFFLED,
        TRUE,
        TRUE + SHUFFLED,
    }
    held = treatments(Memory("cut3r", "mem.hold"), 2.0)
    assert set(held) == {PLAIN, OWN}
    assert "gate" not in held[PLAIN]
    assert held[OWN]["gate"].beta == 2.0
    assert {each["commit"] for each in held.values()} == {"mem.hold"}


def test_sweeps_are_laid_out_over_memory_and_treatment():
    masked = swept({"cut3r": {TRUE: 0.5}}, sequences=SEQUENCES[2:])
    blind = swept({"cut3r": {PLAIN: 1.0, OWN: 0.8}})
    found = arranged([blind, masked], ["cut3r"])
    assert found[DEPTH].dims == ("memory", "treatment", "sequence")
    assert found["sequence"].values.tolist() == SEQUENCES
    assert found["treatment"].values.tolist() == [PLAIN, OWN, TRUE]
    absent = found.sel(memory="cut3r", treatment=TRUE, sequence="s0")
    assert np.isnan(absent[DEPTH])
    assert absent["run"].item() == ""
    assert found["run"].sel(memory="cut3r", treatment=OWN, sequence="s3").item().endswith("s3")


def test_effects_are_the_paired_change_within_a_memory():
    effects = gating_effects(table())
    for memory, row in FACTORS.items():
        for treatment, factor in row.items():
            if treatment != PLAIN:
                cell = effects.sel(memory=memory, treatment=treatment, metric=POSE)
                assert float(cell["value"]) == pytest.approx(100 * (factor / row[PLAIN] - 1))
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
    told = {each.effect: each.verdict for each in said(table()).rows}
    assert told["AbsRel under cut3r, against shuffled scores"] == LOWER
    assert told["ATE under ttt3r, against shuffled scores"] == HIGHER


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


def factors(own, other):
    return {
        "cut3r": {PLAIN: 1.0, OWN: own, OWN + SHUFFLED: 1.0},
        "ttt3r": {PLAIN: 1.0, OWN: other, OWN + SHUFFLED: 1.0},
    }


@pytest.mark.parametrize(
    ("own", "other", "verdicts"),
    [
        (0.8, 0.9, [LOWER, LOWER]),
        (1.2, 1.1, [HIGHER, HIGHER]),
        (0.8, 1.1, [LOWER, HIGHER]),
        (1.0, 1.0, [IDENTICAL, IDENTICAL]),
    ],
)
def test_the_finding_follows_the_signs(own, other, verdicts):
    found = said(table(factors(own, other)))
    assert [each.verdict for each in found.rows[: found.lead]] == verdicts * 2


def test_the_finding_says_how_much_can_be_told():
    strong = table(factors(0.8, 0.5), noise=0.01)
    found = said(strong)
    apart = "AbsRel under ttt3r, effect less that under cut3r"
    assert found.row(apart).verdict == LOWER
    weak = table(factors(1.0, 1.0))
    up_and_down = xr.DataArray([1.3, 0.7] * 4, dims="sequence")
    for metric in (DEPTH, POSE):
        weak[metric] = weak[metric] * xr.where(weak["treatment"] == OWN, up_and_down, 1.0)
    found = said(weak)
    assert {each.verdict for each in found.rows[: found.lead]} == {NOT_SIGNIFICANT}
    assert found.row(apart).verdict == IDENTICAL
    few = said(table(factors(0.8, 0.5), sequences=SEQUENCES[:3]))
    assert {each.verdict for each in few.rows[: few.lead]} == {TOO_FEW}


def test_the_finding_names_what_could_make_rules_alike():
    found = said(table(factors(0.8, 0.9)), rates=(100.0, 99.0))
    assert found.row("state replaced per frame, ttt3r").value == 99.0
    assert found.row("correlation of cue maps with those under cut3r, ttt3r").value == 0.9


@pytest.fixture(scope="module")
def ran(tmp_path_factory):
    """Three rules on one scene, one of them a copy of the first under another name."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(WRITE_RULES, "copy", WriteRule("copy", full_rate))
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
    run = open_run(ran["run"].sel(treatment=PLAIN, **cell).item())
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
    assert found["treatment"].values.tolist() == [PLAIN, OWN, OWN + SHUFFLED]
    assert not has_truth(found)


def test_the_notebook_is_committed_clean():
    notebook = nbformat.read(find_notebook(NOTEBOOK), as_version=nbformat.NO_CONVERT)
    nbformat.validate(notebook)
    code = [each for each in notebook.cells if each.cell_type == "code"]
    assert all(not each.outputs and each.execution_count is None for each in code)
    assert len({each.id for each in notebook.cells}) == len(notebook.cells)


def executed(tmp_path: Path, **parameters):
    quick = {"out": str(tmp_path), "progress": False, "commits": {}, "frames": 3}
    quick["models"] = ["random:small"]
    return execute_notebook(find_notebook(NOTEBOOK), quick | parameters)


def texts(notebook, name):
    (cell,) = (each for each in notebook.cells if each.id == name)
    return "".join(output["data"].get("text/html", "") for output in cell.outputs)


@pytest.mark.slow
def test_the_notebook_answers_for_the_rules_of_the_first_releases(tmp_path):
    notebook = executed(tmp_path, sequences=["scenes/orbit-02"])
    found, _ = findings_of(notebook)
    lead = found.rows[: found.lead]
    assert {each.effect.rsplit(" ", 1)[1] for each in lead} == {"cut3r", "ttt3r", "ttsa3r"}
    assert {each.n for each in lead} == {1}
    assert {each.verdict for each in lead} == {TOO_FEW}
    assert "differ from frame 2 on" in texts(notebook, "look-cue")


@pytest.mark.slow
def test_the_notebook_runs_on_frames_without_truth(shared, tmp_path):
    folder = str(shared / "frames" / "walking_woman")
    rules = ["cut3r", "ttsa3r"]
    notebook = executed(
        tmp_path, backbone="random:small", sequences=[folder], write_rules=rules, frames=2
    )
    found, _ = findings_of(notebook)
    assert found.answer.endswith(NO_TRUTH)
    assert {each.effect for each in found.rows} == {
        "cut3r, depth", "cut3r, camera", "ttsa3r, depth", "ttsa3r, camera"
    }  # fmt: skip
    assert not texts(notebook, "auc")
