"""Fixtures that every area of the tests may use."""

import json
import math
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from golden.weights import read_weights
from hypothesis import settings

from mut3r_analysis.backbones import loading
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


@pytest.fixture(scope="session", autouse=True)
def models_on_the_cpu() -> Iterator[None]:
    """Put models for which a test names no device on the CPU, beside its tensors."""
    chosen = loading.usable_device
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loading, "usable_device", lambda device=None: chosen(device or "cpu"))
        yield


class Golden:
    """Arrays, configurations and weights made with official implementations."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def arrays(self, name: str) -> dict[str, np.ndarray]:
        with np.load(self.folder / f"{name}.npz") as file:
            return dict(file)

    def settings(self, part: str = "") -> dict[str, Any]:
        """Return ``config.json`` of a model's part of the set, infinities as numbers."""

        def plain(value: Any) -> Any:
            if isinstance(value, dict):
                return {name: plain(item) for name, item in value.items()}
            if isinstance(value, list):
                return [plain(item) for item in value]
            return {"inf": math.inf, "-inf": -math.inf}.get(value, value)

        return plain(json.loads((self.folder / part / "config.json").read_text()))

    def weights(self, name: str) -> dict[str, torch.Tensor]:
        """Return the weights of a name such as ``"weights_dpt"`` or ``"point3r/weights"``."""
        part, _, stem = name.rpartition("/")
        return read_weights(self.folder / part if part else self.folder, stem)

    def config(self, head: str) -> CUT3RConfig:
        values = self.settings()["tiny"][head]
        values |= values.pop("dpt_adapter_dims_overridden_for_size", {})
        return CUT3RConfig.from_dict(values)

    def backbone(self, head: str = "dpt", update: str = "cut3r") -> CUT3R:
        model = CUT3R(self.config(head), update=update)
        model.load_state_dict(self.weights(f"weights_{head}"))
        return model.eval().requires_grad_(False)


@pytest.fixture(scope="session")
def golden() -> Golden:
    """The parity numbers of ``tests/golden``, or of the folder that ``MUT3R_GOLDEN`` names."""
    return Golden(Path(os.environ.get("MUT3R_GOLDEN", Path(__file__).parent / "golden")))
