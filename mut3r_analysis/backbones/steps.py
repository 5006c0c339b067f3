"""What passes from one step of a backbone to the next: frames, tokens, states, and writes."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

from torch import Tensor

from mut3r_analysis.backbones.heads import Prediction
from mut3r_analysis.backbones.write_rules import Rules


@dataclass(frozen=True, eq=False)
class Frame:
    """One frame of a batch of sequences.

    Attributes
    ----------
    image : Tensor, optional
        ``(batch, rgb, y, x)`` in [-1, 1].
    ray_map : Tensor, optional
        ``(batch, y, x, 6)``: origin and unit direction of each pixel's ray, for models that take
        them. Alone it queries the state without changing it.
    update : bool or Tensor
        Whether the frame may write state and memory, or ``(batch,)`` of that.
    reset : bool or Tensor
        Whether state and memory return to their initial values *after* this frame.
    """

    image: Tensor | None = None
    ray_map: Tensor | None = None
    update: bool | Tensor = True
    reset: bool | Tensor = False


@dataclass(frozen=True, eq=False)
class Encoded:
    """Encoder tokens of a frame ``(batch, patch, channel)`` and their grid (rows, columns).

    `following` is the next frame of the sequence, for a model that looks ahead; None for all
    others, and at the end.
    """

    features: Tensor
    grid: tuple[int, int]
    following: "Encoded | None" = None


class State(Protocol):
    """What a model carries from frame to frame; a value that is never modified."""

    @property
    def tokens(self) -> Tensor:
        """``(batch, state_token, channel)``, the memory that the decoder reads."""

    def described(self, before: Any, rate: Tensor, *, keep: bool) -> dict[str, Tensor]:
        """Return values after a frame, each with a leading batch.

        Their names are those of :meth:`~mut3r_analysis.backbones.Backbone.state_variables`.

        Parameters
        ----------
        before : State
            That the frame was read with.
        rate : Tensor
            From :meth:`~mut3r_analysis.backbones.Backbone.commit`.
        keep : bool
            Whether kept variables are among them.
        """


@dataclass(frozen=True, eq=False)
class Entered:
    """A frame and a state about to meet in the decoder: all that passes over a frame share.

    A model adds what else meets.

    Attributes
    ----------
    features : Tensor
        ``(batch, patch, channel)`` encoder tokens.
    grid : (int, int)
        Rows and columns of patches.
    """

    features: Tensor
    grid: tuple[int, int]

    @property
    def patches(self) -> Tensor:
        """``(batch, patch, channel)`` as they enter the decoder."""
        return self.features


@dataclass(frozen=True, eq=False)
class Decoded:
    """What a decoder makes of a frame and a state; tensors have a leading batch.

    A model adds what else it makes.

    Attributes
    ----------
    levels : list of Tensor
        ``(batch, patch, channel)`` that the dense heads take, last level last.
    grid : (int, int)
        Rows and columns of patches.
    signals : dict of str to Tensor
        What write rules asked for, by name; empty for a model that has none to ask.
    """

    levels: list[Tensor]
    grid: tuple[int, int]
    signals: dict[str, Tensor] = field(default_factory=dict, kw_only=True)


class FrameRead(NamedTuple):
    """A frame as it was read, to be committed.

    Attributes
    ----------
    frame : Frame
    encoded : Encoded
    decoded : Decoded
        Of the pass that is written.
    prediction : Prediction, optional
        Of that pass; needed where :attr:`~mut3r_analysis.backbones.Backbone.commit_needs` names
        outputs.
    """

    frame: Frame
    encoded: Encoded
    decoded: Any
    prediction: Prediction | None = None


@dataclass(frozen=True, eq=False)
class Write:
    """How a frame is committed; the default is what the backbone does by itself.

    Attributes
    ----------
    rules : Rules, optional
        Write rules of each sample; None is the backbone's own.
    signals : mapping of str to Tensor
        What the rules need beyond what the decoder gives: ``motion`` (batch, patch),
        ``static_mass`` (batch, state_token).
    factor : Tensor, optional
        ``(batch, state_token | 1)`` multiplies the rate.
    remember : bool or Tensor
        Whether the pose memory may change, or ``(batch,)`` of that.
    summary : Tensor, optional
        ``(batch, 1, channel)`` stands for the mean encoder token in the pose memory.
    restart : bool or Tensor, optional
        Whether the frame after a reset starts from the learned pose token, or ``(batch,)`` of
        that; None is what the backbone's write rule does.
    """

    rules: Rules | None = None
    signals: Mapping[str, Tensor] = field(default_factory=dict)
    factor: Tensor | None = None
    remember: bool | Tensor = True
    summary: Tensor | None = None
    restart: bool | Tensor | None = None
