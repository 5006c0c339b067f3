"""The attention explorer of an open page: pointed at, and timed in the page itself."""

from collections.abc import Callable
from typing import Any

import numpy as np

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
# From the event that the browser received to the first frame after its picture was drawn.
TIMED = """root => {
  let since = null;
  root.waits = [];
  for (const name of ["pointermove", "keydown"]) {
    root.addEventListener(name, (event) => { since ??= event.timeStamp; }, true);
  }
  const drawn = () => {
    const began = since;
    since = null;
    if (began !== null) requestAnimationFrame(() => root.waits.push(performance.now() - began));
  };
  new MutationObserver(drawn).observe(root, { attributeFilter: ["data-drawn"] });
}"""


class Explored:
    """The first attention explorer of a page; `rows` and `columns` are those of its patches."""

    def __init__(self, page: Any, rows: int = 6, columns: int = 8) -> None:
        self.page, self.rows, self.columns = page, rows, columns
        self.root = page.locator(".m3-attention").first
        self.root.wait_for(timeout=240_000)
        page.wait_for_selector(".m3-attention[data-drawn]", timeout=60_000)
        self.root.scroll_into_view_if_needed()

    def drawn(self) -> int:
        return int(self.root.get_attribute("data-drawn"))

    def wait(self, before: int) -> None:
        self.page.wait_for_function(
            "before => Number(document.querySelector('.m3-attention').dataset.drawn) > before",
            arg=before,
        )

    def settle(self, before: int) -> None:
        self.wait(before)
        # Two changes in a row are drawn in a row.
        self.page.wait_for_timeout(150)

    def point(self, side: str, row: int, column: int) -> tuple[Any, dict[str, float]]:
        canvas = self.root.locator(f"canvas[data-side={side}]").first
        box = canvas.bounding_box()
        place = (
            (column + 0.5) / self.columns * box["width"],
            (row + 0.5) / self.rows * box["height"],
        )
        return canvas, {"x": place[0], "y": place[1]}

    def hover(self, side: str, row: int, column: int) -> None:
        before = self.drawn()
        canvas, position = self.point(side, row, column)
        canvas.hover(position=position, force=True)
        self.wait(before)

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
        """Return the colours at the centres of all cells, row by row."""
        canvas = self.root.locator(f"canvas[data-side={side}]").first
        return np.array(canvas.evaluate(CENTRES, [self.rows, self.columns]))

    def timed(self, act: Callable[[], Any]) -> list[float]:
        """Return milliseconds from every event of an act to the picture that followed it."""
        if not self.root.evaluate("root => Boolean(root.waits)"):
            self.root.evaluate(TIMED)
        self.root.evaluate("root => { root.waits.length = 0; }")
        act()
        self.page.wait_for_timeout(100)
        return list(self.root.evaluate("root => root.waits"))

    def wander(self, steps: int) -> list[float]:
        """Let go of the token and move over patches; milliseconds from each move to its picture."""
        self.root.focus()
        self.page.keyboard.press("Escape")
        self.page.wait_for_timeout(200)

        def move() -> None:
            for step in range(steps):
                # Neighbours in time are not neighbours in space: no answer is remembered.
                cell = (step * 7) % (self.rows * self.columns)
                self.hover("query", cell // self.columns, cell % self.columns)

        return self.timed(move)


def growth(page: Any, act: Callable[[], Any]) -> float:
    """Bytes by which the page's heap has grown after an act that was done once before."""
    session = page.context.new_cdp_session(page)

    def used() -> float:
        session.send("HeapProfiler.collectGarbage")
        return session.send("Runtime.getHeapUsage")["usedSize"]

    before = used()
    act()
    return used() - before
