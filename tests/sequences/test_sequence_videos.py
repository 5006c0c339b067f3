"""A video file streams, seeks and closes as one lazy sequence."""

import gc
import os
import pickle

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


def write_video(path, count=COUNT, codec="libx264", size=(64, 48), form=None, rotation=None):
    """Frames of one gray level each, level 5 x index, with a bright top left corner."""
    width, height = size
    with av.open(str(path), "w", format=form) as container:
        stream = container.add_stream(codec, rate=RATE)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        stream.codec_context.gop_size = GOP
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
