"""What passes over a frame give, and how their outputs are combined."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace

import torch
from torch import Tensor

from mut3r_analysis.attention.recorder import Recorder
from mut3r_analysis.attention.seam import Probe
from mut3r_analysis.attention.sites import Site
from mut3r_analysis.backbones.cut3r import Decoded, Encoded, State
from mut3r_analysis.backbones.heads import Prediction
from mut3r_analysis.backbones.write_rules import History, MeanLogitMap
from mut3r_analysis.motion.gated_seam import GatedSeam
from mut3r_analysis.motion.meter import MeterProbe
from mut3r_analysis.motion.score import CueHistory, Motion

Records = dict[str, dict[str, Tensor]]


@dataclass(frozen=True, eq=False)
class Carried:
    """All that a branch carries from frame to frame.

    Attributes
    ----------
    state : State
    cue : tuple of CueHistory
    age : tuple of int
        Per configuration, frames since the start or the last reset.
    scored : tuple of int
        Per configuration, frames that its cue remembers.
    seen : History, optional
        The frame before, for the rate ``ttsa3r`` of a commit.
    """

    state: State
    cue: tuple[CueHistory, ...]
    age: tuple[int, ...]
    scored: tuple[int, ...]
    seen: History | None = None


@dataclass(frozen=True, eq=False)
class Sight:
    """A frame as every branch sees it: encoded once.

    Attributes
    ----------
    position : int
        In the sequence.
    image : Tensor
        ``(1, rgb, y, x)``.
    masks : dict of str to Tensor
        Variables of the sequence that cues read, ``(1, y, x)``.
    encoded : Encoded
    measured : list of (MeterProbe or None)
        Per branch, what its cues read in the encoder.
    attention : dict
        What was recorded in the encoder.
    """

    position: int
    image: Tensor
    masks: Mapping[str, Tensor]
    encoded: Encoded
    measured: list[MeterProbe | None]
    attention: Records


@dataclass(frozen=True, eq=False)
class Outcome:
    """What one frame gave, for all configurations of a branch.

    Attributes
    ----------
    before : State
    carried : Carried
        To go on with.
    rate : Tensor
        ``(batch, state_token)`` share of each state token that was replaced.
    prediction : Prediction
    gated : tuple of bool
        Whether gates acted: not in a warm-up, nor before a lagging cue has seen a frame.
    motion, used : Tensor, optional
        ``(batch, patch_row, patch_col)``: the score of this frame, and for a lagging cue the one
        its gates used.
    readings : list of (Tensor or None)
        Per configuration ``(layer, patch_row, patch_col)``.
    attention : list of dict
        Per configuration, what was recorded.
    seconds : (float, float)
        Before the last pass, and from there on; without the encoder.
    """

    before: State
    carried: Carried
    rate: Tensor
    prediction: Prediction
    gated: tuple[bool, ...]
    motion: Tensor | None
    used: Tensor | None
    readings: list[Tensor | None]
    attention: list[Records]
    seconds: tuple[float, float]


@dataclass(eq=False)
class Pass:
    """One pass through the decoder and what watched it."""

    decoded: Decoded
    seam: GatedSeam | None
    recorder: Recorder | None
    maps: dict[str, MeanLogitMap]

    def attention(self) -> Records:
        """Return what was recorded, and forget it."""
        return {} if self.recorder is None else self.recorder.take()


@dataclass(eq=False)
class Passes:
    """The passes over a frame; what is still to be scored is left as a probe."""

    gated: Pass
    probed: Pass | None = None
    pending: MeterProbe | None = None
    motions: tuple[Motion, ...] = ()
    history: tuple[CueHistory, ...] = ()
    used: Tensor | None = None
    seconds_before: float = 0.0


def together(*probes: Probe | None) -> Probe | None:
    """Return one probe that shows every site to each of some; None where there is none."""
    present = [probe for probe in probes if probe is not None]
    if len(present) < 2:
        return present[0] if present else None

    def probe(site: Site, q: Tensor, k: Tensor) -> None:
        for each in present:
            each(site, q, k)

    return probe


def between(gated: Pass, probed: Pass | None, shares: Sequence[float]) -> Decoded:
    """Take a share of the gated pass per sample, and the rest of the probe pass.

    Where all samples take one pass whole it is returned as it is; within a batch, shares of 0 and 1
    are exact.
    """
    if probed is None or probed is gated or min(shares) == 1:
        return gated.decoded
    if max(shares) == 0:
        return probed.decoded
    one, other = gated.decoded, probed.decoded
    mean = one.mean_logit
    return Decoded(
        levels=[mixed(a, b, shares) for a, b in zip(one.levels, other.levels, strict=True)],
        pose_token=mixed(one.pose_token, other.pose_token, shares),
        pose_query=one.pose_query,
        proposal=mixed(one.proposal, other.proposal, shares),
        mean_logit=None if mean is None else mixed(mean, other.mean_logit, shares),
    )


def mixed(one: Tensor, other: Tensor | None, shares: Sequence[float]) -> Tensor:
    """Return a share of one tensor per sample and the rest of the other."""
    if other is None or min(shares) == 1:
        return one
    share = torch.tensor(shares, device=one.device).reshape(-1, *[1] * (one.dim() - 1))
    return (share * one + (1 - share) * other).to(one.dtype)


def merged(one: Prediction, other: Prediction) -> Prediction:
    """Return one prediction with what another has filled in."""
    return replace(one, **_present(other))


def of_sample(prediction: Prediction, sample: int) -> Prediction:
    """Return the prediction of one sample, as a batch of one."""
    found = _present(prediction)
    return Prediction(**{name: value[sample : sample + 1] for name, value in found.items()})


def concatenated(parts: Sequence[Prediction]) -> Prediction:
    """Return predictions of consecutive samples as one batch."""
    found = [_present(part) for part in parts]
    return Prediction(**{name: torch.cat([part[name] for part in found]) for name in found[0]})


def _present(prediction: Prediction) -> dict[str, Tensor]:
    values = {item.name: getattr(prediction, item.name) for item in fields(prediction)}
    return {name: value for name, value in values.items() if value is not None}
