"""Moving content let in by one path only: what is read, what is written, or both."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
import xarray as xr

from mut3r_analysis.backbones.geometry import pose_matrix
from mut3r_analysis.backbones.protocol import Backbone
from mut3r_analysis.running.batch import Batch, encode_frame
from mut3r_analysis.running.configuration import Configuration
from mut3r_analysis.running.grouping import grouped
from mut3r_analysis.running.inputs import frame_inputs
from mut3r_analysis.running.passes import BatchState, EncodedFrame, FrameResult
from mut3r_analysis.studies.labelling import described
from mut3r_analysis.studies.trajectories.path_parts import apart

INJECTIONS = ("none", "image", "state", "both")
"""By which path a frame meets moving content.

``none``: everything rests. ``image``: predictions are read from the frame in which something moves,
with a state that was written from resting frames only. ``state``: predictions are read from the
resting frame, with a state that was written from the moving frames before. ``both``: what happens
in a video.
"""

_VARIABLES = {
    "after": ("frames after the injection ended", "1"),
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
    checked = [Configuration.of(configurations[name]) for name in names]
    groups = grouped(backbone, checked, pair.sizes["y"], pair.sizes["x"])
    batches = [
        Batch(backbone, [checked[i] for i in group], outputs=("pose", "depth")) for group in groups
    ]
    order = [index for group in groups for index in group]
    carried = [(batch.start(),) * 2 for batch in batches]
    start, stop = pair.attrs["start"], pair.attrs["stop"]
    rows = []
    for position in range(pair.sizes["frame"]):
        contents = 2 if start <= position < stop else 1
        seen = [
            encode_frame(batches, given)
            for i in range(contents)
            for given in frame_inputs(
                backbone, pair.isel(content=i), checked, start=position, stop=position + 1
            )
        ]
        same = ~backbone.preparation.mask(pair["changed"][position].values).astype(bool)
        results = []
        for number, batch in enumerate(batches):
            found, carried[number] = _four(batch, number, seen, carried[number], position, start)
            results.append(found)
        rows.append(_compared(results, order, same if same.any() else ~same))
    table = xr.concat(rows, dim="after").transpose("configuration", "injection", "after")
    table = table.assign_coords(
        configuration=names, injection=list(INJECTIONS),
        after=np.arange(pair.sizes["frame"]) - stop + 1,
    )  # fmt: skip
    positions = np.arange(pair.sizes["frame"])
    table["in_view"] = ("after", (positions >= start) & (positions < stop))
    return described(table, _VARIABLES)


def _four(
    batch: Batch,
    number: int,
    seen: Sequence[EncodedFrame],
    carried: tuple[BatchState, BatchState],
    position: int,
    start: int,
) -> tuple[list[tuple[FrameResult, BatchState]], tuple[BatchState, BatchState]]:
    """Return per injection what was read and what is carried on, and the two states to go on with.

    A step never changes what it is given, so a reading that is not written is one whose carried
    state is left aside.
    """

    def step(frame: EncodedFrame, before: BatchState) -> FrameResult:
        return batch.step(frame, before, number=number)

    clean = step(seen[0], carried[0])
    if position < start:
        return [(clean, clean.carried)] * 4, (clean.carried,) * 2
    if len(seen) == 1:
        marked = step(seen[0], carried[1])
        read = (clean, clean, marked, marked)
    else:
        image = step(seen[1], carried[0])
        # Until a moving frame was written the two states are one.
        first = position == start
        marked = image if first else step(seen[1], carried[1])
        read = (clean, image, clean if first else step(seen[0], carried[1]), marked)
    on = (clean.carried, clean.carried, marked.carried, marked.carried)
    return list(zip(read, on, strict=True)), (clean.carried, marked.carried)


def _compared(
    results: Sequence[Sequence[tuple[FrameResult, BatchState]]],
    order: Sequence[int],
    same: np.ndarray,
) -> xr.Dataset:
    """Return the distances of one frame, (configuration, injection)."""

    def gathered(what: str) -> np.ndarray:
        parts = [
            np.stack([_value(what, *one).double().cpu().numpy() for one in found], axis=1)
            for found in results
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


def _value(what: str, result: FrameResult, carried: BatchState) -> torch.Tensor:
    """One of the compared quantities, with its leading batch."""
    if what == "state":
        return carried.state.tokens
    if what == "memory":
        return carried.state.memory
    pose, points = result.prediction.pose, result.prediction.points_self
    # Both were asked for.
    assert pose is not None
    assert points is not None
    return pose_matrix(pose) if what == "pose" else points[..., 2]
