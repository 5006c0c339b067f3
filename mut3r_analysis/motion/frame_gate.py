"""From declared gates and motion scores to the gate of one pass over one frame."""

from collections.abc import Callable, Sequence
from functools import cache
from typing import NamedTuple

import torch
from torch import Tensor

from mut3r_analysis.attention.sites import SITE_KINDS, Site, Sites, check_kinds
from mut3r_analysis.attention.tokens import Axes
from mut3r_analysis.errors import InvalidArgument
from mut3r_analysis.foundation.fields import known_heads
from mut3r_analysis.motion.gate import Gate
from mut3r_analysis.motion.kernels import static_mass
from mut3r_analysis.motion.realisations import form_of, realisations_at
from mut3r_analysis.motion.score import Score
from mut3r_analysis.motion.site_gates import (
    Scores,
    Setting,
    gate_keys,
    gate_queries,
    gate_self,
    plain,
)


class _Group(NamedTuple):
    """Samples that one kernel call serves; None for all of them. A setting of None is plain."""

    setting: Setting | None
    samples: Tensor | None
    beta: Tensor


class GatePlan:
    """Which gates act at which site, for one gate or for one gate per sample of a batch.

    Made once; :meth:`of_frame` then joins it with each frame's motion scores.

    Parameters
    ----------
    gates : Gate or sequence of Gate
        One for all samples, or one per sample: several configurations of one sequence can then go
        through the decoder as one batch.
    sites : mapping of str to SiteSize
        Kinds of site of the backbone, from its ``sites()``.

    Attributes
    ----------
    gates : tuple of Gate
    kinds : frozenset of str
        Kinds of site that any of them acts at.
    layers : tuple of range
        Per gate, the layers it acts on in this backbone.
    inert : tuple of (str or None)
        Per gate, why it changes nothing; None where it acts.

    Raises
    ------
    InvalidArgument
        When a gate names a site, layers or heads that the backbone lacks.
    """

    def __init__(self, gates: Gate | Sequence[Gate], sites: Sites) -> None:
        gates = (gates,) if isinstance(gates, Gate) else tuple(gates)
        if not gates:
            raise InvalidArgument("a plan needs at least one gate; pass gate=None for no gating")
        depth = 0
        for gate in gates:
            named = gate.sites
            check_kinds("the gate", named, sites)
            for site in named:
                known_heads(f"gate heads at {site}", gate.heads, sites[site].heads)
                depth = max(depth, sites[site].layers)
        self.gates = gates
        self.kinds = frozenset(site for gate in gates for site in gate.sites)
        self.inert = tuple(gate.inert(depth) for gate in gates)
        self.layers = tuple(gate.layer_range(depth) if gate.sites else range(0) for gate in gates)
        self.groups: Callable[[Site, torch.device], tuple[_Group, ...]] = cache(self._groups)

    def of_frame(
        self, motion: Tensor | Score, axes: Axes, *, record_mass: bool = False
    ) -> "FrameGate":
        """Join the plan with one frame's motion scores.

        Parameters
        ----------
        motion : Tensor or callable
            ``(batch, patch_row, patch_col)`` in [0, 1], or a function of the site that returns it
            (:func:`~mut3r_analysis.motion.live_score`).
        axes : mapping of str to TokenAxis
            Tokens of the frame, from the backbone's ``axes()``.
        record_mass : bool
            Keep the static mass of state-to-image sites: see `FrameGate`.
        """
        return FrameGate(self, motion, axes, record_mass=record_mass)

    def wants_mass(self, layer: int) -> bool:
        """Whether a gate needs the static mass of state-to-image at a layer."""
        return any(
            (gate.writes and layer in layers)
            or (gate.inert(site="image_to_state") is None and _reads_ahead(gate, layer, layers))
            for gate, layers in zip(self.gates, self.layers, strict=True)
        )

    def _groups(self, site: Site, device: torch.device) -> tuple[_Group, ...]:
        members: dict[Setting | None, list[int]] = {}
        for sample, gate in enumerate(self.gates):
            members.setdefault(self._setting(sample, gate, site, device.type), []).append(sample)
        if set(members) == {None}:
            return ()
        return tuple(
            _Group(
                setting,
                None if len(members) == 1 else torch.tensor(samples, device=device),
                torch.tensor([[self.gates[sample].beta] for sample in samples], device=device),
            )
            for setting, samples in members.items()
        )

    def _setting(self, sample: int, gate: Gate, site: Site, device: str) -> Setting | None:
        acts = site.layer in self.layers[sample] and gate.inert(site=site.kind) is None
        if not acts:
            return None
        name = str(gate.realisation(site.kind))
        if name == "pair_state" and site.layer == 0:
            return None
        kernel = gate.kernel_at(site.kind, device)
        whole = int(gate.beta) if kernel == "values" and name.startswith("pair_") else None
        # What a realisation does not use must not tell gates apart that one call can serve.
        threshold = 1.0 if realisations_at(site.kind)[name].beta else gate.threshold
        null_logit = gate.null_logit if name == "null_key" else None
        return Setting(name, kernel, gate.heads, threshold, null_logit, whole)


class FrameGate:
    """The gate of one pass over one frame: give it to a backbone's ``decode`` or ``step``.

    Where no sample is gated it returns None, so the plain kernel runs and not a bit changes.

    Parameters
    ----------
    plan : GatePlan
    motion : Tensor or callable
    axes : mapping of str to TokenAxis
    record_mass : bool

    Attributes
    ----------
    static_mass : dict of int to Tensor
        Layer -> ``(batch, state_token)``: the share of each state token's plain attention that
        falls on static tokens, ``sum_j p_sj (1 - g_j)``, mean over heads.

    Raises
    ------
    InvalidArgument
        For scores outside [0, 1], or of another batch or grid than the site they meet.
    """

    def __init__(
        self, plan: GatePlan, motion: Tensor | Score, axes: Axes, *, record_mass: bool = False
    ) -> None:
        self._plan = plan
        self._axes = axes
        self._record_mass = record_mass
        self.static_mass: dict[int, Tensor] = {}
        self._latest: tuple[Tensor, Tensor] | None = None
        self._shared: Scores | None = None
        if isinstance(motion, Tensor):
            fixed = _checked(motion)
            self._motion: Score = lambda site: fixed
        else:
            self._motion = motion

    def __call__(self, site: Site, q: Tensor, k: Tensor, v: Tensor) -> Tensor | None:
        """Return the gated output ``(batch, head, query, channel)``, or None."""
        if site.kind not in self._plan.kinds and site.kind != "state_to_image":
            return None
        groups = self._plan.groups(site, q.device)
        measures = site.kind == "state_to_image" and (
            self._record_mass or self._plan.wants_mass(site.layer)
        )
        if not groups and not measures:
            return None
        motion = self._motion(site)
        if motion is None:
            return None
        g = self._tokens(motion, site, q, k)
        if len(self._plan.gates) not in (1, len(q)):
            raise InvalidArgument(
                f"{len(self._plan.gates)} gates were planned for a batch of {len(q)}; give one "
                "gate for all samples, or one per sample"
            )
        if not groups:
            out, mass = None, None
        elif len(groups) == 1:
            out, mass = self._act(groups[0], site, q, k, v, g, measures)
        else:
            out, mass = torch.empty_like(q), None
            for group in groups:
                chosen = group.samples
                tokens = (q[chosen], k[chosen], v[chosen])
                out[chosen] = self._act(group, site, *tokens, g[chosen], False)[0]
        if measures:
            mass = static_mass(q, k, 1 - g) if mass is None else mass
            self.static_mass[site.layer] = mass.float().mean(dim=1)
        return out

    def write_factor(self) -> Tensor | None:
        """Return what ``key_bias_write`` gates multiply the write rate by, after the pass.

        Returns
        -------
        Tensor or None
            ``(batch, state_token)``: the static mass averaged over a gate's layers, 1 for samples
            whose gate does not ask for it; None where none does.
        """
        plan = self._plan
        parts = []
        for sample, (gate, layers) in enumerate(zip(plan.gates, plan.layers, strict=True)):
            own = slice(None) if len(plan.gates) == 1 else slice(sample, sample + 1)
            mass = [self.static_mass[layer][own] for layer in layers if layer in self.static_mass]
            parts.append(torch.stack(mass).mean(dim=0) if gate.writes and mass else None)
        known = next((part for part in parts if part is not None), None)
        if known is None:
            return None
        return torch.cat([torch.ones_like(known) if part is None else part for part in parts])

    def _act(
        self, group: _Group, site: Site, q: Tensor, k: Tensor, v: Tensor, g: Tensor, measures: bool
    ) -> tuple[Tensor, Tensor | None]:
        setting = group.setting
        if setting is None:
            return plain(q, k, v), None
        if setting.heads is not None and len(setting.heads) < q.shape[1]:
            gated = list(setting.heads)
            others = [head for head in range(q.shape[1]) if head not in setting.heads]
            out = torch.empty_like(q)
            out[:, others] = plain(q[:, others], k[:, others], v[:, others])
            inner = group._replace(setting=setting._replace(heads=None))
            tokens = (q[:, gated], k[:, gated], v[:, gated])
            out[:, gated] = self._act(inner, site, *tokens, g, False)[0]
            return out, None
        scores = self._scores(group, g)
        form = form_of(site.kind)
        if form == "state_to_image":
            return gate_keys(setting, q, k, v, scores, scores.still if measures else None)
        if form == "image_self":
            return gate_self(setting, q, k, v, scores), None
        if setting.name != "pair_state":
            return gate_queries(setting, q, k, v, scores), None
        mass = self.static_mass.get(site.layer - 1)
        if mass is None:
            return plain(q, k, v), None
        mass = mass if group.samples is None else mass[group.samples]
        return gate_queries(setting, q, k, v, scores, mass), None

    def _scores(self, group: _Group, g: Tensor) -> Scores:
        """Scores of the samples of a group; where there is one group, those of the sites before."""
        if group.samples is not None:
            return Scores(g, group.beta)
        if self._shared is None:
            self._shared = Scores(g, group.beta)
        return self._shared

    def _tokens(self, motion: Tensor, site: Site, q: Tensor, k: Tensor) -> Tensor:
        """Scores of the image's tokens ``(batch, token)``: 0 for all that are no patches."""
        kind = SITE_KINDS[site.kind]
        axis, tokens = self._axes[kind.queries], q.shape[2]
        if not axis.holds_patches:
            axis, tokens = self._axes[kind.keys], k.shape[2]
        count = motion.shape[1] * motion.shape[2]
        if tokens != len(axis) or count != axis.patch_count:
            raise InvalidArgument(
                f"the motion score is of another grid: {motion.shape[1]} x {motion.shape[2]} "
                f"patches, while {site} has {tokens - len(axis) + axis.patch_count}. Score the "
                "frame that is gated"
            )
        if self._latest is None or self._latest[0] is not motion:
            self._shared = None
            self._latest = motion, axis.spread(motion.flatten(1).to(q.device, torch.float32))
        g = self._latest[1]
        if len(g) not in (1, len(q)):
            raise InvalidArgument(
                f"the motion score holds {len(g)} samples, {site} a batch of {len(q)}; "
                "give one score per sample"
            )
        return g.expand(len(q), -1)


def _reads_ahead(gate: Gate, layer: int, layers: range) -> bool:
    """Whether a gate of the next layer needs what state tokens read in this one."""
    return gate.image_to_state == "pair_state" and layer + 1 in layers


def _checked(motion: Tensor) -> Tensor:
    if motion.dim() != 3:
        raise InvalidArgument(
            "a motion score has the shape (batch, patch_row, patch_col); "
            f"this one has {motion.dim()} dimensions: {tuple(motion.shape)}"
        )
    low, high = torch.stack(motion.aminmax()).tolist()
    if not 0 <= low <= high <= 1:
        raise InvalidArgument(
            f"a motion score lies in [0, 1], 1 = dynamic; this one reaches from {low:.3g} to "
            f"{high:.3g}. Normalise it first"
        )
    return motion
