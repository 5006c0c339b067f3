"""A sequence written in a layout and opened again is the same sequence."""

import json
import pickle

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from PIL import Image
from xarray.core import indexing

from mut3r_analysis.errors import AlreadyExists, InvalidArgument, UnreadableFile
from mut3r_analysis.sequences import check_sequence, open_sequence
from mut3r_analysis.sequences.layouts import LAYOUTS, export_sequence, find_layout

LOSSLESS = ("sintel", "bonn", "tum", "kitti", "dycheck", "sevenscenes", "nrgbd", "nyu")
DEPTH_STEP = {
    "sintel": 0, "bonn": 1 / 5000, "tum": 1 / 5000, "kitti": 1 / 256, "scannet": 1e-3,
    "sevenscenes": 1e-3, "nrgbd": 1e-3, "nyu": 0,
}  # fmt: skip
POSED = ("sintel", "bonn", "tum", "scannet", "dycheck", "sevenscenes", "nrgbd")
CALIBRATED = (*POSED, "kitti")


@pytest.mark.parametrize("layout", LAYOUTS)
def test_what_is_opened_is_a_sequence_named_as_it_was(layout, scene, exported):
    root, spec = exported(layout)
    sequence = open_sequence(spec)
    check_sequence(sequence)
    assert spec == f"{layout}:{root}#orbit-03"
    assert (sequence.attrs["name"], sequence.attrs["kind"]) == ("orbit-03", layout)
    assert sequence.frame.values.tolist() == list(range(6))
    assert all(
        {"long_name", "units", "source"} <= set(variable.attrs)
        for variable in sequence.variables.values()
    )


@pytest.mark.parametrize("layout", ["sintel", "tum", "kitti"])
def test_a_change_of_the_truth_alone_is_another_sequence(layout, scene, tmp_path):
    digests = [
        open_sequence(export_sequence(each, tmp_path / name, layout)).attrs["sha256"]
        for name, each in (("a", scene), ("b", scene), ("c", scene.assign(depth=scene.depth / 2)))
    ]
    assert digests[0] == digests[1] != digests[2]


@pytest.mark.parametrize("lost", [np.nan, 0.0])
@pytest.mark.parametrize("layout", ["sintel", "dycheck"])
def test_poses_that_are_none_are_not_written(layout, lost, scene, tmp_path):
    poses = scene.pose.copy(deep=True)
    poses[2] = lost
    with pytest.raises(InvalidArgument, match=r"1 of 6 poses.*first at frame 2"):
        export_sequence(scene.assign(pose=poses), tmp_path / "root", layout)
    assert not (tmp_path / "root").exists()


@pytest.mark.parametrize("layout", LOSSLESS)
def test_images_are_exact_where_the_layout_is_lossless(layout, scene, exported):
    assert_array_equal(open_sequence(exported(layout)[1]).image, scene.image)


@pytest.mark.parametrize("layout", ["scannet", "davis"])
def test_jpeg_images_are_close(layout, scene, exported):
    difference = open_sequence(exported(layout)[1]).image.values - scene.image.values.astype(float)
    assert np.sqrt((difference**2).mean()) < 4


@pytest.mark.parametrize("layout", DEPTH_STEP)
def test_depth_agrees_to_half_a_step(layout, scene, exported):
    depth = open_sequence(exported(layout)[1]).depth
    assert depth.dtype == np.float32
    # Half a step, and the rounding of float32 itself.
    assert_allclose(depth, scene.depth, rtol=1e-6 if DEPTH_STEP[layout] else 0,
                    atol=DEPTH_STEP[layout] / 2)  # fmt: skip


@pytest.mark.parametrize("kind", ["aligned", "lidar"])
def test_dycheck_depth_agrees_to_the_precision_of_its_inverse(kind, scene, exported):
    depth = open_sequence(f"{exported('dycheck')[1]}?depth={kind}").depth
    assert_allclose(depth, scene.depth, rtol=3e-7)


@pytest.mark.parametrize("layout", POSED)
def test_poses_agree_to_1e_6(layout, scene, exported):
    assert_allclose(open_sequence(exported(layout)[1]).pose, scene.pose, atol=1e-9)


@pytest.mark.parametrize("layout", CALIBRATED)
def test_intrinsics_agree(layout, scene, exported):
    intrinsics = open_sequence(exported(layout)[1]).intrinsics
    assert_allclose(intrinsics, scene.intrinsics, atol=1e-9)


@pytest.mark.parametrize("cameras", ["refined", "original"])
def test_both_kinds_of_dycheck_cameras_agree(cameras, scene, exported):
    unequal = scene.intrinsics.copy()
    unequal[:, 1, 1] *= 1.25
    sequence = open_sequence(f"{exported('dycheck', intrinsics=unequal)[1]}?cameras={cameras}")
    assert_allclose(sequence.intrinsics, unequal, atol=1e-9)
    assert_allclose(sequence.pose, scene.pose, atol=1e-9)


def test_dycheck_has_the_files_that_other_readers_want(scene, exported):
    folder = exported("dycheck")[0] / "orbit-03"
    held = {
        name: json.loads((folder / f"{name}.json").read_text())
        for name in ("dataset", "metadata", "extra", "scene", "splits/train", "splits/val")
    }
    names = [f"0_{index:05d}" for index in range(6)]
    assert held["splits/train"]["frame_names"] == held["dataset"]["train_ids"] == names
    assert held["splits/val"] == {"frame_names": [], "camera_ids": [], "time_ids": []}
    assert [held["metadata"][name]["warp_id"] for name in names] == list(range(6))
    assert (held["scene"]["near"], held["scene"]["far"]) == pytest.approx(
        (float(scene.depth.min()), float(scene.depth.max()))
    )
    # A camera that reads them sees every point of every frame inside the box, and its middle pixel.
    low, high = np.array(held["extra"]["bbox"])
    assert (low < high).all()
    assert ((low <= held["extra"]["lookat"]) & (held["extra"]["lookat"] <= high)).all()
    assert (scene.pose.values[:, :3, 1] @ held["extra"]["up"] < 0).all()


def test_dycheck_keypoints_come_back_at_the_frames_that_have_them(scene, exported):
    pixels = np.random.default_rng(0).uniform(0, 30, (6, 5, 2))
    seen = np.random.default_rng(1).random((6, 5)) < 0.5
    pixels[1:3], seen[1:3] = np.nan, False
    tracks = {"track_pixel": (("frame", "track", "uv"), pixels),
              "track_visible": (("frame", "track"), seen)}  # fmt: skip
    root, spec = exported("dycheck", **tracks)
    folder = root / "orbit-03" / "keypoint" / "2x" / "train"
    assert sorted(file.stem[-1] for file in folder.iterdir()) == ["0", "3", "4", "5"]
    # At half size, from the corner: the centre of the first pixel is a quarter.
    rows = json.loads((folder / "0_00003.json").read_text())
    assert_allclose(rows[2][:2], (pixels[3, 2] + 0.5) / 2, rtol=1e-12)
    back = open_sequence(spec)
    assert_allclose(back.track_pixel, pixels, rtol=1e-12)
    assert_array_equal(back.track_visible, seen)
    assert "track_pixel" not in open_sequence(f"{exported('dycheck', 'other')[1]}")


def test_dycheck_keypoints_that_do_not_correspond_are_refused(scene, exported):
    tracks = {"track_pixel": (("frame", "track", "uv"), np.ones((6, 5, 2))),
              "track_visible": (("frame", "track"), np.ones((6, 5), bool))}  # fmt: skip
    root, spec = exported("dycheck", **tracks)
    file = root / "orbit-03" / "keypoint" / "2x" / "train" / "0_00003.json"
    file.write_text("[[1, 2, 1]]")
    with pytest.raises(UnreadableFile, match="have 1 to 5 keypoints"):
        open_sequence(spec)
    file.write_text('{"a": 1}')
    with pytest.raises(UnreadableFile, match="no rows of x, y and visibility"):
        open_sequence(spec)


def test_dycheck_scale_brings_refined_cameras_to_the_metres_of_lidar(scene, exported):
    root, spec = exported("dycheck")
    scale = root / "orbit-03" / "flow3d_preprocessed" / "colmap" / "scale.npy"
    np.save(scale, 2.5)
    centres = {
        (cameras, depth): open_sequence(f"{spec}?cameras={cameras}&depth={depth}").pose[:, :3, 3]
        for cameras in ("refined", "original")
        for depth in ("lidar", "aligned")
    }
    true = scene.pose.values[:, :3, 3]
    assert_allclose(centres.pop(("refined", "lidar")), 2.5 * true, atol=1e-9)
    for others in centres.values():
        assert_allclose(others, true, atol=1e-9)
    np.save(scale, -1.0)
    with pytest.raises(UnreadableFile, match="expected metres per unit"):
        open_sequence(f"{spec}?depth=lidar")


def test_dycheck_masks_are_exact(scene, exported):
    assert_array_equal(open_sequence(exported("dycheck")[1]).motion_mask, scene.motion_mask)


def test_davis_annotates_what_moves_with_its_instance(scene, exported):
    sequence = open_sequence(exported("davis")[1])
    assert_array_equal(sequence.motion_mask, scene.motion_mask)
    assert_array_equal(sequence.instance, scene.instance.where(scene.motion_mask, 0))


def test_davis_annotates_all_instances_where_motion_is_not_known(scene, tmp_path):
    spec = export_sequence(scene.drop_vars("motion_mask"), tmp_path, "davis")
    sequence = open_sequence(spec)
    assert_array_equal(sequence.instance, scene.instance)
    assert_array_equal(sequence.motion_mask, scene.instance > 0)


def test_flow_is_exact_and_unknown_at_the_last_frame(scene, exported):
    flow = open_sequence(exported("sintel")[1]).flow
    assert_array_equal(flow[:-1], scene.flow[:-1])
    assert np.isnan(flow[-1]).all()


def test_stamps_survive(scene, tmp_path):
    stamps = 1341846313.5 + np.arange(6) * 0.031
    spec = export_sequence(scene.assign_coords(stamp=("frame", stamps)), tmp_path, "tum")
    sequence = open_sequence(spec)
    assert_allclose(sequence.stamp, stamps, atol=1e-6)
    assert_allclose(sequence.time, stamps - stamps[0], atol=2e-6)


def test_depth_that_is_not_known_stays_unknown(scene, exported):
    holes = scene.depth.copy()
    holes[0, :2], holes[0, 2:4], holes[0, 4:6] = np.nan, 0, np.inf
    for layout in (*DEPTH_STEP, "dycheck"):
        depth = open_sequence(exported(layout, depth=holes)[1]).depth
        assert np.isnan(depth[0, :6]).all(), layout
        assert np.isfinite(depth[0, 6:]).all(), layout


def test_opening_reads_no_depth_and_reading_one_frame_reads_one_file(exported):
    root, spec = exported("sintel")
    sequence = open_sequence(spec)
    for file in (root / "depth" / "orbit-03").glob("frame_000[2-6].dpt"):
        file.write_bytes(b"")
    for file in (root / "flow" / "orbit-03").glob("*.flo"):
        file.write_bytes(b"")
    assert np.isfinite(sequence.depth[0].values).all()
    with pytest.raises(OSError, match=r"frame_0002\.dpt"):
        sequence.depth[1].values  # noqa: B018


@pytest.mark.parametrize("layout", LAYOUTS)
def test_sequences_stay_lazy_and_travel_to_other_processes(layout, exported):
    sequence = pickle.loads(pickle.dumps(open_sequence(exported(layout)[1])))
    for name in {"image", "depth", "motion_mask", "instance", "flow"} & set(sequence.data_vars):
        assert not sequence[name].variable._in_memory, name
        assert isinstance(sequence[name].variable._data, indexing.ExplicitlyIndexed), name
        window = {"y": slice(3, 9, 2), "x": 4}
        assert_array_equal(sequence[name].isel(window), sequence[name].values[:, 3:9:2, 4])


def test_frames_are_chosen_like_those_of_any_sequence(exported, scene):
    sequence = open_sequence(exported("tum")[1], start=1, stride=2)
    assert sequence.frame.values.tolist() == [1, 3, 5]
    assert_allclose(sequence.depth, scene.depth[1::2], atol=1.1e-4)
    assert sequence.attrs["sha256"] != open_sequence(exported("tum", "b")[1]).attrs["sha256"]


def test_sequences_gather_in_one_data_set(scene, tmp_path):
    for layout in LAYOUTS:
        names = ("2011_09_26_drive_0002", "2011_09_26_drive_0005")
        for name in names:
            export_sequence(scene, tmp_path / layout, layout, name=name)
        assert tuple(sorted(find_layout(layout).find(tmp_path / layout))) == names


def test_a_sequence_that_exists_is_not_overwritten(scene, exported):
    for layout in LAYOUTS:
        root, spec = exported(layout)
        before = {path: path.stat().st_mtime_ns for path in root.rglob("*")}
        with pytest.raises(AlreadyExists, match="has a sequence 'orbit-03'"):
            export_sequence(scene, root, layout)
        assert {path: path.stat().st_mtime_ns for path in root.rglob("*")} == before
        open_sequence(spec)


def test_another_calibration_of_the_same_day_is_not_overwritten(scene, tmp_path):
    export_sequence(scene, tmp_path, "kitti", name="2011_09_26_drive_0002")
    other = scene.assign(intrinsics=scene.intrinsics + np.eye(3))
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(AlreadyExists, match="calib_cam_to_cam"):
        export_sequence(other, tmp_path, "kitti", name="2011_09_26_drive_0005")
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize(
    ("layout", "variable"),
    [
        ("sintel", "pose"),
        ("bonn", "depth"),
        ("tum", "pose"),
        ("kitti", "intrinsics"),
        ("scannet", "pose"),
        ("dycheck", "depth"),
    ],
)
def test_a_layout_says_what_it_needs(layout, variable, scene, tmp_path):
    with pytest.raises(InvalidArgument, match=f"needs {variable}"):
        export_sequence(scene.drop_vars(variable), tmp_path / "set", layout)
    assert not (tmp_path / "set").exists()


def test_davis_needs_masks_of_either_kind(scene, tmp_path):
    with pytest.raises(InvalidArgument, match="motion_mask or instance"):
        export_sequence(scene[["image"]], tmp_path, "davis")


@pytest.mark.parametrize(
    ("changes", "layout", "message"),
    [
        ({"depth": 20.0}, "tum", "outside what this layout can hold"),
        ({"depth": 1e-5}, "scannet", "outside what this layout can hold"),
    ],
)
def test_depth_that_a_layout_cannot_hold_is_refused_and_leaves_nothing(
    changes, layout, message, scene, tmp_path
):
    impossible = scene.assign(depth=scene.depth * 0 + np.float32(changes["depth"]))
    with pytest.raises(InvalidArgument, match=message):
        export_sequence(impossible, tmp_path / "set", layout)
    assert not (tmp_path / "set").exists()


def test_cameras_that_change_are_refused_where_a_layout_has_one(scene, tmp_path):
    zoom = scene.intrinsics.copy()
    zoom[3, 0, 0] *= 2
    with pytest.raises(InvalidArgument, match="differ between frames"):
        export_sequence(scene.assign(intrinsics=zoom), tmp_path, "tum")
    assert list(tmp_path.iterdir()) == []
    spec = export_sequence(scene.assign(intrinsics=zoom), tmp_path, "sintel")
    assert_array_equal(open_sequence(spec).intrinsics, zoom)


def test_flow_between_frames_that_were_left_out_is_refused(scene, tmp_path):
    with pytest.raises(InvalidArgument, match="leaves out frames"):
        export_sequence(scene.isel(frame=slice(None, None, 2)), tmp_path, "sintel")


@pytest.mark.parametrize("name", ["../up", "a/b", "", ".hidden", "a#b"])
def test_names_that_are_no_folders_are_refused(name, scene, tmp_path):
    with pytest.raises(InvalidArgument, match="cannot name a folder"):
        export_sequence(scene.assign_attrs(name=name), tmp_path, "tum")


def test_an_unknown_layout_lists_the_known_ones(scene, tmp_path):
    with pytest.raises(InvalidArgument, match="sintel, bonn, tum"):
        export_sequence(scene, tmp_path, "kinect")


def test_scannet_depth_is_found_along_the_rays_of_colour_pixels(scene, exported):
    root, spec = exported("scannet")
    # Depth images at half the size, with the camera to match.
    for file in (root / "orbit-03" / "depth").iterdir():
        plane = np.array(Image.open(file))
        Image.fromarray(plane[::2, ::2].copy()).save(file)
    intrinsics = np.eye(4)
    intrinsics[:3, :3] = scene.intrinsics[0]
    intrinsics[:2] /= 2
    np.savetxt(root / "orbit-03" / "intrinsic" / "intrinsic_depth.txt", intrinsics)
    depth = open_sequence(spec).depth.values
    assert_allclose(depth[:, ::2, ::2], scene.depth[:, ::2, ::2], atol=5.1e-4)
    assert np.isfinite(depth[:, :-1, :-1]).all()
    assert np.isin(depth[0][np.isfinite(depth[0])], depth[0, ::2, ::2]).all()
