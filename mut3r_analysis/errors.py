"""The errors this package raises on purpose.

Each inherits :class:`Mut3rError` and the built-in exception a caller would expect, so that both
``except Mut3rError`` and ``except ValueError`` work. A message says what was given, what is
allowed, and what to do next.
"""

import re

_LONGEST_WORD = 400
_LONGEST = 40_000


class Mut3rError(Exception):
    """Base of every error raised on purpose by this package."""

    def __str__(self) -> str:
        """Return the message; names as long as a page are cut, and any name can be printed."""
        text = super().__str__().encode("utf-8", "backslashreplace").decode()
        return _shortened(re.sub(rf"\S{{{_LONGEST_WORD},}}", _cut, text), _LONGEST)


def _cut(word: re.Match[str]) -> str:
    return _shortened(word[0], _LONGEST_WORD)


def _shortened(text: str, longest: int) -> str:
    if len(text) <= longest:
        return text
    part = longest // 3
    return f"{text[:part]} ... {len(text) - 2 * part} characters ... {text[-part:]}"


class InvalidArgument(Mut3rError, ValueError):
    """An argument or a specification that cannot mean anything."""


class UnreadableFile(Mut3rError, OSError):
    """A file that exists but cannot be read as what it claims to be."""


class MissingFile(Mut3rError, FileNotFoundError):
    """A path that does not exist."""


class AlreadyExists(Mut3rError, FileExistsError):
    """An output path that already holds something; nothing was overwritten."""


class CheckpointError(Mut3rError, ValueError):
    """A checkpoint that is unsafe, incomplete, or does not fit the model it describes."""


class BudgetExceeded(Mut3rError, ValueError):
    """A capture that would store more bytes than its declared budget; nothing was run."""


class StoreError(Mut3rError, OSError):
    """A run's store that could not be created, written or understood."""
