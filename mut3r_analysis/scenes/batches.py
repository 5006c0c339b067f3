"""Training data made while it is needed: many short random clips with exact truth.

The renderer is compiled and releases the interpreter's lock, so a batch may be made in a thread or
a worker process beside the training.
"""

from concurrent.futures import ThreadPoolExecutor

import numpy as np

from mut3r_analysis.errors import InvalidArgument
from mut3r_analysis.foundation.fields import one_of, whole
from mut3r_analysis.scenes.arrays import SceneArrays, image_size
from mut3r_analysis.scenes.distribution import SceneDistribution, draw
from mut3r_analysis.scenes.raycast import render_clips

MOTION_THRESHOLD = 0.25 / 64
"""Residual image motion that counts as motion, in image widths: 0.25 px of a 64 px wide image."""

MOST_SAMPLES = 16
"""Rays per pixel and axis."""

_GROUPS = {
    "normal": ("normal",),
    "flow_previous": ("flow_previous", "visible_previous"),
    "flow": ("flow", "scene_flow"),
}


def intrinsics_of(tangent: np.ndarray, frames: int, size: tuple[int, int]) -> np.ndarray:
    """Pinhole matrices `(clip, frame, 3, 3)` in px, pixel centres at integer coordinates."""
    width, height = size
    matrix = np.zeros((len(tangent), frames, 3, 3))
    matrix[..., 0, 0] = matrix[..., 1, 1] = (width / (2 * tangent))[:, None]
    matrix[..., 0, 2] = (width - 1) / 2
    matrix[..., 1, 2] = (height - 1) / 2
    matrix[..., 2, 2] = 1
    return matrix


def render_arrays(
    scenes: SceneArrays,
    frames: int,
    size: tuple[int, int] = (64, 48),
    *,
    supersample: int = 1,
    outputs: tuple[str, ...] = ("flow_previous",),
    threads: int = 1,
) -> dict[str, np.ndarray]:
    """Render scenes on the CPU.

    Parameters
    ----------
    scenes : SceneArrays
        What to render.
    frames : int
        Frames per clip.
    size : (int, int)
        Width and height, px. The field of view is horizontal and belongs to the scene.
    supersample : int
        Rays per pixel and axis for the image; the truth is always that of the pixel's centre.
    outputs : tuple of str
        Besides the image and its truth: ``"flow_previous"`` (optical flow to the previous frame,
        and where its end point is seen there), ``"flow"`` (optical and scene flow to the next
        frame), ``"normal"``.
    threads : int
        Clips are shared out over this many threads; the numbers do not depend on it.

    Returns
    -------
    dict of ndarray
        ``image`` (clip, frame, y, x, rgb) uint8; ``depth`` (clip, frame, y, x) m;
        ``pose`` (clip, frame, row, col) camera-to-world; ``intrinsics`` (clip, frame, row, col),
        pixel centres at integer coordinates; ``instance`` (clip, frame, y, x), 0 = room;
        ``motion_mask`` (clip, frame, y, x); and as asked ``flow_previous``, ``flow``
        (clip, frame, y, x, uv) px, ``visible_previous``, ``scene_flow`` (clip, frame, y, x, xyz) m
        in the world, ``normal`` (clip, frame, y, x, xyz) in the camera's axes. Flows are NaN at
        frames without a previous (next) frame and where the end point is not before the camera.

    Examples
    --------
    >>> scenes = m3.scenes.draw(seed=0, clips=1, frames=2)
    >>> render_arrays(scenes, frames=2, size=(32, 24))["depth"].shape
    (1, 2, 24, 32)
    """
    width, height = image_size("size", size)
    supersample = whole("supersample", supersample, 1, MOST_SAMPLES)
    for name in outputs:
        one_of("output", name, _GROUPS)
    clips = len(scenes)
    grid = (clips, frames, height, width)
    cameras, objects = scenes.camera_poses(frames), scenes.object_poses(frames)
    if np.isnan(cameras).any():
        raise InvalidArgument(
            "the camera passes straight above or below the point it looks at, where its "
            "orientation is undefined; move the path or the target, or give angles instead."
        )

    def room_for(group: str, channels: tuple[int, ...], dtype: type) -> np.ndarray:
        return np.empty((*(grid if group in outputs else (0,) * 4), *channels), dtype)

    arrays: dict[str, np.ndarray] = {
        "image": np.empty((*grid, 3), np.uint8),
        "depth": np.empty(grid, np.float32),
        "instance": np.empty(grid, np.int16),
        "motion_mask": np.empty(grid, np.bool_),
        "flow_previous": room_for("flow_previous", (2,), np.float32),
        "visible_previous": room_for("flow_previous", (), np.bool_),
        "flow": room_for("flow", (2,), np.float32),
        "scene_flow": room_for("flow", (3,), np.float32),
        "normal": room_for("normal", (3,), np.float32),
    }
    inputs: tuple[np.ndarray, ...] = (
        cameras, objects, scenes.room, scenes.tangent, scenes.shape, scenes.half_size,
        scenes.texture, scenes.texture_seed, scenes.light,
    )  # fmt: skip

    def render(part: slice) -> None:
        given = [each[part] for each in inputs]
        filled = [each[part] for each in arrays.values()]
        render_clips(*given, supersample, MOTION_THRESHOLD * width, *filled)  # type: ignore[call-arg]

    parts = [
        slice(int(each[0]), int(each[-1]) + 1)
        for each in np.array_split(np.arange(clips), max(1, min(threads, clips)))
    ]
    if len(parts) == 1:
        render(parts[0])
    else:
        with ThreadPoolExecutor(len(parts)) as pool:
            list(pool.map(render, parts))
    pose = np.zeros((clips, frames, 4, 4))
    pose[..., :3, :] = cameras
    pose[..., 3, 3] = 1
    arrays["pose"] = pose
    arrays["intrinsics"] = intrinsics_of(scenes.tangent, frames, (width, height))
    return {name: array for name, array in arrays.items() if len(array)}


def random_batch(
    seed: int,
    clips: int,
    frames: int,
    *,
    size: tuple[int, int] = (64, 48),
    distribution: SceneDistribution | None = None,
    supersample: int = 1,
    outputs: tuple[str, ...] = ("flow_previous",),
    threads: int = 1,
) -> dict[str, np.ndarray]:
    """Draw and render random clips; see `draw` and `render_arrays` for arguments and result.

    Training takes its seeds from `TRAINING_SEEDS`, everything else from `HELD_OUT_SEEDS`.

    Examples
    --------
    >>> batch = random_batch(seed=1_000_000, clips=8, frames=2)
    >>> batch["image"].shape
    (8, 2, 48, 64, 3)
    """
    scenes = draw(seed, clips, frames, distribution)
    return render_arrays(
        scenes, frames, size, supersample=supersample, outputs=outputs, threads=threads
    )
