"""The explorers as a reader meets them: a notebook in JupyterLab, a page without a kernel."""

from pathlib import Path
from statistics import median

import matplotlib
import numpy as np
import pytest
from browser import a_lab, a_page, open_notebook, require_chromium, with_parameters

from mut3r_analysis.notebook import find_notebook
from mut3r_analysis.widgets import AttentionExplorer, FailureExplorer, SceneView

pytestmark = pytest.mark.slow

VIRIDIS = np.round(matplotlib.colormaps["viridis"](np.arange(256))[:, :3] * 255).astype(int)
CENTRES = """(canvas, [rows, columns]) => {
  const context = canvas.getContext("2d", { willReadFrequently: true });
  const found = [];
  for (let row = 0; row < rows; row += 1) for (let column = 0; column < columns; column += 1) {
    const x = Math.floor(((column + 0.5) * canvas.width) / columns);
    const y = Math.floor(((row + 0.5) * canvas.height) / rows);
    found.push(Array.from(context.getImageData(x, y, 1, 1).data.slice(0, 3)));
  }
  return found;
}"""
SAVE = """for name in ("weights", "rotated_query"):
    np.save(Path(out) / f"{name}.npy", run["attention/image_self"][name].values)"""


class Explored:
    """The attention explorer of an open page."""

    def __init__(self, page) -> None:
        self.page = page
        self.root = page.locator(".m3-attention").first
        self.root.wait_for(timeout=240_000)
        page.wait_for_selector(".m3-attention[data-drawn]", timeout=60_000)
        self.root.scroll_into_view_if_needed()

    def drawn(self) -> int:
        return int(self.root.get_attribute("data-drawn"))

    def settle(self, before: int) -> None:
        self.page.wait_for_function(
            "before => Number(document.querySelector('.m3-attention').dataset.drawn) > before",
            arg=before,
        )
        # Two changes in a row are drawn in a row.
        self.page.wait_for_timeout(150)

    def point(self, side: str, row: int, column: int, rows: int = 6, columns: int = 8):
        canvas = self.root.locator(f"canvas[data-side={side}]").first
        box = canvas.bounding_box()
        place = (column + 0.5) / columns * box["width"], (row + 0.5) / rows * box["height"]
        return canvas, {"x": place[0], "y": place[1]}

    def click(self, side: str, row: int, column: int) -> None:
        before = self.drawn()
        canvas, position = self.point(side, row, column)
        canvas.click(position=position)
        self.settle(before)

    def press(self, key: str) -> None:
        before = self.drawn()
        self.page.keyboard.press(key)
        self.settle(before)

    def only_colours(self) -> None:
        """Full opacity and no outlines: every pixel is the colour of its cell."""
        before = self.drawn()
        for box in self.root.locator(".m3-check input").all():
            box.uncheck()
        self.root.locator("label:has-text('Opacity') input").fill("20")
        self.settle(before)

    def pixels(self, side: str) -> np.ndarray:
        canvas = self.root.locator(f"canvas[data-side={side}]").first
        return np.array(canvas.evaluate(CENTRES, [6, 8]))


def colors(values: np.ndarray) -> np.ndarray:
    """Colours of weights from nothing to their greatest, in 256 steps."""
    steps = np.floor(256 * values.astype(np.float64) / values.max())
    return VIRIDIS[np.clip(steps, 0, 255).astype(int)]


def test_a_click_and_an_arrow_in_jupyterlab_show_the_numbers_of_the_run(tmp_path: Path):
    require_chromium()
    parameters = {
        "backbone": "random:small", "sequence": "scenes/orbit-03", "frames": 4,
        "out": str(tmp_path), "progress": False,
    }  # fmt: skip
    with_parameters(find_notebook("12_explorers"), tmp_path / "explorers.ipynb", parameters, SAVE)
    with a_lab(tmp_path) as address, a_page() as (page, errors):
        open_notebook(page, address, "explorers.ipynb")
        explored = Explored(page)
        explored.only_colours()
        explored.click("query", 1, 6)
        before = explored.root.locator("header p").inner_text()
        explored.press("ArrowUp")
        explored.press("ArrowRight")
        assert explored.root.locator("header p").inner_text() != before
        assert "Held: patch (row 1, column 6)" in explored.root.locator(".m3-status").inner_text()
        until(lambda: (tmp_path / "rotated_query.npy").exists(), page)
        weights = np.load(tmp_path / "weights.npy")
        place = explored.root.locator("header p").inner_text()
        layer = int(place.split("layer ")[1].split(":")[0])
        frame = int(place.split("frame ")[1])
        map_ = weights[frame, layer].mean(axis=0, dtype=np.float32)
        token = 1 + 1 * 8 + 6
        np.testing.assert_array_equal(explored.pixels("query"), colors(map_[token, 1:]))
        np.testing.assert_array_equal(explored.pixels("key"), colors(map_[1:, token]))
        wander(explored, 10)
        latencies: list[float] = []
        grown = growth(page, lambda: latencies.extend(wander(explored, 200)))
        print(
            f"hover to redraw: median {median(latencies):.1f} ms; page grew {grown / 2**20:.2f} MiB"
        )
        assert grown < 2 * 2**20
    assert errors == []


def wander(explored: Explored, steps: int) -> list[float]:
    """Let go of the token and move over patches; milliseconds from each move to its picture."""
    explored.page.keyboard.press("Escape")
    explored.page.wait_for_timeout(200)
    found = []
    for step in range(steps):
        canvas, position = explored.point("query", (step // 8) % 6, step % 8)
        before = explored.drawn()
        canvas.hover(position=position, force=True)
        explored.page.wait_for_function(
            "before => Number(document.querySelector('.m3-attention').dataset.drawn) > before",
            arg=before,
        )
        found.append(float(explored.root.get_attribute("data-latency")))
    return found


def growth(page, act) -> float:
    """Bytes by which the page's heap has grown after an act that was done once before."""
    session = page.context.new_cdp_session(page)

    def used() -> float:
        session.send("HeapProfiler.collectGarbage")
        return session.send("Runtime.getHeapUsage")["usedSize"]

    before = used()
    act()
    return used() - before


def until(true, page) -> None:
    for _ in range(600):
        if true():
            return
        page.wait_for_timeout(100)
    raise TimeoutError("the notebook did not finish")


def test_a_saved_page_works_without_a_kernel_and_without_a_network(archived, scene, tmp_path):
    require_chromium()
    explorer = AttentionExplorer(archived, scene, site="image_self", frame=1, layer=1)
    path = explorer.save_html(tmp_path / "page.html")
    with a_page() as (page, errors):
        page.goto(path.as_uri())
        explored = Explored(page)
        explored.only_colours()
        explored.click("key", 4, 2)
        explored.press("ArrowUp")
        map_ = archived["attention/image_self/weights"].sel(frame=1, layer=2).values
        map_ = map_.mean(axis=0, dtype=np.float32)
        token = 1 + 4 * 8 + 2
        np.testing.assert_array_equal(explored.pixels("query"), colors(map_[token, 1:]))
        np.testing.assert_array_equal(explored.pixels("key"), colors(map_[1:, token]))
        explored.press("Shift+ArrowLeft")
        assert "patch (row 4, column 1)" in explored.root.locator(".m3-status").inner_text()
        explored.press("p")
        assert "the pose token" in explored.root.locator(".m3-status").inner_text()
    assert errors == []


def test_a_page_of_failures_goes_to_the_frame_that_is_clicked(archived, cued, scene, tmp_path):
    require_chromium()
    explorer = FailureExplorer({"plain": archived, "gated": cued}, scene)
    path = explorer.save_html(tmp_path / "failures.html", frames=[0, 1, 2])
    with a_page() as (page, errors):
        page.goto(path.as_uri())
        page.wait_for_selector(".m3-failure[data-drawn]")
        status = page.locator(".m3-failure .m3-status")
        graph = page.locator(".m3-strip-graph").first
        graph.click(position={"x": graph.bounding_box()["width"] - 5, "y": 20})
        page.mouse.move(0, 0)
        page.wait_for_function(
            "document.querySelector('.m3-status').textContent.startsWith('Frame 2')"
        )
        worst = explorer.worst()
        numbers = "buttons => buttons.map(one => Number(one.firstChild.textContent))"
        assert page.locator(".m3-worst button").evaluate_all(numbers) == worst
        value = float(explorer.series("ate", "plain").sel(frame=2))
        assert f"ATE, this frame (m): {value:.3g}"[:26] in status.inner_text()
        page.locator(".m3-failure").focus()
        page.keyboard.press("ArrowLeft")
        page.wait_for_function(
            "document.querySelector('.m3-status').textContent.startsWith('Frame 1')"
        )
    assert errors == []


def test_a_page_of_a_scene_draws_its_points(archived, scene, tmp_path):
    require_chromium()
    view = SceneView(archived, scene)
    view.coloring = "source"
    path = view.save_html(tmp_path / "scene.html")
    with a_page() as (page, errors):
        page.goto(path.as_uri())
        page.wait_for_selector(".m3-scene[data-loaded]", timeout=60_000)
        page.wait_for_timeout(300)
        root = page.locator(".m3-scene")
        assert int(root.get_attribute("data-points")) == len(view.cloud("run")[0])
        blue = page.evaluate(COUNT_BLUE)
        assert blue > 500
        root.focus()
        page.keyboard.press("ArrowLeft")
        page.wait_for_timeout(300)
        assert int(root.get_attribute("data-points")) == 2 * 48 * 64
        assert page.evaluate(COUNT_BLUE) != blue
    assert errors == []


COUNT_BLUE = """() => {
  const canvas = document.querySelector(".m3-scene-canvas");
  const gl = canvas.getContext("webgl");
  const pixels = new Uint8Array(4 * canvas.width * canvas.height);
  gl.readPixels(0, 0, canvas.width, canvas.height, gl.RGBA, gl.UNSIGNED_BYTE, pixels);
  let count = 0;
  for (let at = 0; at < pixels.length; at += 4) {
    count += pixels[at] === 0 && pixels[at + 1] === 114 && pixels[at + 2] === 178;
  }
  return count;
}"""
