"""The quickstart, executed: a store, figures and a page to read."""

import json
import shutil
import sys
from pathlib import Path

from mut3r_analysis.backbones import load_backbone
from mut3r_analysis.errors import AlreadyExists
from mut3r_analysis.foundation.paths import user_path
from mut3r_analysis.notebooks.execution import execute_notebook, find_notebook
from mut3r_analysis.sequences import open_sequence

NOTEBOOK = "00_quickstart"


def demo(
    out: str | Path,
    *,
    backbone: str = "tiny-static",
    sequence: str = "scenes/orbit-03",
    frames: int = 12,
    progress: bool = True,
) -> Path:
    """Execute the quickstart notebook and keep everything it makes.

    Parameters
    ----------
    out : str or Path
        Folder, made where needed. What an earlier demo left there is replaced, nothing else.
    backbone : str
        What `load_backbone` takes.
    sequence : str
        What `open_sequence` takes.
    frames : int
        At most this many frames are run.
    progress : bool
        Print what happens, and where the results are.

    Returns
    -------
    Path
        The HTML page. Beside it are ``failures.html``, ``quickstart.zarr`` and ``figures/``.

    Raises
    ------
    AlreadyExists
        When ``quickstart.zarr`` is there and is not the store of a run.
    MissingFile, InvalidArgument
        When the notebook, the checkpoint or the sequence does not exist or cannot be one.
    """
    out = user_path(out).resolve()
    notebook = find_notebook(NOTEBOOK)
    store, page = out / "quickstart.zarr", out / "quickstart.html"
    # Before anything is replaced; the notebook opens both again, in a process of its own.
    model = load_backbone(backbone, device="cpu")
    open_sequence(sequence, stop=frames)
    remove_earlier(store)
    out.mkdir(parents=True, exist_ok=True)
    # The kernel starts in another folder than the caller.
    places = {
        name: str(Path(given).resolve()) if Path(given).exists() else given
        for name, given in (("backbone", backbone), ("sequence", sequence))
    }
    if progress:
        print(f"executing {notebook.name}: backbone {backbone}, sequence {sequence}")
    parameters = {**places, "frames": frames, "out": out, "progress": False}
    if not model.origin.specimen:
        # Rendered scenes say nothing of other models, and would take full-size ones an hour.
        parameters["scored"] = 0
    execute_notebook(
        notebook,
        parameters,
        out_html=page,
        on_cell=_counter if progress and sys.stderr.isatty() else None,
    )
    if progress:
        print(f"page      {page}")
        print(f"explorer  {out / 'failures.html'}")
        print(f"store     {store}")
        print(f"figures   {out / 'figures'}")
        print("next      mut3r demo --sequence YOUR_VIDEO; the end of the page says more")
    return page


def remove_earlier(store: Path) -> None:
    """Remove the store of an earlier quickstart.

    Raises
    ------
    AlreadyExists
        When something is there that is not the store of a run; it is left as it is.
    """
    if not store.exists():
        return
    try:
        root = json.loads((store / "zarr.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        root = {}
    if "format_version" not in root.get("attributes", {}):
        raise AlreadyExists(
            f"{store} exists and is not the store of a run; move it away or choose another folder"
        )
    shutil.rmtree(store)


def _counter(done: int, count: int) -> None:
    end = "\n" if done == count - 1 else ""
    print(f"\rcell {done + 1} of {count}", end=end, file=sys.stderr, flush=True)
