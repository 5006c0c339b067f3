"""The configuration of a CUT3R model: any size, tiny or full, under the official field names."""

from dataclasses import dataclass
from typing import Any, ClassVar

from mut3r_analysis.backbones.configuration import PosedConfig

RAY_ENCODER_HEADS = 16
"""The ray-map encoder has 16 heads at every width (reference: CUT3R release)."""


@dataclass(frozen=True, kw_only=True)
class CUT3RConfig(PosedConfig):
    """Sizes and switches of a CUT3R model; the defaults are the released 512 DPT model.

    ``enc_embed_dim`` must be a multiple of 64, because the ray-map encoder has 16 heads and rotary
    embedding needs head widths that are multiples of 4.

    Parameters
    ----------
    state_dec_num_heads : int
        Heads of the state decoder (16 in the released models, where the image side has 12).
    state_size : int
        State tokens.
    state_pe : str
        How state tokens are placed.
    ray_enc_depth : int
        Blocks of the ray-map encoder.
    rgb_head : bool
        Whether colour is predicted.
    **shared
        As of `PosedConfig`.

    Raises
    ------
    InvalidArgument
        When a combination cannot be built; the message names the constraint.
    """

    family: ClassVar[str] = "cut3r"
    allowed: ClassVar[dict[str, tuple[Any, ...]]] = PosedConfig.allowed | {"state_pe": ("2d",)}

    state_dec_num_heads: int = 16
    state_size: int = 768
    state_pe: str = "2d"
    ray_enc_depth: int = 2
    rgb_head: bool = True

    def multiples(self) -> list[tuple[str, int, str]]:
        """Return which field must be a multiple of what, and why."""
        return [
            *super().multiples(),
            ("enc_embed_dim", 4 * RAY_ENCODER_HEADS, "4 x 16 (the ray-map encoder has 16 heads)"),
            (
                "dec_embed_dim",
                4 * self.state_dec_num_heads,
                "4 x state_dec_num_heads (rotary embedding)",
            ),
        ]
