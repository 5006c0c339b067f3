"""NYU Depth V2, its 654 images for tests: single frames of many rooms, in no order.

::

    val/nyu_images/<name>.png  val/nyu_depths/<name>.npy

as the preparation of MonST3R leaves them. A depth is an array (y, x) of floats, metres. All images
are one sequence, ``val``, each frame of which has to be predicted by itself.
"""

from pathlib import Path

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from mut3r_analysis.sequences.images import ImageFiles, visible
from mut3r_analysis.sequences.layouts import formats
from mut3r_analysis.sequences.layouts.files import SequenceFiles, existing, planes
from mut3r_analysis.sequences.layouts.layout import Contents, Layout, Options, Variables, subfolders

_IMAGES, _DEPTHS = "nyu_images", "nyu_depths"


def read(files: SequenceFiles, images: ImageFiles, options: Options) -> Contents:
    """Read all frames of ``ROOT#val``."""
    variables: Variables = {}
    if "depth" in files.truth:
        variables["depth"] = planes(files.truth["depth"], _read_depth, images.size)
    return variables, {}


def _read_depth(path: Path) -> NDArray[np.float32]:
    return formats.valid_or_nan(formats.read_map(path))


def find(root: Path) -> dict[str, Path]:
    """Find folders of images with depth: name to folder."""
    return {
        folder.name: folder
        for folder in (root, *subfolders(root))
        if any((folder / _IMAGES).glob("*.png"))
    }


def list_files(folder: Path, name: str, options: Options) -> SequenceFiles:
    """List images, sorted by name, and the depth that has the name of each."""
    images = tuple(visible(folder / _IMAGES, "*.png"))
    truth = {"depth": existing(folder / _DEPTHS / f"{image.stem}.npy" for image in images)}
    return SequenceFiles("nyu", name, folder, images, truth, complete={"depth": len(images)})


def write(sequence: xr.Dataset, root: Path, name: str) -> None:
    """Write images and depths (float32)."""
    for kind in (_IMAGES, _DEPTHS):
        (root / name / kind).mkdir(parents=True)
    for index in range(sequence.sizes["frame"]):
        frame = sequence.isel(frame=index)
        formats.write_image(root / name / _IMAGES / f"{index:05d}.png", frame["image"].values)
        np.save(root / name / _DEPTHS / f"{index:05d}.npy", frame["depth"].values.astype("f4"))


_SITE = (
    "NYU Depth V2, https://cs.nyu.edu/~fergus/datasets/nyu_depth_v2.html, its 654 test images as "
    "datasets_preprocess/prepare_nyuv2.py of MonST3R unpacks them"
)
LAYOUT = Layout(
    "nyu", find, list_files, read, write,
    needs=("image", "depth"),
    looks_like="val/nyu_images/<name>.png with val/nyu_depths/<name>.npy",
    obtain=dict.fromkeys(("image", "depth"), _SITE),
)  # fmt: skip
