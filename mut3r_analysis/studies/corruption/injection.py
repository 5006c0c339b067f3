"""Moving content let in by one path only: what is read, what is written, or both."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
import xarray as xr

from mut3r_analysis.backbones.protocol import Backbone
from mut3r_analysis.backbones.geometry import pose_matrix
from mut3r_analysis.running.branch import Branch, look
from mut3r_analysis.running.configuration import Configuration
from mut3r_analysis.running.grouping import grouped
from mut3r_analysis.running.passes import Carried, Outcome, Sight
from mut3r_analysis.running.streaming import masks_for, prepared
from mut3r_analysis.studies.trajectories.path_parts import apart

INJECTIONS = ("none", "image", "state", "both")
"""By which path a frame meets moving content.

``none``: everything rests. ``image``: predictions are read from the frame in which something moves,
with a state that was written from resting frames only. ``state``: predictions are read from the
resting frame, with a state that was written from the moving frames before. ``both``: what happens
in a video.
"""

_VARIABLES = {
    "state": ("distance of states", "% of the norm"),
    "memory": ("distance of pose memories", "% of the norm"),
    "translation": ("distance between camera positions", "m"),
    "rotation": ("angle between camera orientations", "degree"),
    "depth": ("difference of depth where both show the same", "% of the mean depth"),
    "price": ("distance of the resting run's state to the ungated one's", "% of the norm"),
}


def inject(
    backbone: Backbone,
    pair: xr.Dataset,
    configurations: Mapping[str, Configuration | Mapping[str, Any]],
) -> xr.Dataset:
    """Let moving content into either path within a window, and measure what differs.

    Two states are carried side by side. One is written from the ``rest`` content throughout; the
    other from the ``moving`` content within the window, and from ``rest`` before and after. Within
    the window each frame is read four times: either content with either state. None of the crossed
    readings is written. So within the window the four injections are a 2 x 2 design; after it the
    content is the same for all, and only what was written can still differ: ``image`` then equals
    ``none`` and ``both`` equals ``state``, by construction. In the first frame of the window no
    moving frame has been written yet, so there ``state`` equals ``none``.

    Parameters
    ----------
    backbone : Backbone
    pair : Dataset
        From `content_pair`.
    configurations : mapping
        Named configurations, the first of which is the plain backbone. Their gates act from the
        first frame on, in all four injections alike.

    Returns
    -------
    Dataset
        Dims ``configuration``, ``injection`` and ``after``, frames after the window ended: 0 is its
        last frame. Distances to ``none`` under the same configuration: ``state`` and ``memory``
        after the frame was written, in percent of the norm; ``translation`` m and ``rotation``
        degrees of the pose; ``depth``, mean absolute difference over the pixels that show the same
        in both contents, in percent of the mean depth. ``price`` (configuration, after): distance
        of the state of ``none`` to that of the first configuration, what gates do to a world at
        rest. ``in_view`` (after): whether the frame lies in the window.
    """
    names = list(configurations)
    settled = [Configuration.of(configurations[name]) for name in names]
    groups = grouped(backbone, settled, pair.sizes["y"], pair.sizes["x"])
    branches = [
        Branch(backbone, [settled[i] for i in group], outputs=("pose", "depth")) for group in groups
    ]
    order = [index for group in groups for index in group]
    carried = [(branch.start(),) * 2 for branch in branches]
    start, stop = pair.attrs["start"], pair.attrs["stop"]
    rows = []
    for position in range(pair.sizes["frame"]):
        contents = 2 if start <= position < stop else 1
        sights = [
            _look(backbone, branches, settled, pair.isel(content=i, frame=position), position)
            for i in range(contents)
        ]
        same = ~backbone.preparation.mask(pair["changed"][position].values).astype(bool)
        outcomes = []
        for number, branch in enumerate(branches):
            found, carried[number] = _four(branch, number, sights, carried[number], position, start)
            outcomes.append(found)
        rows.append(_compared(outcomes, order, same if same.any() else ~same))
    table = xr.concat(rows, dim="after").transpose("configuration", "injection", "after")
    table = table.assign_coords(
        configuration=names, injection=list(INJECTIONS),
        after=np.arange(pair.sizes["frame"]) - stop + 1,
    )  # fmt: skip
    positions = np.arange(pair.sizes["frame"])
    table["in_view"] = ("after", (positions >= start) & (positions < stop))
    table["after"].attrs = {"long_name": "frames after the injection ended", "units": "1"}
    for name, (text, units) in _VARIABLES.items():
        table[name].attrs = {"long_name": text, "units": units}
    return table


def _look(
    backbone: Backbone,
    branches: Sequence[Branch],
    configurations: Sequence[Configuration],
    frame: xr.Dataset,
    position: int,
) -> Sight:
    return look(
        branches,
        prepared(backbone, frame),
        position=position,
        masks=masks_for(configurations, backbone, frame),
    )


def _four(
    branch: Branch,
    number: int,
    sights: Sequence[Sight],
    carried: tuple[Carried, Carried],
    position: int,
    start: int,
) -> tuple[list[tuple[Outcome, Carried]], tuple[Carried, Carried]]:
    """Return per injection what was read and what is carried on, and the two states to go on with.

    A step never changes what it is given, so a reading that is not written is one whose carried
    state is left aside.
    """

    def step(sight: Sight, before: Carried) -> Outcome:
        return branch.step(sight, before, measured=sight.measured[number], record=False)

    clean = step(sights[0], carried[0])
    if position < start:
        return [(clean, clean.carried)] * 4, (clean.carried,) * 2
    if len(sights) == 1:
        marked = step(sights[0], carried[1])
        read = (clean, clean, marked, marked)
    else:
        image = step(sights[1], carried[0])
        # Until a moving frame was written the two states are one.
        first = position == start
        marked = image if first else step(sights[1], carried[1])
        read = (clean, image, clean if first else step(sights[0], carried[1]), marked)
    on = (clean.carried, clean.carried, marked.carried, marked.carried)
    return list(zip(read, on, strict=True)), (clean.carried, marked.carried)


def _compared(
    outcomes: Sequence[Sequence[tuple[Outcome, Carried]]], order: Sequence[int], same: np.ndarray
) -> xr.Dataset:
    """Return the distances of one frame, (configuration, injection)."""

    def gathered(what: str) -> np.ndarray:
        parts = [
            np.stack([_value(what, *one).double().cpu().numpy() for one in found], axis=1)
            for found in outcomes
        ]
        return np.concatenate(parts)[np.argsort(order)]

    dims = ("configuration", "injection")
    found: dict[str, Any] = {}
    for name in ("state", "memory"):
        tokens = gathered(name)
        moved = np.linalg.norm((tokens - tokens[:, :1]).reshape(*tokens.shape[:2], -1), axis=-1)
        norm = np.linalg.norm(tokens[:, :1].reshape(len(tokens), 1, -1), axis=-1)
        found[name] = (dims, 100 * moved / norm)
        if name == "state":
            clean = tokens[:, 0].reshape(len(tokens), -1)
            away = np.linalg.norm(clean - clean[:1], axis=-1) / np.linalg.norm(clean[:1], axis=-1)
            found["price"] = (dims[:1], 100 * away)
    depth = gathered("depth")[..., same]
    found["depth"] = (
        dims, 100 * np.abs(depth - depth[:, :1]).mean(-1) / np.abs(depth[:, :1]).mean(-1),
    )  # fmt: skip
    pose = xr.DataArray(gathered("pose"), dims=(*dims, "row", "col"))
    return xr.Dataset(found).merge(apart(pose, pose.isel(injection=0)))


def _value(what: str, outcome: Outcome, carried: Carried) -> torch.Tensor:
    """One of the compared quantities, with its leading batch."""
    if what == "state":
        return carried.state.tokens
    if what == "memory":
        return carried.state.memory
    pose, points = outcome.prediction.pose, outcome.prediction.points_self
    # Both were asked for.
    assert pose is not None
    assert points is not None
    return pose_matrix(pose) if what == "pose" else points[..., 2]
