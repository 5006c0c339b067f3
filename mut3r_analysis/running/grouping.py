"""Which configurations go through the decoder as one batch."""

from collections.abc import Sequence
from typing import Any

from mut3r_analysis.backbones.cut3r import CUT3R
from mut3r_analysis.running.configuration import Configuration

REUSED_BYTES = 2**25
"""Largest block of memory that the GNU C library keeps for reuse. Where a batch on a CPU makes
larger ones, every layer fetches fresh pages from the system, for up to a sixth more time."""


def grouped(
    backbone: CUT3R, configurations: Sequence[Configuration], height: int, width: int
) -> list[list[int]]:
    """Put configurations that share their passes together, as many as pay.

    Parameters
    ----------
    backbone : CUT3R
    configurations : sequence of Configuration
    height, width : int
        Of the frames, before preparation.

    Returns
    -------
    list of list of int
        Indices of the configurations of each batch.
    """
    alike: dict[Any, list[int]] = {}
    for index, configuration in enumerate(configurations):
        alike.setdefault(configuration.shape, []).append(index)
    size = len(configurations)
    if backbone.device.type == "cpu":
        size = max(1, REUSED_BYTES // _widest_bytes(backbone, height, width))
    return [
        members[first : first + size]
        for members in alike.values()
        for first in range(0, len(members), size)
    ]


def _widest_bytes(backbone: CUT3R, height: int, width: int) -> int:
    """Bytes of the largest tensor that one sample needs in the decoders: inside the MLP."""
    config = backbone.config
    rows, columns = config.patch_grid(*backbone.preparation.shape(height, width))
    tokens = max(1 + rows * columns, config.state_size)
    return int(tokens * config.dec_embed_dim * config.mlp_ratio) * backbone.dtype.itemsize
