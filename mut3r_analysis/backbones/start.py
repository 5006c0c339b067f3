"""How a training from scratch starts: correspondence by place works from the first step.

A model that starts from plain random weights sits on a plateau for a long time before it finds that
a patch should be compared with the same place of the past. Here attention begins with a bias toward
the same place, and cross attention adds what it reads in a rotated copy of the channels, so that
past and present stay apart. These are choices of starting values; the architecture is that of the
released models.
"""

import math
from collections.abc import Callable, Mapping
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from mut3r_analysis.backbones.blocks import CrossAttention, Mlp, SelfAttention
from mut3r_analysis.backbones.dense import LinearHead
from mut3r_analysis.backbones.heads import ModulatedNorm

_UNROTATED = (
    *("memory_read_self", "memory_read", "memory_write_self", "memory_write"),
    "value_self",
)


class Choices(Protocol):
    """Starting values; :class:`~mut3r_analysis.training.recipe.Initialisation` says what of."""

    @property
    def positional_bias(self) -> tuple[float, ...]: ...  # noqa: D102
    @property
    def registers(self) -> float: ...  # noqa: D102
    @property
    def attention_gain(self) -> float: ...  # noqa: D102
    @property
    def self_similarity(self) -> float: ...  # noqa: D102
    @property
    def mlp_gain(self) -> float: ...  # noqa: D102
    @property
    def memory(self) -> float: ...  # noqa: D102
    @property
    def depth(self) -> float: ...  # noqa: D102


PlaceBias = Callable[[int, int, tuple[float, ...]], Tensor]
"""From width, heads and values to a bias ``(channel,)`` that makes queries and keys of one place
alike."""


@torch.no_grad()
def start_layers(
    model: Any, start: Choices, place_biases: Mapping[str, PlaceBias] | None = None
) -> None:
    """Set attention and MLPs in place, drawing from torch's generator.

    `place_biases` are of site kinds whose tokens do not lie on a grid.
    """
    for module in model.modules():
        if isinstance(module, SelfAttention | CrossAttention):
            _start_attention(module, start, (place_biases or {}).get(module.site.kind, grid_bias))
        elif isinstance(module, Mlp):
            _start_mlp(module, start.mlp_gain)


@torch.no_grad()
def start_trunk(
    model: Any, start: Choices, place_biases: Mapping[str, PlaceBias] | None = None
) -> None:
    """Set layers, learned tokens and heads of a model with a pose memory in place."""
    start_layers(model, start, place_biases)
    for token in (model.pose_token, model.pose_retriever.masked_token, model.pose_retriever.mem):
        nn.init.normal_(token, std=start.memory)
    start_as_identity(model.decoder_embed, model.pose_retriever.proj_q)
    _start_heads(model, start.depth)


@torch.no_grad()
def start_as_identity(*layers: nn.Linear) -> None:
    """Let layers pass on what they are given."""
    for layer in layers:
        layer.weight.copy_(torch.eye(*layer.weight.shape))
        layer.bias.zero_()


def _start_attention(
    module: SelfAttention | CrossAttention, start: Choices, place_bias: PlaceBias
) -> None:
    width = module.proj.in_features
    query, value = (nn.init.orthogonal_(torch.empty(width, width)) for _ in range(2))
    bias = torch.zeros(width)
    if module.site.kind not in _UNROTATED:
        bias = place_bias(width, module.heads, start.positional_bias)
    if isinstance(module, SelfAttention):
        query *= start.self_similarity**0.5
        module.qkv.weight.copy_(torch.cat([query, query, value]))
        module.qkv.bias.copy_(torch.cat([bias, bias, torch.zeros(width)]))
    else:
        for layer, weight in (
            (module.projq, query), (module.projk, query), (module.projv, value)
        ):  # fmt: skip
            layer.weight.copy_(weight)
            layer.bias.zero_()
        module.projq.bias.copy_(bias)
        module.projk.bias.copy_(bias)
    # what self attention reads returns to its own channels, what cross attention reads to others
    own = isinstance(module, SelfAttention)
    back = value.T if own else nn.init.orthogonal_(torch.empty(width, width))
    module.proj.weight.copy_(start.attention_gain * back)
    module.proj.bias.zero_()


def grid_bias(width: int, heads: int, values: tuple[float, ...]) -> Tensor:
    """Bias ``(channel,)`` on the highest row and column frequencies of every other head."""
    channels = width // heads
    quarter = channels // 4
    bias = torch.zeros(heads, channels)
    for frequency, value in enumerate(values[:quarter]):
        bias[::2, frequency] = value
        bias[::2, 2 * quarter + frequency] = value
    return bias.flatten()


def _start_mlp(module: Mlp, gain: float) -> None:
    nn.init.orthogonal_(module.fc1.weight)
    module.fc1.bias.zero_()
    nn.init.normal_(module.fc2.weight, std=gain / math.sqrt(module.fc2.in_features))
    module.fc2.bias.zero_()


def _start_heads(model: Any, depth: float) -> None:
    heads = model.downstream_head
    pose = heads.pose_head.mlp
    pose.fc1.bias.zero_()
    pose.fc2.weight.mul_(0.2)
    pose.fc2.bias[3] = 1.0  # the identity rotation
    for norm in heads.final_transform.modules():
        if isinstance(norm, ModulatedNorm):
            for layer in norm.mlp.modules():
                if isinstance(layer, nn.Linear):
                    layer.weight.mul_(0.2)
                    layer.bias.zero_()
    for name in ("proj", "cross_proj"):
        head = getattr(heads, name, None)
        if isinstance(head, LinearHead):
            start_at_depth(head.fc2, depth)


@torch.no_grad()
def start_at_depth(layer: nn.Linear, depth: float) -> None:
    """Let the last layer of a dense head, four channels of pixels, begin at one distance (m)."""
    pixels = layer.out_features // 4
    layer.weight.mul_(0.5)
    layer.bias.zero_()
    layer.bias[2 * pixels : 3 * pixels] = math.log1p(depth)
