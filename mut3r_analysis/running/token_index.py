"""Tokens selected by what they are: role, row and column together, without tuples for labels."""

from collections.abc import Hashable, Iterable, Mapping
from typing import Any, Self

import pandas as pd
import xarray as xr
from xarray.core.indexing import IndexSelResult
from xarray.indexes import PandasMultiIndex


class TokenIndex(xr.Index):
    """An index over several coordinates of one dimension, which itself has no coordinate.

    Selection is that of `PandasMultiIndex`. Its dimension coordinate, whose labels are tuples, can
    neither be drawn nor stored, and is left out.
    """

    def __init__(self, levels: PandasMultiIndex) -> None:
        self._levels = levels

    @classmethod
    def from_variables(
        cls, variables: Mapping[Any, xr.Variable], *, options: Mapping[str, Any]
    ) -> Self:
        """Index coordinates of one dimension."""
        return cls(PandasMultiIndex.from_variables(variables, options=options))

    @classmethod
    def concat(
        cls, indexes: Any, dim: Hashable, positions: Iterable[Iterable[int]] | None = None
    ) -> Self:
        """Index what is put behind each other."""
        return cls(PandasMultiIndex.concat([each._levels for each in indexes], dim, positions))

    def create_variables(self, variables: Mapping[Any, xr.Variable] | None = None) -> Any:
        """Return the coordinates."""
        return _plain(self._levels.create_variables(variables), self._levels.dim)

    def to_pandas_index(self) -> pd.Index:
        """Return the labels of all coordinates as pandas has them."""
        return self._levels.index

    def isel(self, indexers: Mapping[Any, Any]) -> Self | None:
        """Index a part, where several tokens are left."""
        part = self._levels.isel(indexers)
        return type(self)(part) if isinstance(part, PandasMultiIndex) else None

    def sel(self, labels: dict[Any, Any], method: Any = None, tolerance: Any = None) -> Any:
        """Select by any of the coordinates; those given as one value leave the index."""
        found = self._levels.sel(labels, method, tolerance)
        dim = self._levels.dim
        left = next(iter(found.indexes.values()), None)
        index: Any = type(self)(left) if isinstance(left, PandasMultiIndex) else left
        return IndexSelResult(
            found.dim_indexers,
            dict.fromkeys([name for name in found.indexes if name != dim], index),
            _plain(found.variables, dim),
            [name for name in found.drop_coords if name != dim],
            [name for name in found.drop_indexes if name != dim],
            found.rename_dims,
        )

    def equals(self, other: xr.Index, *, exclude: frozenset[Hashable] | None = None) -> bool:
        """Whether the tokens are the same, in the same order."""
        return isinstance(other, TokenIndex) and self._levels.equals(other._levels)

    def join(self, other: Self, how: Any = "inner") -> Self:
        """Index the tokens that both have, or either has."""
        joined: Any = self._levels.join(other._levels, how)
        return type(self)(joined)

    def reindex_like(self, other: Self) -> dict[Hashable, Any]:
        """Find the other's tokens among these."""
        return self._levels.reindex_like(other._levels)

    def unstack(self) -> tuple[dict[Hashable, xr.Index], Any]:
        """Make a dimension of each coordinate."""
        return self._levels.unstack()

    def rename(self, name_dict: Mapping[Any, Hashable], dims_dict: Mapping[Any, Hashable]) -> Self:
        """Rename coordinates and dimension."""
        renamed: Any = self._levels.rename(name_dict, dims_dict)
        return type(self)(renamed)


def _plain(variables: Mapping[Any, xr.Variable], dim: Hashable) -> dict[Any, xr.Variable]:
    """Leave out the tuples, and let coordinates be arrays, which can be stored."""
    return {
        name: xr.Variable(each.dims, each.values, each.attrs)
        for name, each in variables.items()
        if name != dim
    }
