"""What random scenes are like, and that moving objects look like resting ones."""

import numpy as np
import pytest
from scipy.spatial.transform import Rotation
from sklearn.metrics import roc_auc_score

from mut3r_analysis.scenes import (
    HELD_OUT_SEEDS,
    TRAINING_SEEDS,
    Scene,
    SceneDistribution,
    draw,
    random_batch,
)
from mut3r_analysis.scenes.arrays import ABSENT


@pytest.fixture(scope="module")
def batch():
    return random_batch(TRAINING_SEEDS[7], 1200, 2, size=(48, 36))


def test_training_and_held_out_seeds_are_disjoint():
    assert HELD_OUT_SEEDS.stop <= TRAINING_SEEDS.start


def test_camera_steps_are_of_the_declared_size(batch):
    step = np.linalg.inv(batch["pose"][:, 0]) @ batch["pose"][:, 1]
    turn = np.degrees(Rotation.from_matrix(step[:, :3, :3]).as_rotvec())
    np.testing.assert_allclose(turn.std(axis=0), (3, 6, 2), rtol=0.25)
    np.testing.assert_allclose(step[:, :3, 3].std(axis=0), (0.22, 0.12, 0.16), rtol=0.25)


def test_objects_and_movers_fill_the_usual_share_of_the_image(batch):
    assert 0.3 < (batch["instance"] > 0).mean() < 0.5
    assert 0.07 < batch["motion_mask"].mean() < 0.15
    assert batch["visible_previous"][:, 1].mean() > 0.7


def test_moving_objects_cannot_be_told_from_resting_ones_by_a_single_frame(batch):
    # an object moves if most of its pixels do; an AUC of 0.5 means indistinguishable
    gray = batch["image"][:, 1].astype(float).mean(axis=-1)
    rows, moves = [], []
    for clip in range(len(gray)):
        for index in range(1, 5):
            mine = batch["instance"][clip, 1] == index
            if mine.sum() < 8:
                continue
            y, x = np.nonzero(mine)
            depth = np.median(batch["depth"][clip, 1][mine])
            values = gray[clip][mine]
            rows.append(
                (mine.sum(), depth, values.std(), values.mean(), abs(x.mean() - 23.5), y.mean())
            )
            moves.append(batch["motion_mask"][clip, 1][mine].mean() > 0.5)
    assert 600 < sum(moves) < len(moves) / 2
    for column in np.array(rows).T:
        # two standard errors of an AUC with these counts are 0.04
        assert abs(roc_auc_score(moves, column) - 0.5) < 0.05


@pytest.mark.parametrize("movers", [0, 1, 3])
def test_as_many_objects_move_as_asked(movers):
    scenes = draw(3, 200, 4, SceneDistribution(movers=movers))
    poses = scenes.object_poses(4)
    moving = (poses != poses[:, :1]).any(axis=(1, 3, 4)) & (scenes.shape != ABSENT)
    present = (scenes.shape != ABSENT).sum(axis=1)
    assert (present == 4).mean() > 0.95
    np.testing.assert_array_equal(moving.sum(axis=1), np.minimum(movers, present))


def test_movers_keep_the_asked_speed_on_average():
    scenes = draw(3, 2000, 2, SceneDistribution(movers=4, mover_speed=0.3))
    places = scenes.object_poses(2)[..., 3]
    step = np.linalg.norm(places[:, 1] - places[:, 0], axis=-1)
    moving = step > 0
    assert np.sqrt((step[moving] ** 2).mean()) == pytest.approx(0.3, rel=0.12)


@pytest.mark.parametrize(
    ("camera", "turns", "shifts"),
    [
        ("free", True, True),
        ("static", False, False),
        ("rotation", True, False),
        ("translation", False, True),
        ("straight", False, True),
    ],
)
def test_cameras_do_what_their_name_says(camera, turns, shifts):
    poses = draw(3, 20, 5, SceneDistribution(camera=camera)).camera_poses(5)
    assert np.ptp(poses[..., :3], axis=1).any() == turns
    assert np.ptp(poses[..., 3], axis=1).any() == shifts
    if camera == "straight":
        np.testing.assert_allclose(np.diff(poses[..., 3], n=2, axis=1), 0, atol=1e-9)


@pytest.mark.parametrize("camera", ["free", "straight"])
@pytest.mark.parametrize("frames", [2, 60])
def test_cameras_stay_in_their_room_and_outside_objects(camera, frames):
    # Scene refuses a camera that does not
    for seed in range(15):
        Scene.random(seed, frames, camera=camera, objects=3)
