"""How long a reader waits: hovers, steps and turns of the explorers in JupyterLab and Chromium.

    python benchmarks/explorers.py [--quick]

Times are taken in the page: from the event that the browser received to the first frame after its
picture was drawn. The browser is driven as in the tests, whose folder lends the driving. Nothing
outside this machine is asked, and graphics are computed by the processor.
"""

import argparse
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from statistics import median, quantiles
from typing import Any

from measure import at_most, publish

DRIVING = Path(__file__).parents[1] / "tests" / "widgets"
sys.path.insert(0, str(DRIVING))

from browser import CHROMIUM, a_lab, a_page, open_notebook, write_notebook  # noqa: E402
from explored import Explored, growth  # noqa: E402
from large_runs import IMAGE, SPEC, archived_store, points_store  # noqa: E402

LONGEST_WAIT = 100.0
MOST_GROWTH = 2 * 2**20
FRAMES = 100

PREAMBLE = f"""
import sys
sys.path.insert(0, {str(DRIVING)!r})
import mut3r_analysis as m3
from large_runs import large_sequence
from mut3r_analysis.widgets import AttentionExplorer, SceneView
"""
BUNDLED = """
video = m3.open_sequence("scenes/orbit-03", stop=12)
capture = m3.Capture(archive=True)
run = m3.run(m3.load_backbone("tiny"), video, capture=capture, progress=False)
AttentionExplorer(run, video, site="image_self", layer=0)
"""
LARGE = """
AttentionExplorer(
    m3.open_run({store!r}), large_sequence({frames}), site="image_self", frame=0, layer=0
)
"""
SCENE = """
SceneView(m3.open_run({store!r}), large_sequence({frames}), most_points=1_000_000)
"""
# When the view stood there, showed its first points, and had all of them.
WATCH = """() => {
  const seen = (window.seen = {});
  const look = () => {
    const root = document.querySelector(".m3-scene");
    if (root) {
      seen.built ??= performance.now();
      if (Number(root.dataset.points) > 0) seen.first ??= performance.now();
      if (root.dataset.loaded && root.dataset.points) seen.loaded ??= performance.now();
    }
    if (!seen.loaded) requestAnimationFrame(look);
  };
  look();
}"""
# A turn is over when its pixels can be read.
TURNS = """async (root, count) => {
  const gl = root.querySelector("canvas").getContext("webgl");
  const pixel = new Uint8Array(4);
  const found = [];
  for (let turn = 0; turn < count; turn += 1) {
    const began = performance.now();
    root.dispatchEvent(new KeyboardEvent("keydown", { key: "a" }));
    await new Promise(requestAnimationFrame);
    gl.readPixels(0, 0, 1, 1, gl.RGBA, gl.UNSIGNED_BYTE, pixel);
    found.push(performance.now() - began);
  }
  return found;
}"""


def attention(page: Any, grid: tuple[int, int], hovers: int) -> dict[str, Any]:
    """Hover over patches and step through layers of the explorer of an open notebook."""
    explored = Explored(page, *grid)
    explored.wander(10)
    waits: list[float] = []
    grown = growth(page, lambda: waits.extend(explored.wander(hovers)))
    explored.root.focus()
    steps = explored.timed(lambda: [explored.press("ArrowUp") for _ in range(3)])
    return {"hover": waits, "layer": steps, "growth": grown}


def scene(page: Any, turns: int) -> dict[str, Any]:
    """Wait for all points of the scene view of an open notebook, then turn it."""
    page.evaluate(WATCH)
    page.wait_for_function("window.seen.loaded", timeout=300_000)
    page.wait_for_timeout(500)
    seen = page.evaluate("window.seen")
    root = page.locator(".m3-scene")
    root.scroll_into_view_if_needed()
    return {
        "points": int(root.get_attribute("data-points")),
        "first": seen["first"] - seen["built"],
        "all": seen["loaded"] - seen["built"],
        "turn": root.evaluate(TURNS, turns),
    }


def in_a_notebook(
    folder: Path, address: str, name: str, cell: str, act: Callable[[Any], dict[str, Any]]
) -> dict[str, Any]:
    write_notebook(folder / f"{name}.ipynb", PREAMBLE + cell)
    with a_page() as (page, errors):
        open_notebook(page, address, f"{name}.ipynb")
        found = act(page)
        page.screenshot(path=folder / f"{name}.png")
    if errors:
        raise RuntimeError(f"the page of {name} logged errors: {errors}")
    return found


def measured(folder: Path, hovers: int, turns: int, points: int) -> dict[str, dict[str, Any]]:
    large = archived_store(folder / "large.zarr", FRAMES, written=(0,))
    cloud = points_store(folder / "points.zarr", points)
    cells = {
        "bundled": (BUNDLED, lambda page: attention(page, (6, 8), hovers)),
        "full size": (
            LARGE.format(store=str(large), frames=FRAMES),
            lambda page: attention(page, (IMAGE[0] // 16, IMAGE[1] // 16), hovers),
        ),
        "scene": (
            SCENE.format(store=str(cloud), frames=points),
            lambda page: scene(page, turns),
        ),
    }
    with a_lab(folder) as address:
        return {
            name: in_a_notebook(folder, address, name.replace(" ", "-"), cell, act)
            for name, (cell, act) in cells.items()
        }


def reported(found: dict[str, dict[str, Any]], hovers: int) -> dict[str, Any]:
    milliseconds, ratios, grown = {}, {}, {}
    for name in ("bundled", "full size"):
        waits, steps = found[name]["hover"], found[name]["layer"]
        assert len(waits) == hovers, f"{len(waits)} of {hovers} hovers were drawn"
        milliseconds |= {
            f"{name}: hover to redraw, median": median(waits),
            f"{name}: hover to redraw, 95th percentile": quantiles(waits, n=20)[-1],
            f"{name}: another layer to redraw, median": median(steps),
        }
        grown[name] = found[name]["growth"]
        ratios |= {
            f"{name}: median hover to redraw / {LONGEST_WAIT:.0f} ms": at_most(
                median(waits) / LONGEST_WAIT, 1.0
            ),
            f"{name}: growth of the page over {hovers} hovers / 2 MiB": at_most(
                max(grown[name], 0) / MOST_GROWTH, 1.0
            ),
        }
    view = found["scene"]
    milliseconds |= {
        f"scene of {view['points']:,} points: first picture": view["first"],
        f"scene of {view['points']:,} points: all points": view["all"],
        f"scene of {view['points']:,} points: turn, with points left out, median": median(
            view["turn"]
        ),
    }
    return {
        "backbone": f"tiny and {SPEC}",
        "image": list(IMAGE),
        "store": f"{FRAMES} frames declared",
        "repetitions": hovers,
        "milliseconds": milliseconds,
        "page_growth_bytes": grown,
        "ratios": ratios,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="few hovers, for a rehearsal")
    parser.add_argument(
        "--where-there-is-one", action="store_true", help="without a browser only say so"
    )
    parser.add_argument("--folder", type=Path, help="keep stores, notebooks and pictures here")
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    if CHROMIUM is None:
        none = "no Chromium on this machine, so the explorers are not measured; install it"
        if args.where_there_is_one:
            print(none)
            return
        sys.exit(none)
    hovers, turns, points = (20, 3, 1) if args.quick else (200, 30, 5)
    with tempfile.TemporaryDirectory() as temporary:
        folder = args.folder or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        found = measured(folder, hovers, turns, points)
    publish("explorers", reported(found, hovers), args.out, args.quick)


if __name__ == "__main__":
    main()
