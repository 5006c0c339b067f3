"""From what pairs of frames pay attention to, to a motion mask of every frame (Easi3R)."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from mut3r_analysis.attention.sites import SITE_KINDS, Site
from mut3r_analysis.attention.statistics import STATISTICS, compute
from mut3r_analysis.errors import InvalidArgument
from mut3r_analysis.motion.batch import CueMeasured
from mut3r_analysis.motion.mask_motion import EPSILON, MaskMotion, stretched_per_frame
from mut3r_analysis.motion.pair_cue import PairCue, PairGate
from mut3r_analysis.motion.site_gates import static_to_dynamic

SOURCES = {"view2": "view1_to_view2", "view1": "view2_to_view1"}
"""The view whose patches are keys -> where they are read."""


class Received:
    """Probe of one pair: the mean logit that each key patch receives.

    Parameters
    ----------
    grids : ((int, int), (int, int))
        Rows and columns of patches of view 1 and of view 2.
    stop : int, optional
        Layers after which the pass ends, with a :class:`~mut3r_analysis.motion.CueMeasured`.
    """

    def __init__(
        self, grids: tuple[tuple[int, int], tuple[int, int]], stop: int | None = None
    ) -> None:
        self._stop = stop
        self._grids = dict(zip(("view1", "view2"), grids, strict=True))
        self._layers: dict[str, list[Tensor]] = {view: [] for view in SOURCES}

    def __call__(self, site: Site, q: Tensor, k: Tensor) -> None:
        """Look at one site of a single pair."""
        for view, kind in SOURCES.items():
            if site.kind == kind:
                found = compute([STATISTICS["received_logit"]], q, k)["received_logit"]
                self._layers[view].append(found[0].cpu())
        if all(len(layers) == self._stop for layers in self._layers.values()):
            raise CueMeasured

    def of(self, view: str) -> Tensor:
        """``(row, column, layer, head)`` of the patches of a view, ``"view1"`` or ``"view2"``."""
        return torch.stack(self._layers[view]).unflatten(-1, self._grids[view]).permute(2, 3, 0, 1)


class Aggregate(NamedTuple):
    """Mean and unbiased standard deviation over partners, and both fused.

    ``mean`` and ``std`` are ``(frame, row, column, channel)``, channels being heads of layers, and
    the fused ones ``(frame, row, column)`` in [0, 1].
    """

    mean: Tensor
    std: Tensor
    fused_mean: Tensor
    fused_std: Tensor


@dataclass(frozen=True, eq=False)
class PairMotion(MaskMotion):
    """What a cue of pairs found in every frame.

    Attributes
    ----------
    view2, view1 : Aggregate
        Of a frame's patches as keys, in pairs in which it is view 2 and view 1.
    **shared
        As of `MaskMotion`: ``dynamic``, ``labels``, ``smooth``, ``otsu``, ``mask``, ``cells``.
    """

    view2: Aggregate
    view1: Aggregate


def motion_of_pairs(
    cue: PairCue,
    received: tuple[Tensor, Tensor],
    edges: Sequence[tuple[int, int]],
    features: Tensor,
    size: tuple[int, int],
    labels: Tensor | None = None,
) -> PairMotion:
    """Make the motion mask of every frame.

    Parameters
    ----------
    cue : PairCue
    received : (Tensor, Tensor)
        ``(pair, row, column, layer, head)``: of the patches of view 2, and of those of view 1.
    edges : sequence of (int, int)
        View 1 and view 2 of each pair, as positions of frames.
    features : Tensor
        ``(frame, row, column, channel)`` encoder tokens, float32.
    size : (int, int)
        Height and width of the frames, px.
    labels : Tensor, optional
        ``(frame, row, column)`` clusters that are known already.

    Raises
    ------
    InvalidArgument
        For frames with too few partners, too few patches for the clusters, or a flat map.

    Examples
    --------
    >>> import torch
    >>> edges = m3.running.pair_edges("complete", 3)
    >>> received = tuple(torch.rand(len(edges), 3, 4, 2, 2) for view in (2, 1))
    >>> features = torch.randn(3, 3, 4, 8)
    >>> cue = m3.PairCue(clusters=None)
    >>> motion_of_pairs(cue, received, edges, features, (24, 32)).mask.shape
    torch.Size([3, 24, 32])
    """
    frames = len(features)
    check_partners(cue, edges, frames)
    view2, view1 = (
        _aggregate(cue, values, [edge[side] for edge in edges], frames)
        for values, side in zip(received, (1, 0), strict=True)
    )
    dynamic = stretched_per_frame(
        (1 - view2.fused_mean) * view2.fused_std * view1.fused_mean * (1 - view1.fused_std)
    )
    return PairMotion.of(cue, dynamic, features, size, labels, view2=view2, view1=view1)


def check_partners(cue: PairCue, edges: Sequence[tuple[int, int]], frames: int) -> None:
    """Refuse pairs in which a frame has too few partners for a standard deviation."""
    least = 2 if cue.single == "refuse" else 1
    for side, view in enumerate(("view 1", "view 2")):
        given = [edge[side] for edge in edges]
        few = [frame for frame in range(frames) if given.count(frame) < least]
        if few:
            raise InvalidArgument(
                f"the frames at positions {few} are {view} of fewer than {least} pairs; the cue "
                "takes the standard deviation over the partners of a frame, as view 1 and as view "
                "2. Give a graph with more pairs in both directions, such as 'swin-2' or "
                "'complete' of at least three frames"
            )


def _aggregate(cue: PairCue, values: Tensor, owners: Sequence[int], frames: int) -> Aggregate:
    values = as_batched(values, cue.batch).flatten(3)
    if cue.corner:
        if min(values.shape[1:3]) < 2:
            raise InvalidArgument(
                f"a grid of {values.shape[1]} x {values.shape[2]} patches has no patch beside and "
                "below the first one, which replace it; use corner=False, or larger frames"
            )
        values = values.clone()
        values[:, 0, 0] = (values[:, 0, 1] + values[:, 1, 0]) / 2
    own = torch.tensor(owners)
    groups = [values[own == frame] for frame in range(frames)]
    mean = torch.stack([group.mean(dim=0) for group in groups])
    std = torch.stack(
        [
            group.std(dim=0) if len(group) > 1 else torch.full_like(group[0], torch.nan)
            for group in groups
        ]
    )
    return Aggregate(mean, std, fused(mean), fused(std))


def as_batched(values: Tensor, batch: int) -> Tensor:
    """Mix ``(pair, row, column, layer, head)`` as official code does with so many pairs at once.

    It holds them as (row, column, layer, pair, head) and reads that as if pairs came first.
    """
    if batch == 1:
        return values
    parts = [part.permute(1, 2, 3, 0, 4).reshape(part.shape) for part in values.split(batch)]
    return torch.cat(parts)


def fused(values: Tensor) -> Tensor:
    """Stretch ``(frame, row, column, channel)``, average channels, and stretch again: to [0, 1]."""
    return _stretched(_stretched(values).mean(dim=-1))


def _stretched(values: Tensor) -> Tensor:
    low = values.min()
    return (values - low) / (values.max() - low + EPSILON)


class PairSiteGate:
    """The gate of one pair: give it to a model's ``decode_pair``.

    Where no static patch would lose anything it returns None, so the plain kernel runs.

    Parameters
    ----------
    gate : PairGate
    first, second : Tensor
        ``(row, column)`` scores in [0, 1] of the patches of view 1 and of view 2.
    """

    def __init__(self, gate: PairGate, first: Tensor, second: Tensor) -> None:
        self._gate = gate
        self._dynamic = {
            "patches": first.flatten()[None] > gate.threshold,
            "partner": second.flatten()[None] > gate.threshold,
        }

    def __call__(self, site: Site, q: Tensor, k: Tensor, v: Tensor) -> Tensor | None:
        """Return the gated output ``(batch, head, query, channel)``, or None."""
        gate, kind = self._gate, SITE_KINDS[site.kind]
        if site.kind not in gate.sites:
            return None
        if gate.layers is not None and site.layer not in gate.layers:
            return None
        queries, keys = (self._dynamic[side].to(q.device) for side in (kind.queries, kind.keys))
        if bool(queries.all()) or not bool(keys.any()):
            return None
        return static_to_dynamic(q, k, v, queries, keys, dense=q.device.type == "cpu")
