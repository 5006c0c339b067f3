"""The probe that takes a cue's reading while a backbone runs."""

import torch
from torch import Tensor

from mut3r_analysis.attention.sites import SITE_KINDS, Site, Sites, check_kinds
from mut3r_analysis.attention.tokens import Axes
from mut3r_analysis.errors import InvalidArgument
from mut3r_analysis.foundation.fields import known_heads
from mut3r_analysis.foundation.layers import within
from mut3r_analysis.motion.cue import Cue
from mut3r_analysis.motion.readings import patch_values
from mut3r_analysis.motion.sources import Source


def cue_layers(cue: Cue, sites: Sites) -> range:
    """Return the layers that a cue reads in a backbone with these sites.

    Raises
    ------
    InvalidArgument
        When it names a site, layers or heads that the backbone lacks.
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
        self._values: dict[int, Tensor] = {}
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
        values = patch_values(
            cue.base, q, k, self._queries, self._keys, pose=cue.pose, diagonal=cue.diagonal
        )
        if values.shape[-1] != self.grid[0] * self.grid[1]:
            raise InvalidArgument(
                f"the cue was made for a grid of {self.grid[0]} x {self.grid[1]} patches; "
                f"{site} has {values.shape[-1]}. Use the grid of the frame that is read"
            )
        mean = cue.head_reduction == "mean"
        values = values.mean(dim=1) if mean else values.quantile(0.5, dim=1)
        self._values[site.layer] = values.unflatten(-1, self.grid)

    @property
    def complete(self) -> bool:
        """Whether every layer of the cue was seen; always, for a cue that is not measured."""
        return not self.cue.measured or len(self._values) == len(self.layers)

    def raw(self, *, before: int | None = None) -> Tensor | None:
        """Return what was read since the probe was made.

        Parameters
        ----------
        before : int, optional
            Leave out this layer and those after it.

        Returns
        -------
        Tensor or None
            ``(batch, layer, patch_row, patch_col)``; None where nothing was read.
        """
        seen = [layer for layer in sorted(self._values) if before is None or layer < before]
        return torch.stack([self._values[layer] for layer in seen], dim=1) if seen else None
