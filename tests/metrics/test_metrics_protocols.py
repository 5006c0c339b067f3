"""Protocols are data: complete, frozen, round-tripping, and found by name."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mut3r_analysis.errors import InvalidArgument
from mut3r_analysis.metrics import ALIGNMENTS, PROTOCOLS, FrameSelection, Protocol, list_protocols
from mut3r_analysis.metrics import protocol as find
from mut3r_analysis.metrics.catalogue import KITTI_13
from mut3r_analysis.sequences.layouts.catalogue import canonical_sequence

EVERY = list(PROTOCOLS.values())


@pytest.mark.parametrize("one", EVERY, ids=list(PROTOCOLS))
def test_every_protocol_round_trips_and_describes_itself(one: Protocol) -> None:
    again = Protocol.from_json(one.to_json())
    assert again == one == Protocol.from_dict(one.to_dict())
    assert str(one) == one.describe()
    assert hash(again) == hash(one)
    assert again.digest == one.digest
    card = one.describe()
    for word in (one.id, one.align, one.source.split()[0], one.digest):
        assert word in card
    assert max(len(line) for line in card.splitlines()) <= 96
    if one.sequences:
        assert one.expected_sequences == len(one.sequences)


def test_no_two_protocols_compute_the_same_number() -> None:
    assert len({one.digest for one in EVERY}) == len(EVERY)


def test_a_digest_follows_what_changes_a_number_and_not_the_words() -> None:
    one = find("video-depth:sintel23:metric")
    assert dataclasses.replace(one, note="other words", id="other").digest == one.digest
    assert dataclasses.replace(one, clip=None).digest != one.digest


def test_protocols_cannot_be_changed() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        find("pose:sintel14:sim3").align = "se3"  # type: ignore[misc]


class TestWhatTheLiteratureRuns:
    def test_depth_resizes_and_pose_crops(self) -> None:
        assert {p.preparation for p in list_protocols("video-depth:*")} == {"resize"}
        assert {p.preparation for p in list_protocols("pose:*")} == {"crop"}

    @pytest.mark.parametrize("base", ["sintel23", "sintel14", "bonn5", "kitti13"])
    def test_video_depth_offers_every_alignment(self, base: str) -> None:
        found = list_protocols(f"video-depth:{base}:*")
        assert tuple(p.align for p in found) == ALIGNMENTS
        assert {p.reduction for p in found} == {"valid-pixels"}

    def test_masks_and_clips_of_video_depth(self) -> None:
        sintel, bonn, kitti = (
            find(f"video-depth:{name}:scale_irls") for name in ("sintel23", "bonn5", "kitti13")
        )
        assert (sintel.maximum, sintel.clip) == (70, 70)
        assert (bonn.maximum, bonn.clip) == (70, None)
        assert (kitti.maximum, kitti.clip) == (None, None)
        assert bonn.frames.indices(400) == range(30, 140)
        assert kitti.frames.indices(60) == range(60)
        assert kitti.frames.indices(200) == range(110)

    def test_lengths_of_sequences_add_up_to_the_frames_of_the_protocol(self) -> None:
        for one in EVERY:
            lengths = [one.length_of(name) for name in one.sequences]
            if one.expected_frames:
                assert sum(lengths) == one.expected_frames, one.id
        assert find("pose:sintel14:sim3").length_of("market_6") == 40
        # 110 is a cap there: nobody says how long a drive is.
        assert find("video-depth:kitti13:metric").length_of(KITTI_13[0]) is None

    def test_the_long_lists_are_those_of_the_released_scripts(self) -> None:
        limits = {p.frames.limit for p in list_protocols("pose:scannet100-stride3-*")}
        assert limits == {50, 90, 100, 150, *range(200, 1001, 100)}

    def test_sintel_pose_sequences_are_among_the_depth_ones(self) -> None:
        pose, depth = find("pose:sintel14:sim3"), find("video-depth:sintel23:metric")
        assert set(pose.sequences) < set(depth.sequences)
        assert (len(pose.sequences), len(depth.sequences)) == (14, 23)

    def test_short_and_long_pose_sampling_differ(self) -> None:
        short, long = find("pose:tum8-stride3-90:sim3"), find("pose:tum8-stride1-90:sim3")
        assert list(short.frames.indices(1000))[-1] == 267
        assert list(long.frames.indices(1000))[-1] == 89
        assert list(find("pose:scannet100-stride3-90:sim3").frames.indices(2000))[-1] == 267
        # The released lists of long ScanNet paths have total // 3 frames: whole steps alone.
        scannet = find("pose:scannet100-stride3-1000:sim3").frames
        assert [len(scannet.indices(total)) for total in (2000, 2001, 2002)] == [666, 667, 667]
        assert find("pose:tum8-stride30:sim3").frames.indices(800) == range(0, 800, 30)

    def test_models_of_224_px_have_protocols_of_their_own(self) -> None:
        wide, square = find("pose:sintel14:sim3"), find("pose:sintel14-224:sim3")
        assert dataclasses.replace(wide, input_size=224, id=square.id) == dataclasses.replace(
            square, released=wide.released
        )
        assert wide.other_input({"size": 224, "patch": 16}) == "size=224"
        assert square.other_input({"size": 224, "patch": 16}) == ""
        assert square.input_words == "a square of 224 px and patches of 16 px"
        spann3r = find("multiview:7scenes18-stride20-224:median_icp")
        assert (spann3r.preparation, spann3r.frames.step) == ("cover", 20)
        assert find("multiview:nrgbd-stride500-224:median_icp").preparation == "window"

    def test_scannet_scenes(self) -> None:
        scenes = find("pose:scannet100-stride3-1000:sim3").sequences
        assert (scenes[0], scenes[-1], len(scenes)) == ("scene0707_00", "scene0806_00", 100)

    def test_davis_lists_nest(self) -> None:
        small, large = (
            set(find(f"motion:{name}:frame-pooled").sequences) for name in ("davis16", "davis17")
        )
        assert small < large
        assert (len(small), len(large)) == (20, 30)
        assert find("motion:davis-all:sequence-mean").expected_sequences == 90

    def test_default_covers_depth_pose_and_motion(self) -> None:
        assert [p.id for p in list_protocols("default")] == [
            "default:depth:scale_median",
            "default:depth:metric",
            "default:pose:sim3",
            "default:pose:se3",
            "default:mono-depth:scale_median",
            "default:temporal-depth:scale_median",
            "default:multiview:median_icp",
            "default:tracks:sim3",
            "default:tracks:sim3_points",
            "default:motion:roc",
            "default:motion:masks",
        ]


class TestLookup:
    def test_an_unknown_id_lists_near_ones(self) -> None:
        with pytest.raises(InvalidArgument, match=r"video-depth:sintel23:scale_irls"):
            find("video-depth:sintel:scale_irls")
        with pytest.raises(InvalidArgument, match=r"pose:tum8-stride3-90:sim3"):
            find("tum8")
        with pytest.raises(InvalidArgument, match=r"list all"):
            list_protocols("nothing*")

    @pytest.mark.parametrize(
        ("spoken", "meant"),
        [
            ("video-depth:sintel:scale", "video-depth:sintel23:scale_irls"),
            ("depth:bonn5:scale&shift", "video-depth:bonn5:scale_shift_adam"),
            ("pose:sintel", "pose:sintel14:sim3"),
            ("kitti", "video-depth:kitti13:metric"),
        ],
    )
    def test_words_of_the_released_scripts_lead_to_the_right_id(self, spoken, meant) -> None:
        with pytest.raises(InvalidArgument, match=f"did you mean {meant}[?]"):
            find(spoken)

    def test_the_flags_of_the_released_scripts_are_named(self) -> None:
        assert find("video-depth:bonn5:scale_irls").released == (
            "eval_depth.py --eval_dataset bonn --align 'scale'"
        )
        assert find("video-depth:bonn5:scale_median").released == ""
        assert "tum_s1_1000" in find("pose:tum8-stride1-1000:sim3").released

    def test_a_list_prints_as_a_table(self) -> None:
        found = list_protocols("pose:tum8-stride3-90:")
        titles, row = str(found).splitlines()
        at = titles.index("frames")
        assert row[at:].startswith("rgb frames with a ground-truth pose within 0.02 s, every 3")
        assert row.startswith("pose:tum8-stride3-90:sim3  tum, 8 sequences")
        assert "<table" in found._repr_html_()
        assert list(list_protocols("pose").to_frame().index) == [
            p.id for p in list_protocols("pose")
        ]

    def test_patterns_groups_and_full_ids(self) -> None:
        assert set(list_protocols("pose")) == set(list_protocols("pose:*"))
        assert list_protocols("pose:sintel14:sim3") == (find("pose:sintel14:sim3"),)
        assert len(list_protocols()) == len(EVERY)


class TestSequences:
    def test_folder_names_and_short_names_are_one(self) -> None:
        assert canonical_sequence("bonn", "rgbd_bonn_crowd2") == "crowd2"
        assert canonical_sequence("tum", "rgbd_dataset_freiburg3_walking_xyz") == (
            "freiburg3_walking_xyz"
        )
        for suffix in ("", "_sync", "_sync_02"):
            name = f"2011_09_26_drive_0002{suffix}"
            assert canonical_sequence("kitti", name) == "2011_09_26_drive_0002"

    def test_selection_keeps_the_protocol_order_and_names_what_is_missing(self) -> None:
        found, missing = find("video-depth:bonn5:metric").select(
            ["rgbd_bonn_crowd3", "rgbd_bonn_moving_box", "balloon2"]
        )
        assert found == ("balloon2", "rgbd_bonn_crowd3")
        assert missing == ("crowd2", "person_tracking2", "synchronous")

    def test_a_protocol_without_a_list_takes_all(self) -> None:
        assert find("default:depth:metric").select(["a", "b"]) == (("a", "b"), ())


@given(st.integers(0, 20), st.integers(1, 5), st.integers(1, 30) | st.none(), st.integers(0, 60))
def test_frame_selection_equals_a_slice(
    start: int, step: int, limit: int | None, available: int
) -> None:
    found = FrameSelection(start=start, step=step, limit=limit).indices(available)
    assert list(found) == list(range(available))[start::step][:limit]
    whole = FrameSelection(start=start, step=step, limit=limit, whole_steps=True)
    steps = max(available - start, 0) // step
    assert list(whole.indices(available)) == list(range(available))[start::step][:steps][:limit]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"task": "depth"}, "must be one of video-depth"),
        ({"align": "scale"}, "align must be one of metric.*'scale'"),
        ({"preparation": "pad"}, "preparation must be one of .*'pad'"),
        ({"reduction": "mean"}, "reduction must be one of .*'mean'"),
        ({"on_failure": "hide"}, "on_failure must be one of .*'hide'"),
        ({"metrics": ("ate",)}, "metrics must be among abs_rel"),
        ({"metrics": ()}, "metrics must be among abs_rel"),
        ({"sequences": ("a", "a")}, "listed twice"),
        ({"maximum": -1.0}, r"maximum must be a number in \[0, inf\)"),
        ({"maximum": "deep"}, r"maximum must be a number in \[0, inf\)"),
        ({"clip": 0}, "above 0 m"),
        ({"id": 3}, "id must be a str"),
        ({"sequences": "alley_1"}, "several names"),
        ({"frames": {"stride": 2}}, "choose among among, start, step"),
        ({"expected_frames": 1.5}, "whole number from 1"),
        ({"rpe_delta": 1}, "belongs to pose"),
    ],
)
def test_impossible_protocols_are_refused(change: dict, words: str) -> None:
    with pytest.raises(InvalidArgument, match=words):
        dataclasses.replace(find("video-depth:sintel23:metric"), **change)


def test_lists_and_numpy_numbers_make_the_same_protocol() -> None:
    one = find("video-depth:sintel23:metric")
    values = {"sequences": list(one.sequences), "maximum": np.float32(70), "metrics": one.metrics}
    again = dataclasses.replace(one, frames=dataclasses.asdict(one.frames), **values)
    assert again == one
    assert hash(again) == hash(one)
    assert again.to_json() == one.to_json()


def test_other_refusals() -> None:
    with pytest.raises(InvalidArgument, match="belong to depth"):
        dataclasses.replace(find("pose:sintel14:sim3"), clip=70.0)
    with pytest.raises(InvalidArgument, match="step must be a whole number from 1"):
        FrameSelection(step=0)
    values = find("pose:sintel14:sim3").to_dict()
    with pytest.raises(InvalidArgument, match=r"protocol: unknown \['colour'\]"):
        Protocol.from_dict(values | {"colour": 1})
    with pytest.raises(InvalidArgument, match="protocol is incomplete"):
        Protocol.from_dict({"id": "x"})
