"""A video file streams, seeks and closes as one lazy sequence."""

import gc
import os
import pickle
import struct
from fractions import Fraction

import av
import numpy as np
import psutil
import pytest
from PIL import Image

from mut3r_analysis.errors import InvalidArgument, UnreadableFile
from mut3r_analysis.sequences import check_sequence, open_sequence, video
from mut3r_analysis.sequences.frames import Selection
from mut3r_analysis.sequences.video import open_video

COUNT, RATE, GOP = 40, 20, 10


def write_video(
    path,
    count=COUNT,
    codec="libx264",
    size=(64, 48),
    form=None,
    rotation=None,
    ratio=None,
    title="",
):
    """Frames of one gray level each, level 5 x index, with a bright top left corner."""
    width, height = size
    with av.open(str(path), "w", format=form) as container:
        container.metadata["title"] = title
        stream = container.add_stream(codec, rate=RATE)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        stream.codec_context.gop_size = GOP
        if ratio is not None:
            stream.codec_context.sample_aspect_ratio = ratio
        if rotation is not None:
            stream.set_display_rotation(rotation)
        for index in range(count):
            frame = np.full((height, width, 3), (5 * index) % 200, np.uint8)
            frame[: height // 2, : width // 2] = 255
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode(None))
    return path


def decode_all(path):
    with av.open(str(path)) as container:
        return [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    return write_video(tmp_path_factory.mktemp("video") / "clip.mp4")


@pytest.fixture
def seeks(monkeypatch):
    """Starting points of decoding, in the order they were used."""
    starts = []
    start_at = video.Video._start_at

    def recording(self, keyframe):
        starts.append(keyframe)
        start_at(self, keyframe)

    monkeypatch.setattr(video.Video, "_start_at", recording)
    return starts


# The containers differ in what they know: all times, times rounded to milliseconds, only the order
# of decoding, or nothing but the pictures. The first three codecs reorder frames.
FORMS = [
    ("clip.mp4", "libx264", None),
    ("clip.mkv", "libx264", None),
    ("clip.ts", "libx264", None),
    ("clip.avi", "libx264", None),
    ("simple.avi", "mpeg4", None),
    ("clip.webm", "libvpx-vp9", None),
    ("clip.mov", "mpeg4", None),
    ("clip.h264", "libx264", "h264"),
]


@pytest.mark.parametrize(("name", "codec", "form"), FORMS)
def test_any_order_of_reading_gives_the_frames_of_plain_decoding(tmp_path, name, codec, form):
    path = write_video(tmp_path / name, codec=codec, form=form)
    expected = decode_all(path)
    sequence = open_sequence(path)
    check_sequence(sequence)
    assert sequence.image.shape == (COUNT, 48, 64, 3)
    for order in (range(COUNT), np.random.default_rng(0).permutation(COUNT)):
        for frame in order:
            np.testing.assert_array_equal(sequence.image[int(frame)].values, expected[frame])


def test_opening_decodes_the_first_frame_only(clip, monkeypatch):
    decoded = []
    find = video.Video._find

    def recording(self, index):
        decoded.append(index)
        return find(self, index)

    monkeypatch.setattr(video.Video, "_find", recording)
    sequence = open_sequence(clip, start=3)
    repr(sequence)
    assert decoded == [3]
    sequence.image[5].load()
    assert decoded == [3, 8]


def test_frames_in_order_are_decoded_in_one_go(clip, seeks):
    sequence = open_sequence(clip)
    seeks.clear()
    for frame in range(COUNT):
        sequence.image[frame].load()
    assert seeks == [None]


def test_a_distant_frame_is_reached_from_its_keyframe(clip, seeks):
    keyframes = open_video(clip, Selection()).timeline.keyframes
    sequence = open_sequence(clip)
    seeks.clear()
    sequence.image[35].load()
    sequence.image[12].load()
    sequence.image[14].load()
    assert seeks == [keyframes[keyframes <= frame].max() for frame in (35, 12)]
    assert 0 not in seeks


def test_a_range_keeps_indices_and_seconds(clip):
    sequence = open_sequence(clip, start=5, stop=30, stride=10)
    assert sequence.frame.values.tolist() == [5, 15, 25]
    np.testing.assert_allclose(sequence.time.values, [0.25, 0.75, 1.25], atol=1e-9)
    assert sequence.time.attrs["units"] == "s"
    assert sequence.attrs["kind"] == "video"
    assert sequence.attrs["name"] == "clip"
    levels = sequence.image[:, 40, 40, 0].values.astype(int)
    assert np.abs(levels - [25, 75, 125]).max() <= 3


def test_the_digest_follows_contents_and_frames(tmp_path, clip):
    whole = open_sequence(clip).attrs["sha256"]
    copy = tmp_path / "copy.mp4"
    copy.write_bytes(clip.read_bytes())
    assert open_sequence(copy).attrs["sha256"] == whole
    assert open_sequence(clip, stride=2).attrs["sha256"] != whole


@pytest.mark.parametrize("degrees", [0, 90, 180, -90])
def test_a_video_filmed_sideways_is_turned_upright(tmp_path, degrees):
    path = write_video(tmp_path / "turned.mp4", count=2, rotation=degrees)
    stored = decode_all(path)[1]
    pixels = open_sequence(path).image[1].values
    np.testing.assert_array_equal(pixels, np.rot90(stored, degrees // 90))


def across(pixels):
    return pixels[:, ::-1]


def down(pixels):
    return pixels[::-1]


def transposed(pixels):
    return pixels.swapaxes(0, 1)


# How a file says it: x' = a x + c y, y' = b x + d y, in columns of 16.16 fixed point.
MATRICES = {
    (1, 0, 0, 1): lambda p: p,
    (-1, 0, 0, 1): across,
    (1, 0, 0, -1): down,
    (-1, 0, 0, -1): lambda p: down(across(p)),
    (0, 1, 1, 0): transposed,
    (0, -1, 1, 0): lambda p: down(transposed(p)),
    (0, 1, -1, 0): lambda p: across(transposed(p)),
    (0, -1, -1, 0): lambda p: down(across(transposed(p))),
}


@pytest.mark.parametrize("matrix", MATRICES)
def test_a_mirrored_or_transposed_video_is_shown_as_the_file_says(tmp_path, matrix):
    path = write_video(tmp_path / "clip.mp4", count=3)
    content = bytearray(path.read_bytes())
    a, b, c, d = (number << 16 for number in matrix)
    at = content.index(b"tkhd") + 44
    content[at : at + 36] = struct.pack(">9i", a, b, 0, c, d, 0, 0, 0, 1 << 30)
    path.write_bytes(content)
    stored = decode_all(path)
    sequence = open_sequence(path)
    for frame in range(3):
        expected = MATRICES[matrix](stored[frame])
        np.testing.assert_array_equal(sequence.image[frame].values, expected)
    again = pickle.loads(pickle.dumps(sequence))
    np.testing.assert_array_equal(again.image[2].values, MATRICES[matrix](stored[2]))


@pytest.mark.parametrize(
    ("ratio", "rotation", "shown"),
    [((4, 3), None, "85 x 48 px"), ((1, 2), None, "32 x 48 px"), ((4, 3), 90, "36 x 64 px")],
)
@pytest.mark.parametrize("suffix", ["mp4", "mkv"])
def test_pixels_that_are_not_square_are_said(tmp_path, suffix, ratio, rotation, shown):
    if suffix == "mkv" and rotation:
        pytest.skip("this Matroska muxer keeps no rotation")
    path = write_video(tmp_path / f"a.{suffix}", count=2, rotation=rotation, ratio=Fraction(*ratio))
    with pytest.warns(UserWarning, match=f"not square, their aspect ratio.*shown as {shown}"):
        sequence = open_sequence(path)
    assert sequence.attrs["shown_size"] == shown
    ratio = Fraction(*ratio) if rotation is None else 1 / Fraction(*ratio)
    assert sequence.attrs["pixel_aspect_ratio"] == str(ratio)


def test_square_pixels_are_not_mentioned(clip):
    assert not {"shown_size", "pixel_aspect_ratio", "left_out"} & set(open_sequence(clip).attrs)


def assert_frames_are_what_decodes(path, expected, lost):
    """Count, order and place in time are those of plain decoding; what is lost is said."""
    with pytest.warns(UserWarning, match=lost):
        sequence = open_sequence(path)
    assert sequence.sizes["frame"] == len(expected)
    assert lost.split(" of")[0] in sequence.attrs["left_out"]
    for frame in (len(expected) - 1, 0, len(expected) // 2):
        np.testing.assert_array_equal(sequence.image[frame].values, expected[frame])


def without_first_packets(source, target, dropped):
    with av.open(str(source)) as container, av.open(str(target), "w") as cut:
        stream = cut.add_stream_from_template(container.streams.video[0])
        packets = [packet for packet in container.demux(video=0) if packet.size]
        for packet in packets[dropped:]:
            packet.stream = stream
            cut.mux(packet)
        key = min(packet.pts for packet in packets[dropped:] if packet.is_keyframe)
        return sum(packet.pts < key for packet in packets)


@pytest.mark.parametrize(("suffix", "dropped"), [("ts", 1), ("ts", 4), ("mkv", 7), ("mkv", 13)])
def test_frames_that_need_an_earlier_one_are_left_out_and_said(tmp_path, suffix, dropped):
    whole = write_video(tmp_path / f"whole.{suffix}")
    cut = tmp_path / f"cut.{suffix}"
    first = without_first_packets(whole, cut, dropped)
    assert first > dropped
    lost = f"{first - dropped} of {COUNT - dropped} frames.*{first - dropped} of them before"
    assert_frames_are_what_decodes(cut, decode_all(whole)[first:], lost)
    with pytest.warns(UserWarning, match="damaged or lost"):
        seconds = open_sequence(cut, start=3).time.values
    np.testing.assert_allclose(seconds[:2], [3 / RATE, 4 / RATE], atol=1e-3)


@pytest.mark.parametrize(("name", "lost"), [("cut.ts", "8 of 53"), ("nokey.mkv", "7 of 37")])
def test_recordings_cut_in_the_middle_open(shared, name, lost):
    path = shared / "cases" / "03_video_starts_mid_gop" / name
    assert_frames_are_what_decodes(path, decode_all(path), lost)


@pytest.mark.parametrize("name", ["clip.ts", "clip.mkv", "clip.webm"])
def test_a_video_cut_short_says_how_many_frames_it_lost(tmp_path, name):
    codec = "libvpx-vp9" if name.endswith("webm") else "libx264"
    whole = write_video(tmp_path / name, codec=codec)
    content = whole.read_bytes()
    cut = tmp_path / f"cut-{name}"
    cut.write_bytes(content[: len(content) * 6 // 10])
    expected = decode_all(cut)
    if name.endswith("ts"):
        # A transport stream does not say how long it is.
        assert open_sequence(cut).sizes["frame"] == len(expected) < COUNT
        return
    assert_frames_are_what_decodes(cut, expected, f"{COUNT - len(expected)} of {COUNT} frames")


@pytest.mark.parametrize("place", [0.3, 0.5, 0.8])
def test_a_video_damaged_inside_counts_what_decodes(tmp_path, place):
    path = write_video(tmp_path / "clip.ts")
    content = bytearray(path.read_bytes())
    at = int(len(content) * place) // 188 * 188
    noise = np.random.default_rng(0).integers(0, 256, 10 * 188, dtype=np.uint8)
    content[at : at + 10 * 188] = noise.tobytes()
    path.write_bytes(content)
    with pytest.warns(UserWarning, match="damaged or lost"):
        sequence = open_sequence(path)
    times = sequence.time.values
    whole = [np.rint(time * RATE) for time in times]
    assert int(sequence.attrs["left_out"].split()[0]) == COUNT - len(times)
    assert (np.diff(times) > 0).all()
    # What stands before the damage, and behind a keyframe after it, keeps its place in time.
    for frame in (0, 5, *[len(times) - 1] * (place < 0.8)):
        level = sequence.image[frame, 40, 40, 0].values.astype(int)
        assert abs(level - (5 * whole[frame]) % 200) <= 3


def test_a_packet_of_vp8_that_is_only_a_reference_is_no_frame_and_not_lost(tmp_path):
    path = write_video(tmp_path / "clip.webm", codec="libvpx")
    with av.open(str(path)) as container:
        packets = [bytes(packet) for packet in container.demux(video=0) if packet.size]
    content = path.read_bytes()
    at = content.index(packets[5])
    hidden = bytes([packets[5][0] & ~0x10]) + packets[5][1:]
    path.write_bytes(content[:at] + hidden + content[at + len(hidden) :])
    expected = decode_all(path)
    sequence = open_sequence(path)
    assert sequence.sizes["frame"] == len(expected) == COUNT - 1
    np.testing.assert_array_equal(sequence.image[5].values, expected[5])


def test_long_videos_are_indexed_by_their_packets(tmp_path, monkeypatch):
    monkeypatch.setattr(video, "DECODED_AT_OPENING", 10)
    whole = write_video(tmp_path / "whole.mkv")
    assert open_sequence(whole).sizes["frame"] == COUNT
    cut = tmp_path / "cut.mkv"
    first = without_first_packets(whole, cut, 7)
    assert_frames_are_what_decodes(cut, decode_all(whole)[first:], f"{first - 7} of 33 frames")


@pytest.mark.parametrize(
    ("name", "text", "named"),
    [
        ("notes.txt", "frames are numbered\n" * 50, r"notes\.txt is not a video"),
        ("list.mp4", "ffconcat version 1.0\nfile clip.mp4\n", r"list\.mp4 is not a video"),
        ("list.m3u8", "#EXTM3U\n#EXTINF:2,\nclip.ts\n#EXT-X-ENDLIST\n", "is not a video"),
    ],
)
def test_text_and_lists_of_other_files_are_no_videos(tmp_path, name, text, named):
    write_video(tmp_path / "clip.mp4", count=2)
    write_video(tmp_path / "clip.ts", count=2)
    (tmp_path / name).write_text(text, encoding="utf-8")
    with pytest.raises(UnreadableFile, match=named):
        open_sequence(tmp_path / name)


def test_a_video_called_an_image_is_a_video(tmp_path):
    path = write_video(tmp_path / "clip.mp4", count=4).rename(tmp_path / "clip.png")
    assert open_sequence(path).sizes["frame"] == 4


def test_the_file_is_closed_at_the_end_by_close_and_when_forgotten(tmp_path):
    path = write_video(tmp_path / "clip.mp4")

    def is_open():
        return str(path) in {file.path for file in psutil.Process().open_files()}

    sequence = open_sequence(path)
    assert is_open()
    sequence.image[COUNT - 1].load()
    assert not is_open()
    sequence.image[3].load()
    assert is_open()
    sequence.close()
    assert not is_open()
    sequence.image[3].load()
    del sequence
    gc.collect()
    assert not is_open()


def test_streaming_does_not_grow_in_memory(tmp_path):
    path = write_video(tmp_path / "long.mp4", count=150, size=(640, 480))
    sequence = open_sequence(path)
    process = psutil.Process(os.getpid())
    for frame in range(40):
        sequence.image[frame].load()
    settled = process.memory_info().rss
    for frame in range(40, 149):
        sequence.image[frame].load()
    grown = process.memory_info().rss - settled
    # All frames read in between would be 100 MB.
    assert grown < 20e6


def test_a_sequence_travels_to_another_process(clip):
    sequence = open_sequence(clip)
    again = pickle.loads(pickle.dumps(sequence))
    np.testing.assert_array_equal(again.image[7].values, sequence.image[7].values)


@pytest.mark.parametrize("content", [b"", b"text, not a video\n" * 50, bytes(range(256)) * 8])
def test_what_is_no_video_is_refused(tmp_path, content):
    path = tmp_path / "clip.mp4"
    path.write_bytes(content)
    with pytest.raises(UnreadableFile, match=r"clip\.mp4 is not a video.*folder of images"):
        open_sequence(path)


def test_a_recording_without_pictures_is_refused(tmp_path):
    path = tmp_path / "sound.wav"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("pcm_s16le", rate=8000)
        stream.layout = "mono"
        sound = av.AudioFrame.from_ndarray(np.zeros((1, 800), "i2"), format="s16", layout="mono")
        sound.rate = 8000
        container.mux(stream.encode(sound))
        container.mux(stream.encode(None))
    with pytest.raises(UnreadableFile, match="holds audio"):
        open_sequence(path)


@pytest.mark.parametrize(("suffix", "name"), [("avi", b"FMP4"), ("mkv", b"4/ISO/ASP")])
def test_a_stream_that_no_decoder_reads_is_refused(tmp_path, suffix, name):
    path = write_video(tmp_path / f"clip.{suffix}", codec="mpeg4")
    path.write_bytes(path.read_bytes().replace(name, b"Z" * len(name)))
    with pytest.raises(UnreadableFile, match="no decoder here"):
        open_sequence(path)


@pytest.mark.parametrize("suffix", ["mp4", "mkv", "avi"])
def test_a_title_in_any_encoding_is_no_hindrance(tmp_path, suffix):
    path = write_video(tmp_path / f"clip.{suffix}", codec="mpeg4", title="Fu\u00dfball")
    path.write_bytes(path.read_bytes().replace("\u00df".encode(), b"\xdfs"))
    assert open_sequence(path).sizes["frame"] == COUNT


def test_a_truncated_video_gives_its_whole_frames_or_is_refused(tmp_path, clip):
    cut = tmp_path / "cut.mp4"
    cut.write_bytes(clip.read_bytes()[:-400])
    with pytest.raises(UnreadableFile, match=r"cut\.mp4 is not a video"):
        open_sequence(cut)
    whole = write_video(tmp_path / "whole.ts")
    cut = tmp_path / "cut.ts"
    cut.write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
    sequence = open_sequence(cut)
    assert 1 <= sequence.sizes["frame"] < COUNT
    np.testing.assert_array_equal(sequence.image[0].values, decode_all(whole)[0])


def test_a_frame_that_cannot_be_decoded_is_named(tmp_path, clip, monkeypatch):
    sequence = open_sequence(clip)

    def broken(self, index):
        raise av.error.InvalidDataError(1, "damaged")

    monkeypatch.setattr(video.Video, "_find", broken)
    with pytest.raises(UnreadableFile, match=r"frame 4 of .*clip\.mp4.*damaged.*stop=4"):
        sequence.image[4].load()


def test_a_video_that_changes_its_size_names_the_frame(tmp_path):
    small = write_video(tmp_path / "small.ts", count=10)
    large = write_video(tmp_path / "large.ts", count=10, size=(96, 64))
    # Transport streams may be joined end to end; shifted times keep the frames apart.
    with av.open(str(tmp_path / "both.ts"), "w") as joined:
        stream = None
        for part, delay in ((small, 0), (large, 90_000)):
            with av.open(str(part)) as container:
                stream = stream or joined.add_stream_from_template(container.streams.video[0])
                for packet in container.demux(video=0):
                    if packet.size:
                        packet.pts, packet.dts = packet.pts + delay, packet.dts + delay
                        packet.stream = stream
                        joined.mux(packet)
    sequence = open_sequence(tmp_path / "both.ts")
    assert sequence.image[9].values.shape == (48, 64, 3)
    with pytest.raises(UnreadableFile, match=r"frame 10 .* 96 x 64 .*stop=10"):
        sequence.image[10].load()


def test_a_range_behind_the_end_is_refused(clip):
    with pytest.raises(InvalidArgument, match="has 40 frames"):
        open_sequence(clip, start=40)


def test_a_single_image_is_not_taken_for_a_video(tmp_path):
    Image.new("RGB", (32, 32)).save(tmp_path / "frame.png")
    with pytest.raises(InvalidArgument, match="single image; give its folder"):
        open_sequence(tmp_path / "frame.png")
