"""What attention says while a backbone watches clips, many at a time, with nothing stored."""

from typing import Any, NamedTuple

import numpy as np
import torch
import xarray as xr
from numpy.typing import NDArray
from torch import Tensor

from mut3r_analysis.attention import DECODER_KINDS, Capture
from mut3r_analysis.backbones.protocol import Backbone
from mut3r_analysis.errors import InvalidArgument
from mut3r_analysis.motion import Cue
from mut3r_analysis.motion.readings import MASK
from mut3r_analysis.running.batch import Batch
from mut3r_analysis.running.configuration import Configuration
from mut3r_analysis.running.loop import stream
from mut3r_analysis.running.passes import FrameInput

Array = NDArray[np.floating[Any]]

CONTROL_SITE = "encoder_self"
"""The encoder sees one frame and no memory."""

SITES = (*DECODER_KINDS, CONTROL_SITE)


class Observed(NamedTuple):
    """Statistics of one clip.

    Attributes
    ----------
    statistics : dict of str to dict of str to ndarray
        Site -> statistic -> (layer, head, frame, token).
    carrying : ndarray
        (layer, frame, patch, state token): the attention weights with which patches read the
        state, averaged over heads. State tokens have no place in the image but this.
    motion : ndarray
        (frame, patch): motion score of the cue.
    grid : (int, int)
        Rows and columns of patches.
    """

    statistics: dict[str, dict[str, Array]]
    carrying: Array
    motion: Array
    grid: tuple[int, int]


def prepared(backbone: Backbone, sequence: xr.Dataset) -> Tensor:
    """Return the frames of a sequence as a backbone takes them, ``(frame, rgb, y, x)``."""
    images = [backbone.preparation.image(image.values) for image in sequence["image"]]
    return torch.from_numpy(np.stack(images))


@torch.no_grad()
def observe(backbone: Backbone, clips: Tensor, cue: Cue) -> list[Observed]:
    """Watch clips of equal size and length, all in one batch.

    Parameters
    ----------
    backbone : Backbone
    clips : Tensor
        (clip, frame, rgb, y, x), prepared for the backbone.
    cue : Cue
        Scored in the same pass.

    Returns
    -------
    list of Observed
        One per clip.
    """
    if cue.reading == MASK:
        raise InvalidArgument(f"the cue that is tested must read attention; got {cue}")
    capture = Capture(statistics="all", sites=SITES, maps=("image_to_state",))
    batch = Batch(backbone, [Configuration(cue=cue)] * len(clips), capture=capture)
    inputs = (
        FrameInput(position, images.to(backbone.device), {}, record=True)
        for position, images in enumerate(clips.unbind(1))
    )
    results = [result for (result,) in stream([batch], inputs)]
    grid = backbone.patch_grid(*clips.shape[-2:])
    patches = backbone.axes(grid)["image"].patches
    found = []
    for clip in range(len(clips)):
        records = [result.attention[clip] for result in results]
        weights = [each["image_to_state"]["logits"].softmax(dim=-1).mean(dim=1) for each in records]
        scores = [result.motion[clip] for result in results if result.motion is not None]
        statistics = {
            site: {
                name: np.stack([frame[site][name].cpu().numpy() for frame in records], axis=2)
                for name in values
                if name != "logits"
            }
            for site, values in records[0].items()
        }
        carrying = np.stack([frame[:, patches].numpy() for frame in weights], axis=1)
        motion = torch.stack(scores).flatten(1).cpu().numpy()
        found.append(Observed(statistics, carrying, motion, grid))
    return found
