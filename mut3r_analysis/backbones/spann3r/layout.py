"""What an official Spann3R checkpoint says of its model: all but the numbers of heads."""

import re
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from mut3r_analysis.backbones.dust3r import layout

_VALUE_BLOCK = re.compile(r"value_encoder\.(\d+)\.")


def sizes_of(weights: Mapping[str, Tensor]) -> dict[str, Any]:
    """Read the sizes that tensors tell; the constructor string of official files names none.

    Parameters
    ----------
    weights : mapping of str to Tensor
        Under the official names.
    """
    found = layout.sizes_of(weights, "dust3r.")
    blocks = [int(match[1]) for match in filter(None, map(_VALUE_BLOCK.match, weights))]
    if blocks:
        found["value_depth"] = max(blocks) + 1
    return found
