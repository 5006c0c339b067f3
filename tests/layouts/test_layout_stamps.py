"""Stamps are paired as the benchmark's own tool pairs them; lists that are odd are put right."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

from mut3r_analysis.errors import MissingFile, UnreadableFile
from mut3r_analysis.sequences import open_sequence
from mut3r_analysis.sequences.layouts.stamps import pair_stamps, read_poses, read_stamped

milliseconds = st.lists(st.integers(0, 400), min_size=1, max_size=25, unique=True).map(sorted)


def pair_all(first, second, limit):
    """Every candidate pair, the closest first; each stamp serves once."""
    candidates = sorted(
        (abs(a - b), i, j) for i, a in enumerate(first) for j, b in enumerate(second)
        if abs(a - b) < limit
    )  # fmt: skip
    pairs = {}
    for _, i, j in candidates:
        if i not in pairs and j not in pairs.values():
            pairs[i] = j
    return sorted(pairs.items())


@given(milliseconds, milliseconds)
def test_the_closest_pairs_come_first_and_stamps_serve_once(first, second):
    a, b = pair_stamps(np.array(first, float), np.array(second, float), 20.0)
    assert list(zip(a.tolist(), b.tolist(), strict=True)) == pair_all(first, second, 20)


def test_a_pair_at_the_limit_is_none():
    a, _ = pair_stamps(np.array([0.0]), np.array([0.5]), 0.5)
    assert a.size == 0


def test_nothing_pairs_with_nothing():
    a, b = pair_stamps(np.array([1.0]), np.empty(0))
    assert a.size == b.size == 0


def test_lists_are_sorted_and_repeated_stamps_keep_the_last_entry(tmp_path):
    (tmp_path / "rgb.txt").write_text("# comment\n2.0 b\n\n1.0 a\n2.0 c\n")
    entries, notes = read_stamped(tmp_path / "rgb.txt", 1)
    assert entries == {1.0: ["a"], 2.0: ["c"]}
    assert list(entries) == [1.0, 2.0]
    assert "ran backwards: 1" in notes[0]
    assert "repeat a stamp: 1" in notes[1]


@pytest.mark.parametrize("text", ["", "# only this\n", "now file.png\n", "1.0\n", "nan a.png\n"])
def test_lists_that_are_none_are_refused(text, tmp_path):
    (tmp_path / "rgb.txt").write_text(text)
    with pytest.raises(UnreadableFile, match=r"rgb\.txt"):
        read_stamped(tmp_path / "rgb.txt", 1)


def test_trajectories_are_camera_to_world_with_the_real_part_last(tmp_path):
    half = np.sqrt(0.5)
    (tmp_path / "g.txt").write_text(f"1 10 20 30 0 0 {half} {half}\n2 nan 0 0 0 0 0 1\n")
    stamps, poses, _ = read_poses(tmp_path / "g.txt")
    assert_array_equal(stamps, [1, 2])
    wanted = [[0, -1, 0, 10], [1, 0, 0, 20], [0, 0, 1, 30], [0, 0, 0, 1]]
    assert_allclose(poses[0], wanted, atol=1e-12)
    assert np.isnan(poses[1]).all()


@pytest.mark.parametrize(
    ("line", "message"),
    [("1 0 0 0 0 0 0 2", "norm 2"), ("1 0 0 0 0 0 0 one", "one"), ("1 0 0 0", "7 more words")],
)
def test_poses_that_are_none_are_refused(line, message, tmp_path):
    (tmp_path / "g.txt").write_text(line + "\n")
    with pytest.raises(UnreadableFile, match=message):
        read_poses(tmp_path / "g.txt")


def test_tum_frames_are_those_with_a_pose_and_the_others_are_reported(exported, scene):
    root, spec = exported("tum")
    file = root / "rgbd_dataset_orbit-03" / "groundtruth.txt"
    lines = file.read_text().splitlines()
    file.write_text("\n".join([*lines[:3], *lines[4:]]) + "\n")
    sequence = open_sequence(spec)
    assert_array_equal(sequence.image, scene.image.isel(frame=[0, 1, 3, 4, 5]))
    assert_allclose(sequence.pose, scene.pose.isel(frame=[0, 1, 3, 4, 5]), atol=1e-9)
    assert "1 of 6 rgb frames have no pose" in sequence.attrs["left_out"]


def test_a_trajectory_of_another_day_leaves_no_frame(exported):
    root, spec = exported("tum")
    (root / "rgbd_dataset_orbit-03" / "groundtruth.txt").write_text("5 0 0 0 0 0 0 1\n")
    with pytest.raises(MissingFile, match="no frame is left; 6 of 6 rgb frames have no pose"):
        open_sequence(spec)


def test_tum_frames_without_a_depth_image_have_no_depth(exported):
    root, spec = exported("tum")
    file = root / "rgbd_dataset_orbit-03" / "depth.txt"
    lines = file.read_text().splitlines()
    file.write_text("\n".join([*lines[:3], *lines[4:]]) + "\n")
    depth = open_sequence(spec).depth
    assert np.isnan(depth).all(("y", "x")).values.tolist() == [False] * 2 + [True] + [False] * 3


def test_tum_without_ground_truth_is_all_images(exported):
    root, spec = exported("tum")
    (root / "rgbd_dataset_orbit-03" / "groundtruth.txt").unlink()
    sequence = open_sequence(spec)
    assert sequence.sizes["frame"] == 6
    assert "pose" not in sequence


def test_tum_reports_stamps_that_repeat(exported):
    root, spec = exported("tum")
    file = root / "rgbd_dataset_orbit-03" / "rgb.txt"
    file.write_text(file.read_text() + file.read_text().splitlines()[-1] + "\n")
    sequence = open_sequence(spec)
    assert sequence.sizes["frame"] == 6
    assert "repeat a stamp" in sequence.attrs["left_out"]


def test_a_listed_image_that_does_not_exist_is_named(exported):
    root, spec = exported("tum")
    next((root / "rgbd_dataset_orbit-03" / "rgb").iterdir()).unlink()
    with pytest.raises(MissingFile, match="images that do not exist: 1"):
        open_sequence(spec)


def test_bonn_pairs_by_order_as_released_or_by_time(exported, scene):
    root, spec = exported("bonn")
    files = sorted((root / "rgbd_bonn_orbit-03" / "depth").iterdir())
    files[2].unlink()
    by_order, by_time = open_sequence(spec), open_sequence(f"{spec}?pairing=time")
    assert_allclose(by_order.depth[2], scene.depth[3], atol=1.1e-4)
    assert "6 rgb and 5 depth images" in by_order.attrs["left_out"]
    assert np.isnan(by_time.depth[2]).all()
    assert_allclose(by_time.depth[3], scene.depth[3], atol=1.1e-4)
    assert by_order.attrs["sha256"] != by_time.attrs["sha256"]


def test_bonn_keeps_frames_without_a_pose(exported):
    root, spec = exported("bonn")
    file = root / "rgbd_bonn_orbit-03" / "groundtruth.txt"
    file.write_text("\n".join(file.read_text().splitlines()[:4]) + "\n")
    pose = open_sequence(spec).pose
    assert np.isfinite(pose).all(("row", "col")).values.tolist() == [True] * 3 + [False] * 3


@pytest.mark.parametrize("layout", ["tum", "bonn"])
@pytest.mark.parametrize(
    ("factor", "unit"), [(1e9, "nanoseconds"), (1e6, "microseconds"), (1e3, "milliseconds")]
)
def test_ground_truth_in_other_units_of_time_names_them(exported, layout, factor, unit):
    root, spec = exported(layout)
    (file,) = root.rglob("groundtruth.txt")
    rows = [line.split() for line in file.read_text().splitlines() if line[0] != "#"]
    scaled = [f"{float(stamp) * factor:.0f} {' '.join(rest)}" for stamp, *rest in rows]
    file.write_text("\n".join(scaled) + "\n")
    with pytest.raises(UnreadableFile, match=rf"its stamps count time in {unit} .*in seconds"):
        open_sequence(spec)


def test_a_trajectory_of_another_day_is_not_taken_for_other_units(exported):
    root, spec = exported("bonn")
    (file,) = root.rglob("groundtruth.txt")
    rows = [line.split() for line in file.read_text().splitlines() if line[0] != "#"]
    file.write_text("".join(f"{float(s) + 86400} {' '.join(rest)}\n" for s, *rest in rows))
    assert open_sequence(spec).pose.isnull().all()
