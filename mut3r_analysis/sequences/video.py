"""A video file as a source of frames: streamed where frames follow each other, sought elsewhere."""

import re
import warnings
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
from mut3r_analysis.sequences.images import replaced, state_of

_HASHED_AT_ONCE = 1 << 20
DECODED_AT_OPENING = 3000
"""Videos of up to so many frames are decoded once to count them; of longer ones packets count."""

# Demuxers of text and of lists of other files, which are no videos themselves.
_NO_VIDEOS = {"concat", "dash", "hls", "image2", "tty"}
_TILT = 0.01
_SQUARE = 0.005


class Timeline(NamedTuple):
    """Every frame of a video in the order of presentation.

    `times` are in units of `time_base`, `keyframes` are indices into them. In a `counted` timeline
    the times are the frames' numbers, because the file's own times are missing or out of order;
    its frames can only be reached from the start. `lost` says in words which frames of the file
    are not among them, because they cannot be decoded.
    """

    times: np.ndarray
    keyframes: np.ndarray
    time_base: Fraction
    counted: bool = False
    lost: str = ""


class Orientation(NamedTuple):
    """How stored pixels are shown: rows as columns first, then backwards (-1) or not (1)."""

    turned: bool
    across: int
    down: int


class _Packet(NamedTuple):
    time: Any
    is_keyframe: bool
    hidden: bool


class Video:
    """Selected frames of a video file; a frame source.

    Reading frames in order decodes each once. Reading elsewhere seeks to the keyframe before the
    wanted frame and decodes from there. The file stays open between reads, until the last selected
    frame has been read or :meth:`close` is called. Reads from several threads take turns.
    """

    def __init__(
        self,
        path: Path,
        timeline: Timeline,
        indices: np.ndarray,
        digest: str,
        opened_as: tuple[int, ...] | None,
    ) -> None:
        self.path = path
        self.timeline = timeline
        self.indices = indices
        self.sha256 = digest
        self.opened_as = opened_as
        self.orientation: Orientation | None = None
        self._begin()
        height, width, _ = self._decode(0).shape
        self.shape = (len(indices), height, width, 3)
        self.notes = self._aspect(height, width)
        if timeline.lost:
            self.notes["left_out"] = timeline.lost
            warnings.warn(f"{path}: {timeline.lost}", stacklevel=5)

    def _aspect(self, height: int, width: int) -> dict[str, str]:
        """Say how frames are shown where their pixels are not square; they stay as stored."""
        with _open_container(self.path) as container:
            ratio = Fraction(_video_stream(container, self.path).sample_aspect_ratio or 1)
        if self.orientation is not None and self.orientation.turned:
            ratio = 1 / ratio
        if abs(ratio - 1) < _SQUARE:
            return {}
        shown = f"{round(width * ratio)} x {height} px"
        warnings.warn(
            f"{self.path}: its pixels are not square, their aspect ratio is {ratio}: frames of "
            f"{width} x {height} px are shown as {shown}; they are kept as stored, so resize the "
            "video first where angles and shapes matter",
            stacklevel=6,
        )
        return {"pixel_aspect_ratio": str(ratio), "shown_size": shown}

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
            If the frame cannot be decoded, the video changes its size there, or the file is no
            longer what was opened.
        """
        self._check_contents()
        pixels = self._decode(position)
        if pixels.shape != self.shape[1:]:
            index = int(self.indices[position])
            raise UnreadableFile(
                f"frame {index} of {self.path} is {pixels.shape[1]} x {pixels.shape[0]} pixels, "
                f"unlike the {self.shape[2]} x {self.shape[1]} of the first one; frames of one "
                f"sequence must share one size: stop before it with stop={index}"
            )
        return pixels

    def _check_contents(self) -> None:
        """Refuse a file that was changed; one that was only copied or touched is the same."""
        now = state_of(self.path)
        if now is not None and now != self.opened_as:
            if _digest(self.path, self.indices) != self.sha256:
                raise UnreadableFile(replaced(self.path))
            self.opened_as = now

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
        if self.orientation is None:
            # Once: whoever asks a frame for its side data keeps it alive for a while.
            self.orientation = _orientation(frame)
        pixels = pixels.swapaxes(0, 1) if self.orientation.turned else pixels
        return np.ascontiguousarray(pixels[:: self.orientation.down, :: self.orientation.across])

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
        self._decoded = _decode_whole(self._container, stream)
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
    opened_as = state_of(path)
    timeline = _index(path)
    indices = selection.indices(len(timeline.times), f"video {path}")
    return Video(path, timeline, indices, _digest(path, indices), opened_as)


def _digest(path: Path, indices: np.ndarray) -> str:
    """Return a digest of a file and of the frames taken of it."""
    digest = sha256(f"{indices.tolist()}\n".encode())
    with path.open("rb") as file:
        while part := file.read(_HASHED_AT_ONCE):
            digest.update(part)
    return digest.hexdigest()


def _index(path: Path) -> Timeline:
    """Index the frames that decode: by decoding the video or, if it is long, by its packets."""
    try:
        with _open_container(path) as container:
            stream = _video_stream(container, path)
            time_base, rate = stream.time_base, stream.average_rate or Fraction(25)
            packets = [
                _Packet(packet.pts, bool(packet.is_keyframe), _is_hidden(packet))
                for packet in _demux(container, stream)
                if packet.size
            ]
            missing = _missing(container, stream, packets, rate)
            # AVI knows the order of decoding only; the times of its packets are guesses.
            form = container.format.name
            timed = form != "avi" and all(packet.time is not None for packet in packets)
        packets = [packet for packet in packets if not packet.hidden]
        frames = _decodable(path, only_first=timed and len(packets) > DECODED_AT_OPENING)
        if timed and frames and len(packets) > DECODED_AT_OPENING:
            frames = sorted(packet[:2] for packet in packets if packet.time >= frames[0][0])
    except av.error.FFmpegError as error:
        raise UnreadableFile(_not_a_video(path, str(error))) from error
    if not frames:
        raise UnreadableFile(_not_a_video(path, "it holds no frame that can be decoded"))
    total, lost = missing + len(packets), ""
    if total > len(frames) and timed:
        # A decoder that lost its references gives some frames late, out of their place.
        latest = np.maximum.accumulate([time for time, _ in frames])
        on_time = np.append(True, np.diff(latest) > 0)
        frames = [frame for frame, kept in zip(frames, on_time, strict=True) if kept]
    times = [time for time, _ in frames]
    if total > len(frames):
        leading = sum(packet.time < times[0] for packet in packets) if timed else 0
        if timed and form == "mpegts":
            total = max(total, leading + len(frames) + _holes(times))
        lost = (
            f"{total - len(frames)} of {total} frames are damaged or lost, {leading} of them "
            "before the first that can be decoded; frames are counted without them, and the "
            "coordinate time says where they are missing"
        )
    if None in times or (np.diff(times) <= 0).any():
        return Timeline(np.arange(len(frames)), np.array([0]), 1 / rate, True, lost)
    keyframes = np.flatnonzero([key for _, key in frames])
    return Timeline(np.array(times), keyframes, time_base, lost=lost)


def _holes(times: list[int]) -> int:
    """Count the frames that a stream of fixed rate, once damaged, has no packets of."""
    steps = np.diff(times)
    return int((np.rint(steps / max(np.median(steps), 1)) - 1).clip(0).sum()) if len(steps) else 0


def _missing(container: Any, stream: Any, packets: list[_Packet], rate: Fraction) -> int:
    """Count the frames that a container announces and has no packets of."""
    if stream.frames:
        return max(0, stream.frames - len(packets))
    end = stream.metadata.get("DURATION")
    if container.format.name != "matroska,webm" or not (end or container.duration):
        return 0
    told = re.fullmatch(r"(\d+):(\d+):([\d.]+)", end or "")
    if told:
        announced = 3600 * int(told[1]) + 60 * int(told[2]) + float(told[3])
    else:
        alone = not end and len(container.streams) == 1
        announced = container.duration / av.time_base if alone else 0.0
    last = max((packet.time for packet in packets if packet.time is not None), default=0)
    lacking = round((announced - float(last * stream.time_base)) * float(rate)) - 1
    # The length of the last frame is not known that well.
    return lacking if lacking > 1 else 0


def _decodable(path: Path, only_first: bool) -> list[tuple[Any, bool]]:
    """Decode a video from its start: time and kind of each frame that comes."""
    found = []
    with _open_container(path) as container:
        stream = _video_stream(container, path)
        stream.thread_type = "AUTO"
        for frame in _decode_whole(container, stream):
            found.append((frame.pts, bool(frame.key_frame)))
            if only_first:
                break
    return found


def _is_hidden(packet: Any) -> bool:
    """Whether no frame is to come of a packet: cut off by an edit, or a reference of VP8 only."""
    vp8 = packet.stream.codec_context.name == "vp8"
    return bool(packet.is_discard) or (vp8 and not bytes(packet)[0] & 0x10)


def _demux(container: Any, stream: Any) -> Iterator[Any]:
    """Take the packets of a stream, as far as a damaged container gives any."""
    try:
        yield from container.demux(stream)
    except av.error.FFmpegError:
        return


def _decode_whole(container: Any, stream: Any) -> Iterator[Any]:
    """Decode the frames that can be, passing over packets that cannot."""
    for packet in _demux(container, stream):
        try:
            yield from packet.decode()
        except av.error.FFmpegError:
            continue


def _orientation(frame: Any) -> Orientation:
    """Read the display matrix of a frame; a turn that is no right angle is left undone."""
    held = frame.side_data.get("DISPLAYMATRIX")
    if held is None:
        return Orientation(False, 1, 1)
    # Fixed-point numbers: the pixel at (x, y) is shown at (a x + c y, b x + d y).
    a, b, _, c, d = (int(value) for value in np.frombuffer(bytes(held), np.int32)[:5])
    turned = abs(a) + abs(d) < abs(b) + abs(c)
    across, down = (c, b) if turned else (a, d)
    if max(map(abs, (a, d) if turned else (b, c))) > _TILT * min(abs(across), abs(down)):
        return Orientation(False, 1, 1)
    return Orientation(turned, 1 if across > 0 else -1, 1 if down > 0 else -1)


def _open_container(path: Path) -> Any:
    try:
        # Titles and comments may be in any encoding.
        container = av.open(str(path), metadata_errors="replace")
    except av.error.FFmpegError as error:
        raise UnreadableFile(_not_a_video(path, str(error))) from error
    kind = container.format.name
    if kind in _NO_VIDEOS:
        container.close()
        raise UnreadableFile(_not_a_video(path, f"it is text or a list of files ({kind})"))
    return container


def _video_stream(container: Any, path: Path) -> Any:
    """First video stream that is not cover art."""
    art = av.stream.Disposition.attached_pic
    for stream in container.streams.video:
        if stream.disposition & art:
            continue
        if stream.codec_context is None:
            raise UnreadableFile(_not_a_video(path, "no decoder here reads its video stream"))
        return stream
    held = ", ".join(sorted({stream.type for stream in container.streams})) or "no streams"
    raise UnreadableFile(_not_a_video(path, f"it holds {held}"))


def _not_a_video(path: Path, reason: str) -> str:
    return (
        f"{path} is not a video that can be read: {reason}. Give a video file (.mp4, .mkv, .mov, "
        ".webm, ...) or a folder of images"
    )
