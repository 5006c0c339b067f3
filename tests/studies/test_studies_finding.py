"""A finding: a table whose verdicts follow its numbers, and a headline made from it."""

import nbformat
import pytest
import xarray as xr

from mut3r_analysis.errors import InvalidArgument
from mut3r_analysis.studies.estimates import change
from mut3r_analysis.studies.finding import (
    FINDING_MIME,
    HIGHER,
    IDENTICAL,
    LOWER,
    NOT_MEASURED,
    NOT_SIGNIFICANT,
    TOO_FEW,
    Finding,
    Row,
    findings_of,
    headline,
    row,
    rows,
    without_truth,
)


def changed(values, reference=None):
    """Change of errors of as many sequences, all 1 before unless said."""
    errors = xr.DataArray(values, dims="sequence")
    return change(errors, xr.ones_like(errors) if reference is None else reference)


@pytest.mark.parametrize(
    ("values", "verdict"),
    [
        ([0.8, 0.9, 0.85, 0.7, 0.9, 0.8], LOWER),
        ([1.2, 1.1, 1.15, 1.3, 1.1, 1.2], HIGHER),
        ([0.8, 1.2, 0.9, 1.1, 0.7, 1.3], NOT_SIGNIFICANT),
        ([0.8, 0.9, 0.85, 0.7, 0.9], TOO_FEW),
        ([1.0] * 6, IDENTICAL),
        ([1.0], IDENTICAL),
        ([float("nan")] * 6, NOT_MEASURED),
    ],
)
def test_the_verdict_follows_the_numbers(values, verdict):
    assert row("error", changed(values)).verdict == verdict


def test_a_verdict_is_beside_a_reference():
    area = Row("AUC", 0.6, 0.55, 0.65, n=8, reference=0.5)
    assert area.verdict == HIGHER
    assert Row("AUC", 0.6, 0.45, 0.7, n=8, reference=0.5).verdict == NOT_SIGNIFICANT
    assert Row("AUC", 0.6, 0.55, 0.65, n=8, reference=None).verdict == ""


def test_numbers_have_the_digits_that_their_interval_is_worth():
    assert Row("a", -20.04, -25.2, -15.1, 8, "%").interval == "-20 % [-25, -15]"
    assert Row("a", 0.6123, 0.5812, 0.6434, 8, reference=0.5).interval == "0.61 [0.58, 0.64]"
    assert Row("a", 3, reference=None).interval == "3"
    assert Row("a", None).interval == "–"


def test_a_bound_beyond_the_reference_is_not_rounded_to_it():
    assert Row("a", 4.2, 0.04, 10.1, 8, "%").interval == "+4.20 % [+0.04, +10.10]"
    assert Row("a", 4.2, -0.04, 10.1, 8, "%").interval == "+4 % [-0, +10]"


def effects(**values):
    """Changes in percent, as sure as they are large: significant from 2 % on."""
    return [Row(name, each, each - 1.9, each + 1.9, 8, "%") for name, each in values.items()]


@pytest.mark.parametrize(
    ("table", "said"),
    [
        (effects(ATE=10), "Gating raises ATE by 10.0 % [8.1, 11.9] (n = 8)."),
        (effects(ATE=-10), "Gating lowers ATE by 10.0 % [8.1, 11.9] (n = 8)."),
        (
            effects(ATE=10, RPE=1),
            "Gating raises ATE by 10.0 % [8.1, 11.9]; 1 of 2 effects is significant (n = 8).",
        ),
        (
            effects(ATE=3, RPE=1, depth=-20, rotation=-30, points=40),
            "Gating raises points by 40.0 % [38.1, 41.9] and lowers rotation by 30.0 % "
            "[28.1, 31.9]; 4 of 5 effects are significant (n = 8).",
        ),
        (effects(ATE=1, RPE=-1), "Gating changes nothing significantly (2 effects, n = 8)."),
        (
            [Row("ATE", 5.0, 2.0, 9.0, 3, "%")],
            "Gating changes ATE by +5 % [+2, +9], on too few sequences to tell (n = 3).",
        ),
        (effects(ATE=1), "Gating does not change ATE significantly (n = 8)."),
        ([Row("ATE", 0.0, 0.0, 0.0, 8, "%")], "Gating changes nothing at all (n = 8)."),
        ([Row("ATE", None)], "Gating was not measured."),
        (
            [*effects(ATE=10), Row("RPE", 1.0, -1.0, 2.0, 6, "%")],
            "Gating raises ATE by 10.0 % [8.1, 11.9]; 1 of 2 effects is significant (n = 6 to 8).",
        ),
        ([], ""),
    ],
)
def test_the_headline_names_the_largest_effects_and_counts_the_others(table, said):
    assert headline("Gating", table) == said
    assert headline("Gating", table[::-1]) == said


def test_the_headline_of_areas_names_the_one_farthest_from_chance():
    areas = [Row("cue", 0.6, 0.55, 0.65, 8, reference=0.5), Row("cell", 0.74, 0.63, 0.84, 8,
             reference=0.5)]  # fmt: skip
    assert headline("The AUC is", areas) == (
        "The AUC is 0.74 [0.63, 0.84] for cell, above 0.5; 2 of 2 effects are significant (n = 8)."
    )
    unsure = [Row("cell", 0.6, 0.45, 0.7, 8, reference=0.5)]
    assert headline("The AUC is", unsure) == (
        "The AUC is 0.60 [0.45, 0.70] for cell, not significantly different from 0.5 (n = 8)."
    )


def test_rows_are_named_by_the_labels_of_a_table():
    values = xr.DataArray(
        [[0.5] * 6, [2.0] * 6], dims=("cue", "sequence"), coords={"cue": ["own", "true"]}
    )
    table = rows(change(values, xr.ones_like(values)), "ATE, {} cue")
    assert [(each.effect, each.value, each.verdict, each.unit) for each in table] == [
        ("ATE, own cue", -50.0, LOWER, "%"),
        ("ATE, true cue", 100.0, HIGHER, "%"),
    ]
    with pytest.raises(InvalidArgument, match="one cell"):
        row("ATE", change(values, values))


def test_a_finding_travels_in_the_outputs_of_a_notebook():
    table = [Row("A", -20.0, -25.0, -15.0, 8, "%"), Row("B", None)]
    said = Finding("Does it?", table, "Gating", "Protocol: default.", lead=1)
    assert said.headline == "Gating lowers A by 20 % [15, 25] (n = 8)."
    assert said.answer == f"{said.headline} Protocol: default."
    bundle = said._repr_mimebundle_()
    shown, _, folded = bundle["text/markdown"].partition("<details>")
    assert f"**{said.headline}**" in shown
    assert "| A | -20 % [-25, -15] | 8 | lower |" in shown
    assert "| B |" in folded
    assert bundle[FINDING_MIME]["rows"][1]["verdict"] == NOT_MEASURED
    output = nbformat.v4.new_output("execute_result", data=bundle, execution_count=1)
    notebook = nbformat.v4.new_notebook(
        cells=[nbformat.v4.new_markdown_cell("x"), nbformat.v4.new_code_cell("", outputs=[output])]
    )
    assert list(findings_of(notebook)) == [said]
    with pytest.raises(InvalidArgument, match="question"):
        Finding("It does", table)
    with pytest.raises(InvalidArgument, match="nothing"):
        Finding("Does it?")


def test_without_truth_nothing_is_judged():
    moved = changed([1.1] * 6).expand_dims(measure=["depth"])
    said = without_truth("Does it?", moved, "Gating")
    assert said.headline == "Gating: depth (10.00 % [10.00, 10.00]) (n = 6)."
    assert "No ground truth" in said.answer
    assert {each.verdict for each in said.rows} == {""}
