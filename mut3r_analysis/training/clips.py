"""Training data: the clips of a step are a pure function of the recipe and the step's number."""

from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, fields, replace

import numpy as np
import torch
from torch import Tensor

from mut3r_analysis.scenes import TRAINING_SEEDS, draw, render_arrays
from mut3r_analysis.scenes.raycast_torch import render_arrays_torch
from mut3r_analysis.training.recipe import Recipe

_AHEAD = 3
"""Steps whose clips are rendered while another one is taken."""


@dataclass(frozen=True, eq=False)
class Clips:
    """Clips with their truth, float32 unless said.

    Attributes
    ----------
    image : Tensor
        ``(clip, frame, rgb, y, x)`` in [-1, 1].
    depth : Tensor
        ``(clip, frame, y, x)`` m.
    pose : Tensor
        ``(clip, frame, 4, 4)`` camera to the first camera.
    rays : Tensor
        ``(clip, y, x, xyz)`` of depth 1 in the camera.
    flow : Tensor
        ``(clip, frame, y, x, uv)`` to the previous frame, px; 0 where `visible` is false.
    visible : Tensor
        ``(clip, frame, y, x)`` bool: whether the flow's end point is seen in the previous frame.
    moving : Tensor
        ``(clip, frame, y, x)`` bool: residual image motion above the scenes' threshold.
    instance : Tensor
        ``(clip, frame, y, x)`` int16, 0 is the room.
    """

    image: Tensor
    depth: Tensor
    pose: Tensor
    rays: Tensor
    flow: Tensor
    visible: Tensor
    moving: Tensor
    instance: Tensor

    def to(self, device: torch.device) -> "Clips":
        """Return the clips on a device."""
        return replace(
            self, **{each.name: getattr(self, each.name).to(device) for each in fields(self)}
        )


def clips_of(batch: Mapping[str, np.ndarray | Tensor]) -> Clips:
    """Turn what either renderer returns into tensors; the first camera becomes the world."""
    tensors = {name: torch.as_tensor(values) for name, values in batch.items()}
    image = tensors["image"].permute(0, 1, 4, 2, 3)
    height, width = image.shape[-2:]
    # poses and rays in float64 by numpy, so that they do not depend on the device
    camera = tensors["pose"].cpu().numpy().astype(np.float64)
    pose = np.linalg.inv(camera[:, :1]) @ camera
    matrix = tensors["intrinsics"].cpu().numpy()[:, 0]
    rows, columns = np.mgrid[:height, :width]
    x = (columns - matrix[:, :1, 2:3]) / matrix[:, :1, :1]
    y = (rows - matrix[:, 1:2, 2:3]) / matrix[:, 1:2, 1:2]
    rays = np.stack([x, y, np.ones_like(x)], axis=-1)
    flow = tensors["flow_previous"]
    visible = tensors["visible_previous"] & flow.isfinite().all(-1)
    visible[:, 0] = False
    return Clips(
        image=image.float() / 127.5 - 1,
        depth=tensors["depth"].float(),
        pose=torch.from_numpy(pose).float(),
        rays=torch.from_numpy(rays).float(),
        flow=torch.where(visible[..., None], flow, 0).float(),
        visible=visible,
        moving=tensors["motion_mask"],
        instance=tensors["instance"].to(torch.int16),
    )


def clips_at(
    recipe: Recipe, step: int, *, device: torch.device | None = None, share: slice | None = None
) -> Clips:
    """Render the clips of a step: compiled on the CPU, or by torch where a GPU is given.

    With `share`, only those of the step's clips.
    """
    stage = recipe.stage_at(step)
    clips, frames = stage.batch_at(step)
    seed = TRAINING_SEEDS[(recipe.seed * 10_000_019 + step) % len(TRAINING_SEEDS)]
    size = stage.size or recipe.size
    scenes = draw(seed, clips, frames, stage.scenes[step % len(stage.scenes)])
    if share is not None:
        scenes = scenes.take(share)
    if device is not None and device.type != "cpu":
        return clips_of(render_arrays_torch(scenes, frames, size, device=device))
    return clips_of(render_arrays(scenes, frames, size))


def clips_from(
    recipe: Recipe,
    first: int,
    last: int,
    *,
    device: torch.device | None = None,
    share: slice | None = None,
) -> Iterator[tuple[int, Clips]]:
    """Yield (step, clips) of ``range(first, last)``, rendered ahead of use in another thread.

    The renderer releases the interpreter's lock, so rendering runs beside the training.
    """
    with ThreadPoolExecutor(1) as pool:
        waiting: list[Future[Clips]] = []
        for step in range(first, last):
            while len(waiting) <= _AHEAD and step + len(waiting) < last:
                coming = step + len(waiting)
                waiting.append(pool.submit(clips_at, recipe, coming, device=device, share=share))
            yield step, waiting.pop(0).result()
