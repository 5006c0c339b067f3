"""Cues on batches of clips: read with gradients while a model trains, or scored frame by frame."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from mut3r_analysis.attention.sites import Site
from mut3r_analysis.backbones.cut3r import CUT3R, Encoded, Frame
from mut3r_analysis.errors import InvalidArgument
from mut3r_analysis.motion import Cue, CueProbe, Gate, GatePlan, MotionMeter
from mut3r_analysis.motion.gated_seam import GatedSeam
from mut3r_analysis.motion.normalisers import location_and_scale
from mut3r_analysis.training.clips import Clips
from mut3r_analysis.training.patches import patch_truth
from mut3r_analysis.training.separation import roc_auc

KINDS = ("among all patches", "moving against resting objects")
"""Among which patches moving ones are told from the others."""


class CueReader:
    """Stands where a gate would, reads a cue from one pass over one frame, and gates nothing.

    The reading keeps its gradients. (A probe would do as well; the rollout of the training takes
    gates only.)

    Parameters
    ----------
    model : CUT3R
    cue : Cue
    grid : (int, int)
        Rows and columns of patches.
    """

    def __init__(self, model: CUT3R, cue: Cue, grid: tuple[int, int]) -> None:
        size = model.site_sizes()[cue.site]
        self._probe = CueProbe(cue, grid, layers=size.layers, heads=size.heads)
        self._sign = cue.sign or 1

    def __call__(self, site: Site, q: Tensor, k: Tensor, v: Tensor) -> None:
        """Look at a site and leave it be."""
        self._probe(site, q, k)

    @property
    def evidence(self) -> Tensor:
        """``(clip, patch)`` mean over the cue's layers, with the sign that makes motion high."""
        raw = self._probe.raw()
        assert raw is not None
        return self._sign * raw.mean(dim=1).flatten(1)


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


class Walk(NamedTuple):
    """What a cue found on clips: scores and readings per layer, without gradients.

    ``scores`` is ``(clip, frame, patch_row, patch_col)``; ``readings`` has ``layer`` after
    ``frame`` and is None for masks and made-up scores.
    """

    scores: Tensor
    readings: Tensor | None


@torch.no_grad()
def walk(
    model: CUT3R, clips: Clips, cue: Cue, *, gate: Gate | None = None, batch: int = 64
) -> Walk:
    """Take a cue through clips, all clips of a batch together.

    As in :func:`mut3r_analysis.run`, each frame has a probe pass, from whose statistics the score
    comes; with a gate a second, gated pass is what the state takes.

    Parameters
    ----------
    model : CUT3R
    clips : Clips
        ``moving`` is what a cue of the true mask reads.
    cue : Cue
        With source ``two_pass``.
    gate : Gate, optional
    batch : int
        Clips at a time.
    """
    if cue.source != "two_pass":
        raise InvalidArgument(f"clips are scored with source = 'two_pass', got {cue.source!r}")
    parts = [
        _walked(model, clips.image[part], clips.moving[part], cue, gate)
        for part in _slices(len(clips.image), batch)
    ]
    readings = [part.readings for part in parts if part.readings is not None]
    return Walk(
        torch.cat([part.scores for part in parts]), torch.cat(readings) if readings else None
    )


def _walked(model: CUT3R, images: Tensor, moving: Tensor, cue: Cue, gate: Gate | None) -> Walk:
    sizes = model.site_sizes()
    meter = MotionMeter(cue, sizes)
    plan = None if gate is None else GatePlan(gate, sizes)
    every = model.encode(Frame(images.flatten(0, 1)))
    features = every.features.unflatten(0, images.shape[:2])
    state, history = model.initial_state(len(images)), meter.start(len(images), model.device)
    scores, readings = [], []
    for time in range(images.shape[1]):
        encoded = Encoded(features[:, time], every.grid)
        entered = model.enter(encoded, state, model.recall(encoded, state))
        probe = meter.probe(every.grid)
        decoded = model.decode(entered, probe=probe)
        masks = {str(cue.of): moving[:, time]} if cue.of else None
        motions, history = meter.score(probe, history, grid=every.grid, position=time, masks=masks)
        score = meter.joined(motions)
        scores.append(score)
        readings.append(motions[0].raw)
        if plan is not None:
            decoded = model.decode(entered, gate=plan.seam(score))
        state, _ = model.write(Frame(images[:, time]), encoded, decoded, state)
    kept = [each for each in readings if each is not None]
    return Walk(torch.stack(scores, dim=1), torch.stack(kept, dim=1) if cue.measured else None)


def replayed(model: CUT3R, scores: Tensor, gate: Gate) -> Callable[[slice], Sequence[GatedSeam]]:
    """Return the gates of scores ``(clip, frame, patch_row, patch_col)`` found by a gated walk.

    Gating with the scores of a walk repeats its gated passes: equal gates give equal states, from
    which a probe pass would read the same scores again.
    """
    plan = GatePlan(gate, model.site_sizes())
    return lambda part: [plan.seam(score) for score in scores[part].unbind(1)]


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
    flat = scores[:, 1:].flatten(2).double().cpu().numpy()
    truths = [patch_truth(clips, patch, frame) for frame in range(1, scores.shape[1])]
    moving = np.stack([each.moving for each in truths], axis=1)
    resting = np.stack([each.resting for each in truths], axis=1)
    room = np.stack([each.background for each in truths], axis=1)
    found = [
        [roc_auc(score[among], label[among]) if label.any() else np.nan
         for score, label, among in zip(flat, moving, moving | others, strict=True)]
        for others in (resting | room, resting)
    ]  # fmt: skip
    attrs = {
        "long_name": "AUC of the cue",
        "units": "1",
        "source": "moving patches by the true mask; mean over clips of each clip's own AUC",
    }
    return xr.DataArray(found, dims=("kind", "clip"), coords={"kind": list(KINDS)}, attrs=attrs)


def _slices(count: int, size: int) -> list[slice]:
    return [slice(first, first + size) for first in range(0, count, size)]
