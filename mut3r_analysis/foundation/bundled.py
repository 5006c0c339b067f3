"""Where the files that ship with the package live.

In a checkout that is the top-level ``data/`` folder; in an installed wheel it is
``mut3r_analysis/data/``, which the build copies from there.
"""

from pathlib import Path

from mut3r_analysis.errors import MissingFile

_PACKAGE = Path(__file__).resolve().parents[1]
_ROOTS = (_PACKAGE / "data", _PACKAGE.parent / "data")


def data_path(*parts: str) -> Path:
    """Return the path of a bundled file or folder.

    Parameters
    ----------
    *parts : str
        Components below ``data/``, for example ``"checkpoints", "tiny.safetensors"``.

    Raises
    ------
    MissingFile
        When nothing of that name ships; the message lists what the folder holds.
    """
    for root in _ROOTS:
        path = root.joinpath(*parts)
        if path.exists():
            return path
    folders = [root.joinpath(*parts[:-1]) for root in _ROOTS]
    present = sorted(
        {entry.name for folder in folders if folder.is_dir() for entry in folder.iterdir()}
    )
    raise MissingFile(
        f"no bundled file {'/'.join(parts)!r}; {'/'.join(('data', *parts[:-1]))} holds: "
        f"{', '.join(present) or 'nothing'}"
    )
