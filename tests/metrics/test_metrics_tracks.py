"""3D tracks and scene flow: dense definitions, identities, and what a score means."""

import numpy as np
import pytest
import xarray as xr
from scipy.spatial.transform import Rotation

from mut3r_analysis.errors import InvalidArgument
from mut3r_analysis.metrics import UndefinedMetric, score_tracks
from mut3r_analysis.metrics.similarity import Similarity
from mut3r_analysis.metrics.tracks import TRACK_METRICS, sample, true_pairs, world_points
from mut3r_analysis.scenes import load_scene

RNG = np.random.default_rng
FRAMES = 5


@pytest.fixture(scope="module")
def scene() -> xr.Dataset:
    return load_scene("orbit-03").render((48, 32)).isel(frame=slice(0, FRAMES)).load()


def with_tracks(scene: xr.Dataset, seed: int = 0) -> xr.Dataset:
    """The scene with twelve pixels per frame that are said to show the same points."""
    rng = RNG(seed)
    pixels = rng.uniform(0, (47, 31), (FRAMES, 12, 2))
    seen = rng.random((FRAMES, 12)) < 0.7
    seen[1] = False
    pixels[2, 3] = np.nan
    tracks = {"track_pixel": (("frame", "track", "uv"), pixels),
              "track_visible": (("frame", "track"), seen)}  # fmt: skip
    return scene.drop_vars(["flow", "scene_flow"]).assign(tracks)


def predicted(scene: xr.Dataset, clouds=None, similarity=None) -> xr.Dataset:
    """What a model says that predicts the clouds (frame, y, x, xyz), in a world of its own."""
    if clouds is None:
        clouds = np.stack([world_points(scene, frame) for frame in range(scene.sizes["frame"])])
    poses = scene["pose"].values
    if similarity is not None:
        clouds, poses = similarity.apply_to_points(clouds), similarity.apply_to_poses(poses)
    return xr.Dataset(
        {"points_world": (("frame", "y", "x", "xyz"), clouds),
         "pose": (("frame", "row", "col"), poses)}
    )  # fmt: skip


OTHER = Similarity(Rotation.from_rotvec([0.3, -1, 0.2]).as_matrix(), np.array([1, 2, -3.0]), 0.4)


@pytest.mark.parametrize("similarity", [None, OTHER])
@pytest.mark.parametrize("tracked", [False, True])
@pytest.mark.parametrize("align", ["sim3", "sim3_points"])
def test_truth_in_any_world_has_no_error(scene, similarity, tracked, align) -> None:
    truth = with_tracks(scene) if tracked else scene
    scores = score_tracks(truth, predicted(scene, similarity=similarity), align)
    for name in ("track_error", "scene_flow_error"):
        assert float(scores[name]) == pytest.approx(0, abs=1e-9)
    for reach in (5, 10):
        assert float(scores[f"track_within_{reach}cm"]) == 1
    wanted = 1 if similarity is None else 1 / similarity.scale
    assert float(scores["alignment_scale"]) == pytest.approx(wanted)


def test_scores_equal_their_definition(scene) -> None:
    """Every pair of frames and every track, one by one, in float64."""
    truth = with_tracks(scene)
    clouds = np.stack([world_points(scene, frame) for frame in range(FRAMES)])
    noisy = clouds + RNG(1).normal(0, 0.05, clouds.shape)

    def value(cloud, uv):
        u, v = uv
        x, y = min(int(u), 46), min(int(v), 30)
        corners = [((1 - abs(u - c)) * (1 - abs(v - r)), cloud[r, c])
                   for r in (y, y + 1) for c in (x, x + 1)]  # fmt: skip
        return sum(weight * corner for weight, corner in corners)

    pixels, seen = truth["track_pixel"].values, truth["track_visible"].values
    error, near, flow = [], [], []
    for i in range(FRAMES):
        for j in range(FRAMES):
            there = [
                [
                    value(cloud[frame], pixels[frame, k])
                    for frame in (i, j)
                    for cloud in (clouds, noisy)
                ]
                for k in range(12)
                if seen[i, k] and seen[j, k] and np.isfinite(pixels[[i, j], k]).all()
            ]
            if not there:
                continue
            error.append(np.mean([np.linalg.norm(d - c) for _, _, c, d in there]))
            near.append(np.mean([np.linalg.norm(d - c) < 0.05 for _, _, c, d in there]))
            if i != j:
                moved = [np.linalg.norm((d - b) - (c - a)) for a, b, c, d in there]
                flow.append(np.mean(moved))
    scores = score_tracks(truth, predicted(scene, noisy))
    assert len(error) == 4 * 4
    assert float(scores["track_error"]) == pytest.approx(np.mean(error), rel=1e-9)
    assert float(scores["track_within_5cm"]) == pytest.approx(np.mean(near), rel=1e-9)
    assert float(scores["scene_flow_error"]) == pytest.approx(np.mean(flow), rel=1e-9)
    assert 0 < float(scores["track_within_5cm"]) < float(scores["track_within_10cm"]) < 1


@pytest.mark.parametrize(
    ("seed", "error", "within_10cm", "within_5cm"),
    [
        (0, 0.04926249262108963, 0.9510416666666666, 0.6311755952380951),
        (1, 0.056902674214188674, 0.9577380952380952, 0.41180555555555554),
    ],
)
def test_numbers_are_those_of_the_released_evaluation(
    scene, seed, error, within_10cm, within_5cm
) -> None:
    """The values were computed by the function that Shape of Motion releases for DyCheck.

    ``evaluate_3d_tracking`` of commit 697d462, given for each pair of frames the noisy points at
    the tracks' own pixels in the second frame; its alignment is float32.
    """
    truth = with_tracks(scene, seed)
    clouds = np.stack([world_points(scene, frame) for frame in range(FRAMES)])
    noisy = clouds + RNG(seed + 10).normal(0, 0.05, clouds.shape)
    scores = score_tracks(truth, predicted(scene, noisy, OTHER))
    assert float(scores["track_error"]) == pytest.approx(error, rel=2e-5)
    assert float(scores["track_within_10cm"]) == pytest.approx(within_10cm, rel=1e-12)
    assert float(scores["track_within_5cm"]) == pytest.approx(within_5cm, rel=1e-12)


def test_pixels_along_flow_show_the_moved_point(scene) -> None:
    pairs = list(true_pairs(scene))
    assert [pair[:2] for pair in pairs] == [(0, 1), (1, 2), (2, 3), (3, 4)]
    for pair in pairs:
        here, there = (
            sample(world_points(scene, frame), pixels)
            for frame, pixels in zip(pair[:2], pair.pixels, strict=True)
        )
        x, y = pair.pixels[0].astype(int).T
        motion = scene["scene_flow"].values[pair.first, y, x]
        missed = np.linalg.norm(there - here - motion, axis=1)
        assert (missed <= 0.01 * scene["depth"].values[pair.first, y, x] + 1e-6).all()
        assert np.median(missed) < 1e-3
        # Most of what is in both frames is found, and what moves is among it.
        assert len(x) > 0.6 * 48 * 32
        moves = scene["instance"].values[pair.first, y, x] == 2
        np.testing.assert_array_equal(pair.moving, moves)
        assert moves.sum() > 20


def test_a_world_at_rest_errs_by_the_motion(scene) -> None:
    """A model that leaves every moving point where it was in the first frame of a pair."""
    first = scene.isel(frame=slice(0, 2))
    clouds = np.stack([world_points(first, frame) for frame in range(2)])
    (pair,) = true_pairs(first)
    size = np.linalg.norm(np.diff([sample(c, p) for c, p in zip(clouds, pair.pixels, strict=True)],
                                  axis=0)[0], axis=1)  # fmt: skip
    tracks = {"track_pixel": (("frame", "track", "uv"), np.stack(pair.pixels)),
              "track_visible": (("frame", "track"), np.ones((2, len(size)), bool))}  # fmt: skip
    still = np.zeros_like(clouds)
    truth = first.drop_vars(["flow", "scene_flow"]).assign(tracks)
    scores = score_tracks(truth, predicted(first, still), "none")
    assert float(scores["scene_flow_error"]) == pytest.approx(size.mean())
    moving = score_tracks(first, predicted(first, still), "none")
    assert float(moving["scene_flow_error_moving"]) == pytest.approx(size[pair.moving].mean())
    assert size[pair.moving].mean() > 0.05


def test_points_that_are_right_in_a_world_of_their_own_are_aligned_by_themselves(scene) -> None:
    """A path that lies elsewhere spoils the fit of the path, and not that of the points."""
    given = predicted(scene, similarity=OTHER)
    given["pose"].values[:, :3, 3] = RNG(2).normal(size=(FRAMES, 3))
    own = score_tracks(scene, given, "sim3_points")
    assert float(own["track_error"]) == pytest.approx(0, abs=1e-9)
    assert float(own["alignment_scale"]) == pytest.approx(1 / OTHER.scale)
    assert float(score_tracks(scene, given)["track_error"]) > 0.5
    with pytest.raises(InvalidArgument, match="sim3_points"):
        score_tracks(scene, given, "points")


def test_frames_that_are_not_neighbours_are_no_pair_of_flow(scene) -> None:
    every_other = scene.isel(frame=[0, 2, 4])
    assert list(true_pairs(every_other)) == []
    with pytest.raises(UndefinedMetric, match="no two frames"):
        score_tracks(every_other, predicted(every_other))


def test_pixels_are_found_where_a_crop_and_a_resize_moved_them(scene) -> None:
    truth = with_tracks(scene)
    clouds = np.stack([world_points(scene, frame) for frame in range(FRAMES)])
    inside = [[1, 0, -4], [0, 1, -3], [0, 0, 1]]
    cut = predicted(scene, clouds[:, 3:-3, 4:-4])
    scores = score_tracks(truth, cut, to_prediction=inside)
    assert float(scores["track_error"]) == pytest.approx(0, abs=1e-9)
    assert int(scores["points"]) < int(score_tracks(truth, predicted(scene))["points"])


def test_interpolation_between_pixels() -> None:
    plane = np.stack(np.meshgrid(np.arange(4.0), np.arange(3.0)), axis=-1)
    places = np.array([[0, 0], [3, 2], [1.25, 0.5], [2.999, 1.0], [3, 0.5]])
    np.testing.assert_allclose(sample(plane, places), places, atol=1e-12)
    assert np.isnan(sample(plane, [[-0.1, 0], [3.1, 0], [0, 2.1], [np.nan, 0]])).all()
    plane[0, 0] = np.nan
    assert np.isnan(sample(plane, [[0.5, 0.5]])).all()
    np.testing.assert_allclose(sample(np.ones((1, 1, 1)), [[0, 0]]), 1)


def test_what_cannot_be_scored_is_refused(scene) -> None:
    good = predicted(scene)
    with pytest.raises(InvalidArgument, match="it needs track_pixel and track_visible"):
        score_tracks(scene.drop_vars("flow"), good)
    with pytest.raises(InvalidArgument, match="truth lacks depth"):
        score_tracks(scene.drop_vars("depth"), good)
    with pytest.raises(InvalidArgument, match="prediction lacks points_world"):
        score_tracks(scene, good.drop_vars("points_world"))
    with pytest.raises(InvalidArgument, match="select the same frames"):
        score_tracks(scene, good.isel(frame=slice(0, 3)))
    broken = good.copy(deep=True)
    broken["points_world"][2, 10] = np.nan
    with pytest.raises(UndefinedMetric, match="NaN or infinite at pixels of tracks"):
        score_tracks(scene, broken)
    still = good.assign(pose=xr.zeros_like(good["pose"]) + np.eye(4))
    with pytest.raises(UndefinedMetric, match="stands still"):
        score_tracks(scene, still)


def test_every_metric_is_scored_and_said_in_words(scene) -> None:
    scores = score_tracks(scene, predicted(scene))
    for name in TRACK_METRICS:
        assert scores[name].attrs["long_name"]
        assert np.isfinite(scores[name])
    at_rest = with_tracks(scene)
    assert np.isnan(score_tracks(at_rest, predicted(scene))["scene_flow_error_moving"])
