"""What the configurations of all models share: fields, checks and JSON."""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, ClassVar, Self

from mut3r_analysis.errors import InvalidArgument
from mut3r_analysis.foundation.fields import made_of, one_of
from mut3r_analysis.foundation.specification import Specification

Mode = tuple[str, float, float]


@dataclass(frozen=True, kw_only=True)
class ModelConfig(Specification):
    """Sizes and switches of a model.

    Field names are the official constructors'; the last three name widths that official code fixes,
    so that small models can be small.

    Parameters
    ----------
    img_size : (int, int)
        Largest input, (height, width) in px; the preparation resizes the long edge to its maximum.
    patch_size : int
        Side of a patch, px.
    enc_embed_dim, enc_depth, enc_num_heads : int
        Image encoder.
    dec_embed_dim, dec_depth, dec_num_heads : int
        Image decoder; the decoder of the other stream has the same width and depth.
    head_type : {"dpt", "linear"}
        Dense head.
    depth_mode, conf_mode : (str, float, float)
        Output activations. Only ``("exp", -inf, inf)`` and ``("exp", 1, inf)`` exist in released
        models and only those are accepted.
    mlp_ratio : float
        Hidden width of every MLP in the trunk, in widths.
    freeze, landscape_only, patch_embed_cls, pos_embed, output_mode, norm_im2_in_dec
        Kept because official checkpoints name them; values that would change the numbers in a
        way no released model does are refused.
    feature_dim, last_dim : int
        Width of the DPT fusion blocks and of the DPT output head.
    layer_dims : (int, int, int, int)
        Widths of the four DPT input levels.

    Raises
    ------
    InvalidArgument
        When a combination cannot be built; the message names the constraint.
    """

    family: ClassVar[str]
    """Name of the kind of model."""
    allowed: ClassVar[dict[str, tuple[Any, ...]]] = {
        "head_type": ("dpt", "linear"),
        "output_mode": ("pts3d+pose",),
        "depth_mode": (("exp", -math.inf, math.inf),),
        "conf_mode": (("exp", 1.0, math.inf),),
        "norm_im2_in_dec": (True,),
        "landscape_only": (False,),
        "patch_embed_cls": ("PatchEmbedDust3R",),
    }
    """Field -> the values it may have, for fields that have few."""
    dpt_patch: ClassVar[int | None] = 16
    """Side of the patches, px, of which DPT levels end at full resolution; None for any."""

    img_size: tuple[int, int] = (512, 512)
    patch_size: int = 16
    enc_embed_dim: int = 1024
    enc_depth: int = 24
    enc_num_heads: int = 16
    dec_embed_dim: int = 768
    dec_depth: int = 12
    dec_num_heads: int = 12
    head_type: str = "dpt"
    output_mode: str = "pts3d+pose"
    depth_mode: Mode = ("exp", -math.inf, math.inf)
    conf_mode: Mode = ("exp", 1.0, math.inf)
    pos_embed: str = "RoPE100"
    patch_embed_cls: str = "PatchEmbedDust3R"
    norm_im2_in_dec: bool = True
    landscape_only: bool = False
    freeze: str = "none"
    mlp_ratio: float = 4.0
    feature_dim: int = 256
    last_dim: int = 128
    layer_dims: tuple[int, int, int, int] = (96, 192, 384, 768)

    def __post_init__(self) -> None:
        for field in fields(self):
            if isinstance(field.default, tuple):
                value = _as_tuple(_from_json(getattr(self, field.name)))
                object.__setattr__(self, field.name, value)
        if len(self.img_size) == 1:
            object.__setattr__(self, "img_size", self.img_size * 2)
        _check_sizes(self)
        _check_switches(self)

    def multiples(self) -> list[tuple[str, int, str]]:
        """Return which field must be a multiple of what, and why."""
        return [
            ("enc_embed_dim", 4 * self.enc_num_heads, "4 x enc_num_heads (rotary embedding)"),
            ("dec_embed_dim", 4 * self.dec_num_heads, "4 x dec_num_heads (rotary embedding)"),
        ]

    @property
    def rope_base(self) -> float:
        """Base of the rotary frequencies, read from ``pos_embed`` ("RoPE100" is 100)."""
        return float(self.pos_embed.removeprefix("RoPE"))

    def patch_grid(self, height: int, width: int) -> tuple[int, int]:
        """Rows and columns of patches of an image of ``height`` x ``width`` px."""
        if height % self.patch_size or width % self.patch_size or min(height, width) < 1:
            raise InvalidArgument(
                f"image sides must be multiples of the patch size {self.patch_size}, "
                f"got {height} x {width} (height x width); use the backbone's preparation"
            )
        return height // self.patch_size, width // self.patch_size

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON-ready values; infinities become the strings "inf" and "-inf"."""
        return {name: _to_json(value) for name, value in asdict(self).items()}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Build from :meth:`to_dict`'s output or from official keyword arguments."""
        return made_of("configuration", cls, values)


@dataclass(frozen=True, kw_only=True)
class PosedConfig(ModelConfig):
    """What models add that predict a pose and remember it in a pose memory.

    Parameters
    ----------
    local_mem_size : int
        Slots of the pose memory.
    pose_head : bool
        Whether the pose is predicted. It is required by the recurrence.
    pose_mode : (str, float, float)
        Output activation; only ``("exp", -inf, inf)`` exists.
    depth_head, pose_conf_head
        Kept because official checkpoints name them.
    **shared
        As of :class:`ModelConfig`.

    Raises
    ------
    InvalidArgument
        When a combination cannot be built; the message names the constraint.
    """

    allowed: ClassVar[dict[str, tuple[Any, ...]]] = ModelConfig.allowed | {
        "pose_mode": (("exp", -math.inf, math.inf),),
        "pose_head": (True,),
        "depth_head": (False,),
        "pose_conf_head": (False,),
    }

    local_mem_size: int = 256
    pose_head: bool = True
    depth_head: bool = False
    pose_conf_head: bool = False
    pose_mode: Mode = ("exp", -math.inf, math.inf)


def _check_sizes(config: ModelConfig) -> None:
    for field in fields(config):
        value = getattr(config, field.name)
        numbers = value if field.name in ("img_size", "layer_dims") else (value,)
        for number in numbers:
            is_size = isinstance(number, int) and not isinstance(number, bool)
            if is_size and number < 1:
                raise InvalidArgument(f"{field.name} must be at least 1, got {value}")
    for name, divisor, why in config.multiples():
        if getattr(config, name) % divisor:
            raise InvalidArgument(
                f"{name} must be a multiple of {divisor} = {why}, got {getattr(config, name)}"
            )
    if config.dec_depth < 2:
        raise InvalidArgument(f"dec_depth must be at least 2, got {config.dec_depth}")
    if config.head_type == "dpt" and config.dpt_patch not in (None, config.patch_size):
        raise InvalidArgument(
            f"a DPT head needs patch size {config.dpt_patch} (its levels end at full resolution), "
            f"got {config.patch_size}; use head_type='linear'"
        )
    for side in config.img_size:
        if side % config.patch_size:
            raise InvalidArgument(
                f"img_size must be multiples of patch_size {config.patch_size}, "
                f"got {config.img_size}"
            )


def _check_switches(config: ModelConfig) -> None:
    for name, values in config.allowed.items():
        one_of(name, getattr(config, name), values)
    base = config.pos_embed.removeprefix("RoPE")
    if base == config.pos_embed or not base.replace(".", "", 1).isdigit() or float(base) <= 1:
        raise InvalidArgument(
            f"pos_embed must be 'RoPE' followed by a base above 1, for example 'RoPE100', "
            f"got {config.pos_embed!r}"
        )


def _as_tuple(value: Any) -> tuple[Any, ...]:
    return tuple(value) if isinstance(value, list | tuple) else (value,)


def _to_json(value: Any) -> Any:
    if isinstance(value, tuple):
        return [_to_json(item) for item in value]
    if isinstance(value, float) and math.isinf(value):
        return "inf" if value > 0 else "-inf"
    return value


def _from_json(value: Any) -> Any:
    if isinstance(value, list | tuple):
        return tuple(_from_json(item) for item in value)
    return (
        {"inf": math.inf, "-inf": -math.inf}.get(value, value) if isinstance(value, str) else value
    )
