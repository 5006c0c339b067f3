"""TUM RGB-D: Kinect recordings with depth and a motion-capture trajectory.

``ROOT`` holds ``rgbd_dataset_<sequence>/``, or is such a folder; the files are those of `rgbd`.
"""

import re
from functools import partial
from pathlib import Path

from mut3r_analysis.sequences.images import ImageFiles
from mut3r_analysis.sequences.layouts import rgbd
from mut3r_analysis.sequences.layouts.files import SequenceFiles
from mut3r_analysis.sequences.layouts.layout import Contents, Layout, Options, subfolders
from mut3r_analysis.sequences.layouts.stamps import MAX_DIFFERENCE, pair_stamps

PREFIX = "rgbd_dataset_"
CALIBRATION = {
    "freiburg1": (517.3, 516.5, 318.6, 255.3),
    "freiburg2": (520.9, 521.0, 325.1, 249.7),
    "freiburg3": (535.4, 539.2, 320.1, 247.6),
}
"""fx, fy, cx, cy of the colour camera, px; images of freiburg1 and 2 are not undistorted."""


def read(files: SequenceFiles, images: ImageFiles, options: Options) -> Contents:
    """Read the rgb frames of ``ROOT#freiburg3_walking_xyz`` that have a pose.

    Frames are rgb images with a ground-truth pose within 0.02 s, paired one to one, the closest
    first: what the pose protocols count. Depth is that of the closest depth image within 0.02 s,
    NaN throughout where there is none. Without ``groundtruth.txt`` all rgb images are frames.
    """
    camera = re.search(r"freiburg[123]", files.folder.name)
    return rgbd.read(files, images, CALIBRATION[camera[0]] if camera else None), {}


def find(root: Path) -> dict[str, Path]:
    """Find sequences: short name to folder."""
    folders = [
        folder
        for folder in (root, *subfolders(root))
        if (folder / "rgb.txt").is_file() and not folder.name.startswith("rgbd_bonn_")
    ]
    return {folder.name.removeprefix(PREFIX): folder for folder in folders}


def list_files(folder: Path, name: str, options: Options) -> SequenceFiles:
    """List the files of a sequence."""
    rgb, rgb_notes = rgbd.listed_files(folder, "rgb")
    depth, depth_notes = rgbd.listed_files(folder, "depth")
    pose_stamps, poses, pose_notes = rgbd.trajectory(folder)
    notes = [*rgb_notes, *depth_notes, *pose_notes]
    stamps, images = rgbd.stamps_of(rgb), list(rgb.values())
    rgbd.refuse_other_units(folder, stamps, pose_stamps)
    truth: dict[str, tuple[Path | None, ...]] = {}
    if len(poses):
        kept = pair_stamps(stamps, pose_stamps)[0]
        if len(kept) < len(stamps):
            notes.append(
                f"{len(stamps) - len(kept)} of {len(stamps)} rgb frames have no pose within "
                f"{MAX_DIFFERENCE:g} s"
            )
        stamps = stamps[kept]
        images = [images[index] for index in kept]
        truth["pose"] = (folder / "groundtruth.txt",) * len(kept)
    truth["depth"] = rgbd.closest_files(stamps, depth)
    lacking = truth["depth"].count(None)
    if depth and lacking:
        notes.append(f"{lacking} frames have no depth image within {MAX_DIFFERENCE:g} s")
    return SequenceFiles("tum", name, folder, tuple(images), truth, tuple(notes), stamps=stamps)


_SITE = "TUM RGB-D benchmark, https://cvg.cit.tum.de/data/datasets/rgbd-dataset"
LAYOUT = Layout(
    "tum", find, list_files, read, partial(rgbd.write, prefix=PREFIX),
    needs=("image", "depth", "pose"),
    looks_like="rgbd_dataset_<sequence>/rgb.txt",
    obtain={
        "image": f"{_SITE}: one archive per sequence, those of category Dynamic Objects",
        "pose": f"{_SITE}: groundtruth.txt of the sequence's archive",
        "depth": f"{_SITE}: depth/ and depth.txt of the sequence's archive",
    },
    poses=rgbd.associated_poses,
    prefix=PREFIX,
)  # fmt: skip
