"""Signals: what write rules may ask of a frame."""

import math
from collections.abc import Callable, Collection, Mapping
from typing import Protocol

import torch
from torch import Tensor

from mut3r_analysis.attention.sites import Site
from mut3r_analysis.attention.statistics import STATISTICS, compute

Signals = Mapping[str, Tensor]


class SignalProbe(Protocol):
    """A probe of one decoder pass that ends in one value."""

    def __call__(self, site: Site, q: Tensor, k: Tensor) -> None:
        """Look at one site ``(batch, head, token, channel)``."""

    @property
    def value(self) -> Tensor:
        """What was found, with a leading batch."""


class MeanLogits:
    """Probe that averages state-to-image logits over heads and layers.

    Parameters
    ----------
    keys : bool
        Whether to average over keys too (pose key included). That average is linear in the keys,
        so it costs one dot product per query; the map ``(batch, state_token, key)`` is formed only
        when its single entries are needed.
    """

    def __init__(self, keys: bool) -> None:
        self._average_keys = keys
        self._sum: Tensor | float = 0.0
        self._sites = 0

    def __call__(self, site: Site, q: Tensor, k: Tensor) -> None:
        """Add one site ``(batch, head, token, channel)``."""
        if site.kind != "state_to_image":
            return
        q, k = q.float(), k.float()
        heads, channels = q.shape[1], q.shape[3]
        if self._average_keys:
            k = k.mean(dim=2, keepdim=True)
        # One product in the concatenated width of all heads sums over heads and channels at once.
        product = q.transpose(1, 2).flatten(2) @ k.transpose(1, 2).flatten(2).mT
        self._sum = self._sum + product / (heads * channels**0.5)
        self._sites += 1

    @property
    def value(self) -> Tensor:
        """``(batch, state_token)``, or ``(batch, state_token, key)`` where keys are told apart."""
        if not isinstance(self._sum, Tensor):
            raise RuntimeError("no state-to-image site has been probed yet")
        mean = self._sum / self._sites
        return mean[..., 0] if self._average_keys else mean


class PatchEntropy:
    """Probe of the entropy with which each state token reads patches, over its largest, log M.

    The pose key is left out before the softmax. No map is kept.
    """

    def __init__(self) -> None:
        self._layers: list[Tensor] = []

    def __call__(self, site: Site, q: Tensor, k: Tensor) -> None:
        """Add one site ``(batch, head, token, channel)``."""
        if site.kind == "state_to_image":
            patches = k[:, :, 1:]
            found = compute([STATISTICS["entropy"]], q, patches)["entropy"]
            self._layers.append(found / math.log(patches.shape[2]))

    @property
    def value(self) -> Tensor:
        """``(batch, layer, head, state_token)`` in [0, 1]."""
        return torch.stack(self._layers, dim=1)


class MeanAttention:
    """Probe of the attention with which state tokens read patches, mean over layers and heads.

    The pose key is left out before the softmax.
    """

    def __init__(self) -> None:
        self._sum: Tensor | float = 0.0
        self._sites = 0

    def __call__(self, site: Site, q: Tensor, k: Tensor) -> None:
        """Add one site ``(batch, head, token, channel)``."""
        if site.kind == "state_to_image":
            logits = q.float() @ k[:, :, 1:].float().mT / q.shape[-1] ** 0.5
            self._sum = self._sum + logits.softmax(dim=-1).mean(dim=1)
            self._sites += 1

    @property
    def value(self) -> Tensor:
        """``(batch, state_token, patch)``."""
        if not isinstance(self._sum, Tensor):
            raise RuntimeError("no state-to-image site has been probed yet")
        return self._sum / self._sites


SIGNALS: dict[str, Callable[[], SignalProbe]] = {
    "mean_logit": lambda: MeanLogits(keys=True),
    "mean_logit_map": lambda: MeanLogits(keys=False),
    "entropy": PatchEntropy,
    "attention": MeanAttention,
}
"""What a decoder can be asked to take for write rules: name -> probe of one pass."""

GIVEN_SIGNALS = (
    "features", "embedded", "decoded", "image", "before", "initial", "proposal", "writes",
    "motion", "static_mass",
)  # fmt: skip
"""What a commit knows without a probe: encoder tokens ``(batch, patch, channel)``, the patches as
they enter the decoder and as they leave it, the image ``(batch, rgb, y, x)``; the state before and
at the start and the decoder's output state ``(batch, state_token, channel)``; whether the frame may
write ``(batch,)``; and, where a cue is measured, the motion score ``(batch, patch)`` and the static
mass ``(batch, state_token)`` of what was read."""

PREDICTED_SIGNALS = ("pose", "depth")
"""What the heads predict of the pass that is written: ``(batch, 7)``, and ``(batch, y, x)`` in m.
Rules that need it have the heads run."""


def watched(signals: Collection[str]) -> dict[str, SignalProbe]:
    """Return fresh probes for signals that a decoder takes."""
    return {name: SIGNALS[name]() for name in signals}
