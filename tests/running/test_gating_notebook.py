"""The gating notebook is committed without outputs, runs through, and computes what it says."""

import nbformat
import pytest

from mut3r_analysis.notebooks.execution import execute_notebook, find_notebook
from mut3r_analysis.studies.finding import findings_of

NOTEBOOK = "03_asymmetric_gating"


def said(notebook, name):
    (cell,) = (each for each in notebook.cells if each.id == name)
    return "".join(
        output.get("text") or output["data"].get("text/markdown") or output["data"]["text/plain"]
        for output in cell.outputs
    )


def test_the_gating_notebook_is_committed_clean():
    notebook = nbformat.read(find_notebook(NOTEBOOK), as_version=nbformat.NO_CONVERT)
    nbformat.validate(notebook)
    code = [each for each in notebook.cells if each.cell_type == "code"]
    assert all(not each.outputs and each.execution_count is None for each in code)
    assert len({each.id for each in notebook.cells}) == len(notebook.cells)


@pytest.mark.slow
def test_the_two_facts_hold_where_the_notebook_says_so(shared, tmp_path):
    notebook = execute_notebook(
        find_notebook(NOTEBOOK),
        {
            "backbone": "random:small",
            "folder": str(shared / "frames" / "walking_woman"),
            "frames": 2,
            "sequences": [str(shared / "frames" / "walking_woman")],
            "scored_frames": 2,
            "out": str(tmp_path),
            "progress": False,
        },
    )
    assert float(said(notebook, "say-constant").split("**")[1]) < 1e-5
    scored, literal = findings_of(notebook)
    assert "No ground truth" in scored.answer
    assert literal.row("change of weights by the same bias").value < 1e-13
    assert "bit for bit" in literal.answer
    assert "without contrast" in said(notebook, "say-refused")
    assert said(notebook, "say-effects").count("**") == 4  # the scene and the folder
