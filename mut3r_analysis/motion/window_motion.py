"""From products of queries and keys of all frames to a motion mask of every frame (VGGT4D)."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn import functional as F

from mut3r_analysis.attention.sites import Site, Sites
from mut3r_analysis.errors import InvalidArgument
from mut3r_analysis.motion.mask_motion import MaskMotion, stretched_per_frame
from mut3r_analysis.motion.window_cue import GRAM_FACTORS, GramFactor, WindowCue, WindowGate

_SITE = "global_self"


class GramProbe:
    """Takes the factors while all frames are read together; forms no product of all frames.

    Of the factors that are means nothing is kept but numbers per patch. Those that are deviations
    need queries and keys of their layers at once, which are kept until :meth:`factors`.

    Parameters
    ----------
    cue : WindowCue
    sites : mapping of str to SiteSize
        Of the backbone.
    frames : int
    patches : slice
        Where patches are among a frame's tokens.

    Raises
    ------
    InvalidArgument
        For a backbone that lacks the site, or the layers.
    """

    def __init__(self, cue: WindowCue, sites: Sites, frames: int, patches: slice) -> None:
        depth = sites[_SITE].layers if _SITE in sites else 0
        needed = max(factor.layers.stop for factor in GRAM_FACTORS)
        if depth < needed:
            raise InvalidArgument(
                f"the cue reads layers up to {needed - 1} of {_SITE}, of which this backbone has "
                f"{depth}; it is a cue of the released size (24 layers)"
            )
        self._frames, self._patches = frames, patches
        near = torch.tensor([[j - i in cue.offsets for j in range(frames)] for i in range(frames)])
        # Rows sum to 1 over the frames around; without any they are 0 / 0, as in official code.
        self._share = near.double() / near.sum(dim=1, keepdim=True)
        self._means: dict[str, list[Tensor]] = {}
        self._held: dict[str, list[tuple[Tensor, Tensor]]] = {}

    def __call__(self, site: Site, q: Tensor, k: Tensor) -> None:
        """Look at one site; its tokens follow each other frame by frame."""
        if site.kind != _SITE:
            return
        tokens = {"query": q, "key": k}
        for factor in GRAM_FACTORS:
            if site.layer not in factor.layers:
                continue
            own, other = (self._by_frame(tokens[side]) for side in (factor.own, factor.other))
            share = self._share.to(own)
            around = torch.einsum("fm,mhnd->fhnd", share, other)
            if factor.statistic == "mean":
                mean = torch.einsum("fhnd,fhd->fn", own, around.mean(dim=2)) / own.shape[1]
                self._means.setdefault(factor.name, []).append(mean)
            else:
                self._held.setdefault(factor.name, []).append((own, around))

    def factors(self, grid: tuple[int, int]) -> dict[str, Tensor]:
        """Return each factor ``(frame, row, column)``, as it is, on the CPU."""
        found = {name: torch.stack(layers).mean(dim=0) for name, layers in self._means.items()}
        found |= {name: _deviations(layers) for name, layers in self._held.items()}
        return {factor.name: found[factor.name].cpu().unflatten(1, grid) for factor in GRAM_FACTORS}

    def _by_frame(self, tokens: Tensor) -> Tensor:
        """Patches ``(frame, head, patch, channel)`` of ``(1, head, frame x token, channel)``."""
        framed = tokens[0].float().unflatten(1, (self._frames, -1))
        return framed[:, :, self._patches].transpose(0, 1)


def _deviations(layers: list[tuple[Tensor, Tensor]]) -> Tensor:
    """Unbiased standard deviation over the patches around, ``(frame, patch)``."""
    own, around = (torch.cat(side, dim=1) for side in zip(*layers, strict=True))
    rows = []
    for mine, theirs in zip(own, around, strict=True):  # products of one frame at a time
        centred = theirs - theirs.mean(dim=1, keepdim=True)
        product = torch.einsum("hnd,hmd->nm", mine, centred) / len(mine)
        rows.append((product.square().sum(dim=1) / (product.shape[1] - 1)).sqrt())
    return torch.stack(rows)


@dataclass(frozen=True, eq=False)
class WindowMotion(MaskMotion):
    """What the cue found in every frame.

    Attributes
    ----------
    factors : dict of str to Tensor
        Name -> ``(frame, row, column)`` in [0, 1], each stretched within its frame.
    cells : Tensor
        ``(frame, row, column)`` bool: patches with any dynamic pixel.
    **shared
        As of `MaskMotion`: ``dynamic``, ``labels``, ``smooth``, ``otsu``, ``mask``, ``cells``.
    """

    factors: dict[str, Tensor]


def motion_of_window(
    cue: WindowCue,
    factors: Mapping[str, Tensor],
    features: Tensor,
    size: tuple[int, int],
    labels: Tensor | None = None,
) -> WindowMotion:
    """Make the motion mask of every frame.

    Parameters
    ----------
    cue : WindowCue
    factors : mapping of str to Tensor
        From :meth:`GramProbe.factors`.
    features : Tensor
        ``(frame, row, column, channel)`` encoder tokens, float32.
    size : (int, int)
        Height and width of the frames, px.
    labels : Tensor, optional
        ``(frame, row, column)`` clusters that are known already.

    Raises
    ------
    InvalidArgument
        For too few patches for the clusters, or a flat map.

    Examples
    --------
    >>> import torch
    >>> factors = {factor.name: torch.rand(3, 3, 4) for factor in GRAM_FACTORS}
    >>> features = torch.randn(3, 3, 4, 8)
    >>> cue = m3.WindowCue(clusters=None)
    >>> motion_of_window(cue, factors, features, (42, 56)).mask.shape
    torch.Size([3, 42, 56])
    """
    stretched = {name: stretched_per_frame(values) for name, values in factors.items()}
    dynamic = stretched_per_frame(_product(stretched))
    found = WindowMotion.of(cue, dynamic, features, size, labels, factors=stretched)
    return replace(found, cells=found.cells > 0)


def _product(stretched: Mapping[str, Tensor]) -> Tensor:
    def of(factor: GramFactor) -> Tensor:
        return 1 - stretched[factor.name] if factor.complement else stretched[factor.name]

    first, *others = map(of, GRAM_FACTORS)
    for other in others:
        first = first * other
    return first


class WindowSiteGate:
    """The gate of a second reading of all frames together.

    Where nothing is removed it returns None, so the plain kernel runs.

    Parameters
    ----------
    gate : WindowGate
    cells : Tensor
        ``(frame, row, column)`` bool, dynamic patches.
    special : int
        Tokens before the patches of each frame.
    """

    def __init__(self, gate: WindowGate, cells: Tensor, special: int) -> None:
        self._gate = gate
        self._stays = F.pad(~cells.flatten(1), (special, 0), value=True)

    def __call__(self, site: Site, q: Tensor, k: Tensor, v: Tensor) -> Tensor | None:
        """Return the gated output ``(batch, head, query, channel)``, or None."""
        gate = self._gate
        outside = gate.layers is not None and site.layer not in gate.layers
        if site.kind not in gate.sites or outside or bool(self._stays.all()):
            return None
        keys = self._stays if site.kind == "frame_self" else self._stays.flatten()[None]
        if keys.shape != (len(k), k.shape[2]):
            raise InvalidArgument(
                f"the mask is of {self._stays.shape[0]} frames of {self._stays.shape[1]} tokens; "
                f"{site} has {len(k)} samples of {k.shape[2]} keys. Score the frames that are read"
            )
        return F.scaled_dot_product_attention(q, k, v, attn_mask=keys[:, None, None].to(q.device))
