"""The quickstart is committed without outputs, runs through, and computes what it says."""

from pathlib import Path
from typing import Any

import nbformat
import numpy as np
import pytest
from PIL import Image

import mut3r_analysis as m3
from mut3r_analysis.errors import AlreadyExists, InvalidArgument, MissingFile
from mut3r_analysis.notebooks.demo import NOTEBOOK, demo
from mut3r_analysis.notebooks.execution import execute_notebook, find_notebook


def cell(notebook: Any, name: str) -> Any:
    return next(each for each in notebook.cells if each.id == name)


def shown(notebook: Any, name: str) -> str:
    """What a cell printed or displayed as text."""
    texts = []
    for output in cell(notebook, name).outputs:
        data = output.get("data", {})
        texts.append(output.get("text") or data.get("text/markdown") or data.get("text/plain", ""))
    return "".join(texts)


def write_squares(folder: Path, frames: int = 4) -> Path:
    folder.mkdir()
    for frame in range(frames):
        pixels = np.full((48, 64, 3), 60, np.uint8)
        pixels[16:32, 10 * frame : 10 * frame + 14] = 220
        Image.fromarray(pixels).save(folder / f"{frame:02d}.png")
    return folder


def test_the_notebook_is_committed_clean() -> None:
    notebook = nbformat.read(find_notebook(NOTEBOOK), as_version=nbformat.NO_CONVERT)
    nbformat.validate(notebook)
    assert (notebook.nbformat, notebook.nbformat_minor) == (4, 5)
    code = [each for each in notebook.cells if each.cell_type == "code"]
    assert all(not each.outputs and each.execution_count is None for each in code)
    assert len({each.id for each in notebook.cells}) == len(notebook.cells)


@pytest.mark.slow
def test_demo_replaces_its_store_and_leaves_figures_and_a_page(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    frames = write_squares(tmp_path / "frames")
    (tmp_path / "out").mkdir()
    own = tmp_path / "out" / "notes.txt"
    own.write_text("mine")
    model = m3.load_backbone("random:small", device="cpu")
    earlier = tmp_path / "out" / "quickstart.zarr"
    m3.run(model, m3.open_sequence(frames, stop=1), out=earlier, progress=False)
    page = demo(tmp_path / "out", backbone="random:small", sequence=str(frames), frames=3)
    run = m3.open_run(tmp_path / "out" / "quickstart.zarr")
    assert run.attrs["frames"] == 3
    assert run.attrs["complete"]
    made = {path.name for path in (tmp_path / "out" / "figures").iterdir()}
    assert {f"{name}.{kind}" for name in ("depth", "camera") for kind in ("png", "pdf")} <= made
    html = page.read_text()
    assert "image/png" in html or "data:image/png" in html
    assert "cdnjs" not in html
    assert "Not scored" in html  # scenes are for specimens
    assert "failures.html" in html
    assert "Failure explorer" in (page.parent / "failures.html").read_text()
    assert str(page) in capsys.readouterr().out
    assert own.read_text() == "mine"


@pytest.mark.slow
def test_what_the_quickstart_says_is_what_the_run_holds(shared: Path, tmp_path: Path) -> None:
    # By hand the notebook starts again where it has already been, after a demo too.
    earlier = m3.open_sequence("scenes/orbit-03", stop=1)
    store = tmp_path / "quickstart.zarr"
    m3.run(m3.load_backbone("tiny"), earlier, outputs=("pose",), out=store, progress=False)
    notebook = execute_notebook(
        find_notebook(NOTEBOOK),
        {
            "backbone": "random:small",
            "sequence": str(shared / "frames" / "walking_woman"),
            "frames": 4,
            "scored": 2,
            "out": tmp_path,
            "progress": False,
        },
    )
    run = m3.open_run(tmp_path / "quickstart.zarr")
    assert run.attrs["sequence"]["name"] == "walking_woman"
    assert "random weights" in shown(notebook, "load-backbone")
    assert "4 frames" in shown(notebook, "capture")
    difference = float(shown(notebook, "check-map").split("**")[1])
    assert difference < 1e-6
    mean = run["attention/image_self/entropy"].sel(token="patch").mean(["frame", "query"])
    layer, head = np.unravel_index(int(np.argmin(mean.values)), mean.shape)
    assert f"head {head} of layer {layer}" in shown(notebook, "say-layers")
    update = run["state/update_size"].mean("state_token")
    assert f"largest mean update is at frame {int(update.idxmax())}" in shown(notebook, "say-state")
    assert "No ground truth" in shown(notebook, "say-gate")
    scored = cell(notebook, "score-many").outputs[0]["data"]["text/html"]
    assert "RPE rotation (degree)" in scored
    assert "verdict" in scored
    for name in ("look-layers", "look-frames", "look-depth", "look-camera", "look-state", "gate"):
        (output,) = cell(notebook, name).outputs
        assert "image/png" in output["data"]


def test_a_parameter_that_the_notebook_lacks_is_refused() -> None:
    with pytest.raises(InvalidArgument, match=r"no parameter scene; it has backbone, sequence"):
        execute_notebook(find_notebook(NOTEBOOK), {"scene": "scenes/orbit-03"})


def test_a_value_that_is_no_literal_is_refused() -> None:
    with pytest.raises(InvalidArgument, match="cannot be written into a notebook"):
        execute_notebook(find_notebook(NOTEBOOK), {"frames": object()})


def test_a_notebook_without_a_parameters_cell_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "bare.ipynb"
    nbformat.write(nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("x = 1")]), path)
    with pytest.raises(InvalidArgument, match="0 code cells tagged 'parameters'"):
        execute_notebook(path, {})


def test_missing_notebooks_are_named() -> None:
    with pytest.raises(MissingFile, match=r"no notebook '99_nothing.ipynb'.*00_quickstart"):
        find_notebook("99_nothing")
    with pytest.raises(MissingFile, match="no notebook at"):
        execute_notebook("nowhere.ipynb", {})


def test_demo_does_not_replace_what_is_no_run(tmp_path: Path) -> None:
    (tmp_path / "quickstart.zarr").mkdir()
    with pytest.raises(AlreadyExists, match="not the store of a run"):
        demo(tmp_path, backbone="random:small", progress=False)
    assert (tmp_path / "quickstart.zarr").is_dir()


def test_execution_reports_every_cell_and_uses_the_parameters(tmp_path: Path) -> None:
    path = tmp_path / "sum.ipynb"
    new_cell = nbformat.v4.new_code_cell
    cells = [new_cell("x = 1", metadata={"tags": ["parameters"]}), new_cell("x + 1")]
    nbformat.write(nbformat.v4.new_notebook(cells=cells), path)
    seen: list[tuple[int, int]] = []
    executed = execute_notebook(
        path, {"x": 41}, on_cell=lambda done, count: seen.append((done, count))
    )
    assert executed.cells[-1].outputs[0]["data"]["text/plain"] == "42"
    assert seen == [(0, 3), (1, 3), (2, 3)]
