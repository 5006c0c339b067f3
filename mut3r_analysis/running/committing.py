"""What the commits of a batch make of a frame: what is written of it, and what ends with it."""

from collections.abc import Collection, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from mut3r_analysis.attention.seam import Probe
from mut3r_analysis.backbones.batching import constant
from mut3r_analysis.backbones.heads import Prediction
from mut3r_analysis.backbones.protocol import Backbone
from mut3r_analysis.backbones.steps import Encoded, Frame, FrameRead, Write
from mut3r_analysis.backbones.write_rules import Rules
from mut3r_analysis.motion.batch import CueBatch
from mut3r_analysis.motion.frame_gate import FrameGate
from mut3r_analysis.motion.history import CueHistory
from mut3r_analysis.motion.site_gates import LARGEST_SCORE
from mut3r_analysis.running.commit import Commit
from mut3r_analysis.running.passes import BatchState, EncodedFrame, Passes


class Committer:
    """Writes frames into the states of a batch, and lets these start anew.

    Parameters
    ----------
    backbone : Backbone
    commits : sequence of Commit
        One per sample.
    cues : CueBatch, optional
    rules : Rules, optional
        Where a commit names some, together with the backbone's own.
    restarts : sequence of bool
        Per sample, whether the frame after a reset starts from the learned pose token.
    predicts : collection of str
        Outputs that a commit needs and that are not predicted of the pass that it writes.
    """

    def __init__(
        self,
        backbone: Backbone,
        commits: Sequence[Commit],
        cues: CueBatch | None,
        rules: Rules | None,
        restarts: Sequence[bool],
        *,
        predicts: Collection[str],
    ) -> None:
        self._backbone, self._commits, self._cues = backbone, commits, cues
        self._rules, self._restarts, self._predicts = rules, restarts, predicts

    def commit(
        self,
        frame: EncodedFrame,
        carried: BatchState,
        passes: Passes,
        prediction: Prediction,
        motion: Tensor | None,
        active: Sequence[bool],
        *,
        probe: Probe | None,
        starts: bool,
    ) -> tuple[BatchState, Tensor, tuple[bool, ...]]:
        """Write a frame.

        Parameters
        ----------
        frame : EncodedFrame
        carried : BatchState
            That it was read with.
        passes : Passes
        prediction : Prediction
            Not carried over from part to part.
        motion : Tensor, optional
            ``(batch, patch_row, patch_col)``.
        active : sequence of bool
            Per sample, whether gates acted.
        probe : callable, optional
        starts : bool
            Whether the frame was read before and now starts a part, so that it ends none.

        Returns
        -------
        carried : BatchState
        rate : Tensor
            ``(batch, state_token)``.
        resets : tuple of bool
            Per sample, whether the state starts anew after the frame.
        """
        backbone, commits, device = self._backbone, self._commits, self._backbone.device
        position, age = frame.given.position, carried.age
        written = passes.between([commit.written_share for commit in commits])
        remembered = passes.between([commit.remembered_share for commit in commits])
        if remembered is not written:
            written = replace(written, pose_token=remembered.pose_token)
        if self._predicts:
            prediction = backbone.predict(written, self._predicts)
        write = self._write(frame, passes, motion, active)

        def committed(resets: Sequence[bool], probe: Probe | None) -> tuple[Any, Tensor]:
            reset = constant(resets, device) if any(resets) or starts else False
            given = Frame(frame.given.image, reset=reset)
            read = FrameRead(given, frame.encoded, written, prediction)
            return backbone.commit(read, carried.state, write, probe=probe)

        resets = (False,) * len(commits)
        if not starts:
            resets = resets_by_frame(commits, position, age, motion)
        state, rate = committed(resets, probe)
        totals = written_so_far(commits, carried, state)
        full = resets_by_state(commits, position, age, totals)
        if any(full) and not starts:
            # That the state is saturated is known once it is written.
            resets = tuple(map(any, zip(resets, full, strict=True)))
            state, rate = committed(resets, None)
        return self._carried(carried, passes.history, state, resets, totals), rate, resets

    def _write(
        self,
        frame: EncodedFrame,
        passes: Passes,
        motion: Tensor | None,
        active: Sequence[bool],
    ) -> Write:
        commits, device = self._commits, self._backbone.device
        return Write(
            rules=self._rules,
            signals=self._signals(passes, motion, active),
            factor=write_factor(commits, passes.gated.gate, device),
            remember=constant([not commit.holds_memory for commit in commits], device),
            summary=masked_summary(commits, frame.encoded, motion),
            restart=constant(self._restarts, device),
        )

    def _signals(
        self, passes: Passes, motion: Tensor | None, active: Sequence[bool]
    ) -> dict[str, Tensor]:
        """Return what write rules need of the cue."""
        found = {} if motion is None else {"motion": motion.flatten(1)}
        gate = passes.gated.gate
        if self._rules is not None and "static_mass" in self._rules.needs:
            tokens = passes.gated.decoded.proposal.shape[:2]
            mass = torch.ones(tokens, device=self._backbone.device)
            if gate is not None and gate.static_mass:
                acts = constant(active, mass.device)[:, None]
                mean = torch.stack(list(gate.static_mass.values())).mean(dim=0)
                mass = torch.where(acts, mean, mass)
            found["static_mass"] = mass
        return found

    def _carried(
        self,
        before: BatchState,
        history: tuple[CueHistory, ...],
        state: Any,
        resets: Sequence[bool],
        totals: Sequence[float],
    ) -> BatchState:
        """Return what is carried on after a frame."""
        cleared = [
            reset and commit.reset_cue == "clear"
            for reset, commit in zip(resets, self._commits, strict=True)
        ]
        if self._cues is not None and any(cleared):
            which = constant(cleared, self._backbone.device)
            history = self._cues.reset(history, which)
        none = (0,) * len(self._commits)
        return BatchState(
            state,
            history,
            age=chosen(resets, none, [n + 1 for n in before.age]),
            scored=chosen(cleared, none, [n + 1 for n in before.scored]),
            written=chosen(resets, [0.0] * len(none), totals),
            base=before.base,
        )


def write_factor(
    commits: Sequence[Commit], gate: FrameGate | None, device: torch.device
) -> Tensor | None:
    """Return what multiplies the rules' rate ``(batch, state_token | 1)``, if anything."""
    factor = gate.write_factor() if gate is not None else None
    holds = [commit.holds_state for commit in commits]
    if factor is not None:
        takes = [commit.written_share > 0 for commit in commits]
        factor = torch.where(constant(takes, device)[:, None], factor, 1.0)
    if any(holds):
        writes = 1.0 - constant(holds, device)[:, None].float()
        factor = writes if factor is None else factor * writes
    return factor


def masked_summary(
    commits: Sequence[Commit], encoded: Encoded, motion: Tensor | None
) -> Tensor | None:
    """Mean encoder token for the pose memory, where a commit wants it of static patches."""
    masked = [commit.masked_mean for commit in commits]
    if motion is None or not any(masked):
        return None
    static = 1 - motion.flatten(1)[..., None].clamp_max(LARGEST_SCORE)
    chosen = constant(masked, static.device)[:, None, None]
    features = encoded.features
    mean = (static * features).sum(dim=1, keepdim=True) / static.sum(dim=1, keepdim=True)
    return torch.where(chosen, mean.to(features.dtype), features.mean(dim=1, keepdim=True))


def resets_by_frame(
    commits: Sequence[Commit], position: int, age: Sequence[int], motion: Tensor | None
) -> tuple[bool, ...]:
    """Say, per sample, whether the state starts anew after a frame for what the frame is.

    Parameters
    ----------
    commits : sequence of Commit
    position : int
        Of the frame.
    age : sequence of int
        Frames that each part had before it.
    motion : Tensor, optional
        ``(batch, patch_row, patch_col)``.
    """
    means = [float("nan")] * len(commits)
    if motion is not None and any(commit.watches("motion") for commit in commits):
        means = motion.float().mean(dim=(1, 2)).tolist()
    return tuple(
        commit.resets_after(position, n, motion=mean)
        for commit, n, mean in zip(commits, age, means, strict=True)
    )


def written_so_far(commits: Sequence[Commit], before: BatchState, state: Any) -> list[float]:
    """Return, per sample, how much its state has changed since the first frame of its part.

    Parameters
    ----------
    commits : sequence of Commit
        Those that do not ask have 0.
    before : BatchState
        Before the frame.
    state
        Of the backbone, after it.
    """
    if not any(commit.watches("saturation") for commit in commits):
        return [0.0] * len(commits)
    old, new = before.state.tokens.float(), state.tokens.float()
    changes = ((new - old).norm(dim=-1) / old.norm(dim=-1)).mean(dim=-1).tolist()
    return [
        total + change if age and commit.watches("saturation") else 0.0
        for commit, age, total, change in zip(
            commits, before.age, before.written, changes, strict=True
        )
    ]


def resets_by_state(
    commits: Sequence[Commit], position: int, age: Sequence[int], written: Sequence[float]
) -> tuple[bool, ...]:
    """Say, per sample, whether the state starts anew after a frame for what it has become."""
    return tuple(
        commit.watches("saturation") and commit.resets_after(position, n, written=total)
        for commit, n, total in zip(commits, age, written, strict=True)
    )


def chosen(which: Sequence[bool], ones: Sequence[Any], others: Sequence[Any]) -> tuple[Any, ...]:
    """Take, per sample, of the ones where it is told to, and of the others elsewhere."""
    return tuple(
        one if taken else other for taken, one, other in zip(which, ones, others, strict=True)
    )
