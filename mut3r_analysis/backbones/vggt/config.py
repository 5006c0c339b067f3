"""The configuration of a VGGT or StreamVGGT model."""

from dataclasses import dataclass
from typing import Any, ClassVar

from mut3r_analysis.backbones.configuration import ModelConfig
from mut3r_analysis.errors import InvalidArgument

REGISTERS = 4
"""Register tokens: of the patch embedding, and of every frame in the aggregator."""

SPECIAL = 1 + REGISTERS
"""Tokens before the patches of a frame: one of the camera (or class), and the registers."""


@dataclass(frozen=True, kw_only=True)
class VGGTConfig(ModelConfig):
    """Sizes and switches of a VGGT or StreamVGGT model; the defaults are the released one.

    Official files have no configuration and official constructors fix nearly all of it, so that the
    fields have the names of the other models here: ``enc_...`` is the patch embedding (DINOv2),
    ``dec_...`` the aggregator, in which a layer is a block within frames and a block over all.

    Parameters
    ----------
    img_size : (int, int)
        The square of whose patches the table of positions is; it is resized for other frames.
    camera_depth, camera_num_heads : int
        Blocks and heads of the trunk that refines camera poses. It is twice as wide.
    camera_iterations : int
        Times that it refines a pose.
    camera_keys : {"all_iterations", "same_iteration"}
        What of earlier frames the trunk reads when frames come one after another. The official code
        remembers every iteration and reads all of them, so that its poses differ from those of the
        batch it was trained on; reading those of the same iteration gives these.
    head_levels : (int, int, int, int)
        Layers of the aggregator that the dense heads take.
    **shared
        As of `ModelConfig`.

    Raises
    ------
    InvalidArgument
        When a combination cannot be built; the message names the constraint.
    """

    family: ClassVar[str] = "vggt"
    dpt_patch: ClassVar[int | None] = None
    allowed: ClassVar[dict[str, tuple[Any, ...]]] = ModelConfig.allowed | {
        "head_type": ("dpt",),
        "output_mode": ("depth+points+pose",),
        "patch_embed_cls": ("dinov2_vitl14_reg",),
        "camera_keys": ("all_iterations", "same_iteration"),
    }

    img_size: tuple[int, int] = (518, 518)
    patch_size: int = 14
    dec_embed_dim: int = 1024
    dec_depth: int = 24
    dec_num_heads: int = 16
    output_mode: str = "depth+points+pose"
    patch_embed_cls: str = "dinov2_vitl14_reg"
    last_dim: int = 32
    layer_dims: tuple[int, int, int, int] = (256, 512, 1024, 1024)
    camera_depth: int = 4
    camera_num_heads: int = 16
    camera_iterations: int = 4
    camera_keys: str = "all_iterations"
    head_levels: tuple[int, int, int, int] = (4, 11, 17, 23)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.enc_embed_dim != self.dec_embed_dim:
            raise InvalidArgument(
                "the patch embedding and the aggregator are equally wide in this kind of model; "
                f"got enc_embed_dim = {self.enc_embed_dim}, dec_embed_dim = {self.dec_embed_dim}"
            )
        levels = self.head_levels
        if len(levels) != 4 or sorted(set(levels)) != list(levels) or levels[0] < 0:
            raise InvalidArgument(f"head_levels must be four layers in their order, got {levels}")
        if levels[-1] >= self.dec_depth:
            raise InvalidArgument(
                f"head_levels names layer {levels[-1]}, but dec_depth = {self.dec_depth} has the "
                f"layers 0 to {self.dec_depth - 1}"
            )
        if self.img_size[0] != self.img_size[1]:
            raise InvalidArgument(f"img_size must be a square, got {self.img_size}")

    def multiples(self) -> list[tuple[str, int, str]]:
        """Return which field must be a multiple of what, and why."""
        return [
            ("enc_embed_dim", self.enc_num_heads, "enc_num_heads (heads of equal width)"),
            ("dec_embed_dim", 4 * self.dec_num_heads, "4 x dec_num_heads (rotary embedding)"),
            ("dec_embed_dim", 4, "4 (the camera's modulation)"),
            ("feature_dim", 8, "8 (positions of the dense heads)"),
        ]
