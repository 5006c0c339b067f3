"""Folders as other code writes them, read as runs: nothing guessed, nothing shifted."""

from pathlib import Path

import numpy as np
import pytest
from known_folders import FRAMES, SIZE, depth_maps, write_demo, write_pose
from known_runs import a_sequence, camera_path
from scipy.spatial.transform import Rotation

from mut3r_analysis.errors import InvalidArgument, MissingFile, UnreadableFile
from mut3r_analysis.evaluation import evaluate, import_predictions


def test_the_demos_folder_becomes_a_run(tmp_path: Path) -> None:
    depth, poses = depth_maps(), camera_path(FRAMES)
    write_demo(tmp_path / "room", depth, poses)
    run = import_predictions(tmp_path / "room")
    prediction = run["prediction"]
    np.testing.assert_array_equal(prediction["depth"], depth)
    np.testing.assert_array_equal(prediction["confidence_self"], depth + 1)
    np.testing.assert_array_equal(prediction["pose"], poses)
    np.testing.assert_array_equal(prediction["focal"], np.full(FRAMES, 70))
    assert prediction["depth"].attrs["units"] == "m"
    assert run.attrs["sequence"]["name"] == "room"
    assert run.attrs["imported"]["layout"] == "cut3r-demo"
    assert run.attrs["backbone"]["preparation"] == {"size": 64, "rule": "crop", "patch": 16}


def test_predictions_with_their_sequence_score_as_a_run_does(tmp_path: Path) -> None:
    sequence = a_sequence("room", [0, 3, 6, 9, 12], size=SIZE)
    write_demo(tmp_path / "demo", sequence["depth"].values, sequence["pose"].values)
    run = import_predictions(tmp_path / "demo", sequence=sequence)
    assert run["prediction"]["frame"].values.tolist() == [0, 3, 6, 9, 12]
    scores = evaluate(run)
    assert scores["sequence"].values.tolist() == ["room"]
    assert float(scores["mean_abs_rel"]) == 0
    assert float(scores["mean_ate"]) == pytest.approx(0, abs=1e-9)


def test_the_depth_scorers_folder_is_read_in_the_order_of_its_numbers(tmp_path: Path) -> None:
    depth = np.stack([np.full(SIZE, 1.0 + i, np.float32) for i in range(12)])
    for index, plane in enumerate(depth):
        # Numbers of unequal width, which sorting by name would shuffle.
        np.save(tmp_path / f"frame_{index}.npy", plane[None])
    run = import_predictions(tmp_path)
    assert run.attrs["imported"]["layout"] == "cut3r-depth"
    assert run.attrs["backbone"]["preparation"]["rule"] == "resize"
    np.testing.assert_array_equal(run["prediction"]["depth"], depth)
    np.testing.assert_array_equal(run["prediction"]["depth"][4, 2:4, 5], [5, 5])


@pytest.mark.parametrize("lost", [np.nan, np.inf])
def test_frames_where_the_true_camera_was_lost_do_not_hide_the_order(
    tmp_path: Path, lost: float
) -> None:
    sequence = a_sequence("room", FRAMES, size=SIZE)
    write_pose(tmp_path, sequence["pose"].values, "wxyz", depth_maps())
    known = sequence.copy(deep=True)
    known["pose"][2] = lost
    run = import_predictions(tmp_path, sequence=known)
    np.testing.assert_allclose(run["prediction"]["pose"], sequence["pose"], atol=1e-12)
    known["pose"][:] = lost
    assert "imported" in import_predictions(tmp_path, sequence=known).attrs


@pytest.mark.parametrize("order", ["wxyz", "xyzw"])
def test_quaternions_are_detected_by_a_first_pose_that_is_the_identity(
    tmp_path: Path, order: str
) -> None:
    poses = camera_path(FRAMES)
    write_pose(tmp_path, poses, order, depth_maps())
    run = import_predictions(tmp_path)
    np.testing.assert_allclose(run["prediction"]["pose"], poses, atol=1e-12)
    assert run.attrs["imported"]["quaternion"] == order
    assert run.attrs["imported"]["quaternion_evidence"] == "first pose is the identity"
    assert {"focal", "motion_mask", "confidence_self"} <= set(run["prediction"].data_vars)


def test_quaternions_that_nothing_tells_are_declared_or_found_by_the_truth(tmp_path: Path) -> None:
    start = np.eye(4)
    start[:3, :3] = Rotation.from_euler("xyz", [50, 20, 70], degrees=True).as_matrix()
    sequence = a_sequence("turned", FRAMES, seed=3, size=SIZE)
    sequence["pose"].values[:] = start @ sequence["pose"].values
    poses = sequence["pose"].values
    write_pose(tmp_path, poses)
    with pytest.raises(InvalidArgument, match="declare quaternion='wxyz'"):
        import_predictions(tmp_path)
    declared = import_predictions(tmp_path, quaternion="wxyz")
    np.testing.assert_allclose(declared["prediction"]["pose"], poses, atol=1e-12)
    assert declared.attrs["imported"]["quaternion_evidence"] == "declared"
    found = import_predictions(tmp_path, sequence=sequence)
    np.testing.assert_allclose(found["prediction"]["pose"], poses, atol=1e-12)
    assert "agree with the truth" in found.attrs["imported"]["quaternion_evidence"]


def test_a_pose_folder_is_scored_under_a_published_protocol(tmp_path: Path) -> None:
    source = a_sequence("freiburg3_walking_xyz", 300, size=(12, 16))
    frames = source.isel(frame=slice(0, 270, 3))
    write_pose(tmp_path, frames["pose"].values)
    (tmp_path / "pred_intrinsics.txt").unlink()
    run = import_predictions(tmp_path, sequence=frames)
    scores = evaluate(run, "pose:tum8-stride3-90:sim3", truth=source)
    assert int(scores["n_frames"][0]) == 90
    assert float(scores["mean_ate"]) == pytest.approx(0, abs=1e-9)


def test_a_missing_number_is_refused_since_all_later_frames_would_be_shifted(
    tmp_path: Path,
) -> None:
    write_demo(tmp_path, depth_maps(), camera_path(FRAMES))
    (tmp_path / "depth" / "000002.npy").unlink()
    with pytest.raises(UnreadableFile, match="number 2 is missing"):
        import_predictions(tmp_path)


def test_counts_that_differ_are_refused(tmp_path: Path) -> None:
    write_demo(tmp_path, depth_maps(), camera_path(FRAMES))
    (tmp_path / "camera" / "000004.npz").unlink()
    with pytest.raises(InvalidArgument, match="depth 5, confidence_self 5, pose 4"):
        import_predictions(tmp_path)
    write_demo(tmp_path / "whole", depth_maps(), camera_path(FRAMES))
    with pytest.raises(InvalidArgument, match="the sequence 7"):
        import_predictions(tmp_path / "whole", sequence=a_sequence("s", 7, size=SIZE))


def test_a_sequence_that_cannot_have_been_predicted_is_refused(tmp_path: Path) -> None:
    write_demo(tmp_path, depth_maps(), camera_path(FRAMES))
    with pytest.raises(InvalidArgument, match="is sequence= the one that was predicted"):
        import_predictions(tmp_path, sequence=a_sequence("s", FRAMES, size=(32, 64)))


def test_damaged_files_are_named(tmp_path: Path) -> None:
    write_demo(tmp_path, depth_maps(), camera_path(FRAMES))
    whole = (tmp_path / "depth" / "000003.npy").read_bytes()
    (tmp_path / "depth" / "000003.npy").write_bytes(whole[:200])
    with pytest.raises(UnreadableFile, match=r"000003\.npy"):
        import_predictions(tmp_path)["prediction"]["depth"].load()
    np.save(tmp_path / "depth" / "000003.npy", np.ones((2, 2), np.float32))
    with pytest.raises(UnreadableFile, match="share one size"):
        import_predictions(tmp_path)["prediction"]["depth"].load()
    np.savez(tmp_path / "camera" / "000001.npz", pose=np.eye(4))
    with pytest.raises(UnreadableFile, match=r"000001\.npz"):
        import_predictions(tmp_path)


def test_folders_and_options_that_mean_nothing_are_refused(tmp_path: Path) -> None:
    with pytest.raises(MissingFile, match="known layout"):
        import_predictions(tmp_path)
    with pytest.raises(MissingFile, match="no folder"):
        import_predictions(tmp_path / "nowhere")
    with pytest.raises(MissingFile, match=r"frame_0000\.npy"):
        import_predictions(tmp_path, "cut3r-depth")
    with pytest.raises(InvalidArgument, match="cut3r-demo, cut3r-depth, cut3r-pose"):
        import_predictions(tmp_path, "monst3r")
    with pytest.raises(InvalidArgument, match="one of crop, resize"):
        import_predictions(tmp_path, "cut3r-pose", preparation="squash")
    with pytest.raises(InvalidArgument, match="xyzw, wxyz; got"):
        import_predictions(tmp_path, "cut3r-pose", quaternion="xywz")
