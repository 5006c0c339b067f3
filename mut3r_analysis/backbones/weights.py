"""The tensors of a checkpoint: official renamings undone, duplicates, and the fit to a model."""

import re
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor

from mut3r_analysis.backbones.configuration import ModelConfig
from mut3r_analysis.backbones.dense import dpt_widths
from mut3r_analysis.backbones.families import Copied, family_of
from mut3r_analysis.errors import CheckpointError

_SHOWN = 20
_READABLE = (torch.float32, torch.float16, torch.bfloat16, torch.float64)
_WRAPPERS = ("module.", "_orig_mod.", "model.")
"""Prefixes that data parallelism, torch.compile and training frameworks leave."""

_COMPILED = "._orig_mod."
_MOST_READINGS = 8
"""Times that the bytes of a storage may be read, by views and as float32."""

_DPT = "downstream_head.dpt_self."
_VALUE_BLOCK = re.compile(r"value_encoder\.(\d+)\.")

# The DPT heads register each of their four input convolutions under two names.
_DUPLICATE = re.compile(r"(?P<head>.*\.scratch\.)layer_rn\.(?P<level>[0-3])\.weight")
_ORIGINAL = re.compile(r"(?P<head>.*downstream_head.*\.scratch\.)layer(?P<level>[1-4])_rn\.weight")


def expected_shapes(config: ModelConfig) -> dict[str, tuple[int, ...]]:
    """Return name -> shape of every tensor of the model, without allocating it."""
    with torch.device("meta"):
        model = family_of(config).model(config)
    return {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}


def check_weights(weights: Mapping[str, Tensor], expected: Mapping[str, tuple[int, ...]]) -> None:
    """Refuse weights whose names and shapes are not exactly the expected ones.

    Parameters
    ----------
    weights : mapping of str to Tensor
        What a checkpoint holds.
    expected : mapping of str to tuple of int
        What the model has, for example from :func:`expected_shapes`.

    Raises
    ------
    CheckpointError
        Counts all missing, unexpected and mis-shaped tensors, and names the first of each kind.
    """
    shared = sorted(weights.keys() & expected.keys())
    problems = {
        "missing": sorted(expected.keys() - weights.keys()),
        "unexpected": sorted(weights.keys() - expected.keys()),
        "mis-shaped": [
            f"{name} (expected {tuple(expected[name])}, found {tuple(weights[name].shape)})"
            for name in shared
            if tuple(weights[name].shape) != tuple(expected[name])
        ],
    }
    if not any(problems.values()):
        return
    counts = ", ".join(f"{len(names)} {kind}" for kind, names in problems.items())
    lists = "".join(f"\n  {kind}: {_listed(names)}" for kind, names in problems.items() if names)
    raise CheckpointError(
        f"the weights do not fit the model their configuration describes: {counts} of "
        f"{len(expected)} tensors.{lists}\nNothing was loaded. Use the configuration the weights "
        f"were trained with, or the complete checkpoint file"
    )


def float32_weights(weights: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    """Return the weights as dense float32 tensors, and what had to be converted.

    Raises
    ------
    CheckpointError
        When an entry is not a dense tensor of floating-point numbers of 16 bits or more, repeats
        a few stored numbers many times, or holds NaN or infinity.
    """
    converted: dict[str, int] = {}
    readings: dict[int, int] = {}
    result = {}
    for name, tensor in weights.items():
        if (
            not isinstance(name, str)
            or not isinstance(tensor, Tensor)
            or tensor.dtype not in _READABLE
            or tensor.layout != torch.strided
            or tensor.is_meta
        ):
            kind = getattr(tensor, "dtype", type(tensor).__name__)
            raise CheckpointError(
                f"the entry {name!r} of the weights is {kind}, not a dense tensor of "
                f"floating-point numbers of 16 bits or more; save the model's plain state_dict"
            )
        storage = tensor.untyped_storage()
        readings[storage.data_ptr()] = readings.get(storage.data_ptr(), 0) + 4 * tensor.numel()
        if readings[storage.data_ptr()] > _MOST_READINGS * storage.nbytes():
            raise CheckpointError(
                f"the entry {name!r} of the weights, {tuple(tensor.shape)}, repeats "
                f"{storage.nbytes()} stored bytes again and again; save the plain state_dict"
            )
        if tensor.dtype != torch.float32:
            kind = str(tensor.dtype).removeprefix("torch.")
            converted[kind] = converted.get(kind, 0) + 1
        result[name] = tensor.detach().to(torch.float32).contiguous()
    _check_finite(result)
    report = tuple(f"{count} tensors stored as {kind}" for kind, count in converted.items())
    return result, tuple(f"{line}, converted to float32" for line in report)


def _check_finite(weights: Mapping[str, Tensor]) -> None:
    """Refuse numbers that would make every result NaN; one pass that keeps nothing."""
    bad = [
        name
        for name, tensor in weights.items()
        if tensor.numel() and not all(torch.isfinite(end) for end in tensor.aminmax())
    ]
    if bad:
        raise CheckpointError(
            f"{len(bad)} of {len(weights)} tensors hold NaN or infinite numbers: {_listed(bad)}. "
            "The training diverged, or the file is damaged; use an earlier checkpoint"
        )


def without_wrapper(
    weights: Mapping[str, Tensor],
) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    """Strip the prefixes that tools leave where every name has them, and say so.

    What torch.compile leaves within names, of parts that were compiled, goes as well.
    """
    renamed, stripped = dict(weights), []
    while renamed:
        prefix = next((p for p in _WRAPPERS if all(name.startswith(p) for name in renamed)), None)
        if prefix is None:
            break
        renamed = {name.removeprefix(prefix): tensor for name, tensor in renamed.items()}
        stripped.append(prefix)
    report = []
    if stripped:
        report.append(f"prefix '{''.join(stripped)}' stripped from all {len(renamed)} names")
    compiled = {name.replace(_COMPILED, "."): tensor for name, tensor in renamed.items()}
    marked = sum(_COMPILED in name for name in renamed)
    if marked and len(compiled) == len(renamed):
        renamed = compiled
        report.append(f"'{_COMPILED[1:]}' taken out of {marked} names")
    return renamed, tuple(report)


def with_copies(
    weights: Mapping[str, Tensor], copies: Iterable[Copied]
) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    """Start parts that a checkpoint lacks from others, as the official loader does, and say which.

    Such a checkpoint is an initialisation from DUSt3R.
    """
    complete = dict(weights)
    report = []
    for absent, source, part in copies:
        names = [name for name in weights if name.startswith(source)]
        if names and not any(name.startswith(absent) for name in weights):
            copied = {name.replace(source, absent, 1): weights[name].clone() for name in names}
            complete |= copied
            report.append(
                f"no {absent}*: {len(names)} tensors of {source}* copied to it; {part} is untrained"
            )
    return complete, tuple(report)


def without_unused(
    weights: Mapping[str, Tensor], unused: tuple[str, ...]
) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    """Leave out tensors that nothing here reads, and say how many."""
    kept = {name: tensor for name, tensor in weights.items() if not name.startswith(unused)}
    if len(kept) == len(weights):
        return kept, ()
    parts = ", ".join(f"{part}*" for part in unused)
    return kept, (f"{len(weights) - len(kept)} tensors of {parts} left out: nothing here reads it",)


def with_duplicates(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the weights with both official names of every tensor that has two.

    ``scratch.layer_rn.{i}.weight`` and ``scratch.layer{i+1}_rn.weight`` are one tensor.

    Raises
    ------
    CheckpointError
        When both are there and differ.
    """
    complete = dict(weights)
    differing = []
    for name, tensor in weights.items():
        other = _other_name(name)
        if other is None:
            continue
        if not torch.equal(complete.setdefault(other, tensor), tensor):
            differing.append(name)
    if differing:
        raise CheckpointError(
            f"tensors that official models store twice, as scratch.layer_rn.{{i}} and "
            f"scratch.layer{{i+1}}_rn, differ from their copies: {_listed(sorted(differing))}. "
            f"It cannot be known which is meant; save the state_dict of the trained model again"
        )
    return complete


def without_duplicates(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the weights with every tensor once, under ``scratch.layer{i+1}_rn``."""
    return {name: tensor for name, tensor in weights.items() if not _DUPLICATE.fullmatch(name)}


def widths_of(weights: Mapping[str, Tensor]) -> dict[str, Any]:
    """Return the widths that official constructors fix, as far as the tensors tell them.

    There is no keyword for them, so in a smaller model only the tensors say what they are: those of
    the DPT heads, and how deep the encoder of pointmaps is.
    """
    found: dict[str, Any] = {}
    blocks = {match[1] for name in weights if (match := _VALUE_BLOCK.match(name))}
    if blocks:
        found["value_depth"] = len(blocks)
    return found | dpt_widths(weights, _DPT)


def _other_name(name: str) -> str | None:
    if match := _DUPLICATE.fullmatch(name):
        return f"{match['head']}layer{int(match['level']) + 1}_rn.weight"
    if match := _ORIGINAL.fullmatch(name):
        return f"{match['head']}layer_rn.{int(match['level']) - 1}.weight"
    return None


def _listed(names: list[str]) -> str:
    more = f", and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more
