"""The two layouts of a checkpoint file, each read into a configuration and float32 tensors."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import fields, replace
from pathlib import Path
from reprlib import repr as shortened
from typing import Any, Literal

from safetensors import SafetensorError, safe_open
from torch import Tensor

from mut3r_analysis.backbones.configuration import ModelConfig
from mut3r_analysis.backbones.constructor_string import (
    config_from_arguments,
    constructor_arguments,
)
from mut3r_analysis.backbones.families import FAMILIES, Family, family_of
from mut3r_analysis.backbones.unpickling import contents, load_unexecuted
from mut3r_analysis.backbones.weights import (
    float32_weights,
    widths_of,
    with_copies,
    with_duplicates,
    without_unused,
    without_wrapper,
)
from mut3r_analysis.errors import CheckpointError

FORMAT = "mut3r_analysis/1"
"""Value of the metadata key ``format`` in the safetensors this package writes."""

SOURCES = (
    "Expected is an official .pth file or a .safetensors file written by "
    "convert_checkpoint (on the command line: mut3r convert)"
)

Layout = Literal["official", "safetensors"]

Contents = tuple[ModelConfig, dict[str, Tensor], tuple[str, ...], str | None]
"""Configuration, weights, report of rewrites, card."""

_LONGEST_HEADER = 100_000_000


def layout_of(path: Path) -> Layout:
    """Tell the layout from the first bytes; raise CheckpointError where they are of neither."""
    with path.open("rb") as file:
        start = file.read(9)
    if not start:
        raise CheckpointError(f"{path} is empty: the download or copy failed; fetch it again")
    if start.startswith(b"PK\x03\x04"):
        return "official"
    if start.endswith(b"{") and int.from_bytes(start[:8], "little") < _LONGEST_HEADER:
        return "safetensors"
    if start.startswith(b"\x80"):
        return "official"
    raise CheckpointError(
        f"{path} is not a checkpoint (it begins with {start!r}; a failed download often leaves a "
        f"web page or a pointer). {SOURCES}"
    )


def read_official(path: Path, given: ModelConfig | None) -> Contents:
    """Read a file in the official layout; ``given`` is the caller's configuration."""
    entries = load_unexecuted(path)
    if isinstance(entries, dict) and "model" not in entries and marked(entries) is not None:
        entries = {"model": entries}  # some are released as the plain state_dict
    if not isinstance(entries, dict) or not isinstance(entries.get("model"), dict):
        held = (
            f"a dict with {', '.join(shortened(name) for name in list(entries)[:10]) or 'nothing'}"
            if isinstance(entries, dict)
            else f"a {type(entries).__name__}"
        )
        raise CheckpointError(
            f"{path} has no weights under 'model' (it holds {held}). An official checkpoint is a "
            f"dict with 'args' and 'model'; save a bare state_dict as "
            f"write_checkpoint(path, state_dict, config)"
        )
    return _of_tensors(entries["model"], entries.get("args"), given, path)


def _of_tensors(
    tensors: Mapping[str, Tensor], args: object, given: ModelConfig | None, path: Path
) -> Contents:
    """Read tensors under official names, and what `args` says of their model."""
    weights, converted = float32_weights(tensors)
    weights, stripped = without_wrapper(weights)
    weights = with_duplicates(weights)

    def described() -> tuple[ModelConfig, tuple[str, ...]]:
        family, arguments, report = _described(args, weights, path)
        usual = family.config()
        sizes = family.sizes or widths_of
        inferred = {
            name: width
            for name, width in sizes(weights).items()
            if name not in arguments and hasattr(usual, name)
        }
        report += tuple(
            f"{name}: {width}, as the tensors have it"
            for name, width in inferred.items()
            if width != getattr(usual, name)
        )
        told = isinstance(given, family.config)
        assumed = {
            name: getattr(given if told else usual, name)
            for name in family.unsaid
            if name not in family.defaults
        }
        if not told:
            report += tuple(
                f"{name}: {value}, as released; the file does not say it"
                for name, value in assumed.items()
            )
        return config_from_arguments(family, assumed | arguments | inferred), report

    config, report = _settled(described, given, path)
    family = family_of(config)
    weights, copied = with_copies(weights, family.copies)
    weights, left = without_unused(weights, family.unused)
    return config, weights, (*report, *stripped, *copied, *left, *converted), None


def marked(names: Iterable[object]) -> Family | None:
    """Return the kind of model that names of tensors are of, if any; tools' prefixes may lead."""
    of_tensors = [name for name in names if isinstance(name, str)]
    marks = {family.mark: family for family in FAMILIES.values() if family.mark}
    for mark, family in marks.items():
        if any(name == mark or name.endswith(f".{mark}") for name in of_tensors):
            return family
    return None


def _described(
    args: object, weights: Mapping[str, Tensor], path: Path
) -> tuple[Family, dict[str, Any], tuple[str, ...]]:
    """Return the kind of model, its keywords and their rewrites, as file or tensors say."""
    settings = contents(args)
    text = contents(settings.get("model")) if isinstance(settings, dict) else None
    if isinstance(text, str):
        return constructor_arguments(text)
    for family in FAMILIES.values():
        if family.mark in weights:
            name = family.config.family
            # Without a constructor there are no defaults of it: what tensors do not tell is unsaid.
            known = f"no constructor string: known as {name} by {family.mark}"
            return replace(family, defaults={}), {}, (known, *filter(None, [family.unknown]))
    held = "has no 'args'" if args is None else "has 'args' without a 'model' string"
    raise CheckpointError(
        f"{path} {held}, so it does not say what model it holds. Official checkpoints keep the "
        f"constructor in args.model; pass config=CUT3RConfig(...) to say it yourself"
    )


def read_safetensors(path: Path, given: ModelConfig | None) -> Contents:
    """Read a safetensors file; ``given`` is the caller's configuration."""
    try:
        with safe_open(path, framework="pt", device="cpu") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except SafetensorError as error:
        raise CheckpointError(
            f"{path} cannot be read as safetensors: it is truncated or damaged ({error}). "
            f"Compare its size and sha256 with the source and fetch it again"
        ) from error

    if "config" not in metadata and marked(tensors) is not None:
        return _of_tensors(tensors, None, given, path)

    def described() -> tuple[ModelConfig, tuple[str, ...]]:
        if "config" not in metadata:
            raise CheckpointError(
                f"{path} holds {len(tensors)} tensors but no configuration in its metadata; pass "
                f"config=CUT3RConfig(...), or convert the official checkpoint "
                f"(on the command line: mut3r convert)"
            )
        if metadata.get("format") != FORMAT:
            raise CheckpointError(
                f"{path} is of format {shortened(metadata.get('format'))}; this version of the "
                f"package reads {FORMAT!r}. Update the package, or convert the checkpoint again"
            )
        # Files of before there was a second kind of model do not say which they hold.
        family = FAMILIES.get(metadata.get("backbone", "cut3r"))
        if family is None:
            raise CheckpointError(
                f"{path} holds a {shortened(metadata['backbone'])}; this version of the package "
                f"builds {', '.join(FAMILIES)}. Update the package"
            )
        try:
            return family.config.from_json(metadata["config"]), ()
        except (ValueError, TypeError, AttributeError, RecursionError) as error:
            raise CheckpointError(
                f"the configuration in the metadata of {path} cannot be used: {error}; convert "
                f"the checkpoint again"
            ) from error

    config, report = _settled(described, given, path)
    weights, converted = float32_weights(tensors)
    weights, stripped = without_wrapper(weights)
    return config, with_duplicates(weights), (*report, *stripped, *converted), metadata.get("card")


def _settled(
    described: Callable[[], tuple[ModelConfig, tuple[str, ...]]],
    given: ModelConfig | None,
    path: Path,
) -> tuple[ModelConfig, tuple[str, ...]]:
    """Return the file's own configuration, or the given one where the file has none to read."""
    try:
        found, report = described()
    except CheckpointError as error:
        if given is None:
            raise
        return given, (f"configuration given by the caller, because {error}",)
    if given is not None and given != found:
        same_kind = type(given) is type(found)
        names = [entry.name for entry in fields(found)] if same_kind else ["family"]
        differing = [
            f"{name} (file: {getattr(found, name)!r}, given: {getattr(given, name)!r})"
            for name in names
            if getattr(found, name) != getattr(given, name)
        ]
        raise CheckpointError(
            f"the configuration given for {path} contradicts the one inside: "
            f"{', '.join(differing)}. Leave out config= to use the file's"
        )
    return found, report
