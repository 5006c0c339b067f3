"""The probe that takes a cue's reading while a backbone runs."""

from dataclasses import replace

import torch
from torch import Tensor

from mut3r_analysis.attention.sites import SITE_KINDS, Site, Sites, check_kinds
from mut3r_analysis.attention.statistics import layers_at_once, stacked
from mut3r_analysis.attention.tokens import Axes
from mut3r_analysis.errors import InvalidArgument
from mut3r_analysis.foundation.fields import known_heads
from mut3r_analysis.foundation.layers import within
from mut3r_analysis.motion.cross_frame import (
    CROSS_FRAME,
    frame_moments,
    products,
    window_moments,
)
from mut3r_analysis.motion.cue import Cue
from mut3r_analysis.motion.history import CueHistory
from mut3r_analysis.motion.readings import patch_values
from mut3r_analysis.motion.sources import Source


def cue_layers(cue: Cue, sites: Sites) -> range:
    """Return the layers that a cue reads in a backbone with these sites.

    Raises
    ------
    InvalidArgument
        When it names a site, layers or heads that the backbone lacks.

    Examples
    --------
    >>> backbone = m3.load_backbone("tiny")
    >>> cue_layers(m3.Cue(layers=(0, 3)), backbone.sites())
    range(0, 3)
    """
    check_kinds("the cue", (cue.site,), sites)
    size, cut = sites[cue.site], Source.parse(cue.source).layers
    wanted = cue.layers if cut is None or cue.layers is not None else range(cut)
    layers = within("cue layers", wanted, size.layers)
    if not layers:
        raise InvalidArgument("a cue needs at least one layer; its range of layers is empty")
    known_heads("cue heads", cue.heads, size.heads)
    return layers


class CueProbe:
    """Takes a cue's reading at every site it names, one frame at a time.

    Parameters
    ----------
    cue : Cue
    grid : (int, int)
        Rows and columns of patches.
    sites : mapping of str to SiteSize
        Kinds of site of the backbone, from its ``sites()``.
    axes : mapping of str to TokenAxis
        Tokens of the frame, from the backbone's ``axes()``.
    samples : Tensor, optional
        ``(sample,)`` indices into the batch that this cue is for; None is the whole batch.

    Attributes
    ----------
    layers : range
        That the cue reads.

    Raises
    ------
    InvalidArgument
        When the cue names a site, layers or heads that the backbone lacks.
    """

    def __init__(
        self,
        cue: Cue,
        grid: tuple[int, int],
        sites: Sites,
        axes: Axes,
        *,
        samples: Tensor | None = None,
    ) -> None:
        self.layers = cue_layers(cue, sites) if cue.measured else range(0)
        self.cue = cue
        self.grid = grid
        self._samples = samples
        self._waiting: dict[int, tuple[Tensor, Tensor]] = {}
        self._values: dict[int, Tensor] = {}
        self._tokens: dict[int, Tensor] = {}
        self._moments: dict[int, Tensor] = {}
        if cue.measured:
            kind = SITE_KINDS[cue.site]
            self._queries, self._keys = axes[kind.queries], axes[kind.keys]

    def __call__(self, site: Site, q: Tensor, k: Tensor) -> None:
        """Read one site from rotated queries and keys ``(batch, head, token, channel)``."""
        cue = self.cue
        if not cue.measured or site.kind != cue.site or site.layer not in self.layers:
            return
        if self._samples is not None:
            q, k = q[self._samples], k[self._samples]
        if cue.heads is not None:
            q, k = q[:, list(cue.heads)], k[:, list(cue.heads)]
        if cue.across_frames:
            row = CROSS_FRAME[cue.reading]
            sides = {"query": (q, self._queries), "key": (k, self._keys)}
            own, other = (
                tokens[..., axis.patches, :] for tokens, axis in (sides[row.own], sides[row.other])
            )
            self._check_grid(site, own.shape[2])
            self._tokens[site.layer], self._moments[site.layer] = own, frame_moments(other)
            return
        self._waiting[site.layer] = q, k
        if layers_at_once(q, k) == 1:
            self._measure()

    def _measure(self) -> None:
        """Read the layers that wait, as many together as one may."""
        cue, layers = self.cue, list(self._waiting)
        count = layers_at_once(*self._waiting[layers[0]]) if layers else 1
        for first in range(0, len(layers), count):
            some = layers[first : first + count]
            values = patch_values(
                cue.base,
                *stacked([self._waiting[layer] for layer in some]),
                self._queries,
                self._keys,
                pose=cue.pose,
                diagonal=cue.diagonal,
            )
            self._check_grid(Site(cue.site, some[0]), values.shape[-1])
            self._values |= dict(zip(some, self._reduced(values).unbind(0), strict=True))
        self._waiting.clear()

    def _check_grid(self, site: Site, patches: int) -> None:
        if patches != self.grid[0] * self.grid[1]:
            raise InvalidArgument(
                f"the cue was made for a grid of {self.grid[0]} x {self.grid[1]} patches; "
                f"{site} has {patches}. Use the grid of the frame that is read"
            )

    def _reduced(self, values: Tensor) -> Tensor:
        """Values ``(..., head, patch)`` with heads reduced, on the grid."""
        mean = self.cue.head_reduction == "mean"
        values = values.mean(dim=-2) if mean else values.quantile(0.5, dim=-2)
        return values.unflatten(-1, self.grid)

    @property
    def complete(self) -> bool:
        """Whether every layer of the cue was seen; always, for a cue that is not measured."""
        seen = len(self._tokens or self._values) + len(self._waiting)
        return not self.cue.measured or seen == len(self.layers)

    def raw(self, history: CueHistory | None = None, *, before: int | None = None) -> Tensor | None:
        """Return what was read since the probe was made.

        Parameters
        ----------
        history : CueHistory, optional
            Of earlier frames, with which readings across frames compare; before there are any
            their values are 0.
        before : int, optional
            Leave out this layer and those after it.

        Returns
        -------
        Tensor or None
            ``(batch, layer, patch_row, patch_col)``; None where nothing was read.
        """
        self._measure()
        seen = self._tokens or self._values
        layers = [layer for layer in sorted(seen) if before is None or layer < before]
        for place, layer in enumerate(sorted(self._tokens)):
            if layer in layers and layer not in self._values:
                self._values[layer] = self._compared(self._tokens[layer], place, history)
        return torch.stack([self._values[layer] for layer in layers], dim=1) if layers else None

    def _compared(self, tokens: Tensor, place: int, history: CueHistory | None) -> Tensor:
        """Compare patches ``(batch, head, patch, channel)`` of a layer with those of the past."""
        if history is None or history.moments is None:
            return tokens.new_zeros(len(tokens), *self.grid, dtype=torch.float32)
        past = history.moments[:, :, place]
        ages = torch.arange(past.shape[1], 0, -1, device=past.device)
        mean, covariance = window_moments(past, (ages <= history.frames[:, None]).to(past.dtype))
        row = CROSS_FRAME[self.cue.reading]
        return self._reduced(products(tokens, mean, covariance, row.moment))

    def remembered(self, history: CueHistory) -> CueHistory:
        """Return a history to which this frame's queries or keys belong, where a cue needs them."""
        if not self._moments:
            return history
        new = torch.stack([self._moments[layer] for layer in sorted(self._moments)], dim=1)
        past = history.moments
        if past is None:
            past = new.new_zeros(len(new), self.cue.window, *new.shape[1:])
        return replace(history, moments=torch.cat([past[:, 1:], new[:, None]], dim=1))
