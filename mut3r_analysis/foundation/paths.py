"""Paths as people write them."""

import os
from pathlib import Path

from mut3r_analysis.errors import InvalidArgument
from mut3r_analysis.foundation.fields import shown


def user_path(path: str | Path) -> Path:
    """Return a path with the home folder in the place of ``~``.

    A user's name that does not exist stays as it is: a folder may be called so.

    Raises
    ------
    InvalidArgument
        For a null character, which no path can hold.
    """
    if "\0" in str(path):
        raise InvalidArgument(f"a path cannot hold a null character; got {shown(str(path))}")
    return Path(os.path.expanduser(path))
