"""Configuration: cue, gate and commit of a run, checked against each other and a backbone."""

import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, Self

import xarray as xr

from mut3r_analysis.backbones.cut3r import CUT3R
from mut3r_analysis.backbones.write_rules import WRITE_RULES
from mut3r_analysis.errors import InvalidArgument
from mut3r_analysis.motion.cue import Cue
from mut3r_analysis.motion.gate import Gate
from mut3r_analysis.motion.gated_seam import GatePlan
from mut3r_analysis.motion.meter import MotionMeter
from mut3r_analysis.motion.readings import MASK
from mut3r_analysis.motion.sources import Source
from mut3r_analysis.running.commit import Commit

OPEN_GATE = Gate(image_self=None, state_to_image=None, image_to_state=None)
"""A gate that gates nothing: frames of a warm-up, and passes that are only measured."""


@dataclass(frozen=True, kw_only=True)
class Configuration:
    """What is done to a backbone in a run.

    Parameters
    ----------
    cue : Cue, optional
        Without a gate it is measured and recorded, and changes nothing.
    gate : Gate, optional
        Needs a cue.
    commit : Commit or str
        In words such as ``"rw.gg"``; without a gate there is one pass to read and to write.

    Raises
    ------
    InvalidArgument
        For parts that contradict each other.
    """

    cue: Cue | None = None
    gate: Gate | None = None
    commit: Any = "rw.gg"

    def __post_init__(self) -> None:
        for name, kind in (("cue", Cue), ("gate", Gate)):
            if not isinstance(given := getattr(self, name), kind | None):
                raise InvalidArgument(
                    f"{name} must be a {kind.__name__} such as m3.{kind.__name__}.mut3r(), or "
                    f"None; got {given!r}"
                )
        commit = Commit.of(self.commit)
        object.__setattr__(self, "commit", commit)
        if self.gate is not None and self.cue is None:
            raise InvalidArgument("a gate needs a motion score: give a cue, such as Cue.mut3r()")
        if self.gate is None and commit.keeps_probe:
            raise InvalidArgument(
                f"commit {str(commit)!r} tells two passes apart and so needs a gate; without one "
                "there is one pass, 'rw.gg'"
            )
        if self.cue is None and commit.needs_motion:
            raise InvalidArgument(
                f"commit {str(commit)!r} uses the motion score and so needs a cue, such as "
                "Cue.mut3r()"
            )

    @classmethod
    def of(cls, given: "Configuration | Mapping[str, Any]") -> "Configuration":
        """Return a configuration given as one, or as a mapping of its fields."""
        if isinstance(given, Configuration):
            return given
        unknown = sorted(set(given) - {"cue", "gate", "commit"})
        if unknown:
            raise InvalidArgument(
                f"unknown part(s) {unknown}; a configuration has cue, gate, commit"
            )
        return cls(**given)

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON-ready values."""
        parts = {"cue": self.cue, "gate": self.gate, "commit": self.commit}
        return {name: part and part.to_dict() for name, part in parts.items()}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Build from :meth:`to_dict`'s output."""
        kinds: dict[str, Any] = {"cue": Cue, "gate": Gate, "commit": Commit}
        return cls(
            **{
                name: kinds[name].from_dict(part)
                for name, part in values.items()
                if part is not None
            }
        )

    @classmethod
    def of_run(cls, attrs: Mapping[Any, Any]) -> Self:
        """Read the configuration that a run's attributes record."""
        parts = {name: attrs[name] for name in ("cue", "gate", "commit")}
        return cls.from_dict({name: part and json.loads(part) for name, part in parts.items()})

    @property
    def acting_gate(self) -> Gate | None:
        """The gate of the gated pass; None where one plain pass does everything.

        The static mass has to be taken with the score at hand, so it needs a second pass too.
        """
        if self.gate is None and "static_mass" in self.commit.rates:
            return OPEN_GATE
        return self.gate

    @property
    def reads_head(self) -> bool:
        """Whether the cue reads attention of a dense head."""
        return self.cue is not None and self.cue.site == "head_self" and self.cue.measured

    @property
    def source(self) -> Source | None:
        """Whose statistics the gates use."""
        return None if self.cue is None else Source.parse(self.cue.source)

    @property
    def probes(self) -> bool:
        """Whether there is a pass before the gated one."""
        if self.acting_gate is None or self.cue is None:
            return False
        return self.cue.passes > 0 or self.commit.keeps_probe

    @property
    def passes(self) -> tuple[str, ...]:
        """Names of the passes over a frame."""
        if self.acting_gate is None:
            return ("plain",)
        return ("probe", "gated") if self.probes else ("gated",)

    @property
    def captured_pass(self) -> str:
        """The pass whose attention a capture records: the one that is read."""
        if self.acting_gate is None:
            return "plain"
        return "probe" if self.commit.read == "probe" else "gated"

    @property
    def shape(self) -> tuple[Any, ...]:
        """What configurations must share to go through the decoder as one batch."""
        return self.cue is None, self.acting_gate is None, self.cue and self.cue.source

    def check(self, backbone: CUT3R, sequence: xr.Dataset, outputs: Collection[str]) -> None:
        """Refuse what this backbone or this sequence cannot do.

        Raises
        ------
        InvalidArgument
        """
        sizes = backbone.site_sizes()
        if self.gate is not None:
            GatePlan(self.gate, sizes)
        if self.cue is not None:
            MotionMeter(self.cue, sizes)
            _check_mask(self.cue, sequence)
            if self.reads_head and "points_world" not in outputs:
                raise InvalidArgument(
                    "the cue reads head_self, which runs for the output 'points_world' alone; ask "
                    f"for it beside {list(outputs)}"
                )
        twice = sorted({"ttt3r", "ttsa3r"} & set(self.commit.rates))
        if backbone.update != "cut3r" and twice:
            raise InvalidArgument(
                f"commit has the rate {twice[0]!r} and the backbone was loaded with "
                f"update={backbone.update!r}; load it with update='cut3r', or leave out the rate"
            )
        if WRITE_RULES[backbone.update].restart and self.commit.reset_pose == "memory":
            raise InvalidArgument(
                f"update={backbone.update!r} restarts from the learned pose token; for "
                f"reset.pose.memory load the backbone with update='cut3r' and use "
                f"rate.{backbone.update}"
            )

    def notes(self, depth: int) -> list[str]:
        """Say what a reader of the run should know of its gate in a decoder of `depth` layers."""
        if self.gate is None:
            return []
        inert = self.gate.inert(depth)
        lines = [f"gate: {self.gate.describe_layers(depth)}"]
        return [*lines, f"gate is inert: {inert}"] if inert else lines


def _check_mask(cue: Cue, sequence: xr.Dataset) -> None:
    if cue.reading != MASK:
        return
    if cue.of not in sequence:
        masks = [
            str(name)
            for name, variable in sequence.data_vars.items()
            if variable.dims == ("frame", "y", "x")
        ]
        raise InvalidArgument(
            f"the cue reads the mask {cue.of!r}, which this sequence does not have (it has: "
            f"{', '.join(masks) or 'none'}); use another cue or another sequence"
        )
    dims = sequence[cue.of].dims
    if dims != ("frame", "y", "x"):
        raise InvalidArgument(
            f"the mask {cue.of!r} has the dimensions {dims}; a cue needs ('frame', 'y', 'x'), the "
            "size of the images: resample it first"
        )
