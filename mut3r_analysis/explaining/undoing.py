"""Runs again with a treatment switched off somewhere, to see how much of its effect goes."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import xarray as xr
from torch import Tensor
from torch.nn import functional as F

from mut3r_analysis.attention.seam import Observer
from mut3r_analysis.attention.sites import SITE_KINDS, Site
from mut3r_analysis.backbones.protocol import Backbone
from mut3r_analysis.running import Configuration, run_batch
from mut3r_analysis.running.grouping import grouped


class Part(NamedTuple):
    """Where a treatment is switched off: None is everywhere along that."""

    frame: int | None = None
    site: str | None = None
    layer: int | None = None
    head: int | None = None
    query: int | None = None
    stream: str | None = None
    """Of the queries of a site."""

    def holds(self, frame: int, site: Site) -> bool:
        """Whether a site in a frame, by its position, is of this part."""
        pairs = (
            (self.frame, frame),
            (self.site, site.kind),
            (self.layer, site.layer),
            (self.stream, SITE_KINDS[site.kind].queries),
        )
        return all(wanted is None or wanted == given for wanted, given in pairs)


class Undo:
    """Lets a treatment act in every run of a batch but for one part of it.

    Parameters
    ----------
    parts : sequence of Part
        One per run of the batch.
    intervene : callable, optional
        That of the treated run.
    gate : bool
        Whether the treatment is a gate as well: what it does at a site is replaced by what the
        site computes without one.

    Notes
    -----
    Frames are told apart by the first site of a frame, which is of the encoder. The encoder is
    shared by the runs of a batch: an intervention there acts in all of them.
    """

    def __init__(self, parts: Sequence[Part], intervene: Observer | None, gate: bool) -> None:
        self._parts, self._intervene, self._gate = parts, intervene, gate
        self._first: Site | None = None
        self._frame = -1

    def __call__(self, site: Site, q: Tensor, k: Tensor, v: Tensor, out: Tensor) -> Tensor | None:
        """Return the outputs of the treated run, and of the plain one where it is switched off."""
        self._first = self._first or site
        self._frame += site == self._first
        acted = None if self._intervene is None else self._intervene(site, q, k, v, out)
        off = [part.holds(self._frame, site) for part in self._parts]
        if len(out) != len(off) or not any(off):
            return acted
        ungated = (
            self._gate and SITE_KINDS[site.kind].plain and SITE_KINDS[site.kind].part == "decoder"
        )
        original = F.scaled_dot_product_attention(q, k, v) if ungated else out
        found = (out if acted is None else acted).clone()
        for row, part in enumerate(self._parts):
            if off[row]:
                here = tuple(slice(None) if n is None else n for n in (part.head, part.query))
                found[(row, *here)] = original[(row, *here)]
        return found


def undone(
    parts: Sequence[Part],
    treated: Configuration,
    backbone: Backbone,
    sequence: xr.Dataset,
    *,
    intervene: Observer | None,
    gate: bool,
    outputs: Sequence[str],
    measure: Callable[[xr.DataTree], float],
) -> list[float]:
    """Measure the treated run again, with each part of the treatment switched off in turn.

    Parameters
    ----------
    parts : sequence of Part
    treated : Configuration
    backbone, sequence
    intervene, gate
        As for :class:`Undo`.
    outputs : sequence of str
        Predictions that are measured.
    measure : callable
        From a run to a number.
    """
    size = sequence.sizes["y"], sequence.sizes["x"]
    found: list[float] = []
    for members in grouped(backbone, [treated] * len(parts), *size):
        runs = run_batch(
            backbone,
            sequence,
            [treated] * len(members),
            outputs=outputs,
            intervene=Undo([parts[member] for member in members], intervene, gate),
            progress=False,
        )
        found += [measure(run) for run in runs]
    return found
