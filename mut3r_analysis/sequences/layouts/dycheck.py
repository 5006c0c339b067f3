"""DyCheck's iPhone recordings, with what Shape of Motion added to them.

``ROOT`` holds one folder per scene::

    rgb/1x/0_00000.png  depth/1x/0_00000.npy  camera/0_00000.json
    splits/{train,val}.json  dataset.json  metadata.json  extra.json  scene.json
    flow3d_preprocessed/colmap/sparse/{cameras,images}.bin
    flow3d_preprocessed/aligned_depth_anything_colmap/1x/0_00000.npy   inverse depth
    flow3d_preprocessed/track_anything/1x/0_00000.png                  masks of what moves
    flow3d_preprocessed/colmap/scale.npy                               metres per COLMAP unit
    keypoint/2x/train/0_00000.json      x, y and visibility of points, at half size, in some frames

Both kinds of camera measure pixels from the corner of the image; a sequence has its first pixel's
centre at (0, 0), so principal points and keypoints are shifted by half a pixel. Units are those of
the files: metres for LiDAR, to which ``scale.npy`` brings refined cameras beside it; those of the
COLMAP reconstruction otherwise.
"""

import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from mut3r_analysis.errors import MissingFile, UnreadableFile
from mut3r_analysis.foundation.text_files import parse_json, read_text
from mut3r_analysis.sequences.images import ImageFiles, visible
from mut3r_analysis.sequences.layouts import colmap, formats
from mut3r_analysis.sequences.layouts.files import (
    INTRINSICS,
    POSE,
    SequenceFiles,
    existing,
    planes,
)
from mut3r_analysis.sequences.layouts.layout import Contents, Layout, Options, Variables, subfolders

SMALLEST_INVERSE = 1e-3
"""Inverse depths are raised to this before their reciprocal is taken."""
LARGEST_RATIO = 2.5
"""Depth is cut at this multiple of the median over frames of the largest depth of a frame."""

_ADDED = Path("flow3d_preprocessed")
_SPARSE = _ADDED / "colmap" / "sparse"
_ALIGNED = _ADDED / "aligned_depth_anything_colmap" / "1x"
_MASKS = _ADDED / "track_anything" / "1x"
_SCALE = _ADDED / "colmap" / "scale.npy"
_KEYPOINTS = Path("keypoint") / "2x" / "train"
_KEYPOINT_SIZE = 2
"""Pixels of an image per pixel of its keypoints."""


def read(files: SequenceFiles, images: ImageFiles, options: Options) -> Contents:
    """Read the frames of a split of ``ROOT#apple``.

    Options: ``split=train|val|all``; ``cameras=refined`` (COLMAP, by Shape of Motion) or
    ``original`` (camera/*.json); ``depth=aligned`` (Depth Anything, aligned to COLMAP) or ``lidar``
    (depth/1x). The released scorer uses refined and aligned, which are the default where they
    exist. Attributes say which were taken.

    Aligned depth is the reciprocal of inverse depth of at least 0.001, cut at 2.5 times the median
    over the frames of a split of their largest depth; the first read of a depth map reads all of
    them once to find that bound, one at a time.
    """
    variables: Variables = {}
    attrs = {"split": options["split"]}
    if "depth" in files.truth:
        depth = tuple(file for file in files.truth["depth"] if file)
        aligned = _is_aligned(depth[0])
        attrs["depth"] = "aligned" if aligned else "lidar"
        decode = AlignedDepth(depth) if aligned else read_lidar
        variables["depth"] = planes(depth, decode, images.size)
    if "pose" in files.truth:
        cameras = _read_cameras(files)
        attrs["cameras"] = "original" if _is_original(files) else "refined"
        variables["pose"] = (POSE, np.stack([camera.pose for camera in cameras]))
        variables["intrinsics"] = (INTRINSICS, np.stack([each.intrinsics for each in cameras]))
    if "motion_mask" in files.truth:
        masks = files.truth["motion_mask"]
        variables["motion_mask"] = planes(masks, formats.read_mask, images.size, bool, absent=False)
    return variables | _read_keypoints(files), attrs


@dataclass(frozen=True, eq=False)
class AlignedDepth:
    """Reads inverse depth as depth, by the rule of Shape of Motion's loader."""

    files: tuple[Path, ...]

    def __call__(self, path: Path) -> NDArray[np.float32]:
        """Read (y, x); NaN where the file holds NaN."""
        return formats.valid_or_nan(np.minimum(self._reciprocal(path), self.bound))

    @cached_property
    def bound(self) -> np.float32:
        """Largest depth that is kept."""
        largest = sorted(self._reciprocal(path).max(initial=0) for path in self.files)
        # The lower of two middle values, as torch.median takes it.
        return np.float32(LARGEST_RATIO * largest[(len(largest) - 1) // 2])

    @staticmethod
    def _reciprocal(path: Path) -> NDArray[np.float32]:
        inverse = formats.read_map(path).astype(np.float32)
        depth = np.float32(1) / np.maximum(np.nan_to_num(inverse, nan=1), SMALLEST_INVERSE)
        return np.where(np.isnan(inverse), np.float32(0), depth)


def read_lidar(path: Path) -> NDArray[np.float32]:
    """Read LiDAR depth (y, x), metres; NaN where it holds 0."""
    return formats.valid_or_nan(formats.read_map(path))


def find(root: Path) -> dict[str, Path]:
    """Find scenes: name to folder."""
    return {
        folder.name: folder
        for folder in (root, *subfolders(root))
        if (folder / "rgb" / "1x").is_dir() and (folder / "camera").is_dir()
    }


def list_files(folder: Path, name: str, options: Options) -> SequenceFiles:
    """List the files of a scene."""
    stems = _frame_names(folder, options["split"])
    cameras, depth = options["cameras"], options["depth"]
    if cameras == "auto":
        cameras = "refined" if (folder / _SPARSE / "images.bin").is_file() else "original"
    if depth == "auto":
        depth = "aligned" if (folder / _ALIGNED).is_dir() else "lidar"
    posed: tuple[Path | None, ...]
    if cameras == "refined":
        images_file = folder / _SPARSE / "images.bin"
        registered = colmap.read_sparse(folder / _SPARSE)
        posed = tuple(images_file if f"{stem}.png" in registered else None for stem in stems)
    else:
        posed = existing(folder / "camera" / f"{stem}.json" for stem in stems)
    planes = folder / _ALIGNED if depth == "aligned" else folder / "depth" / "1x"
    truth = {
        "depth": existing(planes / f"{stem}.npy" for stem in stems),
        "pose": posed,
        "intrinsics": posed,
        "motion_mask": existing(folder / _MASKS / f"{stem}.png" for stem in stems),
    }
    images = tuple(folder / "rgb" / "1x" / f"{stem}.png" for stem in stems)
    complete = dict.fromkeys(("depth", "pose", "motion_mask"), len(stems))
    return SequenceFiles("dycheck", name, folder, images, truth, complete=complete)


def write(sequence: xr.Dataset, root: Path, name: str) -> None:
    """Write a scene: the same cameras and depth as original and LiDAR, and as refined and aligned.

    All frames form the split train and none the split val. The lists and bounds beside them are
    there for other readers; no scale or shift is declared. Masks are written where the sequence has
    motion masks.
    """
    folder = root / name
    places = {
        "rgb": folder / "rgb" / "1x", "lidar": folder / "depth" / "1x",
        "camera": folder / "camera", "splits": folder / "splits", "aligned": folder / _ALIGNED,
    }  # fmt: skip
    if "motion_mask" in sequence:
        places["masks"] = folder / _MASKS
    if "track_pixel" in sequence:
        places["keypoints"] = folder / _KEYPOINTS
    for place in places.values():
        place.mkdir(parents=True)
    stems = [f"0_{index:05d}" for index in range(sequence.sizes["frame"])]
    height, width = sequence.sizes["y"], sequence.sizes["x"]
    cameras = {}
    for index, stem in enumerate(stems):
        frame = sequence.isel(frame=index)
        depth = formats.valid_or_nan(frame["depth"].values)
        formats.write_image(places["rgb"] / f"{stem}.png", frame["image"].values)
        np.save(places["lidar"] / f"{stem}.npy", np.nan_to_num(depth)[..., None])
        np.save(places["aligned"] / f"{stem}.npy", np.float32(1) / depth)
        camera = colmap.Registered(frame["pose"].values, frame["intrinsics"].values)
        cameras[f"{stem}.png"] = camera
        _write_json(places["camera"] / f"{stem}.json", _camera_json(camera, width, height))
        if "motion_mask" in sequence:
            formats.write_mask(places["masks"] / f"{stem}.png", frame["motion_mask"].values)
        if "track_pixel" in sequence:
            _write_keypoints(places["keypoints"] / f"{stem}.json", frame)
    colmap.write_sparse(folder / _SPARSE, cameras, width, height)
    _write_lists(folder, stems)
    _write_bounds(folder, sequence)


def _write_lists(folder: Path, stems: list[str]) -> None:
    """Write which frames there are, and which of them train: all."""
    for name, chosen in (("train", stems), ("val", [])):
        split = {
            "frame_names": chosen, "camera_ids": [0] * len(chosen),
            "time_ids": list(range(len(chosen))),
        }  # fmt: skip
        _write_json(folder / "splits" / f"{name}.json", split)
    count = len(stems)
    listed = {
        "count": count, "num_exemplars": count, "ids": stems, "train_ids": stems, "val_ids": [],
    }  # fmt: skip
    _write_json(folder / "dataset.json", listed)
    each = {
        stem: {"warp_id": index, "appearance_id": index, "camera_id": 0}
        for index, stem in enumerate(stems)
    }
    _write_json(folder / "metadata.json", each)


def _write_bounds(folder: Path, sequence: xr.Dataset) -> None:
    """Write where the scene is: depths, box, the point looked at, and what is up.

    The point is the mean over frames of what the middle pixel shows.
    """
    depth = formats.valid_or_nan(sequence["depth"].values)
    poses, matrices = sequence["pose"].values, sequence["intrinsics"].values
    frames, height, width = depth.shape
    y, x = np.indices((height, width))
    rays = np.stack([x, y, np.ones(x.shape)], -1).reshape(-1, 3)
    points = np.concatenate(
        [
            (rays @ np.linalg.inv(matrix).T * plane.reshape(-1, 1)) @ pose[:3, :3].T + pose[:3, 3]
            for plane, matrix, pose in zip(depth, matrices, poses, strict=True)
        ]
    )
    middle = points.reshape(frames, -1, 3)[:, height // 2 * width + width // 2]
    up = -poses[:, :3, 1].mean(axis=0)
    near, far = (float(bound(depth)) for bound in (np.nanmin, np.nanmax))
    _write_json(
        folder / "scene.json", {"center": [0.0] * 3, "scale": 1.0, "near": near, "far": far}
    )
    stamps = sequence["time"].values if "time" in sequence.coords else np.arange(2) / 30
    extra = {
        "factor": 1,
        "fps": float(1 / np.median(np.diff(stamps))) if len(stamps) > 1 else 30.0,
        "bbox": [np.nanmin(points, axis=0).tolist(), np.nanmax(points, axis=0).tolist()],
        "lookat": np.nanmean(middle, axis=0).tolist(),
        "up": (up / np.linalg.norm(up)).tolist(),
    }
    _write_json(folder / "extra.json", extra)


def _frame_names(folder: Path, split: str) -> list[str]:
    if split == "all":
        return [file.stem for file in visible(folder / "rgb" / "1x", "*.png")]
    path = folder / "splits" / f"{split}.json"
    if not path.is_file():
        raise MissingFile(f"{path} does not exist; ?split=all takes every image of the scene")
    names = _read_json(path).get("frame_names")
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise UnreadableFile(f"{path} has no list of frame_names; copy it again")
    return names


def _is_aligned(file: Path) -> bool:
    return file.parent.parts[-len(_ALIGNED.parts) :] == _ALIGNED.parts


def _is_original(files: SequenceFiles) -> bool:
    return any(file is not None and file.suffix == ".json" for file in files.truth["pose"])


def _read_cameras(files: SequenceFiles) -> list[colmap.Registered]:
    if _is_original(files):
        return [_read_camera(file) for file in files.truth["pose"] if file]
    registered = colmap.read_sparse(files.folder / _SPARSE)
    found = [registered[image.name] for image in files.images if image.name in registered]
    depth = [file for file in files.truth.get("depth", ()) if file]
    if not depth or _is_aligned(depth[0]) or not (files.folder / _SCALE).is_file():
        return found
    metres = read_scale(files.folder / _SCALE)
    centre = np.array([[1, 1, 1, metres]] * 3 + [[1, 1, 1, 1]])
    return [each._replace(pose=each.pose * centre) for each in found]


def _read_camera(path: Path) -> colmap.Registered:
    """Read an original camera; distortion is left aside."""
    fields = _read_json(path)
    try:
        rotation = np.array(fields["orientation"], np.float64).reshape(3, 3)
        pose = np.eye(4)
        pose[:3, :3] = rotation.T
        pose[:3, 3] = fields["position"]
        focal = float(fields["focal_length"])
        matrix = np.eye(3)
        matrix[0, :2] = focal, float(fields.get("skew", 0))
        matrix[1, 1] = focal * float(fields.get("pixel_aspect_ratio", 1))
        matrix[:2, 2] = np.array(fields["principal_point"], np.float64) - colmap.HALF_PIXEL
    except (KeyError, TypeError, ValueError) as error:
        raise UnreadableFile(f"{path} is not a DyCheck camera: {error!r}") from error
    return colmap.Registered(pose, matrix)


def read_scale(path: Path) -> float:
    """Read how many metres a COLMAP unit has: the one number of a ``.npy`` file.

    Raises
    ------
    UnreadableFile
        No whole file, or no number above 0.
    """
    try:
        metres = float(np.load(path, allow_pickle=False).item())
    # A damaged header is read as Python, which may stumble in any way.
    except Exception as error:
        raise UnreadableFile(f"{path} does not hold one number: {error}; copy it again") from error
    if not 0 < metres < np.inf:
        raise UnreadableFile(f"{path} holds {metres}, expected metres per unit; copy it again")
    return metres


def _read_keypoints(files: SequenceFiles) -> Variables:
    """Read the variables `track_pixel` and `track_visible`, where any frame has keypoints."""
    found = {
        index: read_keypoints(path)
        for index, image in enumerate(files.images)
        if (path := files.folder / _KEYPOINTS / f"{image.stem}.json").is_file()
    }
    if not found:
        return {}
    if len(counts := {len(each) for each in found.values()}) > 1:
        raise UnreadableFile(
            f"frames in {files.folder / _KEYPOINTS} have {min(counts)} to {max(counts)} keypoints, "
            "and every frame should have the same ones; copy them again"
        )
    pixels = np.full((len(files.images), *counts, 2), np.nan)
    seen = np.zeros(pixels.shape[:2], bool)
    for index, keypoints in found.items():
        seen[index] = keypoints[:, 2] == 1
        pixels[index] = _KEYPOINT_SIZE * keypoints[:, :2] - colmap.HALF_PIXEL
    return {"track_pixel": (("frame", "track", "uv"), pixels),
            "track_visible": (("frame", "track"), seen)}  # fmt: skip


def read_keypoints(path: Path) -> NDArray[np.float64]:
    """Read the keypoints (point, 3) of a frame: x, y in px of half size, and 1 where it is seen.

    Raises
    ------
    UnreadableFile
        Anything else than such rows.
    """
    fields = parse_json(read_text(path), f"{path}")
    try:
        found = np.array(fields, np.float64)
    except (TypeError, ValueError, OverflowError) as error:
        raise UnreadableFile(f"{path} holds no rows of x, y and visibility: {error}") from error
    if found.ndim != 2 or found.shape[1] != 3 or not np.isfinite(found).all():
        raise UnreadableFile(f"{path} holds no rows of x, y and visibility; copy it again")
    return found


def _write_keypoints(path: Path, frame: xr.Dataset) -> None:
    """Write the keypoints of a frame, if it has any."""
    pixels = frame["track_pixel"].transpose("track", "uv").values
    if not np.isfinite(pixels).any():
        return
    places = (np.nan_to_num(pixels) + colmap.HALF_PIXEL) / _KEYPOINT_SIZE
    rows = np.column_stack([places, frame["track_visible"].values.astype(float)])
    path.write_text(json.dumps(rows.tolist()) + "\n", encoding="utf-8")


def _camera_json(camera: colmap.Registered, width: int, height: int) -> dict[str, Any]:
    pose, matrix = camera
    return {
        "orientation": pose[:3, :3].T.tolist(),
        "position": pose[:3, 3].tolist(),
        "focal_length": float(matrix[0, 0]),
        "principal_point": (matrix[:2, 2] + colmap.HALF_PIXEL).tolist(),
        "skew": float(matrix[0, 1]),
        "pixel_aspect_ratio": float(matrix[1, 1] / matrix[0, 0]),
        "radial_distortion": [0.0, 0.0, 0.0],
        "tangential_distortion": [0.0, 0.0],
        "image_size": [width, height],
    }


def _read_json(path: Path) -> dict[str, Any]:
    fields = parse_json(read_text(path), f"{path}")
    if not isinstance(fields, dict):
        raise UnreadableFile(f"{path} holds a {type(fields).__name__}, expected an object")
    return fields


def _write_json(path: Path, fields: dict[str, Any]) -> None:
    path.write_text(json.dumps(fields, indent=2) + "\n", encoding="utf-8")


def _poses(files: SequenceFiles) -> NDArray[np.float64] | None:
    if "pose" not in files.truth:
        return None
    return np.stack([camera.pose for camera in _read_cameras(files)])


_SITE = "DyCheck, https://hangg7.com/dycheck"
_MOTION_SITE = "Shape of Motion, https://shape-of-motion.github.io"
LAYOUT = Layout(
    "dycheck", find, list_files, read, write,
    needs=("image", "depth", "pose", "intrinsics"),
    looks_like="<scene>/rgb/1x/0_00000.png with <scene>/camera/",
    obtain={
        "image": f"{_SITE}, the iPhone scenes; or whole, processed, from {_MOTION_SITE}",
        "depth": f"{_MOTION_SITE}: the processed iPhone data (flow3d_preprocessed)",
        "pose": f"{_MOTION_SITE}: the processed iPhone data (flow3d_preprocessed)",
    },
    poses=_poses,
    options={
        "split": ("train", "val", "all"),
        "cameras": ("auto", "refined", "original"),
        "depth": ("auto", "aligned", "lidar"),
    },
)  # fmt: skip
