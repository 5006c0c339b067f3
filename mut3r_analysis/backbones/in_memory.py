"""Weights as they are in memory: whether they are still those that were loaded."""

import warnings
from copy import copy
from dataclasses import replace
from hashlib import sha256

import torch

from mut3r_analysis.backbones.protocol import Backbone

_WORD = 8
_ROW = 512
_LARGE = 1 << 20
"""Bytes from which a tensor is added up by itself; smaller ones are joined first."""


def weights_digest(model: torch.nn.Module) -> str:
    """Return a digest of everything in a model's state, the same on every device.

    Rows and columns of 64-bit words are added up where the tensors are, so that nothing large is
    copied; any change of single numbers, and of their order, shows in one of them.
    """
    hashed, sums, small = sha256(), [], []
    for name, tensor in sorted(model.state_dict().items()):
        hashed.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        numbers = tensor.detach().contiguous().flatten().view(torch.uint8)
        if numbers.numel() < _LARGE:
            small.append(numbers)
        else:
            sums += _sums(numbers)
    if small:
        sums += _sums(torch.cat(small))
    if sums:
        hashed.update(torch.cat(sums).cpu().numpy().tobytes())
    return hashed.hexdigest()


def as_in_memory(backbone: Backbone) -> Backbone:
    """Return a backbone whose origin tells the weights that it has now.

    A warning and the report say where they are not those that were loaded. Of a model that
    `load_backbone` did not make nothing is known.
    """
    origin = backbone.origin
    if not origin.weights or (digest := weights_digest(backbone)) == origin.weights:
        return backbone
    told = f"the weights of {origin.name!r} were changed in memory after they were loaded"
    warnings.warn(
        f"{told}. Runs record this, with a digest of the changed weights. Load the backbone again "
        "for those of the checkpoint",
        stacklevel=4,
    )
    changed = copy(backbone)
    changed.origin = replace(
        origin,
        sha256=sha256(f"{origin.sha256} {digest}".encode()).hexdigest(),
        report=(*origin.report, told),
        weights=digest,
    )
    return changed


def _sums(numbers: torch.Tensor) -> list[torch.Tensor]:
    # A view as words begins at one.
    numbers = numbers.clone() if numbers.storage_offset() % _WORD else numbers
    whole = numbers.numel() // (_WORD * _ROW) * (_WORD * _ROW)
    words = numbers[:whole].view(torch.int64).view(-1, _ROW)
    # Sums of integers wrap around, in whatever order they are taken.
    return [words.sum(0), words.sum(1), numbers[whole:].to(torch.int64)]
