"""Executed notebooks as pages that need neither a kernel nor a network."""

import copy
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

# Figures of a page's width fill it, and those of a column half of it: they are drawn at twice the
# resolution of a screen.
_FIGURE_STYLE = (
    ".jp-RenderedImage img { width: 100% !important; height: auto !important; }"
    ' .jp-RenderedImage img[width="340"] { width: 49% !important; }'
)
_REMOTE_SCRIPT = re.compile(
    r"<script(?:(?!</script>).)*?https?://(?:(?!</script>).)*</script>", re.DOTALL
)


def write_page(notebook: Any, out: Path) -> None:
    """Write an executed notebook as a page.

    Parameters
    ----------
    notebook : nbformat.NotebookNode
        Not changed.
    out : Path
    """
    from nbconvert import HTMLExporter

    out.parent.mkdir(parents=True, exist_ok=True)
    exporter = HTMLExporter(exclude_input_prompt=True, exclude_output_prompt=True)
    shown = without_widgets(notebook, out.resolve())
    page, _ = exporter.from_notebook_node(shown, {"metadata": {"name": out.stem}})
    # The template loads formula and diagram renderers from the network; our pages need neither,
    # and must read the same offline.
    page = _REMOTE_SCRIPT.sub("", page)
    page = page.replace("</head>", f"<style>{_FIGURE_STYLE}</style>\n</head>", 1)
    out.write_text(page, encoding="utf-8")


def without_widgets(notebook: Any, out: Path) -> Any:
    """Return a copy of an executed notebook for a page, on which no widget can live.

    Where an explorer was shown stands its picture, and below it a link to the page that it saved of
    itself, which is copied beside `out` unless it lies there. Where a box was shown, the same
    stands for every explorer in it that was saved. Progress bars leave nothing.

    Parameters
    ----------
    notebook : nbformat.NotebookNode
    out : Path
        The page, absolute.
    """
    copied = copy.deepcopy(notebook)
    kept = copied.metadata.pop("widgets", {})
    states = kept.get("application/vnd.jupyter.widget-state+json", {}).get("state", {})
    for cell in copied.cells:
        if "outputs" in cell:
            cell.outputs = [
                part for output in cell.outputs for part in _in_place(output, states, out)
            ]
    return copied


def _in_place(output: Any, states: dict[str, Any], out: Path) -> Iterator[Any]:
    """Give what stands for an output: itself, or of a widget the pictures and pages it has."""
    view = output.get("data", {}).pop("application/vnd.jupyter.widget-view+json", None)
    if view is None:
        yield output
        return
    widgets = list(_within(view["model_id"], states))
    if any("Progress" in each["model_name"] for each in widgets):
        return
    explorers = [each["state"] for each in widgets if "_saved_page" in each["state"]]
    if "image/png" in output["data"]:
        yield output
    elif not any(state.get("_picture") for state in explorers):
        yield _sentence("A widget stands here while the notebook runs.")
    for state in explorers:
        if state.get("_picture") and "image/png" not in output["data"]:
            yield _shown({"image/png": state["_picture"]})
        if state["_saved_page"] and (saved := Path(state["_saved_page"])).is_file():
            yield _sentence(f'<a href="{_beside(saved, out)}">Open the explorer</a>, a page.')


def _within(model: str, states: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Give what is known of a widget, and of those that it contains."""
    if model in states:
        yield states[model]
        for child in states[model]["state"].get("children", ()):
            yield from _within(child.removeprefix("IPY_MODEL_"), states)


def _beside(saved: Path, out: Path) -> str:
    """Return the address of a saved page, as seen from the page `out`, beside which it lies."""
    if not saved.is_relative_to(out.parent):
        folder = out.with_suffix("")
        folder.mkdir(exist_ok=True)
        saved = Path(shutil.copy2(saved, folder / saved.name))
    return quote(saved.relative_to(out.parent).as_posix())


def _sentence(words: str) -> Any:
    return _shown({"text/html": f"<p>{words}</p>"})


def _shown(data: dict[str, str]) -> Any:
    import nbformat

    return nbformat.v4.new_output("display_data", data)
