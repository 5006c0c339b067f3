"""Random weights for configurations without a checkpoint: for tests, plans and controls."""

from typing import Any

import torch
from torch import nn

from mut3r_analysis.backbones.configuration import ModelConfig
from mut3r_analysis.backbones.cut3r.config import CUT3RConfig
from mut3r_analysis.backbones.dust3r.config import DUSt3RConfig
from mut3r_analysis.backbones.families import family_of
from mut3r_analysis.backbones.point3r.config import Point3RConfig
from mut3r_analysis.backbones.protocol import Backbone
from mut3r_analysis.backbones.spann3r.config import Spann3RConfig
from mut3r_analysis.backbones.vggt.config import VGGTConfig

_SMALL: dict[str, Any] = {
    "img_size": (64, 64), "enc_depth": 2, "enc_num_heads": 4, "dec_embed_dim": 48, "dec_depth": 4,
}  # fmt: skip
_SMALL_VALUES: dict[str, Any] = {
    "enc_embed_dim": 48, "dec_num_heads": 3, "value_depth": 2, "value_num_heads": 4,
}  # fmt: skip
_SMALL_LINEAR: dict[str, Any] = {"patch_size": 8, "local_mem_size": 8, "head_type": "linear"}

NAMED_CONFIGS: dict[str, ModelConfig] = {
    "small": CUT3RConfig(
        **_SMALL,
        **_SMALL_LINEAR,
        enc_embed_dim=64,
        dec_num_heads=4,
        state_dec_num_heads=3,
        state_size=48,
    ),
    "512-dpt": CUT3RConfig(),
    "224-linear": CUT3RConfig(img_size=(224, 224), head_type="linear"),
    "point3r-small": Point3RConfig(
        **_SMALL, **_SMALL_VALUES, **_SMALL_LINEAR, memory_dec_num_heads=4
    ),
    "point3r-512-dpt": Point3RConfig(),
    "dust3r-small": DUSt3RConfig(
        **_SMALL, enc_embed_dim=48, dec_num_heads=3, patch_size=8, head_type="linear"
    ),
    "dust3r-512-dpt": DUSt3RConfig(),
    "dust3r-512-linear": DUSt3RConfig(head_type="linear"),
    "dust3r-224-linear": DUSt3RConfig(img_size=(224, 224), head_type="linear"),
    "spann3r-small": Spann3RConfig(
        **_SMALL, **_SMALL_VALUES, feature_dim=16, last_dim=8, layer_dims=(8, 12, 16, 24)
    ),
    "spann3r": Spann3RConfig(),
    "vggt-small": VGGTConfig(
        img_size=(56, 56),
        enc_embed_dim=48,
        enc_depth=2,
        enc_num_heads=4,
        dec_embed_dim=48,
        dec_depth=4,
        dec_num_heads=4,
        camera_depth=2,
        camera_num_heads=4,
        feature_dim=16,
        last_dim=8,
        layer_dims=(8, 12, 16, 24),
        head_levels=(0, 1, 2, 3),
    ),
    "vggt": VGGTConfig(),
}
"""What ``load_backbone("random:<name>")`` knows; those with numbers have the released sizes."""

_TOKENS = (
    "pose_token",
    "masked_img_token",
    "masked_ray_map_token",
    "pose_retriever.masked_token",
    "pose_retriever.mem",
    "aggregator.camera_token",
    "aggregator.register_token",
    "aggregator.patch_embed.cls_token",
    "aggregator.patch_embed.pos_embed",
    "aggregator.patch_embed.register_tokens",
    "camera_head.empty_pose_tokens",
)


def random_backbone(config: ModelConfig, *, seed: int = 0, update: str = "cut3r") -> Backbone:
    """Build a model with reproducible random weights.

    Linear and convolution weights keep torch's default initialisation; learned tokens are standard
    normal times 0.02, except state registers, which are standard normal so that state tokens
    differ from each other from the start.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = family_of(config).model(config, update=update)
        parameters = dict(model.named_parameters())
        for name in _TOKENS:
            if name in parameters:
                nn.init.normal_(parameters[name], std=0.02)
    return model
