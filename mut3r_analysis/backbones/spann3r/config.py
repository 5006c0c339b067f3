"""The configuration of a Spann3R model; the fields of its DUSt3R have the official names."""

from dataclasses import dataclass
from typing import Any, ClassVar

from mut3r_analysis.backbones.configuration import ModelConfig


@dataclass(frozen=True, kw_only=True)
class Spann3RConfig(ModelConfig):
    """Sizes and switches of a Spann3R model; the defaults are the released one.

    Parameters
    ----------
    value_depth, value_num_heads : int
        Blocks and heads of the encoder of pointmaps, which the official code fixes. It is as wide
        as the image encoder and without rotary embedding.
    working_frames : int
        The latest frames of the bank: a frame that is too much like one of them is not written, and
        they are never pruned.
    long_tokens : int, optional
        Most tokens behind the working frames; beyond it the bank is pruned to that many in all.
        None drops the oldest frame instead: a sliding window.
    landscape_only : bool
        True is official: of a portrait frame (higher than wide) the memory embeds the pointmap
        transposed, so that values and keys of one row belong to different patches. False embeds it
        as it is. Landscape and square frames are the same under both.
    use_feat, mem_pos_enc
        Kept because official checkpoints name them; False in all released models.
    **shared
        As of `ModelConfig`.

    Raises
    ------
    InvalidArgument
        When a combination cannot be built; the message names the constraint.
    """

    family: ClassVar[str] = "spann3r"
    allowed: ClassVar[dict[str, tuple[Any, ...]]] = ModelConfig.allowed | {
        "head_type": ("dpt", "linear"),
        "output_mode": ("pts3d",),
        "landscape_only": (True, False),
        "use_feat": (False,),
        "mem_pos_enc": (False,),
    }

    img_size: tuple[int, int] = (224, 224)
    output_mode: str = "pts3d"
    landscape_only: bool = True
    value_depth: int = 6
    value_num_heads: int = 16
    working_frames: int = 5
    long_tokens: int | None = 4000
    use_feat: bool = False
    mem_pos_enc: bool = False

    def multiples(self) -> list[tuple[str, int, str]]:
        """Return which field must be a multiple of what, and why."""
        return [
            *super().multiples(),
            ("enc_embed_dim", self.value_num_heads, "value_num_heads (heads of equal width)"),
        ]
