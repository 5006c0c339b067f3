"""Bonn RGB-D Dynamic: indoor recordings with moving people, depth and motion capture.

``ROOT`` is ``rgbd_bonn_dataset`` (or the folder around it) and holds ``rgbd_bonn_<sequence>/``; the
files are those of `rgbd`.
"""

from functools import partial
from pathlib import Path

from mut3r_analysis.sequences.images import ImageFiles
from mut3r_analysis.sequences.layouts import rgbd
from mut3r_analysis.sequences.layouts.files import SequenceFiles
from mut3r_analysis.sequences.layouts.layout import Contents, Layout, Options, subfolders
from mut3r_analysis.sequences.layouts.stamps import MAX_DIFFERENCE, pair_stamps

PREFIX = "rgbd_bonn_"
CALIBRATION = (542.822841, 542.576870, 315.593520, 237.756098)
"""fx, fy, cx, cy of the colour camera, px, as published; its small distortion is left aside."""


def read(files: SequenceFiles, images: ImageFiles, options: Options) -> Contents:
    """Read all rgb images of ``ROOT#balloon2``.

    Options: ``pairing=order`` pairs depth and rgb images by their rank among the sorted files, as
    the released video-depth protocol does; ``pairing=time`` by stamps within 0.02 s.

    Depth is NaN throughout at frames without a depth image. A pose is the motion-capture pose
    within 0.02 s, NaN where there is none. It is the one of the tracked body on the camera, as the
    data set has it, not calibrated to the lens.
    """
    return rgbd.read(files, images, CALIBRATION), {"pairing": options["pairing"]}


def find(root: Path) -> dict[str, Path]:
    """Find sequences: short name to folder."""
    folders = [*subfolders(root / "rgbd_bonn_dataset"), root, *subfolders(root)]
    return {
        folder.name.removeprefix(PREFIX): folder
        for folder in folders
        if folder.name.startswith(PREFIX) and (folder / "rgb").is_dir()
    }


def list_files(folder: Path, name: str, options: Options) -> SequenceFiles:
    """List the files of a sequence."""
    rgb, depth = rgbd.named_files(folder, "rgb"), rgbd.named_files(folder, "depth")
    stamps, by_order = rgbd.stamps_of(rgb), options["pairing"] == "order"
    if by_order:
        depth_files = (*depth.values(), *([None] * len(rgb)))[: len(rgb)]
    else:
        depth_files = rgbd.closest_files(stamps, depth)
    notes = []
    if depth and by_order and len(depth) != len(rgb):
        notes.append(
            f"{len(rgb)} rgb and {len(depth)} depth images are paired by order; later pairs drift "
            "apart where one is missing (?pairing=time pairs by stamps)"
        )
    pose_stamps, _, pose_notes = rgbd.trajectory(folder)
    rgbd.refuse_other_units(folder, stamps, pose_stamps)
    posed = set(pair_stamps(stamps, pose_stamps)[0].tolist())
    file = folder / "groundtruth.txt"
    truth = {
        "depth": depth_files,
        "pose": tuple(file if frame in posed else None for frame in range(len(rgb))),
    }
    if pose_stamps.size and len(posed) < len(rgb):
        notes.append(
            f"{len(rgb) - len(posed)} frames have no pose within {MAX_DIFFERENCE:g} s: NaN"
        )
    return SequenceFiles(
        "bonn", name, folder, tuple(rgb.values()), truth, (*notes, *pose_notes), stamps=stamps
    )


_SITE = "Bonn RGB-D Dynamic Dataset, https://www.ipb.uni-bonn.de/data/rgbd-dynamic-dataset"
LAYOUT = Layout(
    "bonn", find, list_files, read, partial(rgbd.write, prefix=PREFIX),
    needs=("image", "depth", "pose"),
    looks_like="rgbd_bonn_<sequence>/rgb/<stamp>.png",
    obtain={
        "image": f"{_SITE}: one archive per sequence, or all of them in one",
        "depth": f"{_SITE}: depth/ of the sequence's archive",
    },
    poses=rgbd.associated_poses,
    options={"pairing": ("order", "time")},
    prefix=PREFIX,
)  # fmt: skip
