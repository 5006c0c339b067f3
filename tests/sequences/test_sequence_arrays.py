"""Frames in memory and Datasets open as sequences, or are refused with what to do instead."""

import numpy as np
import pytest
import torch
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from mut3r_analysis.errors import InvalidArgument
from mut3r_analysis.sequences import check_sequence, open_sequence

RNG = np.random.default_rng(0)
LEVELS = RNG.integers(0, 256, (5, 6, 8, 3), dtype=np.uint8)


@pytest.mark.parametrize("convert", [np.asarray, torch.from_numpy])
def test_levels_come_back_as_they_were(convert):
    sequence = open_sequence(convert(LEVELS), name="noise")
    check_sequence(sequence)
    np.testing.assert_array_equal(sequence.image.values, LEVELS)
    assert sequence.attrs["name"] == "noise"
    assert sequence.attrs["kind"] == "array"


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_every_level_survives_as_a_fraction(dtype):
    levels = np.arange(256, dtype=np.uint8).repeat(3).reshape(1, 16, 16, 3)
    fractions = (levels / 255).astype(dtype)
    np.testing.assert_array_equal(open_sequence(fractions).image.values, levels)
    tensor = torch.from_numpy(fractions).requires_grad_()
    np.testing.assert_array_equal(open_sequence(tensor).image.values, levels)


@given(st.floats(0, 1))
def test_fractions_round_to_the_nearest_level(fraction):
    frame = np.full((1, 1, 1, 3), fraction)
    assert abs(int(open_sequence(frame).image.values[0, 0, 0, 0]) - 255 * fraction) <= 0.5


def test_bfloat16_is_understood():
    frames = torch.tensor([0, 0.5, 1], dtype=torch.bfloat16).expand(1, 2, 2, 3)
    assert open_sequence(frames).image.values[0, 0, 0].tolist() == [0, 128, 255]


def test_changing_the_array_later_does_not_change_the_sequence():
    frames = LEVELS.copy()
    sequence = open_sequence(frames)
    frames[:] = 0
    np.testing.assert_array_equal(sequence.image.values, LEVELS)


def test_a_range_of_an_array_is_checked_and_hashed_alone():
    frames = LEVELS / 255
    frames[1] = np.nan
    sequence = open_sequence(frames, start=0, stride=2)
    assert sequence.frame.values.tolist() == [0, 2, 4]
    assert sequence.attrs["sha256"] == open_sequence(LEVELS, stride=2).attrs["sha256"]
    assert sequence.attrs["sha256"] != open_sequence(LEVELS, start=1, stride=2).attrs["sha256"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({(2, 1, 1, 0): np.nan, (2, 1, 1, 2): np.nan}, "frame 2 has 1 pixels that are NaN"),
        ({(0, 0, 0, 0): np.inf}, "frame 0 has 1 pixels that are NaN or infinite"),
        ({(3, 0, 0, 0): 1.001}, "frame 3 has values from .* to 1.001.*clip"),
        ({(3, 0, 0, 0): 255.0}, "frame 3.*divide by 255"),
        ({(1, 0, 0, 0): -0.5}, r"frame 1.*\(array \+ 1\) / 2"),
        ({(1, 0, 0, 0): -3.0}, "frame 1.*rescale"),
    ],
)
def test_values_that_are_no_colours_are_refused(change, message):
    frames = LEVELS / 256
    for at, value in change.items():
        frames[at] = value
    with pytest.raises(InvalidArgument, match=message):
        open_sequence(frames)


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((6, 8, 3), r"array\[None\]"),
        ((5, 3, 6, 8), "moveaxis"),
        ((5, 6, 8, 4), "alpha"),
        ((5, 6, 8, 1), "gray"),
        ((0, 6, 8, 3), "at least one frame"),
        ((5, 0, 8, 3), "at least one frame"),
        ((6, 8), r"\(frame, y, x, 3\)"),
    ],
)
def test_shapes_that_are_no_frames_are_refused_with_the_way_there(shape, message):
    with pytest.raises(InvalidArgument, match=message):
        open_sequence(np.zeros(shape, np.uint8))


@pytest.mark.parametrize("dtype", [np.int64, np.uint16, bool, complex])
def test_types_without_a_known_white_are_refused(dtype):
    with pytest.raises(InvalidArgument, match="uint8"):
        open_sequence(np.zeros((1, 2, 2, 3), dtype))


@pytest.mark.parametrize("source", [None, 3, [LEVELS[0]], {"image": LEVELS}])
def test_what_is_no_source_is_refused(source):
    with pytest.raises(InvalidArgument, match=f"a {type(source).__name__} is not a sequence"):
        open_sequence(source)


def full_dataset() -> xr.Dataset:
    return xr.Dataset(
        {
            "image": (("frame", "y", "x", "rgb"), LEVELS),
            "depth": (("frame", "y", "x"), RNG.random((5, 6, 8))),
            "pose": (("frame", "row", "col"), np.tile(np.eye(4), (5, 1, 1))),
            "intrinsics": (("frame", "camera_row", "camera_col"), np.tile(np.eye(3), (5, 1, 1))),
            "motion_mask": (("frame", "y", "x"), RNG.random((5, 6, 8)) > 0.5),
            "instance": (("frame", "y", "x"), RNG.integers(0, 4, (5, 6, 8))),
        },
        attrs={"name": "made", "author": "kept"},
    )


def test_a_dataset_keeps_its_truth_and_gains_labels():
    given_dataset = full_dataset()
    given_dataset["depth"].attrs["source"] = "lidar"
    sequence = open_sequence(given_dataset, start=1, stop=4, stride=2)
    assert sequence.frame.values.tolist() == [1, 3]
    np.testing.assert_array_equal(sequence.depth.values, given_dataset.depth.values[[1, 3]])
    assert sequence.depth.attrs["source"] == "lidar"
    assert sequence.pose.attrs["units"] == "m"
    assert sequence.attrs["name"] == "made"
    assert sequence.attrs["author"] == "kept"
    assert "frame" not in given_dataset.coords
    assert "long_name" not in given_dataset.pose.attrs


def test_a_dataset_counts_frames_by_position_and_keeps_their_indices():
    first = open_sequence(full_dataset(), start=1)
    assert open_sequence(first, start=1).frame.values.tolist() == [2, 3, 4]


def test_the_digest_of_a_dataset_is_of_its_pixels_now():
    sequence = open_sequence(full_dataset())
    edited = sequence.copy(deep=True)
    edited.image[2, 0, 0, 0] = 255 - edited.image[2, 0, 0, 0]
    assert open_sequence(sequence).attrs["sha256"] == sequence.attrs["sha256"]
    assert open_sequence(edited).attrs["sha256"] != sequence.attrs["sha256"]
    assert open_sequence(sequence.isel(frame=slice(2))).attrs["sha256"] != sequence.attrs["sha256"]


def test_a_dataset_of_a_folder_stays_lazy(tmp_path):
    Image.fromarray(LEVELS[0]).save(tmp_path / "0.png")
    sequence = open_sequence(open_sequence(tmp_path))
    assert not sequence.image.variable._in_memory
    np.testing.assert_array_equal(sequence.image.values[0], LEVELS[0])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d: d.drop_vars("image"), r"image \(frame, y, x, rgb\) uint8 is missing.*depth"),
        (lambda d: d.rename(rgb="channel"), r"\(frame, y, x, channel\) instead of"),
        (lambda d: d.transpose("frame", "rgb", ...), "instead of"),
        (lambda d: d.assign(image=d.image.astype("float32")), "image is float32 instead of uint8"),
        (lambda d: d.isel(rgb=[0, 1]), "2 along rgb instead of 3"),
        (lambda d: d.isel(row=slice(3)), "pose has 3 along row instead of 4"),
        (lambda d: d.assign(depth=d.depth.astype(int)), "depth is int64 instead of float"),
        (lambda d: d.assign(motion_mask=d.motion_mask * 1), "motion_mask is int64.*boolean"),
        (lambda d: d.isel(frame=slice(0)), "image is empty"),
    ],
)
def test_a_dataset_that_is_no_sequence_is_refused_by_its_difference(change, message):
    with pytest.raises(InvalidArgument, match=message):
        open_sequence(change(full_dataset()))


def test_every_difference_of_a_dataset_is_listed_at_once():
    broken = full_dataset().rename(row="i", camera_col="j").drop_vars("image")
    with pytest.raises(InvalidArgument) as caught:
        check_sequence(broken)
    for part in ("image (frame, y, x, rgb)", "pose has", "intrinsics has"):
        assert part in str(caught.value)


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ([0, 1, 1], "label 1 more than once"),
        ([0.0, np.nan, 2.0], "1 labels that are NaN"),
        (["a", "b", "a"], "label a more than once"),
        ([np.nan] * 3, "3 labels that are NaN"),
    ],
)
def test_labels_that_name_no_frame_or_several_are_refused(labels, message):
    dataset = xr.Dataset(
        {"image": (("frame", "y", "x", "rgb"), np.zeros((3, 8, 8, 3), np.uint8))},
        coords={"frame": labels},
    )
    with pytest.raises(InvalidArgument, match=message):
        open_sequence(dataset)
