"""A rendered scene as a sequence: labelled, with units, and with the scene that made it."""

import json

import numpy as np
import xarray as xr

from mut3r_analysis.scenes.batches import MOTION_THRESHOLD, check_size, render_arrays
from mut3r_analysis.scenes.specification import Scene

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


def render_scene(
    scene: Scene, size: tuple[int, int] | None = None, *, supersample: int = 1
) -> xr.Dataset:
    """Render a scene on the CPU.

    Parameters
    ----------
    scene : Scene
        What to render.
    size : (int, int), optional
        Width and height, px; the scene's own by default. The horizontal field of view stays.
    supersample : int
        Rays per pixel and axis for the image; the truth is always that of the pixel's centre.

    Returns
    -------
    xr.Dataset
        `image`, `depth`, `pose`, `intrinsics`, `motion_mask`, `instance`, `flow`, `scene_flow` and
        `normal`, each with `long_name`, `units` and `source`. The motion mask holds where the
        optical flow differs from that of a resting world by more than the attribute
        ``motion_threshold_px`` (a quarter pixel of a 64 px wide image), to the next frame, at the
        last frame to the previous one. Flows are NaN at the last frame.

    Raises
    ------
    InvalidArgument
        If the size or the supersampling cannot mean anything.
    """
    size = check_size(scene.size if size is None else size)
    arrays = render_arrays(
        scene.arrays(), scene.frames, size, supersample=supersample, outputs=("flow", "normal")
    )
    source = f"procedural scene {scene.name}, ray-cast in closed form"
    dataset = xr.Dataset(
        {
            name: (dims, arrays[name][0], {"long_name": label, "units": units, "source": source})
            for name, (dims, label, units) in _VARIABLES.items()
        },
        coords={"frame": np.arange(scene.frames)},
        attrs={
            "name": scene.name,
            "source": source,
            "description": scene.description,
            "scene": json.dumps(scene.to_dict(), sort_keys=True),
            "scene_sha256": scene.digest,
            "supersample": supersample,
            "motion_threshold_px": MOTION_THRESHOLD * size[0],
        },
    )
    dataset["motion_mask"].attrs["threshold_px"] = MOTION_THRESHOLD * size[0]
    return dataset
