"""Checkpoint files: the official layout read as data, and safetensors that describe themselves.

A checkpoint is read into a configuration and float32 tensors under the official names; whether
they fit is :func:`check_weights`' word. Nothing in a file is ever executed.
"""

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from mut3r_analysis.backbones.checkpoint_layouts import (
    FORMAT,
    SOURCES,
    Layout,
    layout_of,
    read_official,
    read_safetensors,
)
from mut3r_analysis.backbones.configuration import ModelConfig
from mut3r_analysis.backbones.constructor_string import parse_constructor
from mut3r_analysis.backbones.weights import (
    check_weights,
    expected_shapes,
    without_duplicates,
)
from mut3r_analysis.errors import (
    AlreadyExists,
    CheckpointError,
    InvalidArgument,
    MissingFile,
    UnreadableFile,
)
from mut3r_analysis.foundation.fields import one_of

__all__ = [
    "FORMAT",
    "Checkpoint",
    "check_weights",
    "convert_checkpoint",
    "expected_shapes",
    "parse_constructor",
    "read_checkpoint",
    "write_checkpoint",
]

_DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """What a checkpoint file holds.

    Attributes
    ----------
    config : ModelConfig
        The model it describes.
    weights : dict of str to Tensor
        float32, under the official names, duplicates included.
    sha256 : str
        Of the file's content, hexadecimal.
    layout : {"official", "safetensors"}
        How the file is laid out.
    report : tuple of str
        Every rewrite that was applied on reading, in words.
    card : str or None
        What the file says of its origin.
    """

    config: ModelConfig
    weights: dict[str, Tensor] = field(repr=False)
    sha256: str
    layout: Layout
    report: tuple[str, ...] = ()
    card: str | None = None


def read_checkpoint(path: str | Path, *, config: ModelConfig | None = None) -> Checkpoint:
    """Read a checkpoint file without executing anything in it.

    Parameters
    ----------
    path : str or Path
        An official ``.pth`` file (a dict with ``args`` and ``model``) or a safetensors file.
        The content decides which, not the suffix.
    config : ModelConfig, optional
        For files that do not describe their model, or not in words this package reads. A file
        that does must agree.

    Raises
    ------
    MissingFile, UnreadableFile
        When there is no such file, or the system cannot read it.
    CheckpointError
        When the file is unsafe, damaged, incomplete or not a checkpoint; the message says which
        and what to do. Fit to the model is checked by `load_backbone`.

    Notes
    -----
    Memory is taken when a tensor is used: float32 weights stay mapped to the file, which must not
    be rewritten in place meanwhile.

    Examples
    --------
    >>> own = m3.load_backbone("random:small")
    >>> path = m3.backbones.write_checkpoint("own.safetensors", own.state_dict(), own.config)
    >>> read_checkpoint(path).config == own.config
    True
    """
    path = Path(path)
    if not path.exists():
        raise MissingFile(f"no checkpoint at {path}. {SOURCES}")
    try:
        layout = layout_of(path)
        read = read_official if layout == "official" else read_safetensors
        found, weights, report, card = read(path, config)
        with path.open("rb") as file:
            sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise UnreadableFile(f"cannot read the checkpoint {path}: {error}") from error
    return Checkpoint(found, weights, sha256, layout, report, card)


def convert_checkpoint(
    source: str | Path,
    target: str | Path,
    *,
    dtype: str | torch.dtype | None = None,
    overwrite: bool = False,
) -> Path:
    """Write a checkpoint as safetensors with the configuration inside.

    Parameters
    ----------
    source : str or Path
        Any file that :func:`read_checkpoint` reads. Its weights must fit its configuration.
    target : str or Path
        A path that ends in ``.safetensors``.
    dtype : {"float32", "float16", "bfloat16"} or torch.dtype, optional
        How to store the numbers; float32 when not given. Reading always returns float32.
    overwrite : bool
        Whether an existing target may be replaced.

    Returns
    -------
    Path
        The target, complete and verified by reading it again.

    Raises
    ------
    AlreadyExists, InvalidArgument, MissingFile, UnreadableFile, CheckpointError
        As :func:`write_checkpoint` and :func:`read_checkpoint`. The target is then as before.

    Examples
    --------
    >>> own = m3.load_backbone("random:small")
    >>> path = m3.backbones.write_checkpoint("own.safetensors", own.state_dict(), own.config)
    >>> half = convert_checkpoint(path, "half.safetensors", dtype="float16")
    >>> half.stat().st_size < 0.6 * path.stat().st_size
    True
    """
    target = _accepted_target(target, overwrite)
    _storage_dtype(dtype)
    checkpoint = read_checkpoint(source)
    check_weights(checkpoint.weights, expected_shapes(checkpoint.config))
    origin = f"converted from {Path(source).name}, sha256 {checkpoint.sha256}"
    return write_checkpoint(
        target,
        checkpoint.weights,
        checkpoint.config,
        card="\n".join((checkpoint.card or origin, *checkpoint.report)),
        dtype=dtype,
        overwrite=overwrite,
    )


def write_checkpoint(
    target: str | Path,
    weights: Mapping[str, Tensor],
    config: ModelConfig,
    *,
    card: str | None = None,
    dtype: str | torch.dtype | None = None,
    overwrite: bool = False,
) -> Path:
    """Write weights and their configuration as one safetensors file, whole or not at all.

    The file is written beside the target, read again and compared bit by bit, then renamed.

    Parameters
    ----------
    target : str or Path
        A path that ends in ``.safetensors``.
    weights : mapping of str to Tensor
        Under the official names; tensors with two names are stored once.
    config : ModelConfig
        The model they belong to.
    card : str, optional
        Origin, training data, licence: what a reader of the file should know.
    dtype, overwrite
        As for :func:`convert_checkpoint`.

    Raises
    ------
    AlreadyExists
        When the target exists and ``overwrite`` is False.
    InvalidArgument
        When the suffix or the dtype is not one of those above.
    CheckpointError
        When the numbers do not fit the dtype, or the file cannot be written (disk full).

    Examples
    --------
    >>> own = m3.load_backbone("random:small")
    >>> path = write_checkpoint("own.safetensors", own.state_dict(), own.config)
    >>> m3.load_backbone(path).family
    'cut3r'
    """
    target = _accepted_target(target, overwrite)
    stored = _stored_as(without_duplicates(weights), _storage_dtype(dtype))
    metadata = {"format": FORMAT, "backbone": config.family, "config": config.to_json()}
    if card is not None:
        metadata["card"] = card
    partial = target.with_name(f".{target.name}.{os.getpid()}.partial")
    try:
        partial.touch()
        permissions = partial.stat().st_mode
        save_file(stored, partial, metadata=metadata)
        partial.chmod(permissions)  # safetensors makes files that only their owner can read
        with partial.open("rb+") as file:
            _sort_header(file)
            os.fsync(file.fileno())
        _verify(partial, stored, metadata)
        partial.replace(target)
    except (OSError, SafetensorError) as error:
        raise CheckpointError(
            f"could not write {target}: {error}. Nothing was left behind; free some space or "
            f"choose a folder that exists and can be written"
        ) from error
    finally:
        partial.unlink(missing_ok=True)
    return target


def _sort_header(file: BinaryIO) -> None:
    """Give the same weights the same bytes: safetensors writes metadata in a random order."""
    length = int.from_bytes(file.read(8), "little")
    header = json.loads(file.read(length))
    file.seek(8)
    ordered = {"__metadata__": dict(sorted(header.pop("__metadata__").items())), **header}
    text = json.dumps(ordered, separators=(",", ":"), ensure_ascii=False)
    file.write(text.encode().ljust(length))


def _accepted_target(target: str | Path, overwrite: bool) -> Path:
    target = Path(target)
    if target.suffix != ".safetensors":
        raise InvalidArgument(f"the target must end in .safetensors, got {target}")
    if target.exists() and not overwrite:
        raise AlreadyExists(
            f"{target} exists and was left alone; pass overwrite=True to replace it"
        )
    return target


def _storage_dtype(dtype: str | torch.dtype | None) -> torch.dtype:
    name = str(dtype or "float32").removeprefix("torch.")
    return _DTYPES[one_of("dtype", name, _DTYPES)]


def _stored_as(weights: Mapping[str, Tensor], dtype: torch.dtype) -> dict[str, Tensor]:
    stored: dict[str, Tensor] = {}
    memory: set[int] = set()
    for name, tensor in weights.items():
        cast = tensor.detach().to("cpu", dtype).contiguous()
        if cast.isinf().any() and not torch.equal(cast.isinf(), tensor.detach().cpu().isinf()):
            raise CheckpointError(
                f"{name} reaches {tensor.abs().max():.3g}, beyond the range of {dtype}; store "
                f"bfloat16 or float32"
            )
        # safetensors refuses two tensors in one memory, which a state_dict may hold.
        address = cast.untyped_storage().data_ptr()
        stored[name] = cast.clone() if address in memory else cast
        memory.add(address)
    return stored


def _verify(path: Path, stored: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
    with safe_open(path, framework="pt", device="cpu") as file:
        same = file.metadata() == metadata and set(file.keys()) == stored.keys()
        same = same and all(
            _identical(file.get_tensor(name), tensor) for name, tensor in stored.items()
        )
    if not same:
        raise CheckpointError(
            f"{path} was written, but reading it back gave other values; the disk or the memory is "
            "at fault. The file was removed"
        )


def _identical(one: Tensor, other: Tensor) -> bool:
    """Compare bit by bit, so that NaN equals itself."""
    if one.dtype != other.dtype or one.shape != other.shape:
        return False
    return torch.equal(one.flatten().view(torch.uint8), other.flatten().view(torch.uint8))
