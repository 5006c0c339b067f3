"""Writing a sequence in the layout of a data set, for other people's code to read."""

import os
import re
import shutil
import tempfile
from pathlib import Path

import numpy as np
import xarray as xr

from mut3r_analysis.errors import AlreadyExists, InvalidArgument
from mut3r_analysis.foundation.paths import user_path
from mut3r_analysis.sequences.layouts.catalogue import find_layout
from mut3r_analysis.sequences.model import check_sequence

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")


def export_sequence(
    sequence: xr.Dataset, path: str | Path, layout: str = "sintel", *, name: str | None = None
) -> str:
    """Write a sequence into the folder of a data set, beside what is there.

    Files appear in `path` when all of them are written; nothing is overwritten.

    Parameters
    ----------
    sequence
        Frames with the truth the layout needs; ``open_sequence`` gives one.
    path
        Folder of the data set (`ROOT`), made if it does not exist.
    layout
        ``"sintel"``, ``"bonn"``, ``"tum"``, ``"kitti"``, ``"scannet"``, ``"dycheck"``,
        ``"davis"``, ``"sevenscenes"``, ``"nrgbd"`` or ``"nyu"``. Images are exact but in ScanNet
        and DAVIS, whose layout is JPEG; depth is exact in Sintel and NYU, else rounded to
        1/5000 m (Bonn, TUM), 1/256 m (KITTI), 1/1000 m (ScanNet, 7-Scenes, NRGBD) or to float32
        of its inverse (DyCheck).
    name
        Name of the sequence there; that of the sequence by default.

    Returns
    -------
    str
        The name under which ``open_sequence`` opens what was written.

    Raises
    ------
    InvalidArgument
        Not a sequence, an unknown layout or a name no folder can have, a variable the layout needs
        and the sequence lacks, or values the layout cannot hold.
    AlreadyExists
        The data set has a sequence of this name, or another file is in the way.

    Examples
    --------
    >>> from mut3r_analysis.scenes import open_scene
    >>> export_sequence(open_scene("orbit-03"), "/data/set", "tum")  # doctest: +SKIP
    'tum:/data/set#orbit-03'
    """
    chosen = find_layout(layout)
    check_sequence(sequence)
    name = chosen.short_name(name or str(sequence.attrs.get("name", "")))
    if not _NAME.fullmatch(name):
        raise InvalidArgument(
            f"{name!r} cannot name a folder; give name= letters, digits, '_', '-' and '.'"
        )
    lacking = [
        need.replace("|", " or ")
        for need in chosen.needs
        if not any(variable in sequence for variable in need.split("|"))
    ]
    if lacking:
        held = ", ".join(map(str, sequence.data_vars))
        raise InvalidArgument(
            f"the layout {layout!r} needs {', '.join(lacking)}, but the sequence holds only {held}"
        )
    _check_poses(sequence)
    root = user_path(path).absolute()
    if root.exists() and not root.is_dir():
        raise AlreadyExists(f"{root} is a file; give the folder of a data set")
    if name in chosen.find(root):
        raise AlreadyExists(
            f"{root} has a sequence {name!r} in the layout {layout!r} already; give another name= "
            "or another folder, or remove it first"
        )
    new = not root.exists()
    root.mkdir(parents=True, exist_ok=True)
    staging = Path(tempfile.mkdtemp(prefix=".export-", dir=root))
    try:
        chosen.write(sequence, staging, name)
        _merge(staging, root)
    except BaseException:
        shutil.rmtree(root if new else staging)
        raise
    shutil.rmtree(staging)
    return f"{layout}:{root}#{name}"


def _check_poses(sequence: xr.Dataset) -> None:
    if "pose" not in sequence:
        return
    turns = sequence["pose"].values[:, :3, :3].astype(float)
    finite = np.isfinite(sequence["pose"].values).all(axis=(1, 2))
    right = finite & (np.linalg.det(np.where(finite[:, None, None], turns, 0)) > 0)
    if not right.all():
        lost = np.flatnonzero(~right)
        raise InvalidArgument(
            f"{len(lost)} of {len(right)} poses are no camera-to-world transforms, first at frame "
            f"{sequence['frame'].values[lost[0]]}; leave those frames out with isel, or drop_vars("
            "'pose')"
        )


def _merge(staging: Path, root: Path) -> None:
    """Move files to their places; a file that is there with the same content is no conflict."""
    moves = []
    for file in sorted(path for path in staging.rglob("*") if path.is_file()):
        target = root / file.relative_to(staging)
        if not target.exists():
            moves.append((file, target))
        elif not target.is_file() or target.read_bytes() != file.read_bytes():
            raise AlreadyExists(
                f"{target} exists and differs from what would be written; nothing was changed. "
                "Give another name= or another folder"
            )
    for file, target in moves:
        target.parent.mkdir(parents=True, exist_ok=True)
        os.replace(file, target)
