"""Writing figures to files that say what they are and come out the same each time."""

from collections.abc import Collection
from pathlib import Path

from matplotlib.figure import Figure

from mut3r_analysis.figures.styling import style
from mut3r_analysis.foundation.fields import some_of
from mut3r_analysis.foundation.paths import user_path

FORMATS = ("png", "pdf", "svg")


def save(figure: Figure, path: str | Path, *, formats: Collection[str] | None = None) -> list[Path]:
    """Write a figure, with its texts as metadata and without a date.

    Parameters
    ----------
    figure : matplotlib.figure.Figure
    path : str or Path
        With a suffix, ``"depth.pdf"``; or without one and with `formats`. Folders are made.
    formats : collection of {"png", "pdf", "svg"}, optional
        Several files of one name; by default the suffix of `path` decides.

    Returns
    -------
    list of Path
        The files written. The same figure gives the same bytes.

    Raises
    ------
    InvalidArgument
        For a format that is not known.

    Examples
    --------
    >>> figure = m3.figures.camera_path(run)
    >>> [path.name for path in save(figure, "camera", formats=["pdf", "png"])]
    ['camera.pdf', 'camera.png']
    """
    path = user_path(path)
    wanted = [path.suffix.removeprefix(".")] if formats is None else list(formats)
    some_of(f"the suffix of {str(path)!r}, or formats,", wanted, FORMATS)
    path.parent.mkdir(parents=True, exist_ok=True)
    about = " ".join(text.get_text() for text in figure.texts)
    written = []
    for name in wanted:
        target = path if formats is None else path.with_name(f"{path.name}.{name}")
        with style():
            figure.savefig(target, format=name, metadata=_metadata(name, about))
        written.append(target)
    return written


def _metadata(name: str, about: str) -> dict[str, str | None]:
    software = "mut3r_analysis"
    if name == "pdf":
        return {"Subject": about, "Creator": software, "CreationDate": None}
    if name == "svg":
        return {"Description": about, "Creator": software, "Date": None}
    return {"Description": about, "Software": software}
