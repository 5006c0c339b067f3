"""Names of sequences in a data set: ``ROOT#sequence?option=value&option=value``."""

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path

from mut3r_analysis.errors import InvalidArgument, MissingFile
from mut3r_analysis.foundation.fields import one_of
from mut3r_analysis.foundation.paths import user_path

LISTED = 30
"""Names a message lists at most."""


@dataclass(frozen=True)
class Location:
    """Where a sequence is, and how it is wanted.

    Attributes
    ----------
    layout : str
        Name of the layout, the prefix.
    root : Path
        Folder of the data set, absolute.
    sequence : str
        Name after ``#``; empty where none was given.
    options : tuple of (str, str)
        What followed ``?``.
    """

    layout: str
    root: Path
    sequence: str
    options: tuple[tuple[str, str], ...]

    def choices(self, allowed: Mapping[str, tuple[str, ...]]) -> dict[str, str]:
        """Return the options that were given, checked against those allowed.

        Options that list no values take any.

        Raises
        ------
        InvalidArgument
            An option that is not in `allowed`, or a value that is not listed there.
        """
        for name, value in self.options:
            one_of(f"{self.layout}: option", name, allowed)
            one_of(f"{self.layout}: {name}", value, allowed[name] or (value,))
        return dict(self.options)

    def choose(self, sequences: Iterable[str], short: str) -> str:
        """Return the one sequence meant among those found, where `short` is its short name.

        Raises
        ------
        MissingFile
            No such sequence; the message lists what is there.
        InvalidArgument
            None was named and there is not exactly one.
        """
        found = sorted(sequences)
        if short in found:
            return short
        if not found:
            raise MissingFile(
                f"{self.root} holds no sequence in the layout of {self.layout}; "
                f"'mut3r datasets check {self.root}' says what is there"
            )
        if not self.sequence and len(found) == 1:
            return found[0]
        more = f" and {len(found) - LISTED} more" if len(found) > LISTED else ""
        listed = ", ".join(found[:LISTED]) + more
        if not self.sequence:
            raise InvalidArgument(
                f"{self.root} holds {len(found)} sequences; name one, as in "
                f"'{self.layout}:{self.root}#{found[0]}': {listed}"
            )
        near = get_close_matches(self.sequence, found, n=1, cutoff=0.5)
        hint = f"did you mean {near[0]!r}? " if near else ""
        raise MissingFile(
            f"{self.root} has no sequence {self.sequence!r}; {hint}There are {listed}"
        )


def parse_location(layout: str, text: str) -> Location:
    """Split ``ROOT#sequence?option=value``; the last ``#`` counts.

    Raises
    ------
    InvalidArgument
        No root, or an option that is not ``name=value``.
    MissingFile
        The root does not exist.
    """
    root, mark, rest = text.rpartition("#")
    if not mark:
        root, rest = text, ""
        # Without a name, options follow the root itself.
        if "?" in text and not os.path.exists(user_path(text)):
            root, rest = text.split("?", 1)[0], "?" + text.split("?", 1)[1]
    sequence, _, query = rest.partition("?")
    if not root:
        raise InvalidArgument(
            f"{layout}:{text} names no folder; write {layout}:/path/to/{layout}#sequence"
        )
    options: list[tuple[str, str]] = []
    for part in filter(None, query.split("&")):
        name, equals, value = part.partition("=")
        if not equals or not name or not value:
            raise InvalidArgument(f"{layout}:{text}: {part!r} is no option; write ?name=value")
        if name in dict(options):
            raise InvalidArgument(f"{layout}:{text}: {name} is given twice")
        options.append((name, value))
    folder = user_path(root).absolute()
    if not os.path.isdir(folder):
        raise MissingFile(
            f"{folder} is not a folder; write {layout}:FOLDER#SEQUENCE with the folder of the "
            "data set"
        )
    return Location(layout, folder, sequence, tuple(options))
