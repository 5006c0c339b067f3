"""Where the numbers of a run stop being numbers: frame, site and layer."""

from collections.abc import Collection, Sequence
from typing import Any

import numpy as np
import torch

from mut3r_analysis.attention.sites import Site
from mut3r_analysis.motion.patch import acting
from mut3r_analysis.running.batch import Batch
from mut3r_analysis.running.loop import stream
from mut3r_analysis.running.passes import BatchState, FrameInput
from mut3r_analysis.running.recording import Found


def not_finite(found: Found) -> str | None:
    """Name the first variable of a frame's prediction or state norm that holds NaN or infinity."""
    checked = [("prediction", name) for name in found["prediction"]]
    checked += [("state", name) for name in ("norm", "tokens") if name in found["state"]]
    for group, name in checked:
        if not np.isfinite(found[group][name]).all():
            return f"{group}/{name}"
    return None


def first_site(
    batch: Batch, given: Sequence[FrameInput], carried: BatchState, outputs: Collection[str]
) -> dict[str, Any]:
    """Do a frame again and return the first site that reads or gives NaN or infinity.

    A caller's `intervene` is called once more for it. Empty where every site is finite: it is then
    the heads, or what is between sites.
    """
    first: dict[str, Any] = {}
    acts = acting(batch.intervene, given[0].position)

    def look(site: Site, q: Any, k: Any, v: Any, out: torch.Tensor) -> torch.Tensor | None:
        replaced = None if acts is None else acts(site, q, k, v, out)
        seen = out if replaced is None else replaced
        if not first and not all(torch.isfinite(part).all() for part in (q, k, v, seen)):
            first.update(site=site.kind, layer=site.layer)
        return replaced

    again = Batch(batch.backbone, batch.configurations, outputs=outputs, intervene=look)
    for _ in stream([again], given, [carried]):
        pass
    return first
