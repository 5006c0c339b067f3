"""What an official VGGT or StreamVGGT file says of its model, by its tensors alone."""

import re
from collections.abc import Mapping
from math import isqrt
from typing import Any

from torch import Tensor

_BLOCK = re.compile(r"(aggregator\.patch_embed\.blocks|aggregator\.frame_blocks|"
                    r"camera_head\.trunk)\.(\d+)\.")  # fmt: skip
_DEPTHS = {
    "aggregator.patch_embed.blocks": "enc_depth",
    "aggregator.frame_blocks": "dec_depth",
    "camera_head.trunk": "camera_depth",
}


def sizes_of(weights: Mapping[str, Tensor]) -> dict[str, Any]:
    """Read the sizes that tensors tell; official files have no constructor string.

    Parameters
    ----------
    weights : mapping of str to Tensor
        Under the official names.
    """
    found: dict[str, Any] = {}
    depths: dict[str, int] = {}
    for match in filter(None, map(_BLOCK.match, weights)):
        depths[match[1]] = max(depths.get(match[1], 0), int(match[2]) + 1)
    found |= {_DEPTHS[part]: depth for part, depth in depths.items()}
    patches = _shape(weights, "aggregator.patch_embed.patch_embed.proj.weight", 4)
    table = _shape(weights, "aggregator.patch_embed.pos_embed", 3)
    if patches:
        width, side = patches[0], patches[-1]
        found |= {"enc_embed_dim": width, "dec_embed_dim": width, "patch_size": side}
        norm = _shape(weights, "aggregator.frame_blocks.0.attn.q_norm.weight", 1)
        if norm and norm[0] and not width % norm[0]:
            found["dec_num_heads"] = width // norm[0]
        if table and table[1] > 1:
            found["img_size"] = (isqrt(table[1] - 1) * side,) * 2
    return found | _head_widths(weights)


def _head_widths(weights: Mapping[str, Tensor]) -> dict[str, Any]:
    head = "depth_head.scratch."
    levels = [_shape(weights, f"{head}layer{level}_rn.weight", 4) for level in (1, 2, 3, 4)]
    last = _shape(weights, f"{head}output_conv2.0.weight", 4)
    if not last or not all(levels):
        return {}
    return {
        "feature_dim": levels[0][0],
        "last_dim": last[0],
        "layer_dims": tuple(level[1] for level in levels),
    }


def _shape(weights: Mapping[str, Tensor], name: str, dims: int) -> tuple[int, ...]:
    """Return the shape of a tensor that is there with so many dimensions, else ()."""
    tensor = weights.get(name)
    return tuple(tensor.shape) if tensor is not None and tensor.ndim == dims else ()
