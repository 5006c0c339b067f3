"""Parity with the official implementation on numbers that ship with the package."""

import json
import math
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

from mut3r_analysis.backbones.cut3r import CUT3R
from mut3r_analysis.backbones.cut3r.config import CUT3RConfig
from mut3r_analysis.backbones.dust3r import DUSt3R, DUSt3RConfig
from mut3r_analysis.backbones.point3r.config import Point3RConfig
from mut3r_analysis.backbones.point3r.model import Point3R
from mut3r_analysis.backbones.protocol import Backbone
from mut3r_analysis.backbones.spann3r.config import Spann3RConfig
from mut3r_analysis.backbones.spann3r.model import Spann3R
from mut3r_analysis.backbones.steps import Frame
from mut3r_analysis.backbones.vggt.config import VGGTConfig
from mut3r_analysis.backbones.vggt.model import VGGT
from mut3r_analysis.foundation.bundled import data_path

TOLERANCES = {
    "pose": 2e-5,
    "state": 2e-5,
    "memory": 2e-4,
    "depth": 5e-4,
    "confidence_self": 2e-4,
    "world": 5e-4,
    "color": 2e-5,
    "ttt3r_state": 2e-5,
    "ttt3r_rate": 2e-5,
}
"""Largest absolute difference that another kernel's rounding explains.

A last-bit difference can flip a float16 rounding of the encoder's queries and keys; leaving that
rounding out would move the state by 1e-4, five times its tolerance.
"""

PAIR_TOLERANCES = {"points": 5e-5, "confidence": 1e-5}
"""The same of a pair; another epsilon of the norms would move points by 2e-4."""

POINTER_TOLERANCES = {"pose": 3e-5, "world": 5e-4, "pointers": 0.0}
"""The same of a memory of pointers, whose number is exact; leaving the float16 rounding out would
move poses by 7e-5."""

BANK_TOLERANCES = {"world": 5e-4, "confidence_world": 5e-5, "rows": 0.0}
"""The same of a bank of earlier frames, whose number of rows is exact; reading without the
threshold on weights would move points by 6e-3."""

CACHED_TOLERANCE = 1e-5
"""The same of frames beside caches; another epsilon of the aggregator's norms would move poses by
2e-5."""


@dataclass(frozen=True)
class Agreement:
    """Largest absolute difference of one quantity of a kind of model, and what is allowed."""

    name: str
    difference: float
    tolerance: float
    model: str = "cut3r"

    @property
    def holds(self) -> bool:
        """Whether the difference is within the tolerance (NaN is not)."""
        return self.difference <= self.tolerance


Rule = Callable[[str, np.ndarray], np.ndarray]
"""Name of a parameter and standard normal numbers -> the parameter's values."""


def named_random_weights(
    model: nn.Module, rule: Rule | None = None, *, seed: int = 0, salt: str = ""
) -> dict[str, torch.Tensor]:
    """Weights drawn from the names of the parameters, as the reference numbers were made with."""
    rule = rule or scaled_by_name
    return {
        name: torch.from_numpy(draw(name, tuple(tensor.shape), rule=rule, seed=seed, salt=salt))
        for name, tensor in model.state_dict().items()
    }


def scaled_by_name(name: str, z: np.ndarray) -> np.ndarray:
    """Scale normal numbers to the values of a CUT3R or Point3R parameter."""
    *_, parent, leaf = f"..{name}".split(".")
    if "norm" in parent:
        return 0.1 * z + (1.0 if leaf == "weight" else 0.0)
    if leaf == "bias":
        return 0.2 * z
    if name == "register_tokens.weight":
        return z
    if leaf == "weight":
        return z * _gain(name, parent) / math.sqrt(math.prod(z.shape[1:]))
    return 0.5 * z


def scaled_in_pairs(name: str, z: np.ndarray) -> np.ndarray:
    """Scale normal numbers to the values of a DUSt3R or Spann3R parameter."""
    *_, parent, leaf = f"..{name}".split(".")
    if "norm" in parent:
        wide = 1.7 if parent in ("norm_q", "norm_k") else 1.0
        return 0.1 * z + (wide if leaf == "weight" else 0.0)
    if leaf == "bias":
        return (0.05 if "attn_head" in name else 0.2) * z
    if leaf != "weight":
        return 0.5 * z
    if ".dpt." in name:
        gain = 0.6 if name.endswith("head.4.weight") else 0.95
    elif "downstream_head" in name:
        gain = 0.9
    elif "attn_head" in name:
        gain = 1.6
    elif name == "dust3r.patch_embed.proj.weight":
        gain = 4.0
    else:
        gain = 0.5 if parent in ("proj", "fc2") else 1.2
    return z * gain / math.sqrt(math.prod(z.shape[1:]))


def scaled_beside_caches(name: str, z: np.ndarray) -> np.ndarray:
    """Scale normal numbers to the values of a VGGT or StreamVGGT parameter."""
    *_, parent, leaf = f"..{name}".split(".")
    wide = math.sqrt(math.prod(z.shape[1:]))
    if leaf == "gamma":
        return 0.6 + 0.2 * z
    if name == "camera_head.pose_branch.fc2.bias":
        # The rule in words has 0.22 twice; the official numbers were made with 0.25 as the last.
        return 0.05 * z + np.array([0, 0, 0, 0, 0, 0, 0.3, 0.22, 0.25])
    if name == "camera_head.pose_branch.fc2.weight":
        return z * np.array([0.25] * 7 + [0.05] * 2)[:, None] / wide
    if "poseLN_modulation" in name:
        return 0.5 * z / wide if leaf == "weight" else 0.2 * z
    if "norm" in parent:
        return 0.1 * z + (1.0 if leaf == "weight" else 0.0)
    if leaf == "bias":
        return 0.2 * z
    if leaf != "weight":
        return (0.4 if leaf == "pos_embed" else 0.5) * z
    if any(part in name for part in ("_head.scratch", ".resize_layers", ".projects")):
        return z * 0.95 / wide
    return z * (0.5 if parent in ("proj", "fc2") and "patch_embed.proj" not in name else 1.2) / wide


def draw(
    name: str,
    shape: tuple[int, ...],
    *,
    rule: Rule = scaled_by_name,
    seed: int = 0,
    salt: str = "",
) -> np.ndarray:
    """Draw one float32 parameter; values are rounded to float16, so that files of them are exact.

    Parameters
    ----------
    name : str
        Official name; with `salt` before it and `seed` it decides the random numbers.
    shape : tuple of int
    rule : callable
        Turns standard normal numbers into values.
    seed : int
    salt : str
    """
    for level in range(4):
        # The official head registers these four layers under two names.
        name = name.replace(f"scratch.layer_rn.{level}.", f"scratch.layer{level + 1}_rn.")
    generator = np.random.default_rng(zlib.crc32((salt + name).encode()) + seed)
    return rule(name, generator.standard_normal(shape)).astype(np.float16).astype(np.float32)


def _gain(name: str, parent: str) -> float:
    if ".dpt_" in name:
        return 0.6 if name.endswith("head.4.weight") else 0.95
    return 0.5 if parent in ("proj", "fc2") else 1.2


def parity() -> list[Agreement]:
    """Run the bundled frames through this package and compare with the official numbers."""
    return [
        *_of_a_stream(), *_with_pointers(), *_of_a_pair(), *_with_a_bank(), *_beside_caches()
    ]  # fmt: skip


def _bundled(name: str) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Return the configuration and the arrays of a kind of model."""
    config = json.loads(data_path("selftest", f"{name}.json").read_text(encoding="utf-8"))
    with np.load(data_path("selftest", f"{name}.npz")) as file:
        return config, dict(file)


def _of_a_pair() -> list[Agreement]:
    settings, expected = _bundled("dust3r-tiny")
    model = DUSt3R(DUSt3RConfig.from_dict(settings))
    model.load_state_dict(named_random_weights(model, scaled_in_pairs))
    with torch.no_grad():
        first, second = (model.encode(_frame(image)) for image in expected["images"])
        pair = vars(model.decode_pair(first, second))
    found = {name: pair[name][0, ::8, ::8].numpy() for name in expected if name != "images"}
    return [
        Agreement(
            name,
            float(np.abs(values - expected[name]).max()),
            PAIR_TOLERANCES[name.partition("_")[0]],
            model.family,
        )
        for name, values in found.items()
    ]


def _with_pointers() -> list[Agreement]:
    settings, expected = _bundled("point3r-tiny")
    model = Point3R(Point3RConfig.from_dict(settings))
    model.load_state_dict(named_random_weights(model, seed=10))
    with torch.no_grad():
        steps = _steps(model, expected["images"])
    predictions = [step.prediction for step in steps]
    found = {
        "pose": torch.cat([each.pose for each in predictions]),
        "world": torch.cat([each.points_world[:, ::8, ::8] for each in predictions]),
        "pointers": torch.cat([step.state.pointers.count for step in steps]),
    }
    return _agreements(found, expected, POINTER_TOLERANCES, model.family)


def _with_a_bank() -> list[Agreement]:
    settings, expected = _bundled("spann3r-tiny")
    model = Spann3R(Spann3RConfig.from_dict(settings))
    model.load_state_dict(named_random_weights(model, scaled_in_pairs, salt="spann3r/"))
    with torch.no_grad():
        steps = _steps(model, expected["images"])
    predictions = [step.prediction for step in steps]
    found = {
        "world": torch.cat([each.points_world[:, ::8, ::8] for each in predictions]),
        "confidence_world": torch.cat([each.confidence_world[:, ::8, ::8] for each in predictions]),
        # nothing is written with the last frame
        "rows": torch.tensor([len(step.state.bank) for step in steps[:-1]]),
    }
    return _agreements(found, expected, BANK_TOLERANCES, model.family)


def _agreements(
    found: Mapping[str, torch.Tensor],
    expected: Mapping[str, np.ndarray],
    tolerances: Mapping[str, float],
    family: str,
) -> list[Agreement]:
    return [
        Agreement(
            name,
            float(np.abs(found[name].numpy() - expected[name]).max()),
            tolerance,
            family,
        )
        for name, tolerance in tolerances.items()
    ]


def _beside_caches() -> list[Agreement]:
    settings, expected = _bundled("vggt-tiny")
    model = VGGT(VGGTConfig.from_dict(settings))
    model.load_state_dict(named_random_weights(model, scaled_beside_caches))
    with torch.no_grad():
        predictions = [step.prediction for step in _steps(model, expected["images"])]
    found = {
        "pose_encoding": [each.pose_raw for each in predictions],
        "depth": [each.points_self[:, ::8, ::8, 2] for each in predictions],
        "world": [each.points_world[:, ::8, ::8] for each in predictions],
    }
    return [
        Agreement(
            name,
            float(np.abs(torch.cat(values).numpy() - expected[name]).max()),
            CACHED_TOLERANCE,
            model.family,
        )
        for name, values in found.items()
    ]


def _of_a_stream() -> list[Agreement]:
    settings, expected = _bundled("cut3r-tiny")
    config = CUT3RConfig.from_dict(settings)
    found: dict[str, torch.Tensor] = {}
    with torch.no_grad():
        plain = CUT3R(config)
        weights = named_random_weights(plain)
        plain.load_state_dict(weights)
        steps = _steps(plain, expected["images"])
        coarse = (slice(None), slice(None, None, 8), slice(None, None, 8))
        for name, source in (
            ("confidence_self", "confidence_self"),
            ("world", "points_world"),
            ("color", "color"),
            ("depth", "points_self"),
        ):
            values = torch.cat([getattr(step.prediction, source) for step in steps])[coarse]
            found[name] = values[..., 2] if name == "depth" else values
        found["pose"] = torch.cat(
            [step.prediction.pose for step in steps if step.prediction.pose is not None]
        )
        found["state"], found["memory"] = steps[-1].state.tokens[0], steps[-1].state.memory[0]
        gated = CUT3R(config, update="ttt3r")
        gated.load_state_dict(weights)
        steps = _steps(gated, expected["images"])
        found["ttt3r_state"] = steps[-1].state.tokens[0]
        found["ttt3r_rate"] = torch.cat([step.rate for step in steps])
    return _agreements(found, expected, TOLERANCES, plain.family)


def _steps(model: Backbone, images: np.ndarray) -> list[Any]:
    steps: list[Any] = []
    frames = [_frame(image) for image in images]
    coming = [*frames[1:], None] if model.looks_ahead else [None] * len(frames)
    for frame, following in zip(frames, coming, strict=True):
        before = steps[-1].state if steps else None
        steps.append(model.step(frame, before, following=following))
    return steps


def _frame(image: np.ndarray) -> Frame:
    pixels = (torch.from_numpy(image).float() / 255 - 0.5) / 0.5
    return Frame(pixels.permute(2, 0, 1)[None])
