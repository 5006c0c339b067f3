"""The cues of a batch: one for all samples or one per sample, measured in the same pass."""

from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from mut3r_analysis.attention.sites import SITE_KINDS, Site, Sites
from mut3r_analysis.attention.tokens import Axes
from mut3r_analysis.errors import InvalidArgument
from mut3r_analysis.motion.cue import Cue
from mut3r_analysis.motion.history import CueHistory
from mut3r_analysis.motion.probe import CueProbe, cue_layers
from mut3r_analysis.motion.ray_map import RAY_MAP
from mut3r_analysis.motion.readings import MASK
from mut3r_analysis.motion.score import (
    Motion,
    Score,
    live_score,
    mask_cells,
    motion_score,
)
from mut3r_analysis.motion.sources import Source


class CueMeasured(Exception):
    """Raised by a probe that has seen all its cues need, to end the pass it runs in.

    A probe pass runs for its statistics alone; catching this saves the rest of it.
    """


class _Part(NamedTuple):
    """One cue and the samples it is for; None is the whole batch."""

    cue: Cue
    samples: Tensor | None


class CueBatchProbe:
    """Seam probe of one pass over one frame; made by :meth:`CueBatch.probe`."""

    def __init__(self, probes: Sequence[CueProbe], stop: bool) -> None:
        self.probes = tuple(probes)
        self._stop = stop

    def __call__(self, site: Site, q: Tensor, k: Tensor) -> None:
        """Show one site to every cue."""
        for probe in self.probes:
            probe(site, q, k)
        if self._stop and all(probe.complete for probe in self.probes):
            raise CueMeasured


class CueBatch:
    """Measures motion with one cue, or with one cue per sample of a batch.

    Parameters
    ----------
    cues : Cue or sequence of Cue
        Cues of one batch must share their source: passes are shared.
    sites : mapping of str to SiteSize
        Kinds of site of the backbone, from its ``sites()``.

    Attributes
    ----------
    cues : tuple of Cue
    source : Source

    Raises
    ------
    InvalidArgument

    Examples
    --------
    A two-pass frame, for a backbone taken apart into its steps::

        cues = CueBatch(Cue.mut3r(), backbone.sites())
        history = cues.start(batch=1)
        ...
        axes = backbone.axes(encoded.grid)
        entered = backbone.enter(encoded, state)
        probe = cues.probe(encoded.grid, axes, stop=True)
        with contextlib.suppress(CueMeasured):
            backbone.decode(entered, probe=probe)
        motion, history = cues.score(probe, history, grid=encoded.grid, position=t)
        gate = plan.of_frame(cues.joined(motion), axes)
        decoded = backbone.decode(entered, gate=gate)
    """

    def __init__(self, cues: Cue | Sequence[Cue], sites: Sites) -> None:
        self.cues = (cues,) if isinstance(cues, Cue) else tuple(cues)
        sources = sorted({cue.source for cue in self.cues})
        if len(sources) != 1:
            raise InvalidArgument(
                "the cues of one batch share their passes, so they need one source; "
                f"got {sources or 'no cue'}. Run them in separate batches"
            )
        self.source = Source.parse(sources[0])
        self._sites = sites
        members: dict[Cue, list[int]] = {}
        for sample, cue in enumerate(self.cues):
            members.setdefault(cue, []).append(sample)
        self._parts = [
            _Part(cue, None if len(members) == 1 else torch.tensor(samples))
            for cue, samples in members.items()
        ]
        for cue in members:
            if cue.measured:
                cue_layers(cue, sites)  # refuses what the backbone lacks

    @property
    def passes(self) -> int:
        """Decoder passes over a frame before the gated one."""
        return max(cue.passes for cue in self.cues)

    def start(
        self, batch: int = 1, device: torch.device | str | None = None
    ) -> tuple[CueHistory, ...]:
        """Remember nothing, for a batch of samples; one history per different cue."""
        if len(self.cues) not in (1, batch):
            raise InvalidArgument(
                f"{len(self.cues)} cues for a batch of {batch}; give one for all, or one per sample"
            )
        return tuple(
            CueHistory.start(batch if part.samples is None else len(part.samples), device)
            for part in self._parts
        )

    def probe(
        self,
        grid: tuple[int, int],
        axes: Axes,
        *,
        stop: bool = False,
        encoder: CueBatchProbe | None = None,
    ) -> CueBatchProbe:
        """Make the probe of one pass over a frame with a grid of patches.

        Parameters
        ----------
        grid : (int, int)
            Rows and columns of patches.
        axes : mapping of str to TokenAxis
            Tokens of the frame, from the backbone's ``axes()``.
        stop : bool
            Raise :class:`CueMeasured` as soon as every cue has seen its last layer.
        encoder : CueBatchProbe, optional
            The probe that has watched the encoder, which is shared by all passes: cues that read
            the encoder take its readings.
        """
        probes = []
        for index, part in enumerate(self._parts):
            known = encoder is not None and SITE_KINDS[part.cue.site].part == "encoder"
            probes.append(
                encoder.probes[index]
                if known and encoder is not None
                else CueProbe(part.cue, grid, self._sites, axes, samples=part.samples)
            )
        # What rays see is compared with a whole pass.
        stop = stop and not any(part.cue.casts_rays for part in self._parts)
        return CueBatchProbe(probes, stop)

    def score(
        self,
        probe: CueBatchProbe | None,
        history: Sequence[CueHistory],
        *,
        grid: tuple[int, int],
        position: int = 0,
        masks: Mapping[str, Tensor] | None = None,
        unpassed: Collection[str] = (),
    ) -> tuple[tuple[Motion, ...], tuple[CueHistory, ...]]:
        """Score one frame: :func:`~mut3r_analysis.motion.motion_score` per different cue.

        Parameters
        ----------
        probe : CueBatchProbe, optional
            After its pass; None where no cue is measured.
        masks : mapping of str to Tensor, optional
            Variables of the sequence ``(sample, y, x)`` that ``mask`` cues read, prepared like the
            image; and what ``ray_map`` cues read, ``(sample, patch_row, patch_col)``.
        unpassed : collection of str
            Kinds of site that the frame does not pass: what a cue reads there is unknown, NaN, and
            not remembered.

        Returns
        -------
        motions : tuple of Motion
            :meth:`joined` puts them in the order of the batch.
        histories : tuple of CueHistory
        """
        probes = probe.probes if probe is not None else (None,) * len(self._parts)
        motions, after = [], []
        for part, single, before in zip(self._parts, probes, history, strict=True):
            if part.cue.measured and part.cue.site in unpassed:
                motions.append(self._unknown(part.cue, before, grid))
                after.append(before)
                continue
            raw = None if single is None else single.raw(before)
            if part.cue.reading == MASK:
                raw = self._mask(part, masks or {}, grid, len(before.frames))
            elif part.cue.casts_rays and masks is not None:
                raw = self._own(part, masks[f"{RAY_MAP}({part.cue.of})"])[:, None]
            motion, new = motion_score(part.cue, raw, before, grid=grid, position=position)
            motions.append(motion)
            after.append(new if single is None else single.remembered(new))
        return tuple(motions), tuple(after)

    def joined(self, motions: Sequence[Motion]) -> Tensor:
        """Scores in the order of the batch: ``(batch, patch_row, patch_col)``."""
        return self._join([motion.score for motion in motions])

    def readings(self, motions: Sequence[Motion]) -> list[Tensor | None]:
        """Raw readings in the order of the batch: ``(layer, patch_row, patch_col)`` or None."""
        found: list[Tensor | None] = []
        taken = dict.fromkeys(self.cues, 0)
        raws = {part.cue: motion.raw for part, motion in zip(self._parts, motions, strict=True)}
        for cue in self.cues:
            raw = raws[cue]
            found.append(None if raw is None else raw[taken[cue]])
            taken[cue] += 1
        return found

    def carried(self, history: Sequence[CueHistory]) -> Tensor | None:
        """Score that sources ``previous`` and ``previous_ema`` use now; None on a first frame."""
        scores = [item.carried for item in history]
        return None if any(score is None for score in scores) else self._join(scores)

    def live(
        self, probe: CueBatchProbe, history: Sequence[CueHistory], *, position: int = 0
    ) -> Score:
        """Score that grows while the probed pass runs, for ``layer_causal`` and ``same_site``."""
        parts = [
            live_score(single.cue, single, before, position=position)
            for single, before in zip(probe.probes, history, strict=True)
        ]
        latest: tuple[list[Tensor | None], Tensor] | None = None

        def score(site: Site) -> Tensor | None:
            nonlocal latest
            found = [part(site) for part in parts]
            known = next((item for item in found if item is not None), None)
            if known is None:
                return None
            if len(found) == 1:
                return known
            if latest is None or any(a is not b for a, b in zip(latest[0], found, strict=True)):
                # A sample whose cue has read nothing yet has no evidence of motion.
                filled = [
                    known.new_zeros(len(before.frames), *known.shape[1:]) if item is None else item
                    for item, before in zip(found, history, strict=True)
                ]
                latest = found, self._join(filled)
            return latest[1]

        return score

    def reset(self, history: Sequence[CueHistory], which: Tensor) -> tuple[CueHistory, ...]:
        """Forget everything about the samples where `which` ``(batch,)`` is true."""
        return tuple(
            item.reset(self._own(part, which))
            for part, item in zip(self._parts, history, strict=True)
        )

    def unless(
        self, which: Tensor, new: Sequence[CueHistory], old: Sequence[CueHistory]
    ) -> tuple[CueHistory, ...]:
        """Keep the old history of the samples where `which` ``(batch,)`` is true."""
        return tuple(
            after.unless(self._own(part, which), before)
            for part, after, before in zip(self._parts, new, old, strict=True)
        )

    def _unknown(self, cue: Cue, history: CueHistory, grid: tuple[int, int]) -> Motion:
        shape = len(history.frames), len(cue_layers(cue, self._sites)), *grid
        raw = torch.full(shape, torch.nan, device=history.frames.device)
        return Motion(raw[:, 0], raw)

    def _own(self, part: _Part, values: Tensor) -> Tensor:
        return values if part.samples is None else values[part.samples.to(values.device)]

    def _join(self, scores: Sequence[Tensor | None]) -> Tensor:
        found = [score for score in scores if score is not None]
        if self._parts[0].samples is None:
            return found[0]
        joined = found[0].new_empty(len(self.cues), *found[0].shape[1:])
        for part, score in zip(self._parts, found, strict=True):
            joined[part.samples] = score.to(joined.dtype)
        return joined

    def _mask(
        self, part: _Part, masks: Mapping[str, Tensor], grid: tuple[int, int], samples: int
    ) -> Tensor:
        name = str(part.cue.of)
        if name not in masks:
            raise InvalidArgument(
                f"the cue reads the mask {name!r}, which this sequence does not have"
                f" (it has: {', '.join(masks) or 'none'}); use another cue or another sequence"
            )
        mask = masks[name]
        mask = self._own(part, mask) if len(mask) == len(self.cues) > 1 else mask
        return mask_cells(mask, grid, part.cue.pool).expand(samples, -1, -1, -1)
