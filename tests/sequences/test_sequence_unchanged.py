"""Files that are changed after a sequence was opened are not read as its frames."""

import os
import pickle
import shutil

import numpy as np
import pytest
from PIL import Image

import mut3r_analysis as m3
from mut3r_analysis.errors import UnreadableFile

REPLACED = "was changed or replaced after the sequence was opened"


def picture(value):
    return Image.fromarray(np.full((16, 24, 3), value, np.uint8))


@pytest.fixture
def folder(tmp_path):
    for position in range(3):
        picture(50 * position).save(tmp_path / f"{position}.png")
    return tmp_path


def test_an_image_of_the_same_size_in_the_place_of_another_is_noticed(folder):
    opened = m3.open_sequence(folder)
    picture(49).save(folder / "1.png")
    assert opened["image"][0].max() == 0
    with pytest.raises(UnreadableFile, match=REPLACED):
        opened["image"][1].load()
    assert m3.open_sequence(folder)["image"][1].max() == 49


def test_what_was_only_touched_or_written_anew_is_the_same(folder):
    opened = m3.open_sequence(folder)
    content = (folder / "1.png").read_bytes()
    (folder / "1.png").unlink()
    (folder / "1.png").write_bytes(content)
    assert opened["image"][1].max() == 50


def test_an_animation_that_was_replaced_is_noticed(tmp_path):
    file = tmp_path / "clip.gif"
    pictures = [picture(value) for value in (10, 90, 170)]
    pictures[0].save(file, save_all=True, append_images=pictures[1:])
    opened = m3.open_sequence(file)
    pictures = pictures[::-1]
    pictures[0].save(file, save_all=True, append_images=pictures[1:])
    with pytest.raises(UnreadableFile, match=REPLACED):
        opened["image"][1].load()


@pytest.fixture
def video(tmp_path):
    import av

    file = tmp_path / "clip.mp4"
    with av.open(str(file), "w") as container:
        stream = container.add_stream("mpeg4", rate=10)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for value in range(0, 200, 20):
            pixels = np.full((48, 64, 3), value, np.uint8)
            for packet in stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")):
                container.mux(packet)
        for packet in stream.encode():
            container.mux(packet)
    return file


def test_a_video_that_was_written_to_is_noticed_and_one_that_was_touched_is_not(video):
    opened = m3.open_sequence(video)
    os.utime(video, (1, 1))
    assert opened["image"][3].shape == (48, 64, 3)
    content = bytearray(video.read_bytes())
    content[len(content) // 2] ^= 1
    video.write_bytes(content)
    with pytest.raises(UnreadableFile, match=REPLACED):
        opened["image"][4].load()


def test_a_video_that_was_copied_to_another_machine_is_the_same(video):
    opened = m3.open_sequence(video)
    sent = pickle.loads(pickle.dumps(opened["image"]))
    copied = video.with_name("copy.mp4")
    shutil.copy(video, copied)
    copied.replace(video)
    np.testing.assert_array_equal(sent[3], opened["image"][3])


def test_truth_that_was_replaced_is_noticed(tmp_path):
    scene = m3.open_sequence("scenes/orbit-03", stop=3)
    m3.export_sequence(scene, tmp_path, layout="sintel")
    opened = m3.open_sequence(f"sintel:{tmp_path}#orbit-03")
    planes = sorted(tmp_path.rglob("*.dpt"))
    planes[1].write_bytes(planes[2].read_bytes())
    assert opened["depth"][0].notnull().any()
    with pytest.raises(UnreadableFile, match=REPLACED):
        opened["depth"][1].load()
