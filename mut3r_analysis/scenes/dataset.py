"""A rendered scene as a sequence: labelled, with units, and with what made it."""

import numpy as np
import xarray as xr

from mut3r_analysis.scenes.arrays import SceneArrays, image_size
from mut3r_analysis.scenes.batches import MOTION_THRESHOLD, render_arrays

_GRID = ("frame", "y", "x")
_VARIABLES = {
    "image": ((*_GRID, "rgb"), "image", "1"),
    "depth": (_GRID, "depth along the camera's z axis", "m"),
    "pose": (("frame", "row", "col"), "camera-to-world pose, OpenCV axes", "m"),
    "intrinsics": (
        ("frame", "camera_row", "camera_col"),
        "pinhole intrinsics, pixel centres at integer coordinates",
        "px",
    ),
    "motion_mask": (_GRID, "moves against the room", "1"),
    "instance": (_GRID, "instance: 0 the room, k object-k", "1"),
    "flow": ((*_GRID, "uv"), "optical flow to the next frame", "px"),
    "scene_flow": ((*_GRID, "xyz"), "motion of the point to the next frame, world axes", "m"),
    "normal": ((*_GRID, "xyz"), "surface normal, camera axes", "1"),
}


def render_dataset(
    scene: SceneArrays, frames: int, size: tuple[int, int], supersample: int, about: dict[str, str]
) -> xr.Dataset:
    """Render one scene as `Scene.render` says; `about` names it and its source."""
    size = image_size("size", size)
    arrays = render_arrays(scene, frames, size, supersample=supersample, outputs=("flow", "normal"))
    source = about["source"]
    threshold = MOTION_THRESHOLD * size[0]
    dataset = xr.Dataset(
        {
            name: (dims, arrays[name][0], {"long_name": label, "units": units, "source": source})
            for name, (dims, label, units) in _VARIABLES.items()
        },
        coords={"frame": np.arange(frames)},
        attrs={**about, "supersample": supersample, "motion_threshold_px": threshold},
    )
    dataset["motion_mask"].attrs["threshold_px"] = threshold
    return dataset
