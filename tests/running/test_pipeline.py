"""Frames are read and written in other threads: in order, once, never far off, faults in turn."""

import threading
import time

import numpy as np
import pytest

import mut3r_analysis as m3
from mut3r_analysis.running.pipeline import AHEAD, BEHIND, read_ahead, write_behind
from mut3r_analysis.sequences.frames import lazy_frames

NOISE = np.random.default_rng(0).integers(0, 256, (6, 48, 64, 3), np.uint8)


def test_frames_come_in_order_and_none_is_held_but_those_that_are_next() -> None:
    read: list[int] = []

    def source():
        for index in range(10):
            read.append(index)
            yield index

    with read_ahead(source()) as frames:
        for turn, frame in enumerate(frames):
            assert frame == turn
            time.sleep(0.01)
            assert len(read) <= turn + 1 + AHEAD
    assert read == list(range(10))


def test_a_frame_that_cannot_be_read_is_told_after_those_before_it() -> None:
    def source():
        yield from range(3)
        raise OSError("the disk is gone")

    done = []

    def take_all() -> None:
        with read_ahead(source()) as frames:
            for frame in frames:
                done.append(frame)

    with pytest.raises(OSError, match="the disk is gone"):
        take_all()
    assert done == [0, 1, 2]


def test_the_thread_ends_with_the_block() -> None:
    before = threading.active_count()
    with read_ahead(iter(range(1000))) as frames:
        next(frames)
        assert threading.active_count() == before + 1
    assert threading.active_count() == before


def test_frames_are_written_in_order_and_few_wait() -> None:
    written: list[int] = []

    def write(frame: int) -> None:
        time.sleep(0.005)
        written.append(frame)

    before = threading.active_count()
    with write_behind(write) as hand_over:
        for frame in range(12):
            hand_over(frame)
            assert len(written) >= frame + 1 - BEHIND
    assert written == list(range(12))
    assert threading.active_count() == before


def test_a_frame_that_cannot_be_written_is_told_and_none_is_written_after_it() -> None:
    written: list[int] = []
    handed: list[int] = []

    def write(frame: int) -> None:
        if frame == 3:
            raise OSError("the disk is full")
        written.append(frame)

    def hand_all_over() -> None:
        with write_behind(write) as hand_over:
            for frame in range(100):
                hand_over(frame)
                handed.append(frame)

    with pytest.raises(OSError, match="the disk is full"):
        hand_all_over()
    assert written == [0, 1, 2]
    assert len(handed) <= 3 + 1 + BEHIND


def test_what_was_handed_over_before_an_interrupt_is_written() -> None:
    written: list[int] = []

    def write(frame: int) -> None:
        time.sleep(0.02)
        written.append(frame)

    def be_interrupted() -> None:
        with write_behind(write) as hand_over:
            hand_over(0)
            hand_over(1)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        be_interrupted()
    assert written == [0, 1]


class FailingFrames:
    """Frames of which one cannot be read."""

    shape = (6, 48, 64, 3)

    def read(self, position):
        if position == 4:
            raise OSError("the disk is gone")
        return NOISE[position]


def test_what_was_done_before_a_frame_that_cannot_be_read_is_kept(tmp_path) -> None:
    sequence = m3.open_sequence(NOISE)
    sequence["image"].variable.data = lazy_frames(FailingFrames())
    model = m3.load_backbone("random:small")
    with pytest.raises(OSError, match="the disk is gone"):
        m3.run(model, sequence, outputs=("pose",), progress=False, out=tmp_path / "run.zarr")
    with pytest.warns(UserWarning, match="4 of 6 frames"):
        kept = m3.open_run(tmp_path / "run.zarr")
    whole = m3.run(model, m3.open_sequence(NOISE), outputs=("pose",), progress=False)
    np.testing.assert_array_equal(kept["prediction/pose"], whole["prediction/pose"][:4])
