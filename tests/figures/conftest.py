"""A small run to draw: random weights, moving squares, every statistic, and a made-up truth."""

import numpy as np
import pytest
import xarray as xr

import mut3r_analysis as m3

FRAMES = 5


def moving_squares(frames: int = FRAMES) -> np.ndarray:
    """A light square that walks over a gradient, uint8 (frame, y, x, rgb)."""
    gradient = np.linspace(0, 160, 64).astype(np.uint8)
    pixels = np.broadcast_to(gradient[None, None, :, None], (frames, 48, 64, 3)).copy()
    for frame in range(frames):
        pixels[frame, 16:32, 8 * frame : 8 * frame + 12] = (230, 200, 90)
    return pixels


@pytest.fixture(scope="session")
def squares() -> xr.Dataset:
    return m3.open_sequence(moving_squares(), name="squares")


@pytest.fixture(scope="session")
def squares_run(squares: xr.Dataset) -> xr.DataTree:
    model = m3.load_backbone("random:small", device="cpu")
    return m3.run(model, squares, capture=m3.Capture(statistics="all"), progress=False)


@pytest.fixture
def squares_with_truth(squares_run: xr.DataTree) -> xr.DataTree:
    """The run with a truth that is known exactly: the predicted path seen from another world."""
    prediction = squares_run["prediction"].to_dataset()
    angle = 0.7
    world = np.eye(4)
    world[:2, :2] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    world[:3, 3] = 5, -2, 1
    pose = prediction["pose"].copy(data=world @ prediction["pose"].values.astype(float))
    tree = squares_run.copy()
    tree["truth"] = xr.DataTree(xr.Dataset({"pose": pose, "depth": prediction["depth"] + 1}))
    return tree
