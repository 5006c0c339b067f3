"""What a folder holds of a data set, and which protocols can be run on it."""

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mut3r_analysis.errors import InvalidArgument, MissingFile, Mut3rError
from mut3r_analysis.foundation.fields import meant
from mut3r_analysis.foundation.paths import user_path
from mut3r_analysis.metrics.catalogue import PROTOCOLS
from mut3r_analysis.metrics.protocols import FLOW_FRAMES, TASKS, Protocol
from mut3r_analysis.sequences.layouts.catalogue import canonical_sequence, find_layout, recognise
from mut3r_analysis.sequences.layouts.formats import check_file, depth_png_problem
from mut3r_analysis.sequences.layouts.layout import Layout

_SHOWN = 4


@dataclass(frozen=True)
class SequenceReport:
    """What there is of one sequence.

    Attributes
    ----------
    name : str
        Short name.
    files : tuple of str
        Image file of each frame, in order.
    frames : dict
        Variable to the frames (0-based) whose file is there and, as far as its header tells, whole.
    problems : tuple of str
        Damage: the sequence cannot be opened, or not read to its end.
    notes : tuple of str
        What is left out, and what makes a metric skip the sequence.
    """

    name: str
    files: tuple[str, ...]
    frames: dict[str, tuple[int, ...]]
    problems: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class ProtocolReport:
    """Whether one frame list of the literature can be run.

    Attributes
    ----------
    ids : tuple of str
        Protocols that share it.
    satisfied : bool
        Every sequence, and every frame of it with all that the task needs, is there.
    sequences, expected_sequences : int
        Complete sequences, and how many the protocol has; 0 where it takes what it finds.
    frames, expected_frames : int
        Usable frames, and how many the protocol has; 0 where it depends on the data.
    missing : tuple of str
        Sequences that are not there.
    incomplete : dict
        Sequence to what its frames lack, in words.
    frame_lists : dict
        Sequence to the image files of its frames, in order.
    """

    ids: tuple[str, ...]
    satisfied: bool
    sequences: int
    expected_sequences: int
    frames: int
    expected_frames: int
    missing: tuple[str, ...]
    incomplete: dict[str, str]
    frame_lists: dict[str, tuple[str, ...]]

    @property
    def name(self) -> str:
        """Id of its first protocol, without the alignment where its protocols differ in that."""
        alignments = {id.rsplit(":", 1)[1] for id in self.ids}
        return self.ids[0] if len(alignments) == 1 else self.ids[0].rsplit(":", 1)[0]


@dataclass(frozen=True)
class DatasetReport:
    """What a folder holds of a data set; prints as text, `to_dict` gives plain values."""

    layout: str
    path: str
    sequences: tuple[SequenceReport, ...]
    protocols: tuple[ProtocolReport, ...]
    obtain: dict[str, str]

    @property
    def satisfied(self) -> tuple[str, ...]:
        """Ids of the protocols that can be run."""
        return tuple(id for group in self.protocols if group.satisfied for id in group.ids)

    @property
    def problems(self) -> tuple[str, ...]:
        """Damage, of all sequences."""
        return tuple(f"{s.name}: {text}" for s in self.sequences for text in s.problems)

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, ready for JSON."""
        return json.loads(json.dumps(asdict(self)))

    def __str__(self) -> str:
        return "\n".join(_lines(self))


def check_dataset(
    path: str | Path, layout: str | None = None, *, protocol: str | None = None
) -> DatasetReport:
    """Look through the folder of a data set, without decoding images.

    Every file a frame needs must exist, and must have the header, length and bit depth of its
    kind. Poses are read.

    Parameters
    ----------
    path
        Folder of the data set (`ROOT`), or of one of its sequences.
    layout
        Which data set; by default the one that is recognised.
    protocol
        Check only the protocols whose id begins so.

    Raises
    ------
    MissingFile
        No folder, or nothing of this data set in it.
    InvalidArgument
        Several data sets in one folder, or a protocol that does not exist for this one.

    Examples
    --------
    >>> name = m3.export_sequence(sequence, "data", layout="sintel")
    >>> report = check_dataset("data")
    >>> report.layout, [each.name for each in report.sequences], report.problems
    ('sintel', ['orbit-03'], ())
    """
    root = user_path(path).absolute()
    chosen = find_layout(layout) if layout else recognise(root)
    found = chosen.find(root)
    if not found:
        raise MissingFile(f"{root} holds nothing of {chosen.name}; looked for {chosen.looks_like}")
    groups = _groups(chosen.name, protocol)
    sequences = tuple(_survey(chosen, folder, name) for name, folder in sorted(found.items()))
    reports = tuple(_judge(group, sequences) for group in groups)
    return DatasetReport(chosen.name, str(root), sequences, reports, chosen.obtain)


def _groups(dataset: str, prefix: str | None) -> list[list[Protocol]]:
    """Group protocols that use the same frames for the same task."""
    groups: dict[tuple, list[Protocol]] = {}
    for each in PROTOCOLS.values():
        if each.dataset == dataset and each.id.startswith(prefix or ""):
            key = (each.task, each.sequences, each.frames, each.expected_sequences)
            groups.setdefault(key, []).append(each)
    if prefix and not groups:
        known = [each.id for each in PROTOCOLS.values() if each.dataset == dataset]
        raise InvalidArgument(
            f"no protocol of {dataset} begins with {prefix!r}{meant([prefix], known)}; there are "
            f"{', '.join(known)}"
        )
    return list(groups.values())


def _survey(layout: Layout, folder: Path, name: str) -> SequenceReport:
    """Check the files of one sequence."""
    try:
        files = layout.list_files(folder, name, layout.defaults())
    except Mut3rError as error:
        return SequenceReport(name, (), {}, (str(error),))
    problems, notes = files.gaps(), list(files.left_out)
    held = {"image": files.images, **files.truth}
    checked: dict[Path, str | None] = {}
    for variable, each in held.items():
        for file in filter(None, dict.fromkeys(each)):
            if file not in checked and file.is_file():
                checked[file] = _damage(variable, file)
    damaged = {file: problem for file, problem in checked.items() if problem}
    problems += list(damaged.values())[:_SHOWN]
    if len(damaged) > _SHOWN:
        problems.append(f"{len(damaged) - _SHOWN} more files like these")
    frames = {
        variable: tuple(
            index for index, file in enumerate(each) if file in checked and file not in damaged
        )
        for variable, each in held.items()
    }
    frames |= dict.fromkeys(layout.constants, tuple(range(len(files.images))))
    posed = files.truth.get("pose", ())
    if layout.poses and posed and not damaged.keys() & set(posed):
        try:
            poses = layout.poses(files)
            notes += [] if poses is None else _pose_notes(poses)
        except Mut3rError as error:
            problems.append(str(error))
    images = tuple(file.name for file in files.images)
    return SequenceReport(name, images, frames, tuple(problems), tuple(notes))


def _damage(variable: str, file: Path) -> str | None:
    """Say what is wrong with a file, from its header and length."""
    try:
        check_file(file)
        return depth_png_problem(file) if variable == "depth" and file.suffix == ".png" else None
    except Mut3rError as error:
        return str(error)


def _pose_notes(poses: NDArray[np.float64]) -> list[str]:
    """Say what keeps a camera path from being scored."""
    finite = np.isfinite(poses).all(axis=(1, 2))
    notes = []
    if not finite.all():
        notes.append(
            f"{np.count_nonzero(~finite)} of {len(poses)} poses are not known; the released pose "
            "protocols skip such a sequence"
        )
    centres = poses[finite, :3, 3]
    if len(centres) and np.ptp(centres, axis=0).max() == 0:
        notes.append("the true camera rests: no scale can be fitted, pose metrics skip it")
    return notes


def _judge(group: list[Protocol], sequences: tuple[SequenceReport, ...]) -> ProtocolReport:
    """Compare what there is with the frame list that a group of protocols shares."""
    one = group[0]
    by_name = {canonical_sequence(one.dataset, each.name): each for each in sequences}
    wanted = one.sequences or tuple(by_name)
    incomplete, frame_lists, usable = {}, {}, 0
    for name in wanted:
        if name in by_name:
            frame_lists[name], count, lack = _frames(one, by_name[name])
            usable += count
            if lack:
                incomplete[name] = lack
    missing = tuple(name for name in wanted if name not in by_name)
    complete = len(wanted) - len(missing) - len(incomplete)
    satisfied = (
        complete == len(wanted)
        and complete >= (one.expected_sequences or 1)
        and usable >= (one.expected_frames or 0)
    )
    return ProtocolReport(
        tuple(each.id for each in group), satisfied, complete, one.expected_sequences or 0,
        usable, one.expected_frames or 0, missing, incomplete, frame_lists,
    )  # fmt: skip


def _frames(protocol: Protocol, report: SequenceReport) -> tuple[tuple[str, ...], int, str]:
    """Frame list of a sequence, how many of it are usable, and what it lacks in words."""
    counted = range(len(report.files))
    if protocol.frames.among == FLOW_FRAMES:
        counted = counted[:-1]
    chosen = [counted[i] for i in protocol.frames.indices(len(counted))]
    lacks = []
    usable = set(chosen)
    for variable in ("image", *TASKS[protocol.task].truth):
        there = set(report.frames.get(variable, ()))
        absent = [frame for frame in chosen if frame not in there]
        usable &= there
        if absent and len(absent) == len(chosen):
            lacks.append(f"no {variable}")
        elif absent:
            first = ", ".join(report.files[frame] for frame in absent[:_SHOWN])
            lacks.append(f"no {variable} at {len(absent)} of {len(chosen)} frames ({first}, ...)")
    length = protocol.length_of(report.name)
    if not chosen:
        lacks.append(f"none of its {len(report.files)} frames is on the list")
    elif length and len(chosen) < length:
        lacks.append(f"only {len(chosen)} of {length} frames")
    if report.problems and not lacks:
        lacks.append("damaged files, named above")
    return tuple(report.files[frame] for frame in chosen), len(usable), "; ".join(lacks)


def _lines(report: DatasetReport) -> Iterator[str]:
    """Lay the report out as text."""
    count = len(report.sequences)
    yield f"{report.layout} in {report.path}: {count} sequence{'s' * (count != 1)}"
    width = max(len(each.name) for each in report.sequences)
    for each in report.sequences:
        held = [
            variable if len(frames) == len(each.files) else f"{variable} ({len(frames)})"
            for variable, frames in each.frames.items()
        ]
        yield f"  {each.name:<{width}}  {len(each.files):>5} frames  {', '.join(held)}"
        yield from (f"  {'':<{width}}  damaged: {text}" for text in each.problems)
        yield from (f"  {'':<{width}}  note: {text}" for text in each.notes)
    yield "protocols"
    first_with: dict[tuple[str, ...], str] = {}
    for group in report.protocols:
        mark = "yes" if group.satisfied else "no "
        shared = f" ({len(group.ids)} protocols)" if len(group.ids) > 1 else ""
        of_sequences = f" of {group.expected_sequences}" if group.expected_sequences else ""
        of_frames = f" of {group.expected_frames}" if group.expected_frames else ""
        yield (
            f"  {mark}  {group.name}{shared}: complete sequences {group.sequences}{of_sequences}, "
            f"usable frames {group.frames}{of_frames}"
        )
        first = first_with.setdefault(group.missing, group.name)
        if group.missing:
            same = f"as for {first}"
            yield f"       missing: {_listed(group.missing) if first == group.name else same}"
        lacking: dict[str, list[str]] = {}
        for name, lack in group.incomplete.items():
            lacking.setdefault(lack, []).append(name)
        yield from (f"       {_listed(names)}: {lack}" for lack, names in lacking.items())
    if any(not group.satisfied for group in report.protocols):
        yield "where to get the rest"
        yield from (f"  {part:<12} {where}" for part, where in report.obtain.items())


def _listed(names: list[str] | tuple[str, ...]) -> str:
    more = f" and {len(names) - 8} more" if len(names) > 8 else ""
    return ", ".join(names[:8]) + more
