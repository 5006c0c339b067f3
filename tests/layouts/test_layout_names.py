"""Names of sequences in data sets lead to them, or say what is there."""

import shutil

import numpy as np
import pytest
from numpy.testing import assert_array_equal
from PIL import Image

from mut3r_analysis.errors import InvalidArgument, MissingFile, UnreadableFile
from mut3r_analysis.sequences import open_sequence
from mut3r_analysis.sequences.layouts import LAYOUTS, export_sequence
from mut3r_analysis.sequences.layouts.location import parse_location


def test_a_name_has_root_sequence_and_options(tmp_path):
    location = parse_location("sintel", f"{tmp_path}#alley_2?pass=clean&motion=flow")
    assert location.root == tmp_path
    assert location.sequence == "alley_2"
    assert location.options == (("pass", "clean"), ("motion", "flow"))


def test_the_last_hash_separates_and_a_root_may_have_options_alone(tmp_path):
    root = tmp_path / "set#1"
    root.mkdir()
    assert parse_location("tum", f"{root}#xyz").root == root
    assert parse_location("tum", f"{tmp_path}?a=b").options == (("a", "b"),)


@pytest.mark.parametrize("options", ["?pass", "?=clean", "?pass=", "?pass=final&pass=clean"])
def test_options_that_are_none_are_refused(options, tmp_path):
    with pytest.raises(InvalidArgument, match=r"option|twice"):
        parse_location("sintel", f"{tmp_path}#alley_2{options}")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("?pas=clean", "option must be one of pass, motion, threshold; got 'pas'"),
        ("?pass=draft", "one of final, clean"),
    ],
)
def test_unknown_options_list_the_known_ones(options, message, exported):
    with pytest.raises(InvalidArgument, match=message):
        open_sequence(exported("sintel")[1] + options)


def test_roots_must_exist(tmp_path):
    with pytest.raises(MissingFile, match="is not a folder"):
        open_sequence(f"sintel:{tmp_path / 'none'}#alley_2")
    with pytest.raises(InvalidArgument, match="names no folder"):
        open_sequence("sintel:#alley_2")


@pytest.mark.parametrize("layout", LAYOUTS)
def test_an_unknown_sequence_lists_what_is_there(layout, exported):
    root, _ = exported(layout)
    with pytest.raises(MissingFile, match=r"did you mean 'orbit-03'.*There are orbit-03"):
        open_sequence(f"{layout}:{root}#orbit-30")


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_root_without_sequences_says_so(layout, tmp_path):
    with pytest.raises(MissingFile, match="holds no sequence in the layout"):
        open_sequence(f"{layout}:{tmp_path}#anything")


def test_the_only_sequence_needs_no_name_and_several_do(scene, tmp_path):
    export_sequence(scene, tmp_path, "tum", name="one")
    assert open_sequence(f"tum:{tmp_path}").attrs["name"] == "one"
    export_sequence(scene, tmp_path, "tum", name="two")
    with pytest.raises(InvalidArgument, match=r"holds 2 sequences; name one.*one, two"):
        open_sequence(f"tum:{tmp_path}")


@pytest.mark.parametrize(
    ("layout", "long", "short"),
    [
        ("tum", "rgbd_dataset_freiburg3_walking_xyz", "freiburg3_walking_xyz"),
        ("bonn", "rgbd_bonn_balloon2", "balloon2"),
        ("kitti", "2011_09_26_drive_0002_sync", "2011_09_26_drive_0002"),
    ],
)
def test_long_and_short_names_mean_the_same(layout, long, short, scene, tmp_path):
    assert export_sequence(scene, tmp_path, layout, name=long).endswith(f"#{short}")
    for name in (long, short):
        assert open_sequence(f"{layout}:{tmp_path}#{name}").attrs["name"] == short


@pytest.mark.parametrize(
    ("layout", "inner"), [("sintel", "training"), ("bonn", "rgbd_bonn_dataset"), ("davis", "DAVIS")]
)
def test_the_folder_around_the_data_set_will_do(layout, inner, scene, tmp_path):
    export_sequence(scene, tmp_path / inner, layout)
    assert open_sequence(f"{layout}:{tmp_path}#orbit-03").sizes["frame"] == 6


def test_kitti_images_that_were_gathered_are_found(scene, tmp_path):
    spec = export_sequence(scene, tmp_path, "kitti", name="2011_09_26_drive_0002")
    before = open_sequence(spec)
    images, depth = before.image.values, before.depth.values
    gathered = tmp_path / "depth_selection" / "val_selection_cropped"
    drive = "2011_09_26_drive_0002_sync"
    day = tmp_path / "2011_09_26"
    shutil.move(day / drive / "image_02/data", gathered / "image_gathered" / f"{drive}_02")
    truth = tmp_path / "val" / drive / "proj_depth/groundtruth/image_02"
    shutil.move(truth, gathered / "groundtruth_depth_gathered" / f"{drive}_02")
    shutil.rmtree(tmp_path / "val")
    shutil.rmtree(day)
    after = open_sequence(spec)
    assert_array_equal(after.image, images)
    assert_array_equal(after.depth, depth)
    assert "intrinsics" not in after


def test_sintel_passes_are_chosen_by_option(exported, scene):
    root, spec = exported("sintel")
    with pytest.raises(MissingFile, match="exists in the pass final"):
        open_sequence(f"{spec}?pass=clean")
    shutil.copytree(root / "final", root / "clean")
    Image.new("RGB", (48, 32)).save(root / "clean" / "orbit-03" / "frame_0001.png")
    assert not open_sequence(f"{spec}?pass=clean").image[0].any()
    assert_array_equal(open_sequence(f"{spec}?pass=final").image, scene.image)


@pytest.mark.parametrize(
    ("layout", "pattern", "variable"),
    [
        ("sintel", "depth/orbit-03/frame_0003.dpt", "depth"),
        ("sintel", "camdata_left/orbit-03/frame_0003.cam", "pose"),
        ("sintel", "flow/orbit-03/frame_0003.flo", "flow"),
        ("scannet", "orbit-03/depth/2.png", "depth"),
        ("scannet", "orbit-03/pose/2.txt", "pose"),
        ("dycheck", "orbit-03/flow3d_preprocessed/track_anything/1x/0_00002.png", "motion_mask"),
    ],
)
def test_a_gap_in_complete_truth_is_an_error_that_names_the_frame(
    layout, pattern, variable, exported
):
    root, spec = exported(layout)
    (root / pattern).unlink()
    with pytest.raises(MissingFile, match=rf"{variable} is missing at 1 of . frames, first at"):
        open_sequence(spec)


@pytest.mark.parametrize(
    ("layout", "pattern"),
    [("kitti", "orbit-03/orbit-03_sync/image_02/data/*3.png"), ("dycheck", "*/rgb/1x/*3.png")],
)
def test_truth_without_its_image_is_an_error(layout, pattern, exported):
    root, spec = exported(layout)
    next(root.glob(pattern)).unlink()
    with pytest.raises(MissingFile, match=r"images that do not exist: 1, first .*3\.png"):
        open_sequence(spec)


def test_truth_of_another_size_is_an_error_when_it_is_read(exported):
    root, spec = exported("kitti")
    file = next(root.rglob("proj_depth/groundtruth/image_02/0000000000.png"))
    Image.fromarray(np.ones((5, 4), np.uint16)).save(file)
    with pytest.raises(UnreadableFile, match=r"shape \(5, 4\), but the images have 32 rows of 48"):
        open_sequence(spec).depth[0].load()


def test_davis_frames_without_annotation_are_known_to_be_unknown(exported):
    root, spec = exported("davis")
    (root / "Annotations" / "480p" / "orbit-03" / "00002.png").unlink()
    sequence = open_sequence(spec)
    assert sequence.motion_known.values.tolist() == [True, True, False, True, True, True]
    assert "1 of 6 frames are not annotated" in sequence.attrs["left_out"]


def test_scannet_poses_that_are_not_finite_are_unknown(exported):
    root, spec = exported("scannet")
    (root / "orbit-03" / "pose" / "1.txt").write_text("-inf " * 16)
    pose = open_sequence(spec).pose
    assert np.isnan(pose[1]).all()
    assert np.isfinite(pose[[0, 2, 3, 4, 5]]).all()


def test_scannet_frames_are_in_the_order_of_their_numbers(scene, tmp_path):
    twelve = scene.isel(frame=[0, 1] * 6).assign_coords(frame=range(12))
    spec = export_sequence(twelve, tmp_path, "scannet")
    assert open_sequence(spec).file.values.tolist() == [f"{i}.jpg" for i in range(12)]


def test_dycheck_splits_are_lists_of_frames(exported):
    root, spec = exported("dycheck")
    splits = root / "orbit-03" / "splits"
    (splits / "val.json").write_text('{"frame_names": ["0_00004", "0_00001"]}')
    assert open_sequence(f"{spec}?split=val").file.values.tolist() == ["0_00004.png", "0_00001.png"]
    (splits / "train.json").unlink()
    with pytest.raises(MissingFile, match=r"split=all takes every image"):
        open_sequence(spec)
    assert open_sequence(f"{spec}?split=all").sizes["frame"] == 6
    (splits / "train.json").write_text("[1]")
    with pytest.raises(UnreadableFile, match="expected an object"):
        open_sequence(spec)


def test_dycheck_depth_is_raised_inverted_and_cut_as_the_released_loader_does(exported):
    root, spec = exported("dycheck")
    folder = root / "orbit-03" / "flow3d_preprocessed/aligned_depth_anything_colmap/1x"
    files = sorted(folder.iterdir())
    inverse = np.full((32, 48), 0.5, np.float32)
    for index, file in enumerate(files):
        plane = inverse.copy()
        # Largest depths 2, 2, 4, 4, 4, 1000: the lower of the two middle ones is 4.
        plane[0, 0] = [0.5, 0.5, 0.25, 0.25, 0.25, -1][index]
        np.save(file, plane)
    depth = open_sequence(spec).depth.values
    assert depth[0, 0, 0] == 2
    assert depth[2, 0, 0] == 4
    assert depth[5, 0, 0] == 10
    assert (depth[:, 1:] == 2).all()


def test_dycheck_takes_what_there_is_without_the_processed_files(exported, scene):
    root, spec = exported("dycheck")
    shutil.rmtree(root / "orbit-03" / "flow3d_preprocessed")
    sequence = open_sequence(spec)
    assert (sequence.attrs["cameras"], sequence.attrs["depth"]) == ("original", "lidar")
    assert "motion_mask" not in sequence
    assert_array_equal(sequence.depth, scene.depth)


def test_published_intrinsics_belong_to_the_published_size(exported):
    root, spec = exported("tum", "freiburg3_walking_xyz")
    folder = root / "rgbd_dataset_freiburg3_walking_xyz"
    (folder / "intrinsics.txt").unlink()
    assert "intrinsics" not in open_sequence(spec)
    for kind, blank in (("rgb", Image.new("RGB", (640, 480))), ("depth", None)):
        for file in (folder / kind).iterdir():
            (blank or Image.fromarray(np.ones((480, 640), np.uint16))).save(file)
    intrinsics = open_sequence(spec).intrinsics
    assert "published" in intrinsics.attrs["source"]
    assert intrinsics[0].values.tolist() == [[535.4, 0, 320.1], [0, 539.2, 247.6], [0, 0, 1]]
