"""All notebooks of the project: executing them, and the page that says what each one found."""

import io
import re
import time
import tokenize
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mut3r_analysis.errors import MissingFile
from mut3r_analysis.notebooks.execution import execute_notebook, find_notebook, notebook_names
from mut3r_analysis.studies.finding import findings_of

_SECONDS = "mut3r_seconds"
_PARAMETERS = "mut3r_parameters"
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
    timeout: float = 1800,
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
    timeout : float
        Seconds a cell may take.

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


def _execute(name: str, folder: Path, parameters: dict[str, Any], timeout: float) -> Executed:
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
    found.metadata[_SECONDS] = round(seconds, 1)
    found.metadata[_PARAMETERS] = parameters
    nbformat.write(found, page.with_suffix(".ipynb"))
    skipped = [
        index
        for index, cell in enumerate(found.cells)
        if cell.cell_type == "code" and cell.source.strip() and cell.execution_count is None
    ]
    return Executed(name, seconds, f"cells {skipped} were not executed" if skipped else "")


def notebook_map(folder: str | Path, beside: Sequence[str | Path] = ()) -> str:
    """Write the page that leads through the notebooks.

    Parameters
    ----------
    folder : str or Path
        Where :func:`execute_all` left executed notebooks.
    beside : sequence of str or Path
        Folders of some executed with another ``backbone``, whose answers are set beside.

    Returns
    -------
    str
        Markdown.

    Raises
    ------
    MissingFile
        When a notebook was not executed.
    """
    import nbformat

    folder = Path(folder)
    missing = [name for name in notebook_names() if not (folder / f"{name}.ipynb").is_file()]
    if missing:
        raise MissingFile(
            f"{folder} lacks {', '.join(missing)}; execute all notebooks first: mut3r notebooks"
        )
    parts = []
    for name in notebook_names():
        paths = [Path(each) / f"{name}.ipynb" for each in (folder, *beside)]
        parts.append(_section(name, *(nbformat.read(p, 4) for p in paths if p.is_file())))
    opening = (
        "Each asks one question and computes its answer. What is said here was found on the "
        "bundled models, small specimens, on rendered scenes: it shows that "
        "the instrument works, not what a full-size model does. The same notebooks run on the "
        "official checkpoint and on data sets when the parameters named below are set."
    )
    return "\n".join(["# Notebooks", "", _MARKER, "", opening, "", *parts])


def _section(name: str, notebook: Any, *others: Any) -> str:
    found = list(findings_of(notebook))
    beside = [
        (each.metadata.get(_PARAMETERS, {}).get("backbone", "another"), finding)
        for each in others
        for finding in findings_of(each)
    ]
    minutes = notebook.metadata[_SECONDS] / 60
    lines = [f"## [{name}]({name}.ipynb)", ""]
    for finding in found:
        lines.append(f"**{finding.question}** {finding.answer}\n")
        same = [(model, each) for model, each in beside if each.question == finding.question]
        lines += [f"*With {model}:* {each.answer}\n" for model, each in same]
    lines += [] if found else [_opening(notebook), ""]
    lines.append(f"*{minutes:.1f} minutes.* {_parameters(notebook)}")
    return "\n".join([*lines, ""])


def _opening(notebook: Any) -> str:
    """First paragraph of a notebook, for those that ask nothing."""
    text = next(cell.source for cell in notebook.cells if cell.cell_type == "markdown")
    paragraphs = [part for part in text.split("\n\n") if not part.startswith("#")]
    return re.sub(r"\s+", " ", paragraphs[0]) if paragraphs else ""


def _parameters(notebook: Any) -> str:
    """Return what the parameters cell says of the model and the data."""
    (cell,) = (c for c in notebook.cells if "parameters" in c.metadata.get("tags", []))
    comments = _comments(cell.source)
    wanted = [
        f"`{name}`: {text}"
        for name, text in comments.items()
        if name in ("backbone", "sequences", "scene", "folder", "results") and text
    ]
    return "Parameters: " + "; ".join(wanted) + "." if wanted else ""


def _comments(source: str) -> dict[str, str]:
    """Comments behind assignments, by the name that is assigned."""
    found: dict[str, str] = {}
    name = ""
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.NAME and token.start[1] == 0:
            name = token.string
        elif token.type == tokenize.COMMENT and name:
            text = token.string.lstrip("# ").rstrip(". ")
            found[name] = f"{found[name]} {text}" if name in found else text
    return found
