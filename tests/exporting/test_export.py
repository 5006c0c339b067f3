"""What is exported is read back by readers written here, from the formats' own descriptions."""

import json
import struct
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from PIL import Image
from scipy.spatial.transform import Rotation

import mut3r_analysis as m3
from mut3r_analysis.cli import main
from mut3r_analysis.errors import AlreadyExists, InvalidArgument

FRAMES = 3
MIDDLE = np.array([32, 24])


@pytest.fixture(scope="module")
def scene() -> xr.Dataset:
    return m3.open_sequence("scenes/orbit-03", stop=FRAMES).load()


@pytest.fixture(scope="module")
def pixels(scene) -> np.ndarray:
    """Positions (y, x, uv) of the centres of pixels, the first one at (0, 0)."""
    return np.stack(np.meshgrid(np.arange(64), np.arange(48)), axis=-1)


@pytest.fixture(scope="module")
def run(scene, pixels) -> xr.DataTree:
    """A run that predicted the truth, seen about the middle pixel."""
    made = m3.run("tiny", scene, outputs=("pose", "points_self", "points_world"), progress=False)
    poses = np.linalg.inv(scene["pose"].values[0]) @ scene["pose"].values
    focal = scene["intrinsics"].values[:, 0, 0]
    points = []
    for depth, pose, length in zip(scene["depth"].values, poses, focal, strict=True):
        rays = np.concatenate([(pixels - MIDDLE) / length, np.ones((48, 64, 1))], axis=-1)
        points.append((rays * depth[..., None]) @ pose[:3, :3].T + pose[:3, 3])
    prediction = (
        made["prediction"]
        .to_dataset()
        .assign(
            points_world=(("frame", "y", "x", "xyz"), np.stack(points)),
            pose=(("frame", "row", "col"), poses),
            focal=("frame", focal),
        )
    )
    made["prediction"] = prediction
    return made


def read_ply(path: Path) -> tuple[np.ndarray, np.ndarray]:
    head, _, body = path.read_bytes().partition(b"end_header\n")
    count = int(next(line.split()[2] for line in head.splitlines() if b"element vertex" in line))
    rows = np.frombuffer(body, [("place", "<f4", 3), ("color", "u1", 3)])
    assert len(rows) == count
    return rows["place"], rows["color"]


def read_colmap(folder: Path) -> tuple[dict, dict, np.ndarray, np.ndarray]:
    """Cameras by number, images by name, and points, as COLMAP's documentation lays them out."""
    content, at = (folder / "cameras.bin").read_bytes(), 8
    cameras = {}
    for _ in range(struct.unpack_from("<Q", content)[0]):
        number, model, width, height, *numbers = struct.unpack_from("<iiQQ4d", content, at)
        assert model == 1  # PINHOLE: fx, fy, cx, cy
        cameras[number], at = (width, height, numbers), at + 56
    assert at == len(content)
    content, at, images = (folder / "images.bin").read_bytes(), 8, {}
    for _ in range(struct.unpack_from("<Q", content)[0]):
        _, *pose, camera = struct.unpack_from("<i7di", content, at)
        end = content.index(b"\0", at + 64)
        images[content[at + 64 : end].decode()] = (np.array(pose), camera)
        assert struct.unpack_from("<Q", content, end + 1) == (0,)
        at = end + 9
    assert at == len(content)
    content, at, places, colors = (folder / "points3D.bin").read_bytes(), 8, [], []
    for _ in range(struct.unpack_from("<Q", content)[0]):
        _, *place = struct.unpack_from("<Q3d", content, at)
        colors.append(struct.unpack_from("<3B", content, at + 32))
        assert struct.unpack_from("<dQ", content, at + 35) == (0, 0)
        places.append(place)
        at += 51
    assert at == len(content)
    return cameras, images, np.array(places), np.array(colors)


def test_the_background_is_what_rests_and_the_rest_comes_frame_by_frame(run, scene, tmp_path):
    folder = m3.export_run(run, scene, tmp_path / "room", moving="truth", voxel=None)
    moving = scene["motion_mask"].values
    points, image = run["prediction/points_world"].values, scene["image"].values
    places, colors = read_ply(folder / "static.ply")
    np.testing.assert_array_equal(places, points[~moving].astype(np.float32))
    np.testing.assert_array_equal(colors, image[~moving])
    assert moving.any(axis=(1, 2)).all()
    for frame in range(FRAMES):
        places, colors = read_ply(folder / "moving" / f"{frame:06d}.ply")
        np.testing.assert_array_equal(places, points[frame][moving[frame]].astype(np.float32))
        np.testing.assert_array_equal(colors, image[frame][moving[frame]])
    assert not (folder / "images").exists()


def test_a_colmap_folder_sees_every_point_where_it_came_from(run, scene, pixels, tmp_path):
    folder = m3.export_run(run, scene, tmp_path / "c", "colmap", moving="truth", voxel=None)
    cameras, images, places, colors = read_colmap(folder / "sparse" / "0")
    rests = ~scene["motion_mask"].values
    assert len(places) == rests.sum()
    np.testing.assert_array_equal(colors, scene["image"].values[rests])
    begin = 0
    for frame, name in enumerate(sorted(images)):
        assert name == f"{frame:06d}.png"
        pose, number = images[name]
        width, height, (fx, fy, cx, cy) = cameras[number]
        assert (width, height) == (64, 48)
        mine = places[begin : begin + rests[frame].sum()]
        begin += len(mine)
        # World to camera, and pixels from the corner: the first centre is at (0.5, 0.5).
        x, y, z = (Rotation.from_quat(pose[[1, 2, 3, 0]]).apply(mine) + pose[4:]).T
        seen = np.stack([fx * x / z + cx, fy * y / z + cy], axis=1)
        np.testing.assert_allclose(seen, pixels[rests[frame]] + 0.5, atol=1e-6)
        np.testing.assert_array_equal(Image.open(folder / "images" / name), scene["image"][frame])
        mask = np.asarray(Image.open(folder / "masks" / f"{name}.png"))
        np.testing.assert_array_equal(mask, np.where(rests[frame], 255, 0))


def test_a_nerfstudio_folder_sees_every_point_where_it_came_from(run, scene, pixels, tmp_path):
    folder = m3.export_run(run, scene, tmp_path / "n", "nerfstudio", moving="truth", voxel=None)
    held = json.loads((folder / "transforms.json").read_text())
    assert (held["w"], held["h"]) == (64, 48)
    places, _ = read_ply(folder / held["ply_file_path"])
    rests = ~scene["motion_mask"].values
    begin = 0
    for frame, camera in enumerate(held["frames"]):
        mine = places[begin : begin + rests[frame].sum()]
        begin += len(mine)
        # Cameras look along -z with y up.
        inverse = np.linalg.inv(camera["transform_matrix"])
        x, y, z = inverse[:3, :3] @ mine.T + inverse[:3, 3:]
        assert (z < 0).all()
        across = camera["fl_x"] * x / -z + camera["cx"]
        down = camera["fl_y"] * y / z + camera["cy"]
        seen = np.stack([across, down], axis=1)
        np.testing.assert_allclose(seen, pixels[rests[frame]] + 0.5, atol=1e-3)
        mask = np.asarray(Image.open(folder / camera["mask_path"]))
        np.testing.assert_array_equal(mask, np.where(rests[frame], 255, 0))
        assert (folder / camera["file_path"]).is_file()


def test_points_in_one_cube_become_one(run, scene, tmp_path):
    folder = m3.export_run(run, scene, tmp_path / "f", moving="nothing", voxel=0.25)
    places, colors = read_ply(folder / "static.ply")
    points = run["prediction/points_world"].values.reshape(-1, 3)
    cubes = np.floor((points - points.min(axis=0)) / 0.25 + 0.5).astype(int)
    _, member = np.unique(cubes, axis=0, return_inverse=True)
    count = np.bincount(member.ravel())
    assert len(places) == len(count)
    red = np.bincount(member.ravel(), scene["image"].values[..., 0].ravel()) / count
    np.testing.assert_array_equal(np.sort(colors[:, 0]), np.sort(np.rint(red)))
    assert not (folder / "moving").exists()


def test_the_cue_says_what_moves_when_asked(run, scene, tmp_path):
    with pytest.raises(InvalidArgument, match="run it with cue="):
        m3.export_run(run, scene, tmp_path / "none")
    assert not (tmp_path / "none").exists()
    told = run.copy()
    score = scene["motion_mask"].values.reshape(FRAMES, 6, 8, 8, 8).mean(axis=(2, 4)) > 0.5
    told["cue"] = xr.Dataset(
        {"motion": (("frame", "patch_row", "patch_col"), score.astype(float))},
        {"frame": np.arange(FRAMES)},
    )
    folder = m3.export_run(told, scene, tmp_path / "cue", voxel=None)
    sizes = [len(read_ply(file)[0]) for file in sorted((folder / "moving").iterdir())]
    assert len(read_ply(folder / "static.ply")[0]) + sum(sizes) == FRAMES * 48 * 64


def test_what_cannot_be_exported_is_refused(run, scene, tmp_path):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").touch()
    with pytest.raises(AlreadyExists, match="new or empty"):
        m3.export_run(run, scene, tmp_path / "full")
    with pytest.raises(InvalidArgument, match="format must be one of ply, colmap"):
        m3.export_run(run, scene, tmp_path / "a", "obj")
    bare = run.copy()
    bare["prediction"] = run["prediction"].to_dataset().drop_vars("focal")
    with pytest.raises(InvalidArgument, match="no focal"):
        m3.export_run(bare, scene, tmp_path / "a", "colmap", moving="nothing")
    parts = run.copy()
    parts.attrs = run.attrs | {"commit": json.dumps({"reset": 2})}
    with pytest.raises(InvalidArgument, match="was reset after every 2 frames"):
        m3.export_run(parts, scene, tmp_path / "a", moving="nothing")
    assert not (tmp_path / "a").exists()


def test_a_stored_run_is_exported_from_the_command_line(scene, tmp_path, capsys):
    store, out = tmp_path / "run.zarr", tmp_path / "out"
    m3.run("tiny", scene, cue=m3.Cue.mut3r(), out=store, progress=False)
    words = ["export", str(store), "--out", str(out), "--format", "nerfstudio", "--voxel", "0"]
    assert main(words) == 0
    assert "the background, and what moves" in capsys.readouterr().out
    static = len(read_ply(out / "static.ply")[0])
    moved = sum(len(read_ply(file)[0]) for file in (out / "moving").glob("*.ply"))
    assert static + moved == FRAMES * 48 * 64
    assert main(words) == 1
    assert "is not empty" in capsys.readouterr().err
