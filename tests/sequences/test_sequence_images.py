"""A folder of images opens as one lazy, labelled sequence, or says what is wrong with it."""

import io
import os

import numpy as np
import pytest
import xarray as xr
from hypothesis import example, given
from hypothesis import strategies as st
from PIL import ExifTags, Image, ImageOps

from mut3r_analysis.errors import InvalidArgument, UnreadableFile
from mut3r_analysis.sequences import check_sequence, images, open_sequence
from mut3r_analysis.sweeps.sources import sequence_sources

FOLDERS = {
    "dog_and_geese": 24,
    "portrait_sparse": 4,
    "static_room": 13,
    "walking_woman": 24,
}


@pytest.fixture
def decoded(monkeypatch):
    """Names of the files whose pixels are decoded."""
    names = []
    decode = images._decode

    def counting(content, file, index):
        names.append(file.name)
        return decode(content, file, index)

    monkeypatch.setattr(images, "_decode", counting)
    return names


def write_frames(folder, count=6, size=(20, 12), suffix=".png"):
    rng = np.random.default_rng(0)
    frames = rng.integers(0, 256, (count, size[1], size[0], 3), dtype=np.uint8)
    for index, frame in enumerate(frames):
        Image.fromarray(frame).save(folder / f"{index:03d}{suffix}")
    return frames


def write_one(folder, image, name="0.png", **options):
    image.save(folder / name, **options)
    return open_sequence(folder).image[0].values


@pytest.mark.parametrize(("folder", "count"), FOLDERS.items())
def test_real_folders_equal_what_pillow_reads(shared, folder, count):
    path = shared / "frames" / folder
    sequence = open_sequence(path)
    check_sequence(sequence)
    assert sequence.sizes["frame"] == count
    assert sequence.attrs["name"] == folder
    for frame in (0, count - 1):
        with Image.open(path / str(sequence.file[frame].item())) as image:
            expected = np.asarray(ImageOps.exif_transpose(image).convert("RGB"))
        np.testing.assert_array_equal(sequence.image[frame].values, expected)


def test_opening_decodes_nothing_and_reading_one_frame_decodes_one(tmp_path, decoded):
    frames = write_frames(tmp_path)
    sequence = open_sequence(tmp_path)
    repr(sequence)
    sequence.isel(frame=slice(1, 4)).sel(frame=2)
    assert decoded == []
    np.testing.assert_array_equal(sequence.image[3].values, frames[3])
    assert decoded == ["003.png"]
    sequence.image.isel(frame=[4, 1, 4]).load()
    assert decoded[1:] == ["001.png", "004.png"]


def test_frames_read_are_not_kept(tmp_path, decoded):
    write_frames(tmp_path, count=2)
    sequence = open_sequence(tmp_path)
    sequence.image[0].load()
    sequence.image[0].load()
    assert decoded == ["000.png", "000.png"]


def slices(size):
    # xarray itself cannot index lazily with a descending slice that is empty.
    return st.slices(size).filter(lambda key: (key.step or 1) > 0 or range(size)[key])


indexers = st.one_of(
    st.integers(-6, 5),
    slices(6),
    st.lists(st.integers(-6, 5), max_size=8).map(lambda at: np.array(at, dtype=int)),
)


@given(frame=indexers, y=indexers, x=indexers, rgb=st.one_of(st.integers(-3, 2), slices(3)))
def test_lazy_indexing_equals_indexing_in_memory(tmp_path_factory, frame, y, x, rgb):
    folder = tmp_path_factory.getbasetemp() / "indexed"
    if not folder.exists():
        folder.mkdir()
        write_frames(folder, size=(6, 6))
    sequence = open_sequence(folder)
    key = {"frame": frame, "y": y, "x": x, "rgb": rgb}
    np.testing.assert_array_equal(
        sequence.image.isel(key).values, sequence.image.copy().load().isel(key).load()
    )


def test_names_sort_as_a_person_would_sort_them(tmp_path):
    for name in ("frame10.png", "Frame2.png", "frame1.png", "frame100.png", "a.png", "7.png"):
        Image.new("RGB", (4, 4)).save(tmp_path / name)
    names = open_sequence(tmp_path).file.values.tolist()
    assert names == ["7.png", "a.png", "frame1.png", "Frame2.png", "frame10.png", "frame100.png"]


@given(st.lists(st.text(min_size=1, max_size=8), unique=True))
@example(["x2", "x02", "x²", "X2", "²"])
def test_any_names_have_one_order(names):
    forwards = sorted(names, key=images.natural_key)
    assert sorted(reversed(names), key=images.natural_key) == forwards  # noqa: C414


def test_other_and_hidden_files_are_ignored(tmp_path):
    write_frames(tmp_path, count=2)
    (tmp_path / "README.txt").write_text("frames")
    (tmp_path / "poses.npz").write_bytes(b"")
    (tmp_path / "._000.png").write_bytes(b"not an image")
    (tmp_path / "masks").mkdir()
    assert open_sequence(tmp_path).sizes["frame"] == 2


def test_a_range_of_frames_keeps_their_place_in_the_source(tmp_path):
    frames = write_frames(tmp_path)
    sequence = open_sequence(tmp_path, start=1, stop=6, stride=2, name="odd")
    assert sequence.frame.values.tolist() == [1, 3, 5]
    assert sequence.file.values.tolist() == ["001.png", "003.png", "005.png"]
    assert sequence.attrs["name"] == "odd"
    np.testing.assert_array_equal(sequence.image.values, frames[1::2])
    np.testing.assert_array_equal(sequence.image.sel(frame=3).values, frames[3])
    assert open_sequence(tmp_path, start=4, stop=1000).sizes["frame"] == 2


def test_every_variable_says_what_it_is(tmp_path):
    write_frames(tmp_path, count=1)
    sequence = open_sequence(tmp_path)
    for variable in sequence.variables.values():
        assert {"long_name", "units", "source"} <= set(variable.attrs)
    assert sequence.attrs["kind"] == "images"
    assert sequence.attrs["source"] == str(tmp_path)


def test_a_sequence_is_written_frame_by_frame_and_read_back(tmp_path, decoded):
    folder = tmp_path / "frames"
    folder.mkdir()
    frames = write_frames(folder)
    encoding = {"image": {"chunks": (1, 12, 20, 3)}}
    store = tmp_path / "sequence.zarr"
    open_sequence(folder).to_zarr(store, zarr_format=3, consolidated=False, encoding=encoding)
    assert len(decoded) == len(frames)
    again = open_sequence(xr.open_zarr(store, consolidated=False, chunks=None))
    np.testing.assert_array_equal(again.image.values, frames)
    assert again.file.values.tolist() == [f"{index:03d}.png" for index in range(len(frames))]


def test_the_digest_follows_contents_and_frames_but_not_the_place(tmp_path):
    folders = [tmp_path / name for name in ("here", "there", "changed")]
    for folder in folders:
        folder.mkdir()
        write_frames(folder)
    Image.new("RGB", (20, 12)).save(folders[2] / "003.png")
    here, there, changed = (open_sequence(folder).attrs["sha256"] for folder in folders)
    assert len(here) == 64
    assert here == there
    assert here != changed
    assert open_sequence(folders[0], stop=5).attrs["sha256"] != here
    assert (
        open_sequence(folders[2], stop=3).attrs["sha256"]
        == open_sequence(folders[0], stop=3).attrs["sha256"]
    )


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("form", ["JPEG", "PNG", "TIFF", "WEBP"])
def test_exif_orientation_turns_frames_upright(tmp_path, form, orientation):
    stored = Image.fromarray(np.random.default_rng(2).integers(0, 256, (8, 16, 3), dtype=np.uint8))
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    pixels = write_one(tmp_path, stored, f"0.{form.lower()}", exif=exif)
    with Image.open(tmp_path / f"0.{form.lower()}") as image:
        expected = np.asarray(ImageOps.exif_transpose(image))
    assert pixels.shape == ((16, 8, 3) if orientation >= 5 else (8, 16, 3))
    np.testing.assert_array_equal(pixels, expected)
    if form in ("PNG", "TIFF") and orientation == 6:
        np.testing.assert_array_equal(pixels, np.rot90(np.asarray(stored), -1))


def test_png_headers_are_read_without_decoding_pixels(tmp_path, monkeypatch):
    write_frames(tmp_path, count=1)

    def load(self):
        raise AssertionError("pixels were decoded")

    monkeypatch.setattr("PIL.PngImagePlugin.PngImageFile.load", load)
    assert open_sequence(tmp_path).image.shape == (1, 12, 20, 3)


def test_exif_behind_the_pixels_of_a_png_counts_too(tmp_path):
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    buffer = io.BytesIO()
    Image.new("RGB", (16, 8)).save(buffer, "PNG", exif=exif)
    content = buffer.getvalue()
    at = content.index(b"eXIf") - 4
    length = int.from_bytes(content[at : at + 4], "big") + 12
    chunk, rest = content[at : at + length], content[:at] + content[at + length :]
    end = rest.index(b"IEND") - 4
    (tmp_path / "0.png").write_bytes(rest[:end] + chunk + rest[end:])
    assert open_sequence(tmp_path).image[0].values.shape == (16, 8, 3)


def test_alpha_is_dropped(tmp_path):
    rgba = np.random.default_rng(3).integers(0, 256, (5, 7, 4), dtype=np.uint8)
    np.testing.assert_array_equal(write_one(tmp_path, Image.fromarray(rgba)), rgba[..., :3])


def test_gray_becomes_three_equal_colours(tmp_path):
    gray = np.arange(35, dtype=np.uint8).reshape(5, 7)
    np.testing.assert_array_equal(
        write_one(tmp_path, Image.fromarray(gray)), np.repeat(gray[..., None], 3, axis=2)
    )


def test_black_and_white_becomes_0_and_255(tmp_path):
    bits = np.eye(6, dtype=bool)
    assert write_one(tmp_path, Image.fromarray(bits))[..., 1].tolist() == (bits * 255).tolist()


@pytest.mark.parametrize("transparency", [None, 1, bytes([255, 0, 128])])
def test_palettes_are_looked_up_with_and_without_transparency(tmp_path, transparency):
    image = Image.fromarray(np.array([[0, 1, 2]], np.uint8))
    image.putpalette([10, 20, 30, 40, 50, 60, 70, 80, 90])
    options = {} if transparency is None else {"transparency": transparency}
    pixels = write_one(tmp_path, image, **options)
    assert pixels.tolist() == [[[10, 20, 30], [40, 50, 60], [70, 80, 90]]]


@pytest.mark.parametrize("name", ["0.png", "0.tif", "0.pgm"])
def test_16_bit_gray_is_scaled_and_rounded(tmp_path, name):
    levels = np.array([[0, 100, 128, 129, 30000, 32896, 65278, 65407, 65535]], np.uint16)
    pixels = write_one(tmp_path, Image.fromarray(levels), name)
    expected = np.floor(levels.astype(np.float64) / 257 + 0.5)
    np.testing.assert_array_equal(pixels, np.repeat(expected[..., None], 3, axis=2))


def test_float_gray_is_read_between_0_and_1_and_refused_elsewhere(tmp_path):
    levels = np.array([[0, 0.25, 1]], np.float32)
    assert write_one(tmp_path, Image.fromarray(levels), "0.tif")[0, :, 0].tolist() == [0, 64, 255]
    for bad in (2.0, -0.1, np.nan):
        Image.fromarray(np.full((2, 2), bad, np.float32)).save(tmp_path / "0.tif")
        with pytest.raises(UnreadableFile, match=r"0\.tif.*\[0, 1\]"):
            open_sequence(tmp_path).image.load()


@pytest.mark.parametrize(
    "suffix", [".bmp", ".ppm", ".tga", ".tiff", ".webp", ".gif", ".jp2", ".avif"]
)
def test_formats_beyond_png_and_jpeg_open(tmp_path, suffix):
    write_frames(tmp_path, count=2, size=(32, 24), suffix=suffix)
    sequence = open_sequence(tmp_path)
    assert sequence.image.values.shape == (2, 24, 32, 3)


EPS = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 20 12\n%%EndComments\nshowpage\n%%EOF\n"


@pytest.mark.parametrize("name", ["001.png", "001.jpg", "001.tiff"])
def test_a_file_is_what_it_holds_and_never_starts_an_interpreter(tmp_path, monkeypatch, name):
    def interpreter(*_, **__):
        raise AssertionError("an interpreter was started")

    monkeypatch.setattr("PIL.EpsImagePlugin.Ghostscript", interpreter)
    write_frames(tmp_path, count=3)
    (tmp_path / "001.png").unlink()
    (tmp_path / name).write_bytes(EPS)
    with pytest.raises(UnreadableFile, match=rf"{name} \(frame 1\) .*no image format"):
        open_sequence(tmp_path).image.load()


@pytest.mark.parametrize(("form", "name"), [("JPEG", "0.png"), ("BMP", "0.jpg"), ("GIF", "0.tif")])
def test_an_image_under_the_name_of_another_format_opens(tmp_path, form, name):
    Image.new("RGB", (8, 6), (255, 255, 255)).save(tmp_path / name, form)
    assert (open_sequence(tmp_path).image.values == 255).all()


def moving(count=5, size=(24, 16)):
    """Frames of few colours, each unlike the one before."""
    frames = []
    for index in range(count):
        pixels = np.zeros((size[1], size[0], 3), np.uint8)
        pixels[:, : 4 * index + 3] = [(40 * index) % 256, 255, 0]
        frames.append(pixels)
    return frames


SEVERAL = {
    "a.gif": {"disposal": 2},
    "a.png": {},
    "default.png": {"default_image": True},
    "a.webp": {"lossless": True},
    "a.tiff": {},
}


def write_several(path, frames, **options):
    pictures = [Image.fromarray(frame) for frame in frames]
    if options.get("default_image"):
        pictures.insert(0, Image.new("RGB", pictures[0].size, "red"))
    pictures[0].save(path, save_all=True, append_images=pictures[1:], **options)
    return path


@pytest.mark.parametrize("name", SEVERAL)
@pytest.mark.parametrize("given", ["file", "folder"])
def test_images_of_one_file_are_frames(tmp_path, name, given):
    frames = moving()
    path = write_several(tmp_path / name, frames, **SEVERAL[name])
    sequence = open_sequence(path if given == "file" else tmp_path)
    check_sequence(sequence)
    assert sequence.sizes["frame"] == len(frames)
    for order in (range(5), (3, 0, 4, 1)):
        for frame in order:
            np.testing.assert_array_equal(sequence.image[frame].values, frames[frame])
    assert sequence.file.values.tolist() == [name] * 5
    assert np.diff(sequence.page.values).tolist() == [1] * 4
    chosen = open_sequence(path, start=1, stride=2)
    assert chosen.frame.values.tolist() == [1, 3]
    np.testing.assert_array_equal(chosen.image[1].values, frames[3])


def test_files_of_several_images_stand_among_others_in_order(tmp_path):
    frames = moving(4)
    Image.fromarray(frames[0]).save(tmp_path / "1.png")
    write_several(tmp_path / "2.tiff", frames[1:3])
    Image.fromarray(frames[3]).save(tmp_path / "10.png")
    sequence = open_sequence(tmp_path)
    np.testing.assert_array_equal(sequence.image.values, frames)
    assert sequence.page.values.tolist() == [0, 0, 1, 0]


def test_pages_of_another_size_are_refused(tmp_path):
    path = tmp_path / "a.tiff"
    Image.new("RGB", (8, 6)).save(path, save_all=True, append_images=[Image.new("RGB", (4, 3))])
    with pytest.raises(InvalidArgument, match="differ in size"):
        open_sequence(path)


@pytest.mark.parametrize("name", ["a.jpg", "a.png", "a.webp", "a.tif"])
def test_a_still_image_is_no_sequence(tmp_path, name):
    Image.new("RGB", (8, 6)).save(tmp_path / name)
    with pytest.raises(InvalidArgument, match="is a single image; give its folder"):
        open_sequence(tmp_path / name)


def lose(folder, how):
    """Make the frame 002.png vanish, and say which file should be named."""
    file = folder / "002.png"
    file.unlink()
    if how == "link":
        file.symlink_to(folder / "not-mounted" / "002.png")
    elif how == "loop":
        file.symlink_to(file)
    elif how == "folder":
        file.mkdir()
    elif how == "placeholder":
        file = folder / ".002.png.icloud"
        file.write_bytes(b"")
    else:
        file = folder / how
        file.write_bytes(b"\0" * 40)
    return file.name


@pytest.mark.parametrize(
    "how",
    [
        "link", "loop", "folder", "002.heic", "002.HEIC", "002.exr", "002.dng", "002.jxl",
        "002.npy", "002.raw", "002.png.part", "002.png.crdownload", "placeholder",
    ],
)  # fmt: skip
def test_a_frame_that_vanished_from_the_middle_is_named(tmp_path, how):
    write_frames(tmp_path, count=5)
    name = lose(tmp_path, how)
    with pytest.raises(UnreadableFile, match=f"{name} is .*among 4 images"):
        open_sequence(tmp_path)
    with pytest.raises(UnreadableFile, match=name):
        open_sequence(tmp_path, stop=2)


@pytest.mark.parametrize(
    "beside",
    [
        "000.json", "002.npy", "002.heic", "002.png.txt", "notes.npy", "7.txt", "._002.png",
        ".DS_Store", "Thumbs.db", "desktop.ini", "clip.mp4", "005.npz",
    ],
)  # fmt: skip
def test_files_beside_the_frames_do_not_matter(tmp_path, beside):
    frames = write_frames(tmp_path, count=5)
    (tmp_path / beside).write_bytes(b"\0\5\x16\7")
    np.testing.assert_array_equal(open_sequence(tmp_path).image.values, frames)


def test_numbers_left_out_by_rule_are_no_gap(tmp_path):
    for index in range(0, 100, 10):
        Image.new("RGB", (4, 4)).save(tmp_path / f"{index:05d}.png")
    for index in range(100):
        (tmp_path / f"{index:05d}.json").write_bytes(b"{}")
    assert open_sequence(tmp_path).sizes["frame"] == 10


@pytest.mark.parametrize("number", [10**9, 10**30, 10**200])
def test_numbers_far_apart_cost_nothing(tmp_path, number):
    for index in (0, 1, number):
        Image.new("RGB", (4, 4)).save(tmp_path / f"{index}.png")
    assert open_sequence(tmp_path).file.values.tolist() == ["0.png", "1.png", f"{number}.png"]


@pytest.mark.parametrize("name", [b"\x83t%d.png", b"gr\xf6\xdfe%d.png", b"%d\xff\xfe.png"])
def test_a_name_that_is_not_utf_8_is_named(tmp_path, name):
    write_frames(tmp_path, count=1)
    try:
        os.rename(tmp_path / "000.png", os.path.join(os.fsencode(tmp_path), name % 0))
    except OSError:
        pytest.skip("this file system keeps names in UTF-8 only")
    with pytest.raises(InvalidArgument, match=r"\\udc.*is not UTF-8; rename it") as caught:
        open_sequence(tmp_path)
    assert str(caught.value).isascii()


@pytest.mark.parametrize("name", ["clip [1]", "a*b", "what?", "[x]", "größe", "tum:x"])
def test_a_folder_is_called_what_it_is_called(tmp_path, monkeypatch, name):
    (tmp_path / name).mkdir()
    frames = write_frames(tmp_path / name, count=2)
    np.testing.assert_array_equal(open_sequence(tmp_path / name).image.values, frames)
    (source,) = sequence_sources(str(tmp_path / name))
    assert (source.name, source.frames) == (name, 2)
    monkeypatch.chdir(tmp_path)
    assert sequence_sources(name)[0].frames == 2


def test_one_frame_and_a_tiny_frame_are_sequences(tmp_path):
    frames = write_frames(tmp_path, count=1, size=(10, 10))
    np.testing.assert_array_equal(open_sequence(tmp_path).image.values, frames)


def test_a_truncated_frame_is_found_when_read_and_named(tmp_path):
    write_frames(tmp_path, suffix=".jpg", size=(64, 48))
    broken = tmp_path / "002.jpg"
    broken.write_bytes(broken.read_bytes()[:-600])
    sequence = open_sequence(tmp_path)
    sequence.image[1].load()
    with pytest.raises(UnreadableFile, match=r"002\.jpg \(frame 2\).*truncated.*start=3"):
        sequence.image[2].load()
    assert open_sequence(tmp_path, start=3).image.values.shape[0] == 3


@pytest.mark.parametrize("content", [b"", b"this is no image", b"\x89PNG\r\n\x1a\n\x00\x00"])
def test_a_file_that_is_no_image_is_found_when_opened(tmp_path, content):
    write_frames(tmp_path)
    (tmp_path / "001.png").write_bytes(content)
    with pytest.raises(UnreadableFile, match=r"001\.png \(frame 1\).*moving it.*start=2"):
        open_sequence(tmp_path)
    assert open_sequence(tmp_path, stride=2).sizes["frame"] == 3


def test_a_frame_that_vanished_or_changed_size_is_named_when_read(tmp_path):
    write_frames(tmp_path, count=2)
    sequence = open_sequence(tmp_path)
    Image.new("RGB", (8, 8)).save(tmp_path / "000.png")
    (tmp_path / "001.png").unlink()
    with pytest.raises(UnreadableFile, match=r"000\.png was changed or replaced after"):
        sequence.image[0].load()
    with pytest.raises(UnreadableFile, match=r"001\.png \(frame 1\) cannot be read"):
        sequence.image[1].load()


def test_mixed_sizes_are_listed_with_examples(tmp_path):
    write_frames(tmp_path, count=5)
    Image.new("RGB", (30, 40)).save(tmp_path / "003.png")
    with pytest.raises(InvalidArgument) as caught:
        open_sequence(tmp_path)
    message = str(caught.value)
    assert "20 x 12: 4 files, the first is 000.png" in message
    assert "30 x 40: 1 files, the first is 003.png" in message
    assert "start=" in message
    assert open_sequence(tmp_path, stop=3).sizes["frame"] == 3


def test_an_empty_folder_says_what_was_seen(tmp_path):
    with pytest.raises(InvalidArgument, match="holds no image; seen were no files"):
        open_sequence(tmp_path)
    for name in ("a.txt", "b.txt", "c.h5", "LICENSE"):
        (tmp_path / name).write_bytes(b"")
    (tmp_path / "rgb").mkdir()
    with pytest.raises(InvalidArgument, match=r"2 x \.txt.*1 x \.h5.*folders rgb"):
        open_sequence(tmp_path)


@pytest.mark.parametrize(
    ("selection", "message"),
    [
        ({"start": 3, "stop": 3}, "holds no frame"),
        ({"start": 3, "stop": 1}, "holds no frame"),
        ({"stop": 0}, "holds no frame"),
        ({"start": -1}, "start must be a whole number from 0"),
        ({"stride": 0}, "stride must be a whole number from 1"),
        ({"stride": -2}, "got -2"),
        ({"stride": 1.5}, r"stride must be a whole number.*got 1\.5"),
        ({"start": None}, "start must be a whole number.*got None"),
        ({"start": 6}, "has 6 frames, 0 to 5"),
    ],
)
def test_ranges_without_a_frame_are_refused(tmp_path, selection, message):
    write_frames(tmp_path)
    with pytest.raises(InvalidArgument, match=message):
        open_sequence(tmp_path, **selection)
