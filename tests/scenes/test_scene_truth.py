"""Rendered truth against closed forms worked out here, in float64 and with scipy's rotations."""

import numpy as np
import pytest
from scipy.ndimage import map_coordinates
from scipy.spatial.transform import Rotation

from mut3r_analysis.scenes import (
    Camera,
    Light,
    Path,
    Room,
    Scene,
    SceneObject,
    random_batch,
)

TURNED = Camera(Path((0.3, -0.2, -1.0)), Path((-8.0, 21.0, 5.0)))


def matrix(angles):
    pitch, yaw, roll = angles
    return Rotation.from_euler("YXZ", [yaw, pitch, roll], degrees=True).as_matrix()


def rays(dataset, frame=0):
    """Camera centre, and rays (y, x, xyz) in the world with unit depth."""
    height, width = dataset.sizes["y"], dataset.sizes["x"]
    x, y = np.meshgrid(np.arange(width), np.arange(height))
    pixels = np.stack([x, y, np.ones_like(x)], axis=-1).astype(float)
    pose = dataset["pose"].values[frame]
    local = pixels @ np.linalg.inv(dataset["intrinsics"].values[frame]).T
    return pose[:3, 3], local @ pose[:3, :3].T


def world_points(dataset, frame):
    center, direction = rays(dataset, frame)
    return center + dataset["depth"].values[frame][..., None] * direction


def project(points, dataset, frame):
    pose, intrinsics = dataset["pose"].values[frame], dataset["intrinsics"].values[frame]
    local = (points - pose[:3, 3]) @ pose[:3, :3]
    pixels = local @ intrinsics.T
    return pixels[..., :2] / pixels[..., 2:], local[..., 2]


def in_camera(normals, dataset, frame=0):
    return normals @ dataset["pose"].values[frame][:3, :3]


def test_pose_of_a_camera_is_its_path_and_angles():
    dataset = Scene(camera=TURNED, frames=1).render()
    np.testing.assert_allclose(dataset["pose"][0, :3, :3], matrix((-8, 21, 5)), atol=1e-12)
    np.testing.assert_allclose(dataset["pose"][0, :3, 3], (0.3, -0.2, -1.0), atol=1e-12)


def test_look_at_puts_the_point_on_the_optical_axis_with_a_level_horizon():
    camera = Camera(Path((1.0, -0.5, -2.0)), look_at=(-0.4, 0.7, 1.5))
    dataset = Scene(camera=camera, frames=1).render((65, 49))
    pixel, depth = project(np.array([-0.4, 0.7, 1.5]), dataset, 0)
    np.testing.assert_allclose(pixel, (32, 24), atol=1e-9)
    assert depth == pytest.approx(np.linalg.norm([1.4, -1.2, -3.5]))
    assert dataset["pose"].values[0, 1, 0] == pytest.approx(0, abs=1e-12)
    assert dataset["pose"].values[0, 1, 1] > 0


def test_intrinsics_follow_the_field_of_view_with_pixel_centres_at_integers():
    intrinsics = Scene(fov=90.0, frames=1).render((64, 48))["intrinsics"].values[0]
    np.testing.assert_allclose(intrinsics, [[32, 0, 31.5], [0, 32, 23.5], [0, 0, 1]], atol=1e-12)


def test_walls_are_planes():
    room = Room(size=(6.0, 3.0, 7.0))
    dataset = Scene(camera=TURNED, room=room, frames=1).render()
    center, direction = rays(dataset)
    half = np.array(room.size) / 2
    distance = (np.sign(direction) * half - center) / direction
    axis = distance.argmin(axis=-1)
    np.testing.assert_allclose(dataset["depth"][0], distance.min(axis=-1), rtol=0, atol=1e-4)
    normal = -np.sign(direction) * np.eye(3)[axis]
    np.testing.assert_allclose(dataset["normal"][0], in_camera(normal, dataset), atol=1e-4)
    assert (dataset["instance"] == 0).all()


def test_a_sphere_is_the_nearer_root_of_a_quadratic():
    middle, radius = np.array([0.7, 0.1, 1.2]), 0.8
    ball = SceneObject("sphere", 2 * radius, Path(tuple(middle)))
    dataset = Scene(camera=TURNED, objects=(ball,), frames=1).render()
    center, direction = rays(dataset)
    offset = center - middle
    a, b = (direction**2).sum(-1), direction @ offset
    discriminant = b**2 - a * (offset @ offset - radius**2)
    hit = dataset["instance"].values[0] == 1
    np.testing.assert_array_equal(hit, discriminant > 0)
    assert hit.sum() > 100
    t = ((-b - np.sqrt(np.where(hit, discriminant, 0))) / a)[hit]
    np.testing.assert_allclose(dataset["depth"].values[0][hit], t, atol=1e-4)
    normal = (center + t[:, None] * direction[hit] - middle) / radius
    np.testing.assert_allclose(
        dataset["normal"].values[0][hit], in_camera(normal, dataset), atol=1e-4
    )


def test_a_turned_box_is_the_nearest_of_six_bounded_planes():
    middle, size, angles = np.array([0.5, 0.3, 1.0]), np.array([1.0, 0.7, 1.3]), (20, -35, 50)
    box = SceneObject("box", tuple(size), Path(tuple(middle)), Path(angles))
    dataset = Scene(camera=TURNED, objects=(box,), frames=1).render()
    center, direction = rays(dataset)
    turn = matrix(angles)
    best = np.full(direction.shape[:2], np.inf)
    normal = np.zeros_like(direction)
    for axis in range(3):
        for sign in (-1, 1):
            outward = sign * turn[:, axis]
            t = ((middle + outward * size[axis] / 2 - center) @ outward) / (direction @ outward)
            local = (center + t[..., None] * direction - middle) @ turn
            inside = (np.abs(np.delete(local, axis, -1)) <= np.delete(size, axis) / 2).all(-1)
            take = inside & (t > 0) & (t < best)
            best = np.where(take, t, best)
            normal[take] = outward
    hit = dataset["instance"].values[0] == 1
    np.testing.assert_array_equal(hit, np.isfinite(best))
    assert hit.sum() > 100
    np.testing.assert_allclose(dataset["depth"].values[0][hit], best[hit], atol=1e-4)
    np.testing.assert_allclose(
        dataset["normal"].values[0][hit], in_camera(normal[hit], dataset), atol=1e-4
    )


@pytest.mark.parametrize("seed", [3, 4, 5])
def test_flow_and_scene_flow_agree_with_poses(seed):
    dataset = Scene.random(seed, frames=4, movers=2).render()
    y, x = np.mgrid[: dataset.sizes["y"], : dataset.sizes["x"]]
    for frame in range(3):
        end = world_points(dataset, frame) + dataset["scene_flow"].values[frame]
        pixels, _ = project(end, dataset, frame + 1)
        expected = np.stack([x, y], axis=-1) + dataset["flow"].values[frame]
        known = np.isfinite(expected).all(-1)
        assert known.mean() > 0.9
        far = np.abs(expected).max(-1) < 500
        assert np.abs(pixels - expected)[known & far].max() < 0.05
    assert np.isnan(dataset["flow"].values[-1]).all()
    assert np.isnan(dataset["scene_flow"].values[-1]).all()


@pytest.mark.parametrize("seed", [3, 4, 5])
def test_points_land_where_the_next_frame_sees_them(seed):
    # inverse depth is affine over a plane, so interpolating it between pixels is exact there
    dataset = Scene.random(seed, frames=3, movers=2).render()
    start = world_points(dataset, 0)
    pixels, depth = project(start + dataset["scene_flow"].values[0], dataset, 1)
    at = [pixels[..., 1], pixels[..., 0]]
    instance, normal = dataset["instance"].values, dataset["normal"].values
    same = np.ones(depth.shape, bool)
    for dy in (0, 1):
        for dx in (0, 1):
            row = np.floor(at[0]).astype(int) + dy
            col = np.floor(at[1]).astype(int) + dx
            inside = (row >= 0) & (row < depth.shape[0]) & (col >= 0) & (col < depth.shape[1])
            row, col = np.where(inside, row, 0), np.where(inside, col, 0)
            same &= inside & (instance[1][row, col] == instance[0])
            first_row, first_col = np.floor(at[0]).astype(int), np.floor(at[1]).astype(int)
            first = normal[1][first_row.clip(0, 47), first_col.clip(0, 63)]
            same &= (np.abs(normal[1][row, col] - first) < 1e-6).all(-1)
    seen = map_coordinates(1 / dataset["depth"].values[1], at, order=1)
    # what is hidden behind another part of its own instance is not seen
    same &= np.abs(seen * depth - 1) < 0.05
    assert same.mean() > 0.1
    assert np.abs(seen * depth - 1)[same].max() < 1e-4


def test_a_mover_follows_its_closed_form_path():
    position = Path((0, 0.2, 1), (0.1, 0, 0), (0.3, 0.2, 0.1), 12.0, (10, 20, 30))
    angles = Path((5, 6, 7), (3, 4, 5))
    box = SceneObject("box", (0.8, 0.6, 1.0), position, angles)
    dataset = Scene(objects=(box,), camera=Camera(Path((0, 0, -2))), frames=5).render()
    for frame in range(4):
        places = []
        for t in (frame, frame + 1):
            wave = np.sin(2 * np.pi * t / 12 + np.radians(position.phase))
            place = np.array(position.start) + t * np.array(position.rate) + wave * position.swing
            places.append((matrix(np.array(angles.start) + t * np.array(angles.rate)), place))
        (turn, place), (later_turn, later_place) = places
        mine = dataset["instance"].values[frame] == 1
        point = world_points(dataset, frame)[mine]
        expected = (point - place) @ turn @ later_turn.T + later_place - point
        np.testing.assert_allclose(dataset["scene_flow"].values[frame][mine], expected, atol=1e-5)


def test_the_motion_mask_is_residual_image_motion_above_its_threshold():
    scene = Scene.random(11, frames=4, movers=2)
    dataset = scene.render()
    threshold = dataset.attrs["motion_threshold_px"]
    assert threshold == 0.25
    y, x = np.mgrid[: dataset.sizes["y"], : dataset.sizes["x"]]
    for frame in range(3):
        rest, _ = project(world_points(dataset, frame), dataset, frame + 1)
        residual = np.linalg.norm(
            dataset["flow"].values[frame] - (rest - np.stack([x, y], axis=-1)), axis=-1
        )
        clear = np.abs(residual - threshold) > 1e-3
        mask = dataset["motion_mask"].values[frame]
        np.testing.assert_array_equal(mask[clear], (residual > threshold)[clear])
    assert dataset["motion_mask"].values[-1].any()
    assert not (dataset["motion_mask"].values & (dataset["instance"].values == 0)).any()


def test_the_motion_mask_does_not_depend_on_the_image_size():
    scene = Scene.random(11, frames=2, movers=2)
    small, large = scene.render((32, 24)), scene.render((96, 72))
    # every third pixel centre of the larger image is a pixel centre of the smaller one
    np.testing.assert_array_equal(small["motion_mask"], large["motion_mask"][:, 1::3, 1::3])
    np.testing.assert_allclose(small["depth"], large["depth"][:, 1::3, 1::3], rtol=1e-5)


def test_flow_to_the_previous_frame_undoes_the_flow_that_led_here():
    options = {"outputs": ("flow", "flow_previous")}
    batch = random_batch(5, 8, 3, **options)
    y, x = np.mgrid[:48, :64]
    checked = 0
    for clip in range(8):
        for frame in (1, 2):
            back, seen = batch["flow_previous"][clip, frame], batch["visible_previous"][clip, frame]
            at = [y + back[..., 1], x + back[..., 0]]
            row, col = (np.rint(each).astype(int) for each in at)
            there = (row.clip(0, 47), col.clip(0, 63))
            same = batch["instance"][clip, frame - 1][there] == batch["instance"][clip, frame]
            assert same[seen].mean() > 0.9
            forward = np.stack(
                [
                    map_coordinates(batch["flow"][clip, frame - 1, ..., k], at, order=1)
                    for k in range(2)
                ],
                axis=-1,
            )
            error = np.linalg.norm(forward + back, axis=-1)[seen & same]
            if len(error) > 100:
                assert np.median(error) < 0.1
                checked += 1
    assert checked >= 10
    assert np.isnan(batch["flow_previous"][:, 0]).all()
    assert not batch["visible_previous"][:, 0].any()


def test_textures_travel_with_their_objects():
    ball = SceneObject("sphere", 1.6, Path((-0.2, 0, 0), rate=(0.1, 0.03, 0)), Path(rate=(0, 4, 0)))
    light = Light(ambient=1.0)
    scene = Scene(objects=(ball,), camera=Camera(Path((0, 0, -2))), light=light, frames=2)
    dataset = scene.render((256, 192))
    y, x = np.mgrid[:192, :256]
    flow = dataset["flow"].values[0]
    gray = dataset["image"].values.mean(axis=-1)
    mine = dataset["instance"].values[0] == 1
    inner = mine & (dataset["normal"].values[0][..., 2] < -0.6)
    carried = map_coordinates(gray[1], [y + flow[..., 1], x + flow[..., 0]], order=1)
    assert gray[0][inner].std() > 10
    assert np.abs(carried - gray[0])[inner].mean() < 0.1 * np.abs(gray[1] - gray[0])[inner].mean()


def test_one_sample_per_pixel_is_close_to_many_inside_surfaces():
    scene = Scene.random(21, frames=1)
    one, many = scene.render(), scene.render(supersample=8)
    instance = one["instance"].values[0]
    inner = np.ones(instance.shape, bool)
    for axis in (0, 1):
        for shift in (-1, 1):
            inner &= np.roll(instance, shift, axis) == instance
    difference = one["image"].values[0].astype(float) - many["image"].values[0]
    assert np.sqrt((difference[inner] ** 2).mean()) < 12
    np.testing.assert_array_equal(one["depth"], many["depth"])
