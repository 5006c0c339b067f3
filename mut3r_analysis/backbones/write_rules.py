"""Write rules: how much of the new state each state token takes over from a frame.

The committed state is ``s + u b (s' - s)`` per token: s' is the decoder's output state, u is 1 for
a frame that may write, and b is the rate that the rule computes. The pose memory takes u alone.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from mut3r_analysis.attention.sites import Site


class MeanLogitMap:
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
    def mean(self) -> Tensor:
        """``(batch, state_token, key)``, or one key when keys are averaged."""
        if not isinstance(self._sum, Tensor):
            raise RuntimeError("no state-to-image site has been probed yet")
        return self._sum / self._sites


@dataclass(frozen=True, eq=False)
class History:
    """What TTSA3R remembers of the previous frame.

    Attributes
    ----------
    features : Tensor
        ``(batch, patch, channel)`` encoder tokens.
    proposal : Tensor
        ``(batch, state_token, channel)`` decoder output state, before any rate.
    known : Tensor
        ``(batch,)`` bool: false where nothing was written since the start or a reset.
    """

    features: Tensor
    proposal: Tensor
    known: Tensor


def full_rate(proposal: Tensor) -> Tensor:
    """CUT3R: every token is replaced. Returns ones ``(batch, state_token)``."""
    return proposal.new_ones(proposal.shape[:2], dtype=torch.float32)


def ttt3r_rate(mean_logit: Tensor) -> Tensor:
    """TTT3R: sigmoid of the mean state-to-image logit ``(batch, state_token)``."""
    return mean_logit.sigmoid()


def ttsa3r_rate(mean_map: Tensor, features: Tensor, proposal: Tensor, history: History) -> Tensor:
    """TTSA3R: temporal change of the state times spatial change where the state looks.

    Two faults of the authors' code are not repeated. There, a frame that must not write
    (``update`` false) writes nevertheless from the second frame on; here the rate is multiplied by
    that flag, as in TTT3R. There, the batch path keeps its buffers of the previous frame over a
    reset and compares across it; here they are forgotten, as in the authors' recurrent path, and
    the frame after a reset is written in full.

    Parameters
    ----------
    mean_map : Tensor
        ``(batch, state_token, key)`` mean logit over heads and layers; key 0 is the pose token and
        is left out.
    features, proposal : Tensor
        This frame's encoder tokens ``(batch, patch, channel)`` and decoder output state.
    history : History
        The same of the previous frame.

    Returns
    -------
    Tensor
        ``(batch, state_token)`` in (0, 1).
    """
    change = (proposal.float() - history.proposal.float()).norm(dim=-1)
    temporal = (change / change.mean(dim=-1, keepdim=True) - 1.5).sigmoid()
    drift = 1 - F.cosine_similarity(features.float(), history.features.float(), dim=-1)
    spatial = (mean_map[..., 1:].abs() * drift[:, None]).amax(dim=-1).sigmoid()
    return temporal * spatial


@dataclass(frozen=True)
class WriteRule:
    """One named rule.

    Attributes
    ----------
    name : str
    probe : callable, optional
        Makes the probe whose statistic the rate needs.
    restart : bool
        Whether a reset also restarts the pose token: the frame after it uses the learned token and
        a full write (TTT3R's recurrent path), instead of reading the initial memory (CUT3R, and
        TTSA3R, whose full write follows from having no previous frame).
    """

    name: str
    probe: Callable[[], MeanLogitMap] | None
    restart: bool


WRITE_RULES = {
    rule.name: rule
    for rule in (
        WriteRule("cut3r", None, restart=False),
        WriteRule("ttt3r", lambda: MeanLogitMap(keys=True), restart=True),
        WriteRule("ttsa3r", lambda: MeanLogitMap(keys=False), restart=False),
    )
}
