"""A model over whole clips at once, with gradients: what a training step and a validation share."""

import copy
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from mut3r_analysis.attention.seam import Gate
from mut3r_analysis.backbones.cut3r import CUT3R, Decoded, Encoded, Frame
from mut3r_analysis.backbones.heads import Prediction
from mut3r_analysis.backbones.rotation import state_positions


@dataclass(frozen=True, eq=False)
class Rollout:
    """What a model makes of clips.

    Attributes
    ----------
    prediction : Prediction
        Every field with leading dims ``(clip * frame, ...)``.
    descriptors : Tensor
        ``(clip, frame, patch, channel)``: the patches as they enter the decoder.
    states : Tensor
        ``(clip, frame, state_token, channel)``: the state that each frame reads.
    middle, final : Tensor
        ``(clip, frame, patch, channel)``: the patches after half of the layers and at the end.
    """

    prediction: Prediction
    descriptors: Tensor
    states: Tensor
    middle: Tensor
    final: Tensor


def roll_out(
    model: CUT3R,
    images: Tensor,
    outputs: Collection[str] | None = None,
    *,
    lattice: int | None = None,
    gates: Sequence[Gate] | None = None,
) -> Rollout:
    """Run a model over clips ``(clip, frame, rgb, y, x)`` in [-1, 1].

    The numbers are those of :meth:`CUT3R.step` frame by frame. What does not recur (encoder and
    heads) is computed for all frames in one batch, and the last frame is not written. With
    `lattice`, only that many first rows and columns of the state take part; `gates`, one per frame,
    act in the decoder.
    """
    clips, frames = images.shape[:2]
    if lattice is not None:
        model = with_lattice(model, lattice)
    every = model.encode(Frame(images.flatten(0, 1)))
    features = every.features.unflatten(0, (clips, frames))
    state = model.initial_state(clips)
    decoded: list[Decoded] = []
    states = []
    for time in range(frames):
        frame, encoded = Frame(images[:, time]), Encoded(features[:, time], every.grid)
        entered = model.enter(encoded, state, model.recall(encoded, state))
        states.append(state.tokens)
        gate = gates[time] if gates is not None else None
        decoded.append(model.decode(entered, gate=gate))
        if time + 1 < frames:
            state, _ = model.write(frame, encoded, decoded[-1], state)

    def stacked(parts: list[Tensor]) -> Tensor:
        return torch.stack(parts, dim=1).flatten(0, 1)

    together = Decoded(
        levels=[stacked([each.levels[index] for each in decoded]) for index in range(4)],
        pose_token=stacked([each.pose_token for each in decoded]),
        pose_query=decoded[0].pose_query,
        proposal=decoded[-1].proposal,
        mean_logit=None,
    )
    return Rollout(
        prediction=model.predict(together, every.grid, outputs),
        descriptors=model.decoder_embed(features),
        states=torch.stack(states, dim=1),
        middle=together.levels[1].unflatten(0, (clips, frames)),
        final=together.levels[3].unflatten(0, (clips, frames)),
    )


def with_lattice(model: CUT3R, side: int) -> CUT3R:
    """Return the model for the first `side` rows and columns of its state; weights are shared."""
    places = state_positions(model.config.state_size, model.device)
    small = copy.copy(model)
    small.config = replace(model.config, state_size=side**2)
    registers = nn.Module()
    registers.weight = model.register_tokens.weight[(places < side).all(dim=1)]
    small._modules = {**model._modules, "register_tokens": registers}
    return small
