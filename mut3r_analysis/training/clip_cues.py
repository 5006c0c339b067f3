"""Cues on batches of clips: read with gradients while a model trains, or scored frame by frame."""

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from mut3r_analysis.backbones.protocol import Backbone
from mut3r_analysis.errors import InvalidArgument
from mut3r_analysis.motion import Cue, Gate
from mut3r_analysis.motion.normalisers import location_and_scale
from mut3r_analysis.running.configuration import Configuration
from mut3r_analysis.training.clips import Clips
from mut3r_analysis.training.patches import patch_truth
from mut3r_analysis.training.rollout import roll_out_all

KINDS = ("among all patches", "moving against resting objects")
"""Among which patches moving ones are told from the others."""


def check_trainable(cue: Cue) -> None:
    """Refuse a cue that does not follow from the decoder's attention in the pass at hand.

    Raises
    ------
    InvalidArgument
    """
    decoder = ("image_self", "image_to_state", "state_to_image")
    if not cue.measured or cue.site not in decoder or cue.control is not None:
        raise InvalidArgument(
            "a cue term needs a cue that is read from attention in the decoder, at "
            f"{', '.join(decoder)} and without control; got {cue}"
        )
    if cue.across_frames:
        raise InvalidArgument(f"a cue term reads single frames; {cue.reading!r} compares them")
    if cue.base != cue.reading:
        raise InvalidArgument(
            "a cue term reads single frames; 'instability' compares them. Use its reading, "
            f"{cue.base!r}"
        )


def standardised(evidence: Tensor) -> Tensor:
    """Evidence ``(clip, patch)`` in standard deviations from the mean of its frame.

    This is the logit of MUT3R's score at sharpness 1.
    """
    found = location_and_scale("zscore", evidence)
    assert found is not None
    location, scale = found
    return (evidence - location[:, None]) / scale[:, None].clamp_min(1e-6)


@torch.no_grad()
def scored(
    model: Backbone, clips: Clips, cue: Cue, *, gate: Gate | None = None
) -> tuple[Tensor, Tensor | None]:
    """Take a cue through clips, all clips of a batch together.

    As in :func:`mut3r_analysis.run`, each frame has a probe pass, from whose statistics the score
    comes; with a gate a second, gated pass is what the state takes.

    Parameters
    ----------
    model : Backbone
    clips : Clips
        ``moving`` is what a cue of the true mask reads.
    cue : Cue
    gate : Gate, optional

    Returns
    -------
    scores : Tensor
        ``(clip, frame, patch_row, patch_col)``.
    readings : Tensor or None
        ``(clip, frame, layer, patch_row, patch_col)``; None for masks and made-up scores.
    """
    configuration = Configuration(cue=cue, gate=gate)
    masks = {str(cue.of): clips.moving} if cue.of else None
    parts = list(roll_out_all(model, clips.image, (), configuration=configuration, masks=masks))
    scores = torch.cat([part.motion for part in parts if part.motion is not None])
    readings = [part.readings for part in parts if part.readings is not None]
    return scores, torch.cat(readings) if readings and cue.measured else None


def areas(scores: Tensor, clips: Clips, patch: int) -> xr.DataArray:
    """Area under the ROC curve of moving patches, per clip and against :data:`KINDS`.

    Parameters
    ----------
    scores : Tensor
        ``(clip, frame, patch_row, patch_col)``. The first frame is left out: nothing has moved yet.
    clips : Clips
    patch : int
        Side of a patch, px.

    Returns
    -------
    DataArray
        (kind, clip); NaN for a clip without patches of both classes. A patch moves when at least
        half of its pixels do; patches in between moving and resting are left out.
    """
    from sklearn.metrics import roc_auc_score

    flat = scores[:, 1:].flatten(2).double().cpu().numpy()
    truths = [patch_truth(clips, patch, frame) for frame in range(1, scores.shape[1])]
    moving = np.stack([each.moving for each in truths], axis=1)
    resting = np.stack([each.resting for each in truths], axis=1)
    room = np.stack([each.background for each in truths], axis=1)
    found = [
        [roc_auc_score(label[among], score[among]) if label.any() and other.any() else np.nan
         for score, label, other, among in zip(flat, moving, others, moving | others, strict=True)]
        for others in (resting | room, resting)
    ]  # fmt: skip
    attrs = {
        "long_name": "AUC of the cue",
        "units": "1",
        "source": "moving patches by the true mask; mean over clips of each clip's own AUC",
    }
    return xr.DataArray(found, dims=("kind", "clip"), coords={"kind": list(KINDS)}, attrs=attrs)
