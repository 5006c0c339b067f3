"""The same cue and one gate in several models: what is measured, and what is then said."""

import nbformat
import numpy as np
import pytest
import xarray as xr

from mut3r_analysis.backbones import load_backbone
from mut3r_analysis.motion import Cue
from mut3r_analysis.notebooks.execution import execute_notebook, find_notebook
from mut3r_analysis.sequences import open_sequence
from mut3r_analysis.studies.ablation import PLAIN, SHUFFLED
from mut3r_analysis.studies.emergence.survey import OBJECTS, TESTS, TWIN, survey
from mut3r_analysis.studies.finding import HIGHER, LOWER, NO_TRUTH, findings_of
from mut3r_analysis.studies.generalisation.memories import (
    DEPTH,
    OWN,
    Memory,
    known_memories,
    patch_site,
    possible_memories,
)
from mut3r_analysis.studies.generalisation.models import (
    QUESTION,
    compare_models,
    cue_evidence,
    finding,
    known_models,
    model_table,
)
from mut3r_analysis.studies.generalisation.traces import kept_shares, moved_by

KINDS = ("random:point3r-small", "random:dust3r-small", "random:spann3r-small", "random:vggt-small")
COMMITS = {"held": "rw.gg mem.hold", "static": "rw.gg rate.static_mass"}
SEQUENCES = [f"s{i}" for i in range(8)]


def compared(models=("tiny", "random:small"), auc=0.8, gated=0.9):
    """What is measured of models: errors are a sequence's own times a known factor."""
    base = np.linspace(0.2, 0.4, len(SEQUENCES))
    treatments = {PLAIN: 1.0, OWN: gated, OWN + SHUFFLED: 1.0}
    errors = base[:, None] * np.array(list(treatments.values()))
    areas = np.full((len(SEQUENCES), len(TESTS)), np.nan)
    for test in (OBJECTS, TWIN):
        areas[:, list(TESTS).index(test)] = auc
    one = xr.Dataset(
        {
            DEPTH: (("sequence", "treatment"), errors, {"units": "1"}),
            "auc": (("sequence", "test"), areas),
            "moved": ("sequence", base, {"units": "%"}),
            "kept": ("sequence", np.full(len(SEQUENCES), 25.0), {"units": "%"}),
        },
        {"sequence": SEQUENCES, "treatment": list(treatments), "test": list(TESTS)},
    )
    return xr.concat([one] * len(models), xr.Variable("model", list(models)))


def test_every_bundled_model_and_every_kind_takes_part():
    found = known_models()
    assert {"tiny", "tiny-static", *KINDS} <= set(found)
    families = {load_backbone(name, device="cpu").family for name in found}
    assert len(families) == 5


def test_the_cue_is_read_where_patches_of_the_frame_read_each_other():
    read = [patch_site(load_backbone(name, device="cpu").sites()) for name in ("tiny", *KINDS)]
    assert read == ["image_self", "image_self", "view1_self", "view1_self", "frame_self"]


def test_the_cue_is_scored_as_in_the_study_of_emergence():
    model, name = load_backbone("tiny", device="cpu"), "scenes/orbit-02"
    found = cue_evidence(model, open_sequence(name, stop=4), Cue.mut3r())
    wanted = survey(model, [name], frames=4, progress=False)["cue_auc"].isel(sequence=0)
    np.testing.assert_allclose(found, wanted.values, atol=1e-6)
    assert np.isfinite(found).sum() >= 4


def test_a_model_has_the_memories_that_its_kind_can_have():
    known = known_memories(["cut3r", "ttt3r"], COMMITS)
    kept = {
        name: list(possible_memories(name, known, "scenes/orbit-02"))
        for name in ("random:small", *KINDS)
    }
    assert kept["random:small"] == list(known)
    assert kept["random:point3r-small"] == ["cut3r", "held"]
    assert all(kept[name] == ["cut3r"] for name in KINDS[1:])
    assert possible_memories("random:small", {"b": Memory("ttt3r")}, "scenes/orbit-02")


def test_what_a_memory_keeps_is_counted_among_the_tokens_before():
    # four tokens; then one of them is written and two are appended; then two of six are gone
    gone = [np.nan] * 2
    norm = [[1, 1, 1, 1, *gone], [1] * 6, [1, 1, 1, 1, *gone]]
    rate = [[1, 1, 1, 1, *gone], [1, 0, 0, 0, 1, 1], [0, 0, 0, 0.5, *gone]]
    dims = ("frame", "pointer")
    state = xr.Dataset({"norm": (dims, norm), "write_rate": (dims, rate)})
    run = xr.DataTree.from_dict({"state": state.assign_coords(frame=[0, 2, 3])})
    found = kept_shares(run)
    assert np.isnan(found.values[0])
    np.testing.assert_allclose(found.values[1:], [75.0, 100 * 3.5 / 6])


def test_how_far_runs_lie_apart_is_in_percent_of_the_distance():
    points = np.random.default_rng(0).normal(size=(2, 3, 4, 3))
    one, two = (
        xr.DataTree.from_dict(
            {"prediction": xr.Dataset({"points_world": (("frame", "y", "x", "xyz"), p)})}
        )
        for p in (points, 1.1 * points)
    )
    depth, camera = moved_by(one, two)
    assert depth == pytest.approx(10)
    assert np.isnan(camera)


def test_the_finding_is_of_trained_weights_and_names_the_others():
    found = finding(compared())
    assert {row.effect.split(" in ")[-1].split(",")[0] for row in found.rows[: found.lead]} == {
        "tiny"
    }
    assert found.row(f"AUC in tiny, {OBJECTS}").verdict == HIGHER
    assert found.row("AbsRel in tiny, gating by the cue, not by shuffled scores").verdict == LOWER
    assert found.row("memory kept per frame, tiny").value == 25
    assert "Nothing can be found in random:small" in found.answer
    assert "Nothing can be found" not in finding(compared(("tiny",))).answer


def test_with_random_weights_alone_nothing_is_said_to_be_found():
    found = finding(compared(("random:small",)))
    assert not found.rows
    assert found.answer == (
        "Nothing can be found in random:small: random weights have learned nothing."
    )
    table = model_table(compared(("random:small",)))
    assert table.loc["random:small", "weights"] == "random"
    assert table.loc["random:small", f"AUC, {OBJECTS}"].startswith("0.80")


def test_frames_without_truth_tell_what_gating_moves_and_the_memory_keeps(shared, tmp_path):
    frames = str(shared / "frames" / "static_room")
    found = compare_models(
        ["random:dust3r-small"], [frames], frames=3, out=tmp_path, progress=False
    )
    assert found["auc"].isnull().all()
    assert found["kept"].item() == 100
    assert found["moved"].item() > 0
    told = finding(found.assign_coords(model=["some.safetensors"]))
    assert NO_TRUTH in told.answer


def run_notebook(tmp_path, **parameters):
    quick = {"out": str(tmp_path), "progress": False, "frames": 3}
    notebook = execute_notebook(find_notebook("05_backbone_generalisation"), quick | parameters)
    assert isinstance(notebook, nbformat.NotebookNode)
    return {each.question: each for each in findings_of(notebook)}


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_the_notebook_runs_on_every_kind_of_model(tmp_path, kind):
    found = run_notebook(tmp_path, backbone=kind, models=[kind], sequences=["scenes/orbit-02"])
    assert found[QUESTION].answer.startswith(f"Nothing can be found in {kind}")
    assert len(found) == 2


@pytest.mark.slow
def test_the_notebook_compares_models_on_frames_without_truth(shared, tmp_path):
    folder = str(shared / "frames" / "walking_woman")
    models = ["tiny", "random:spann3r-small"]
    found = run_notebook(tmp_path, models=models, sequences=[folder], write_rules=["cut3r"])
    told = found[QUESTION]
    assert NO_TRUTH in told.answer
    assert {row.effect for row in told.rows} == {
        "moved by gating, tiny", "memory kept per frame, tiny"
    }  # fmt: skip
