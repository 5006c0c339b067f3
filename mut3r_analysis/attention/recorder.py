"""The probe that records what a capture asks for, one frame at a time."""

import torch
from torch import Tensor

from mut3r_analysis.attention.capture import Capture
from mut3r_analysis.attention.seam import logits
from mut3r_analysis.attention.sites import SITE_KINDS, Site
from mut3r_analysis.attention.statistics import site_statistics

ARCHIVE_NAMES = ("rotated_query", "rotated_key")


class Recorder:
    """Records the sites that a capture names.

    Statistics stay on the device until the frame is over; maps and archived queries and keys leave
    it site by site, so that device memory holds at most one map.

    Parameters
    ----------
    capture : Capture
    """

    def __init__(self, capture: Capture) -> None:
        self._capture = capture
        self._heads = None if capture.heads is None else list(capture.heads)
        self._storage = getattr(torch, capture.dtype)
        self._archive = getattr(torch, capture.archive) if capture.archive else None
        self._records: dict[str, dict[str, list[Tensor]]] = {}

    def __call__(self, site: Site, q: Tensor, k: Tensor) -> None:
        """Record one site from rotated queries and keys ``(batch, head, token, channel)``."""
        capture = self._capture
        if site.kind not in capture.sites:
            return
        if capture.layers is not None and site.layer not in capture.layers:
            return
        if self._heads is not None:
            q, k = q[:, self._heads], k[:, self._heads]
        pose_key = 0 if SITE_KINDS[site.kind].keys == "image" else None
        found = site_statistics(capture.statistics, q, k, pose_key=pose_key)
        found = {name: values.to(self._storage) for name, values in found.items()}
        if site.kind in capture.maps:
            found["logits"] = logits(q, k).to("cpu", self._storage)
        if self._archive is not None:
            found |= {
                name: tokens.to("cpu", self._archive)
                for name, tokens in zip(ARCHIVE_NAMES, (q, k), strict=True)
            }
        records = self._records.setdefault(site.kind, {})
        for name, values in found.items():
            records.setdefault(name, []).append(values)

    def take(self) -> dict[str, dict[str, Tensor]]:
        """Return what was recorded since the last call and forget it.

        Returns
        -------
        dict of str to dict of str to Tensor
            Site kind -> name -> ``(batch, layer, head, ...)`` on the CPU.
        """
        records, self._records = self._records, {}
        return {
            kind: {name: torch.stack(layers, dim=1).cpu() for name, layers in found.items()}
            for kind, found in records.items()
        }
