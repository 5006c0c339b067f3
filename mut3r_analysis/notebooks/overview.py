"""All notebooks of the project: executing them, and the page that says what each one found."""

import re
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mut3r_analysis.errors import MissingFile
from mut3r_analysis.notebooks.execution import (
    SECONDS,
    execute_notebook,
    find_notebook,
    notebook_names,
)
from mut3r_analysis.notebooks.thumbnails import write_thumbnail
from mut3r_analysis.studies.finding import findings_of

_PARAMETERS = "mut3r_parameters"
_WITH = ".ipynb), with "
_COLOURS = re.compile(r"\x1b\[[0-9;]*m")
_MARKER = "<!-- Written by `mut3r notebooks --map` from executed notebooks; do not edit. -->"


@dataclass(frozen=True)
class Executed:
    """How the execution of a notebook ended.

    Attributes
    ----------
    name : str
    seconds : float
    error : str
        Empty where every cell ran.
    """

    name: str
    seconds: float
    error: str = ""


def execute_all(
    names: Sequence[str],
    out: str | Path,
    parameters: dict[str, Any] | None = None,
    *,
    workers: int = 1,
    timeout: float | None = None,
) -> Iterator[Executed]:
    """Execute notebooks and keep each as a page and as an executed notebook.

    Parameters
    ----------
    names : sequence of str
    out : str or Path
        Folder for ``<name>.html`` and ``<name>.ipynb``.
    parameters : dict, optional
        Values for every notebook; their own stand where a notebook does not know a name.
    workers : int
        Notebooks at a time.
    timeout : float, optional
        Seconds a cell may take; None is as long as it takes.

    Yields
    ------
    Executed
        As they end; a notebook that fails does not stop the others.
    """
    folder = Path(out)
    folder.mkdir(parents=True, exist_ok=True)
    with ThreadPoolExecutor(workers) as pool:
        jobs = [pool.submit(_execute, name, folder, parameters or {}, timeout) for name in names]
        for job in as_completed(jobs):
            yield job.result()


def _execute(
    name: str, folder: Path, parameters: dict[str, Any], timeout: float | None
) -> Executed:
    import nbformat

    began = time.monotonic()
    page = folder / f"{name}.html"
    for stale in (page, page.with_suffix(".ipynb")):
        stale.unlink(missing_ok=True)
    try:
        found = execute_notebook(
            find_notebook(name), parameters, out_html=page, timeout=timeout, ignore_unknown=True
        )
    except Exception as error:
        lines = [line for line in _COLOURS.sub("", str(error)).splitlines() if line.strip()]
        return Executed(name, time.monotonic() - began, lines[-1] if lines else repr(error))
    seconds = time.monotonic() - began
    found.metadata[_PARAMETERS] = parameters
    nbformat.write(found, page.with_suffix(".ipynb"))
    skipped = [
        index
        for index, cell in enumerate(found.cells)
        if cell.cell_type == "code" and cell.source.strip() and cell.execution_count is None
    ]
    return Executed(name, seconds, f"cells {skipped} were not executed" if skipped else "")


def notebook_map(
    folder: str | Path,
    beside: Sequence[Path] = (),
    *,
    thumbnails: Path | None = None,
    place: str = "",
    kept: str = "",
) -> str:
    """Write the page that leads through the notebooks.

    Parameters
    ----------
    folder : str or Path
        Where :func:`execute_all` left executed notebooks.
    beside : sequence of Path
        Folders of some executed with another ``backbone``, whose headlines are set beside.
    thumbnails : Path, optional
        Folder for a small picture of each notebook's figure; none are made without it.
    place : str
        Address of that folder, as seen from the page.
    kept : str
        The page as it was: what it says of notebooks that were not executed now stays.

    Returns
    -------
    str
        Markdown.

    Raises
    ------
    MissingFile
        When a notebook was not executed, and nothing is kept of it.
    """
    import nbformat

    folder = Path(folder)
    table, more, missing = [], [], []
    for name in notebook_names():
        before = _lines_of(name, kept)
        if (folder / f"{name}.ipynb").is_file():
            held = nbformat.read(folder / f"{name}.ipynb", 4)
            picture = ""
            if thumbnails and write_thumbnail(held, thumbnails / f"{name}.png"):
                picture = f"![{name}]({place}/{name}.png)"
            own = _told(name, held, picture)
        else:
            own = [line for line in before if _WITH not in line]
            missing += [] if own else [name]
        others = [
            nbformat.read(path, 4) for each in beside if (path := each / f"{name}.ipynb").is_file()
        ]
        found = [line for other in others for line in _told_beside(name, other)]
        table += own[:1]
        more += own[1:] + (found or [line for line in before if _WITH in line])
    if missing:
        raise MissingFile(
            f"{folder} lacks {', '.join(missing)}; execute all notebooks first: mut3r notebooks"
        )
    lines = ["| notebook | question | answer | figure | minutes |", "|:--|:--|:--|:--|--:|", *table]
    opening = (
        "Each asks one question and computes its answer. What is said here was found on the "
        "bundled models, small specimens, on rendered scenes: it shows that the instrument works, "
        "not what a full-size model does. The same notebooks run on the official checkpoint and "
        "on data sets when the parameters in their first cell are set. Unless an answer says "
        "otherwise, a percentage is the change of an error against the same run without gates, so "
        "lower is better. Brackets are 95 % bootstrap intervals over the n sequences or clips, "
        "and an effect is significant where its interval excludes no change. The own cue is the "
        "motion score that the model's own attention gives; true masks are the scene's. A cell is "
        "one layer and head; twins are a scene with and without motion. Minutes are those of one "
        "CPU core."
    )
    parts = ["# Notebooks", "", _MARKER, "", opening, "", *lines, ""]
    return "\n".join([*parts, "## More answers", "", *more, ""] if more else parts)


def _lines_of(name: str, page: str) -> list[str]:
    """Return what a page says of a notebook: its row, then its further lines."""
    starts = (f"| [{name[:2]} ", f"- [{name[:2]} ")
    lines = [line for line in page.splitlines() if line.startswith(starts)]
    return sorted(lines, key=lambda line: not line.startswith("|"))


def _told(name: str, notebook: Any, picture: str) -> list[str]:
    """Return the row of a notebook, and a line for every further question."""
    found = list(findings_of(notebook))
    link = f"[{name[:2]} {_title(notebook)}]({name}.ipynb)"
    question = found[0].question if found else _opening(notebook)
    answer = found[0].headline if found else ""
    parts = [link, question, answer, picture, f"{notebook.metadata[SECONDS] / 60:.1f}"]
    row = " | ".join(part.replace("|", "\\|") for part in parts)
    return [f"| {row} |", *(f"- {link}: *{each.question}* {each.headline}" for each in found[1:])]


def _told_beside(name: str, notebook: Any) -> list[str]:
    """Return a line for every finding with another model."""
    model = notebook.metadata.get(_PARAMETERS, {}).get("backbone", "another")
    link = f"[{name[:2]} {_title(notebook)}]({name}.ipynb)"
    return [f"- {link}, with {model}: {each.headline}" for each in findings_of(notebook)]


def _title(notebook: Any) -> str:
    text = next(cell.source for cell in notebook.cells if cell.cell_type == "markdown")
    return text.partition("\n")[0].lstrip("# ")


def _opening(notebook: Any) -> str:
    """First sentence of a notebook, for those that ask nothing."""
    text = next(cell.source for cell in notebook.cells if cell.cell_type == "markdown")
    paragraphs = [part for part in text.split("\n\n") if not part.startswith("#")]
    words = " ".join(paragraphs[0].split()) if paragraphs else ""
    return re.split(r"(?<=[.?!])\s", words, maxsplit=1)[0]
