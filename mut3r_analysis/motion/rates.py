"""Write rates from motion: how much of a frame each state token takes over.

A key gate that renormalises only changes *what* is written; a frame that is all dynamic still
overwrites the state. These rates change *how much*.
"""

from collections.abc import Mapping

import torch
from torch import Tensor

from mut3r_analysis.attention.sites import Site
from mut3r_analysis.errors import InvalidArgument
from mut3r_analysis.motion.kernels import static_mass


class StaticMassProbe:
    """Probe that measures the static mass where no gate does it on the way.

    Parameters
    ----------
    motion : Tensor
        ``(batch, patch_row, patch_col)`` in [0, 1].

    Attributes
    ----------
    static_mass : dict of int to Tensor
        Layer -> ``(batch, state_token)``, mean over heads.
    """

    def __init__(self, motion: Tensor) -> None:
        self._static = 1 - torch.nn.functional.pad(motion.flatten(1).float(), (1, 0))
        self.static_mass: dict[int, Tensor] = {}

    def __call__(self, site: Site, q: Tensor, k: Tensor) -> None:
        """Measure one site from rotated queries and keys ``(batch, head, token, channel)``."""
        if site.kind != "state_to_image":
            return
        if self._static.shape[1] != k.shape[2]:
            raise InvalidArgument(
                f"the motion score has {self._static.shape[1] - 1} patches, {site} has "
                f"{k.shape[2] - 1}; score the frame that is read"
            )
        static = self._static.to(q.device).expand(len(q), -1)
        self.static_mass[site.layer] = static_mass(q, k, static).float().mean(dim=1)


def static_mass_rate(mass: Mapping[int, Tensor]) -> Tensor:
    """Share of what each state token read that is static: ``(batch, state_token)`` in [0, 1].

    Parameters
    ----------
    mass : mapping of int to Tensor
        Layer -> ``sum_j p_sj (1 - g_j)`` ``(batch, state_token)``; averaged over layers.
    """
    if not mass:
        raise InvalidArgument("the static mass was not measured: no state-to-image site was seen")
    return torch.stack(list(mass.values())).mean(dim=0).clamp(0, 1)


def frame_rate(motion: Tensor, alpha: float = 1.0) -> Tensor:
    """One rate for a whole frame: ``1 - alpha mean(g)``, ``(batch, 1)`` in [0, 1].

    Parameters
    ----------
    motion : Tensor
        ``(batch, patch_row, patch_col)`` in [0, 1].
    alpha : float
        In [0, 1]: how much a frame that is all dynamic loses.
    """
    if not 0 <= alpha <= 1:
        raise InvalidArgument(f"alpha must lie in [0, 1], got {alpha}")
    return 1 - alpha * motion.flatten(1).float().mean(dim=1, keepdim=True)
