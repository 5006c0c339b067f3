"""The explorers as a reader meets them: a notebook in JupyterLab, a page without a kernel."""

from pathlib import Path
from statistics import median

import matplotlib
import numpy as np
import pytest
import scipy.special
import zarr
from browser import a_lab, a_page, open_notebook, with_parameters, write_notebook
from explored import CENTRES, Explored, growth
from large_runs import archived_store, large_sequence, points_store

import mut3r_analysis as m3
from mut3r_analysis.motion import REALISATIONS, Cue, Gate
from mut3r_analysis.notebooks.execution import find_notebook
from mut3r_analysis.widgets import AttentionExplorer, FailureExplorer, SceneView
from mut3r_analysis.widgets.gate_playground import METRICS

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("chromium")]

VIRIDIS = np.round(matplotlib.colormaps["viridis"](np.arange(256))[:, :3] * 255).astype(int)
SAVE = """for name in ("weights", "rotated_query"):
    np.save(Path(out) / f"{name}.npy", run["attention/image_self"][name].values)"""


def colors(values: np.ndarray, shift: float = 0) -> np.ndarray:
    """Colours of weights from nothing to their greatest, in 256 steps."""
    steps = np.floor(256 * values.astype(np.float64) / values.max() + shift)
    return VIRIDIS[np.clip(steps, 0, 255).astype(int)]


def test_a_click_and_an_arrow_in_jupyterlab_show_the_numbers_of_the_run(tmp_path: Path):
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
        explored.wander(10)
        latencies: list[float] = []
        grown = growth(page, lambda: latencies.extend(explored.wander(200)))
        print(
            f"hover to redraw: median {median(latencies):.1f} ms; page grew {grown / 2**20:.2f} MiB"
        )
        assert grown < 2 * 2**20
    assert errors == []


def until(true, page) -> None:
    for _ in range(600):
        if true():
            return
        page.wait_for_timeout(100)
    raise TimeoutError("the notebook did not finish")


LARGE = """
import sys
sys.path.insert(0, {folder!r})
import mut3r_analysis as m3
from large_runs import large_sequence
from mut3r_analysis.widgets import AttentionExplorer

AttentionExplorer(
    m3.open_run({store!r}), large_sequence(100), site="image_self", frame=99, layer=4, head=7,
)
"""


def test_a_run_of_the_released_size_shows_the_row_of_its_queries_and_keys(tmp_path: Path):
    """100 frames of 512 x 384 pixels: 769 tokens, 12 layers, 12 heads."""
    store = archived_store(tmp_path / "large.zarr", frames=100, written=(99,))
    cell = LARGE.format(folder=str(Path(__file__).parent), store=str(store))
    write_notebook(tmp_path / "large.ipynb", cell)
    site = zarr.open_group(store, mode="r")["attention/image_self"]
    query, key = (site[f"rotated_{side}"][99, 4, 7].astype(float) for side in ("query", "key"))
    weights = scipy.special.softmax(query @ key.T / np.sqrt(64), axis=-1)
    token = 1 + 13 * 32 + 21
    with a_lab(tmp_path) as address, a_page() as (page, errors):
        open_notebook(page, address, "large.ipynb")
        explored = Explored(page, 24, 32)
        explored.only_colours()
        page.keyboard.press("Escape")
        explored.hover("query", 13, 21)
        page.wait_for_timeout(150)
        assert "Shown: patch (row 13, column 21)" in explored.root.inner_text()
        for side, row in (("query", weights[token, 1:]), ("key", weights[1:, token])):
            # A value at the border of two colours may get either.
            near = [colors(row, step) for step in (-1e-3, 0, 1e-3)]
            shown = explored.pixels(side)
            assert np.any([(shown == each).all(-1) for each in near], axis=0).all()
            assert len(np.unique(shown, axis=0)) > 20
    assert errors == []


PLAY = """
import mut3r_analysis as m3
from mut3r_analysis.widgets import GatePlayground

video = m3.open_sequence("scenes/orbit-03", stop=3)
playground = GatePlayground(m3.load_backbone("random:small", device="cpu"), video)
playground
"""


class Played:
    """The gate playground of an open page, played by keyboard."""

    def __init__(self, page) -> None:
        self.page = page
        page.wait_for_selector(".m3-playground[data-drawn]", timeout=240_000)
        self.root = page.locator(".m3-playground")
        self.root.scroll_into_view_if_needed()

    def press(self, label: str, *keys: str) -> None:
        """Press keys with a control in focus, and wait for the numbers of the last one."""
        control = self.root.locator(f"label:has-text('{label}')").locator("input, select")
        control.focus()
        for key in keys:
            drawn = int(self.root.get_attribute("data-drawn"))
            self.page.keyboard.press(key)
            self.page.wait_for_function(
                """before => {
                  const root = document.querySelector(".m3-playground");
                  const verdict = root.querySelector(".m3-verdict").textContent;
                  return Number(root.dataset.drawn) > before && !verdict.startsWith("Running");
                }""",
                arg=drawn,
            )

    def verdict(self) -> str:
        return self.root.locator(".m3-verdict").inner_text()

    def scores(self) -> dict[str, list[float]]:
        """Return plain and gated numbers by their labels."""
        rows = self.root.locator(".m3-scores tr").all()[1:]
        cells = [[cell.inner_text() for cell in row.locator("td").all()] for row in rows]
        return {
            label: [float(text.replace("−", "-")) for text in texts[:2]] for label, *texts in cells
        }


def test_knobs_turned_by_keyboard_show_the_numbers_of_the_run_they_set(tmp_path, model, scene):
    write_notebook(tmp_path / "play.ipynb", PLAY)
    with a_lab(tmp_path) as address, a_page() as (page, errors):
        open_notebook(page, address, "play.ipynb")
        played = Played(page)
        played.press("β", "ArrowRight", "ArrowRight", "ArrowRight", "ArrowRight")
        played.press("image_self", "ArrowDown")
        chosen = played.root.locator("label:has-text('image_self') select").input_value()
        beta = played.root.locator("label:has-text('β') output").inner_text()
        assert (chosen, beta) == (list(REALISATIONS["image_self"])[1], "2")
        gate = Gate.mut3r(beta=2, layers=(0, 4), image_self=chosen)
        assert played.verdict() == f"Gated at {gate.describe_layers(4)}."
        expected = [
            m3.evaluate(m3.run(model, scene, progress=False, **more))
            for more in ({}, {"cue": Cue.mut3r(), "gate": gate})
        ]
        shown = played.scores()
        assert set(shown) == set(METRICS.values())
        for name, label in METRICS.items():
            assert shown[label] == [float(f"{float(each[name][0]):.3g}") for each in expected]
        played.press("β", "Home")
        reason = Gate.mut3r(beta=0, layers=(0, 4)).inert(4)
        assert played.verdict().startswith(f"Inert: {reason}.")
        assert all(plain == gated for plain, gated in played.scores().values())
    assert errors == []


def test_a_saved_page_works_without_a_kernel_and_without_a_network(archived, scene, tmp_path):
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


def test_all_heads_stand_in_one_scale_and_a_click_chooses_one(archived, scene, tmp_path):
    view = {"site": "image_self", "frame": 1, "layer": 1, "opacity": 1, "outlines": []}
    explorer = AttentionExplorer(archived, scene, **view)
    explorer.select(token="patch", patch_row=4, patch_col=2)
    path = explorer.save_html(tmp_path / "page.html")
    map_ = archived["attention/image_self/weights"].sel(frame=1, layer=1).values
    token = 1 + 4 * 8 + 2
    with a_page() as (page, errors):
        page.goto(path.as_uri())
        explored = Explored(page)
        for side, rows in (("query", map_[:, token, 1:]), ("key", map_[:, 1:, token])):
            buttons = explored.root.locator(f"figure:has(canvas[data-side={side}]) .m3-head")
            assert buttons.all_inner_texts() == [f"head {head}" for head in range(4)]
            shown = [button.locator("canvas").evaluate(CENTRES, [6, 8]) for button in buttons.all()]
            np.testing.assert_array_equal(np.concatenate(shown), colors(rows.ravel()))
        before = explored.drawn()
        buttons.nth(2).click()
        explored.settle(before)
        assert "head 2" in explored.root.locator("header p").inner_text()
        assert buttons.nth(2).get_attribute("aria-pressed") == "true"
        explored.only_colours()
        assert not buttons.first.is_visible()
        np.testing.assert_array_equal(explored.pixels("query"), colors(map_[2, token, 1:]))
    assert errors == []


def test_own_controls_give_way_to_ipywidgets_that_drive_the_explorer(tmp_path: Path):
    cell = """import mut3r_analysis as m3
video = m3.open_sequence("scenes/orbit-03", stop=3)
view = m3.widgets.SceneView(m3.run("random:small", video, progress=False), video)
view.own_controls = False
import ipywidgets
ipywidgets.VBox([view.controls("frame"), view])"""
    write_notebook(tmp_path / "controls.ipynb", cell)
    with a_lab(tmp_path) as address, a_page() as (page, errors):
        open_notebook(page, address, "controls.ipynb")
        root = page.locator(".m3-explorer").first
        root.wait_for(timeout=60_000)
        assert not root.locator(".m3-controls").first.is_visible()
        root.focus()
        slider = page.locator(".widget-readout").first
        assert slider.inner_text() == "2"
        page.keyboard.press("ArrowLeft")
        until(lambda: slider.inner_text() == "1", page)
    assert errors == []


def test_a_page_of_failures_goes_to_the_frame_that_is_clicked(archived, cued, scene, tmp_path):
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
        assert f"ATE (m): {value:.3g}"[:14] in status.inner_text()
        page.locator(".m3-failure").focus()
        page.keyboard.press("ArrowLeft")
        page.wait_for_function(
            "document.querySelector('.m3-status').textContent.startsWith('Frame 1')"
        )
    assert errors == []


def test_a_click_on_the_worst_head_opens_its_attention_in_both_runs(model, scene, tmp_path):
    gate = Gate.at({"image_to_state": "output_scale"}, layers=(2, 3), heads=(1,))
    capture = m3.Capture(archive=True, head_outputs="all")
    parts = {"plain": {}, "gated": {"cue": Cue.mut3r(), "gate": gate}}
    runs = {
        name: m3.run(model, scene, capture=capture, progress=False, **more)
        for name, more in parts.items()
    }
    path = FailureExplorer(runs, scene).save_html(tmp_path / "failures.html")
    with a_page(1100, 2600) as (page, errors):
        page.goto(path.as_uri())
        first = page.locator(".m3-ranking button").first
        first.wait_for()
        assert first.get_attribute("data-place") == "image_to_state, layer 2, head 1"
        first.click()
        explored = Explored(page)
        assert (
            explored.root.locator("header p")
            .inner_text()
            .startswith("image_to_state, layer 2: image queries read state keys · head 1")
        )
        assert explored.root.locator("h4").all_inner_texts() == ["plain", "gated"]
        assert "Held: patch" in explored.root.locator(".m3-status").inner_text()
        assert explored.root.locator(".m3-status.m3-error").count() == 0
        waits = page.evaluate(CLICKS)
        print(f"a click on a head: median {median(waits):.1f} ms")
        page.get_by_role("button", name="Close").click()
        assert page.locator(".m3-attention").count() == 0
    assert errors == []


CLICKS = """async () => {
  const waits = [];
  for (const button of document.querySelectorAll(".m3-ranking button")) {
    const began = performance.now();
    const explorer = document.querySelector(".m3-attention");
    const before = Number(explorer.dataset.drawn);
    button.click();
    while (Number(explorer.dataset.drawn) === before) await new Promise(requestAnimationFrame);
    waits.push(performance.now() - began);
  }
  return waits;
}"""


def test_a_page_of_a_scene_draws_its_points(archived, scene, tmp_path):
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


def test_a_large_scene_leaves_points_out_while_it_turns_and_none_at_rest(tmp_path):
    run = m3.open_run(points_store(tmp_path / "points.zarr", frames=2))
    view = SceneView(run, large_sequence(2), most_points=1_000_000)
    view.point_size = 0.5
    view.coloring = "source"
    path = view.save_html(tmp_path / "scene.html")
    with a_page() as (page, errors):
        page.goto(path.as_uri())
        page.wait_for_selector(".m3-scene[data-points='393216'][data-loaded]", timeout=60_000)
        page.wait_for_timeout(500)
        before, turning, after = page.evaluate(THERE_AND_BACK)
        assert 0 < turning < 0.9 * before
        assert after == before
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
THERE_AND_BACK = f"""async () => {{
  const count = {COUNT_BLUE};
  const root = document.querySelector(".m3-scene");
  const turn = async (key) => {{
    root.dispatchEvent(new KeyboardEvent("keydown", {{ key }}));
    await new Promise(requestAnimationFrame);
  }};
  const before = count();
  await turn("a");
  const turning = count();
  await turn("d");
  await new Promise((done) => setTimeout(done, 1500));
  return [before, turning, count()];
}}"""
