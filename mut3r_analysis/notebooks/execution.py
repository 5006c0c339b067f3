"""Executing the project's notebooks with parameters."""

import ast
import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil

from mut3r_analysis.errors import InvalidArgument, MissingFile
from mut3r_analysis.foundation.fields import meant
from mut3r_analysis.notebooks.pages import write_page

_PACKAGE = Path(__file__).resolve().parents[1]
NOTEBOOK_FOLDERS = (_PACKAGE / "data" / "notebooks", _PACKAGE.parent / "notebooks")
"""Where notebooks are: in an installed package, and in a checkout."""
SECONDS = "mut3r_seconds"
"""Under which the metadata of an executed notebook say how long it took."""


def notebook_names() -> list[str]:
    """Return the names of all notebooks, in order."""
    return sorted({path.stem for root in NOTEBOOK_FOLDERS for path in root.glob("*.ipynb")})


def find_notebook(name: str) -> Path:
    """Return the path of one of the project's notebooks.

    Parameters
    ----------
    name : str
        File name, with or without its suffix.

    Raises
    ------
    MissingFile
        When there is none of that name; the message lists those there are.
    """
    file = Path(name).with_suffix(".ipynb").name
    for root in NOTEBOOK_FOLDERS:
        if (root / file).is_file():
            return root / file
    raise MissingFile(
        f"no notebook {file!r}{meant([file.removesuffix('.ipynb')], notebook_names())}; there are: "
        f"{', '.join(notebook_names())}. Notebooks come with a "
        "checkout of the repository and with its wheel; install again from either"
    )


def notebook_parameters(path: str | Path) -> list[str]:
    """Return the names of a notebook's parameters."""
    import nbformat

    notebook = nbformat.read(path, as_version=4)
    return _assigned_names(notebook.cells[_parameters_cell(notebook, Path(path))].source)


def execute_notebook(
    path: str | Path,
    parameters: dict[str, Any],
    out_html: str | Path | None = None,
    timeout: float | None = 600,
    on_cell: Callable[[int, int], None] | None = None,
    ignore_unknown: bool = False,
) -> Any:
    """Execute a notebook with parameters, in a fresh kernel.

    The notebook must have one cell tagged ``parameters`` that assigns plain names; the values given
    are assigned in a new cell right after it. The file itself is not changed.

    Parameters
    ----------
    path : str or Path
    parameters : dict
        Values by name; anything whose ``repr`` is a Python literal, and paths.
    out_html : str or Path, optional
        Also write the executed notebook as a page, with pictures of its explorers.
    timeout : float, optional
        Seconds that one cell may take.
    on_cell : callable, optional
        Called with the number of cells done and of all cells, before each.
    ignore_unknown : bool
        Leave out parameters that the notebook does not have, instead of refusing them.

    Returns
    -------
    nbformat.NotebookNode
        The executed notebook; its metadata hold how many seconds its kernel has computed.

    Raises
    ------
    MissingFile
        When there is no such file.
    InvalidArgument
        When the notebook has no parameters cell, does not know a name, or a value is no literal.
    nbclient.exceptions.CellExecutionError
        When a cell fails; it shows the cell and its traceback.
    """
    import nbformat
    from nbclient import NotebookClient

    path = Path(path)
    if not path.is_file():
        raise MissingFile(f"no notebook at {path}")
    notebook = nbformat.read(path, as_version=4)
    place = _parameters_cell(notebook, path)
    known = _assigned_names(notebook.cells[place].source)
    unknown = sorted(set(parameters) - set(known))
    if ignore_unknown:
        parameters = {name: value for name, value in parameters.items() if name in known}
    elif unknown:
        raise InvalidArgument(
            f"{path.name} has no parameter {', '.join(unknown)}; it has {', '.join(known)}"
        )
    source = "\n".join(f"{name} = {_literal(name, value)}" for name, value in parameters.items())
    injected = nbformat.v4.new_code_cell(
        source, id="injected-parameters", metadata={"tags": ["injected-parameters"]}
    )
    notebook.cells.insert(place + 1, injected)
    # Only errors: a kernel talks about its transport otherwise.
    quiet = ["--log-level=40"]
    client = NotebookClient(notebook, timeout=timeout, kernel_name="python3", extra_arguments=quiet)
    if on_cell is not None:
        count = len(notebook.cells)
        client.on_cell_start = lambda cell, cell_index: on_cell(cell_index, count)
    kernel = _Clock(client)
    _run(client)
    notebook.metadata[SECONDS] = round(kernel.seconds, 1)
    if out_html is not None:
        write_page(notebook, Path(out_html))
    return notebook


class _Clock:
    """How long the kernel of a client has computed: waiting for other programs is not counted."""

    def __init__(self, client: Any) -> None:
        self.client, self.seconds = client, 0.0
        client.on_cell_executed = self.look

    def look(self, **_: Any) -> None:
        """Take what the processor spent on the kernel so far, s."""
        spent = psutil.Process(self.client.km.provisioner.pid).cpu_times()
        self.seconds = spent.user + spent.system


def _run(client: Any) -> None:
    """Execute, with an event loop that is closed afterwards where the caller has none."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        asyncio.run(client.async_execute())
    else:
        client.execute()


def _parameters_cell(notebook: Any, path: Path) -> int:
    places = [
        index
        for index, cell in enumerate(notebook.cells)
        if cell.cell_type == "code" and "parameters" in cell.metadata.get("tags", [])
    ]
    if len(places) != 1:
        raise InvalidArgument(
            f"{path.name} has {len(places)} code cells tagged 'parameters'; tag exactly one"
        )
    return places[0]


def _assigned_names(source: str) -> list[str]:
    """Names that a cell assigns at its top level."""
    return [
        target.id
        for statement in ast.parse(source).body
        if isinstance(statement, ast.Assign)
        for target in statement.targets
        if isinstance(target, ast.Name)
    ]


def _literal(name: str, value: Any) -> str:
    text = repr(str(value) if isinstance(value, Path) else value)
    try:
        ast.literal_eval(text)
    except (ValueError, SyntaxError):
        raise InvalidArgument(
            f"parameter {name} = {text} cannot be written into a notebook; "
            "give numbers, texts, None, True, False, or lists and dicts of them"
        ) from None
    return text
