"""Runs to explore: random weights over a scene with a known moving object."""

import os

import numpy as np
import pytest
import xarray as xr
from browser import CHROMIUM

import mut3r_analysis as m3

FRAMES = 3


@pytest.fixture(scope="session")
def scene() -> xr.Dataset:
    return m3.open_sequence("scenes/orbit-03", stop=FRAMES)


@pytest.fixture(scope="session")
def model():
    return m3.load_backbone("random:small", device="cpu")


@pytest.fixture(scope="session")
def archived(model, scene) -> xr.DataTree:
    """A run that keeps queries and keys."""
    return m3.run(model, scene, capture=m3.Capture(archive=True), progress=False)


@pytest.fixture(scope="session")
def mapped(model, scene) -> xr.DataTree:
    """A run that keeps maps of two kinds of sites, and statistics at all."""
    capture = m3.Capture(maps=["image_self", "state_to_image"])
    return m3.run(model, scene, capture=capture, progress=False)


@pytest.fixture(scope="session")
def cued(archived) -> xr.DataTree:
    """The archived run with a motion score, higher where the truth moves."""
    run = archived.copy()
    mask = run["truth/motion_mask"].values.astype(float)
    frames, height, width = mask.shape
    cells = mask.reshape(frames, height // 8, 8, width // 8, 8).mean((2, 4))
    dims = ("frame", "patch_row", "patch_col")
    score = xr.DataArray(0.2 + 0.8 * cells, dims=dims).assign_coords(
        frame=run["prediction"]["frame"].values,
        patch_row=np.arange(height // 8),
        patch_col=np.arange(width // 8),
    )
    run["cue"] = xr.DataTree(xr.Dataset({"motion": score}))
    return run


@pytest.fixture(scope="session")
def chromium() -> str:
    pytest.importorskip(
        "playwright.sync_api", reason="playwright is not installed: pip install playwright"
    )
    if CHROMIUM is None:
        assert os.environ.get("MUT3R_BROWSER") != "required", "no Chromium, and it is required"
        pytest.skip("no Chromium on this machine: apt-get install chromium, or your system's like")
    return CHROMIUM
