"""Files are read as their formats define them, byte by byte; damage is named."""

import io
import struct
import zlib

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from PIL import Image
from scipy.spatial.transform import Rotation

from mut3r_analysis.errors import MissingFile, UnreadableFile
from mut3r_analysis.sequences.layouts.colmap import read_sparse
from mut3r_analysis.sequences.layouts.formats import (
    check_file,
    read_cam,
    read_depth_png,
    read_dpt,
    read_flo,
    read_labels,
    read_mask,
    read_numbers,
)


def tagged(width, height, values, tag=202021.25, order="<"):
    return struct.pack(f"{order}fii{len(values)}f", tag, width, height, *values)


def test_a_dpt_file_is_tag_width_height_and_rows(tmp_path):
    (tmp_path / "a.dpt").write_bytes(tagged(3, 2, [1, 2, 3, 4, 5, 6]))
    assert_array_equal(read_dpt(tmp_path / "a.dpt"), [[1, 2, 3], [4, 5, 6]])


@pytest.mark.parametrize("invalid", [0, -1, np.inf, -np.inf, np.nan])
def test_depth_that_is_no_distance_is_nan(invalid, tmp_path):
    (tmp_path / "a.dpt").write_bytes(tagged(2, 1, [invalid, 7]))
    assert_array_equal(read_dpt(tmp_path / "a.dpt"), [[np.nan, 7]])


def test_a_flo_file_interleaves_its_components_and_marks_the_unknown(tmp_path):
    (tmp_path / "a.flo").write_bytes(tagged(2, 1, [1, 2, 1e10, 0]))
    assert_array_equal(read_flo(tmp_path / "a.flo"), [[[1, 2], [np.nan, np.nan]]])


def test_a_cam_file_holds_the_inverse_of_the_pose(tmp_path):
    rotation = Rotation.from_rotvec([0.1, -0.4, 0.3]).as_matrix()
    extrinsics = np.c_[rotation, [1.0, 2.0, 3.0]]
    intrinsics = np.array([[500.0, 0, 320], [0, 510, 240], [0, 0, 1]])
    (tmp_path / "a.cam").write_bytes(
        struct.pack("<f21d", 202021.25, *intrinsics.ravel(), *extrinsics.ravel())
    )
    found, pose = read_cam(tmp_path / "a.cam")
    assert_array_equal(found, intrinsics)
    assert_allclose(extrinsics @ pose, np.eye(4)[:3], atol=1e-12)


@pytest.mark.parametrize("suffix", ["dpt", "flo"])
@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "0 bytes, too few"),
        (tagged(3, 2, [0.0] * 3), "truncated"),
        (tagged(3, 2, [0.0] * 40), "too long"),
        (tagged(3, 2, [0.0] * 6, tag=1.0), "begins with 1 instead of 202021.25"),
        (tagged(3, 2, [0.0] * 6, order=">"), "big-endian"),
        (tagged(-3, 2, []), "announces -3 x 2"),
    ],
)
def test_damaged_sintel_files_are_named_read_or_checked(suffix, content, message, tmp_path):
    path = tmp_path / f"a.{suffix}"
    path.write_bytes(content)
    for read in (read_dpt if suffix == "dpt" else read_flo, check_file):
        with pytest.raises(UnreadableFile, match=message) as caught:
            read(path)
        assert str(path) in str(caught.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (struct.pack("<f20d", 202021.25, *range(20)), "truncated"),
        (struct.pack("<f21d", 7, *range(21)), "begins with 7"),
        (struct.pack("<f21d", 202021.25, *[0.0] * 21), "singular"),
    ],
)
def test_damaged_cameras_are_named(content, message, tmp_path):
    (tmp_path / "a.cam").write_bytes(content)
    with pytest.raises(UnreadableFile, match=message):
        read_cam(tmp_path / "a.cam")


def test_depth_pngs_are_whole_steps_and_zero_is_nothing(tmp_path):
    Image.fromarray(np.array([[0, 5000, 65535]], np.uint16)).save(tmp_path / "a.png")
    assert_allclose(read_depth_png(tmp_path / "a.png", 5000), [[np.nan, 1, 13.107]])


@pytest.mark.parametrize(("mode", "words"), [("L", "8-bit gray"), ("RGB", "8-bit colour")])
def test_a_depth_png_of_another_bit_depth_is_refused(mode, words, tmp_path):
    Image.new(mode, (4, 3)).save(tmp_path / "a.png")
    with pytest.raises(UnreadableFile, match=f"{words}, not 16-bit gray"):
        read_depth_png(tmp_path / "a.png", 5000)


def test_a_truncated_png_is_refused(tmp_path):
    content = io.BytesIO()
    noise = np.random.default_rng(0).integers(0, 65536, (40, 40)).astype(np.uint16)
    Image.fromarray(noise).save(content, "PNG")
    (tmp_path / "a.png").write_bytes(content.getvalue()[:900])
    with pytest.raises(UnreadableFile, match="cannot be decoded"):
        read_depth_png(tmp_path / "a.png", 5000)


def test_masks_are_gray_palette_or_one_bit(tmp_path):
    wanted = np.array([[0, 1, 2]], np.uint8)
    palette = Image.fromarray(wanted, mode="L").convert("P")
    palette.putdata([0, 1, 2])
    palette.putpalette([0, 0, 0, 128, 0, 0, 0, 128, 0])
    palette.save(tmp_path / "p.png")
    Image.fromarray(wanted).save(tmp_path / "l.png")
    Image.fromarray(wanted > 0).save(tmp_path / "one.png")
    for name in ("p", "l", "one"):
        assert_array_equal(read_mask(tmp_path / f"{name}.png"), wanted > 0)
    assert_array_equal(read_labels(tmp_path / "p.png"), wanted)


def png(width, height, bits, kind, rows):
    """Write a PNG by its definition; `kind` is 0 for gray, 3 for palette, 4 for gray and alpha."""

    def chunk(name, data):
        check = zlib.crc32(name + data)
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", check)

    header = struct.pack(">IIBBBBB", width, height, bits, kind, 0, 0, 0)
    palette = chunk(b"PLTE", bytes(range(48))) if kind == 3 else b""
    body = zlib.compress(b"".join(b"\0" + row for row in rows))
    whole = chunk(b"IHDR", header) + palette + chunk(b"IDAT", body) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + whole


@pytest.mark.parametrize(
    ("bits", "kind", "row", "labels"),
    [
        (1, 0, b"\x50", [0, 1, 0, 1]),
        (2, 0, b"\x1b", [0, 1, 2, 3]),
        (4, 0, b"\x01\x2f", [0, 1, 2, 15]),
        (8, 0, b"\x00\x01\x02\xff", [0, 1, 2, 255]),
        (16, 0, b"\0\0\0\1\0\2\0\xff", [0, 1, 2, 255]),
        (1, 3, b"\x50", [0, 1, 0, 1]),
        (2, 3, b"\x1b", [0, 1, 2, 3]),
        (4, 3, b"\x01\x2f", [0, 1, 2, 15]),
        (8, 3, b"\x00\x01\x02\x0f", [0, 1, 2, 15]),
        (8, 4, b"\0\xff\1\xff\2\xff\7\xff", [0, 1, 2, 7]),
    ],
)
def test_masks_are_read_in_every_mode_of_one_plane(tmp_path, bits, kind, row, labels):
    path = tmp_path / "a.png"
    path.write_bytes(png(4, 1, bits, kind, [row]))
    assert_array_equal(read_labels(path), [labels])
    assert_array_equal(read_mask(path), [np.array(labels) > 0])


def test_a_mask_of_many_labels_is_one_though_its_labels_do_not_fit(tmp_path):
    path = tmp_path / "a.png"
    path.write_bytes(png(3, 1, 16, 0, [b"\0\0\x27\x10\0\1"]))
    assert_array_equal(read_mask(path), [[False, True, True]])
    with pytest.raises(UnreadableFile, match="labels up to 10000; renumber"):
        read_labels(path)


@pytest.mark.parametrize("mode", ["RGB", "RGBA"])
def test_a_mask_in_colour_is_refused(mode, tmp_path):
    Image.new(mode, (4, 3)).save(tmp_path / "a.png")
    with pytest.raises(UnreadableFile, match="not 8-bit"):
        read_mask(tmp_path / "a.png")
    (tmp_path / "a.png").write_bytes(png(2, 1, 8, 4, [b"\0\xff\1\0"]))
    with pytest.raises(UnreadableFile, match="opacity"):
        read_mask(tmp_path / "a.png")


@pytest.mark.parametrize("form", ["JPEG", "WEBP", "JPEG2000"])
def test_a_mask_compressed_with_loss_is_refused_whatever_it_is_called(form, tmp_path):
    Image.new("L", (8, 8)).save(tmp_path / "a.png", form)
    with pytest.raises(UnreadableFile, match=f"a.png is {form} by what it holds"):
        read_mask(tmp_path / "a.png")


def test_number_files_hold_what_they_should(tmp_path):
    path = tmp_path / "pose.txt"
    for text in ("1 2 3", "1 2 3 x", ""):
        path.write_text(text)
        with pytest.raises(UnreadableFile, match="2 x 2 numbers"):
            read_numbers(path, (2, 2))
    with pytest.raises(MissingFile, match="does not exist"):
        read_numbers(tmp_path / "other.txt", (2, 2))


def write_colmap(folder, model, parameters, quaternion, translation, points=3):
    cameras = struct.pack("<QiiQQ", 1, 7, model, 64, 48) + struct.pack(
        f"<{len(parameters)}d", *parameters
    )
    (folder / "cameras.bin").write_bytes(cameras)
    images = struct.pack("<Qi7di", 2, 1, *quaternion, *translation, 7) + b"0_00000.png\0"
    images += struct.pack("<Q", points) + b"\1" * 24 * points
    images += struct.pack("<i7di", 2, 1, 0, 0, 0, 0, 0, 0, 7) + b"b.png\0" + struct.pack("<Q", 0)
    (folder / "images.bin").write_bytes(images)


@pytest.mark.parametrize(
    ("model", "parameters", "focals"),
    [
        (0, [50, 32, 24], (50, 50)),
        (1, [50, 60, 32, 24], (50, 60)),
        (2, [50, 32, 24, 0.1], (50, 50)),
        (4, [50, 60, 32, 24, 0.1, 0.2, 0.3, 0.4], (50, 60)),
    ],
)
def test_colmap_cameras_are_shifted_by_half_a_pixel_and_inverted(
    model, parameters, focals, tmp_path
):
    rotation = Rotation.from_rotvec([0.3, 0.2, -0.5])
    write_colmap(tmp_path, model, parameters, np.roll(rotation.as_quat(), 1), [1, 2, 3])
    found = read_sparse(tmp_path)
    assert list(found) == ["0_00000.png", "b.png"]
    pose, intrinsics = found["0_00000.png"]
    wanted = [[focals[0], 0, 31.5], [0, focals[1], 23.5], [0, 0, 1]]
    assert_array_equal(intrinsics, wanted)
    assert_allclose(np.c_[rotation.as_matrix(), [1, 2, 3]] @ pose, np.eye(4)[:3], atol=1e-12)
    assert_array_equal(found["b.png"].pose, np.eye(4))


def test_damaged_reconstructions_are_named(tmp_path):
    write_colmap(tmp_path, 9, [1.0] * 12, [1, 0, 0, 0], [0, 0, 0])
    with pytest.raises(UnreadableFile, match="has model 9"):
        read_sparse(tmp_path)
    write_colmap(tmp_path, 0, [50, 32, 24], [1, 0, 0, 0], [0, 0, 0])
    whole = (tmp_path / "images.bin").read_bytes()
    for length in (4, 60, 80, 100, len(whole) - 1):
        (tmp_path / "images.bin").write_bytes(whole[:length])
        with pytest.raises(UnreadableFile, match="ends early"):
            read_sparse(tmp_path)
    for quaternion in ([0, 0, 0, 0], [1e-200, 0, 0, 0], [np.nan, 0, 0, 1]):
        write_colmap(tmp_path, 0, [50, 32, 24], quaternion, [0, 0, 0])
        with pytest.raises(UnreadableFile, match=r"'0_00000\.png' is no rotation"):
            read_sparse(tmp_path)
