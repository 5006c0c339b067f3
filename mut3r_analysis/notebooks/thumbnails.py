"""Small pictures of what notebooks show, for the page that leads through them."""

import base64
import io
from pathlib import Path
from typing import Any

from PIL import Image

from mut3r_analysis.studies.finding import FINDING_MIME

_WIDTHS = (320, 280, 240, 200, 160, 120)
_COLOURS = 32
_LARGEST = 15_000
"""Byte; narrower pictures are tried until one is no larger."""


def write_thumbnail(notebook: Any, path: Path) -> bool:
    """Write a small picture of the figure below the first finding, or of the first figure.

    Parameters
    ----------
    notebook : nbformat.NotebookNode
        Executed.
    path : Path
        PNG; its folder is made where needed.

    Returns
    -------
    bool
        Whether there is a figure.
    """
    told, figures = False, []
    for cell in notebook.cells:
        for output in cell.get("outputs", []):
            data = output.get("data", {})
            told = told or FINDING_MIME in data
            if "image/png" in data:
                figures.append((not told, data["image/png"]))
    if not figures:
        return False
    _, chosen = min(figures, key=lambda each: each[0])
    whole = Image.open(io.BytesIO(base64.b64decode(chosen))).convert("RGB")
    path.parent.mkdir(parents=True, exist_ok=True)
    for width in _WIDTHS:
        small = whole.copy()
        small.thumbnail((width, width), Image.Resampling.LANCZOS)
        small.quantize(_COLOURS).save(path, optimize=True)
        if path.stat().st_size <= _LARGEST:
            break
    return True
