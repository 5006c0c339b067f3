"""Paths as people write them."""

import errno
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
        For what no path can be: one with a null character, or longer than the system takes.
    """
    if "\0" in str(path):
        raise InvalidArgument(f"a path cannot hold a null character; got {shown(str(path))}")
    found = Path(os.path.expanduser(path))
    try:
        os.lstat(found)
    except OSError as error:
        if error.errno == errno.ENAMETOOLONG:
            raise InvalidArgument(
                f"a path is too long for this system: {shown(str(path))}"
            ) from None
    return found
