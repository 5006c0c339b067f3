"""At which sites, layers and heads two runs attend differently, and write differently."""

from typing import Any

import numpy as np
import xarray as xr

from mut3r_analysis.attention.statistics import STATISTICS
from mut3r_analysis.errors import InvalidArgument
from mut3r_analysis.foundation.labelling import beside

_CELL = ("layer", "head")


def attention_change(
    plain: xr.DataTree, gated: xr.DataTree, frame: int, row: int, column: int
) -> xr.Dataset:
    """Return how far sites, layers and heads changed for one patch of one frame.

    Parameters
    ----------
    plain, gated : DataTree
        Runs whose attention at the frame was captured: ``Capture(head_outputs="all")`` takes what
        heads write as well.
    frame : int
        Label of the frame.
    row, column : int
        The patch. Statistics of the patch as a query and as a key count; at a site without patches
        the mean over its tokens stands for it.

    Returns
    -------
    Dataset
        Over ``site`` (kinds), ``layer`` and ``head``; NaN where a site has no such layer or head.

        - ``reads`` (site, statistic, layer, head): absolute change of what a head looks at, in
          standard deviations of the statistic over the tokens of the plain run. Logits are captured
          before a gate of that layer acts on them, so this comes from layers and frames before;
        - ``writes`` (site, layer, head): how far what a head writes is from what it wrote, as a
          share of its norm; of norms alone where no values were kept. Absent where neither was.

    Raises
    ------
    InvalidArgument
        When the runs have no site captured at that frame in common.

    Examples
    --------
    >>> change = attention_change(run, gated, frame=2, row=1, column=3)
    >>> change["reads"].dims
    ('site', 'statistic', 'layer', 'head')
    """
    groups = [run["attention"].children for run in (plain, gated) if "attention" in run.children]
    shared = [name for name in groups[0] if name in groups[1]] if len(groups) == 2 else []
    reads, writes = {}, {}
    for site in shared:
        pair = [group[site].to_dataset() for group in groups]
        if any(frame not in each["frame"].values for each in pair):
            continue
        one, other = (each.sel(frame=frame) for each in pair)
        reads[site] = beside(_read_changes(one, other, row, column), "statistic")
        if (written := _write_change(one, other, row, column)) is not None:
            writes[site] = written
    if not reads:
        raise InvalidArgument(
            f"no site of both runs has attention of frame {frame}; run them with capture="
            f"Capture(head_outputs='all', frames=[...]), positions of frames in the sequence"
        )
    words = {"long_name": "change of attention", "units": "sd over tokens"}
    found = xr.Dataset({"reads": beside(reads, "site").assign_attrs(words)})
    if writes:
        words = {"long_name": "change of what heads write", "units": "share of its norm"}
        found["writes"] = beside(writes, "site").assign_attrs(words)
    return found


def _read_changes(
    plain: xr.Dataset, gated: xr.Dataset, row: int, column: int
) -> dict[str, xr.DataArray]:
    sizes = [name for name, row in STATISTICS.items() if not row.is_index]
    names = [name for name in sizes if name in plain and name in gated]
    # What is known of the patch itself goes before what is known of all tokens of the site.
    of_patch = [name for name in names if len(_tokens(plain[name], row, column)[0])]
    found = {}
    for name in of_patch or names:
        one, other = (_by_cell(each[name]) for each in (plain, gated))
        mine, alike = _tokens(plain[name], row, column)
        spread = one[..., alike].std(axis=-1)
        with np.errstate(invalid="ignore", divide="ignore"):
            changed = np.abs(other - one)[..., mine if len(mine) else alike].mean(axis=-1) / spread
        found[name] = _labelled(plain[name], np.where(spread > 0, changed, 0.0))
    return found


def _write_change(
    plain: xr.Dataset, gated: xr.Dataset, row: int, column: int
) -> xr.DataArray | None:
    name = next((n for n in ("output", "output_norm") if n in plain and n in gated), None)
    if name is None:
        return None
    mine, alike = _tokens(plain["output_norm"], row, column)
    one, other = (
        _by_cell(each[name])[:, :, mine if len(mine) else alike] for each in (plain, gated)
    )
    size = one
    if name == "output":
        size, apart = (np.linalg.norm(each, axis=-1) for each in (one, other - one))
    else:
        apart = np.abs(other - one)
    return _labelled(plain[name], apart.mean(axis=-1) / size.mean(axis=-1))


def _by_cell(values: xr.DataArray) -> np.ndarray:
    return values.transpose(*_CELL, *_token_dims(values)).values.astype(np.float64)


def _labelled(like: xr.DataArray, values: np.ndarray) -> xr.DataArray:
    return xr.DataArray(values, {dim: like[dim].values for dim in _CELL}, _CELL)


def _token_dims(values: xr.DataArray) -> list[Any]:
    """Dims beside layer and head, tokens first and channels last."""
    return [dim for dim in values.dims if dim not in _CELL]


def _tokens(values: xr.DataArray, row: int, column: int) -> tuple[np.ndarray, np.ndarray]:
    """Positions of the patch along the tokens of a variable, and of the tokens like it."""
    dim = _token_dims(values)[0]
    prefix = "key_" if dim == "key" else ""
    names = [f"{prefix}{part}" for part in ("token", "patch_row", "patch_col")]
    if not all(name in values.coords and values[name].dims == (dim,) for name in names):
        return np.array([], int), np.arange(values.sizes[dim])
    role, rows, columns = (values[name].values for name in names)
    patches = role == "patch"
    mine = np.flatnonzero(patches & (rows == row) & (columns == column))
    return mine, np.flatnonzero(patches) if len(mine) else np.arange(values.sizes[dim])
