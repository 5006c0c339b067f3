"""The kinds of model that are built here, and how official checkpoints describe and store each."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from mut3r_analysis.backbones.configuration import ModelConfig
from mut3r_analysis.backbones.cut3r.config import CUT3RConfig
from mut3r_analysis.backbones.cut3r.model import CUT3R
from mut3r_analysis.backbones.point3r.config import Point3RConfig
from mut3r_analysis.backbones.point3r.model import Point3R
from mut3r_analysis.backbones.protocol import Backbone
from mut3r_analysis.errors import InvalidArgument

_CROCO_DEFAULTS: dict[str, Any] = {
    "img_size": (224, 224),
    "enc_embed_dim": 768,
    "enc_depth": 12,
    "enc_num_heads": 12,
    "dec_embed_dim": 512,
    "dec_depth": 8,
    "dec_num_heads": 16,
    "pose_head": False,
    "output_mode": "pts3d",
    "pos_embed": "cosine",
}


class Copied(NamedTuple):
    """Tensors that an official checkpoint may lack, and from which others they start.

    Attributes
    ----------
    absent, source : str
        What the names begin with.
    part : str
        In words, what is then untrained.
    """

    absent: str
    source: str
    part: str


@dataclass(frozen=True)
class Family:
    """One kind of model.

    Attributes
    ----------
    model : type
        Made from a configuration and ``update``, the name of a write rule.
    config : type
    constructor : (str, str)
        Names of the official model and of its configuration, as checkpoints call them.
    defaults : mapping
        What the official constructor assumes for a keyword that is not given, where that is not
        the default of `config` (which is the released 512 DPT model).
    copies : tuple of Copied
    """

    model: type[Backbone]
    config: type[ModelConfig]
    constructor: tuple[str, str]
    defaults: Mapping[str, Any]
    copies: tuple[Copied, ...]

    @property
    def expression(self) -> str:
        """How an official checkpoint describes a model, in words."""
        model, config = self.constructor
        return f"{model}({config}(keyword=literal, ...))"


FAMILIES = {
    family.config.family: family
    for family in (
        Family(
            model=CUT3R,
            config=CUT3RConfig,
            constructor=("ARCroco3DStereo", "ARCroco3DStereoConfig"),
            defaults=_CROCO_DEFAULTS
            | {"state_size": 324, "head_type": "linear", "rgb_head": False},
            copies=(Copied("dec_blocks_state.", "dec_blocks.", "the state decoder"),),
        ),
        Family(
            model=Point3R,
            config=Point3RConfig,
            constructor=("Point3R", "Point3RConfig"),
            defaults=_CROCO_DEFAULTS | {"pos_embed_3d": "None"},
            copies=(
                Copied("dec_blocks_memory.", "dec_blocks.", "the decoder of pointers"),
                Copied("pts_patch_embed.", "patch_embed.", "the patch embedding of pointmaps"),
            ),
        ),
    )
}
"""Name of a kind of model -> what it is."""


def find_family(name: str) -> Family:
    """Return a kind of model by its name.

    Raises
    ------
    InvalidArgument
    """
    if name not in FAMILIES:
        raise InvalidArgument(f"unknown kind of model {name!r}; known: {', '.join(FAMILIES)}")
    return FAMILIES[name]


def family_of(config: ModelConfig) -> Family:
    """Return the kind of model that a configuration describes."""
    return FAMILIES[config.family]
