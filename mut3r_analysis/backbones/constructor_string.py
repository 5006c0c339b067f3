"""The constructor string of an official checkpoint, read as data.

An official checkpoint says what model it holds as a Python expression, which the official loader
evaluates. Here the expression is parsed and only its literal keyword values are taken; nothing
in it is ever executed.
"""

import ast
from dataclasses import fields
from reprlib import repr as shortened
from typing import Any

from mut3r_analysis.backbones.cut3r.config import CUT3RConfig
from mut3r_analysis.errors import CheckpointError, InvalidArgument

MODEL_CALL = "ARCroco3DStereo"
CONFIG_CALL = "ARCroco3DStereoConfig"

OFFICIAL_DEFAULTS: dict[str, Any] = {
    "img_size": (224, 224),
    "enc_embed_dim": 768,
    "enc_depth": 12,
    "enc_num_heads": 12,
    "dec_embed_dim": 512,
    "dec_depth": 8,
    "dec_num_heads": 16,
    "state_size": 324,
    "head_type": "linear",
    "rgb_head": False,
    "pose_head": False,
    "output_mode": "pts3d",
    "pos_embed": "cosine",
}
"""What the official constructor assumes for a keyword that is not given, where that is not the
default of :class:`CUT3RConfig` (which is the released 512 DPT model)."""

_SAMPLES: dict[str, Any] = {field.name: field.default for field in fields(CUT3RConfig)}
_WITHOUT_EFFECT = ("mask_ratio",)
_LONGEST = 20_000


def parse_constructor(text: str) -> CUT3RConfig:
    """Return the configuration that an official constructor string describes.

    Parameters
    ----------
    text : str
        ``"ARCroco3DStereo(ARCroco3DStereoConfig(freeze='encoder', state_size=768, ...))"``.
        Values may be literals, ``inf``, signed numbers and tuples or lists of these. The widths of
        the DPT head (``feature_dim``, ``last_dim``, ``layer_dims``), which the official
        constructor fixes, may be given too.

    Raises
    ------
    CheckpointError
        When the text is anything else, names an unknown call or keyword, or describes a model
        that cannot be built here.
    """
    arguments, _ = constructor_arguments(text)
    return config_from_arguments(arguments)


def constructor_arguments(text: str) -> tuple[dict[str, Any], tuple[str, ...]]:
    """Return the keyword values of a constructor string and the rewrites applied to them.

    The rewrites are those of the official loader: the patch embedding for mixed aspect ratios
    becomes the plain one, and ``landscape_only`` becomes False.

    Raises
    ------
    CheckpointError
        As :func:`parse_constructor`, except that values are checked for their type alone.
    """
    keywords = _keywords(_configuration_call(_parse(text)))
    unknown = sorted(set(keywords) - set(_SAMPLES) - set(_WITHOUT_EFFECT))
    if unknown:
        raise CheckpointError(
            f"the constructor string has unknown keyword(s) {', '.join(unknown)}; known are "
            f"{', '.join(sorted(_SAMPLES))}. The checkpoint belongs to a variant of CUT3R that is "
            f"not implemented here"
        )
    arguments = {
        name: _typed(name, _literal(node))
        for name, node in keywords.items()
        if name not in _WITHOUT_EFFECT
    }
    report = []
    if arguments.get("patch_embed_cls") == "ManyAR_PatchEmbed":
        arguments["patch_embed_cls"] = "PatchEmbedDust3R"
        report.append("patch_embed_cls: ManyAR_PatchEmbed read as PatchEmbedDust3R")
    if arguments.get("landscape_only", True):
        given = "True" if "landscape_only" in arguments else "not given"
        arguments["landscape_only"] = False
        report.append(f"landscape_only: {given}, set to False")
    return arguments, tuple(report)


def config_from_arguments(arguments: dict[str, Any]) -> CUT3RConfig:
    """Return the configuration of these official keywords, absent ones at official defaults.

    Raises
    ------
    CheckpointError
        When the values describe a model that cannot be built here.
    """
    try:
        return CUT3RConfig(**(OFFICIAL_DEFAULTS | arguments))
    except InvalidArgument as error:
        raise CheckpointError(
            f"the checkpoint describes a model that cannot be built here: {error} "
            f"(keywords it does not give take the official defaults)"
        ) from error


def _parse(text: str) -> ast.expr:
    if len(text) > _LONGEST:
        raise CheckpointError(
            f"the constructor string has {len(text)} characters; no official one exceeds {_LONGEST}"
        )
    try:
        return ast.parse(text.strip(), mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise _unexpected(f"the text {shortened(text)}") from error


def _configuration_call(node: ast.expr) -> ast.Call:
    """Return the inner call of ``ARCroco3DStereo(ARCroco3DStereoConfig(...))``."""
    model = _call_of(node, MODEL_CALL)
    if len(model.args) != 1 or model.keywords:
        raise _unexpected(f"{MODEL_CALL} called with other arguments")
    config = _call_of(model.args[0], CONFIG_CALL)
    if config.args:
        raise _unexpected(f"{CONFIG_CALL} called with positional arguments")
    return config


def _call_of(node: ast.expr, name: str) -> ast.Call:
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == name:
        return node
    raise _unexpected(_source(node.func if isinstance(node, ast.Call) else node))


def _keywords(call: ast.Call) -> dict[str, ast.expr]:
    keywords: dict[str, ast.expr] = {}
    for keyword in call.keywords:
        if keyword.arg is None:
            raise _unexpected("keywords unpacked with **")
        if keyword.arg in keywords:
            raise _unexpected(f"{keyword.arg} given twice")
        keywords[keyword.arg] = keyword.value
    return keywords


def _literal(node: ast.expr) -> Any:
    match node:
        case ast.Constant():
            return node.value
        case ast.Name(id="inf"):
            return float("inf")
        case ast.UnaryOp(op=ast.USub(), operand=ast.Constant() | ast.Name()):
            value = _literal(node.operand)
            if type(value) in (int, float):
                return -value
        case ast.Tuple() | ast.List():
            return tuple(_literal(item) for item in node.elts)
    raise _unexpected(_source(node))


def _typed(name: str, value: Any) -> Any:
    """Return ``value`` in the type the configuration has for ``name``."""
    sample = _SAMPLES[name]
    if name == "img_size" and type(value) is int:
        value = (value, value)
    try:
        return _conformed(value, sample)
    except (TypeError, OverflowError) as error:
        raise CheckpointError(
            f"{name} in the constructor string must be of the form {sample!r}, "
            f"got {shortened(value)}"
        ) from error


def _conformed(value: Any, sample: Any) -> Any:
    if isinstance(sample, tuple) and isinstance(value, tuple) and len(value) == len(sample):
        return tuple(_conformed(*pair) for pair in zip(value, sample, strict=True))
    if isinstance(sample, float) and type(value) is int:
        return float(value)
    if type(value) is not type(sample) or isinstance(sample, tuple):
        raise TypeError
    return value


def _source(node: ast.expr) -> str:
    try:
        return shortened(ast.unparse(node))
    except RecursionError:
        return "a deeply nested expression"


def _unexpected(what: str) -> CheckpointError:
    return CheckpointError(
        f"the constructor string holds {what}, which is not read. Expected is "
        f"{MODEL_CALL}({CONFIG_CALL}(keyword=literal, ...)) with literals, inf, signed numbers, "
        f"tuples and lists; it is parsed, never evaluated"
    )
