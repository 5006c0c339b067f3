"""The layout of a foreign model's tokens, declared in one line."""

from collections.abc import Mapping
from dataclasses import dataclass

from mut3r_analysis.attention.tokens import ROLES, TokenAxis, image_axis, memory_axis
from mut3r_analysis.errors import InvalidArgument


@dataclass(frozen=True)
class Tokens:
    """What the tokens along one side of a site are: special ones first, then patches row by row.

    Parameters
    ----------
    grid : (int, int), optional
        Rows and columns of patches; None where there are none, such as words.
    special : tuple of str
        Roles of the tokens before them, such as ``("class",)``.

    Raises
    ------
    InvalidArgument
        For a role that is not known.

    Examples
    --------
    >>> tokens = Tokens(grid=(4, 4), special=("class",))
    >>> tokens.grid
    (4, 4)
    """

    grid: tuple[int, int] | None = None
    special: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if isinstance(self.special, str) or not set(self.special) <= set(ROLES):
            raise InvalidArgument(
                f"special must be several roles among {', '.join(ROLES)}; got {self.special!r}"
            )
        if self.grid is not None and (len(self.grid) != 2 or min(self.grid) < 1):
            raise InvalidArgument(f"grid must be rows and columns of patches, got {self.grid!r}")

    def axis(self, count: int, where: str) -> TokenAxis:
        """Lay out so many tokens.

        Raises
        ------
        InvalidArgument
            When the declaration does not add up to them; `where` says at which site.
        """
        if self.grid is None:
            return memory_axis(count, "token", place="sequence")
        axis = image_axis(self.grid, self.special)
        if len(axis) != count:
            rows, columns = self.grid
            raise InvalidArgument(
                f"{where} has {count} tokens, {self} declares {rows} x {columns} patches and "
                f"{len(self.special)} special tokens; declare what is there"
            )
        return axis


Declared = Tokens | tuple[Tokens, Tokens] | None
"""Of one kind of site: its tokens, or those of queries and keys."""


def sides(
    tokens: Declared | Mapping[str, Declared], kind: str, counts: Mapping[str, int]
) -> dict[str, TokenAxis]:
    """Return the axes ``query`` and ``key`` of a kind of site with so many tokens on each side."""
    declared = tokens.get(kind) if isinstance(tokens, Mapping) else tokens
    declared = declared or Tokens()
    pair = declared if isinstance(declared, tuple) else (declared, declared)
    return {
        side: each.axis(counts[side], f"the {side} side of {kind}")
        for side, each in zip(("query", "key"), pair, strict=True)
    }
