"""The gallery: the notebooks as pages, executed where ``make notebooks`` has left them so."""

import base64
import re
from pathlib import Path
from typing import Any

import nbformat

from mut3r_analysis.notebooks.pages import without_widgets
from mut3r_analysis.studies.finding import FINDING_MIME

ROOT = Path(__file__).resolve().parents[2]
EXECUTED = ROOT / "outputs" / "notebooks"
LINK = re.compile(r"\[([^\]]*)\]\((?!https?:|#)([^)]*)\)")
UNEXECUTED = (
    "*Shown without its results: `make notebooks docs` executes all notebooks, in about an hour, "
    "and shows them with their figures.*"
)


def write_gallery(folder: Path) -> None:
    """Write a page per notebook, an index of cards, and what the notebooks found."""
    folder.mkdir(parents=True, exist_ok=True)
    cards, names = [], []
    for source in sorted((ROOT / "notebooks").glob("*.ipynb")):
        done = EXECUTED / source.name
        notebook = nbformat.read(done if done.is_file() else source, as_version=4)
        if not done.is_file():
            first = notebook.cells[0]
            first.source = first.source.rstrip() + "\n\n" + UNEXECUTED
        picture = thumbnail(notebook, folder / f"{source.stem}.png")
        # Explorers stand beside the built page.
        built = folder.parent / "_saved" / folder.name / f"{source.stem}.html"
        built.parent.mkdir(parents=True, exist_ok=True)
        write_page(without_widgets(notebook, built.resolve()), folder / source.name)
        cards.append(card(source.stem, notebook.cells[0].source, picture))
        names.append(source.stem)
    findings = (ROOT / "notebooks" / "README.md").read_text(encoding="utf-8")
    findings = findings.replace("(../docs/images/", "(../images/")
    # A wide table, and a page with two headings: it needs no contents beside it.
    wide = "---\nhtml_theme.sidebar_secondary.remove: true\n---\n"
    (folder / "findings.md").write_text(wide + findings, encoding="utf-8")
    toctree = "\n".join(["```{toctree}", ":hidden:", "", "findings", *names, "```"])
    index = "\n".join(
        [
            "# Gallery",
            "",
            "The notebooks of the package. Each asks one question and computes its answer, on the "
            "bundled models unless told otherwise. [What each of them found](findings.md), with "
            "how long it takes.",
            "",
            "::::{grid} 1 2 2 3",
            ":gutter: 3",
            "",
            *cards,
            "::::",
            "",
            toctree,
            "",
        ]
    )
    (folder / "index.md").write_text(index, encoding="utf-8")


def write_page(notebook: Any, path: Path) -> None:
    """Write a notebook whose links lead only to what stands beside it here."""
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            cell.source = without_dead_links(cell.source)
        for output in cell.get("outputs", []):
            data = output.get("data", {})
            data.pop(FINDING_MIME, None)
            if "text/markdown" in data:
                data["text/markdown"] = without_dead_links(data["text/markdown"])
    nbformat.write(notebook, path)


def without_dead_links(text: str) -> str:
    def kept(match: re.Match[str]) -> str:
        target = ROOT / "notebooks" / match[2]
        return match[0] if target.suffix == ".ipynb" and target.is_file() else match[1]

    return LINK.sub(kept, text)


def thumbnail(notebook: Any, path: Path) -> str:
    """Write the first figure of a notebook; returns its name, empty where it has none."""
    for cell in notebook.cells:
        for output in cell.get("outputs", []):
            picture = output.get("data", {}).get("image/png")
            if picture:
                path.write_bytes(base64.b64decode(picture))
                return path.name
    return ""


def card(name: str, opening: str, picture: str) -> str:
    """Return a card with the title and the first words of a notebook."""
    heading, _, rest = opening.partition("\n")
    words = " ".join(rest.strip().split("\n\n")[0].split())
    sentence = re.split(r"(?<=[.?!])\s", words, maxsplit=1)[0]
    lines = [f":::{{grid-item-card}} {heading.lstrip('# ')}", f":link: {name}", ":link-type: doc"]
    lines += [f":img-top: {picture}"] if picture else []
    return "\n".join([*lines, "", sentence, ":::", ""])
