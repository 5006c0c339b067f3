"""Where no widget can live, an executed page has its picture and leads to its saved page."""

import base64
import re
from html import unescape
from io import BytesIO
from pathlib import Path
from urllib.parse import unquote

import nbformat
import numpy as np
import pytest
from PIL import Image

from mut3r_analysis.notebooks.execution import execute_notebook, find_notebook

SCENE = """import mut3r_analysis as m3
video = m3.open_sequence("scenes/orbit-03", stop=2)
run = m3.run("random:small", video, progress=False)
view = m3.widgets.SceneView(run, video)"""


def write(path: Path, *cells: str) -> Path:
    first = nbformat.v4.new_code_cell("out = '.'", metadata={"tags": ["parameters"]})
    made = nbformat.v4.new_notebook(cells=[first, *map(nbformat.v4.new_code_cell, cells)])
    nbformat.write(made, path)
    return path


def pictures(page: Path) -> list[np.ndarray]:
    """Decode the pictures that a page holds."""
    found = re.findall(r'<img[^>]*src="data:image/png;base64,([^"]+)"', page.read_text())
    return [
        np.asarray(Image.open(BytesIO(base64.b64decode(re.sub(r"\s", "", unescape(each))))))
        for each in found
    ]


def linked(page: Path) -> list[Path]:
    """Return the pages that a page leads to."""
    found = re.findall(r'<a href="([^"#:]+\.html)">Open the explorer', page.read_text())
    return [page.parent / unquote(address) for address in found]


def test_an_explorer_leaves_its_picture_and_a_link_to_the_page_it_saves_later(tmp_path):
    path = write(tmp_path / "look.ipynb", SCENE, "view", "view.save_html(out + '/my scene.html')")
    page = tmp_path / "pages" / "look.html"
    executed = execute_notebook(path, {"out": str(tmp_path / "kept")}, out_html=page)
    (output,) = executed.cells[3].outputs
    # The notebook itself keeps both: JupyterLab shows the widget, GitHub the picture.
    assert {"application/vnd.jupyter.widget-view+json", "image/png"} <= set(output["data"])
    (picture,) = pictures(page)
    assert picture.shape[1] == 1400
    # More than paper: points and the camera's path.
    assert (picture[..., :3].min(axis=-1) < 200).mean() > 0.02
    assert linked(page) == [page.parent / "look" / "my scene.html"]
    assert linked(page)[0].read_bytes() == (tmp_path / "kept" / "my scene.html").read_bytes()
    assert "widget-state" not in page.read_text()


def test_a_page_that_lies_beside_is_not_copied_and_boxes_show_what_they_hold(tmp_path):
    controls = "import ipywidgets\nknobs = view.controls('frame')\nknobs"
    boxed = "ipywidgets.VBox([ipywidgets.HBox([knobs]), ipywidgets.HBox([view])])"
    saved = "view.save_html(out + '/scene.html')\nview"
    path = write(tmp_path / "look.ipynb", SCENE, saved, controls, boxed)
    page = tmp_path / "look.html"
    execute_notebook(path, {"out": str(tmp_path)}, out_html=page)
    # Once by itself, and once in the boxes that hold it.
    assert linked(page) == [tmp_path / "scene.html"] * 2
    assert not (tmp_path / "look").exists()
    alone, in_boxes = pictures(page)
    np.testing.assert_array_equal(alone, in_boxes)
    assert page.read_text().count("A widget stands here while the notebook runs.") == 1


def test_progress_bars_leave_nothing(tmp_path):
    counted = "from tqdm.auto import tqdm\nfor _ in tqdm(range(3), desc='runs done'): pass"
    page = tmp_path / "count.html"
    done = execute_notebook(write(tmp_path / "count.ipynb", counted, "'after'"), {}, out_html=page)
    kept = [each["data"] for each in done.cells[-2].outputs if "data" in each]
    assert any("application/vnd.jupyter.widget-view+json" in data for data in kept)
    shown = page.read_text().partition("<body")[2]
    assert "A widget stands here" not in shown
    assert "0/3" not in shown
    assert "<pre>'after'</pre>" in shown


@pytest.mark.slow
def test_the_page_of_the_explorers_has_all_their_pictures(tmp_path):
    parameters = {"backbone": "random:small", "frames": 2, "out": str(tmp_path), "progress": False}
    page = tmp_path / "12.html"
    execute_notebook(find_notebook("12_explorers"), parameters, out_html=page)
    names = ["attention", "compared", "failures", "closer", "swept", "scene", "playground"]
    assert [path.stem for path in linked(page)] == names
    assert all(path.is_file() for path in linked(page))
    # Seven explorers, and two figures.
    assert [picture.shape[1] for picture in pictures(page)] == [1400] * 9
