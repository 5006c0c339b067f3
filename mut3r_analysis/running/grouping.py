"""Which configurations go through the decoder as one batch."""

from collections.abc import Sequence
from typing import Any

from mut3r_analysis.backbones.protocol import Backbone
from mut3r_analysis.running.configuration import Configuration

REUSED_BYTES = 2**25
"""Largest block of memory that the GNU C library keeps for reuse. Where a batch on a CPU makes
larger ones, every layer fetches fresh pages from the system, for up to a sixth more time."""


def grouped(
    backbone: Backbone, configurations: Sequence[Configuration], height: int, width: int
) -> list[list[int]]:
    """Put configurations that share their passes together, as many as pay.

    Parameters
    ----------
    backbone : Backbone
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
    size = 1 if backbone.state_grows else len(configurations)
    if backbone.device.type == "cpu":
        rows, columns = backbone.patch_grid(*backbone.preparation.shape(height, width))
        widest = backbone.widest_tensor((rows, columns)) * backbone.dtype.itemsize
        size = max(1, min(size, REUSED_BYTES // widest))
    return [
        members[first : first + size]
        for members in alike.values()
        for first in range(0, len(members), size)
    ]
