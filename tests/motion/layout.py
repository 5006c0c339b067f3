"""Tokens and sites of a made-up frame of CUT3R's shape."""

from mut3r_analysis.attention import SiteSize
from mut3r_analysis.attention.tokens import image_axis, memory_axis


def axes(grid, state=10):
    return {
        "image": image_axis(tuple(grid), ("pose",)),
        "patches": image_axis(tuple(grid)),
        "state": memory_axis(state, "state"),
    }


def sites(layers, heads):
    kinds = ("image_self", "image_to_state", "state_self", "state_to_image", "encoder_self")
    return dict.fromkeys(kinds, SiteSize(layers, heads, 8))
