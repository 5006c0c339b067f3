"""The errors this package raises on purpose.

Each inherits :class:`Mut3rError` and the built-in exception a caller would expect, so that both
``except Mut3rError`` and ``except ValueError`` work. A message says what was given, what is
allowed, and what to do next.
"""


class Mut3rError(Exception):
    """Base of every error raised on purpose by this package."""


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
