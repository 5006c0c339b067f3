"""A video file as a source of frames: streamed where frames follow each other, sought elsewhere."""

from collections.abc import Iterator
from fractions import Fraction
from hashlib import sha256
from pathlib import Path
from threading import Lock
from typing import Any, NamedTuple

import av
import numpy as np

from mut3r_analysis.errors import UnreadableFile
from mut3r_analysis.sequences.frames import Selection

_HASHED_AT_ONCE = 1 << 20


class Timeline(NamedTuple):
    """Every frame of a video in the order of presentation.

    `times` are in units of `time_base`, `keyframes` are indices into them. In a `counted` timeline
    the times are the frames' numbers, because the file's own times are missing or out of order;
    its frames can only be reached from the start.
    """

    times: np.ndarray
    keyframes: np.ndarray
    time_base: Fraction
    counted: bool = False


class Video:
    """Selected frames of a video file; a frame source.

    Reading frames in order decodes each once. Reading elsewhere seeks to the keyframe before the
    wanted frame and decodes from there. The file stays open between reads, until the last selected
    frame has been read or :meth:`close` is called. Reads from several threads take turns.
    """

    def __init__(self, path: Path, timeline: Timeline, indices: np.ndarray, digest: str) -> None:
        self.path = path
        self.timeline = timeline
        self.indices = indices
        self.sha256 = digest
        self._begin()
        height, width, _ = self._decode(0).shape
        self.shape = (len(indices), height, width, 3)

    def _begin(self) -> None:
        self._lock = Lock()
        self._container: Any = None
        self._decoded: Iterator[Any] = iter(())
        self._next = 0

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name[0] != "_"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._begin()

    @property
    def seconds(self) -> np.ndarray:
        """Time of each selected frame since the first one of the video, (frame,)."""
        elapsed = self.timeline.times[self.indices] - self.timeline.times[0]
        return elapsed * float(self.timeline.time_base)

    def read(self, position: int) -> np.ndarray:
        """Decode one frame, uint8 (y, x, rgb), turned upright as the file says.

        Raises
        ------
        UnreadableFile
            If the frame cannot be decoded, or the video changes its size there.
        """
        pixels = self._decode(position)
        if pixels.shape != self.shape[1:]:
            index = int(self.indices[position])
            raise UnreadableFile(
                f"frame {index} of {self.path} is {pixels.shape[1]} x {pixels.shape[0]} pixels, "
                f"unlike the {self.shape[2]} x {self.shape[1]} of the first one; frames of one "
                f"sequence must share one size: stop before it with stop={index}"
            )
        return pixels

    def _decode(self, position: int) -> np.ndarray:
        index = int(self.indices[position])
        with self._lock:
            try:
                frame = self._find(index)
                pixels = frame.to_ndarray(format="rgb24")
            except (av.error.FFmpegError, StopIteration) as error:
                self._close()
                reason = "the stream ends before it" if isinstance(error, StopIteration) else error
                raise UnreadableFile(
                    f"frame {index} of {self.path} cannot be decoded: {reason}. Stop before it "
                    f"with stop={index}, begin after it with start={index + 1}, or repair the file"
                ) from error
            if position == len(self.indices) - 1:
                self._close()
        return np.ascontiguousarray(np.rot90(pixels, frame.rotation // 90))

    def close(self) -> None:
        """Close the file; a later read opens it again."""
        with self._lock:
            self._close()

    def _close(self) -> None:
        if self._container is not None:
            self._container.close()
        self._container, self._decoded, self._next = None, iter(()), 0

    def _find(self, index: int) -> Any:
        """Decode the frame at an index of the timeline; StopIteration if it does not come."""
        keyframes = self.timeline.keyframes[self.timeline.keyframes <= index]
        # Decoding on from here is best unless a keyframe lies between here and there.
        if self._container is not None and max(keyframes, default=0) <= self._next <= index:
            frame = self._advance(index)
            if frame is not None:
                return frame
        # Containers index by decoding time, so a seek may land behind the wanted frame; then the
        # next earlier keyframe is tried, and the start of the file at last.
        for start in (*map(int, keyframes[:0:-1][:2]), None):
            self._start_at(start)
            frame = self._advance(index)
            if frame is not None:
                return frame
        raise StopIteration

    def _start_at(self, keyframe: int | None) -> None:
        """Decode from a keyframe on, or from the very start of the file."""
        if keyframe is None:
            self._close()
        if self._container is None:
            self._container = _open_container(self.path)
            _video_stream(self._container, self.path).thread_type = "AUTO"
        stream = _video_stream(self._container, self.path)
        if keyframe is not None:
            self._container.seek(int(self.timeline.times[keyframe]), stream=stream)
        self._decoded = self._container.decode(stream)
        self._next = keyframe or 0

    def _advance(self, index: int) -> Any | None:
        """Decode up to a frame; None if it does not come."""
        wanted = self.timeline.times[index]
        for frame in self._decoded:
            time = self._next if self.timeline.counted else frame.pts
            if time is not None:
                self._next = int(np.searchsorted(self.timeline.times, time, side="right"))
                if time >= wanted:
                    return frame if time == wanted else None
        return None


def open_video(path: Path, selection: Selection) -> Video:
    """Index the frames of a video file, hash its contents and decode the first selected frame.

    Raises
    ------
    InvalidArgument
        If the selection holds no frame.
    UnreadableFile
        If the file is not a video, or its first selected frame cannot be decoded.
    """
    timeline = _index(path)
    indices = selection.indices(len(timeline.times), f"video {path}")
    digest = sha256(f"{indices.tolist()}\n".encode())
    with path.open("rb") as file:
        while part := file.read(_HASHED_AT_ONCE):
            digest.update(part)
    return Video(path, timeline, indices, digest.hexdigest())


def _index(path: Path) -> Timeline:
    """Index frames by their packets where these tell, else by decoding the video once."""
    try:
        with _open_container(path) as container:
            stream = _video_stream(container, path)
            time_base, rate = stream.time_base, stream.average_rate
            frames = [
                (packet.pts, packet.is_keyframe)
                for packet in container.demux(stream)
                if packet.size and not packet.is_discard
            ]
            # AVI knows the order of decoding only; the times of its packets are guesses.
            telling = container.format.name != "avi" and all(time is not None for time, _ in frames)
        if telling:
            frames.sort()
        else:
            with _open_container(path) as container:
                stream = _video_stream(container, path)
                frames = [(frame.pts, frame.key_frame) for frame in container.decode(stream)]
    except av.error.FFmpegError as error:
        raise UnreadableFile(_not_a_video(path, str(error))) from error
    if not frames:
        raise UnreadableFile(_not_a_video(path, "it holds no frame"))
    times = [time for time, _ in frames]
    if None in times or (np.diff(times) <= 0).any():
        return Timeline(np.arange(len(frames)), np.array([0]), 1 / (rate or Fraction(25)), True)
    return Timeline(np.array(times), np.flatnonzero([key for _, key in frames]), time_base)


def _open_container(path: Path) -> Any:
    try:
        return av.open(str(path))
    except av.error.FFmpegError as error:
        raise UnreadableFile(_not_a_video(path, str(error))) from error


def _video_stream(container: Any, path: Path) -> Any:
    """First video stream that is not cover art."""
    art = av.stream.Disposition.attached_pic
    for stream in container.streams.video:
        if not stream.disposition & art:
            return stream
    held = ", ".join(sorted({stream.type for stream in container.streams})) or "no streams"
    raise UnreadableFile(_not_a_video(path, f"it holds {held}"))


def _not_a_video(path: Path, reason: str) -> str:
    return (
        f"{path} is not a video that can be read: {reason}. Give a video file (.mp4, .mkv, .mov, "
        ".webm, ...) or a folder of images"
    )
