"""What a sweep runs on, described so that any process can open it: backbones and sequences."""

import glob
import os
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from fnmatch import fnmatch
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
import xarray as xr

from mut3r_analysis.backbones.in_memory import as_in_memory
from mut3r_analysis.backbones.loading import load_backbone
from mut3r_analysis.backbones.preparation import Preparation
from mut3r_analysis.backbones.protocol import Backbone
from mut3r_analysis.errors import InvalidArgument
from mut3r_analysis.foundation.paths import user_path
from mut3r_analysis.metrics.protocols import TASKS, Protocol
from mut3r_analysis.running.inputs import frames_of, prepared
from mut3r_analysis.scenes import scene_names
from mut3r_analysis.sequences import open_sequence
from mut3r_analysis.sequences.frames import Selection
from mut3r_analysis.sequences.layouts.catalogue import find_layout
from mut3r_analysis.sequences.opening import take
from mut3r_analysis.sequences.prefixes import split_prefix

Openable = str | Path | xr.Dataset
Sequences = Openable | Iterable[Openable]


@dataclass(frozen=True)
class BackboneSource:
    """A backbone as a description, and here also as the object.

    Attributes
    ----------
    spec : str
        For `load_backbone`.
    update, precision : str
    dtype : torch.dtype
    preparation : Preparation
    sha256 : str
        Of the weights, which must be the same wherever they are loaded.
    loaded : Backbone, optional
        Not sent to other processes.
    """

    spec: str
    update: str
    precision: str
    dtype: torch.dtype
    preparation: Preparation
    sha256: str
    loaded: Backbone | None = field(default=None, compare=False, repr=False)

    @classmethod
    def of(
        cls,
        given: Any,
        protocol: Protocol | None = None,
        preparation: str | Preparation | None = None,
    ) -> "BackboneSource":
        """Describe a loaded backbone, or load and describe what `load_backbone` takes.

        It prepares frames as a protocol or a `preparation` says, else in its own way.
        """
        model = as_in_memory(given) if isinstance(given, Backbone) else load_backbone(given)
        model = prepared(model, protocol, preparation)
        name = model.origin.name
        return cls(
            spec=os.path.abspath(name) if Path(name).is_file() else name,
            update=model.update,
            precision=model.precision.name,
            dtype=model.dtype,
            preparation=model.preparation,
            sha256=model.origin.sha256,
            loaded=model,
        )

    def identity(self) -> dict[str, Any]:
        """Everything about the backbone that determines a run."""
        return {
            "sha256": self.sha256,
            "update": self.update,
            "precision": self.precision,
            "dtype": str(self.dtype),
            "preparation": self.preparation.to_dict(),
        }

    def open(self, device: str | None = None) -> Backbone:
        """Return the backbone, loading it where this process does not have it.

        Raises
        ------
        InvalidArgument
            When what is loaded here is not what the sweep was declared with.
        """
        if self.loaded is not None:
            return self.loaded
        model = load_backbone(
            self.spec,
            update=self.update,
            device=device,
            dtype=self.dtype,
            precision=self.precision,
            preparation=self.preparation,
        )
        if model.origin.sha256 != self.sha256:
            raise InvalidArgument(
                f"the weights of {self.spec!r} are {model.origin.sha256[:12]} here and were "
                f"{self.sha256[:12]} when the sweep was declared; give a file that every worker "
                "sees and that does not change meanwhile"
            )
        return model

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "loaded": None}


@dataclass(frozen=True)
class SequenceSource:
    """A sequence as a description, and here also as the Dataset.

    Attributes
    ----------
    source : str, optional
        For `open_sequence`; None for a Dataset that only this process has.
    selection : Selection
        Frames taken.
    name, sha256 : str
    frames : int
    opened : Dataset, optional
        Not sent to other processes.
    """

    source: str | None
    selection: Selection
    name: str
    sha256: str
    frames: int
    opened: xr.Dataset | None = field(default=None, compare=False, repr=False)

    @classmethod
    def of(
        cls, given: Openable, selection: Selection, protocol: Protocol | None = None
    ) -> "SequenceSource":
        """Open and describe what `open_sequence` takes, with the frames of a protocol."""
        source = None
        if isinstance(given, str | Path):
            source = os.path.abspath(given) if Path(given).exists() else str(given)
        opened = open_sequence(given if source is None else source, **asdict(selection))
        if protocol is not None:
            taken = _selected(protocol, opened, selection)
            if taken != selection:
                selection = taken
                again = source if source is not None else given
                whole = source is not None and opened.attrs["kind"] == protocol.dataset
                opened = take(opened, taken) if whole else open_sequence(again, **asdict(taken))
        # A Dataset may have been changed since it was opened, so its contents say what it is. Its
        # runs name it as it names itself, or it could not be laid beside them.
        kept = opened
        if isinstance(given, xr.Dataset) and selection == Selection() and "sha256" in given.attrs:
            kept = given
        return cls(
            source=source,
            selection=selection,
            name=str(opened.attrs["name"]),
            sha256=str(opened.attrs["sha256"]),
            frames=opened.sizes["frame"],
            opened=kept,
        )

    @cached_property
    def layout(self) -> tuple[Any, ...]:
        """Sizes and variables, on which the cost of a run depends."""
        sequence = self.open()
        return tuple(sequence.sizes.items()), tuple(sequence.data_vars)

    def open(self) -> xr.Dataset:
        """Return the sequence, opening it where this process does not have it.

        Raises
        ------
        InvalidArgument
            When its contents are not what the sweep was declared with.
        """
        if self.opened is not None:
            return self.opened
        assert self.source is not None  # a unit is checked before it is sent anywhere
        opened = open_sequence(self.source, **asdict(self.selection))
        if opened.attrs["sha256"] != self.sha256:
            raise InvalidArgument(
                f"the frames of {self.source!r} are not those the sweep was declared with; "
                "start it again, so that what changed is run again"
            )
        return opened

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "opened": None}


def _selected(protocol: Protocol, opened: xr.Dataset, selection: Selection) -> Selection:
    """Return which frames of a sequence, opened with a selection, a protocol scores."""
    positions = frames_of(protocol, opened)
    name = str(opened.attrs["name"])
    if protocol.sequences and not protocol.select([name])[0]:
        raise InvalidArgument(
            f"{name!r} is not among the sequences of {protocol.id}: {', '.join(protocol.sequences)}"
        )
    lacking = [each for each in TASKS[protocol.task].truth if each not in opened]
    if lacking:
        raise InvalidArgument(
            f"{name!r} has no {', '.join(lacking)}, which {protocol.id} is scored against; give "
            "the data set where its ground truth lies"
        )
    if len(positions) == opened.sizes["frame"]:
        return selection
    step = int(positions[1] - positions[0]) if len(positions) > 1 else protocol.frames.step
    return Selection(int(positions[0]), int(positions[-1]) + 1, step)


def backbone_sources(
    given: Any,
    protocol: Protocol | None = None,
    preparation: str | Preparation | None = None,
) -> dict[str, BackboneSource]:
    """Describe one backbone (labelled ``""``) or a mapping of labels to several.

    Raises
    ------
    InvalidArgument
        For an empty mapping.
    """
    if not isinstance(given, Mapping):
        return {"": BackboneSource.of(given, protocol, preparation)}
    if not given:
        raise InvalidArgument("backbone = {} names no backbone; give {label: spec, ...}")
    return {
        str(label): BackboneSource.of(value, protocol, preparation)
        for label, value in given.items()
    }


def sequence_sources(
    given: Sequences, frames: str = "::", protocol: Protocol | None = None
) -> list[SequenceSource]:
    """Describe the sequences of a sweep.

    Parameters
    ----------
    given : str, Path, Dataset, or several of them
        Patterns with ``*`` stand for all that they match: names of bundled scenes, and paths.
    frames : str
        ``START:STOP:STRIDE``, for every sequence.
    protocol : Protocol, optional
        Whose frames are taken, and of what a pattern matches whose sequences.

    Raises
    ------
    InvalidArgument
        For no sequence, two of one name, a range of frames that is none, and what the protocol
        does not score.
    """
    selection = Selection.parse(frames)
    if protocol is not None and protocol.dataset != "any" and selection != Selection():
        raise InvalidArgument(f"{protocol.id} says which frames are used; give it or frames=")
    several = [given] if isinstance(given, str | Path | xr.Dataset) else given
    listed = [item for each in several for item in _spelled_out(each, protocol)]
    if not listed:
        raise InvalidArgument(f"no sequences in {given!r}")
    found = [SequenceSource.of(item, selection, protocol) for item in listed]
    names = [item.name for item in found]
    repeated = sorted({name for name in names if names.count(name) > 1})
    if repeated:
        raise InvalidArgument(
            f"several sequences are called {', '.join(repeated)}; open them with "
            "open_sequence(..., name=...) so that results can be told apart"
        )
    return found


def _spelled_out(item: Openable, protocol: Protocol | None) -> Iterable[Openable]:
    if not isinstance(item, str | Path) or not glob.has_magic(str(item)):
        return [item]
    text = str(user_path(item))
    # A folder may be called "clip [1]".
    if os.path.exists(text):
        return [item]
    found = sorted(glob.glob(text))
    if not found and (prefixed := split_prefix(text)):
        root, _, pattern = prefixed.rest.partition("#")
        if prefixed.prefix == "scenes":
            names, pattern, start = scene_names(), root, "scenes/"
        else:
            layout = find_layout(prefixed.prefix)
            names, start = sorted(layout.find(Path(root))), f"{prefixed.prefix}:{root}#"
            if protocol is not None and protocol.dataset == prefixed.prefix:
                names = list(protocol.select(names)[0])
        literal = [name for name in names if name == pattern]
        found = [start + name for name in literal or names if literal or fnmatch(name, pattern)]
    if not found:
        raise InvalidArgument(f"nothing matches {text!r}")
    return list(found)
