"""What a run holds: every group and variable with its dimensions, known before anything runs."""

from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import xarray as xr

from mut3r_analysis.attention.capture import Capture
from mut3r_analysis.attention.sites import SITE_KINDS, SiteSize
from mut3r_analysis.attention.statistics import STATISTICS
from mut3r_analysis.attention.tokens import ROLES, Axes, TokenAxis
from mut3r_analysis.backbones.protocol import Backbone
from mut3r_analysis.errors import InvalidArgument
from mut3r_analysis.motion.cue import Cue
from mut3r_analysis.motion.gate import Gate
from mut3r_analysis.motion.probe import cue_layers
from mut3r_analysis.motion.readings import units_of
from mut3r_analysis.motion.sources import Source
from mut3r_analysis.running.configuration import Configuration
from mut3r_analysis.sequences.model import label

KEY_FRAME = "key_frame"
"""Dimension of keys that come from several frames, one place per frame."""


@dataclass(frozen=True, eq=False)
class Variable:
    """One array of the store.

    ``values`` are given for coordinates, which are written once; a variable without them has
    ``frame`` as its first dimension and is filled frame by frame. ``labels`` name the values of an
    integer coordinate. ``grows`` are the dimensions along which only a part is filled.
    """

    name: str
    dims: tuple[str, ...]
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    long_name: str
    units: str
    source: str
    values: np.ndarray | None = None
    labels: tuple[str, ...] | None = None
    grows: tuple[str, ...] = ()


@dataclass(eq=False)
class Group:
    """One group of the store: which frames of the sequence it holds, and its variables by name."""

    frames: np.ndarray
    variables: dict[str, Variable] = field(default_factory=dict)
    grows: frozenset[str] = frozenset()
    """Dimensions along which a memory grows."""
    keeps_state: bool = False

    def add(
        self,
        name: str,
        sizes: dict[str, int],
        dtype: Any,
        long_name: str,
        units: str,
        source: str,
    ) -> None:
        """Add a variable that has one value (or array of ``sizes``) per frame."""
        dims = ("frame", *sizes)
        shape = (len(self.frames), *sizes.values())
        growing = tuple(dim for dim in dims if dim in self.grows)
        self.variables[name] = Variable(
            name, dims, shape, np.dtype(dtype), long_name, units, source, grows=growing
        )

    def coordinate(
        self,
        name: str,
        dim: str,
        values: Any,
        long_name: str,
        units: str = "1",
        labels: tuple[str, ...] | None = None,
    ) -> None:
        """Add a coordinate along one dimension."""
        values = np.asarray(values)
        self.variables[name] = Variable(
            name, (dim,), values.shape, values.dtype, long_name, units, "layout", values, labels
        )


Schema = dict[str, Group]


def run_schema(
    backbone: Backbone,
    sequence: xr.Dataset,
    capture: Capture | None,
    outputs: Collection[str],
    configuration: Configuration,
) -> Schema:
    """Describe the store that a run will write.

    Parameters
    ----------
    backbone : Backbone
    sequence : xarray.Dataset
    capture : Capture, optional
    outputs : collection of str
        Checked output names.
    configuration : Configuration

    Returns
    -------
    dict of str to Group
        By group path.

    Raises
    ------
    InvalidArgument
        When the capture names layers, heads or frames that do not exist.
    """
    height, width = backbone.preparation.shape(sequence.sizes["y"], sequence.sizes["x"])
    grid = backbone.patch_grid(height, width)
    sequence = label(sequence, str(sequence.attrs.get("source", "dataset in memory")))
    frames = sequence["frame"].values
    schema: Schema = {}

    def group(path: str, positions: np.ndarray | None = None) -> Group:
        positions = np.arange(len(frames)) if positions is None else positions
        made = schema[path] = Group(positions)
        made.coordinate("frame", "frame", frames[positions], "index of the frame in the source")
        return made

    _prediction(group("prediction"), backbone, outputs, height, width)
    if capture is not None and capture.records_attention:
        read = configuration.captured_pass
        axes = backbone.axes(grid, len(frames))
        _attention(group, backbone, capture, frames, axes, read, outputs)
    if configuration.cue is not None:
        _cue(group("cue"), backbone, configuration.cue, configuration.acting_gate, grid)
    keep = capture is not None and capture.state
    _state(group("state"), backbone, grid, len(frames), keep=keep)
    if (reset := configuration.commit.reset) is not None:
        text = "whether the state starts anew after the frame"
        schema["state"].add("reset", {}, "bool", text, "1", f"reset.{reset}")
    timing = group("timing")
    passes = configuration.passes
    timing.coordinate("pass", "pass", np.arange(len(passes)), "pass over the frame", labels=passes)
    per_pass = {"pass": len(passes)}
    text = "wall time of the frame; the last pass has all that is not decoding"
    timing.add("seconds", per_pass, "float64", text, "s", "clock")
    text = "peak memory so far: of the GPU in this run, or of the process"
    timing.add("peak_memory", per_pass, "int64", text, "byte", "system")
    if any(name in sequence for name in TRUTH_DIMS):
        _truth(group("truth"), sequence, height, width)
    return schema


TRUTH_DIMS = {
    "depth": ("y", "x"),
    "pose": ("row", "col"),
    "intrinsics": ("camera_row", "camera_col"),
    "motion_mask": ("y", "x"),
    "instance": ("y", "x"),
}
"""What of a sequence's ground truth a run keeps, on the prediction grid."""


def _pixels(group: Group, height: int, width: int) -> dict[str, int]:
    group.coordinate("y", "y", np.arange(height), "row of the prediction grid", "px")
    group.coordinate("x", "x", np.arange(width), "column of the prediction grid", "px")
    return {"y": height, "x": width}


def _prediction(
    group: Group, backbone: Backbone, outputs: Collection[str], height: int, width: int
) -> None:
    source = f"{backbone.origin.name}, {backbone.update}"
    matrix = {"row": 4, "col": 4}
    if "pose" in outputs:
        group.add("pose", matrix, "float32", "camera-to-world transform", "m", source)
    if not {"depth", "points_self", "points_world", "color"} & set(outputs):
        return
    pixels = _pixels(group, height, width)
    if {"points_self", "points_world"} & set(outputs):
        group.coordinate("xyz", "xyz", np.arange(3), "axis", labels=("x", "y", "z"))
    if {"points_self", "depth"} & set(outputs):
        group.add("depth", pixels, "float32", "depth along the optical axis", "m", source)
        group.add("confidence_self", pixels, "float32", "confidence of points_self", "1", source)
        group.add("focal", {}, "float32", "focal length implied by points_self", "px", source)
    if "points_self" in outputs:
        xyz = pixels | {"xyz": 3}
        group.add("points_self", xyz, "float32", "points in the frame's own camera", "m", source)
    if "points_world" in outputs:
        xyz = pixels | {"xyz": 3}
        group.add("points_world", xyz, "float32", "points in the world", "m", source)
        group.add("confidence_world", pixels, "float32", "confidence of points_world", "1", source)
    if "color" in outputs:
        group.coordinate("rgb", "rgb", np.arange(3), "channel", labels=("red", "green", "blue"))
        rgb = pixels | {"rgb": 3}
        group.add("color", rgb, "float32", "predicted colour, -1 to 1", "1", source)


def _attention(
    group: Any,
    backbone: Backbone,
    capture: Capture,
    frames: np.ndarray,
    axes: Axes,
    captured_pass: str,
    outputs: Collection[str],
) -> None:
    positions = np.arange(len(frames))
    if capture.frames is not None:
        positions = np.array(capture.frames)
        _check_indices("frames", positions, len(frames), "the sequence has {} frames")
    sites = backbone.sites()
    for kind in capture.kinds(sites):
        size, row = sites[kind], SITE_KINDS[kind]
        if row.part == "head" and "points_world" not in outputs:
            raise InvalidArgument(
                f"{kind} runs for the output 'points_world' alone; ask for it beside "
                f"{list(outputs)}, or leave the site out"
            )
        layers = np.arange(size.layers) if capture.layers is None else np.array(capture.layers)
        if row.part != "decoder":
            layers = layers[layers < size.layers]
            if not len(layers):
                continue
        heads = np.arange(size.heads) if capture.heads is None else np.array(capture.heads)
        _check_indices("layers", layers, size.layers, kind + " has {} layers")
        _check_indices("heads", heads, size.heads, kind + " has {} heads")
        made = group(f"attention/{kind}", positions)
        made.coordinate("layer", "layer", layers, "layer, 0-based")
        made.coordinate("head", "head", heads, "attention head, 0-based")
        source = kind if captured_pass == "plain" else f"{kind}, {captured_pass} pass"
        sides = {"query": axes[row.queries], "key": axes[row.keys]}
        if sides["key"].grows == KEY_FRAME:
            text = "frame of the source that the key comes from"
            made.coordinate(KEY_FRAME, KEY_FRAME, frames, text)
        add_site(made, kind, size, sides, capture, source)


def add_site(
    group: Group,
    kind: str,
    size: SiteSize,
    sides: dict[str, TokenAxis],
    capture: Capture,
    source: str,
) -> None:
    """Add what is recorded at one kind of site, and its token coordinates."""
    group.grows = frozenset(
        KEY_FRAME if axis.grows == KEY_FRAME else side for side, axis in sides.items() if axis.grows
    )
    for side, axis in sides.items():
        _token_coordinates(group, side, axis)
    lengths = {side: {side: len(axis)} for side, axis in sides.items()}
    if KEY_FRAME in group.grows:
        held = group.variables[KEY_FRAME].shape
        lengths["key"] = {KEY_FRAME: held[0]} | lengths["key"]
    base = {name: len(group.variables[name].values) for name in ("layer", "head")}  # type: ignore[arg-type]
    for name in capture.statistics:
        item = STATISTICS[name]
        if item.needs_pose and sides["key"].first("pose") is None:
            continue
        sizes = base | lengths[item.side]
        group.add(name, sizes, capture.dtype, item.long_name, item.units, source)
    if capture.keeps_map(kind):
        text = "scaled logit before softmax"
        sizes = base | lengths["query"] | lengths["key"]
        group.add("logits", sizes, capture.dtype, text, "nat", source)
    if capture.archive:
        for side, length in lengths.items():
            sizes = base | length | {"channel": size.channels}
            text = f"{side} after rotary embedding"
            group.add(f"rotated_{side}", sizes, capture.archive, text, "1", source)
    kept = capture.keeps_outputs(kind)
    if kept is not None:
        written = base | lengths["query"]
        text = "what the head writes, before the projection"
        group.add("output_norm", written, capture.dtype, f"norm of {text}", "1", source)
        if kept == "values":
            sizes = written | {"output_channel": size.channels}
            group.add("output", sizes, capture.dtype, text, "1", source)


def _token_coordinates(group: Group, dim: str, axis: TokenAxis) -> None:
    """Add role, row and column of the tokens along a dimension.

    Queries own the plain names; keys have them with the prefix ``key_``, since one dataset can
    have a coordinate of a name only once.
    """
    prefix = "key_" if dim == "key" else ""
    group.coordinate(f"{prefix}token", dim, axis.role, f"role of the {dim}", labels=ROLES)
    for name, values in (("row", axis.row), ("col", axis.column)):
        text = f"{name} of the {dim} on the {axis.place}, -1 for special tokens"
        group.coordinate(f"{prefix}patch_{name}", dim, values, text)


def state_group(backbone: Backbone, grid: tuple[int, int], frames: int) -> Group:
    """Return a group that holds the coordinates of the state tokens and nothing else."""
    axis = backbone.axes(grid, frames)["state"]
    group = Group(np.arange(0), grows=frozenset({backbone.state_dim} if axis.grows else ()))
    _token_coordinates(group, backbone.state_dim, axis)
    return group


def _cue(
    group: Group, backbone: Backbone, cue: Cue, gate: Gate | None, grid: tuple[int, int]
) -> None:
    patches = {"patch_row": grid[0], "patch_col": grid[1]}
    for name, count in patches.items():
        group.coordinate(name, name, np.arange(count), f"{name[6:]} of the patch grid")
    source = f"{cue.reading} at {cue.site}" if cue.measured else cue.control or str(cue.of)
    group.add("motion", patches, "float32", "motion score (1: dynamic)", "1", source)
    lags = Source.parse(cue.source).lags
    if gate is not None:
        group.add("gated", {}, "bool", "whether gates acted on the frame", "1", str(cue.source))
        if lags:
            text = "motion score of earlier frames that the gates used"
            group.add("used", patches, "float32", text, "1", str(cue.source))
    if cue.measured:
        layers = cue_layers(cue, backbone.sites())
        group.coordinate("layer", "layer", np.array(layers), "layer, 0-based")
        sizes = {"layer": len(layers)} | patches
        text = f"{cue.reading} of the patch, heads reduced"
        group.add(cue.reading, sizes, "float32", text, units_of(cue.base), cue.site)
    if cue.casts_rays:
        text = "difference of the depth that the state alone predicts, as a share of the depth"
        group.add(cue.reading, patches, "float32", text, "1", source)


def _state(
    group: Group, backbone: Backbone, grid: tuple[int, int], frames: int, *, keep: bool
) -> None:
    of_tokens = state_group(backbone, grid, frames)
    group.grows, group.keeps_state = of_tokens.grows, keep
    group.variables |= of_tokens.variables
    source = f"state after the frame, {backbone.update}"
    for item in backbone.state_variables(grid, frames):
        if keep or not item.kept:
            group.add(item.name, item.sizes, item.dtype, item.long_name, item.units, source)


def _truth(group: Group, sequence: xr.Dataset, height: int, width: int) -> None:
    pixels = _pixels(group, height, width)
    for name, dims in TRUTH_DIMS.items():
        if name in sequence:
            known = sequence[name]
            sizes = pixels if dims == ("y", "x") else {dim: known.sizes[dim] for dim in dims}
            group.add(
                name,
                sizes,
                known.dtype,
                *(known.attrs[label] for label in ("long_name", "units", "source")),
            )
    if "motion_known" in sequence.coords:
        text = "whether the frame has a true motion mask; it is empty where not"
        group.coordinate("motion_known", "frame", sequence["motion_known"].values, text)


def _check_indices(field: str, indices: np.ndarray, count: int, what: str) -> None:
    outside = [int(index) for index in indices if index >= count]
    if outside:
        raise InvalidArgument(
            f"capture asks for {field} {outside}, but {what.format(count)} (0 to {count - 1})"
        )
