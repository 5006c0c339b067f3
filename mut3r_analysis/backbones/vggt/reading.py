"""How queries read other frames: behind caches, and behind a mask where frames come together."""

import torch
from torch import Tensor
from torch.nn import functional as F

from mut3r_analysis.attention.seam import Kernel
from mut3r_analysis.attention.sites import Site
from mut3r_analysis.backbones.blocks import Attend
from mut3r_analysis.backbones.vggt.state import Cached, State


class CacheReader:
    """The seam of blocks over all frames: the keys of a frame stand behind the cached ones.

    Parameters
    ----------
    seam : callable
    cached_keys, cached_values : tuple of tuple of Tensor
        Per layer and frame.

    Attributes
    ----------
    keys, values : list of Tensor
        Of the frame itself, layer by layer.
    """

    def __init__(
        self, seam: Attend, cached_keys: tuple[Cached, ...], cached_values: tuple[Cached, ...]
    ) -> None:
        self._seam = seam
        self._keys, self._values = cached_keys, cached_values
        self.keys: list[Tensor] = []
        self.values: list[Tensor] = []

    def __call__(self, site: Site, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Attend to all frames so far."""
        self.keys.append(k)
        self.values.append(v)
        keys, values = (*self._keys[site.layer], k), (*self._values[site.layer], v)
        return self._seam(site, q, torch.cat(keys, dim=2), torch.cat(values, dim=2))


class CameraReader:
    """The seam of the camera's trunk, by iteration.

    Parameters
    ----------
    seam : callable
    state : State
    same_iteration : bool
        Whether an iteration reads that of earlier frames alone, instead of all there are: those of
        earlier frames, and the frame's own so far.

    Attributes
    ----------
    keys, values : list of list of Tensor
        Of the frame itself, per block and iteration.
    """

    def __init__(self, seam: Attend, state: State, *, same_iteration: bool) -> None:
        self._seam, self._state, self._same = seam, state, same_iteration
        self.keys: list[list[Tensor]] = [[] for _ in state.camera_keys]
        self.values: list[list[Tensor]] = [[] for _ in state.camera_keys]

    def __call__(self, iteration: int) -> Attend:
        """Return the seam of one iteration."""

        def read(site: Site, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
            layer, state = site.layer, self._state
            self.keys[layer].append(k)
            self.values[layer].append(v)
            keys, values = (
                self._joined(iteration, cached, own)
                for cached, own in (
                    (state.camera_keys[layer], self.keys[layer]),
                    (state.camera_values[layer], self.values[layer]),
                )
            )
            return self._seam(site, q, keys, values)

        return read

    def _joined(self, iteration: int, cached: Cached, own: list[Tensor]) -> Tensor:
        """Put what is read of earlier frames before what is read of the frame itself."""
        if self._same:
            one = slice(iteration, iteration + 1)
            return torch.cat([*(each[:, :, one] for each in cached), own[-1]], dim=2)
        return torch.cat([*cached, *own], dim=2)


def frames_before(frames: int, tokens: int, device: torch.device) -> Kernel:
    """Return attention in which tokens of a frame see those of frames that come no later."""
    number = torch.arange(frames, device=device).repeat_interleave(tokens)
    allowed = number[:, None] >= number

    def masked(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return F.scaled_dot_product_attention(q, k, v, attn_mask=allowed)

    return masked
