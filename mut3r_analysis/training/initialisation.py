"""How the weights of a training start: trained ones, or correspondence by place from step 0.

A model that starts from plain random weights sits on a plateau for a long time before it finds that
a patch should be compared with the same place of the past. Here attention begins with a bias toward
the same place, cross attention adds what it reads in a rotated copy of the channels, so that past
and present stay apart, and registers know where they are. These are choices of starting values; the
architecture is that of the released models.
"""

import math

import torch
from torch import Tensor, nn

from mut3r_analysis.backbones.blocks import CrossAttention, Mlp, SelfAttention
from mut3r_analysis.backbones.config import CUT3RConfig
from mut3r_analysis.backbones.cut3r import CUT3R
from mut3r_analysis.backbones.dense import LinearHead
from mut3r_analysis.backbones.heads import ModulatedNorm
from mut3r_analysis.backbones.loading import load_backbone
from mut3r_analysis.backbones.rotation import state_positions
from mut3r_analysis.errors import InvalidArgument
from mut3r_analysis.training.recipe import Initialisation, Recipe

_UNROTATED = ("memory_read_self", "memory_read", "memory_write_self", "memory_write")


def starting_model(recipe: Recipe) -> CUT3R:
    """Build the model that a recipe starts from; float32, on the CPU.

    Raises
    ------
    InvalidArgument
        When the weights that the recipe names are there, but are others or of another model.
    MissingFile, CheckpointError
        When they cannot be read.
    """
    if recipe.start is None:
        return initial_model(recipe.model, recipe.initialisation, recipe.seed)
    name = recipe.start.checkpoint
    model = load_backbone(name, device="cpu")
    found = model.origin.sha256
    if found != recipe.start.sha256:
        raise InvalidArgument(
            f"the recipe {recipe.name!r} starts from {name!r} with sha256 {recipe.start.sha256}, "
            f"but the weights found there have sha256 {found}; give the recipe the weights it "
            "names, or make another recipe that names these"
        )
    if model.config != recipe.model:
        raise InvalidArgument(
            f"the recipe {recipe.name!r} describes another model than its start {name!r}; copy "
            "the model section of the recipe that made these weights"
        )
    # weights mapped to a file become ordinary ones, which training may change
    trainable = CUT3R(model.config)
    trainable.load_state_dict(model.state_dict())
    return trainable


def initial_model(config: CUT3RConfig, start: Initialisation, seed: int) -> CUT3R:
    """Build a model with the starting weights of a recipe; float32, on the CPU.

    Parameters
    ----------
    config : CUT3RConfig
    start : Initialisation
    seed : int
        The same seed gives the same weights.
    """
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(seed)
        model = CUT3R(config)
        for module in model.modules():
            if isinstance(module, SelfAttention | CrossAttention):
                _start_attention(module, start)
            elif isinstance(module, Mlp):
                _start_mlp(module, start.mlp_gain)
        _start_tokens(model, start)
        _start_heads(model, start.depth)
    return model


def _start_attention(module: SelfAttention | CrossAttention, start: Initialisation) -> None:
    width = module.proj.in_features
    query, value = (nn.init.orthogonal_(torch.empty(width, width)) for _ in range(2))
    bias = torch.zeros(width)
    if module.site.kind not in _UNROTATED:
        bias = _place_bias(width, module.heads, start.positional_bias)
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


def _place_bias(width: int, heads: int, values: tuple[float, ...]) -> Tensor:
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


def _start_tokens(model: CUT3R, start: Initialisation) -> None:
    for token in (model.pose_token, model.pose_retriever.masked_token, model.pose_retriever.mem):
        nn.init.normal_(token, std=start.memory)
    for layer in (model.decoder_embed, model.decoder_embed_state, model.pose_retriever.proj_q):
        layer.weight.copy_(torch.eye(*layer.weight.shape))
        layer.bias.zero_()
    places = state_positions(model.config.state_size, torch.device("cpu")).float()
    waves = model.config.enc_embed_dim // 4
    # wavelengths from 2 to 4 grids: short enough to tell neighbours apart, without aliasing
    pace = torch.logspace(math.log10(math.pi / 2), math.log10(math.pi / 32), waves)
    angles = places[:, :, None] * pace
    registers = torch.cat([angles.sin(), angles.cos()], dim=-1).flatten(1)
    model.register_tokens.weight.copy_(start.registers * registers)


def _start_heads(model: CUT3R, depth: float) -> None:
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
    pixels = model.config.patch_size**2
    for name in ("proj", "cross_proj"):
        head = getattr(heads, name, None)
        if isinstance(head, LinearHead):
            head.fc2.weight.mul_(0.5)
            head.fc2.bias.zero_()
            head.fc2.bias[2 * pixels : 3 * pixels] = math.log1p(depth)
