"""What each token of a stream is: its role, and its place on a lattice."""

from typing import NamedTuple

import numpy as np

ROLES = ("pose", "patch", "state")


class Tokens(NamedTuple):
    """Index into :data:`ROLES`, row and column ``(token,)`` each; the pose token is at -1."""

    role: np.ndarray
    row: np.ndarray
    column: np.ndarray


def token_layout(stream: str, grid: tuple[int, int], state_size: int, state_width: int) -> Tokens:
    """Lay out the tokens of a stream.

    Parameters
    ----------
    stream : {"image", "patches", "state"}
    grid : (int, int)
        Rows and columns of patches.
    state_size, state_width : int
        State tokens, and the columns of the lattice on which they sit.
    """
    if stream == "state":
        index = np.arange(state_size)
        role = np.full(state_size, ROLES.index("state"))
        return Tokens(role.astype(np.int8), index // state_width, index % state_width)
    row, column = (axis.ravel() for axis in np.indices(grid))
    role = np.full(row.size, ROLES.index("patch"))
    if stream == "image":
        role = np.concatenate([[ROLES.index("pose")], role])
        row, column = (np.concatenate([[-1], axis]) for axis in (row, column))
    return Tokens(role.astype(np.int8), row, column)
