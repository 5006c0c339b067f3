"""The configuration of a Point3R model, under the official field names."""

from dataclasses import dataclass
from typing import Any, ClassVar

from mut3r_analysis.backbones.configuration import PosedConfig


@dataclass(frozen=True, kw_only=True)
class Point3RConfig(PosedConfig):
    """Sizes and switches of a Point3R model; the defaults are the 512 DPT model.

    Parameters
    ----------
    memory_dec_num_heads : int
        Heads of the pointers' decoder (16 where the image side has 12).
    pos_embed_3d : str
        Names the rotation of pointers. The official code parses a base from it and uses four fixed
        ones.
    value_depth, value_num_heads : int
        Blocks and heads of the encoder of pointmaps, which the official code fixes. It is as wide
        as the image encoder.
    **shared
        As of `PosedConfig`.

    Raises
    ------
    InvalidArgument
        When a combination cannot be built; the message names the constraint.
    """

    family: ClassVar[str] = "point3r"
    allowed: ClassVar[dict[str, tuple[Any, ...]]] = PosedConfig.allowed | {
        "pos_embed_3d": ("RoPE3D100",)
    }

    memory_dec_num_heads: int = 16
    pos_embed_3d: str = "RoPE3D100"
    value_depth: int = 6
    value_num_heads: int = 16

    def multiples(self) -> list[tuple[str, int, str]]:
        """Return which field must be a multiple of what, and why."""
        return [
            *super().multiples(),
            ("enc_embed_dim", 4 * self.value_num_heads, "4 x value_num_heads (rotary embedding)"),
            (
                "dec_embed_dim",
                self.memory_dec_num_heads,
                "memory_dec_num_heads (heads of equal width)",
            ),
        ]
