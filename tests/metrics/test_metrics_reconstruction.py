"""Point distances equal brute force, and their order is an invariant."""

import numpy as np
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from mut3r_analysis.errors import InvalidArgument
from mut3r_analysis.metrics import (
    UndefinedMetric,
    check_reconstruction,
    point_distances,
    score_reconstruction,
)
from mut3r_analysis.metrics.reconstruction import unproject


def clouds(seed: int, points: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    rng = np.random.default_rng(seed)
    truth = rng.normal(size=(points, 3))
    return truth, truth + rng.normal(0, 0.5, (points, 3))


def scene(seed: int = 0, frames: int = 4, size: tuple[int, int] = (5, 6)) -> xr.Dataset:
    rng = np.random.default_rng(seed)
    poses = np.tile(np.eye(4), (frames, 1, 1))
    poses[:, :3, :3] = Rotation.random(frames, rng=rng).as_matrix()
    poses[:, :3, 3] = rng.normal(size=(frames, 3))
    matrix = np.array([[6.0, 0, 2.5], [0, 6.5, 2.0], [0, 0, 1]])
    return xr.Dataset(
        {
            "depth": (("frame", "y", "x"), rng.uniform(1, 3, (frames, *size))),
            "pose": (("frame", "row", "col"), poses),
            "intrinsics": (("frame", "i", "j"), np.tile(matrix, (frames, 1, 1))),
        }
    )


def under_similarity(truth: xr.Dataset, scale: float, seed: int) -> xr.Dataset:
    """The same scene, in other units and another world frame."""
    rng = np.random.default_rng(seed)
    rotation = Rotation.random(rng=rng).as_matrix()
    poses = truth["pose"].values.copy()
    poses[:, :3, :3] = rotation @ poses[:, :3, :3]
    poses[:, :3, 3] = scale * poses[:, :3, 3] @ rotation.T + rng.normal(size=3)
    return truth.assign(depth=truth["depth"] * scale, pose=(("frame", "row", "col"), poses))


@given(st.integers(0, 2**32 - 1), st.integers(1, 40))
@settings(max_examples=50, deadline=None)
def test_distances_equal_brute_force(seed: int, points: int) -> None:
    truth, prediction = clouds(seed, points)
    every = np.linalg.norm(prediction[:, None] - truth[None], axis=-1)
    found = point_distances(truth, prediction)
    np.testing.assert_allclose(found["accuracy"], every.min(axis=1), rtol=1e-12)
    np.testing.assert_allclose(found["completion"], every.min(axis=0), rtol=1e-12)
    np.testing.assert_allclose(found["distance"], np.diag(every), rtol=1e-12)


@given(st.integers(0, 2**32 - 1), st.integers(1, 40))
@settings(max_examples=50, deadline=None)
def test_nearest_neighbours_are_never_farther_than_correspondences(seed: int, points: int) -> None:
    found = point_distances(*clouds(seed, points))
    for statistic in (np.mean, np.median):
        values = {name: float(statistic(d)) for name, d in found.items()}
        assert check_reconstruction(values) == []


def test_published_numbers_that_break_the_invariant_are_told() -> None:
    told = check_reconstruction({"accuracy": 0.461, "completion": 1.648, "distance": 0.329})
    assert [line.split()[0] for line in told] == ["accuracy", "completion"]
    assert check_reconstruction({"accuracy": 0.073, "completion": 0.133, "distance": 0.328}) == []
    with pytest.raises(InvalidArgument, match="lack completion, distance"):
        check_reconstruction({"accuracy": 1.0})


def test_unprojection_inverts_projection() -> None:
    one = scene().isel(frame=1)
    points = unproject(one["depth"].values, one["intrinsics"].values, one["pose"].values)
    camera = (points - one["pose"].values[:3, 3]) @ one["pose"].values[:3, :3]
    pixels = camera @ one["intrinsics"].values.T
    np.testing.assert_allclose(pixels[..., 2], one["depth"].values)
    y, x = np.indices(one["depth"].shape)
    np.testing.assert_allclose(pixels[..., 0] / pixels[..., 2], x, atol=1e-12)
    np.testing.assert_allclose(pixels[..., 1] / pixels[..., 2], y, atol=1e-12)


@given(st.floats(0.1, 10), st.integers(0, 1000))
@settings(max_examples=20, deadline=None)
def test_a_similar_scene_is_a_perfect_one(scale: float, seed: int) -> None:
    truth = scene(seed)
    found = score_reconstruction(truth, under_similarity(truth, scale, seed))
    for name in ("accuracy", "completion", "distance"):
        np.testing.assert_allclose(found[f"{name}_mean"], 0, atol=1e-9)
        np.testing.assert_allclose(found[f"{name}_median"], 0, atol=1e-9)
    assert float(found["alignment_scale"]) == pytest.approx(1 / scale)


def test_invalid_truth_is_left_out() -> None:
    truth = scene()
    prediction = truth.copy(deep=True)
    truth["depth"][0, :2] = 0.0
    truth["depth"][1, 0, 0] = np.nan
    prediction["depth"][0, :2] = 1e6
    found = score_reconstruction(truth, prediction)
    assert int(found["points"]) == 4 * 30 - 12 - 1
    np.testing.assert_allclose(found["distance_mean"], 0, atol=1e-9)


def test_truth_of_another_size_is_resized_with_its_intrinsics() -> None:
    truth = scene(size=(10, 12))
    truth["depth"][:] = 2.0
    half = truth.isel(y=slice(None, None, 2), x=slice(None, None, 2)).copy(deep=True)
    half["intrinsics"] = truth["intrinsics"] * xr.DataArray([0.5, 0.5, 1.0], dims="i")
    found = score_reconstruction(truth, half)
    np.testing.assert_allclose(found["distance_mean"], 0, atol=1e-9)


def test_bad_input_is_refused() -> None:
    truth = scene()
    with pytest.raises(InvalidArgument, match="prediction lacks pose"):
        score_reconstruction(truth, truth.drop_vars("pose"))
    with pytest.raises(InvalidArgument, match="4 frames and prediction 3"):
        score_reconstruction(truth, truth.isel(frame=slice(3)))
    with pytest.raises(UndefinedMetric, match="no points"):
        score_reconstruction(truth.assign(depth=truth["depth"] * 0), truth)
    with pytest.raises(UndefinedMetric, match="NaN or infinity"):
        score_reconstruction(truth, truth.assign(depth=truth["depth"] * np.nan))
    with pytest.raises(InvalidArgument, match=r"\(point, 3\)"):
        point_distances(np.zeros((3, 3)), np.zeros((2, 3)))
    with pytest.raises(InvalidArgument, match=r"must be \(y, x\)"):
        unproject(np.zeros(3), np.eye(3))
