"""Fixtures that every area of the tests may use."""

import json
import math
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import settings
from safetensors.torch import load_file

from mut3r_analysis.backbones.cut3r import CUT3R
from mut3r_analysis.backbones.cut3r.config import CUT3RConfig

# The same examples every time, so that a failure is the change's and not the draw's;
# HYPOTHESIS_PROFILE=search looks for new ones.
settings.register_profile("repeat", derandomize=True, deadline=None)
settings.register_profile("search", deadline=None, max_examples=500)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "repeat"))

SHARED = Path(__file__).resolve().parents[2] / "shared"


@pytest.fixture(scope="session")
def shared() -> Path:
    """Reference data beside the checkout; tests that need it are skipped without it."""
    if not SHARED.is_dir():
        pytest.skip(f"reference data not found at {SHARED}")
    return SHARED


class Golden:
    """Arrays, configurations and weights made with the official implementation."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def arrays(self, name: str) -> dict[str, np.ndarray]:
        with np.load(self._folder / f"{name}.npz") as file:
            return dict(file)

    def config(self, head: str) -> CUT3RConfig:
        values = json.loads((self._folder / "config.json").read_text())["tiny"][head]
        values |= values.pop("dpt_adapter_dims_overridden_for_size", {})
        values |= dict.fromkeys(("depth_mode", "pose_mode"), ("exp", -math.inf, math.inf))
        return CUT3RConfig.from_dict(values | {"conf_mode": ("exp", 1, math.inf)})

    def weights(self, head: str) -> dict[str, torch.Tensor]:
        stored = load_file(self._folder / f"weights_{head}.safetensors")
        return {name: tensor.float() for name, tensor in stored.items()}

    def backbone(self, head: str = "dpt", update: str = "cut3r") -> CUT3R:
        model = CUT3R(self.config(head), update=update)
        model.load_state_dict(self.weights(head))
        return model.eval().requires_grad_(False)


@pytest.fixture(scope="session")
def golden(shared: Path) -> Golden:
    return Golden(shared / "golden")
