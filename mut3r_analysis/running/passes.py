"""What goes into a frame, what passes over it give, and what comes out of it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol, Self

from torch import Tensor

from mut3r_analysis.attention.recorder import Records
from mut3r_analysis.attention.tokens import Axes
from mut3r_analysis.backbones.batching import mixed
from mut3r_analysis.backbones.heads import Prediction
from mut3r_analysis.backbones.protocol import Backbone
from mut3r_analysis.backbones.steps import Encoded
from mut3r_analysis.motion.batch import CueBatchProbe
from mut3r_analysis.motion.frame_gate import FrameGate
from mut3r_analysis.motion.gate import Gate
from mut3r_analysis.motion.history import CueHistory
from mut3r_analysis.motion.score import Motion
from mut3r_analysis.running.moments import Span


@dataclass(frozen=True, eq=False)
class BatchState:
    """All that a batch carries from frame to frame.

    Attributes
    ----------
    state
        Of the backbone.
    cue : tuple of CueHistory
    age : tuple of int
        Per configuration, frames since the start or the last reset.
    scored : tuple of int
        Per configuration, frames that its cue remembers.
    written : tuple of float
        Per configuration that starts anew when its state is saturated, how much the state has
        changed since the first frame of the part; 0 for the others.
    base : Tensor, optional
        ``(batch, 4, 4)`` pose that chained parts go on from; None before the first of them ended.
    """

    state: Any
    cue: tuple[CueHistory, ...]
    age: tuple[int, ...]
    scored: tuple[int, ...]
    written: tuple[float, ...]
    base: Tensor | None = None


@dataclass(frozen=True, eq=False)
class FrameInput:
    """A frame, ready for a backbone.

    Attributes
    ----------
    position : int
        In the sequence.
    image : Tensor
        ``(1 | batch, rgb, y, x)``.
    masks : dict of str to Tensor
        Variables of the sequence that cues read, ``(1 | batch, y, x)``.
    encoded : Encoded, optional
        Where the image was encoded already.
    record : bool
        Whether a capture records this frame.
    ahead : bool
        Whether it is only looked ahead to, by the frame before.
    """

    position: int
    image: Tensor
    masks: Mapping[str, Tensor]
    encoded: Encoded | None = None
    record: bool = False
    ahead: bool = False


@dataclass(frozen=True, eq=False)
class EncodedFrame:
    """A frame as every batch sees it: encoded once.

    Attributes
    ----------
    given : FrameInput
    encoded : Encoded
    axes : mapping of str to TokenAxis
        Tokens of the frame.
    measured : list of (CueBatchProbe or None)
        Per batch, what its cues read in the encoder.
    attention : dict
        What was recorded in the encoder.
    unpassed : frozenset of str
        Kinds of site that the frame does not pass.
    """

    given: FrameInput
    encoded: Encoded
    axes: Axes
    measured: Sequence[CueBatchProbe | None]
    attention: Records
    unpassed: frozenset[str] = frozenset()

    def met(self, backbone: Backbone, entered: Any) -> Self:
        """Return the frame with the tokens and the sites that it has beside a state."""
        axes, unpassed = backbone.axes_in(entered, self.axes), backbone.unpassed(entered)
        return replace(self, axes=axes, unpassed=frozenset(unpassed))


@dataclass(eq=False)
class Pass:
    """One pass through the decoder.

    Attributes
    ----------
    decoded, entered
        Of the backbone.
    gate : FrameGate, optional
    attention : dict
        What was recorded.
    layers : list of Tensor
        Patch tokens ``(batch, patch, channel)`` after each layer, where they are kept.
    """

    decoded: Any
    entered: Any
    gate: FrameGate | None = None
    attention: Records = field(default_factory=dict)
    layers: list[Tensor] = field(default_factory=list)


@dataclass(frozen=True, eq=False)
class FrameResult:
    """What one frame gave, for all configurations of a batch.

    Attributes
    ----------
    before
        State of the backbone that the frame was read with.
    carried : BatchState
        To go on with.
    rate : Tensor
        ``(batch, state_token)`` share of each state token that was replaced.
    read : Pass
        The last pass, which is the one that is read unless the commit says otherwise.
    prediction : Prediction
    gated : tuple of bool
        Whether gates acted: not in a warm-up, nor before a lagging cue has seen a frame.
    resets : tuple of bool
        Per configuration, whether its state starts anew after the frame.
    motion, used : Tensor, optional
        ``(batch, patch_row, patch_col)``: the score of this frame, and for a lagging cue the one
        its gates used.
    readings : list of (Tensor or None)
        Per configuration ``(layer, patch_row, patch_col)``.
    attention : list of dict
        Per configuration, what was recorded.
    whole : (Moment, Moment)
        From the beginning to the end, without reading and encoding the frame.
    probing : (Moment, Moment), optional
        The passes before the last one.
    shared : (Moment, Moment), optional
        Reading and encoding the frame, for all batches.
    unpassed : frozenset of str
        Kinds of site that the frame did not pass.
    """

    before: Any
    carried: BatchState
    rate: Tensor
    read: Pass
    prediction: Prediction
    gated: tuple[bool, ...]
    resets: tuple[bool, ...]
    motion: Tensor | None
    used: Tensor | None
    readings: list[Tensor | None]
    attention: list[Records]
    whole: Span
    probing: Span | None = None
    shared: Span | None = None
    unpassed: frozenset[str] = frozenset()


class PassPolicy(Protocol):
    """Chooses gates frame by frame, from what the probe pass shows."""

    def propose(
        self, frame: EncodedFrame, readings: Sequence[Tensor | None]
    ) -> Sequence[Sequence[Gate]]:
        """Return, per configuration, the gates to try on a frame: a pass each."""

    def choose(self, frame: EncodedFrame, found: Prediction, samples: Sequence[int]) -> list[int]:
        """Return, per configuration, which of all tried passes is read and written.

        `samples` says of each row of `found` which configuration it was tried for.
        """


@dataclass(eq=False)
class Passes:
    """The passes over a frame; what is still to be scored is left as a probe."""

    gated: Pass
    probed: Pass | None = None
    pending: CueBatchProbe | None = None
    motions: tuple[Motion, ...] = ()
    history: tuple[CueHistory, ...] = ()
    used: Tensor | None = None
    prediction: Prediction | None = None
    probing: Span | None = None

    def between(self, shares: Sequence[float]) -> Any:
        """Take a share of the gated pass per sample, and the rest of the probe pass."""
        return mixed(self.gated.decoded, self.probed and self.probed.decoded, shares)
