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

_OUTER = indexing.IndexingSupport.OUTER


class DerivedArray(BackendArray):
    """A lazy array ``(frame, layer, head, ...)`` computed one (frame, layer) block at a time.

    Parameters
    ----------
    shape : tuple of int
    compute : callable
        Maps numbers of frame and layer, and the selected heads (an index array), to an array of the
        remaining dims ``(head, ...)``, then narrowed by the rest of the selection.
    """

    def __init__(
        self,
        shape: tuple[int, ...],
        compute: Callable[[int, int, np.ndarray, np.ndarray | None], np.ndarray],
        dtype: Any,
    ) -> None:
        self.shape = shape
        self.dtype = np.dtype(dtype)
        self._compute = compute

    def __getitem__(self, key: indexing.ExplicitIndexer) -> Any:
        return indexing.explicit_indexing_adapter(key, self.shape, _OUTER, self._read)

    def _read(self, key: tuple[Any, ...]) -> np.ndarray:
        picks = [np.arange(n)[part] for n, part in zip(self.shape, key, strict=True)]
        frames, layers, heads, *rest = (np.atleast_1d(pick) for pick in picks)
        queries = rest[0] if len(rest) == 2 else None
        out = np.empty(tuple(np.size(pick) for pick in picks), self.dtype)
        for i, frame in enumerate(frames):
            for j, layer in enumerate(layers):
                block = self._compute(int(frame), int(layer), heads, queries)
                # Selecting by number copies, which for whole maps would take as long as the maps.
                whole = np.array_equal(rest[-1], np.arange(block.shape[-1]))
                out[i, j] = block if whole else block[..., rest[-1]]
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
        ``logits`` and ``weights`` where maps or archive allow it, and statistics not stored.
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
    has_pose_key = "pose" in _roles(dataset, "key_token")

    def variable(dims: tuple[str, ...], compute: Any, long_name: str, units: str) -> xr.Variable:
        shape = (*base, *(sizes[dim] for dim in dims))
        lazy = indexing.LazilyIndexedArray(DerivedArray(shape, compute, np.float32))
        attrs = {"long_name": long_name, "units": units, "source": f"{kind}, {source}"}
        return xr.Variable(("frame", "layer", "head", *dims), lazy, attrs)

    def logits(frame: int, layer: int, heads: np.ndarray, queries: np.ndarray | None) -> np.ndarray:
        if read is None:
            block = dataset["logits"].variable[frame, layer, heads]
            return np.asarray(block if queries is None else block[:, queries], np.float32)
        q, k = read(frame, layer, heads)
        q = q if queries is None else q[:, queries]
        return (q / sqrt(q.shape[-1]) @ k.mT).numpy()

    def weights(
        frame: int, layer: int, heads: np.ndarray, queries: np.ndarray | None
    ) -> np.ndarray:
        return torch.from_numpy(logits(frame, layer, heads, queries)).softmax(-1).numpy()

    found: dict[str, xr.Variable] = {}
    if read is not None and "logits" not in dataset:
        text = "scaled logit before softmax"
        found["logits"] = variable(("query", "key"), logits, text, "nat")
    found["weights"] = variable(("query", "key"), weights, "attention weight", "1")
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
            return site_statistics([name], q, k, pose_key=0 if has_pose_key else None)[name].numpy()

        found[name] = variable((item.side,), statistic, item.long_name, item.units)
    return found


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
