"""Writing a run for other programs: PLY files, a COLMAP folder or a nerfstudio folder."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from mut3r_analysis.errors import AlreadyExists, InvalidArgument
from mut3r_analysis.exporting.parts import Colors, FrameParts, Positions, frame_parts, fused
from mut3r_analysis.foundation.fields import number, one_of
from mut3r_analysis.foundation.paths import user_path
from mut3r_analysis.running.source_of_run import sequence_of
from mut3r_analysis.sequences.layouts.colmap import HALF_PIXEL, Registered, write_sparse
from mut3r_analysis.sequences.layouts.formats import write_image, write_mask
from mut3r_analysis.widgets.cloud_files import write_ply

_OPENGL = np.diag([1.0, -1.0, -1.0, 1.0])
"""From a camera that looks along z with y down to one that looks along -z with y up."""


def export_run(
    run: xr.DataTree,
    sequence: xr.Dataset | str | Path | None,
    path: str | Path,
    format: str = "ply",
    *,
    moving: str = "cue",
    voxel: float | None = 0.01,
    least_confidence: float = 0.0,
) -> Path:
    """Write what a run reconstructed: the background fused, and what moves frame by frame.

    Parameters
    ----------
    run : DataTree
        With ``points_world``; for cameras also ``pose`` and ``focal``.
    sequence : Dataset, str or Path, optional
        What was run, for the colours; None opens it where the run says it was.
    path : str or Path
        A folder that does not exist yet, or is empty.
    format : {"ply", "colmap", "nerfstudio"}
        All have ``static.ply`` and ``moving/000000.ply`` of every frame in which something moves.

        - ``"colmap"``: also ``images/``, ``masks/`` (black where something moves) and
          ``sparse/0/`` with cameras and the static points, which are tracked in no image;
        - ``"nerfstudio"``: also ``images/``, ``masks/`` and ``transforms.json``.
    moving : {"cue", "truth", "nothing"}
        Who says what moves and stays out of the background: the run's masks or its cue, cut as
        protocols of motion cut it; the true masks it holds; or nobody.
    voxel : float, optional
        The background has one point per cube of this edge, in the units of the prediction; None
        keeps all.
    least_confidence : float
        Share in [0, 1) of the least confident points of every frame that are left out.

    Returns
    -------
    Path
        The folder.

    Raises
    ------
    AlreadyExists
        The folder holds something.
    InvalidArgument
        The run lacks what the format needs, or is of another sequence.

    Notes
    -----
    The world is that of the first camera: x right, y down, z forward. Images are those that the
    model saw, numbered by the frames of the source.

    Examples
    --------
    >>> folder = export_run(gated, sequence, "room", "colmap")
    >>> sorted(path.name for path in folder.iterdir())
    ['images', 'masks', 'moving', 'sparse', 'static.ply']
    """
    writer = FORMATS[one_of("format", format, FORMATS)]
    least_confidence = number("least_confidence", least_confidence, 0, 1, open_high=True)
    if voxel is not None and number("voxel", voxel, 0) == 0:
        raise InvalidArgument("voxel must be a length above 0, or None for all points")
    folder = user_path(path)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise AlreadyExists(f"{folder} is not empty; give a new or empty folder")
    cameras = None if writer is None else _cameras(run)
    parts = frame_parts(run, sequence_of(run, sequence), moving, least_confidence)
    # What cannot be exported is refused before anything is written.
    first = next(parts)
    clouds, names = [], {}
    for part in (first, *parts):
        clouds.append(part.cloud(moving=False))
        names[f"{part.frame:06d}.png"] = part.frame
        moved = part.cloud(moving=True)
        if len(moved[0]):
            write_ply(folder / "moving" / f"{part.frame:06d}.ply", *moved)
        if writer is not None:
            _write_pictures(folder, part, "{name}.png" if format == "colmap" else "{name}")
    static = fused(clouds, voxel)
    write_ply(folder / "static.ply", *static)
    if writer is not None and cameras is not None:
        listed = {name: cameras[label] for name, label in names.items()}
        writer(folder, listed, first.moving.shape, static)
    return folder


def _write_pictures(folder: Path, part: FrameParts, mask: str) -> None:
    name = f"{part.frame:06d}.png"
    for kind in ("images", "masks"):
        (folder / kind).mkdir(parents=True, exist_ok=True)
    write_image(folder / "images" / name, part.image)
    write_mask(folder / "masks" / mask.format(name=name), ~part.moving)


def _cameras(run: xr.DataTree) -> dict[int, Registered]:
    """Return cameras by frame; focal lengths were estimated about the middle pixel."""
    prediction = run["prediction"].to_dataset()
    lacking = [name for name in ("pose", "focal") if name not in prediction]
    if lacking:
        raise InvalidArgument(
            f"the run holds no {' and no '.join(lacking)}, which cameras need; run again with "
            "outputs=('pose', 'points_self', 'points_world'), or export as 'ply'"
        )
    poses = prediction["pose"].transpose("frame", "row", "col").values.astype(np.float64)
    found = {}
    for label, pose, focal in zip(
        prediction["frame"].values, poses, prediction["focal"].values, strict=True
    ):
        middle = prediction.sizes["x"] // 2, prediction.sizes["y"] // 2
        matrix = np.array([[focal, 0, middle[0]], [0, focal, middle[1]], [0, 0, 1.0]])
        found[int(label)] = Registered(pose, matrix)
    return found


def _write_colmap(
    folder: Path, cameras: dict[str, Registered], size: Any, static: tuple[Positions, Colors]
) -> None:
    write_sparse(folder / "sparse" / "0", cameras, size[1], size[0], static)


def _write_nerfstudio(
    folder: Path, cameras: dict[str, Registered], size: Any, static: tuple[Positions, Colors]
) -> None:
    """Write ``transforms.json``; its cameras look along -z, and measure pixels from the corner."""
    frames = [
        {
            "file_path": f"images/{name}",
            "mask_path": f"masks/{name}",
            "fl_x": matrix[0, 0],
            "fl_y": matrix[1, 1],
            "cx": matrix[0, 2] + HALF_PIXEL,
            "cy": matrix[1, 2] + HALF_PIXEL,
            "transform_matrix": (pose @ _OPENGL).tolist(),
        }
        for name, (pose, matrix) in cameras.items()
    ]
    document = {
        "camera_model": "OPENCV", "w": size[1], "h": size[0],
        "ply_file_path": "static.ply", "frames": frames,
    }  # fmt: skip
    text = json.dumps(document, indent=2, allow_nan=False) + "\n"
    (folder / "transforms.json").write_text(text, encoding="utf-8")


Writer = Callable[[Path, dict[str, Registered], Any, tuple[Positions, NDArray[np.uint8]]], None]
FORMATS: dict[str, Writer | None] = {
    "ply": None, "colmap": _write_colmap, "nerfstudio": _write_nerfstudio,
}  # fmt: skip
