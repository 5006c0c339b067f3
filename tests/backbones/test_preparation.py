"""A frame is brought to a backbone's size by the official rules, and all else moves with it."""

import json
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from PIL import Image

from mut3r_analysis.backbones.preparation import Preparation
from mut3r_analysis.errors import InvalidArgument

RULES = {"demo": "crop", "evalresize": "resize"}


def test_pixels_equal_the_official_loaders_bit_for_bit(golden):
    arrays = golden.arrays("extra/preprocess")
    prepared = [name for name in arrays if name.startswith("out")]
    for name in prepared:
        edge, loader, source = name.removeprefix("out").split("_")
        pixels = Preparation(int(edge), RULES[loader]).pixels(arrays[f"src_{source}"])
        np.testing.assert_array_equal(pixels, arrays[name], err_msg=name)
    assert len(prepared) + sum(name.startswith("src_") for name in arrays) == len(arrays)


def test_shapes_equal_the_official_ones_for_every_listed_size(golden):
    rows = json.loads((golden.folder / "extra/preprocess_sizes.json").read_text())["rows"]
    for row in rows:
        width, height = row["src_WH"]
        preparation = Preparation(row["size"], row["mode"])
        if row["out_HW"] == "TypeError":
            with pytest.raises(InvalidArgument, match=r'square.*rule="crop"'):
                preparation.shape(height, width)
        else:
            assert list(preparation.shape(height, width)) == row["out_HW"], row
    assert rows


@pytest.mark.parametrize(
    ("frames", "inputs"), [("images_uint8", "img"), ("portrait_uint8", "portrait_img")]
)
def test_network_input_equals_the_official_one_bit_for_bit(golden, frames, inputs):
    arrays = golden.arrays("inputs")
    preparation = Preparation(max(golden.config("dpt").img_size))
    for frame, expected in zip(arrays[frames], arrays[inputs], strict=True):
        prepared = preparation.image(frame)
        assert prepared.dtype == np.float32
        assert prepared.flags.c_contiguous
        np.testing.assert_array_equal(prepared, expected)


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ((480, 640), (384, 512)),
        ((436, 1024), (208, 512)),
        ((375, 1242), (144, 512)),
        ((968, 1296), (368, 512)),
        ((480, 854), (288, 512)),
        ((960, 720), (512, 384)),
        ((700, 700), (384, 512)),
    ],
)
def test_benchmark_frames_get_the_published_sizes(source, expected):
    assert Preparation(512).shape(*source) == expected


sides = st.integers(16, 2000)
preparations = st.builds(
    Preparation,
    size=st.sampled_from([64, 128, 224, 336, 500, 512]),
    rule=st.sampled_from(["crop", "resize"]),
    patch=st.sampled_from([8, 14, 16]),
)


def accepted_shape(preparation: Preparation, height: int, width: int) -> tuple[int, int]:
    try:
        return preparation.shape(height, width)
    except InvalidArgument:
        assume(False)
        raise


@given(preparations, sides, sides)
def test_a_prepared_frame_is_whole_patches_within_the_size(preparation, height, width):
    prepared = accepted_shape(preparation, height, width)
    assert all(side % preparation.patch == 0 for side in prepared)
    assert all(preparation.patch <= side <= preparation.size for side in prepared)


@given(preparations, sides, sides)
def test_portrait_is_landscape_on_its_side(preparation, height, width):
    assume(preparation.size == 224 or abs(height - width) > 0.1 * width)
    prepared = accepted_shape(preparation, height, width)
    assert preparation.shape(width, height) == prepared[::-1]


def test_size_224_is_always_a_full_square():
    edges = range(16, 1200, 7)
    shapes = {Preparation(224).shape(edge, edge + extra) for edge in edges for extra in (0, 1, 97)}
    assert shapes == {(224, 224)}


def test_a_window_shows_the_middle_at_the_scale_of_the_whole():
    """From 640 x 480, 224 px at 512 / 640 of the source's size, around its middle."""
    window, whole = Preparation(224, "window"), Preparation(512)
    image = np.random.default_rng(0).integers(0, 255, (480, 640, 3), dtype=np.uint8)
    rows, columns = slice(192 - 112, 192 + 112), slice(256 - 112, 256 + 112)
    np.testing.assert_array_equal(window.pixels(image), whole.pixels(image)[rows, columns])
    depth = image[..., 0].astype(np.float32)
    np.testing.assert_array_equal(window.depth(depth), whole.depth(depth)[rows, columns])
    moved = window.intrinsics(np.eye(3), 480, 640) - whole.intrinsics(np.eye(3), 480, 640)
    np.testing.assert_allclose(moved, [[0, 0, -144], [0, 0, -80], [0, 0, 0]])
    with pytest.raises(InvalidArgument, match="has no square of 224"):
        window.shape(400, 1000)


small = st.integers(20, 150)


@given(st.sampled_from(["crop", "resize"]), st.sampled_from([64, 80]), small, small)
def test_intrinsics_move_as_the_pixels_move(rule, size, height, width):
    """The source pixel sampled at a prepared pixel is the one its ray passes through."""
    preparation = Preparation(size, rule)
    rows, columns = accepted_shape(preparation, height, width)
    source = np.array([[90.0, 0.5, 31.0], [0.0, 80.0, 22.5], [0.0, 0.0, 1.0]])
    prepared = preparation.intrinsics(source, height, width)

    y, x = np.mgrid[:rows, :columns]
    pixels = np.stack([x, y, np.ones_like(x)], axis=-1).astype(np.float64)
    seen = pixels @ np.linalg.inv(prepared).T @ source.T

    sampled_y = preparation.depth(np.mgrid[:height, :width][0])
    sampled_x = preparation.depth(np.mgrid[:height, :width][1])
    # Half a source pixel is what nearest neighbour may be off, no more.
    assert np.abs(seen[..., 0] - sampled_x).max() <= 0.5 + 1e-9
    assert np.abs(seen[..., 1] - sampled_y).max() <= 0.5 + 1e-9


@given(st.sampled_from(["crop", "resize"]), small, small)
def test_sampling_is_exact_rational_arithmetic(rule, height, width):
    """Written out for the columns: undo the crop, undo the resize, floor."""
    size, patch = 64, 16
    preparation = Preparation(size, rule)
    _, columns = accepted_shape(preparation, height, width)
    resized = round(width * size / max(height, width))
    left, scale = resized // 2 - columns // 2, Fraction(width, resized)
    if rule == "resize":
        left, scale = 0, Fraction(width, columns)
    expected = [(int((column + left + Fraction(1, 2)) * scale)) for column in range(columns)]
    sampled = preparation.depth(np.broadcast_to(np.arange(width), (height, width)))
    assert columns % patch == 0
    assert sampled[0].tolist() == expected


@pytest.mark.parametrize("rule", ["crop", "resize"])
def test_colours_and_depth_stay_aligned(rule):
    """A smooth ramp sampled as depth agrees with the same ramp resampled as colour."""
    height, width = 90, 150
    ramp = np.rint(np.linspace(0, 255, width)[None] * np.ones((height, 1))).astype(np.uint8)
    preparation = Preparation(64, rule)
    colour = preparation.pixels(np.repeat(ramp[..., None], 3, axis=2))[..., 0].astype(float)
    sampled = preparation.depth(ramp).astype(float)
    assert np.abs(colour - sampled)[2:-2, 2:-2].max() <= 3
    assert abs((colour - sampled).mean()) < 0.5


def test_an_unchanged_size_leaves_everything_unchanged():
    rng = np.random.default_rng(0)
    frame = rng.integers(0, 256, (48, 64, 3), dtype=np.uint8)
    depth = rng.random((48, 64))
    preparation = Preparation(64)
    camera = np.array([[60.0, 0, 31.5], [0, 60.0, 23.5], [0, 0, 1]])
    np.testing.assert_array_equal(preparation.pixels(frame), frame)
    np.testing.assert_array_equal(preparation.depth(depth), depth)
    np.testing.assert_array_equal(preparation.intrinsics(camera, 48, 64), camera)


def test_masks_and_depth_keep_their_values_and_types():
    depth = np.full((96, 128), np.nan, np.float32)
    depth[:50] = 3.25
    prepared = Preparation(64).depth(depth)
    assert prepared.dtype == np.float32
    assert set(np.unique(prepared[~np.isnan(prepared)])) == {np.float32(3.25)}
    mask = Preparation(64).mask(np.isnan(depth))
    np.testing.assert_array_equal(mask, np.isnan(prepared))
    assert mask.dtype == bool


def test_intrinsics_of_many_frames_move_together():
    cameras = np.tile(np.diag([100.0, 100.0, 1.0]), (5, 1, 1))
    moved = Preparation(64).intrinsics(cameras, 96, 128)
    assert moved.shape == (5, 3, 3)
    np.testing.assert_array_equal(moved[4], Preparation(64).intrinsics(cameras[0], 96, 128))


def test_a_small_frame_is_enlarged_with_the_bicubic_filter():
    frame = np.random.default_rng(1).integers(0, 256, (24, 32, 3), dtype=np.uint8)
    expected = np.asarray(Image.fromarray(frame).resize((64, 48), Image.Resampling.BICUBIC))
    np.testing.assert_array_equal(Preparation(64).pixels(frame), expected)


def test_a_square_frame_keeps_three_quarters_of_its_height_in_whole_patches():
    assert Preparation(512).shape(512, 512) == (384, 512)
    assert Preparation(96).shape(100, 100) == (64, 96)


@pytest.mark.parametrize("size", [224, 512])
def test_a_frame_smaller_than_a_patch_is_refused(size):
    with pytest.raises(InvalidArgument, match=r"10 x 10 pixels.*at least 16"):
        Preparation(size).image(np.zeros((10, 10, 3), np.uint8))


def test_a_frame_too_elongated_for_a_patch_is_refused():
    with pytest.raises(InvalidArgument, match=r"4000 x 100 pixels.*512 x 13.*16-pixel patch"):
        Preparation(512).shape(100, 4000)
    with pytest.raises(InvalidArgument, match="less than one 16-pixel patch"):
        Preparation(16).shape(100, 100)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"size": 0}, "size=0"),
        ({"size": 512.0}, r"size=512\.0"),
        ({"size": True}, "size=True"),
        ({"size": 512, "patch": -16}, "patch=-16"),
        ({"size": 512, "rule": "fit"}, "rule='fit'.*crop.*resize"),
        ({"size": 512, "rule": "width", "patch": 14}, "size=512.*side.*14-pixel patches do not"),
        ({"size": 8}, "less than one patch"),
        ({"size": 224, "patch": 12}, "12-pixel patches do not fill"),
        ({"size": 224, "stride": 2}, "size, rule and patch"),
        ({}, "size, rule and patch"),
    ],
)
def test_what_cannot_prepare_anything_is_refused_when_made(fields, message):
    with pytest.raises(InvalidArgument, match=message):
        Preparation.from_dict(fields)


@pytest.mark.parametrize(
    "frame",
    [
        np.zeros((48, 64, 3), np.float32),
        np.zeros((48, 64), np.uint8),
        np.zeros((48, 64, 4), np.uint8),
        np.zeros((2, 48, 64, 3), np.uint8),
    ],
)
def test_what_is_no_frame_is_refused(frame):
    with pytest.raises(InvalidArgument, match="uint8"):
        Preparation(64).image(frame)


def test_what_is_no_map_or_camera_is_refused():
    with pytest.raises(InvalidArgument, match=r"\(y, x\)"):
        Preparation(64).depth(np.zeros(64))
    with pytest.raises(InvalidArgument, match="3 x 3"):
        Preparation(64).intrinsics(np.eye(4), 48, 64)


@given(preparations)
def test_a_preparation_survives_json(preparation):
    again = Preparation.from_dict(json.loads(json.dumps(preparation.to_dict())))
    assert again == preparation
    assert hash(again) == hash(preparation)
