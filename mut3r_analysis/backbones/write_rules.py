"""Write rules: how much of the new state each state token takes over from a frame.

The committed state is ``s + u b (t - s)`` per token: t is what the rule moves towards, which is the
decoder's output state unless the rule has a target of its own, u is 1 for a frame that may write,
and b is the product of the rates of the rules at work. The pose memory takes u alone, unless a rule
has a rate for it. A rule is the backbone's own (``load_backbone(update=...)``) or stands in a
commit (``rate.<name>``), by the same row of :data:`WRITE_RULES`. On a first frame, and on the one
after a reset, a rule is 1 unless its life says otherwise.

In words a rule is ``"name"``, ``"name(number)"`` or ``"name(setting=value,...)"``; several are
joined by ``*``.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from mut3r_analysis.backbones import write_rates as rates
from mut3r_analysis.backbones.batching import constant, each_tensor
from mut3r_analysis.backbones.write_rule import Outcome, Settings, Span, Words, WriteRule
from mut3r_analysis.backbones.write_signals import PREDICTED_SIGNALS, SIGNALS, Signals
from mut3r_analysis.errors import InvalidArgument
from mut3r_analysis.foundation.calls import shortest
from mut3r_analysis.foundation.fields import number, one_of, shown

_ANY = float("inf")
_TTT3R = {"ttt3r": "its rate has that of ttt3r in it already"}
_AS_IT_IS = Words("rule", "full")
_SIGMOID = {"slope": Span(2, 0, _ANY), "decay": Span(0.95)}
_STEP = {"translation": Span(1.0, 0, _ANY), "rotation": Span(1.0, 0, _ANY)}
_RAYMAP3R = {
    "strength": Span(0.9), "floor": Span(0.15), "coverage": Span(0.5), "least": Span(0.5),
    "decay": Span(0.8), "slope": Span(3, 0, _ANY),
}  # fmt: skip
_FILT3R = {
    "variance": Span(1.5, 0, _ANY), "keep": Span(1.0), "noise_low": Span(0.02, 0, _ANY),
    "noise_high": Span(0.5, 0, _ANY), "slope": Span(20, 0, _ANY), "threshold": Span(3, 0, _ANY),
    "weight": Span(0.05), "least_change": Span(0.01, 0, _ANY), "observed": Span(1.0, 0, _ANY),
    "gain_low": Span(0.01), "gain_high": Span(0.99),
}  # fmt: skip

WRITE_RULES = {
    rule.name: rule
    for rule in (
        WriteRule("cut3r", rates.full_rate),
        WriteRule("ttt3r", rates.ttt3r, ("mean_logit",), restart=True),
        WriteRule(
            "ttsa3r",
            rates.ttsa3r,
            ("mean_logit_map", "features", "proposal"),
            full=rates.ttsa3r_memory,
            remembers=True,
        ),
        WriteRule("static_mass", rates.static_mass, ("static_mass",)),
        WriteRule("frame", rates.frame, ("motion",), {"alpha": Span(1.0)}, number="alpha"),
        WriteRule(
            "raymap3r",
            rates.raymap3r,
            ("proposal", "attention", "motion"),
            _RAYMAP3R,
            full=rates.raymap3r_memory,
            remembers=True,
        ),
        WriteRule("const", rates.const, ("proposal",), {"rate": Span(0.5)}, number="rate"),
        WriteRule(
            "bottom_k",
            rates.bottom_k,
            ("proposal", "embedded"),
            {
                "share": Span(708 / 768),
                "chunks": Span(768, 1, _ANY),
                "anchor": Words("writes", "kept"),
                "first": _AS_IT_IS,
                "after_reset": _AS_IT_IS,
            },
            number="share",
        ),
        WriteRule(
            "filt3r",
            rates.filt3r,
            ("proposal", "writes"),
            _FILT3R,
            full=rates.filt3r_memory,
            restart=True,
            refuses={"*": "its variance is that of a state which took this gain and no other"},
            remembers=True,
        ),
        WriteRule(
            "recal3r",
            rates.recal3r,
            ("mean_logit", "entropy", "before", "initial", "embedded", "decoded"),
            {"base": Span(0.1), "decay": Span(0.95), "heads": Words("mean", "max")},
            restart=True,
            refuses=_TTT3R,
            remembers=True,
        ),
        WriteRule(
            "ortho",
            rates.ortho,
            ("before", "proposal"),
            {
                "novel": Span(0.5),
                "drift": Span(0.05),
                "decay": Span(0.95),
                "adaptive": Words("no", "yes"),
                "threshold": Words("no", "yes"),
            },
            directs=True,
            remembers=True,
        ),
        WriteRule(
            "clip",
            rates.clip,
            ("before", "proposal"),
            {"share": Span(0.33), "most": Span(2, 0, _ANY), "decay": Span(0.99)},
            restart=True,
            directs=True,
            remembers=True,
        ),
        WriteRule(
            "brake",
            rates.brake,
            ("before", "proposal"),
            {"slope": Span(2, 0, _ANY)},
            number="slope",
            remembers=True,
        ),
        WriteRule(
            "l2gate",
            rates.l2gate,
            ("before", "proposal"),
            _SIGMOID,
            remembers=True,
        ),
        WriteRule(
            "spectral",
            rates.spectral,
            ("before", "proposal"),
            _SIGMOID,
            full=rates.spectral_memory,
            restart=True,
            remembers=True,
        ),
        WriteRule(
            "geogate",
            rates.geogate,
            ("proposal", "depth"),
            {"slope": Span(3, 0, _ANY), "decay": Span(0.95), "part": Span(4, 2, _ANY)},
            full=rates.geogate_memory,
            restart=True,
            remembers=True,
        ),
        WriteRule(
            "memgate",
            rates.memgate,
            ("proposal", "image"),
            {
                "slope": Span(3, 0, _ANY),
                "decay": Span(0.95),
                "skip": Span(0.5, 0, _ANY),
                "part": Span(8, 2, _ANY),
            },
            full=rates.memgate_memory,
            restart=True,
            remembers=True,
        ),
        WriteRule(
            "feature_change",
            rates.feature_change,
            ("proposal", "features"),
            {"gain": Span(1.0, 0, _ANY)},
            number="gain",
            full=rates.features_memory,
            paper=True,
            remembers=True,
        ),
        WriteRule(
            "pose_change",
            rates.pose_change,
            ("proposal", "pose"),
            _STEP,
            full=rates.pose_memory,
            paper=True,
            remembers=True,
        ),
        WriteRule(
            "pas3r",
            rates.pas3r,
            ("proposal", "pose", "image"),
            {**_STEP, "radius": Span(0.125, 0, 0.5)},
            full=rates.pose_memory,
            paper=True,
            remembers=True,
        ),
    )
}
"""Rules by name. ``bottom_k`` is MeMix; ``ortho`` to ``memgate`` are of szy233/TTT3R, which
multiplies ``ortho``, ``brake``, ``l2gate`` and its constants by the rate of ``ttt3r``;
``raymap3r`` is RayMap3R's gate for whatever cue, without its warm-up, its router (which chooses
between this and ``ttt3r*raymap3r``) and its smoothing of positions;
``feature_change`` is in the manner of AFG and ``pas3r`` of PAS3R, both known from papers alone."""


@dataclass(frozen=True, eq=False)
class RuleMemory:
    """What write rules carry from frame to frame.

    Attributes
    ----------
    begun : Tensor
        ``(batch,)`` whether a frame has passed since the start or the last reset.
    held : dict of str to (Tensor, dict of str to Tensor)
        Rule, with its settings -> whether it remembers a frame, ``(batch,)``, and what of it.
    restarted : Tensor
        ``(batch,)`` whether there was a reset.
    """

    begun: Tensor
    held: Mapping[str, tuple[Tensor, Signals]]
    restarted: Tensor

    @classmethod
    def start(cls, batch: int, device: torch.device) -> "RuleMemory":
        """Remember nothing."""
        none = torch.zeros(batch, dtype=torch.bool, device=device)
        return cls(none, {}, none)


@dataclass(frozen=True, eq=False)
class Ruling:
    """What the rules of a batch make of a frame.

    Attributes
    ----------
    rate : Tensor
        ``(batch, state_token)`` share of the way to the target.
    target : Tensor
        ``(batch, state_token, channel)``.
    memory_rate : Tensor, optional
        ``(batch, 1)`` share of the pose memory that is replaced; None is all of it.
    remembered : RuleMemory
    """

    rate: Tensor
    target: Tensor
    memory_rate: Tensor | None
    remembered: RuleMemory


class Rules:
    """The write rules of a batch: for each sample a product of rows of :data:`WRITE_RULES`.

    Parameters
    ----------
    samples : sequence of collection of str
        Per sample, rules in words; a single one is for the whole batch.

    Raises
    ------
    InvalidArgument
        For a rule that does not exist, and for a product that means nothing.
    """

    def __init__(self, samples: Sequence[Iterable[str]]) -> None:
        self._samples = [parse_product(sample, "rate") for sample in samples]
        texts = {text: None for sample in self._samples for text in sample}
        self._rules = {text: parse_rule(text, "rate") for text in texts}

    def times(self, samples: Sequence[Iterable[str]]) -> "Rules":
        """Return the product of these rules, the same for all samples, with some per sample."""
        (own,) = self._samples
        return Rules([dict.fromkeys([*own, *sample]) for sample in samples])

    @property
    def needs(self) -> set[str]:
        """Signals that the rules need."""
        return {name for rule, _ in self._rules.values() for name in rule.needs}

    @property
    def signals(self) -> tuple[str, ...]:
        """Signals that the decoder has to take."""
        return tuple(name for name in SIGNALS if name in self.needs)

    @property
    def outputs(self) -> tuple[str, ...]:
        """What the heads have to predict."""
        return tuple(name for name in PREDICTED_SIGNALS if name in self.needs)

    @property
    def restart(self) -> bool:
        """Whether a reset also restarts the pose token, for any sample."""
        return any(self.restarts)

    @property
    def restarts(self) -> list[bool]:
        """Per sample, whether a reset also restarts the pose token."""
        starts = {
            text
            for text, (rule, settings) in self._rules.items()
            if rule.restart and _full(rule, settings, "after_reset")
        }
        return [not starts.isdisjoint(sample) for sample in self._samples]

    @property
    def remember(self) -> bool:
        """Whether a rule carries more than whether a frame has passed since the last reset."""
        return any(
            rule.remembers or _full(rule, settings, "first") != _full(rule, settings, "after_reset")
            for rule, settings in self._rules.values()
        )

    def ruling(
        self, signals: Signals, memory: RuleMemory, *, wrote: Tensor, reset: Tensor
    ) -> Ruling:
        """Return how a frame is written, and what is remembered of it.

        Parameters
        ----------
        signals : mapping of str to Tensor
        memory : RuleMemory
        wrote, reset : Tensor
            ``(batch,)`` bool: whether the frame may write, and whether all is forgotten after it.
        """
        signals = {**signals, "writes": wrote}
        rate = whole = rates.ones(signals)
        target, memory_rate, held = signals["proposal"], None, {}
        for text, (rule, settings) in self._rules.items():
            known, past = memory.held.get(text, (torch.zeros_like(wrote), None))
            outcome = _outcome(rule, settings, signals, known, past)
            lives = [_full(rule, settings, part) for part in ("first", "after_reset")]
            full = ~memory.begun & torch.where(memory.restarted, lives[1], lives[0])
            acts = (self._mask(text, wrote) & ~full)[:, None]
            rate = rate * torch.where(acts, outcome.rate.expand_as(whole), whole)
            if outcome.target is not None:
                moved = outcome.target.to(target.dtype)
                target = torch.where(acts[..., None], moved, target)
            if outcome.memory_rate is not None:
                own = torch.where(acts, outcome.memory_rate, 1.0)
                memory_rate = own if memory_rate is None else memory_rate * own
            if outcome.memory:
                new, fed = outcome.memory, ~full
                if rule.full is not None:
                    new = _where(full, rule.full(signals, settings), new)
                    fed = torch.ones_like(full)
                moves = fed if _always(settings) else fed & wrote
                new = new if past is None else _where(moves, new, past)
                forgets = torch.zeros_like(reset) if settings["forget"] else reset
                held[text] = (known | moves) & ~forgets, new
        remembered = RuleMemory(~reset, held, memory.restarted | reset)
        return Ruling(rate, target, memory_rate, remembered)

    def _mask(self, text: str, like: Tensor) -> Tensor:
        which = [text in sample for sample in self._samples]
        return constant(which, like.device).expand_as(like)


def _outcome(
    rule: WriteRule, settings: Settings, signals: Signals, known: Tensor, past: Signals | None
) -> Outcome:
    """Let a rule act, for samples that remember a frame with it and for the others without."""
    if past is None or not bool(known.any()):
        return rule.act(signals, None, settings)
    found = rule.act(signals, past, settings)
    return found if bool(known.all()) else _where(known, found, rule.act(signals, None, settings))


def _where(which: Tensor, value: "Outcome | Signals", other: "Outcome | Signals") -> Any:
    def choose(a: Tensor, b: Tensor) -> Tensor:
        return torch.where(which.reshape(-1, *[1] * (a.dim() - 1)), a, b)

    return each_tensor(choose, value, other)


def _full(rule: WriteRule, settings: Settings, part: str) -> bool:
    """Whether a first frame, or the one after a reset, is written in full."""
    words = rule.may_set[part]
    return words[int(settings[part])] == "full"


def _always(settings: Settings) -> bool:
    """Whether the memory moves with frames that must not write."""
    return bool(settings["advance"])


def own_rules(update: str) -> "Rules":
    """Return the rules of a backbone by the text form of its write rule, such as ``"ttt3r"``.

    Raises
    ------
    InvalidArgument
        For an unknown rule, or one that needs a cue, which a backbone by itself does not have.
    """
    chosen = parse_product(str(update).split("*"), "update")
    if any(needs_cue(text) for text in chosen):
        raise InvalidArgument(
            f"update = {update!r} needs a motion score; give a cue and write it in the commit: "
            f"'rw.gg rate.{update}'"
        )
    return Rules([chosen])


def needs_cue(text: str) -> bool:
    """Whether a rule takes what a cue says of a frame."""
    return bool({"motion", "static_mass"} & set(parse_rule(text, "rate")[0].needs))


def parse_rule(text: str, field: str) -> tuple[WriteRule, dict[str, float]]:
    """Read a rule in words: its row, and what all its settings are.

    Raises
    ------
    InvalidArgument
    """
    match = re.fullmatch(r"\s*(\w+)\s*(?:\(([^()]*)\))?\s*", str(text))
    if match is None:
        raise InvalidArgument(
            f"{field} must be a rule such as 'ttt3r', 'const(0.5)' or 'filt3r(keep=0.9)', joined "
            f"by *; got {shown(text)}"
        )
    rule = WRITE_RULES[one_of(field, match[1], WRITE_RULES)]
    found = {name: 0.0 if isinstance(kind, Words) else kind.default
             for name, kind in rule.may_set.items()}  # fmt: skip
    said: set[str] = set()
    for part in match[2].split(",") if match[2] is not None else ():
        name, equals, value = (each.strip() for each in part.rpartition("="))
        if not equals:
            if rule.number is None:
                raise InvalidArgument(f"{field} {rule.name!r} takes no number, got {text!r}")
            name = rule.number
        one_of(f"a setting of {rule.name}", name, rule.may_set)
        if name in said:
            raise InvalidArgument(f"{field} {text!r} sets {name!r} twice")
        said.add(name)
        found[name] = _value(f"{name} of {rule.name}(...)", value, rule.may_set[name])
    return rule, found


def _value(field: str, given: str, kind: Span | Words) -> float:
    if isinstance(kind, Words):
        return float(kind.index(one_of(field, given, kind)))
    value: float | str = given
    with suppress(ValueError):
        value = float(given)
    return number(field, value, kind.low, kind.high)


def rule_name(text: str) -> str:
    """Return the name of a rule in words."""
    return parse_rule(text, "rate")[0].name


def rule_text(text: str, field: str) -> str:
    """Return a rule in its one form: its number, then what is not as usual."""
    rule, found = parse_rule(text, field)
    words = [] if rule.number is None else [shortest(found[rule.number])]
    for name, kind in rule.may_set.items():
        if name == rule.number:
            continue
        if isinstance(kind, Words):
            words += [f"{name}={kind.other}"] if found[name] else []
        elif found[name] != kind.default:
            words.append(f"{name}={shortest(found[name])}")
    return f"{rule.name}({','.join(words)})" if words else rule.name


def parse_product(given: Iterable[str], field: str) -> tuple[str, ...]:
    """Return rules in their one form and order, and refuse a product that means nothing.

    Raises
    ------
    InvalidArgument
    """
    found: dict[str, str] = {}
    for part in given:
        text = rule_text(part, field)
        rule = parse_rule(text, field)[0]
        if rule.name in found:
            raise InvalidArgument(f"{field} {rule.name!r} is named twice in {list(given)!r}")
        found[rule.name] = text
    rows = [rule for name, rule in WRITE_RULES.items() if name in found]
    for rule in rows:
        others = [other.name for other in rows if other is not rule and other.name != "cut3r"]
        for name, why in rule.refuses.items():
            beside = others if name == "*" else [name]
            if not set(others).isdisjoint(beside):
                raise InvalidArgument(
                    f"{field} {rule.name} * {', '.join(beside)} means nothing: {why}; leave one out"
                )
    directed = [rule.name for rule in rows if rule.directs]
    if len(directed) > 1:
        raise InvalidArgument(
            f"{field} {' * '.join(directed)} means nothing: each moves the state towards a target "
            "of its own; leave one out"
        )
    return tuple(found[rule.name] for rule in rows)
