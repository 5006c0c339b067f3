"""Configurations of one backbone that go through the decoder together, frame by frame."""

from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import replace
from functools import cache, partial
from typing import Any

import torch
from torch import Tensor

from mut3r_analysis.attention.capture import Capture
from mut3r_analysis.attention.recorder import Recorder, Records
from mut3r_analysis.attention.seam import Observer, Probe, SiteGate, observed, together
from mut3r_analysis.attention.sites import SITE_KINDS
from mut3r_analysis.attention.tokens import Axes
from mut3r_analysis.backbones.batching import concatenated, constant, rows
from mut3r_analysis.backbones.heads import Prediction
from mut3r_analysis.backbones.precision import arithmetic
from mut3r_analysis.backbones.protocol import Backbone
from mut3r_analysis.errors import InvalidArgument
from mut3r_analysis.motion.batch import CueBatch, CueBatchProbe, CueMeasured
from mut3r_analysis.motion.frame_gate import FrameGate, GatePlan
from mut3r_analysis.motion.history import CueHistory
from mut3r_analysis.motion.patch import Patching, acting
from mut3r_analysis.motion.score import Motion, Score
from mut3r_analysis.running.chaining import carried_over, next_base
from mut3r_analysis.running.committing import Committer, chosen
from mut3r_analysis.running.configuration import OPEN_GATE, Configuration
from mut3r_analysis.running.moments import Moment
from mut3r_analysis.running.passes import (
    BatchState,
    EncodedFrame,
    FrameInput,
    FrameResult,
    Pass,
    Passes,
    PassPolicy,
)
from mut3r_analysis.running.ray_probe import ray_readings

_HEAD_PIXELS = 512 * 384
"""Dense heads take so many pixels at a time: they are wide, and large batches gain nothing."""


class Batch:
    """Configurations that share their passes.

    Parameters
    ----------
    backbone : Backbone
    configurations : sequence of Configuration
        With the same :attr:`~Configuration.shape`; one and the same, repeated, for a batch of
        clips.
    capture : Capture, optional
    outputs : collection of str
        Checked names.
    probe, intervene : callable, optional
        As for :func:`~mut3r_analysis.run`.
    policy : PassPolicy, optional
        Chooses the gates of each frame in the place of those of the configurations, which it
        starts from; the cue then needs the source ``two_pass``.
    trace : bool
        Whether to keep the patch tokens after each layer of the pass that is read.
    gradients : bool
        Whether what is computed can be differentiated.

    Attributes
    ----------
    configurations : tuple of Configuration
    restarts : list of bool
        Per configuration, whether the frame after a reset starts from the learned pose token.
    intervene : callable, Patching or None
    """

    def __init__(
        self,
        backbone: Backbone,
        configurations: Sequence[Configuration],
        *,
        capture: Capture | None = None,
        outputs: Collection[str] = (),
        probe: Observer | None = None,
        intervene: Observer | Patching | None = None,
        policy: PassPolicy | None = None,
        trace: bool = False,
        gradients: bool = False,
    ) -> None:
        self.backbone = backbone
        self.configurations = tuple(configurations)
        self.capture = capture
        self._outputs = tuple(outputs)
        self._probe, self.intervene = probe, intervene
        self._policy, self._trace, self._gradients = policy, trace, gradients
        first = self.configurations[0]
        if any(item.shape != first.shape for item in self.configurations):
            raise InvalidArgument("the configurations of a batch must share their passes")
        self._sites = backbone.sites()
        self._commits = [item.commit for item in self.configurations]
        cues = [item.cue for item in self.configurations if item.cue is not None]
        self._cues = CueBatch(cues[0] if len(cues) == 1 else cues, self._sites) if cues else None
        gates = [item.acting_gate or OPEN_GATE for item in self.configurations]

        @cache
        def plan(active: tuple[bool, ...]) -> GatePlan:
            acting = [gate if acts else OPEN_GATE for gate, acts in zip(gates, active, strict=True)]
            return GatePlan(acting, self._sites)

        self._plan: Callable[[tuple[bool, ...]], GatePlan] = plan
        named = [commit.rate for commit in self._commits]
        rules = backbone.rules.times(named)
        self._rules = rules if any(named) else None
        self._mass = self._rules is not None and "static_mass" in self._rules.needs
        kinds = () if capture is None else capture.kinds(self._sites)
        of_pose = {"gated": 1.0, "split": 1.0, "probe": 0.0, "split_rev": 0.0}
        of_dense = of_pose | {"split": 0.0, "split_rev": 1.0}
        self._read_shares = [
            [table[commit.read] for commit in self._commits] for table in (of_pose, of_dense)
        ]
        written = [commit.written_share for commit in self._commits]
        # What a commit needs is predicted once where the pass that is written is read anyway.
        same = all(shares == written for shares in self._read_shares)
        self._commit_needs = {*backbone.commit_needs, *rules.outputs}
        self._needed = self._commit_needs if same else set()
        self.restarts = [
            commit.restarts(backbone.restarts or rule)
            for commit, rule in zip(self._commits, rules.restarts, strict=True)
        ]
        self._committer = Committer(
            backbone, self._commits, self._cues, self._rules, self.restarts,
            predicts=() if self._needed else self._commit_needs,
        )  # fmt: skip
        self._captured_parts = {SITE_KINDS[kind].part for kind in kinds}
        self._keeps_probe = any(commit.keeps_probe for commit in self._commits)
        self._reads_probe = [commit.read == "probe" for commit in self._commits]
        self._reads_any_probe = any(self._reads_probe)
        self._writes_probe = any(commit.written_share < 1 for commit in self._commits)

    @property
    def size(self) -> int:
        """How many configurations go through the decoder together."""
        return len(self.configurations)

    @contextmanager
    def computing(self) -> Iterator[None]:
        """Hold the backbone's arithmetic, and keep gradients only where they are asked for."""
        gradients = nullcontext() if self._gradients else torch.no_grad()
        with arithmetic(self.backbone.precision, self.backbone.device), gradients:
            yield

    def start(self) -> BatchState:
        """Return what is carried before the first frame."""
        with self.computing():
            return self.carry(self.backbone.begin(self.size), (0,) * self.size)

    def carry(self, state: Any, age: tuple[int, ...]) -> BatchState:
        """Return what is carried with a given state, by cues that remember nothing."""
        cue = self._cues.start(self.size, self.backbone.device) if self._cues else ()
        return BatchState(state, cue, age, scored=(0,) * self.size, written=(0.0,) * self.size)

    def encoder_probe(self, grid: tuple[int, int], axes: Axes) -> CueBatchProbe | None:
        """Return a probe for the encoder, where a cue reads it."""
        cues = () if self._cues is None else self._cues.cues
        if self._cues is None or all(SITE_KINDS[cue.site].part != "encoder" for cue in cues):
            return None
        return self._cues.probe(grid, axes)

    def step(
        self, frame: EncodedFrame, carried: BatchState, *, number: int = 0, write: bool = True
    ) -> FrameResult:
        """Do one frame.

        Parameters
        ----------
        frame : EncodedFrame
        carried : BatchState
        number : int
            Of this batch among those the frame was encoded for.
        write : bool
            Whether it is committed; otherwise the old state is carried on.
        """
        features = frame.encoded.features.expand(self.size, -1, -1)
        frame = replace(frame, encoded=replace(frame.encoded, features=features))
        found = self._once(frame, carried, number, write, self._outputs)
        ends = [
            reset and commit.reset_chain
            for reset, commit in zip(found.resets, self._commits, strict=True)
        ]
        return self._begun_with(frame, found, number, ends) if any(ends) else found

    def _begun_with(
        self, frame: EncodedFrame, found: FrameResult, number: int, ends: Sequence[bool]
    ) -> FrameResult:
        """Let new states of chained parts read the frame with which the part before ended."""
        old, again = found.carried, replace(frame, given=replace(frame.given, record=False))
        heads = ("points_world",) if any(item.reads_head for item in self.configurations) else ()
        new = self._once(again, old, number, True, heads, starts=True).carried
        with self.computing():
            state = new.state
            if not all(ends):
                index = [sample + self.size * end for sample, end in enumerate(ends)]
                state = rows(concatenated([old.state, new.state]), index)
            # A cue that still remembers the frame has seen it once, which is enough.
            fresh = [
                end and commit.reset_cue == "clear"
                for end, commit in zip(ends, self._commits, strict=True)
            ]
            cue = old.cue
            if self._cues is not None:
                keeps = ~constant(fresh, self.backbone.device)
                cue = self._cues.unless(keeps, new.cue, old.cue)
            carried = replace(
                old,
                state=state,
                cue=cue,
                age=chosen(ends, new.age, old.age),
                scored=chosen(fresh, new.scored, old.scored),
                base=next_base(old.base, found.prediction.pose, ends),
            )
        whole = found.whole[0], Moment(self.backbone.device)
        return replace(found, carried=carried, whole=whole)

    def _once(
        self,
        frame: EncodedFrame,
        carried: BatchState,
        number: int,
        write: bool,
        outputs: Collection[str],
        *,
        starts: bool = False,
    ) -> FrameResult:
        """Read a frame, and write it; one that starts a chained part ends none."""
        began = Moment(self.backbone.device)
        with self.computing():
            entered = self.backbone.enter(frame.encoded, carried.state)
            frame = frame.met(self.backbone, entered)
            active = self._active(carried, frame)
            passes = self._passes(frame, entered, carried, active, frame.measured[number])
            prediction, at_heads = self._predict(frame, passes, outputs)
            if self._cues is not None and not passes.motions:
                passes.motions, passes.history = self._score(
                    passes.pending, carried, frame, passes.gated
                )
            motion = self._cues.joined(passes.motions) if self._cues else None
            new, rate, resets = carried, torch.empty(0), (False,) * self.size
            at_commit: Records = {}
            if write:
                recorder = self.recorder(frame.given, frame.axes, "memory")
                new, rate, resets = self._committer.commit(
                    frame, carried, passes, prediction, motion, active,
                    probe=recorder, starts=starts,
                )  # fmt: skip
                at_commit = recorder.take() if recorder else {}
        return FrameResult(
            before=carried.state,
            carried=new,
            rate=rate,
            read=passes.gated,
            prediction=carried_over(prediction, carried.base),
            gated=active,
            resets=resets,
            motion=motion,
            used=passes.used,
            readings=self._cues.readings(passes.motions) if self._cues else [],
            attention=self._attention(frame, passes, {**at_heads, **at_commit}),
            whole=(began, Moment(self.backbone.device)),
            probing=passes.probing,
            unpassed=frame.unpassed,
        )

    def _active(self, carried: BatchState, frame: EncodedFrame) -> tuple[bool, ...]:
        counts = zip(self.configurations, carried.age, carried.scored, strict=True)
        return tuple(item.acts(age, scored, frame.unpassed) for item, age, scored in counts)

    def recorder(self, given: FrameInput, axes: Axes, part: str) -> Recorder | None:
        """Return what records the sites of one part of the model, where any are captured."""
        if self.capture is None or not given.record or part not in self._captured_parts:
            return None
        return Recorder(self.capture, self._sites, axes)

    def seen(
        self, gate: SiteGate | None, recorder: Recorder | None, position: int | None = None
    ) -> SiteGate | None:
        """Return a gate behind which outputs are replaced, recorded and shown to the caller."""
        output = recorder.output if recorder is not None and recorder.watches_outputs else None
        return observed(gate, acting(self.intervene, position), output, self._probe)

    def _decode(
        self,
        frame: EncodedFrame,
        entered: Any,
        *,
        gate: FrameGate | None = None,
        probe: Probe | None = None,
        read: bool = False,
        rates: bool = False,
    ) -> Pass:
        """Run one pass; one that is read is recorded, and shown to the caller's probe."""
        recorder = self.recorder(frame.given, frame.axes, "decoder") if read else None
        layers: list[Tensor] | None = [] if read and self._trace else None
        position = frame.given.position
        decoded = self.backbone.decode(
            entered,
            gate=self.seen(gate, recorder, position)
            if read
            else observed(gate, acting(self.intervene, None)),
            probe=together(recorder, probe),
            signals=self._rules.signals if rates and self._rules else (),
            layers=layers,
        )
        return Pass(decoded, entered, gate, recorder.take() if recorder else {}, layers or [])

    def _passes(
        self,
        frame: EncodedFrame,
        entered: Any,
        carried: BatchState,
        active: tuple[bool, ...],
        measured: CueBatchProbe | None,
    ) -> Passes:
        decode = partial(self._decode, frame, entered)
        cues, grid = self._cues, frame.encoded.grid
        if cues is None:
            return Passes(decode(read=True, rates=True))
        watch = partial(cues.probe, grid, frame.axes, encoder=measured)
        if not any(active):
            pending = watch()
            single = decode(probe=pending, read=True, rates=True)
            return Passes(single, single, pending)
        began = Moment(self.backbone.device)
        found = Passes(Pass(None, entered), history=carried.cue)
        plan = self._plan(active)

        def gate_of(score: Tensor | Score) -> FrameGate:
            # A cue's own score lies in [0, 1]: to check it, the host would wait for the device.
            own = (lambda site: score) if isinstance(score, Tensor) else score
            return plan.of_frame(own, frame.axes, record_mass=self._mass)

        score: Tensor | Score
        if cues.source.live:
            found.pending = watch()
            score = cues.live(found.pending, carried.cue, position=frame.given.position)
        elif cues.source.lags:
            found.pending = watch()
            earlier = cues.carried(carried.cue)
            assert earlier is not None  # no sample is active before a frame was scored
            acts = constant(active, earlier.device)[:, None, None]
            score, found.used = earlier, torch.where(acts, earlier, torch.nan)
        else:
            score = self._probe_passes(frame, carried, found, watch, decode, gate_of)
        if found.probed is None and self._keeps_probe:
            found.probed = decode(read=self._reads_any_probe, rates=self._writes_probe)
        found.probing = began, Moment(self.backbone.device)
        if self._policy is not None:
            return self._tried(frame, carried, found, cues.joined(found.motions), self._policy)
        reads = not all(self._reads_probe)
        found.gated = decode(gate=gate_of(score), probe=found.pending, read=reads, rates=True)
        return found

    def _probe_passes(
        self,
        frame: EncodedFrame,
        carried: BatchState,
        found: Passes,
        watch: Callable[..., CueBatchProbe],
        decode: Callable[..., Pass],
        gate_of: Callable[[Tensor], FrameGate],
    ) -> Tensor:
        """Measure the cue in passes of its own, and score it."""
        assert self._cues is not None
        for index in range(self._cues.passes):
            gate = gate_of(self._cues.joined(found.motions)) if index else None
            kept = index == 0 and self._keeps_probe
            probe = watch(stop=not kept)
            done = None
            with suppress(CueMeasured):
                done = decode(
                    gate=gate,
                    probe=probe,
                    read=kept and self._reads_any_probe,
                    rates=kept and self._writes_probe,
                )
                found.probed = done if kept else found.probed
            found.motions, found.history = self._score(probe, carried, frame, done)
        if not found.motions:
            found.motions, found.history = self._score(watch(), carried, frame, None)
        return self._cues.joined(found.motions)

    def _tried(
        self,
        frame: EncodedFrame,
        carried: BatchState,
        found: Passes,
        score: Tensor,
        policy: PassPolicy,
    ) -> Passes:
        """Run the passes that a policy proposes, and keep those it chooses."""
        assert self._cues is not None
        proposed = policy.propose(frame, self._cues.readings(found.motions))
        samples = [sample for sample, gates in enumerate(proposed) for _ in gates]
        plan = GatePlan([gate for gates in proposed for gate in gates], self._sites)
        entered = self.backbone.enter(rows(frame.encoded, samples), rows(carried.state, samples))
        gate = plan.of_frame(score[samples], frame.axes)
        tried = self._decode(frame, entered, gate=gate, read=True, rates=True)
        prediction = self._run_heads(tried.decoded, self._outputs)
        chosen = policy.choose(frame, prediction, samples)
        found.gated = Pass(rows(tried.decoded, chosen), found.gated.entered)
        found.prediction = rows(prediction, chosen)
        return found

    def _score(
        self,
        probe: CueBatchProbe | None,
        carried: BatchState,
        frame: EncodedFrame,
        shown: Pass | None,
    ) -> tuple[tuple[Motion, ...], tuple[CueHistory, ...]]:
        assert self._cues is not None
        masks = frame.given.masks
        pools = sorted({str(cue.of) for cue in self._cues.cues if cue.casts_rays})
        if pools and shown is not None:
            by_rays = observed(None, acting(self.intervene, None))
            grid, state = frame.encoded.grid, carried.state
            seen = ray_readings(self.backbone, state, shown.decoded, grid, pools, by_rays)
            masks = {**masks, **seen}
        return self._cues.score(
            probe,
            carried.cue,
            grid=frame.encoded.grid,
            position=frame.given.position,
            masks=masks,
            unpassed=frame.unpassed,
        )

    def _predict(
        self, frame: EncodedFrame, passes: Passes, outputs: Collection[str]
    ) -> tuple[Prediction, Records]:
        if passes.prediction is not None:
            return passes.prediction, {}
        shares = self._read_shares
        asked = {*outputs, *self._needed}
        parts = [(asked, shares[0])]
        if shares[0] != shares[1]:
            parts = [(asked & {"pose"}, shares[0]), (asked - {"pose"}, shares[1])]
        recorder = self.recorder(frame.given, frame.axes, "head")
        reads_heads = any(item.reads_head for item in self.configurations)
        probe = passes.pending if reads_heads else None
        found: dict[str, Tensor] = {}
        for names, share in parts:
            if names:
                new = vars(self._run_heads(passes.between(share), names, recorder, probe))
                found |= {name: value for name, value in new.items() if value is not None}
        return Prediction(**found), recorder.take() if recorder else {}

    def _run_heads(
        self,
        decoded: Any,
        names: Collection[str],
        recorder: Recorder | None = None,
        probe: Probe | None = None,
    ) -> Prediction:
        backbone, count = self.backbone, len(decoded.levels[0])
        gate, watch = self.seen(None, recorder), together(recorder, probe)
        height, width = decoded.grid
        size = max(1, _HEAD_PIXELS // (height * width * backbone.patch_size**2))
        if size >= count or watch is not None or self._gradients:
            return backbone.predict(decoded, names, gate=gate, probe=watch)
        parts = [slice(first, first + size) for first in range(0, count, size)]
        return concatenated(
            [backbone.predict(rows(decoded, part), names, gate=gate) for part in parts]
        )

    def _attention(self, frame: EncodedFrame, passes: Passes, elsewhere: Records) -> list[Records]:
        """Return what was recorded, per configuration; nothing where the frame is not."""
        if not frame.given.record:
            return []
        gated = passes.gated.attention
        probed = gated if passes.probed is None else passes.probed.attention
        found: list[Records] = []
        for sample, reads_probe in enumerate(self._reads_probe):
            records = {**frame.attention, **(probed if reads_probe else gated), **elsewhere}
            found.append(
                {
                    kind: {
                        name: values[min(sample, len(values) - 1)]
                        for name, values in record.items()
                    }
                    for kind, record in records.items()
                }
            )
        return found
