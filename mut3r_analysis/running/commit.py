"""Commit: which pass over a frame is read, which is written, and how much of it."""

import math
import re
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Any, Self

from mut3r_analysis.backbones.write_rules import WRITE_RULES, needs_cue, parse_product, rule_name
from mut3r_analysis.errors import InvalidArgument
from mut3r_analysis.foundation.calls import parse_call, shortest
from mut3r_analysis.foundation.fields import (
    Checked,
    flag,
    instance_of,
    meant,
    number,
    one_of,
    optional,
)
from mut3r_analysis.foundation.specification import Specification

READS = ("gated", "probe", "split", "split_rev")
WRITES = ("gated", "probe", "hold", "mix")
MEMORIES = ("follow", "gated", "probe", "hold")
_POSES = (None, "learned", "memory")
_LETTERS = {"g": "gated", "p": "probe"}
_HEADS = ("read", "write", "mem", "rate", "warm", "reset")
_HIGHEST = {"saturation": math.inf, "motion": 1.0}
"""Trigger of a reset -> the largest threshold that what it watches can reach."""


def _rates(field: str, given: str | Iterable[str]) -> tuple[str, ...]:
    parts = given.split("*") if isinstance(given, str) else [str(part) for part in given]
    return parse_product([part for part in parts if part.strip() != "one"], field)


def _write(field: str, given: str) -> str:
    name, value = parse_call(str(given))
    one_of(field, name, WRITES)
    if name == "mix":
        return f"mix({number('the share of mix(...)', value, 0, 1):g})"
    if value is not None:
        raise InvalidArgument(f"{field} = {name!r} takes no number, got {given!r}")
    return name


def _count(field: str, given: Any, low: int) -> int:
    with suppress(TypeError, ValueError, OverflowError):
        if (value := int(given)) >= low and float(given) == value:
            return value
    raise InvalidArgument(f"{field} must be a whole number of frames from {low} on; got {given!r}")


def _reset(field: str, given: int | str) -> int | str:
    if not isinstance(given, str) or not given[:1].isalpha():
        return _count(field, given, low=1)
    name, threshold = parse_call(given)
    if name not in _HIGHEST or threshold is None:
        raise InvalidArgument(
            f"{field} must be a number of frames, or a trigger with its threshold such as "
            f"{' or '.join(f'{each}(0.5)' for each in _HIGHEST)}; got {given!r}"
        )
    threshold = number(f"{field}: the threshold of {name}(...)", threshold, 0, _HIGHEST[name])
    return f"{name}({shortest(threshold)})"


@dataclass(frozen=True, kw_only=True)
class Commit(Specification):
    """Which pass over a frame predictions are read from, and which one is written to the state.

    A frame with gates is decoded twice from the same state: an ungated *probe* pass and a *gated*
    pass. Gates inside a pass mix reading and writing, because the streams mix in every layer;
    choosing outputs of different passes separates them.

    Parameters
    ----------
    read : {"gated", "probe", "split", "split_rev"}
        The pass that feeds the heads. ``split`` takes the pose from the gated pass and everything
        dense from the probe pass; ``split_rev`` the reverse.
    write : {"gated", "probe", "hold", "mix(a)"}
        The new state: of either pass, none, or a times the gated one plus 1 - a times the other.
    memory : {"follow", "gated", "probe", "hold"}
        The pass whose pose token the pose memory takes. ``follow`` does as `write` does; a mixture
        then mixes the pose tokens.
    masked_mean : bool
        Let static patches alone make the mean encoder token that the pose memory takes: they weigh
        1 - g.
    rate : str or collection of str
        Product of write rates on the state tokens, on top of the backbone's own rule: ``one``,
        ``ttt3r``, ``ttsa3r``, ``static_mass`` (share of what a state token read that is static,
        mean over layers), ``frame(alpha)`` (1 - alpha mean(g), one number for a frame), and
        whatever else :data:`~mut3r_analysis.backbones.write_rules.WRITE_RULES` holds. They are 1
        on a first frame and on the one after a reset, unless their life says otherwise.
    warm_up : int
        Frames without gating, after the start and after every reset.
    reset : int or str, optional
        State and pose memory start anew after every so many frames, or after a frame at which a
        trigger fires; one that is not the first of its part. ``saturation(x)``: the state has
        changed by x in all since the part's first frame, as the sum over frames of ``|new - old| /
        |old|``, mean over tokens (in the manner of Info3R, which is known from its paper alone).
        ``motion(x)``: the motion score of the frame, mean over patches, is x or more. It tells
        frames apart for cues in units of their own, such as masks; normalised within each frame,
        as MUT3R's is, a score has much the same mean in all.
    reset_chain : bool
        Join the parts between resets to one path, as released with TTT3R. The last frame before a
        reset is read again as the first frame of the new part; poses and points in the world of
        the new part are multiplied from the left by the pose that this frame had before. The
        second reading is written and not recorded. Without it every part has a world of its own.
    reset_cue : {"clear", "keep"}
        What a reset does to the cue's memory of earlier frames.
    reset_pose : {"learned", "memory"}, optional
        How the frame after a reset enters the decoder: with the learned pose token (as TTT3R's
        recurrent path) or with what the initial memory answers (as CUT3R). None is what the
        write rules do, the backbone's own and those of `rate`.

    Raises
    ------
    InvalidArgument
        When the specification cannot mean anything; the message says what is allowed.

    Examples
    --------
    >>> str(Commit.parse("rw.gp rate.static_mass*frame(0.5) warm.1"))
    'rw.gp rate.static_mass*frame(0.5) warm.1'
    """

    read: Checked[str, str] = Checked(partial(one_of, known=READS), "gated")
    write: Checked[str, str] = Checked(_write, "gated")
    memory: Checked[str, str] = Checked(partial(one_of, known=MEMORIES), "follow")
    masked_mean: Checked[bool, bool] = Checked(flag, False)
    rate: Checked[str | Iterable[str], tuple[str, ...]] = Checked(_rates, ())
    warm_up: Checked[int | str, int] = Checked(partial(_count, low=0), 0)
    reset: Checked[int | str | None, int | str | None] = Checked(optional(_reset), None)
    reset_chain: Checked[bool, bool] = Checked(flag, False)
    reset_cue: Checked[str, str] = Checked(partial(one_of, known=("clear", "keep")), "clear")
    reset_pose: Checked[str | None, str | None] = Checked(partial(one_of, known=_POSES), None)

    def __post_init__(self) -> None:
        if self.reset_chain and self.reset is None:
            raise InvalidArgument(
                "reset_chain joins the parts between resets, and there are none; say when, such as "
                "reset = 100 or 'reset.100 reset.chain'"
            )

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, without `reset_chain` where it is off, as in older stores."""
        values = super().to_dict()
        if not values["reset_chain"]:
            del values["reset_chain"]
        return values

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read the text form: words, in any order, of which ``rw.gg`` is the default.

        ========================  ==========================================================
        word                      sets
        ========================  ==========================================================
        ``rw.gg`` gp pg pp        read and write, each of the gated or the probe pass
        ``read.split``            read; also ``gated``, ``probe``, ``split_rev``
        ``hold``, ``mix(0.5)``    write; also ``write.gated`` and so on
        ``mem.probe``             memory; also ``gated``, ``hold``, ``masked_mean``
        ``rate.ttt3r*frame(1)``   rate
        ``warm.1``                warm_up
        ``reset.50``              reset; also ``reset.motion(0.3)``, ``reset.saturation(5)``
        ``reset.chain``           reset_chain; also ``reset.cue.keep``, ``reset.pose.learned``
        ========================  ==========================================================

        Raises
        ------
        InvalidArgument
            For a word that does not exist, and for two words about the same thing.
        """
        fields: dict[str, Any] = {}
        for word in text.split():
            found = _word(word)
            twice = sorted(set(found) & set(fields))
            if twice:
                raise InvalidArgument(f"commit {text!r} says {', '.join(twice)} twice")
            fields |= found
        return cls(**fields)

    @classmethod
    def of(cls, given: "Commit | str") -> "Commit":
        """Return a commit given as one, or in its text form."""
        if isinstance(given, str):
            return cls.parse(given)
        return instance_of("commit", given, Commit, " or its text form such as 'rw.gg warm.1'")

    @classmethod
    def ttt3r(cls, **changes: Any) -> Self:
        """Return TTT3R's commit for the weights of CUT3R.

        The same as a backbone loaded with ``update="ttt3r"``; as a commit it can stand in one
        batch with other configurations. ``reset=100, reset_chain=True`` is the recipe released with
        it for long sequences.
        """
        return cls(**{"rate": "ttt3r", "reset_pose": "learned"} | changes)

    @classmethod
    def ttsa3r(cls, **changes: Any) -> Self:
        """Return TTSA3R's commit for the weights of CUT3R, as ``update="ttsa3r"``.

        See ``backbones/write_rates.py`` for where it differs from the authors' code.
        """
        return cls(**{"rate": "ttsa3r"} | changes)

    def __str__(self) -> str:
        letters = {name: letter for letter, name in _LETTERS.items()}
        words = []
        if self.read in letters and self.write in letters:
            words.append(f"rw.{letters[self.read]}{letters[self.write]}")
        else:
            words += [f"read.{self.read}"] if self.read != "gated" else []
            words += [self.write if self.write not in letters else f"write.{self.write}"]
        others = {
            f"mem.{self.memory}": self.memory != "follow",
            "mem.masked_mean": self.masked_mean,
            f"rate.{'*'.join(self.rate)}": self.rate,
            f"warm.{self.warm_up}": self.warm_up,
            f"reset.{self.reset}": self.reset is not None,
            "reset.chain": self.reset_chain,
            f"reset.cue.{self.reset_cue}": self.reset_cue != "clear",
            f"reset.pose.{self.reset_pose}": self.reset_pose is not None,
        }
        return " ".join([*words, *(word for word, said in others.items() if said)])

    @property
    def rates(self) -> tuple[str, ...]:
        """Name of each rate, without its settings."""
        return tuple(rule_name(rate) for rate in self.rate)

    @property
    def written_share(self) -> float:
        """Share of the gated pass in what is written to the state; the rest is the probe pass."""
        name, value = parse_call(self.write)
        return {"probe": 0.0, "mix": value}.get(name, 1.0) or 0.0

    @property
    def remembered_share(self) -> float:
        """Share of the gated pass in the pose token that the pose memory takes."""
        return {"gated": 1.0, "probe": 0.0}.get(self.memory, self.written_share)

    @property
    def holds_state(self) -> bool:
        """Whether the state is left as it was."""
        return self.write == "hold"

    @property
    def holds_memory(self) -> bool:
        """Whether the pose memory is left as it was."""
        return self.memory == "hold" or (self.memory == "follow" and self.holds_state)

    @property
    def keeps_probe(self) -> bool:
        """Whether anything is taken from the probe pass, which then has to run to its end."""
        return self.read != "gated" or min(self.written_share, self.remembered_share) < 1

    @property
    def needs_motion(self) -> bool:
        """Whether the motion score acts on what is carried on."""
        rates = any(needs_cue(name) for name in self.rates)
        return rates or self.masked_mean or self.watches("motion")

    @property
    def trigger(self) -> tuple[str, float] | None:
        """What makes the state start anew, with its threshold; None where frames are counted."""
        if not isinstance(self.reset, str):
            return None
        name, threshold = parse_call(self.reset)
        return name, float(threshold or 0)

    def watches(self, name: str) -> bool:
        """Whether a trigger of this name makes the state start anew."""
        return self.trigger is not None and self.trigger[0] == name

    def restarts(self, usual: bool) -> bool:
        """Whether the frame after a reset starts from the learned pose token; by default, `usual`.

        Parameters
        ----------
        usual : bool
            What the write rules do.
        """
        return usual if self.reset_pose is None else self.reset_pose == "learned"

    def resets_after(
        self, position: int, age: int, *, motion: float = math.nan, written: float = math.nan
    ) -> bool:
        """Whether state and memory start anew after a frame.

        Parameters
        ----------
        position : int
            Of the frame in the sequence, counted from 0.
        age : int
            Frames that its part had before it.
        motion : float
            Its motion score, mean over patches; NaN where there is none.
        written : float
            Change of the state since the first frame of the part; NaN where it is not known yet.
        """
        if self.trigger is None:
            return isinstance(self.reset, int) and (position + 1) % self.reset == 0
        name, threshold = self.trigger
        return age > 0 and {"motion": motion, "saturation": written}[name] >= threshold


def _word(word: str) -> dict[str, Any]:
    if match := re.fullmatch(r"rw\.([gp])([gp])", word):
        return {"read": _LETTERS[match[1]], "write": _LETTERS[match[2]]}
    head, _, rest = word.partition(".")
    if word == "hold" or word.startswith("mix("):
        return {"write": word}
    if rest:
        match head:
            case "read" | "write" | "rate":
                return {head: rest}
            case "mem":
                return {"masked_mean": True} if rest == "masked_mean" else {"memory": rest}
            case "warm":
                return {"warm_up": rest}
            case "reset":
                if rest == "chain":
                    return {"reset_chain": True}
                part, _, value = rest.partition(".")
                return {f"reset_{part}": value} if part in ("cue", "pose") else {"reset": rest}
    raise InvalidArgument(
        f"unknown word {word!r} in a commit{meant([word], _near(head, rest))}; it is made of "
        "rw.gg | rw.gp | rw.pg | rw.pp, "
        f"read.<{'|'.join(READS)}>, write.<gated|probe|hold|mix(a)>, mem.<{'|'.join(MEMORIES)}|"
        f"masked_mean>, rate.<{'|'.join(WRITE_RULES)}> joined by *, warm.<frames>, "
        f"reset.<frames|{'|'.join(f'{each}(x)' for each in _HIGHEST)}>, reset.chain, "
        "reset.cue.<clear|keep>, reset.pose.<learned|memory>"
    )


def _near(head: str, rest: str) -> list[str]:
    """List words that may have been meant: a wrong first part keeps what follows it."""
    whole = ["hold", *(f"rw.{read}{write}" for read in _LETTERS for write in _LETTERS)]
    return whole + [f"{each}.{rest}" for each in _HEADS if rest and each != head]
