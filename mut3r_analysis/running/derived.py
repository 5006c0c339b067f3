"""Maps and statistics that a store does not hold but determines, computed where they are read."""

from collections.abc import Callable
from math import sqrt
from typing import Any

import numpy as np
import torch
import xarray as xr
from xarray.backends import BackendArray
from xarray.core import indexing

from mut3r_analysis.attention.statistics import STATISTICS, site_statistics
from mut3r_analysis.running.schema import KEY_FRAME

_OUTER = indexing.IndexingSupport.OUTER


class DerivedArray(BackendArray):
    """A lazy array ``(frame, layer, head, ...)`` computed one (frame, layer) block at a time.

    Parameters
    ----------
    shape : tuple of int
    compute : callable
        Maps numbers of frame and layer, the selected heads (an index array) and the selected
        queries, where `by_query`, to an array of the remaining dims ``(head, ...)``, then narrowed
        by the rest of the selection.
    by_query : bool
        Whether queries are the first of the remaining dims and narrowed by `compute`.
    """

    def __init__(
        self,
        shape: tuple[int, ...],
        compute: Callable[[int, int, np.ndarray, np.ndarray | None], np.ndarray],
        dtype: Any,
        *,
        by_query: bool,
    ) -> None:
        self.shape = shape
        self._by_query = by_query
        self.dtype = np.dtype(dtype)
        self._compute = compute

    def __getitem__(self, key: indexing.ExplicitIndexer) -> Any:
        return indexing.explicit_indexing_adapter(key, self.shape, _OUTER, self._read)

    def _read(self, key: tuple[Any, ...]) -> np.ndarray:
        picks = [np.arange(n)[part] for n, part in zip(self.shape, key, strict=True)]
        frames, layers, heads, *rest = (np.atleast_1d(pick) for pick in picks)
        queries = rest.pop(0) if self._by_query else None
        out = np.empty(tuple(np.size(pick) for pick in picks), self.dtype)
        for i, frame in enumerate(frames):
            for j, layer in enumerate(layers):
                block = self._compute(int(frame), int(layer), heads, queries)
                for axis, pick in enumerate(rest, start=-len(rest)):
                    # Selecting by number copies, which for whole maps would take as long as they.
                    if not np.array_equal(pick, np.arange(block.shape[axis])):
                        block = block.take(pick, axis=axis)
                out[i, j] = block
        scalars = tuple(0 if np.ndim(pick) == 0 else slice(None) for pick in picks)
        return out[scalars]


def derived_variables(dataset: xr.Dataset, kind: str) -> dict[str, xr.Variable]:
    """Lazy variables that follow from what an attention group holds.

    Parameters
    ----------
    dataset : xarray.Dataset
        Group ``/attention/<kind>``; other groups have nothing to derive from.
    kind : str
        For the labels.

    Returns
    -------
    dict of str to xarray.Variable
        ``logits`` and ``weights`` where maps or archive allow it, and statistics not stored. Tokens
        that were not there are NaN, and have no part in those that were.
    """
    if "rotated_query" in dataset:
        source = "computed from archived queries and keys"
        read = _archive_reader(dataset)
    elif "logits" in dataset:
        source, read = "computed from stored logits", None
    else:
        return {}
    sizes = dataset.sizes
    base = tuple(sizes[dim] for dim in ("frame", "layer", "head"))
    keys = tuple(dim for dim in (KEY_FRAME, "key") if dim in sizes)
    has_pose_key = "pose" in _roles(dataset, "key_token")

    def variable(dims: tuple[str, ...], compute: Any, long_name: str, units: str) -> xr.Variable:
        shape = (*base, *(sizes[dim] for dim in dims))
        array = DerivedArray(shape, compute, np.float32, by_query=dims == ("query", *keys))
        lazy = indexing.LazilyIndexedArray(array)
        attrs = {"long_name": long_name, "units": units, "source": f"{kind}, {source}"}
        return xr.Variable(("frame", "layer", "head", *dims), lazy, attrs)

    def logits(frame: int, layer: int, heads: np.ndarray, queries: np.ndarray | None) -> np.ndarray:
        if read is None:
            block = dataset["logits"].variable[frame, layer, heads]
            return np.asarray(block if queries is None else block[:, queries], np.float32)
        q, k = read(frame, layer, heads)
        q = q if queries is None else q[:, queries]
        q = q / sqrt(q.shape[-1])
        return (q @ k.flatten(1, -2).mT).unflatten(-1, k.shape[1:-1]).numpy()

    def weights(
        frame: int, layer: int, heads: np.ndarray, queries: np.ndarray | None
    ) -> np.ndarray:
        z = torch.from_numpy(logits(frame, layer, heads, queries))
        flat = z.flatten(2)
        absent = flat.isnan()
        if absent.any():
            flat = flat.masked_fill(absent, -torch.inf).softmax(-1).masked_fill(absent, torch.nan)
        else:
            flat = flat.softmax(-1)
        return flat.reshape(z.shape).numpy()

    found: dict[str, xr.Variable] = {}
    if read is not None and "logits" not in dataset:
        text = "scaled logit before softmax"
        found["logits"] = variable(("query", *keys), logits, text, "nat")
    found["weights"] = variable(("query", *keys), weights, "attention weight", "1")
    if read is None:
        return found
    for name, item in STATISTICS.items():
        if name in dataset or (item.needs_pose and not has_pose_key):
            continue

        def statistic(
            frame: int,
            layer: int,
            heads: np.ndarray,
            queries: np.ndarray | None,
            name: str = name,
        ) -> np.ndarray:
            q, k = read(frame, layer, heads)
            pose_key = 0 if has_pose_key else None
            return _of_present(name, q, k, pose_key).numpy()

        dims = keys if item.side == "key" else ("query",)
        found[name] = variable(dims, statistic, item.long_name, item.units)
    return found


def _of_present(name: str, q: torch.Tensor, k: torch.Tensor, pose_key: int | None) -> torch.Tensor:
    """Compute a statistic of the tokens that were there; NaN for those that were not."""
    shape, keys = k.shape[1:-1], k.flatten(1, -2)
    query_there, key_there = (~side[0, :, 0].isnan() for side in (q, keys))
    of_keys = STATISTICS[name].side == "key"
    there = key_there if of_keys else query_there
    found = q.new_full((len(q), len(there)), torch.nan)
    if key_there.any() and query_there.any():
        tokens = q[:, query_there], keys[:, key_there]
        found[:, there] = site_statistics([name], *tokens, pose_key=pose_key)[name]
    return found.unflatten(1, shape) if of_keys else found


def _archive_reader(
    dataset: xr.Dataset,
) -> Callable[[int, int, np.ndarray], tuple[torch.Tensor, torch.Tensor]]:
    query, key = dataset["rotated_query"].variable, dataset["rotated_key"].variable

    def read(frame: int, layer: int, heads: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
        q, k = (
            torch.from_numpy(np.asarray(side[frame, layer, heads], np.float32))
            for side in (query, key)
        )
        return q, k

    return read


def _roles(dataset: xr.Dataset, name: str) -> set[str]:
    coordinate = dataset[name]
    labels = coordinate.attrs.get("labels")
    values = coordinate.values
    return {labels[code] for code in np.unique(values)} if labels else set(values.tolist())
