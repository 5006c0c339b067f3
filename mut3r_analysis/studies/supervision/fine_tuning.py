"""Fine-tuning with a term on the cue: arms that differ in that term alone."""

import copy
import hashlib
from collections.abc import Collection
from dataclasses import dataclass, field

import numpy as np
import pandas as pd
import torch
import xarray as xr
from torch import Tensor
from torch.nn import functional as F

from mut3r_analysis.backbones.origin import Origin
from mut3r_analysis.backbones.precision import arithmetic
from mut3r_analysis.backbones.protocol import Backbone
from mut3r_analysis.foundation.fields import some_of
from mut3r_analysis.foundation.labelling import beside, described
from mut3r_analysis.motion import Cue
from mut3r_analysis.running.configuration import Configuration
from mut3r_analysis.scenes import SceneDistribution
from mut3r_analysis.training.clip_cues import check_trainable, standardised
from mut3r_analysis.training.clips import Clips, clips_from
from mut3r_analysis.training.loop import Training
from mut3r_analysis.training.objective import objective_terms, weighted_sum
from mut3r_analysis.training.optimisation import update_average
from mut3r_analysis.training.patches import patch_mean
from mut3r_analysis.training.recipe import Objective, Optimiser, Recipe
from mut3r_analysis.training.rollout import Rollout, roll_out
from mut3r_analysis.training.stage import Stage

ORIGINAL, CONTROL = "original", "control"
SUPERVISED, WRONG, CONTRAST = "supervised", "supervised, wrong masks", "contrast"
ARMS = {
    ORIGINAL: "the backbone as it is",
    CONTROL: "trained on; the cue term is computed and weighs nothing",
    SUPERVISED: "trained on with the cue against the true masks",
    WRONG: "the same with the masks of another clip",
    CONTRAST: "trained on with the cue's spread over the patches, without masks",
}
"""Every arm but the first takes the same steps on the same clips in the same order."""


@dataclass(frozen=True, kw_only=True)
class FineTuning:
    """What every trained arm has in common.

    Parameters
    ----------
    steps, clips, frames : int
        Optimiser steps, clips per step, frames per clip.
    rate : float
        Learning rate (AdamW); it rises over a tenth of the steps and falls over the last half.
    weight : float
        Of the cue term; the model's own loss has weight 1.
    contrast : float
        The arm ``contrast`` is asked for so many times the spread that the original cue has.
    scenes : SceneDistribution
        What training clips show.
    seed : int
        Of the clips.
    """

    steps: int = 60
    clips: int = 4
    frames: int = 3
    rate: float = 1e-3
    weight: float = 1.0
    contrast: float = 2.0
    scenes: SceneDistribution = field(default_factory=lambda: SceneDistribution(movers=(1, 2)))
    seed: int = 0

    def recipe(self, backbone: Backbone) -> Recipe:
        """Return the recipe of an arm without its cue term, at the backbone's size.

        The loss has CUT3R's own terms: points, confidence, poses and colour. The auxiliary heads
        of a training from scratch do not come with a checkpoint, and have no part in it.
        """
        stage = Stage(
            name="fine-tuning",
            steps=self.steps,
            clips=self.clips,
            frames=self.frames,
            cooldown=self.steps // 2,
            scenes=(self.scenes,),
        )
        return Recipe(
            name="cue-supervision",
            seed=self.seed,
            model=backbone.config,
            size=clip_size(backbone),
            stages=(stage,),
            objective=Objective(flow=0.0, matching=0.0),
            optimiser=Optimiser(
                rate=self.rate,
                matrix_rate=self.rate,
                weight_decay=0.0,
                warmup=self.steps // 10,
                average=0.9,
            ),
        )


def clip_size(backbone: Backbone) -> tuple[int, int]:
    """Width and height (px) of rendered clips: what the backbone makes of a 4:3 frame."""
    height, width = backbone.preparation.shape(480, 640)
    return width, height


def fine_tune(
    backbone: Backbone,
    cue: Cue,
    tuning: FineTuning,
    *,
    arms: Collection[str] = tuple(ARMS),
    progress: bool = True,
) -> tuple[dict[str, Backbone], xr.Dataset]:
    """Train every arm, step by step beside each other, on the same clips.

    Parameters
    ----------
    backbone : Backbone
        Left as it is.
    cue : Cue
        Whose evidence the terms act on, averaged over its layers and heads.
    tuning : FineTuning
    arms : collection of str
        Among :data:`ARMS`.
    progress : bool

    Returns
    -------
    models : dict of str to Backbone
        One per arm, ready to run; :data:`ORIGINAL` is the backbone itself.
    log : Dataset
        (arm, step) ``loss`` without the cue term, ``supervision`` (cross entropy against the true
        masks, whatever the arm is trained on; NaN where nothing moves) and ``spread`` of the cue in
        spreads of the original.

    Raises
    ------
    InvalidArgument
        For an unknown arm, or a cue without gradients.
    """
    from tqdm.auto import tqdm

    some_of("arms", arms, ARMS)
    check_trainable(cue)
    recipe = tuning.recipe(backbone)
    trained = {arm: _begun(backbone, recipe) for arm in ARMS if arm in arms and arm != ORIGINAL}
    usual: float | None = None
    rows: list[dict[str, dict[str, float]]] = []
    source = clips_from(recipe, 0, tuning.steps)
    for _, clips in tqdm(source, total=tuning.steps, disable=not progress, unit="step"):
        clips = clips.to(backbone.device)
        usual = _spread(backbone, clips, cue) if usual is None else usual
        told = (cue, tuning, usual)
        with arithmetic(backbone.precision, backbone.device), torch.enable_grad():
            rows.append({arm: _advance(each, clips, arm, *told) for arm, each in trained.items()})
    models = {ORIGINAL: backbone} if ORIGINAL in arms else {}
    for arm, training in trained.items():
        identity = f"{recipe.sha256} {cue} {tuning.weight} {tuning.contrast} {arm}"
        models[arm] = _finished(backbone, training.average, arm, identity, tuning.steps)
    return models, _log(rows, list(trained))


def _begun(backbone: Backbone, recipe: Recipe) -> Training:
    training = Training.begin(recipe, backbone.device)
    for model in (training.model, training.average):
        model.load_state_dict(backbone.state_dict())
    return training


def _finished(
    backbone: Backbone, weights: Backbone, arm: str, identity: str, steps: int
) -> Backbone:
    model = copy.deepcopy(backbone)
    model.load_state_dict(weights.state_dict())
    origin = backbone.origin
    model.origin = Origin(
        name=f"{origin.name}, {arm}",
        sha256=hashlib.sha256(f"{origin.sha256} {identity}".encode()).hexdigest(),
        report=(*origin.report, f"fine-tuned for {steps} steps: {ARMS[arm]}"),
    )
    return model


def _advance(
    training: Training, clips: Clips, arm: str, cue: Cue, tuning: FineTuning, usual: float
) -> dict[str, float]:
    """Take one step of an arm: that of the training loop, with the cue term added."""
    recipe, model = training.recipe, training.model
    weights = recipe.objective_at(training.step)
    rollout = roll_out(model, clips.image, configuration=Configuration(cue=cue))
    terms = objective_terms(rollout, training.helpers, clips, weights, recipe.model, training.step)
    own = weighted_sum(terms, weights)
    evidence = evidence_of(rollout, cue)
    share = moving_share(clips, recipe.model.patch_size)
    right, relative = supervision(evidence, share), spread(evidence) / usual
    term = right
    if arm == WRONG:
        term = supervision(evidence, share.roll(1, dims=0))
    elif arm == CONTRAST:
        term = F.relu(tuning.contrast - relative)
    # Also a weight of zero goes through the whole backward pass: equal compute, step by step.
    weight = 0.0 if arm == CONTROL else tuning.weight
    (own + weight * term).backward()
    training.optimisers.step(training.step)
    update_average(training.average, model, recipe.average_at(training.step))
    training.step += 1
    found = {"loss": own, "supervision": right, "spread": relative}
    values = {name: float(value.detach()) for name, value in found.items()}
    return values if _told(share).any() else values | {"supervision": np.nan}


def evidence_of(rollout: Rollout, cue: Cue) -> Tensor:
    """Return what a cue read from the second frame on, with the sign that makes motion high.

    ``(clip, frame, patch)``, mean over the cue's layers, with gradients.
    """
    assert rollout.readings is not None  # what is trainable is measured
    return (cue.sign or 1) * rollout.readings[:, 1:].mean(dim=2).flatten(2)


def supervision(evidence: Tensor, share: Tensor) -> Tensor:
    """Cross entropy of the cue against the truth; moving and resting weigh alike in every frame.

    Parameters
    ----------
    evidence : Tensor
        ``(clip, frame, patch)``. Its standardised value is the logit that MUT3R's score has.
    share : Tensor
        ``(clip, frame, patch)`` of each patch's pixels that move. Frames in which nothing moves, or
        all, have no order to learn and are left out.

    Returns
    -------
    Tensor
        Mean over frames, nat; 0 where no frame is left. A cue that knows nothing has more than
        log 2, because standardised values scatter whether they mean something or not.
    """
    logit = standardised(evidence.flatten(0, 1))
    share = share.flatten(0, 1)
    moving = (share * F.softplus(-logit)).sum(-1) / share.sum(-1).clamp_min(1e-6)
    resting = ((1 - share) * F.softplus(logit)).sum(-1) / (1 - share).sum(-1).clamp_min(1e-6)
    told = _told(share)
    return (told * (moving + resting) / 2).sum() / told.sum().clamp_min(1)


def _told(share: Tensor) -> Tensor:
    """Whether a frame has both moving and resting patches; ``(..., patch)`` to ``(...)``."""
    return (share.amax(-1) > 0.5) & (share.amin(-1) < 0.5)


def spread(evidence: Tensor) -> Tensor:
    """Mean over frames of the cue's standard deviation over patches ``(clip, frame, patch)``."""
    return (evidence.var(dim=-1, correction=0) + 1e-12).sqrt().mean()


def moving_share(clips: Clips, patch: int) -> Tensor:
    """Share of moving pixels ``(clip, frame, patch)`` from the second frame on."""
    moving = clips.moving[:, 1:].float()
    return patch_mean(moving.flatten(0, 1), patch).unflatten(0, moving.shape[:2])


@torch.no_grad()
def _spread(backbone: Backbone, clips: Clips, cue: Cue) -> float:
    rollout = roll_out(backbone, clips.image, (), configuration=Configuration(cue=cue))
    return float(spread(evidence_of(rollout, cue)))


_LOG: dict[str, tuple[str, str]] = {
    "loss": ("loss without the cue term", "1"),
    "supervision": ("cross entropy of the cue against the true masks", "nat"),
    "spread": ("spread of the cue over patches, relative to the original", "1"),
}


def _log(rows: list[dict[str, dict[str, float]]], arms: list[str]) -> xr.Dataset:
    steps = np.arange(1, len(rows) + 1)
    parts = {arm: pd.DataFrame([row[arm] for row in rows], steps, list(_LOG)) for arm in arms}
    found = beside(
        {arm: part.rename_axis("step").to_xarray() for arm, part in parts.items()}, "arm"
    )
    found["step"].attrs = {"long_name": "step"}
    return described(found, _LOG)
