"""Which configurations go through the decoder as one batch."""

from collections.abc import Sequence
from typing import Any

from mut3r_analysis.backbones.cut3r import CUT3R
from mut3r_analysis.running.configuration import Configuration

_CPU_PIXELS = 4 * 512 * 384
"""Pixels of a batch on a CPU. The tokens of more no longer fit the blocks of memory that the C
library keeps for reuse: every layer would fetch fresh pages, for a sixth more time."""


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
        rows, columns = backbone.preparation.shape(height, width)
        size = max(1, _CPU_PIXELS // (rows * columns))
    return [
        members[first : first + size]
        for members in alike.values()
        for first in range(0, len(members), size)
    ]
