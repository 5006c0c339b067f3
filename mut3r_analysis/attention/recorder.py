"""The probe that records what a capture asks for, one frame at a time."""

import warnings
from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from mut3r_analysis.attention.capture import Capture
from mut3r_analysis.attention.seam import logits
from mut3r_analysis.attention.sites import SITE_KINDS, Site, Sites
from mut3r_analysis.attention.statistics import STATISTICS, compute, layers_at_once, stacked
from mut3r_analysis.attention.tokens import Axes, TokenAxis

_INFINITE_IN_FLOAT16 = 65520.0
ARCHIVE_NAMES = ("rotated_query", "rotated_key")

Records = Mapping[str, Mapping[str, Tensor]]
"""Site kind -> name -> ``(batch, layer, head, ...)``; maps on the CPU, the rest on the device."""


class _Kept(NamedTuple):
    """What is recorded at one kind of site."""

    pose_key: int | None
    cached: TokenAxis | None
    layers: frozenset[int]
    map: bool
    outputs: str | None


class Recorder:
    """Records the sites that a capture names, of one pass over one frame.

    Large sites are computed one by one, while queries and keys are in cache. Layers of which
    several fit into a tile, as all do on a GPU, wait for the end of the pass and are computed
    together. Whole maps leave the device site by site, so that its memory holds at most one.

    Parameters
    ----------
    capture : Capture
    sites : mapping of str to SiteSize
        Kinds of site of the backbone, from its ``sites()``.
    axes : mapping of str to TokenAxis
        Tokens of the frame, from the backbone's ``axes()``.
    """

    def __init__(self, capture: Capture, sites: Sites, axes: Axes) -> None:
        self._statistics = [STATISTICS[name] for name in capture.statistics]
        self._heads = None if capture.heads is None else list(capture.heads)
        self._storage = getattr(torch, capture.dtype)
        self._archive = getattr(torch, capture.archive) if capture.archive else None
        self._kept = {
            kind: _Kept(
                axes[SITE_KINDS[kind].keys].first("pose"),
                _cached(axes[SITE_KINDS[kind].keys]),
                frozenset(capture.layers or range(sites[kind].layers)),
                capture.keeps_map(kind),
                capture.keeps_outputs(kind),
            )
            for kind in capture.kinds(sites)
        }
        self._waiting: dict[str, list[tuple[Tensor, Tensor]]] = {}
        self._records: dict[str, dict[str, list[Tensor]]] = {}
        self._beyond: dict[str, Tensor] = {}
        self._warned: set[str] = set()

    @property
    def watches_outputs(self) -> bool:
        """Whether :meth:`output` has to be shown what the heads write."""
        return any(kept.outputs for kept in self._kept.values())

    def __call__(self, site: Site, q: Tensor, k: Tensor) -> None:
        """Record one site from rotated queries and keys ``(batch, head, token, channel)``."""
        kept = self._kept.get(site.kind)
        if kept is None or site.layer not in kept.layers:
            return
        if self._heads is not None:
            q, k = q[:, self._heads], k[:, self._heads]
        self._waiting.setdefault(site.kind, []).append((q, k))
        if layers_at_once(q, k) == 1:
            self._measure(site.kind)
        if kept.map:
            self._add(site.kind, {"logits": self._stored(site.kind, "logits", logits(q, k)[None])})

    def _measure(self, kind: str) -> None:
        """Compute and store what is asked of the layers of a kind that wait for it."""
        waiting = self._waiting.pop(kind)
        count = layers_at_once(*waiting[0])
        for first in range(0, len(waiting), count):
            q, k = stacked(waiting[first : first + count])
            found = compute(self._statistics, q, k, pose_key=self._kept[kind].pose_key)
            found = {name: self._stored(kind, name, values) for name, values in found.items()}
            if self._archive is not None:
                found |= {
                    name: self._stored(kind, name, tokens, self._archive)
                    for name, tokens in zip(ARCHIVE_NAMES, (q, k), strict=True)
                }
            self._add(kind, found)

    def output(self, site: Site, q: Tensor, k: Tensor, v: Tensor, out: Tensor) -> None:
        """Record what the heads of a site write ``(batch, head, query, channel)``."""
        kept = self._kept.get(site.kind)
        if kept is None or kept.outputs is None or site.layer not in kept.layers:
            return
        out = out if self._heads is None else out[:, self._heads]
        found = {"output_norm": out.float().norm(dim=-1)}
        if kept.outputs == "values":
            found["output"] = out
        self._add(
            site.kind,
            {name: self._stored(site.kind, name, values[None]) for name, values in found.items()},
        )

    def _add(self, kind: str, found: Mapping[str, Tensor]) -> None:
        records, cached = self._records.setdefault(kind, {}), self._kept[kind].cached
        for name, values in found.items():
            if cached is not None and (dim := _key_dim(name)) is not None:
                values = cached.by_frame(values, dim)
            records.setdefault(name, []).append(values.cpu() if name == "logits" else values)

    def _stored(
        self, kind: str, name: str, values: Tensor, dtype: torch.dtype | None = None
    ) -> Tensor:
        """Return values in the numbers they are stored as; count those that do not fit."""
        dtype = dtype or self._storage
        if dtype == torch.float16:
            # Minus infinity itself stands for a key that is masked.
            beyond = ((values.abs() >= _INFINITE_IN_FLOAT16) & values.isfinite()).sum()
            variable = f"{kind}/{name}"
            known = self._beyond.get(variable)
            self._beyond[variable] = beyond if known is None else known + beyond
        return values.to(dtype)

    def _warn_of_overflow(self) -> None:
        """Say, once each, which variables do not fit into the numbers they are stored as."""
        if not self._beyond:
            return
        counts = torch.stack(list(self._beyond.values())).tolist()
        for name, count in zip(self._beyond, counts, strict=True):
            if name not in self._warned and count:
                self._warned.add(name)
                warnings.warn(
                    f"attention/{name}: {count} values of a frame are beyond what float16 "
                    "holds and are stored as infinity; capture with dtype='float32', or "
                    "archive='float32' for queries and keys",
                    stacklevel=3,
                )
        self._beyond = {}

    def take(self) -> dict[str, dict[str, Tensor]]:
        """Return what was recorded since the last call and forget it.

        Returns
        -------
        dict of str to dict of str to Tensor
            Site kind -> name -> ``(batch, layer, head, ...)``; whole maps on the CPU, the rest on
            the device that it was made on.
        """
        for kind in list(self._waiting):
            self._measure(kind)
        self._warn_of_overflow()
        records, self._records = self._records, {}
        return {
            kind: {name: torch.cat(layers).transpose(0, 1) for name, layers in found.items()}
            for kind, found in records.items()
        }


def _cached(axis: TokenAxis) -> TokenAxis | None:
    """Return an axis whose tokens are stored by the frame that they come from."""
    return axis if axis.frame is not None else None


def _key_dim(name: str) -> int | None:
    """Return the dimension along which a record has the keys; None where it has none."""
    if name in STATISTICS:
        return -1 if STATISTICS[name].side == "key" else None
    return {"logits": -1, "rotated_key": -2}.get(name)
