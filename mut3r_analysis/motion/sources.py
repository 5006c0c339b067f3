"""Cue sources: whose statistics a frame's gates use."""

from dataclasses import dataclass
from typing import Self

from mut3r_analysis.errors import InvalidArgument
from mut3r_analysis.foundation.calls import parse_call
from mut3r_analysis.foundation.fields import meant

SOURCES = {
    "two_pass": "a probe pass over the same frame",
    "two_pass_cut": "a probe pass that stops after L layers: two_pass_cut(L)",
    "previous": "the previous frame's score",
    "previous_ema": "moving average of earlier frames' scores: previous_ema(rho)",
    "layer_causal": "this pass, layers before the gated one",
    "same_site": "this pass, up to and including the gated layer",
    "iterate": "K probe passes, each gated by the score of the one before: iterate(K)",
}
"""Name -> meaning; a number in parentheses is part of the text form."""


@dataclass(frozen=True)
class Source:
    """One cue source.

    Parameters
    ----------
    name : str
        Key of :data:`SOURCES`.
    value : float, optional
        Layers of ``two_pass_cut`` (half-open: 6 measures layers 0 to 5), decay of ``previous_ema``
        in [0, 1), passes of ``iterate``.

    Raises
    ------
    InvalidArgument
    """

    name: str
    value: float | None = None

    def __post_init__(self) -> None:
        if self.name not in SOURCES:
            known = "; ".join(f"{name}: {meaning}" for name, meaning in SOURCES.items())
            near = meant([self.name], SOURCES)
            raise InvalidArgument(f"unknown cue source {self.name!r}{near}; known: {known}")
        if self.name in ("two_pass_cut", "iterate"):
            if self.value is None or not float(self.value).is_integer() or self.value < 1:
                raise InvalidArgument(
                    f"{self.name} needs a whole number from 1 on, for example {self.name}(2); "
                    f"got {self.value}"
                )
        elif self.name == "previous_ema":
            if self.value is None or not 0 <= self.value < 1:
                raise InvalidArgument(
                    "previous_ema needs a decay in [0, 1), for example previous_ema(0.9); "
                    f"got {self.value}"
                )
        elif self.value is not None:
            raise InvalidArgument(f"{self.name} takes no number, got {self.value}")

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read the text form, for example ``"two_pass"`` or ``"previous_ema(0.9)"``."""
        return cls(*parse_call(text))

    def __str__(self) -> str:
        return self.name if self.value is None else f"{self.name}({self.value:g})"

    @property
    def passes(self) -> int:
        """Passes over the frame before the gated one."""
        if self.name == "iterate" and self.value is not None:
            return int(self.value)
        return 1 if self.name in ("two_pass", "two_pass_cut") else 0

    @property
    def live(self) -> bool:
        """Whether the score is made while the gated pass runs."""
        return self.name in ("layer_causal", "same_site")

    @property
    def lags(self) -> bool:
        """Whether the score comes from earlier frames."""
        return self.name in ("previous", "previous_ema")

    @property
    def layers(self) -> int | None:
        """Layers after which the probe pass stops; None for a whole pass."""
        return int(self.value) if self.name == "two_pass_cut" and self.value is not None else None
