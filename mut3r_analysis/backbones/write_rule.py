"""The form of a write rule: what it computes, what it needs, remembers and may be set to."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from torch import Tensor

from mut3r_analysis.backbones.write_signals import (
    GIVEN_SIGNALS,
    PREDICTED_SIGNALS,
    SIGNALS,
    Signals,
)
from mut3r_analysis.foundation.fields import one_of

Settings = Mapping[str, float]
"""Numbers of a rule by name; words that are chosen from a few are their index in the row."""


class Span(NamedTuple):
    """A setting that is a number: its default and its bounds."""

    default: float
    low: float = 0.0
    high: float = 1.0


class Words(NamedTuple):
    """A setting that is one of two words, the first unless said; it is held as 0 or 1."""

    usual: str
    other: str


LIFE = {
    "first": Words("full", "rule"),
    "after_reset": Words("full", "rule"),
    "advance": Words("written", "always"),
    "forget": Words("reset", "never"),
}
"""Life of a rule, which every rule may be told: whether a first frame, and the one after a reset,
is written in full or by the rule; whether its memory moves with frames that must not write; and
whether a reset forgets it. Released codes differ in these; the defaults are what we hold right."""


@dataclass(frozen=True, eq=False)
class Outcome:
    """What a rule makes of a frame.

    Attributes
    ----------
    rate : Tensor
        ``(batch, state_token | 1)``: share of the way to the target.
    memory : mapping of str to Tensor
        ``(batch, ...)`` for the next frame, under the same names with and without a past.
    target : Tensor, optional
        ``(batch, state_token, channel)`` that the state moves towards; None is the proposal.
    memory_rate : Tensor, optional
        ``(batch, 1)``: share of the pose memory that is replaced; None is all of it.
    """

    rate: Tensor
    memory: Signals = field(default_factory=dict)
    target: Tensor | None = None
    memory_rate: Tensor | None = None


Act = Callable[[Signals, Signals | None, Settings], Outcome]


@dataclass(frozen=True)
class WriteRule:
    """One rule: its rate, its memory and its life.

    Attributes
    ----------
    name : str
    act : callable
        From signals, the rule's memory of the frame before (None where there is none) and its
        settings to an :class:`Outcome`.
    needs : tuple of str
        Signals (:mod:`~mut3r_analysis.backbones.write_signals`).
    settings : mapping of str to (Span or Words)
        What may be set, ``name(setting=value)``. A row may begin a life otherwise by naming it.
    number : str, optional
        The setting that a bare number in parentheses sets; None takes none.
    full : callable, optional
        From signals and settings to what is remembered of a frame that is written in full; None
        is nothing.
    restart : bool
        Whether a reset also restarts the pose token, where the frame after it is written in full:
        it uses the learned token (TTT3R's recurrent path) instead of reading the initial memory.
    remembers : bool
        Whether it carries anything from frame to frame.
    directs : bool
        Whether it has a target of its own.
    refuses : mapping of str to str
        Rules that it means nothing beside, ``"*"`` for all, and why.
    paper : bool
        Whether it is known from a paper alone: formulas, and defaults that the paper does not give.

    Raises
    ------
    InvalidArgument
        For a signal that nothing gives.
    """

    name: str
    act: Act
    needs: tuple[str, ...] = ()
    settings: Mapping[str, Span | Words] = field(default_factory=dict)
    number: str | None = None
    full: Callable[[Signals, Settings], Signals] | None = None
    restart: bool = False
    remembers: bool = False
    directs: bool = False
    refuses: Mapping[str, str] = field(default_factory=dict)
    paper: bool = False

    def __post_init__(self) -> None:
        known = (*SIGNALS, *GIVEN_SIGNALS, *PREDICTED_SIGNALS)
        for name in self.needs:
            one_of(f"a signal that {self.name} needs", name, known)

    @property
    def may_set(self) -> dict[str, Span | Words]:
        """All that may be set: the rule's own, then its life."""
        return {**self.settings, **{name: LIFE[name] for name in LIFE if name not in self.settings}}
