"""Protocols: everything that has to be the same for two numbers to be comparable.

A `Protocol` is data. It names sequences, frames, preparation, alignment, validity, clipping,
metrics and reduction, and says where each of them was read; scoring code takes its parameters from
it, and every stored score carries its `id`.
"""

import hashlib
import json
import textwrap
from collections import ChainMap
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

from mut3r_analysis.errors import InvalidArgument
from mut3r_analysis.foundation.fields import (
    Checked,
    flag,
    instance_of,
    made_of,
    number,
    one_of,
    optional,
    some_of,
    whole,
)
from mut3r_analysis.foundation.specification import Specification
from mut3r_analysis.metrics.alignment import ALIGNMENTS
from mut3r_analysis.metrics.choices import ALIGN_KINDS, CLOUD_ALIGNMENTS, TRACK_ALIGNMENTS
from mut3r_analysis.metrics.depth import DEPTH_METRICS
from mut3r_analysis.metrics.metric import Metric
from mut3r_analysis.metrics.multiview import CENTRE, MULTIVIEW_METRICS
from mut3r_analysis.metrics.reconstruction import RECONSTRUCTION_METRICS
from mut3r_analysis.metrics.reductions import REDUCTIONS
from mut3r_analysis.metrics.segmentation import MASK_METRICS
from mut3r_analysis.metrics.temporal import TEMPORAL_METRICS
from mut3r_analysis.metrics.tracks import TRACK_METRICS
from mut3r_analysis.metrics.trajectory import POSE_METRICS
from mut3r_analysis.sequences.layouts.catalogue import LAYOUTS, WITHOUT_LAYOUT, canonical_sequence

FLOW_FRAMES = "frames with optical flow"
"""All frames but the last, which has no flow to a next one."""


class Task(NamedTuple):
    """What a task allows: alignments, metrics, the truth every frame must have, and predictions."""

    alignments: tuple[str, ...]
    metrics: dict[str, Metric]
    truth: tuple[str, ...]
    outputs: tuple[str, ...]


TASKS = {
    "video-depth": Task(ALIGNMENTS, DEPTH_METRICS, ("depth",), ("depth",)),
    "mono-depth": Task(ALIGNMENTS, DEPTH_METRICS, ("depth",), ("depth",)),
    "pose": Task(ALIGN_KINDS, POSE_METRICS, ("pose",), ("pose",)),
    "reconstruction": Task(
        ALIGN_KINDS, RECONSTRUCTION_METRICS, ("depth", "pose", "intrinsics"), ("pose", "depth")
    ),
    "multiview": Task(
        CLOUD_ALIGNMENTS, MULTIVIEW_METRICS, ("depth", "pose", "intrinsics"), ("points_world",)
    ),
    "temporal-depth": Task(
        ALIGNMENTS, TEMPORAL_METRICS, ("depth", "pose", "intrinsics"), ("pose", "depth")
    ),
    "tracks": Task(
        TRACK_ALIGNMENTS, TRACK_METRICS, ("depth", "pose", "intrinsics"), ("pose", "points_world")
    ),
    "motion": Task(("none",), MASK_METRICS, ("motion_mask",), ()),
}

DEPTH_TASKS = ("video-depth", "mono-depth", "temporal-depth")

METRICS: Mapping[str, Metric] = ChainMap(*(task.metrics for task in TASKS.values()))
"""Every metric, by name: its label, units, direction and pooling."""


_ALIGNMENTS = {
    "metric": "metric",
    "scale_irls": "L1 scale",
    "scale_lad": "exact L1 scale",
    "scale_median": "median scale",
    "scale_shift_adam": "scale and shift by Adam",
    "scale_shift_lad": "L1 scale and shift",
    "scale_shift_lstsq": "scale and shift",
    "sim3": "Sim3",
    "se3": "rigid",
    "sim3_points": "Sim3 of points",
    "median_icp": "medians, then ICP",
    "none": "not aligned",
}
UNALIGNED = ("rpe_rotation",)
"""The same under every alignment."""


def find_metric(name: str) -> Metric:
    """Return the row of a metric, or raise `InvalidArgument`.

    Examples
    --------
    >>> find_metric("abs_rel").higher_is_better
    False
    """
    return METRICS[one_of("metric", name, METRICS)]


def measure_label(metric: str, align: str) -> str:
    """Name a metric with the alignment that it was scored under, such as ``"ATE (Sim3)"``."""
    label = "depth " * (metric in DEPTH_METRICS) + find_metric(metric).label
    label += "" if metric in UNALIGNED else f" ({_ALIGNMENTS[align]})"
    return label + ", higher is better" * find_metric(metric).higher_is_better


def frame_metric(frames: str) -> Metric:
    """Return a metric to which frames contribute ``frame_<frames>``, or raise `InvalidArgument`."""
    for row in METRICS.values():
        if frames and row.frames == frames:
            return row
    raise InvalidArgument(f"frames contribute no {frames!r} to any metric")


PREPARATIONS = {
    "resize": "{size}, then both sides resized to multiples of 16",
    "crop": "{size}, then both sides cropped at the centre to multiples of 16",
    "window": "long edge to 512, then the {input_size} x {input_size} px in the middle",
    "cover": "sides even, brought just to cover a square of {input_size} px, its middle",
    "given": "as the run was made",
}
OFFICIAL_INPUT = {"size": 512, "patch": 16}
"""Long edge and patch edge, px, behind published numbers but those of models of 224 px."""
_SQUARE_INPUT = 224

_UNSAID = ("", "images", "video", "array", "dataset")
"""Kinds of sequences that may be of any data set."""

ON_FAILURE = {"report": "skipped, named, and left out of the average", "raise": "an error"}

_Count = Checked[int | None, int | None]
_count = optional(partial(whole, low=1))
_Metres = Checked[float | None, float | None]
_metres = optional(partial(number, low=0, open_high=True))
_Text = Checked[str, str]
_text = partial(instance_of, kind=str)
_Names = Checked[Iterable[str], tuple[str, ...]]
_Lengths = Checked[Iterable[int], tuple[int, ...]]


def _lengths(field: str, given: Any) -> tuple[int, ...]:
    return tuple(whole(field, count, 1) for count in given)


def _names(field: str, given: Any) -> tuple[str, ...]:
    several = isinstance(given, Iterable) and not isinstance(given, str)
    names = tuple(given) if several else (None,)
    if not all(isinstance(name, str) for name in names):
        raise InvalidArgument(f"{field} must be several names, got {given!r}")
    return names


@dataclass(frozen=True)
class FrameSelection:
    """Which frames of a sequence are used.

    Attributes
    ----------
    among : str
        The list that is counted, in words: all frames, or those with ground truth.
    start : int
        First one, 0-based.
    step : int
        Every how many.
    limit : int or None
        At most this many after stepping; None for no bound.
    whole_steps : bool
        Whether a last frame with fewer than `step` frames from it to the end is left out.
    fewest : int or None
        Where `step` would leave fewer frames than this, it is the available frames divided by it.
    """

    among: str = "all frames"
    start: Checked[int, int] = Checked(partial(whole, low=0), 0)
    step: Checked[int, int] = Checked(partial(whole, low=1), 1)
    limit: _Count = Checked(_count, None)
    whole_steps: Checked[bool, bool] = Checked(flag, False)
    fewest: _Count = Checked(_count, None)

    def indices(self, available: int) -> range:
        """Return the positions used when `available` frames are on disk."""
        stop, step = available, self.step
        if self.fewest is not None:
            step = max(min(step, available // self.fewest), 1)
        if self.whole_steps:
            stop -= (available - self.start) % step
        if self.limit is not None:
            stop = min(stop, self.start + step * (self.limit - 1) + 1)
        return range(self.start, max(stop, self.start), step)

    def describe(self) -> str:
        """Return the selection in words."""
        words = [self.among]
        if self.start:
            words.append(f"from number {self.start} (0-based)")
        if self.step > 1:
            words.append(f"every {self.step}" + (", whole steps" if self.whole_steps else ""))
        if self.fewest is not None:
            words.append(f"closer where that leaves fewer than {self.fewest}")
        if self.limit is not None:
            words.append(f"at most {self.limit}")
        return ", ".join(words)


def _frames(field: str, given: Any) -> FrameSelection:
    return made_of(field, FrameSelection, given)


@dataclass(frozen=True)
class Protocol(Specification):
    """One way to compute numbers, complete and comparable.

    Parameters
    ----------
    id : str
        Name in the catalogue, ``task:sequences:alignment or reduction``.
    task : str
        ``"video-depth"``, ``"mono-depth"``, ``"temporal-depth"``, ``"pose"``,
        ``"reconstruction"``, ``"multiview"``, ``"tracks"`` or ``"motion"``.
    dataset : str
        Prefix of the sequences' names, as in ``open_sequence("sintel:...")``; ``"any"`` for those
        that are given.
    sequences : tuple of str
        Names in their short form (`canonical_sequence`); empty for every sequence found.
    frames : FrameSelection
        Frames of each sequence.
    preparation : str
        ``"resize"``, ``"crop"``, ``"window"``, ``"cover"`` or ``"given"``: how images become the
        network's input.
    align : str
        Alignment of the prediction, one fit per sequence, in ``"mono-depth"`` per frame.
    reduction : str
        How sequences are averaged: ``"valid-pixels"``, ``"sequence-mean"`` or ``"frame-pooled"``.
    metrics : tuple of str
        What is computed.
    source : str
        Where the rules were read.
    maximum : float or None
        True depths from here on do not count, metres.
    clip : float or None
        Aligned depth predictions are cut to at most this, metres.
    rpe_delta : int or None
        Frames between the poses of a relative error.
    input_size : int
        Size of the preparation: 512, or 224 for models whose input is a square of that edge.
    voxel : float or None
        Clouds are thinned to one point per cube of this edge, metres; None compares every point.
    expected_sequences, expected_frames : int or None
        How many a complete data set has.
    lengths : tuple of int
        Frames used of each of `sequences`, where the data set fixes them and `frames` does not.
    on_failure : str
        ``"report"`` or ``"raise"``: what happens to a sequence without a defined value.
    released : str
        How the released script is told to compute the same.
    note : str
        What a reader of the number should know.

    Raises
    ------
    InvalidArgument
        When it cannot mean anything; the message says what is allowed.
    """

    id: _Text = Checked(_text)
    task: _Text = Checked(partial(one_of, known=TASKS))
    dataset: _Text = Checked(_text)
    sequences: _Names = Checked(_names)
    frames: Checked[Any, FrameSelection] = Checked(_frames)
    preparation: _Text = Checked(partial(one_of, known=PREPARATIONS))
    align: _Text = Checked(_text)
    reduction: _Text = Checked(partial(one_of, known=REDUCTIONS))
    metrics: _Names = Checked(_names)
    source: _Text = Checked(_text)
    maximum: _Metres = Checked(_metres, None)
    clip: _Metres = Checked(_metres, None)
    rpe_delta: _Count = Checked(_count, None)
    voxel: _Metres = Checked(_metres, None)
    input_size: Checked[int, int] = Checked(
        partial(one_of, known=(OFFICIAL_INPUT["size"], _SQUARE_INPUT)), OFFICIAL_INPUT["size"]
    )
    expected_sequences: _Count = Checked(_count, None)
    expected_frames: _Count = Checked(_count, None)
    lengths: _Lengths = Checked(_lengths, ())
    on_failure: _Text = Checked(partial(one_of, known=ON_FAILURE), "report")
    released: _Text = Checked(_text, "")
    note: _Text = Checked(_text, "")

    def __post_init__(self) -> None:
        alignments, metrics, *_ = TASKS[self.task]
        one_of(f"{self.id}: dataset", self.dataset, (*LAYOUTS, *WITHOUT_LAYOUT))
        one_of(f"{self.id}: align", self.align, alignments)
        some_of(f"{self.id}: metrics", self.metrics, metrics)
        if len(set(self.sequences)) != len(self.sequences):
            raise InvalidArgument(f"{self.id}: a sequence is listed twice")
        if self.lengths and len(self.lengths) != len(self.sequences):
            raise InvalidArgument(f"{self.id}: lengths must be one number for each of sequences")
        of_depth = self.task in DEPTH_TASKS
        if not of_depth and (self.maximum, self.clip) != (None, None):
            raise InvalidArgument(f"{self.id}: maximum and clip belong to depth")
        if (self.task == "pose") != (self.rpe_delta is not None):
            raise InvalidArgument(f"{self.id}: rpe_delta belongs to pose, and pose needs it")
        if self.voxel is not None and self.task != "multiview":
            raise InvalidArgument(f"{self.id}: voxel belongs to multiview")
        if 0 in (self.maximum, self.clip, self.voxel):
            raise InvalidArgument(f"{self.id}: maximum, clip and voxel are above 0 m, or None")

    def __str__(self) -> str:
        return self.describe()

    def select(self, names: Iterable[str]) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """Split into the given names this protocol scores, in its order, and those it misses.

        Names may be in the long form of the data set's folders or in the short one.
        """
        short = {canonical_sequence(self.dataset, name): name for name in names}
        if not self.sequences:
            return tuple(short.values()), ()
        found = tuple(short[name] for name in self.sequences if name in short)
        return found, tuple(name for name in self.sequences if name not in short)

    def length_of(self, sequence: str) -> int | None:
        """Frames that the protocol uses of a complete sequence; None where that is not known."""
        short = canonical_sequence(self.dataset, sequence)
        if self.lengths:
            known = dict(zip(self.sequences, self.lengths, strict=True))
            return known.get(short)
        return self.frames.limit if self.expected_frames else None

    def is_of_another(self, kind: str) -> bool:
        """Whether a sequence of this kind is known to be of another data set."""
        return "any" != self.dataset != kind and kind not in _UNSAID

    def other_input(self, fields: Mapping[str, Any]) -> str:
        """Say where a preparation differs in size or patch; empty where it does not.

        `fields` are those of a :class:`Preparation`; what is None is not known.
        """
        if self.preparation == "given":
            return ""
        other = {k: fields[k] for k, v in self.input.items() if fields.get(k) not in (v, None)}
        return ", ".join(f"{name}={value}" for name, value in other.items())

    @property
    def input(self) -> dict[str, int]:
        """Size and patch of the preparation, px."""
        return OFFICIAL_INPUT | {"size": self.input_size}

    @property
    def input_words(self) -> str:
        """Size and patch of the preparation, said aloud."""
        square = self.input_size == _SQUARE_INPUT
        return (
            f"{'a square' if square else 'a long edge'} of {self.input_size} px and patches of "
            f"{self.input['patch']} px"
        )

    @property
    def digest(self) -> str:
        """Short hash of what can change a number: not of names, words, or what data hold."""
        words = ("id", "source", "note", "released", "lengths")
        content = {k: v for k, v in self.to_dict().items() if k not in words}
        text = json.dumps(content, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:12]

    def describe(self) -> str:
        """Return a card, in words, of how a number under this protocol was computed."""
        sequences = ", ".join(self.sequences) or "every sequence that is given or found"
        count = f" ({self.expected_sequences})" if self.expected_sequences else ""
        fitted = "frame" if self.task == "mono-depth" else "sequence"
        frames = self.frames.describe()
        if self.expected_frames:
            frames += f"; {self.expected_frames} in all"
        rows = {
            "task": f"{self.task} on {self.dataset}",
            "sequences": sequences + count,
            "frames": frames,
            "input": f"{self.preparation}: {self._prepared()}",
            "alignment": "none" if self.align == "none" else f"{self.align}, one fit per {fitted}",
            "counted": self._counted(),
            "metrics": ", ".join(self.metrics),
            "average": REDUCTIONS[self.reduction].words,
            "failures": f"a sequence without a defined value is {ON_FAILURE[self.on_failure]}",
            "source": self.source,
            "released": self.released,
            "note": self.note,
            "digest": self.digest,
        }
        wrapped = [
            textwrap.fill(f"{name:<11}{text}", width=96, subsequent_indent=" " * 11)
            for name, text in rows.items()
            if text
        ]
        return "\n".join([self.id, *wrapped])

    def _prepared(self) -> str:
        square = self.input_size == _SQUARE_INPUT
        size = "short side to 224, a square" if square else f"long edge to {self.input_size}"
        return PREPARATIONS[self.preparation].format(size=size, input_size=self.input_size)

    def _counted(self) -> str:
        if self.task in DEPTH_TASKS:
            upper = "" if self.maximum is None else f" and below {self.maximum:g} m"
            clip = "" if self.clip is None else f"; aligned prediction cut at {self.clip:g} m"
            landing = ", also where they land in the next frame"
            seen = landing if self.task == "temporal-depth" else ""
            return f"pixels with true depth above 0{upper}{seen}{clip}"
        if self.task == "pose":
            apart = f"{self.rpe_delta} frame{'s' * (self.rpe_delta != 1)} apart"
            return f"all poses; relative errors over all pairs {apart}"
        if self.task == "reconstruction":
            return "pixels with true depth above 0, all frames of a scene together"
        if self.task == "multiview":
            thinned = "" if self.voxel is None else f", one point per {self.voxel:g} m cube"
            return (
                f"the middle {CENTRE} x {CENTRE} px of every frame where true depth is above 0, "
                f"all frames of a scene together{thinned}"
            )
        if self.task == "tracks":
            return (
                "pixels of two frames that are known to show the same point, whose true depth is "
                "above 0 in both; means over pairs of frames"
            )
        return "all pixels, all moving objects merged into one foreground"
