"""Configuration: cue, gate and commit of a run, checked against each other and a backbone."""

import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, Self

import xarray as xr

from mut3r_analysis.attention.sites import SITE_KINDS, Sites
from mut3r_analysis.backbones.protocol import Backbone
from mut3r_analysis.backbones.write_rules import needs_cue
from mut3r_analysis.errors import InvalidArgument
from mut3r_analysis.foundation.fields import instance_of, one_of
from mut3r_analysis.motion.batch import CueBatch
from mut3r_analysis.motion.cue import Cue
from mut3r_analysis.motion.frame_gate import GatePlan
from mut3r_analysis.motion.gate import Gate
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

    Examples
    --------
    >>> Configuration(cue=m3.Cue.mut3r(), gate=m3.Gate.mut3r(beta=2.0)).gate.beta
    2.0
    """

    cue: Cue | None = None
    gate: Gate | None = None
    commit: Any = "rw.gg"

    def __post_init__(self) -> None:
        for name, kind in (("cue", Cue), ("gate", Gate)):
            if (given := getattr(self, name)) is not None:
                instance_of(name, given, kind, f" such as m3.{kind.__name__}.mut3r(), or None")
        commit = Commit.of(self.commit)
        object.__setattr__(self, "commit", commit)
        if self.gate is not None and self.cue is None:
            raise InvalidArgument("a gate needs a motion score: give a cue, such as Cue.mut3r()")
        if self.gate is None and commit.keeps_probe:
            raise InvalidArgument(
                f"commit {str(commit)!r} chooses between two passes and needs a gate; without "
                "one there is a single pass, 'rw.gg'"
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
        for part in given:
            one_of("part of a configuration", part, ("cue", "gate", "commit"))
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
        cue = self.cue
        return cue is not None and cue.measured and SITE_KINDS[cue.site].part == "head"

    @property
    def carries_heads(self) -> set[str]:
        """Outputs without which frames cannot be replayed as they were carried on from."""
        return {
            *(("points_world",) if self.reads_head else ()),
            *(("pose",) if self.commit.reset_chain else ()),
        }

    def acts(self, age: int, scored: int, unpassed: Collection[str]) -> bool:
        """Whether gates act on a frame.

        Parameters
        ----------
        age : int
            Frames since the start or the last reset; not in a warm-up.
        scored : int
            Frames that the cue remembers; not before a lagging cue has seen one.
        unpassed : collection of str
            Kinds of site that the frame lacks; not where the cue reads one.
        """
        cue, source = self.cue, self.source
        if self.acting_gate is None or cue is None or source is None:
            return False
        known = not cue.measured or cue.site not in unpassed
        return age >= self.commit.warm_up and (scored > 0 or not source.lags) and known

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

    def check(self, backbone: Backbone, sequence: xr.Dataset, outputs: Collection[str]) -> None:
        """Refuse what this backbone or this sequence cannot do.

        Raises
        ------
        InvalidArgument
        """
        sites = backbone.sites()
        if self.gate is not None:
            GatePlan(self.gate, sites)
        if self.cue is not None:
            CueBatch(self.cue, sites)
            _check_mask(self.cue, sequence)
            if self.cue.casts_rays and not backbone.reads_rays:
                raise InvalidArgument(
                    f"the cue asks the state by rays of a camera, which {backbone.family} does not "
                    "read; CUT3R does, with any write rule"
                )
            if self.reads_head and "points_world" not in outputs:
                raise InvalidArgument(
                    f"the cue reads {self.cue.site}, which runs for the output 'points_world' "
                    f"alone; ask for it beside {list(outputs)}"
                )
        self._check_commit(backbone)
        self._check_resets(backbone, sequence.sizes["frame"], outputs)

    def _check_resets(self, backbone: Backbone, frames: int, outputs: Collection[str]) -> None:
        commit, reset = self.commit, self.commit.reset
        if commit.reset_chain and "points_world" in outputs and "pose" not in outputs:
            lacks = "pose" not in backbone.outputs
            raise InvalidArgument(
                "reset.chain carries points in the world over by the pose of the frame between two "
                "parts; "
                + (f"{backbone.family} predicts none" if lacks else f"ask for the output 'pose' "
                   f"beside {list(outputs)}")
            )  # fmt: skip
        if commit.reset_chain and backbone.looks_ahead:
            raise InvalidArgument(
                "reset.chain lets two parts read the frame between them, and "
                f"{backbone.family} reads each frame together with the next one; leave it out"
            )
        alone = (frames - 1) % reset == 0 if isinstance(reset, int) else reset is not None
        if backbone.looks_ahead and alone:
            leaves = "leaves" if isinstance(reset, int) else "may leave"
            raise InvalidArgument(
                f"reset = {reset} {leaves} the last of {frames} frames alone, and "
                f"{backbone.family} reads each frame together with the next one; reset at another "
                "interval"
            )
        if not commit.watches("saturation"):
            return
        why = ""
        if backbone.state_grows or not backbone.state_shares:
            why = f"the memory of {backbone.family} is not rewritten token by token"
        elif commit.holds_state or {"const(0)"} & {*commit.rate, backbone.update}:
            why = "the commit writes nothing"
        if why:
            raise InvalidArgument(
                f"reset = {reset!r} waits for changes of the state to add up, and {why}, so it "
                "never fires; reset after a number of frames"
            )

    def _check_commit(self, backbone: Backbone) -> None:
        rates, update = list(self.commit.rates), backbone.update
        whole = backbone.state_grows or not backbone.state_shares
        how = "grows" if backbone.state_grows else "is kept whole"
        if whole and (rates or (self.gate is not None and self.gate.writes)):
            what = f"the rate {rates[0]!r}" if rates else "the gate's write rate (B3)"
            raise InvalidArgument(
                f"{what} says which share of a state token is replaced; the memory of "
                f"{backbone.family} {how} and has no such share. Leave it out"
            )
        if whole and self.commit.write.startswith("mix"):
            raise InvalidArgument(
                f"write = {self.commit.write!r} mixes two new states token by token; the memory of "
                f"{backbone.family} {how}, differently in each. Write one of the passes"
            )
        words = {
            "mem.masked_mean": self.commit.masked_mean,
            f"mem.{self.commit.memory}": self.commit.memory != "follow",
            f"reset.pose.{self.commit.reset_pose}": self.commit.reset_pose is not None,
        }
        spoken = [word for word, said in words.items() if said]
        if spoken and not backbone.pose_memory:
            raise InvalidArgument(
                f"commit says {', '.join(spoken)}, and {backbone.family} has no pose memory; leave "
                "it out"
            )
        own = backbone.rules
        twice = [name for name in rates if not needs_cue(name)]
        if twice and own.needs:
            raise InvalidArgument(
                f"commit has the rate {twice[0]!r} and the backbone was loaded with "
                f"update={update!r}; load it with update='cut3r', or leave out the rate"
            )
        if backbone.restarts and self.commit.reset_pose == "memory":
            raise InvalidArgument(
                f"{backbone.family} with update={update!r} restarts from the learned pose token; "
                f"for reset.pose.memory load CUT3R with update='cut3r' and use rate.{update}"
            )

    def notes(self, sites: Sites) -> list[str]:
        """Say what a reader of the run should know of its gate in a backbone with these sites."""
        if self.gate is None:
            return []
        depth = max((sites[site].layers for site in self.gate.sites), default=0)
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
