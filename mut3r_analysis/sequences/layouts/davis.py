"""DAVIS: videos with hand-made masks of the moving objects.

``ROOT`` is ``DAVIS`` (or the folder around it)::

    JPEGImages/480p/<sequence>/00000.jpg  Annotations/480p/<sequence>/00000.png
"""

from pathlib import Path

import numpy as np
import xarray as xr

from mut3r_analysis.errors import InvalidArgument
from mut3r_analysis.sequences.images import ImageFiles, visible
from mut3r_analysis.sequences.layouts import formats
from mut3r_analysis.sequences.layouts.files import SequenceFiles, existing, planes
from mut3r_analysis.sequences.layouts.layout import Contents, Layout, Options, Variables, subfolders

RESOLUTIONS = ("480p", "Full-Resolution")

_LARGEST_LABEL = 255


def read(files: SequenceFiles, images: ImageFiles, options: Options) -> Contents:
    """Read all frames of ``ROOT#camel``. Option: ``resolution=480p|Full-Resolution``.

    `instance` is the label of each annotated object, `motion_mask` is true for any. The coordinate
    ``motion_known`` is there, false, where a frame is not annotated.
    """
    variables: Variables = {}
    if "instance" in files.truth:
        labels = files.truth["instance"]
        variables["motion_mask"] = planes(
            labels, formats.read_mask, images.size, bool, absent=False
        )
        variables["instance"] = planes(labels, formats.read_labels, images.size, np.uint8, absent=0)
    return variables, {"resolution": options["resolution"]}


def find(root: Path) -> dict[str, Path]:
    """Find sequences: name to the folder that holds JPEGImages."""
    return {
        folder.name: base
        for base in (root / "DAVIS", root)
        for resolution in RESOLUTIONS
        for folder in subfolders(base / "JPEGImages" / resolution)
    }


def list_files(base: Path, name: str, options: Options) -> SequenceFiles:
    """List the files of a sequence."""
    resolution = options["resolution"]
    folder = base / "JPEGImages" / resolution / name
    images = visible(folder, "*.jpg")
    labels = existing(
        base / "Annotations" / resolution / name / f"{image.stem}.png" for image in images
    )
    lacking = labels.count(None)
    notes = (f"{lacking} of {len(images)} frames are not annotated",) if lacking else ()
    truth = {"motion_mask": labels, "instance": labels}
    return SequenceFiles("davis", name, folder, tuple(images), truth, notes)


def write(sequence: xr.Dataset, root: Path, name: str) -> None:
    """Write JPEG images, which are lossy, and annotations.

    What moves is annotated: with its instance where the sequence knows it, else as object 1; a
    sequence without motion masks has all its instances annotated.
    """
    images, labels = (root / kind / "480p" / name for kind in ("JPEGImages", "Annotations"))
    for folder in (images, labels):
        folder.mkdir(parents=True)
    for index in range(sequence.sizes["frame"]):
        frame = sequence.isel(frame=index)
        formats.write_image(images / f"{index:05d}.jpg", frame["image"].values)
        formats.write_image(labels / f"{index:05d}.png", _annotation(frame))


def _annotation(frame: xr.Dataset) -> np.ndarray:
    """Labels (y, x), uint8."""
    labels = frame["instance"].values if "instance" in frame else np.zeros(())
    if labels.min() < 0 or labels.max() > _LARGEST_LABEL:
        raise InvalidArgument(
            f"instances run from {labels.min()} to {labels.max()}; an annotation holds 0 to "
            f"{_LARGEST_LABEL}: renumber them"
        )
    if "motion_mask" in frame:
        labels = np.where(frame["motion_mask"].values, np.maximum(labels, 1), 0)
    return labels.astype(np.uint8)


_SITE = "DAVIS, https://davischallenge.org"
LAYOUT = Layout(
    "davis", find, list_files, read, write,
    needs=("image", "motion_mask|instance"),
    looks_like="JPEGImages/480p/<sequence>/00000.jpg",
    obtain={
        "image": f"{_SITE}: DAVIS 2017, TrainVal, 480p",
        "motion_mask": f"{_SITE}: the Annotations of DAVIS 2017, TrainVal, 480p",
    },
    options={"resolution": RESOLUTIONS},
)  # fmt: skip
