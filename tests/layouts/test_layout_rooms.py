"""7-Scenes, NRGBD and NYU as they lie on disk: names, cameras, and what counts as depth."""

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from PIL import Image

from mut3r_analysis.errors import MissingFile, UnreadableFile
from mut3r_analysis.evaluation import check_dataset
from mut3r_analysis.metrics import protocol
from mut3r_analysis.sequences import open_sequence
from mut3r_analysis.sequences.layouts import export_sequence


def kinect_frame(folder, number, depth, pose, kind="depth.proj"):
    folder.mkdir(parents=True, exist_ok=True)
    colour = np.full((*depth.shape, 3), number, np.uint8)
    Image.fromarray(colour).save(folder / f"frame-{number:06d}.color.png")
    Image.fromarray(depth.astype(np.uint16)).save(folder / f"frame-{number:06d}.{kind}.png")
    lines = ["\t ".join(f"{x: .7e}" for x in row) for row in pose]
    (folder / f"frame-{number:06d}.pose.txt").write_text("\n".join(lines) + "\t \n")


class TestSevenScenes:
    def test_sequences_are_named_by_scene_and_number(self, tmp_path):
        depth = np.full((480, 640), 1500)
        for name in ("chess/seq-03", "chess/seq-05", "stairs/seq-01"):
            kinect_frame(tmp_path / name, 0, depth, np.eye(4))
        names = [each.name for each in check_dataset(tmp_path).sequences]
        assert names == ["chess_seq-03", "chess_seq-05", "stairs_seq-01"]
        for spec in (f"{tmp_path}#chess_seq-03", f"{tmp_path / 'chess/seq-03'}"):
            assert open_sequence(f"sevenscenes:{spec}").attrs["name"] == "chess_seq-03"
        assert protocol("multiview:7scenes18-stride200:median_icp").select(names)[0] == tuple(names)

    def test_what_the_kinect_did_not_measure_is_no_depth(self, tmp_path):
        depth = np.full((480, 640), 2500)
        depth[0, :4] = 0, 65535, 10001, 10000
        pose = np.eye(4)
        pose[:3, 3] = 0.25, -1.5, 3
        kinect_frame(tmp_path / "seq-01", 0, depth, pose)
        sequence = open_sequence(f"sevenscenes:{tmp_path}")
        assert_array_equal(sequence.depth[0, 0, :4], np.float32([np.nan, np.nan, np.nan, 10]))
        assert float(sequence.depth[0, 1, 1]) == 2.5
        assert_allclose(sequence.pose[0], pose, atol=1e-7)
        matrix = sequence.intrinsics[0].values
        assert_array_equal(matrix, [[525, 0, 320], [0, 525, 240], [0, 0, 1]])

    def test_the_original_depth_has_its_own_camera(self, tmp_path):
        kinect_frame(tmp_path / "seq-01", 0, np.full((480, 640), 900), np.eye(4), "depth")
        assert "depth" not in open_sequence(f"sevenscenes:{tmp_path}")
        raw = open_sequence(f"sevenscenes:{tmp_path}?depth=raw")
        assert float(raw.depth[0, 5, 5]) == np.float32(0.9)
        assert raw.intrinsics[0, 0, 0] == 585


class TestNeuralRgbd:
    def test_cameras_of_opengl_become_those_of_images(self, scene, tmp_path):
        export_sequence(scene, tmp_path, "nrgbd")
        rows = np.loadtxt(tmp_path / "orbit-03" / "poses.txt").reshape(-1, 4, 4)
        assert_allclose(rows[:, :, 2], -scene.pose[:, :, 2], atol=1e-12)
        assert_allclose(rows[:, :, [0, 3]], scene.pose[:, :, [0, 3]], atol=1e-12)

    def test_frames_are_ordered_by_number_and_keep_their_poses(self, scene, tmp_path):
        export_sequence(scene, tmp_path, "nrgbd")
        folder = tmp_path / "orbit-03"
        # As 12 frames, of which the first six were moved away: img10 stands behind img9.
        for index in reversed(range(6)):
            (folder / f"images/img{index}.png").rename(folder / f"images/img{index + 6}.png")
            (folder / f"depth/depth{index}.png").rename(folder / f"depth/depth{index + 6}.png")
        lines = (folder / "poses.txt").read_text()
        (folder / "poses.txt").write_text(lines + lines)
        sequence = open_sequence(f"nrgbd:{tmp_path}")
        assert sequence.file.values.tolist() == [f"img{i}.png" for i in range(6, 12)]
        assert_allclose(sequence.pose, scene.pose, atol=1e-12)

    def test_a_pose_of_nan_is_not_known_and_too_few_are_refused(self, scene, tmp_path):
        export_sequence(scene, tmp_path, "nrgbd")
        file = tmp_path / "orbit-03" / "poses.txt"
        lines = file.read_text().splitlines()
        file.write_text("\n".join([*lines[:4], *["nan nan nan nan"] * 4, *lines[8:]]))
        pose = open_sequence(f"nrgbd:{tmp_path}").pose
        assert np.isnan(pose[1]).all()
        assert np.isfinite(pose[[0, 2]]).all()
        file.write_text("\n".join(lines[:8]))
        with pytest.raises(UnreadableFile, match="2 poses, but there is an image number 5"):
            open_sequence(f"nrgbd:{tmp_path}")
        file.write_text("1 2 3\n")
        with pytest.raises(UnreadableFile, match="four to a pose"):
            open_sequence(f"nrgbd:{tmp_path}")

    def test_short_scenes_are_taken_in_closer_steps(self):
        frames = protocol("multiview:nrgbd-stride500:median_icp").frames
        assert frames.indices(1517) == range(0, 1517, 500)
        assert list(frames.indices(395)) == [0, 197, 394]
        assert list(frames.indices(920)) == [0, 460]


class TestNyu:
    def test_all_images_are_one_sequence_with_depth_by_name(self, scene, tmp_path):
        export_sequence(scene, tmp_path, "nyu", name="val")
        sequence = open_sequence(f"nyu:{tmp_path}#val")
        assert_array_equal(sequence.depth, scene.depth.astype("f4"))
        (tmp_path / "val/nyu_depths/00003.npy").unlink()
        with pytest.raises(MissingFile, match=r"depth is missing at 1 of 6.*00003.png"):
            open_sequence(f"nyu:{tmp_path}#val")
