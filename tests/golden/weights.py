"""Weights of the parity sets: read where a file lies, else drawn from the parameters' names."""

import gzip
import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import load_file

from mut3r_analysis.backbones.parity import (
    draw,
    scaled_beside_caches,
    scaled_by_name,
    scaled_in_pairs,
)

SHAPES = "param_shapes.json.gz"
"""Beside a set's config.json: stem of a weights file -> name -> shape."""


def read_weights(folder: Path, stem: str) -> dict[str, torch.Tensor]:
    """Return float32 weights of the set in ``folder``, for example ``"weights_dpt"``."""
    file = folder / f"{stem}.safetensors"
    if file.is_file():
        return {name: tensor.float() for name, tensor in load_file(file).items()}
    config = json.loads((folder / "config.json").read_text())
    shapes = json.loads(gzip.decompress((folder / SHAPES).read_bytes()))[stem]
    weights = drawn_weights(folder.name, config, stem, shapes)
    wanted = config["weights"]["sha256"][stem]
    if tensors_sha256(weights) != wanted:
        raise ValueError(f"{folder}: weights drawn for {stem!r} are not those of sha256 {wanted}")
    return weights


def drawn_weights(
    name: str, config: Mapping, stem: str, shapes: Mapping[str, list[int]]
) -> dict[str, torch.Tensor]:
    """Draw weights by the rule in words of ``config["weights"]``; ``name`` is the set's folder."""
    said = config["weights"]
    variant = stem.removeprefix("weights").lstrip("_") or "main"
    seed = said.get("seed", config.get("models", {}).get(variant, {}).get("seed", 0))
    rule = RULES.get(name, scaled_by_name)
    return {
        key: torch.from_numpy(
            draw(key, tuple(shape), rule=rule, seed=seed, salt=said.get("salt", ""))
        )
        for key, shape in shapes.items()
    }


def tensors_sha256(weights: Mapping[str, torch.Tensor]) -> str:
    """Digest of all tensors as float16, in the order of their names, without names or shapes."""
    digest = hashlib.sha256()
    for name in sorted(weights):
        digest.update(weights[name].to(torch.float16).contiguous().numpy().tobytes())
    return digest.hexdigest()


RULES = {"dust3r": scaled_in_pairs, "spann3r": scaled_in_pairs, "streamvggt": scaled_beside_caches}
"""Folder -> rule; CUT3R and Point3R follow the package's own."""
