"""Motion masks from flow agree with the truth of scenes, and with the labels written beside."""

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from mut3r_analysis.errors import InvalidArgument, MissingFile
from mut3r_analysis.scenes import load_scene
from mut3r_analysis.sequences import open_sequence
from mut3r_analysis.sequences.layouts import export_sequence
from mut3r_analysis.sequences.layouts.ego_motion import camera_flow, moving_pixels


@pytest.mark.parametrize("name", ["orbit-03", "spin-01", "static-01", "crowded-01"])
def test_masks_computed_from_flow_are_those_of_the_scene(name, tmp_path):
    scene = load_scene(name).render((48, 36)).isel(frame=slice(0, 5))
    threshold = scene.attrs["motion_threshold_px"]
    spec = export_sequence(scene, tmp_path, "sintel")
    computed = open_sequence(f"{spec}?motion=flow&threshold={threshold}").motion_mask
    labels = open_sequence(f"{spec}?motion=labels").motion_mask
    assert_array_equal(computed[:-1], scene.motion_mask[:-1])
    assert_array_equal(labels[:-1], scene.motion_mask[:-1])


def test_the_last_frame_has_no_mask_and_says_so(exported):
    sequence = open_sequence(exported("sintel")[1])
    assert sequence.motion_known.values.tolist() == [True] * 5 + [False]
    assert not sequence.motion_mask[-1].any()
    assert sequence.attrs["motion_threshold_px"] == 0.1


def test_camera_flow_is_the_displacement_of_projected_points():
    generator = np.random.default_rng(0)
    depth = generator.uniform(2, 4, (5, 7))
    intrinsics = np.array([[9.0, 0, 3], [0, 8, 2], [0, 0, 1]])
    next_intrinsics = intrinsics * [[1.1], [1.1], [1]]
    pose, next_pose = np.eye(4), np.eye(4)
    angle = 0.1
    next_pose[:3, :3] = [
        [np.cos(angle), 0, np.sin(angle)], [0, 1, 0], [-np.sin(angle), 0, np.cos(angle)],
    ]  # fmt: skip
    next_pose[:3, 3] = 0.1, -0.2, 0.3
    flow = camera_flow(depth, pose, next_pose, intrinsics, next_intrinsics)
    v, u = 4, 6
    point = depth[v, u] * np.array([(u - 3) / 9, (v - 2) / 8, 1])
    seen = next_intrinsics @ (next_pose[:3, :3].T @ (point - next_pose[:3, 3]))
    assert_allclose(flow[v, u], seen[:2] / seen[2] - [u, v], atol=1e-12)


def test_pixels_without_flow_or_depth_do_not_count_as_moving():
    flow = np.array([[[1.0, 0], [np.nan, np.nan], [0.05, 0], [5, 0]]])
    camera = np.array([[[0.0, 0], [0, 0], [0, 0], [np.nan, np.nan]]])
    assert moving_pixels(flow, camera).tolist() == [[True, False, False, False]]


def test_without_flow_labels_are_read_and_without_both_there_is_no_mask(scene, tmp_path):
    labelled = export_sequence(scene.drop_vars("flow"), tmp_path / "a", "sintel")
    assert_array_equal(open_sequence(labelled).motion_mask[:-1], scene.motion_mask[:-1])
    with pytest.raises(MissingFile, match="motion=flow needs flow"):
        open_sequence(f"{labelled}?motion=flow")
    bare = export_sequence(scene.drop_vars(["flow", "motion_mask"]), tmp_path / "b", "sintel")
    assert "motion_mask" not in open_sequence(bare)


@pytest.mark.parametrize("threshold", ["0", "-1", "nan", "inf", "much"])
def test_a_threshold_is_a_positive_number(threshold, exported):
    with pytest.raises(InvalidArgument, match="positive number of pixels"):
        open_sequence(f"{exported('sintel')[1]}?threshold={threshold}")
