"""What an official Spann3R checkpoint says of its model: all but the numbers of heads."""

import re
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from mut3r_analysis.backbones.dense import dpt_widths

_BLOCK = re.compile(r"(dust3r\.enc_blocks|dust3r\.dec_blocks|value_encoder)\.(\d+)\.")
_DEPTHS = {
    "dust3r.enc_blocks": "enc_depth",
    "dust3r.dec_blocks": "dec_depth",
    "value_encoder": "value_depth",
}


def sizes_of(weights: Mapping[str, Tensor]) -> dict[str, Any]:
    """Read the sizes that tensors tell; the constructor string of official files names none.

    Parameters
    ----------
    weights : mapping of str to Tensor
        Under the official names.
    """
    found: dict[str, Any] = dpt_widths(weights, "dust3r.downstream_head1.dpt.")
    depths: dict[str, int] = {}
    for match in filter(None, map(_BLOCK.match, weights)):
        depths[match[1]] = max(depths.get(match[1], 0), int(match[2]) + 1)
    found |= {_DEPTHS[part]: depth for part, depth in depths.items()}
    patches = weights.get("dust3r.patch_embed.proj.weight")
    if patches is not None and patches.ndim == 4:
        found |= {"enc_embed_dim": patches.shape[0], "patch_size": patches.shape[-1]}
    embed = weights.get("dust3r.decoder_embed.weight")
    if embed is not None and embed.ndim == 2:
        found["dec_embed_dim"] = embed.shape[0]
    return found
