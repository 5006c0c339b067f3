"""The constructor string of an official checkpoint, read as data.

An official checkpoint says what model it holds as a Python expression, which the official loader
evaluates. Here the expression is parsed and only its literal keyword values are taken; nothing
in it is ever executed.
"""

import ast
from collections.abc import Collection
from dataclasses import fields
from reprlib import repr as shortened
from typing import Any

from mut3r_analysis.backbones.configuration import ModelConfig
from mut3r_analysis.backbones.families import FAMILIES, Family
from mut3r_analysis.errors import CheckpointError, InvalidArgument

_LONGEST = 20_000


def parse_constructor(text: str) -> ModelConfig:
    """Return the configuration that an official constructor string describes.

    Parameters
    ----------
    text : str
        ``"ARCroco3DStereo(ARCroco3DStereoConfig(freeze='encoder', state_size=768, ...))"``, or as
        another of :data:`~mut3r_analysis.backbones.families.FAMILIES`. Values may be literals,
        ``inf``, signed numbers and tuples or lists of these. Widths that the official constructor
        fixes (``feature_dim``, ``last_dim``, ``layer_dims`` of the DPT head) may be given too.

    Raises
    ------
    CheckpointError
        When the text is anything else, names an unknown call or keyword, or describes a model
        that cannot be built here.
    """
    family, arguments, _ = constructor_arguments(text)
    return config_from_arguments(family, arguments)


def constructor_arguments(text: str) -> tuple[Family, dict[str, Any], tuple[str, ...]]:
    """Return what a constructor string calls, its keyword values and the rewrites applied to them.

    The rewrites are those of the official loader: the patch embedding for mixed aspect ratios
    becomes the plain one, and ``landscape_only`` becomes False.

    Raises
    ------
    CheckpointError
        As :func:`parse_constructor`, except that values are checked for their type alone.
    """
    family, call = _configuration_call(_parse(text))
    keywords = _keywords(call)
    samples = {field.name: field.default for field in fields(family.config)}
    unknown = sorted(set(keywords) - set(samples) - set(family.ignored))
    if unknown:
        raise CheckpointError(
            f"the constructor string has unknown keywords: {', '.join(unknown)}; known are "
            f"{', '.join(sorted(samples))}. The checkpoint belongs to a variant of "
            f"{family.model.__name__} that is not implemented here"
        )
    arguments = {
        name: _typed(name, _literal(node), samples[name])
        for name, node in keywords.items()
        if name not in family.ignored
    }
    report = []
    if arguments.get("patch_embed_cls") == "ManyAR_PatchEmbed":
        arguments["patch_embed_cls"] = "PatchEmbedDust3R"
        report.append("patch_embed_cls: ManyAR_PatchEmbed read as PatchEmbedDust3R")
    if (
        arguments.get("landscape_only", True)
        and True not in family.config.allowed["landscape_only"]
    ):
        given = "True" if "landscape_only" in arguments else "not given"
        arguments["landscape_only"] = False
        report.append(f"landscape_only: {given}, set to False")
    return family, arguments, tuple(report)


def config_from_arguments(family: Family, arguments: dict[str, Any]) -> ModelConfig:
    """Return the configuration of these official keywords, absent ones at official defaults.

    Raises
    ------
    CheckpointError
        When the values describe a model that cannot be built here.
    """
    try:
        return family.config(**{**family.defaults, **arguments})
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


def _configuration_call(node: ast.expr) -> tuple[Family, ast.Call]:
    """Return what ``Model(ModelConfig(...))`` makes, and the call that has the keywords."""
    families = {family.constructor[0]: family for family in FAMILIES.values()}
    name, model = _call_of(node, families)
    family = families[name]
    if family.constructor[1] is None:
        if model.args:
            raise _unexpected(f"{name} called with positional arguments")
        return family, model
    if len(model.args) != 1 or model.keywords:
        raise _unexpected(f"{name} called with other arguments")
    name, config = _call_of(model.args[0], (family.constructor[1],))
    if config.args:
        raise _unexpected(f"{name} called with positional arguments")
    return family, config


def _call_of(node: ast.expr, names: Collection[str]) -> tuple[str, ast.Call]:
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in names:
        return node.func.id, node
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


def _typed(name: str, value: Any, sample: Any) -> Any:
    """Return the value of a keyword in the type that the configuration has for it."""
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
    forms = " or ".join(family.expression for family in FAMILIES.values())
    return CheckpointError(
        f"the constructor string holds {what}, which is not read. Expected is {forms} with "
        f"literals, inf, signed numbers, tuples and lists; it is parsed, never evaluated"
    )
