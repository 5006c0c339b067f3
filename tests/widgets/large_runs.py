"""Runs of the released size that no model ran: declared whole, written only where they are read."""

from collections.abc import Collection
from pathlib import Path

import numpy as np
import torch
import xarray as xr
import zarr

from mut3r_analysis.attention import Capture
from mut3r_analysis.backbones.cut3r import CUT3R
from mut3r_analysis.backbones.preparation import Preparation
from mut3r_analysis.backbones.random_weights import NAMED_CONFIGS
from mut3r_analysis.running.configuration import Configuration
from mut3r_analysis.running.inventory import RunStore, expected
from mut3r_analysis.running.new_store import create_store
from mut3r_analysis.running.provenance import provenance
from mut3r_analysis.running.schema import run_schema

SPEC, IMAGE = "random:512-dpt", (384, 512)


def large_sequence(frames: int) -> xr.Dataset:
    """Return frames of one made-up picture, in memory once."""
    random = np.random.default_rng(1)
    coarse = random.integers(60, 200, (IMAGE[0] // 32, IMAGE[1] // 32, 3))
    picture = coarse.repeat(32, 0).repeat(32, 1).astype(np.uint8)
    image = np.broadcast_to(picture, (frames, *picture.shape))
    labels = {"frame": np.arange(frames)}
    return xr.Dataset({"image": (("frame", "y", "x", "rgb"), image)}, labels, {"name": "made up"})


def archived_store(path: Path, frames: int, written: Collection[int]) -> Path:
    """Make a store that declares archived queries and keys, and has them at some frames."""
    capture = Capture(archive=True, sites=("image_self",))
    root = _store(path, frames, capture, ("pose",))
    random = np.random.default_rng(0)
    for frame in written:
        for side in ("query", "key"):
            array = root[f"attention/image_self/rotated_{side}"]
            array[frame] = 0.8 * random.standard_normal(array.shape[1:], np.float32)
    declare_the_rest(path)
    return path


def points_store(path: Path, frames: int) -> Path:
    """Make a store of points: a hilly wall that comes nearer, one point per pixel."""
    root = _store(path, frames, None, ("pose", "points_world"))
    height, width = IMAGE
    row, column = np.mgrid[:height, :width] / width - 0.5
    for frame in range(frames):
        depth = 3 + 0.3 * np.sin(9 * row + frame) * np.cos(7 * column) - 0.1 * frame
        points = np.stack([column * depth, row * depth, depth], -1)
        root["prediction/points_world"][frame] = points
        root["prediction/confidence_world"][frame] = np.ones(IMAGE)
        root["prediction/pose"][frame] = np.eye(4)
    declare_the_rest(path)
    return path


def declare_the_rest(path: Path) -> None:
    """Make files with holes for everything that the store should hold and was not written."""
    store = RunStore(path)
    frames = store.attributes()["frames"]
    groups = [key.removesuffix("/zarr.json") for key in store.metadata if key != "zarr.json"]
    for key, size in (file for group in groups for file in expected(store, group, frames)):
        if key not in store.files:
            (path / key).parent.mkdir(parents=True, exist_ok=True)
            with (path / key).open("wb") as file:
                file.truncate(size)


def _store(
    path: Path, frames: int, capture: Capture | None, outputs: tuple[str, ...]
) -> zarr.Group:
    config = NAMED_CONFIGS[SPEC.removeprefix("random:")]
    with torch.device("meta"):
        backbone = CUT3R(config, update="cut3r")
    backbone.preparation = Preparation(max(config.img_size), patch=config.patch_size)
    sequence, configuration = large_sequence(frames), Configuration()
    schema = run_schema(backbone, sequence, capture, outputs, configuration)
    attrs = provenance(backbone, sequence, capture, configuration, outputs)
    root, _ = create_store(schema, attrs | {"frames_complete": frames, "complete": True}, path)
    return root
