"""The kinds of model that are built here, and how official checkpoints describe and store each."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from torch import Tensor

from mut3r_analysis.backbones.configuration import ModelConfig
from mut3r_analysis.backbones.cut3r.config import CUT3RConfig
from mut3r_analysis.backbones.cut3r.model import CUT3R
from mut3r_analysis.backbones.dust3r import layout as dust3r_layout
from mut3r_analysis.backbones.dust3r.config import DUSt3RConfig
from mut3r_analysis.backbones.dust3r.model import DUSt3R
from mut3r_analysis.backbones.point3r.config import Point3RConfig
from mut3r_analysis.backbones.point3r.model import Point3R
from mut3r_analysis.backbones.protocol import Backbone
from mut3r_analysis.backbones.spann3r.config import Spann3RConfig
from mut3r_analysis.backbones.spann3r.layout import sizes_of
from mut3r_analysis.backbones.spann3r.model import Spann3R
from mut3r_analysis.backbones.vggt import layout as vggt_layout
from mut3r_analysis.backbones.vggt.config import VGGTConfig
from mut3r_analysis.backbones.vggt.model import VGGT
from mut3r_analysis.foundation.fields import one_of

_CROCO_DEFAULTS: dict[str, Any] = {
    "img_size": (224, 224),
    "enc_embed_dim": 768,
    "enc_depth": 12,
    "enc_num_heads": 12,
    "dec_embed_dim": 512,
    "dec_depth": 8,
    "dec_num_heads": 16,
    "output_mode": "pts3d",
    "pos_embed": "cosine",
}
_POSED_DEFAULTS = _CROCO_DEFAULTS | {"pose_head": False}


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
    constructor : (str, str or None)
        Names of the official model and of its configuration, as checkpoints call them; None where
        the model takes its keywords itself.
    defaults : mapping
        What the official constructor assumes for a keyword that is not given, where that is not
        the default of `config` (which is the released 512 DPT model).
    copies : tuple of Copied
    ignored : tuple of str
        Official keywords without effect.
    mark : str, optional
        Name of a tensor by which a checkpoint is known that does not say what it holds.
    sizes : callable, optional
        Reads from the tensors what the constructor does not name.
    unsaid : tuple of str
        Fields that a checkpoint without (complete) constructor string has no word of. They are
        assumed as released, or as a configuration says that the caller gives.
    unused : tuple of str
        What the names of tensors begin with that official files hold and nothing here reads.
    unknown : str, optional
        What a reader of results should know that no file says, in words.
    """

    model: type[Backbone]
    config: type[ModelConfig]
    constructor: tuple[str, str | None]
    defaults: Mapping[str, Any]
    copies: tuple[Copied, ...] = ()
    ignored: tuple[str, ...] = ("mask_ratio",)
    mark: str | None = None
    sizes: Callable[[Mapping[str, Tensor]], dict[str, Any]] | None = None
    unsaid: tuple[str, ...] = ()
    unused: tuple[str, ...] = ()
    unknown: str | None = None

    @property
    def expression(self) -> str:
        """How an official checkpoint describes a model, in words."""
        model, config = self.constructor
        keywords = "keyword=literal, ..."
        return f"{model}({keywords})" if config is None else f"{model}({config}({keywords}))"


FAMILIES = {
    family.config.family: family
    for family in (
        Family(
            model=CUT3R,
            config=CUT3RConfig,
            constructor=("ARCroco3DStereo", "ARCroco3DStereoConfig"),
            defaults=_POSED_DEFAULTS
            | {"state_size": 324, "head_type": "linear", "rgb_head": False},
            copies=(Copied("dec_blocks_state.", "dec_blocks.", "the state decoder"),),
        ),
        Family(
            model=Point3R,
            config=Point3RConfig,
            constructor=("Point3R", "Point3RConfig"),
            defaults=_POSED_DEFAULTS | {"pos_embed_3d": "None"},
            copies=(
                Copied("dec_blocks_memory.", "dec_blocks.", "the decoder of pointers"),
                Copied("pts_patch_embed.", "patch_embed.", "the patch embedding of pointmaps"),
            ),
        ),
        Family(
            model=DUSt3R,
            config=DUSt3RConfig,
            constructor=("AsymmetricCroCo3DStereo", None),
            defaults=_CROCO_DEFAULTS | {"head_type": "linear"},
            copies=(Copied("dec_blocks2.", "dec_blocks.", "the decoder of view 2"),),
            mark="dec_blocks2.0.norm1.weight",
            sizes=dust3r_layout.sizes_of,
            unsaid=("img_size", "enc_num_heads", "dec_num_heads"),
        ),
        Family(
            model=Spann3R,
            config=Spann3RConfig,
            constructor=("Spann3R", None),
            defaults={},
            ignored=("dus3r_name",),
            mark="attn_head_1.0.weight",
            sizes=sizes_of,
            unsaid=("enc_num_heads", "dec_num_heads", "value_num_heads"),
        ),
        Family(
            model=VGGT,
            config=VGGTConfig,
            constructor=("VGGT", None),
            defaults={},
            mark="aggregator.camera_token",
            sizes=vggt_layout.sizes_of,
            unsaid=(
                "enc_num_heads",
                "camera_num_heads",
                "camera_iterations",
                "camera_keys",
                "head_levels",
                "mlp_ratio",
            ),
            unused=("track_head.",),
            unknown="VGGT and StreamVGGT have the same tensors: a file does not say which of the "
            "two it was trained as",
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
    return FAMILIES[one_of("kind of model", name, FAMILIES)]


def family_of(config: ModelConfig) -> Family:
    """Return the kind of model that a configuration describes."""
    return FAMILIES[config.family]
