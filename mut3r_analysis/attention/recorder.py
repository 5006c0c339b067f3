"""The probe that records what a capture asks for, one frame at a time."""

import warnings
from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from mut3r_analysis.attention.capture import Capture
from mut3r_analysis.attention.seam import logits
from mut3r_analysis.attention.sites import SITE_KINDS, Site, Sites
from mut3r_analysis.attention.statistics import STATISTICS, compute
from mut3r_analysis.attention.tokens import Axes, TokenAxis

_INFINITE_IN_FLOAT16 = 65520.0
ARCHIVE_NAMES = ("rotated_query", "rotated_key")

Records = Mapping[str, Mapping[str, Tensor]]
"""Site kind -> name -> ``(batch, layer, head, ...)`` on the CPU."""


class _Kept(NamedTuple):
    """What is recorded at one kind of site."""

    pose_key: int | None
    cached: TokenAxis | None
    layers: frozenset[int]
    map: bool
    outputs: str | None


class Recorder:
    """Records the sites that a capture names, of one pass over one frame.

    Statistics stay on the device until the frame is over; maps and archived queries and keys leave
    it site by site, so that device memory holds at most one map.

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
        found = compute(self._statistics, q, k, pose_key=kept.pose_key)
        found = {name: self._stored(site, name, values) for name, values in found.items()}
        if kept.map:
            found["logits"] = self._stored(site, "logits", logits(q, k)).cpu()
        if self._archive is not None:
            found |= {
                name: self._stored(site, name, tokens, self._archive).cpu()
                for name, tokens in zip(ARCHIVE_NAMES, (q, k), strict=True)
            }
        if kept.cached is not None:
            found = {
                name: values
                if (dim := _key_dim(name)) is None
                else kept.cached.by_frame(values, dim)
                for name, values in found.items()
            }
        self._add(site.kind, found)

    def output(self, site: Site, q: Tensor, k: Tensor, v: Tensor, out: Tensor) -> None:
        """Record what the heads of a site write ``(batch, head, query, channel)``."""
        kept = self._kept.get(site.kind)
        if kept is None or kept.outputs is None or site.layer not in kept.layers:
            return
        out = out if self._heads is None else out[:, self._heads]
        found = {"output_norm": self._stored(site, "output_norm", out.float().norm(dim=-1))}
        if kept.outputs == "values":
            found["output"] = self._stored(site, "output", out).cpu()
        self._add(site.kind, found)

    def _add(self, kind: str, found: Mapping[str, Tensor]) -> None:
        records = self._records.setdefault(kind, {})
        for name, values in found.items():
            records.setdefault(name, []).append(values)

    def _stored(
        self, site: Site, name: str, values: Tensor, dtype: torch.dtype | None = None
    ) -> Tensor:
        """Return values in the numbers they are stored as; count those that do not fit."""
        dtype = dtype or self._storage
        if dtype == torch.float16:
            # Minus infinity itself stands for a key that is masked.
            beyond = ((values.abs() >= _INFINITE_IN_FLOAT16) & values.isfinite()).sum()
            variable = f"{site.kind}/{name}"
            known = self._beyond.get(variable)
            self._beyond[variable] = beyond if known is None else known + beyond
        return values.to(dtype)

    def _warn_of_overflow(self) -> None:
        """Say, once each, which variables do not fit into the numbers they are stored as."""
        for name, count in self._beyond.items():
            if name not in self._warned and count:
                self._warned.add(name)
                warnings.warn(
                    f"attention/{name}: {int(count)} values of a frame are beyond what float16 "
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
            Site kind -> name -> ``(batch, layer, head, ...)`` on the CPU.
        """
        self._warn_of_overflow()
        records, self._records = self._records, {}
        return {
            kind: {name: torch.stack(layers, dim=1).cpu() for name, layers in found.items()}
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
