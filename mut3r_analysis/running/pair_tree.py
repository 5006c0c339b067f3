"""The labelled tree of a run of pairs: made, and opened again."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import xarray as xr
from torch import Tensor
from xarray.indexes import PandasMultiIndex

from mut3r_analysis.attention.capture import Capture
from mut3r_analysis.attention.recorder import Records
from mut3r_analysis.attention.sites import SITE_KINDS
from mut3r_analysis.backbones.heads import PairPrediction
from mut3r_analysis.backbones.protocol import Backbone
from mut3r_analysis.errors import MissingFile, StoreError
from mut3r_analysis.foundation.paths import user_path
from mut3r_analysis.motion.pair_cue import PAIR_SITES
from mut3r_analysis.motion.pair_motion import PairMotion
from mut3r_analysis.running.derived import derived_variables
from mut3r_analysis.running.opening import label
from mut3r_analysis.running.recording import known_truth
from mut3r_analysis.running.schema import TRUTH_DIMS, Group, add_site


class Read(Protocol):
    """What one pass over all pairs gave."""

    predictions: list[PairPrediction]
    attention: list[Records]


def pair_groups(
    backbone: Backbone,
    sequence: xr.Dataset,
    edges: Sequence[tuple[int, int]],
    capture: Capture | None,
    read: Read,
    cues: Mapping[str, PairMotion | Tensor],
) -> dict[str, xr.Dataset]:
    """Lay out what pairs gave, by group path, with coded coordinates as stores have them."""
    frames = sequence["frame"].values
    views = {
        f"view{side + 1}": ("pair", frames[[edge[side] for edge in edges]], _said(
            f"frame of the source that is view {side + 1}", "1", "graph of pairs"))
        for side in (0, 1)
    }  # fmt: skip
    found = {"/prediction": _predictions(read.predictions, views, backbone.origin.name)}
    height, width = read.predictions[0].points_view1.shape[1:3]
    grid = backbone.patch_grid(height, width)
    found |= _attention(site_groups(backbone, capture, grid, len(edges)), read.attention, views)
    for path, motion in cues.items():
        found[f"/{path}"] = _cue(motion, frames, backbone)
    found |= _truth(backbone, sequence)
    return found


def _said(long_name: str, units: str, source: str) -> dict[str, Any]:
    return {"long_name": long_name, "units": units, "source": source}


def _predictions(pairs: list[PairPrediction], views: Any, source: str) -> xr.Dataset:
    variables = {}
    for view in (1, 2):
        where = f"of view {view}, in the camera of view 1"
        for name, dims, units in (
            ("points", ("pair", "y", "x", "xyz"), "m"),
            ("confidence", ("pair", "y", "x"), "1"),
        ):
            full = f"{name}_view{view}"
            values = np.concatenate([vars(pair)[full].cpu().numpy() for pair in pairs])
            variables[full] = (dims, values, _said(f"{name} {where}", units, source))
    axes = {"xyz": ("xyz", np.arange(3), _said("axis", "1", "layout") | {"labels": list("xyz")})}
    return xr.Dataset(variables, views | axes)


def site_groups(
    backbone: Backbone, capture: Capture | None, grid: tuple[int, int], pairs: int
) -> dict[str, Group]:
    """Say what is recorded of so many pairs, by site kind; the first dimension is the pair."""
    found: dict[str, Group] = {}
    if capture is None or not capture.records_attention:
        return found
    axes, sites = backbone.axes(grid), backbone.sites()
    for kind in capture.kinds({kind: sites[kind] for kind in PAIR_SITES}):
        size, row = sites[kind], SITE_KINDS[kind]
        group = found[kind] = Group(np.arange(pairs))
        layers = range(size.layers) if capture.layers is None else capture.layers
        heads = range(size.heads) if capture.heads is None else capture.heads
        group.coordinate("layer", "layer", np.array(layers), "layer, 0-based")
        group.coordinate("head", "head", np.array(heads), "attention head, 0-based")
        sides = {"query": axes[row.queries], "key": axes[row.keys]}
        add_site(group, kind, size, sides, capture, kind)
    return found


def pair_bytes(
    backbone: Backbone, capture: Capture | None, size: tuple[int, int], pairs: int
) -> int:
    """Bytes of the predictions and of the recorded attention of so many pairs, uncompressed."""
    per_pixel = 2 * 4 * np.dtype(np.float32).itemsize  # points and confidence of two views
    groups = site_groups(backbone, capture, backbone.patch_grid(*size), pairs).values()
    recorded = (item for group in groups for item in group.variables.values())
    of_sites = sum(
        math.prod(item.shape) * item.dtype.itemsize for item in recorded if item.values is None
    )
    return pairs * size[0] * size[1] * per_pixel + of_sites


def _attention(groups: dict[str, Group], records: list[Records], views: Any) -> dict[str, Any]:
    found = {}
    for kind, group in groups.items():
        variables, coordinates = {}, {}
        for name, item in group.variables.items():
            attrs = _said(item.long_name, item.units, item.source)
            if item.values is not None:
                coded = {"labels": list(item.labels)} if item.labels else {}
                coordinates[name] = (item.dims, item.values, attrs | coded)
            else:
                values = np.stack([record[kind][name][0].numpy() for record in records])
                variables[name] = (("pair", *item.dims[1:]), values, attrs)
        found[f"/attention/{kind}"] = xr.Dataset(variables, coordinates | views)
    return found


_MAPS = {
    "dynamic": "motion before smoothing, 0 to 1",
    "smooth": "motion after smoothing, 0 to 1",
    "labels": "cluster of the patch",
    "cells": "motion score: whether any pixel of the patch is dynamic",
}
_MOMENTS = {"mean": "mean over partners", "std": "standard deviation over partners"}


def _cue(motion: PairMotion | Tensor, frames: np.ndarray, backbone: Backbone) -> xr.Dataset:
    patches = ("frame", "patch_row", "patch_col")
    coordinates = {"frame": frames}
    if isinstance(motion, Tensor):
        text = "share of the patch that the mask covers, or whether it covers any"
        said = _said(text, "1", "mask of the sequence")
        return xr.Dataset({"motion": (patches, motion.numpy(), said)}, coordinates)
    variables: dict[str, Any] = {}
    size = backbone.sites()["view1_to_view2"]
    for view in ("view2", "view1"):
        aggregate = vars(motion)[view]
        source = f"logits that patches of {view} receive"
        for moment, text in _MOMENTS.items():
            values = getattr(aggregate, moment).unflatten(-1, (size.layers, size.heads)).numpy()
            dims = (*patches, "layer", "head")
            variables[f"{moment}_{view}"] = (dims, values, _said(text, "nat", source))
            values = getattr(aggregate, f"fused_{moment}").numpy()
            said = _said(f"{text}, layers and heads fused, 0 to 1", "1", source)
            variables[f"fused_{moment}_{view}"] = (patches, values, said)
    for name, text in _MAPS.items():
        values = vars(motion)[name]
        if values is not None:
            full = {"labels": "cluster", "cells": "motion"}.get(name, name)
            variables[full] = (patches, values.numpy(), _said(text, "1", "aggregates"))
    said = _said("whether the pixel is dynamic", "1", "smooth above the threshold")
    variables["mask"] = (("frame", "y", "x"), motion.mask.numpy(), said)
    said = _said("threshold of smooth, by Otsu", "1", "all frames")
    variables["threshold"] = ((), motion.otsu.threshold, said)
    scores = motion.otsu.scores
    said = _said("variance of the classes' means over the root of their number", "1", "Otsu")
    variables["otsu_score"] = (("classes",), np.array(list(scores.values())), said)
    return xr.Dataset(variables, coordinates | {"classes": list(scores)})


def _truth(backbone: Backbone, sequence: xr.Dataset) -> dict[str, xr.Dataset]:
    frames = range(sequence.sizes["frame"])
    known = [known_truth(backbone, sequence.isel(frame=frame)) for frame in frames]
    if not known[0]:
        return {}
    variables = {
        name: (("frame", *TRUTH_DIMS[name]), np.stack([each[name] for each in known]),
               {key: sequence[name].attrs.get(key, "") for key in ("long_name", "units", "source")})
        for name in known[0]
    }  # fmt: skip
    return {"/truth": xr.Dataset(variables, {"frame": sequence["frame"].values})}


def labelled_pairs(tree: xr.DataTree) -> xr.DataTree:
    """Label a tree of coded coordinates, and add what follows from archives and maps."""
    nodes: dict[str, xr.Dataset] = {"/": tree.to_dataset()}
    for path, node in tree.subtree_with_keys:
        if not node.variables:
            continue
        dataset = node.to_dataset(inherit=False)
        if path.startswith("attention/"):
            by_frame = dataset.rename_dims(pair="frame")
            derived = derived_variables(by_frame, path.rpartition("/")[2])
            dataset = by_frame.assign(derived).rename_dims(frame="pair")
        if "pair" in dataset.dims:
            dataset = dataset.set_xindex(["view1", "view2"], PandasMultiIndex)
        nodes[f"/{path}"] = label(dataset)
    return xr.DataTree.from_dict(nodes)


def open_pairs(path: str | Path) -> xr.DataTree:
    """Open what ``run_pairs(out=...)`` wrote; arrays are read when they are used.

    Raises
    ------
    MissingFile
        When there is nothing at the path.
    StoreError
        When it is not the store of a run of pairs.

    Examples
    --------
    >>> pairs = m3.run_pairs(
    ...     "random:dust3r-small", sequence, graph="oneref-0", out="pairs.zarr", progress=False
    ... )
    >>> open_pairs("pairs.zarr").equals(pairs)
    True
    """
    place = user_path(path)
    if not place.exists():
        raise MissingFile(f"no run of pairs at {place}")
    try:
        tree = xr.open_datatree(place, engine="zarr", consolidated=False, chunks=None)
    except (OSError, ValueError, KeyError) as error:
        raise StoreError(f"{place} is not the store of a run of pairs: {error}") from error
    if "graph" not in tree.attrs or "prediction" not in tree.children:
        raise StoreError(
            f"{place} is not the store of a run of pairs; a run of a stream is opened by open_run"
        )
    return labelled_pairs(tree)
