"""A finding: a table whose verdicts follow its numbers, and a sentence made from it."""

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
    row,
    rows,
    sentence,
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
    assert Row("a", -20.04, -25.2, -15.1, 8, "%").interval == "-20 [-25, -15] %"
    assert Row("a", 0.6123, 0.5812, 0.6434, 8, reference=0.5).interval == "0.61 [0.58, 0.64]"
    assert Row("a", 3, reference=None).interval == "3"
    assert Row("a", None).interval == "–"


def test_the_sentence_names_what_was_found_before_what_was_not():
    told = [
        Row("A", 1.0, -1.0, 3.0, 7),
        Row("B", -20.0, -25.0, -15.0, 8, "%"),
        Row("C", 5.0, 2.0, 9.0, 3),
    ]
    assert sentence("The error is", told) == (
        "The error is lower for B (-20 [-25, -15] %, n = 8); not significantly different for A "
        "(n = 7); measured on too few to tell for C (n = 3)."
    )
    assert sentence("The error is", told[::-1]).index("lower for B") == len("The error is ")
    assert sentence("The error is", []) == ""


def test_a_sentence_stays_short():
    told = [Row(name, -20.0, -25.0, -15.0, 8, "%") for name in "ABCDEF"]
    said = sentence("The error is", told)
    assert said.startswith("The error is lower for A (-20 [-25, -15] %), B (")
    assert said.endswith("D (-20 [-25, -15] %) and 2 others (n = 8).")
    # One other is named: that takes no more words.
    assert sentence("The error is", told[:5]).endswith(", E (-20 [-25, -15] %) (n = 8).")


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
    said = Finding("Does it?", table, "The error is", "Protocol: default.", lead=1)
    assert said.answer == "The error is lower for A (-20 [-25, -15] %) (n = 8). Protocol: default."
    bundle = said._repr_mimebundle_()
    assert "| A | -20 [-25, -15] % | 8 | lower |" in bundle["text/markdown"]
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
    said = without_truth("Does it?", moved, "Gating moves")
    assert said.answer.startswith("Gating moves depth (10.00 [10.00, 10.00] %) (n = 6).")
    assert "No ground truth" in said.answer
    assert {each.verdict for each in said.rows} == {""}
