"""Branch: configurations of one backbone that go through the decoder together, frame by frame."""

import time
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import cache, partial

import torch
from torch import Tensor

from mut3r_analysis.attention.capture import Capture
from mut3r_analysis.attention.recorder import Recorder
from mut3r_analysis.attention.seam import Gate as SeamGate
from mut3r_analysis.attention.seam import Probe
from mut3r_analysis.attention.sites import Site
from mut3r_analysis.backbones.cut3r import CUT3R, Decoded, Encoded, Entered, Frame, State
from mut3r_analysis.backbones.heads import Prediction
from mut3r_analysis.backbones.precision import arithmetic
from mut3r_analysis.backbones.write_rules import (
    WRITE_RULES,
    History,
    MeanLogitMap,
    ttsa3r_rate,
    ttt3r_rate,
)
from mut3r_analysis.errors import InvalidArgument
from mut3r_analysis.motion.gated_seam import GatedSeam, GatePlan
from mut3r_analysis.motion.meter import CueMeasured, MeterProbe, MotionMeter
from mut3r_analysis.motion.rates import frame_rate, static_mass_rate
from mut3r_analysis.motion.score import CueHistory, Motion, Score
from mut3r_analysis.motion.site_gates import LARGEST_SCORE
from mut3r_analysis.running.configuration import OPEN_GATE, Configuration
from mut3r_analysis.running.passes import (
    Carried,
    Outcome,
    Pass,
    Passes,
    Records,
    Sight,
    between,
    concatenated,
    merged,
    mixed,
    together,
)

_HEAD_PIXELS = 512 * 384
"""Dense heads take so many pixels at a time: they are wide, and large batches gain nothing."""


class Branch:
    """Configurations that share their passes, as one batch.

    Parameters
    ----------
    backbone : CUT3R
    configurations : sequence of Configuration
        With the same :attr:`~Configuration.shape`.
    capture : Capture, optional
    outputs : collection of str
        Checked names.

    Attributes
    ----------
    configurations : tuple of Configuration
    """

    def __init__(
        self,
        backbone: CUT3R,
        configurations: Sequence[Configuration],
        *,
        capture: Capture | None = None,
        outputs: Collection[str] = (),
    ) -> None:
        self.backbone = backbone
        self.configurations = tuple(configurations)
        self._capture = capture
        self._outputs = tuple(outputs)
        first = self.configurations[0]
        if any(item.shape != first.shape for item in self.configurations):
            raise InvalidArgument("the configurations of a branch must share their passes")
        sizes = backbone.site_sizes()
        self._commits = [item.commit for item in self.configurations]
        cues = [item.cue for item in self.configurations if item.cue is not None]
        self._meter = MotionMeter(cues[0] if len(cues) == 1 else cues, sizes) if cues else None
        gates = [item.acting_gate for item in self.configurations]

        @cache
        def plan(active: tuple[bool, ...]) -> GatePlan:
            return GatePlan(
                [gate if acts and gate else OPEN_GATE
                 for gate, acts in zip(gates, active, strict=True)],
                sizes,
            )  # fmt: skip

        self._plan: Callable[[tuple[bool, ...]], GatePlan] = plan
        self._gates = first.acting_gate is not None
        self._rates = {name for commit in self._commits for name in commit.rates}
        self._keeps_probe = any(commit.keeps_probe for commit in self._commits)
        self._reads_probe = [commit.read == "probe" for commit in self._commits]

    @property
    def batch(self) -> int:
        """How many configurations go through the decoder together."""
        return len(self.configurations)

    def start(self) -> Carried:
        """Return what is carried before the first frame."""
        return self.carry(self.backbone.initial_state(self.batch), (0,) * self.batch)

    def carry(self, state: State, age: tuple[int, ...]) -> Carried:
        """Return what is carried with a given state, by cues that remember nothing."""
        cue = self._meter.start(self.batch, self.backbone.device) if self._meter else ()
        return Carried(state, cue, age, scored=(0,) * self.batch)

    def measures_encoder(self, grid: tuple[int, int]) -> MeterProbe | None:
        """Return a probe for the encoder, where a cue reads it."""
        if self._meter is None or all(cue.site != "encoder_self" for cue in self._meter.cues):
            return None
        return self._meter.probe(grid)

    def step(
        self, sight: Sight, carried: Carried, *, measured: MeterProbe | None, record: bool
    ) -> Outcome:
        """Do one frame.

        Parameters
        ----------
        sight : Sight
        carried : Carried
        measured : MeterProbe, optional
            What this branch's cues read in the encoder.
        record : bool
            Whether the capture records this frame.
        """
        backbone, began = self.backbone, time.perf_counter()
        features = sight.encoded.features.expand(self.batch, -1, -1)
        encoded = replace(sight.encoded, features=features)
        active = self._active(carried)
        with arithmetic(backbone.precision, backbone.device), torch.no_grad():
            query = backbone.recall(encoded, carried.state)
            decode = partial(self._decode, backbone.enter(encoded, carried.state, query))
            passes = self._passes(sight, carried, active, measured, decode, record)
            prediction, at_heads = self._predict(passes, encoded.grid, record)
            if self._meter is not None and not passes.motions:
                passes.motions, passes.history = self._score(passes.pending, carried, sight)
            motion = self._meter.joined(passes.motions) if self._meter else None
            new, rate = self._commit(sight, encoded, carried, passes, motion, active)
        before = passes.seconds_before
        seconds = before, time.perf_counter() - began - before
        return Outcome(
            before=carried.state,
            carried=new,
            rate=rate,
            prediction=prediction,
            gated=active,
            motion=motion,
            used=passes.used,
            readings=self._meter.readings(passes.motions) if self._meter else [],
            attention=self._attention(sight, passes, at_heads) if record else [],
            seconds=seconds,
        )

    def _active(self, carried: Carried) -> tuple[bool, ...]:
        source = self.configurations[0].source
        lags = source is not None and source.lags
        return tuple(
            self._gates and age >= commit.warm_up and (scored > 0 or not lags)
            for commit, age, scored in zip(self._commits, carried.age, carried.scored, strict=True)
        )

    def _decode(
        self,
        entered: Entered,
        *,
        gate: SeamGate | None = None,
        probe: Probe | None = None,
        record: bool = False,
        rates: bool = False,
    ) -> Pass:
        recorder = Recorder(self._capture) if record and self._capture is not None else None
        names = [name for name in ("ttt3r", "ttsa3r") if rates and name in self._rates]
        maps = {name: MeanLogitMap(keys=name == "ttt3r") for name in names}
        watching = together(recorder, probe, *maps.values())
        decoded = self.backbone.decode(entered, gate=gate, probe=watching)
        return Pass(decoded, gate if isinstance(gate, GatedSeam) else None, recorder, maps)

    def _passes(
        self,
        sight: Sight,
        carried: Carried,
        active: tuple[bool, ...],
        measured: MeterProbe | None,
        decode: Callable[..., Pass],
        record: bool,
    ) -> Passes:
        pending: MeterProbe | None
        meter, grid = self._meter, sight.encoded.grid
        if meter is None:
            return Passes(decode(record=record, rates=True))
        watch = partial(meter.probe, grid, encoder=measured)
        if not any(active):
            pending = watch()
            single = decode(probe=pending, record=record, rates=True)
            return Passes(single, single, pending)

        began = time.perf_counter()
        plan = self._plan(active)
        seam = partial(plan.seam, record_mass="static_mass" in self._rates)
        keep = {
            "record": record and any(self._reads_probe),
            "rates": any(commit.written_share < 1 for commit in self._commits),
        }
        probed: Pass | None = None
        pending = None
        used: Tensor | None = None
        motions: tuple[Motion, ...] = ()
        history = carried.cue
        score: Tensor | Score
        if meter.source.live:
            pending = watch()
            score = meter.live(pending, carried.cue, position=sight.position)
        elif meter.source.lags:
            pending = watch()
            found = meter.carried(carried.cue)
            assert found is not None  # no sample is active before a frame was scored
            acts = torch.tensor(active, device=found.device)[:, None, None]
            score, used = found, torch.where(acts, found, torch.nan)
        else:
            gate = None
            for index in range(meter.passes):
                kept = index == 0 and self._keeps_probe
                probe = watch(stop=not kept)
                with suppress(CueMeasured):
                    done = decode(gate=gate, probe=probe, **(keep if kept else {}))
                    probed = done if kept else probed
                motions, history = self._score(probe, carried, sight)
                gate = seam(meter.joined(motions))
            if not motions:
                motions, history = self._score(watch(), carried, sight)
            score = meter.joined(motions)
        if probed is None and self._keeps_probe:
            probed = decode(**keep)
        seconds = time.perf_counter() - began
        reads_gated = record and not all(self._reads_probe)
        gated = decode(gate=seam(score), probe=pending, record=reads_gated, rates=True)
        return Passes(gated, probed, pending, motions, history, used, seconds)

    def _score(
        self, probe: MeterProbe | None, carried: Carried, sight: Sight
    ) -> tuple[tuple[Motion, ...], tuple[CueHistory, ...]]:
        assert self._meter is not None
        return self._meter.score(
            probe,
            carried.cue,
            grid=sight.encoded.grid,
            position=sight.position,
            masks=sight.masks,
        )

    def _predict(
        self, passes: Passes, grid: tuple[int, int], record: bool
    ) -> tuple[Prediction, Records]:
        if not self._outputs:
            return Prediction(), {}
        of_pose = {"gated": 1.0, "split": 1.0, "probe": 0.0, "split_rev": 0.0}
        of_dense = of_pose | {"split": 0.0, "split_rev": 1.0}
        shares = [[table[c.read] for c in self._commits] for table in (of_pose, of_dense)]
        parts = [({*self._outputs}, shares[0])]
        if shares[0] != shares[1]:
            dense = {*self._outputs} - {"pose"}
            parts = [({*self._outputs} & {"pose"}, shares[0]), (dense, shares[1])]
        capture = self._capture
        recorder = (
            Recorder(capture) if record and capture and "head_self" in capture.sites else None
        )
        cues = self._meter.cues if self._meter else ()
        reads_heads = any(cue.site == "head_self" for cue in cues)
        probe = together(recorder, passes.pending if reads_heads else None)
        found = Prediction()
        for names, share in parts:
            if names:
                decoded = between(passes.gated, passes.probed, share)
                found = merged(found, self._run_heads(decoded, grid, names, probe))
        return found, {} if recorder is None else recorder.take()

    def _run_heads(
        self, decoded: Decoded, grid: tuple[int, int], names: Collection[str], probe: Probe | None
    ) -> Prediction:
        pixels = grid[0] * grid[1] * self.backbone.config.patch_size**2
        size = max(1, _HEAD_PIXELS // pixels)
        if size >= self.batch or probe is not None:
            return self.backbone.predict(decoded, grid, names, probe=probe)
        parts = []
        for first in range(0, self.batch, size):
            rows = slice(first, first + size)
            some = replace(
                decoded,
                levels=[level[rows] for level in decoded.levels],
                pose_token=decoded.pose_token[rows],
            )
            parts.append(self.backbone.predict(some, grid, names))
        return concatenated(parts)

    def _commit(
        self,
        sight: Sight,
        encoded: Encoded,
        carried: Carried,
        passes: Passes,
        motion: Tensor | None,
        active: tuple[bool, ...],
    ) -> tuple[Carried, Tensor]:
        backbone, commits = self.backbone, self._commits
        device = backbone.device
        written = between(passes.gated, passes.probed, [c.written_share for c in commits])
        remembered = between(passes.gated, passes.probed, [c.remembered_share for c in commits])
        resets = [commit.resets_after(sight.position) for commit in commits]
        restarts = WRITE_RULES[backbone.update].restart
        restart = [
            restarts if commit.reset_pose is None else commit.reset_pose == "learned"
            for commit in commits
        ]
        state, rate = backbone.write(
            Frame(sight.image, reset=torch.tensor(resets, device=device)),
            encoded,
            replace(written, pose_token=remembered.pose_token),
            carried.state,
            factor=self._factor(encoded, carried, passes, written, motion, active),
            remember=torch.tensor([not commit.holds_memory for commit in commits], device=device),
            summary=self._summary(encoded, motion),
            restart=torch.tensor(restart, device=device),
        )
        cleared = [
            reset and commit.reset_cue == "clear"
            for reset, commit in zip(resets, commits, strict=True)
        ]
        history = passes.history
        if self._meter is not None and any(cleared):
            history = self._meter.reset(history, torch.tensor(cleared, device=device))
        seen = None
        if "ttsa3r" in self._rates:
            known = torch.ones(self.batch, dtype=torch.bool, device=device)
            seen = History(encoded.features, written.proposal, known)
        new = Carried(
            state,
            history,
            tuple(0 if reset else age + 1 for reset, age in zip(resets, carried.age, strict=True)),
            tuple(0 if clear else n + 1 for clear, n in zip(cleared, carried.scored, strict=True)),
            seen,
        )
        return new, rate

    def _factor(
        self,
        encoded: Encoded,
        carried: Carried,
        passes: Passes,
        written: Decoded,
        motion: Tensor | None,
        active: tuple[bool, ...],
    ) -> Tensor | None:
        """Return what multiplies the write rule's rate ``(batch, state_token)``, if anything."""
        seam = passes.gated.seam
        of_gate = seam.write_factor() if seam is not None else None
        if of_gate is None and not self._rates and not any(c.holds_state for c in self._commits):
            return None
        found: dict[str, Tensor] = {}
        shares = [commit.written_share for commit in self._commits]
        for name, own in passes.gated.maps.items():
            other = passes.probed.maps.get(name) if passes.probed else None
            mean = mixed(own.mean, None if other is None else other.mean, shares)
            if name == "ttt3r":
                found[name] = ttt3r_rate(mean[..., 0])
            elif carried.seen is not None:
                found[name] = ttsa3r_rate(mean, encoded.features, written.proposal, carried.seen)
        if "static_mass" in self._rates and seam is not None and seam.static_mass:
            found["static_mass"] = static_mass_rate(seam.static_mass)
        rows = []
        for sample, commit in enumerate(self._commits):
            row = torch.ones(written.proposal.shape[1], device=self.backbone.device)
            for name, alpha in commit.rates.items() if carried.age[sample] else ():
                if name == "frame" and motion is not None:
                    row = row * frame_rate(motion[sample : sample + 1], alpha or 0.0)[0]
                elif name in found and (name != "static_mass" or active[sample]):
                    row = row * found[name][sample]
            if of_gate is not None and commit.written_share > 0:
                row = row * of_gate[sample]
            rows.append(row * 0 if commit.holds_state else row)
        return torch.stack(rows)

    def _summary(self, encoded: Encoded, motion: Tensor | None) -> Tensor | None:
        """Mean encoder token for the pose memory, where a commit wants it of static patches."""
        masked = [commit.masked_mean for commit in self._commits]
        if motion is None or not any(masked):
            return None
        static = 1 - motion.flatten(1)[..., None].clamp_max(LARGEST_SCORE)
        chosen = torch.tensor(masked, device=static.device)[:, None, None]
        features = encoded.features
        mean = (static * features).sum(dim=1, keepdim=True) / static.sum(dim=1, keepdim=True)
        return torch.where(chosen, mean.to(features.dtype), features.mean(dim=1, keepdim=True))

    def _attention(self, sight: Sight, passes: Passes, at_heads: Records) -> list[Records]:
        gated = passes.gated.attention()
        same = passes.probed is None or passes.probed is passes.gated
        probed = gated if same or passes.probed is None else passes.probed.attention()
        found = []
        for sample, reads_probe in enumerate(self._reads_probe):
            records = {**sight.attention, **(probed if reads_probe else gated), **at_heads}
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


def look(
    branches: Sequence[Branch],
    image: Tensor,
    *,
    position: int = 0,
    masks: Mapping[str, Tensor] | None = None,
    capture: Capture | None = None,
) -> Sight:
    """Encode a frame once for several branches of one backbone.

    Parameters
    ----------
    branches : sequence of Branch
    image : Tensor
        ``(1, rgb, y, x)``, prepared.
    position : int
    masks : mapping of str to Tensor, optional
    capture : Capture, optional
        Records encoder sites.
    """
    backbone = branches[0].backbone
    grid = backbone.config.patch_grid(*image.shape[-2:])
    measured = [branch.measures_encoder(grid) for branch in branches]
    recorder = None if capture is None else Recorder(capture)
    probes = [
        _widened(probe, branch.batch)
        for branch, probe in zip(branches, measured, strict=True)
        if probe is not None
    ]
    with arithmetic(backbone.precision, backbone.device), torch.no_grad():
        encoded = backbone.encode(Frame(image), probe=together(recorder, *probes))
    attention = {} if recorder is None else recorder.take()
    return Sight(position, image, masks or {}, encoded, measured, attention)


def _widened(probe: MeterProbe, batch: int) -> Probe:
    """Show the encoder's single sample to cues of a whole batch."""

    def widened(site: Site, q: Tensor, k: Tensor) -> None:
        probe(site, q.expand(batch, -1, -1, -1), k.expand(batch, -1, -1, -1))

    return widened
