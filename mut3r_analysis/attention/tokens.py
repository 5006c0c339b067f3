"""Token axes: what each token along one side of an attention site is."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

ROLES = ("pose", "patch", "state", "pointer", "slot", "summary", "camera", "register", "cached",
         "partner", "class", "token")  # fmt: skip
"""What a token can be; stores keep the names beside the numbers."""


@dataclass(frozen=True, eq=False)
class TokenAxis:
    """The tokens of one stream in one frame.

    Attributes
    ----------
    role : ndarray
        ``(token,)`` index into `ROLES`. Only patches carry a motion score; all other tokens
        are never gated.
    row, column : ndarray
        ``(token,)`` place on a lattice; special tokens are at -1.
    place : str
        The lattice that rows and columns count on.
    frame : ndarray, optional
        ``(token,)`` position of the frame that a cached token comes from; None where all tokens
        belong to the frame at hand.
    grows : str, optional
        Name of the dimension along which a memory grows. The arrays then hold as many tokens as
        there can be. ``"key_frame"`` is a dimension of its own, one place per frame that tokens
        come from: the arrays hold the tokens of one such frame, or where `frame` says it, those
        that are there.
    slot : ndarray, optional
        ``(token,)`` place of a cached token among those of its frame.
    slots : int
        How many tokens each frame has, where they come from several.
    """

    role: np.ndarray
    row: np.ndarray
    column: np.ndarray
    place: str = "patch grid"
    frame: np.ndarray | None = None
    grows: str | None = None
    slot: np.ndarray | None = None
    slots: int = 0

    def __len__(self) -> int:
        return len(self.role)

    @cached_property
    def patches(self) -> slice | np.ndarray:
        """Where the patches are, row by row: a slice where they are side by side."""
        found = np.flatnonzero(self.role == ROLES.index("patch"))
        if len(found) and found[-1] - found[0] + 1 == len(found):
            return slice(int(found[0]), int(found[-1]) + 1)
        return found

    @cached_property
    def patch_count(self) -> int:
        """How many patches there are."""
        return int((self.role == ROLES.index("patch")).sum())

    @property
    def holds_patches(self) -> bool:
        """Whether there is any patch."""
        return self.patch_count > 0

    def first(self, role: str) -> int | None:
        """Index of the first token of a role; None where there is none."""
        found = np.flatnonzero(self.role == ROLES.index(role))
        return int(found[0]) if len(found) else None

    def spread(self, values: Tensor) -> Tensor:
        """Lay values of patches ``(batch, patch)`` along the axis; other tokens get 0."""
        where = self.patches
        if isinstance(where, slice):
            sides = (where.start, len(self) - where.stop)
            return torch.nn.functional.pad(values, sides)
        spread = values.new_zeros(len(values), len(self))
        spread[:, where] = values
        return spread

    def by_frame(self, values: Tensor, dim: int) -> Tensor:
        """Lay cached tokens out by the frame they come from and their place in it.

        Parameters
        ----------
        values : Tensor
            With the tokens along `dim`.
        dim : int
            -1 or -2.

        Returns
        -------
        Tensor
            With two dimensions in the place of that one, (key_frame, token of the frame); NaN where
            there is no token. Frames end with the last that has one.
        """
        assert self.frame is not None
        assert self.slot is not None
        frames = int(self.frame.max()) + 1
        tokens = values.movedim(dim, -1)
        spread = tokens.new_full((*tokens.shape[:-1], frames * self.slots), torch.nan)
        place = torch.from_numpy(self.frame * self.slots + self.slot)
        spread[..., place.to(values.device)] = tokens
        spread = spread.unflatten(-1, (frames, self.slots))
        return spread if dim == -1 else spread.movedim(-3, -1)


Axes = Mapping[str, TokenAxis]
"""Stream -> its tokens in one frame, as a backbone lays them out."""


def image_axis(
    grid: tuple[int, int], leading: tuple[str, ...] = (), *, role: str = "patch"
) -> TokenAxis:
    """Lay out patches row by row, behind special tokens of the given roles."""
    row, column = (axis.ravel() for axis in np.indices(grid))
    special = np.full(len(leading), -1)
    roles = [*map(ROLES.index, leading), *[ROLES.index(role)] * row.size]
    return TokenAxis(
        np.array(roles, np.int8), np.concatenate([special, row]), np.concatenate([special, column])
    )


def memory_axis(
    tokens: int, role: str, *, width: int | None = None, place: str = "", grows: str | None = None
) -> TokenAxis:
    """Lay out the tokens of a memory on a lattice of `width` columns, by default on one row."""
    index = np.arange(tokens)
    columns = tokens if width is None else width
    roles = np.full(tokens, ROLES.index(role), np.int8)
    return TokenAxis(
        roles, index // columns, index % columns, place or f"{role} index", grows=grows
    )
