"""What the tensors of a DUSt3R checkpoint say of its model: all but heads and input size."""

import re
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from mut3r_analysis.backbones.dense import dpt_widths

_BLOCK = re.compile(r"(enc_blocks|dec_blocks)\.(\d+)\.")
_DEPTHS = {"enc_blocks": "enc_depth", "dec_blocks": "dec_depth"}


def sizes_of(weights: Mapping[str, Tensor], prefix: str = "") -> dict[str, Any]:
    """Read the sizes of a pair network from its tensors.

    Parameters
    ----------
    weights : mapping of str to Tensor
        Under the official names.
    prefix : str
        Before the network's own names.
    """
    own = {name.removeprefix(prefix): tensor for name, tensor in weights.items()
           if name.startswith(prefix)}  # fmt: skip
    found: dict[str, Any] = dpt_widths(own, "downstream_head1.dpt.")
    for match in filter(None, map(_BLOCK.match, own)):
        name, depth = _DEPTHS[match[1]], int(match[2]) + 1
        found[name] = max(found.get(name, 0), depth)
    patches = own.get("patch_embed.proj.weight")
    if patches is not None and patches.ndim == 4:
        found |= {"enc_embed_dim": patches.shape[0], "patch_size": patches.shape[-1]}
    embed = own.get("decoder_embed.weight")
    if embed is not None and embed.ndim == 2:
        found["dec_embed_dim"] = embed.shape[0]
    if "downstream_head1.proj.weight" in own:
        found["head_type"] = "linear"
    return found
