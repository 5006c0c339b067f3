"""``mut3r notebooks``: executes, fails loudly, and writes the map of what was found."""

import shutil

import nbformat
import pytest
from PIL import Image

from mut3r_analysis.cli import main
from mut3r_analysis.errors import MissingFile
from mut3r_analysis.notebooks import execution, overview

PARAMETERS = "frames = 3  # at most so many\nbackbone = 'tiny'  # a name, or a path."
FINDING = (
    "from mut3r_analysis.studies.finding import Finding, Row\n"
    "Finding('How many?', [Row('frames', frames, reference=None)], 'Counted')"
)
FIGURE = "from PIL import Image\nImage.effect_noise((900, 600), 80)"


def write(folder, name, *cells, parameters=PARAMETERS):
    made = nbformat.v4.new_notebook()
    made.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3"}
    made.cells.append(nbformat.v4.new_markdown_cell("# A title\n\nWhat is\nasked."))
    first = nbformat.v4.new_code_cell(parameters, metadata={"tags": ["parameters"]})
    made.cells += [first, *map(nbformat.v4.new_code_cell, cells)]
    nbformat.write(made, folder / f"{name}.ipynb")


@pytest.fixture
def folder(tmp_path, monkeypatch):
    home = tmp_path / "notebooks"
    home.mkdir()
    monkeypatch.setattr(execution, "NOTEBOOK_FOLDERS", (home,))
    return home


def test_the_map_says_what_executed_notebooks_found(folder, tmp_path, capsys):
    write(folder, "01_counting", FIGURE, FINDING, FIGURE)
    write(folder, "02_looking", "backbone", parameters="backbone = 'tiny'")
    out, page = tmp_path / "out", tmp_path / "README.md"
    arguments = ["notebooks", "--out", str(out), "--set", "frames=5"]
    assert main([*arguments, "--map", str(page)]) == 0
    text = page.read_text()
    first, second = (line for line in text.splitlines() if line.startswith("| ["))
    picture = "![01_counting](thumbnails/01_counting.png)"
    assert first.startswith(
        f"| [01 A title](01_counting.ipynb) | How many? | Counted: frames (5). | {picture} | "
    )
    assert float(first.split(" | ")[-1].rstrip(" |")) < 5  # minutes
    assert second.startswith("| [02 A title](02_looking.ipynb) | What is asked. |  |  | ")
    thumbnail = tmp_path / "thumbnails" / "01_counting.png"
    assert 0 < thumbnail.stat().st_size <= 15_000
    with Image.open(thumbnail) as picture:
        assert picture.width <= 320
    page = (out / "01_counting.html").read_text(encoding="utf-8")
    assert ".jp-RenderedImage img { width: 100%" in page  # figures are as wide as the page
    assert "min" in capsys.readouterr().out


def test_answers_with_another_backbone_stand_beside_on_the_map(folder, tmp_path):
    write(folder, "01_counting", FINDING, parameters="frames = 3\nbackbone = 'tiny'")
    out, other, page = (tmp_path / name for name in ("out", "other", "README.md"))
    settings = ["--set", "backbone=tiny-static", "--set", "frames=9"]
    assert main(["notebooks", "--out", str(other), *settings]) == 0
    assert main(["notebooks", "--out", str(out), "--map", str(page), "--beside", str(other)]) == 0
    text = page.read_text()
    assert "| How many? | Counted: frames (3). |" in text
    assert "- [01 A title](01_counting.ipynb), with tiny-static: Counted: frames (9)." in text
    # Another setting is no further question.
    assert text.count("How many?") == 1


def test_further_questions_of_a_notebook_stand_below_the_table(folder, tmp_path):
    write(
        folder, "01_counting", FINDING.replace("many", "| many"), FINDING.replace("many", "often")
    )
    out, page = tmp_path / "out", tmp_path / "README.md"
    assert main(["notebooks", "--out", str(out), "--map", str(page)]) == 0
    table, _, more = page.read_text().partition("## More answers")
    assert r"| How \| many? | Counted: frames (3). |" in table
    assert "often" not in table
    assert "- [01 A title](01_counting.ipynb): *How often?* Counted: frames (3)." in more


def test_what_no_notebook_is_called_or_takes_is_refused_before_any_runs(folder, tmp_path, capsys):
    write(folder, "01_counting", FINDING)
    out = tmp_path / "out"
    for arguments, said in (
        (["01", "99"], "no notebook begins with 99; there are 01_counting"),
        (["--set", "bakbone=tiny"], "the parameter ['bakbone']"),
    ):
        assert main(["notebooks", "--out", str(out), *arguments]) == 1
        assert said in capsys.readouterr().err
    assert not out.exists()


def test_a_failing_cell_fails_the_command_and_leaves_no_stale_page(folder, tmp_path, capsys):
    write(folder, "01_counting", FINDING)
    write(folder, "02_broken", "1 / 0")
    out = tmp_path / "out"
    out.mkdir()
    (out / "02_broken.html").write_text("from an earlier time")
    page = tmp_path / "README.md"
    assert main(["notebooks", "--out", str(out), "--map", str(page)]) == 1
    printed = capsys.readouterr().out
    assert "ZeroDivisionError" in printed
    assert "1 of 2 notebooks failed: 02_broken" in printed
    assert not (out / "02_broken.html").exists()
    assert (out / "01_counting.html").exists()
    assert not page.exists()


def test_what_a_map_says_of_notebooks_that_are_not_executed_again_stays(folder, tmp_path):
    write(folder, "01_counting", FINDING)
    write(folder, "02_looking", FINDING, FINDING.replace("many", "often"))
    out, other, page = (tmp_path / name for name in ("out", "other", "README.md"))
    assert main(["notebooks", "02", "--out", str(other), "--set", "backbone=tiny-static"]) == 0
    first = ["notebooks", "--out", str(out), "--map", str(page)]
    assert main([*first, "--beside", str(other)]) == 0
    before = page.read_text()
    shutil.rmtree(out)
    again = ["notebooks", "01", "--out", str(out), "--set", "frames=7", "--map", str(page)]
    assert main(again) == 0
    after = page.read_text()
    assert "Counted: frames (7)." in after
    kept = [line for line in before.splitlines() if "[02 " in line]
    assert len(kept) == 4
    assert [line for line in after.splitlines() if "[02 " in line] == kept


def test_a_map_needs_every_notebook(folder, tmp_path):
    write(folder, "01_counting", FINDING)
    with pytest.raises(MissingFile, match="01_counting"):
        overview.notebook_map(tmp_path)


def test_a_name_that_is_no_notebook_and_a_setting_that_is_none_are_refused(folder, capsys):
    write(folder, "01_counting", FINDING)
    assert main(["notebooks", "99"]) == 1
    assert "01_counting" in capsys.readouterr().err
    assert main(["notebooks", "--set", "frames"]) == 1
    assert "NAME=VALUE" in capsys.readouterr().err
