"""`check_dataset` says what is there, what is missing, and which protocols can be run."""

import argparse
import json

import numpy as np
import pytest

from mut3r_analysis.cli.datasets import add_parser
from mut3r_analysis.errors import InvalidArgument, MissingFile
from mut3r_analysis.evaluation import check_dataset
from mut3r_analysis.metrics.catalogue import PROTOCOLS, TUM_8
from mut3r_analysis.scenes import load_scene
from mut3r_analysis.sequences import open_sequence
from mut3r_analysis.sequences.layouts import LAYOUTS, export_sequence


@pytest.fixture(scope="module")
def tum(tmp_path_factory):
    """All eight sequences of the pose protocol, with just enough frames; do not change it."""
    root = tmp_path_factory.mktemp("tum")
    tiny = load_scene("orbit-03").render((8, 6))
    frames = (np.arange(268) % 24).tolist()
    long = tiny.isel(frame=frames).drop_vars("frame")
    first, *others = (f"rgbd_dataset_{name}" for name in TUM_8)
    export_sequence(long, root, "tum", name=first)
    for folder in others:
        (root / folder).symlink_to(root / first)
    return root


def group(report, name):
    return next(each for each in report.protocols if each.name == name)


def test_a_complete_data_set_satisfies_its_protocol_frame_by_frame(tum):
    report = check_dataset(tum)
    protocol = PROTOCOLS["pose:tum8-stride3-90:sim3"]
    assert "pose:tum8-stride3-90:sim3" in report.satisfied
    found = group(report, "pose:tum8-stride3-90:sim3")
    assert (found.sequences, found.frames, found.missing) == (8, 720, ())
    sequence = open_sequence(f"tum:{tum}#{TUM_8[0]}")
    frames = list(protocol.frames.indices(sequence.sizes["frame"]))
    assert found.frame_lists[TUM_8[0]] == tuple(sequence.file.values[frames])
    assert len(frames) == 90


def test_too_few_frames_do_not_satisfy_it(tum, tmp_path):
    for name in TUM_8:
        (tmp_path / f"rgbd_dataset_{name}").symlink_to(tum / f"rgbd_dataset_{name}")
    short = tmp_path / f"rgbd_dataset_{TUM_8[0]}"
    short.unlink()
    export_sequence(
        load_scene("orbit-03").render((8, 6)), tmp_path, "tum", name=f"rgbd_dataset_{TUM_8[0]}"
    )
    found = group(check_dataset(tmp_path), "pose:tum8-stride3-90:sim3")
    assert not found.satisfied
    assert found.incomplete == {TUM_8[0]: "only 8 of 90 frames"}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_layout_is_recognised_and_what_is_missing_is_named(layout, exported):
    root, _ = exported(layout)
    report = check_dataset(root)
    assert report.layout == layout
    assert [each.name for each in report.sequences] == ["orbit-03"]
    assert report.sequences[0].frames["image"] == tuple(range(6))
    assert report.problems == ()
    any_will_do = layout in ("dycheck", "nrgbd")
    assert (report.satisfied != ()) == any_will_do
    text = str(report)
    assert "orbit-03" in text
    if not any_will_do:
        assert "where to get the rest" in text
        assert "http" in text


def test_protocols_are_grouped_and_none_is_lost(exported):
    for layout in LAYOUTS:
        ids = [id for each in check_dataset(exported(layout)[0]).protocols for id in each.ids]
        assert sorted(ids) == sorted(p.id for p in PROTOCOLS.values() if p.dataset == layout)


@pytest.mark.parametrize(
    ("layout", "file", "content", "variable", "message"),
    [
        ("sintel", "depth/alley_2/frame_0002.dpt", b"\0" * 7, "depth", "too few"),
        ("sintel", "flow/alley_2/frame_0002.flo", b"\0" * 99, "motion_mask", "begins with 0"),
        ("sintel", "camdata_left/alley_2/frame_0002.cam", b"", "pose", "0 bytes"),
        ("sintel", "final/alley_2/frame_0002.png", b"GIF", "image", "not a whole .png"),
        ("dycheck", "alley_2/camera/0_00001.json", b"{", None, None),
        ("dycheck",
         "alley_2/flow3d_preprocessed/aligned_depth_anything_colmap/1x/0_00001.npy",
         b"\x93NUMPY", "depth", "not a whole .npy"),
    ],
)  # fmt: skip
def test_damage_is_found_without_decoding(layout, file, content, variable, message, exported):
    root, _ = exported(layout, "alley_2")
    assert (root / file).exists()
    (root / file).write_bytes(content)
    report = check_dataset(root)
    # Original cameras are not what a protocol uses where refined ones exist.
    assert bool(report.problems) == (message is not None)
    if message:
        assert message in report.problems[0]
        assert 1 not in report.sequences[0].frames[variable]


def test_a_depth_image_of_8_bit_is_found(exported):
    from PIL import Image

    root, _ = exported("kitti", "2011_09_26_drive_0002")
    Image.new("L", (48, 32)).save(next(root.rglob("image_02/0000000003.png")))
    report = check_dataset(root)
    assert "8-bit gray, not 16-bit gray" in report.problems[0]
    lack = group(report, "video-depth:kitti13").incomplete["2011_09_26_drive_0002"]
    assert lack == "no depth at 1 of 6 frames (0000000003.png, ...)"


def test_truth_that_is_absent_is_named_per_protocol(scene, tmp_path):
    bare = scene.drop_vars(["flow", "motion_mask"])
    export_sequence(bare, tmp_path, "sintel", name="alley_2")
    report = check_dataset(tmp_path)
    assert group(report, "motion:sintel14").incomplete == {"alley_2": "no motion_mask"}
    assert group(report, "video-depth:sintel14").incomplete == {"alley_2": "only 6 of 50 frames"}
    assert group(report, "video-depth:sintel14").frames == 6


def test_motion_frames_leave_out_the_last(exported):
    root, _ = exported("sintel", "alley_2")
    found = group(check_dataset(root), "motion:sintel14")
    assert found.frame_lists["alley_2"][-1] == "frame_0005.png"
    assert found.frames == 5


def test_a_camera_at_rest_and_lost_tracking_are_noted(exported, scene):
    root, _ = exported("scannet", "scene0707_00", pose=scene.pose[[0] * 6].drop_vars("frame"))
    (root / "scene0707_00" / "pose" / "4.txt").write_text("-inf " * 16)
    notes = check_dataset(root).sequences[0].notes
    assert any("true camera rests" in note for note in notes)
    assert any("1 of 6 poses are not known" in note for note in notes)


def test_a_gap_is_damage(exported):
    root, _ = exported("scannet", "scene0707_00")
    (root / "scene0707_00" / "pose" / "4.txt").unlink()
    report = check_dataset(root)
    assert "pose is missing at 1 of 6 frames, first at 4.jpg" in report.problems[0]


def test_folders_that_are_no_data_set_say_what_was_looked_for(tmp_path):
    (tmp_path / "holiday").mkdir()
    with pytest.raises(MissingFile, match=r"(?s)it holds holiday.*sintel.*scannet"):
        check_dataset(tmp_path)
    with pytest.raises(MissingFile, match="not a folder"):
        check_dataset(tmp_path / "none")
    with pytest.raises(MissingFile, match="nothing of tum"):
        check_dataset(tmp_path, "tum")


def test_two_data_sets_in_one_folder_need_a_layout(scene, tmp_path):
    export_sequence(scene, tmp_path, "tum")
    export_sequence(scene, tmp_path, "davis")
    with pytest.raises(InvalidArgument, match="sequences of tum, davis"):
        check_dataset(tmp_path)
    assert check_dataset(tmp_path, "davis").layout == "davis"


def call(capsys, *arguments):
    parser = argparse.ArgumentParser()
    add_parser(parser.add_subparsers())
    args = parser.parse_args(["datasets", *map(str, arguments)])
    return args.run(args), capsys.readouterr().out


def test_the_command_succeeds_when_a_protocol_can_be_run(tum, exported, capsys):
    status, text = call(capsys, "check", tum)
    assert status == 0
    assert "yes  pose:tum8-stride3-90:sim3" in text
    assert call(capsys, "check", exported("sintel")[0])[0] == 1
    status, text = call(capsys, "check", tum, "--protocol", "pose:tum8-stride3", "--frames")
    assert (status, text.count("complete sequences")) == (0, 2)
    assert "frame lists" in text


def test_the_command_prints_json(exported, capsys):
    root, _ = exported("dycheck")
    status, text = call(capsys, "check", root, "--json")
    assert status == 0
    assert json.loads(text) == check_dataset(root).to_dict()


def test_the_command_exports(tmp_path, capsys):
    status, text = call(capsys, "export", "scenes/orbit-01", tmp_path, "--layout", "tum")
    assert status == 0
    assert open_sequence(text.strip()).attrs["name"] == "orbit-01"


def test_an_unknown_protocol_lists_the_known_ones(tum):
    with pytest.raises(InvalidArgument, match="pose:tum8-stride3-90:sim3"):
        check_dataset(tum, protocol="video-depth")
