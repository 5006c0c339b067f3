"""A model over whole clips at once, with gradients: what a training step and a validation share."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from mut3r_analysis.backbones.batching import each_tensor
from mut3r_analysis.backbones.heads import Prediction
from mut3r_analysis.backbones.protocol import Backbone
from mut3r_analysis.backbones.steps import Encoded, Frame
from mut3r_analysis.running.batch import Batch
from mut3r_analysis.running.configuration import Configuration
from mut3r_analysis.running.loop import stream
from mut3r_analysis.running.passes import FrameInput, FrameResult

PLAIN = Configuration()
TOGETHER = 64
"""Clips that are run at a time where no gradients are needed."""


@dataclass(frozen=True, eq=False)
class Rollout:
    """What a model makes of clips.

    Attributes
    ----------
    prediction : Prediction
        Every field with leading dims ``(clip * frame, ...)``.
    descriptors : Tensor
        ``(clip, frame, patch, channel)``: the patches as they enter the decoder.
    states : Tensor, optional
        ``(clip, frame, state_token, channel)``: the state that each frame reads; None of a model
        whose state grows, or starts without tokens.
    middle, final : Tensor
        ``(clip, frame, patch, channel)``: the patches after half of the layers and at the end.
    motion : Tensor, optional
        ``(clip, frame, patch_row, patch_col)`` score of the cue.
    readings : Tensor, optional
        ``(clip, frame, layer, patch_row, patch_col)`` what the cue read.
    """

    prediction: Prediction
    descriptors: Tensor
    states: Tensor | None
    middle: Tensor
    final: Tensor
    motion: Tensor | None
    readings: Tensor | None


def roll_out(
    model: Backbone,
    images: Tensor,
    outputs: Collection[str] | None = None,
    *,
    lattice: int | None = None,
    configuration: Configuration = PLAIN,
    masks: Mapping[str, Tensor] | None = None,
) -> Rollout:
    """Run a model over clips ``(clip, frame, rgb, y, x)`` in [-1, 1].

    The numbers are those of :func:`~mut3r_analysis.run`. What does not recur (the encoder, and the
    heads of a model that writes nothing they predict) is computed for all frames in one batch, and
    the last frame is not written.

    Parameters
    ----------
    model : Backbone
    images : Tensor
    outputs : collection of str, optional
    lattice : int, optional
        Only so many first rows and columns of the state take part.
    configuration : Configuration
        The same for all clips. Its cue must not read the encoder.
    masks : mapping of str to Tensor, optional
        ``(clip, frame, y, x)`` that a mask cue reads.
    """
    clips, frames = images.shape[:2]
    if lattice is not None:
        model = model.coarse(lattice)
    every = model.encode(Frame(images.flatten(0, 1)))
    features = every.features.unflatten(0, (clips, frames))
    asked = model.outputs if outputs is None else outputs
    batch = Batch(
        model,
        [configuration] * clips,
        outputs=asked if model.commit_needs else (),
        gradients=torch.is_grad_enabled(),
    )
    inputs = [
        FrameInput(
            time,
            images[:, time],
            {name: mask[:, time] for name, mask in (masks or {}).items()},
            Encoded(features[:, time], every.grid),
        )
        for time in range(frames)
    ]
    results = [result for (result,) in stream([batch], inputs, write_last=False)]
    readings = [_stacked(result.readings) for result in results]
    scores = [result.motion for result in results if result.motion is not None]
    return Rollout(
        prediction=_prediction(model, results, asked),
        descriptors=torch.stack([result.read.entered.patches for result in results], dim=1),
        states=_states([each.before.tokens for each in results]),
        middle=torch.stack([result.read.decoded.levels[1] for result in results], dim=1),
        final=torch.stack([result.read.decoded.levels[-1] for result in results], dim=1),
        motion=torch.stack(scores, dim=1) if scores else None,
        readings=_stacked(readings, dim=1),
    )


def _prediction(
    model: Backbone, results: Sequence[FrameResult], asked: Collection[str]
) -> Prediction:
    """Predictions of all frames, from one batch where no frame's was needed for the next."""

    def joined(*parts: Tensor) -> Tensor:
        return torch.stack(parts, dim=1).flatten(0, 1)

    if model.commit_needs:
        return each_tensor(joined, *(result.prediction for result in results))
    return model.predict(each_tensor(joined, *(each.read.decoded for each in results)), asked)


def roll_out_all(
    model: Backbone,
    images: Tensor,
    outputs: Collection[str] | None = None,
    *,
    masks: Mapping[str, Tensor] | None = None,
    **options: Any,
) -> Iterator[Rollout]:
    """Run a model over many clips as :func:`roll_out` does, as many at a time as may be."""
    at_once = clips_at_once(model, plain=options.get("configuration", PLAIN) == PLAIN)
    for first in range(0, len(images), at_once):
        part = slice(first, first + at_once)
        some = {name: mask[part] for name, mask in (masks or {}).items()}
        yield roll_out(model, images[part], outputs, masks=some, **options)


def clips_at_once(model: Backbone, *, plain: bool) -> int:
    """Return how many clips may go together: one where states grow apart and attention is watched.

    A model that takes no batches has one too. Clips whose states differ in size are padded, which
    changes no prediction but what is read of attention; and gates refuse it.
    """
    alone = not model.takes_batches or (model.state_grows and not plain)
    return 1 if alone else TOGETHER


def _states(tokens: Sequence[Tensor]) -> Tensor | None:
    """Stack what frames read, where all read equally many tokens."""
    return torch.stack(list(tokens), dim=1) if len({each.shape for each in tokens}) == 1 else None


def _stacked(parts: Sequence[Tensor | None], dim: int = 0) -> Tensor | None:
    known = [part for part in parts if part is not None]
    return torch.stack(known, dim=dim) if parts and len(known) == len(parts) else None
