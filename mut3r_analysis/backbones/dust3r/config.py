"""The configuration of a DUSt3R model; all fields are those that every model has."""

from dataclasses import dataclass
from typing import Any, ClassVar

from mut3r_analysis.backbones.configuration import ModelConfig


@dataclass(frozen=True, kw_only=True)
class DUSt3RConfig(ModelConfig):
    """Sizes and switches of a DUSt3R model; the defaults are the released 512 DPT one.

    MonST3R's model is the same one with other weights. Frames higher than wide are read as they
    are: official code sets ``landscape_only`` to False wherever a released model is loaded, and
    True, which transposes such frames in training, is refused.

    Parameters
    ----------
    **shared
        As of `ModelConfig`.

    Raises
    ------
    InvalidArgument
        When a combination cannot be built; the message names the constraint.
    """

    family: ClassVar[str] = "dust3r"
    allowed: ClassVar[dict[str, tuple[Any, ...]]] = ModelConfig.allowed | {
        "output_mode": ("pts3d",),
    }

    output_mode: str = "pts3d"
