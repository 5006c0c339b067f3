"""Write rules: how much of the new state each state token takes over from a frame.

The committed state is ``s + u b (s' - s)`` per token: s' is the decoder's output state, u is 1 for
a frame that may write, and b is the product of the rates of the rules at work. The pose memory
takes u alone. A rule is the backbone's own (``load_backbone(update=...)``) or stands in a commit
(``rate.<name>``), by the same row of :data:`WRITE_RULES`. On a first frame, and on the one after a
reset, every rule is 1.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from mut3r_analysis.attention.sites import Site
from mut3r_analysis.errors import InvalidArgument
from mut3r_analysis.foundation.calls import parse_call
from mut3r_analysis.foundation.fields import one_of


class MeanLogits:
    """Probe that averages state-to-image logits over heads and layers.

    Parameters
    ----------
    keys : bool
        Whether to average over keys too (pose key included). That average is linear in the keys,
        so it costs one dot product per query; the map ``(batch, state_token, key)`` is formed only
        when its single entries are needed.
    """

    def __init__(self, keys: bool) -> None:
        self._average_keys = keys
        self._sum: Tensor | float = 0.0
        self._sites = 0

    def __call__(self, site: Site, q: Tensor, k: Tensor) -> None:
        """Add one site ``(batch, head, token, channel)``."""
        if site.kind != "state_to_image":
            return
        q, k = q.float(), k.float()
        heads, channels = q.shape[1], q.shape[3]
        if self._average_keys:
            k = k.mean(dim=2, keepdim=True)
        # One product in the concatenated width of all heads sums over heads and channels at once.
        product = q.transpose(1, 2).flatten(2) @ k.transpose(1, 2).flatten(2).mT
        self._sum = self._sum + product / (heads * channels**0.5)
        self._sites += 1

    @property
    def value(self) -> Tensor:
        """``(batch, state_token)``, or ``(batch, state_token, key)`` where keys are told apart."""
        if not isinstance(self._sum, Tensor):
            raise RuntimeError("no state-to-image site has been probed yet")
        mean = self._sum / self._sites
        return mean[..., 0] if self._average_keys else mean


SIGNALS: dict[str, Callable[[], MeanLogits]] = {
    "mean_logit": lambda: MeanLogits(keys=True),
    "mean_logit_map": lambda: MeanLogits(keys=False),
}
"""What a decoder can be asked to take for write rules: name -> probe of one pass."""

GIVEN_SIGNALS = ("features", "before", "proposal", "motion", "static_mass")
"""What a commit knows without a probe: encoder tokens ``(batch, patch, channel)``, the state before
and the decoder's output state ``(batch, state_token, channel)``, and, where a cue is measured, the
motion score ``(batch, patch)`` and the static mass ``(batch, state_token)`` of what was read."""

Signals = Mapping[str, Tensor]


@dataclass(frozen=True)
class WriteRule:
    """One rule: its rate, its memory and its life.

    Attributes
    ----------
    name : str
    rate : callable
        From signals, the rule's memory of the frame before (None where there is none) and its
        number to ``(batch, state_token | 1)`` in [0, 1].
    needs : tuple of str
        Signals among :data:`SIGNALS` and :data:`GIVEN_SIGNALS`.
    remember : callable, optional
        From signals to the memory ``{name: (batch, ...)}`` that the next frame gets. Frames that
        must not write leave the memory as it was; a reset forgets it.
    number : float, optional
        What a number in parentheses is unless given; None takes none.
    restart : bool
        Whether a reset also restarts the pose token: the frame after it uses the learned token
        (TTT3R's recurrent path) instead of reading the initial memory.
    """

    name: str
    rate: Callable[[Signals, Signals | None, float | None], Tensor]
    needs: tuple[str, ...] = ()
    remember: Callable[[Signals], Signals] | None = None
    number: float | None = None
    restart: bool = False


def full_rate(signals: Signals, past: Signals | None, number: float | None) -> Tensor:
    """CUT3R: every token is replaced."""
    return signals["proposal"].new_ones(signals["proposal"].shape[:2], dtype=torch.float32)


def ttt3r_rate(signals: Signals, past: Signals | None, number: float | None) -> Tensor:
    """TTT3R: sigmoid of the mean state-to-image logit."""
    return signals["mean_logit"].sigmoid()


def ttsa3r_rate(signals: Signals, past: Signals | None, number: float | None) -> Tensor:
    """TTSA3R: temporal change of the state times spatial change where the state looks.

    Two faults of the authors' code are not repeated. There, a frame that must not write
    (``update`` false) writes nevertheless from the second frame on; here the rate is multiplied by
    that flag, as in TTT3R. There, the batch path keeps its buffers of the previous frame over a
    reset and compares across it; here they are forgotten, as in the authors' recurrent path, and
    the frame after a reset is written in full.
    """
    proposal, features = signals["proposal"].float(), signals["features"].float()
    if past is None:
        return full_rate(signals, past, number)
    change = (proposal - past["proposal"].float()).norm(dim=-1)
    temporal = (change / change.mean(dim=-1, keepdim=True) - 1.5).sigmoid()
    drift = 1 - F.cosine_similarity(features, past["features"].float(), dim=-1)
    # Key 0 is the pose token.
    mean_map = signals["mean_logit_map"][..., 1:]
    spatial = (mean_map.abs() * drift[:, None]).amax(dim=-1).sigmoid()
    return temporal * spatial


def static_mass_rate(signals: Signals, past: Signals | None, number: float | None) -> Tensor:
    """Share of what each state token read that is static, mean over layers."""
    return signals["static_mass"].clamp(0, 1)


def frame_rate(signals: Signals, past: Signals | None, number: float | None) -> Tensor:
    """One rate for a whole frame: 1 - alpha mean(g)."""
    alpha = 1.0 if number is None else number
    return 1 - alpha * signals["motion"].float().mean(dim=1, keepdim=True)


WRITE_RULES = {
    rule.name: rule
    for rule in (
        WriteRule("cut3r", full_rate),
        WriteRule("ttt3r", ttt3r_rate, ("mean_logit",), restart=True),
        WriteRule(
            "ttsa3r",
            ttsa3r_rate,
            ("mean_logit_map", "features", "proposal"),
            remember=lambda signals: {name: signals[name] for name in ("features", "proposal")},
        ),
        WriteRule("static_mass", static_mass_rate, ("static_mass",)),
        WriteRule("frame", frame_rate, ("motion",), number=1.0),
    )
}


@dataclass(frozen=True, eq=False)
class RuleMemory:
    """What write rules carry from frame to frame.

    Attributes
    ----------
    begun : Tensor
        ``(batch,)`` whether a frame has passed since the start or the last reset.
    held : dict of str to (Tensor, dict of str to Tensor)
        Rule -> whether it remembers a frame, ``(batch,)``, and what of it.
    """

    begun: Tensor
    held: Mapping[str, tuple[Tensor, Signals]]

    @classmethod
    def start(cls, batch: int, device: torch.device) -> "RuleMemory":
        """Remember nothing."""
        return cls(torch.zeros(batch, dtype=torch.bool, device=device), {})


class Rules:
    """The write rules of a batch: for each sample a product of rows of :data:`WRITE_RULES`.

    Parameters
    ----------
    samples : sequence of mapping of str to (float or None)
        Per sample, rule -> number; a single one is for the whole batch.
    """

    def __init__(self, samples: Sequence[Mapping[str, float | None]]) -> None:
        self._samples = [dict(sample) for sample in samples]

    def times(self, samples: Sequence[Mapping[str, float | None]]) -> "Rules":
        """Return the product of these rules, the same for all samples, with some per sample."""
        (own,) = self._samples
        return Rules([{**own, **sample} for sample in samples])

    @property
    def rules(self) -> list[WriteRule]:
        """The rows that are at work for any sample."""
        named = {name for sample in self._samples for name in sample}
        return [rule for name, rule in WRITE_RULES.items() if name in named]

    @property
    def needs(self) -> set[str]:
        """Signals that the rules need."""
        return {name for rule in self.rules for name in rule.needs}

    @property
    def signals(self) -> tuple[str, ...]:
        """Signals that the decoder has to take."""
        return tuple(name for name in SIGNALS if name in self.needs)

    @property
    def restart(self) -> bool:
        """Whether a reset also restarts the pose token."""
        return any(rule.restart for rule in self.rules)

    @property
    def remember(self) -> bool:
        """Whether any rule compares frames."""
        return any(rule.remember is not None for rule in self.rules)

    def rate(
        self, signals: Signals, memory: RuleMemory, *, wrote: Tensor, reset: Tensor
    ) -> tuple[Tensor, RuleMemory]:
        """Return the rate ``(batch, state_token)`` of a frame, and what is remembered of it.

        Parameters
        ----------
        signals : mapping of str to Tensor
        memory : RuleMemory
        wrote, reset : Tensor
            ``(batch,)`` bool: whether the frame may write, and whether all is forgotten after it.
        """
        whole = full_rate(signals, None, None)
        rate, held = whole, {}
        for rule in self.rules:
            known, past = memory.held.get(rule.name, (memory.begun, None))
            if rule.remember is None:
                known = memory.begun
            known = known & memory.begun
            for number, samples in self._numbers(rule.name).items():
                own = rule.rate(signals, past, number).expand_as(whole)
                acts = known & self._mask(samples, known)
                rate = rate * torch.where(acts[:, None], own, whole)
            if rule.remember is not None:
                new, seen = rule.remember(signals), wrote & ~reset
                if past is not None:
                    new = {
                        name: torch.where(_like(wrote, value), value, past[name])
                        for name, value in new.items()
                    }
                    seen = (known | wrote) & ~reset
                held[rule.name] = seen, new
        return rate, RuleMemory(~reset, held)

    def _numbers(self, name: str) -> dict[float | None, list[int]]:
        numbers: dict[float | None, list[int]] = {}
        for sample, rules in enumerate(self._samples):
            if name in rules:
                numbers.setdefault(rules[name], []).append(sample)
        return numbers

    def _mask(self, samples: Collection[int], like: Tensor) -> Tensor:
        if len(self._samples) == 1 or len(samples) == len(self._samples):
            return torch.ones_like(like)
        mask = torch.zeros_like(like)
        mask[list(samples)] = True
        return mask


def _like(which: Tensor, value: Tensor) -> Tensor:
    return which.reshape(-1, *[1] * (value.dim() - 1))


def watched(signals: Collection[str]) -> dict[str, Any]:
    """Return fresh probes for signals that a decoder takes."""
    return {name: SIGNALS[name]() for name in signals}


def own_rules(update: str) -> "Rules":
    """Return the rules of a backbone by the text form of its write rule, such as ``"ttt3r"``.

    Raises
    ------
    InvalidArgument
        For an unknown rule, or one that needs a cue, which a backbone by itself does not have.
    """
    name, number = parse_rule(update, "update")
    if needs_cue(name):
        raise InvalidArgument(
            f"update = {update!r} needs a motion score; give a cue and write it in the commit: "
            f"'rw.gg rate.{update}'"
        )
    return Rules([{name: number}])


def needs_cue(name: str) -> bool:
    """Whether a rule takes what a cue says of a frame."""
    return bool({"motion", "static_mass"} & set(WRITE_RULES[name].needs))


def parse_rule(text: str, field: str) -> tuple[str, float | None]:
    """Read ``"name"`` or ``"name(number)"``, a rule and its number.

    Raises
    ------
    InvalidArgument
    """
    name, number = parse_call(str(text))
    usual = WRITE_RULES[one_of(field, name, WRITE_RULES)].number
    if number is not None and usual is None:
        raise InvalidArgument(f"{field} {name!r} takes no number, got {text!r}")
    return name, usual if number is None else number
