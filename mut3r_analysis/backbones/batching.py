"""Values made of tensors with a leading batch: their rows, mixtures and stacks."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields, is_dataclass, replace
from functools import lru_cache
from typing import Any, TypeVar

import torch
from torch import Tensor

Value = TypeVar("Value")
"""A tensor, or a dataclass, mapping, list or tuple of values; what else it holds is left alone."""


def constant(values: Sequence[bool | float], device: torch.device) -> Tensor:
    """Return a few numbers on a device. They are sent there once, as each sending waits for it.

    The tensor is shared; nothing may change it.
    """
    flags = all(isinstance(value, bool) for value in values)
    return _sent(tuple(values), torch.bool if flags else torch.float32, device)


@lru_cache(maxsize=1024)
def _sent(values: tuple[bool | float, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
    return torch.tensor(values, dtype=dtype, device=device)


def each_tensor(function: Callable[..., Tensor], first: Value, *others: Value) -> Value:
    """Apply a function to corresponding tensors of values of one shape."""
    changed: Value = _each(function, first, *others)
    return changed


def _each(function: Callable[..., Tensor], *values: Any) -> Any:
    head = values[0]
    if isinstance(head, Tensor):
        return function(*values)
    if is_dataclass(head) and not isinstance(head, type):
        changed = {
            field.name: _each(function, *(getattr(value, field.name) for value in values))
            for field in fields(head)
        }
        return replace(head, **changed)
    if isinstance(head, Mapping):
        return {key: _each(function, *(value[key] for value in values)) for key in head}
    if isinstance(head, list | tuple):
        parts = [_each(function, *items) for items in zip(*values, strict=True)]
        return type(head)(*parts) if hasattr(head, "_fields") else type(head)(parts)
    return head


def rows(value: Value, index: slice | Sequence[int]) -> Value:
    """Take rows of the batch."""
    return each_tensor(lambda tensor: tensor[index], value)


def concatenated(parts: Sequence[Value]) -> Value:
    """Put consecutive parts of a batch together."""
    return each_tensor(lambda *tensors: torch.cat(tensors), *parts)


def mixed(one: Value, other: Value | None, shares: Sequence[float]) -> Value:
    """Return a share of one value per sample, and the rest of the other.

    Where all samples take one of them whole it is returned as it is; within a batch, shares of 0
    and 1 are exact.
    """
    if other is None or one is other or min(shares) == 1:
        return one
    if max(shares) == 0:
        return other

    def mix(a: Tensor, b: Tensor) -> Tensor:
        share = constant(shares, a.device).reshape(-1, *[1] * (a.dim() - 1))
        return (share * a + (1 - share) * b).to(a.dtype)

    return each_tensor(mix, one, other)
