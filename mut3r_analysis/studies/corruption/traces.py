"""Does gating keep moving content out of the memory? Let in by one path only, it is measured."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
import xarray as xr
from tqdm.auto import tqdm

from mut3r_analysis.backbones.geometry import pose_matrix
from mut3r_analysis.backbones.protocol import Backbone
from mut3r_analysis.errors import InvalidArgument
from mut3r_analysis.foundation.labelling import beside, described
from mut3r_analysis.motion import Cue, Gate
from mut3r_analysis.running.batch import Batch
from mut3r_analysis.running.configuration import Configuration
from mut3r_analysis.running.grouping import grouped
from mut3r_analysis.running.inputs import frame_inputs
from mut3r_analysis.running.loop import encode_frame
from mut3r_analysis.running.passes import BatchState, EncodedFrame, FrameResult
from mut3r_analysis.sequences import open_sequence
from mut3r_analysis.studies.ablation import PLAIN, SHUFFLED, Ablation, against_control, in_words
from mut3r_analysis.studies.corruption.content_pairs import content_pair
from mut3r_analysis.studies.estimates import change, estimate
from mut3r_analysis.studies.finding import Finding, row, rows
from mut3r_analysis.studies.trajectories.path_parts import apart
from mut3r_analysis.studies.trajectories.read_write import cues_compared

QUESTION = "Does state-to-image gating protect the memory from moving content?"
ALL_GATES = "all three"


def gates_by_direction(beta: float, *, edition: int = 2) -> dict[str, Gate | None]:
    """Return MUT3R's gates: none, each direction alone, and all three.

    Parameters
    ----------
    beta : float
        Sharpness.
    edition : {2, 1}
        Of :meth:`Gate.mut3r`.
    """
    order = ("state_to_image", "image_to_state", "image_self")
    alone = {name: Gate.mut3r(beta, directions=[name], edition=edition) for name in order}
    return {PLAIN: None, **alone, ALL_GATES: Gate.mut3r(beta, edition=edition)}


def measure_injections(
    backbone: Backbone,
    sequences: Sequence[str | xr.Dataset],
    gates: Mapping[str, Gate | None],
    *,
    cues: Mapping[str, Cue] | None = None,
    commits: Mapping[str, str] | None = None,
    frames: int | None = None,
    window: tuple[int, int] | None = None,
    progress: bool = True,
) -> xr.Dataset:
    """Inject moving content into every sequence, under every gate and cue.

    Parameters
    ----------
    backbone : Backbone
    sequences : sequence of str or Dataset
    gates : mapping of str to Gate or None
        Among them `PLAIN`, which is the same for all cues.
    cues : mapping of str to Cue, optional
        Those of :func:`cues_compared` unless given. Masks are those of the pairs: what of the
        frame moves, as far as it is known.
    commits : mapping of str to str, optional
        Name of a gate to the commit it goes with, such as ``"rw.gp"``; ``"rw.gg"`` unless given.
    frames : int, optional
        At most so many of each sequence.
    window : (int, int), optional
        As of `content_pair`.
    progress : bool

    Returns
    -------
    Dataset
        What `inject` measures, over ``sequence``, ``gate``,
        ``cue``, ``injection`` and ``after``; ``moving_share`` (sequence), pixels that show
        something else within the window, %. Attributes: ``skipped``, sequences left out and why;
        ``contents``, what moves.
    """
    if gates.get(PLAIN, 0) is not None:
        raise InvalidArgument(f"gates need {PLAIN!r}: None, which all others are compared with")

    cues = cues_compared() if cues is None else cues

    def configure(gate: str, cue: str) -> dict[str, Any] | None:
        if gates[gate] is None:
            return None
        commit = (commits or {}).get(gate, "rw.gg")
        return {"cue": cues[cue], "gate": gates[gate], "commit": commit}

    study = Ablation({"gate": list(gates), "cue": list(cues)}, configure, "{}, {}")
    parts, skipped, contents = {}, [], []
    bar = tqdm(sequences, desc="sequences", disable=not progress)
    for given in bar:
        sequence = open_sequence(given, stop=frames)
        bar.set_postfix_str(str(sequence.attrs["name"]))
        try:
            pair = content_pair(sequence, window)
        except InvalidArgument as error:
            skipped.append(f"{sequence.attrs['name']}: {error}")
            continue
        found = inject(backbone, pair, study.configurations)
        part = study.unfolded(found.transpose("after", ...))
        inside = slice(pair.attrs["start"], pair.attrs["stop"])
        part["moving_share"] = 100 * float(pair["changed"][inside].mean())
        parts[pair.attrs["name"]] = part
        contents.append(pair.attrs["how"])
    if not parts:
        raise InvalidArgument("nothing could be injected:\n  " + "\n  ".join(skipped))
    table = beside(parts, "sequence")
    described(table, {"moving_share": ("pixels that differ within the window", "%")})
    # Frames that a shorter sequence does not have.
    table["in_view"] = table["in_view"].fillna(False).astype(bool)
    return table.assign_attrs(
        skipped="; ".join(skipped),
        contents=" or ".join(dict.fromkeys(contents)),
        source=f"{backbone.origin.name}, {len(parts)} sequences",
    )


def while_in_view(table: xr.Dataset) -> xr.Dataset:
    """Return the mean over the frames of the window."""
    return _mean_after(table, table["in_view"])


def afterwards(table: xr.Dataset) -> xr.Dataset:
    """Return the mean over all frames after the window."""
    return _mean_after(table, table["after"] > 0)


def remaining(table: xr.Dataset, injection: str = "state") -> xr.Dataset:
    """Return what gates change of the distances that an injection leaves behind.

    Parameters
    ----------
    table : Dataset
        From :func:`measure_injections`.
    injection : str

    Returns
    -------
    Dataset
        Dims ``measure``, ``gate`` and ``cue``: ``value``, ``lower`` and ``upper`` in percent of the
        distance without gates (negative: gates protect), and ``n``.
    """
    later = afterwards(table).sel(injection=injection, drop=True)
    parts = {
        name: change(later[name].drop_sel(gate=PLAIN), later[name].sel(gate=PLAIN, drop=True))
        for name in ("state", "memory", "translation", "rotation", "depth")
    }
    found = beside(parts, "measure")
    return described(found, {"value": ("change of what is left behind", "%")})


def finding(table: xr.Dataset) -> Finding:
    """Tell what injections leave behind, and what gates change of it.

    Parameters
    ----------
    table : Dataset
        From :func:`measure_injections`.
    """
    later, seen = afterwards(table), while_in_view(table)
    cue = table["cue"].values[0]
    plain = {"gate": PLAIN, "cue": cue}
    state = remaining(table).sel(measure="state", drop=True)
    found = []
    if (gate := "state_to_image") in table["gate"].values:
        traces = state.sel(gate=gate, drop=True)
        traces = traces.assign_coords(cue=[in_words(each) for each in traces["cue"].values])
        effect = "the trace of motion with the {}"
        found += rows(traces, effect)
    lead = sum(not each.endswith(SHUFFLED) for each in table["cue"].values[: len(found)].tolist())
    if lead and any(each.endswith(SHUFFLED) for each in table["cue"].values.tolist()):
        errors = later["state"].sel(gate=gate, injection="state", drop=True)
        found += rows(against_control(errors), f"{effect}, against shuffled scores")
    if ALL_GATES in table["gate"].values:
        first = {"gate": ALL_GATES, "cue": cue}
        gates = f"gates in {ALL_GATES} directions with the {in_words(cue)}"
        found.append(row(f"the trace of motion by {gates}", state.sel(first)))
        price = f"change of the state at rest by {gates}"
        found.append(row(price, estimate(later["price"].sel(first)), reference=None))
    names = ("state", "translation", "depth")
    left = {name: estimate(later[name].sel(plain, drop=True)) for name in names}
    for name, cells in left.items():
        effect = f"{name} left behind by frames that are written"
        found.append(row(effect, cells.sel(injection="state"), None))
    effect = "state left behind by frames that are only read"
    found.append(row(effect, left["state"].sel(injection="image"), None))
    through = estimate(seen["depth"].sel(plain, drop=True)).sel(injection=["image", "state"])
    found += rows(through, "change of depth in view, through the {}", None)
    about = "Gating where the state reads the image"
    note = f"Moving: {table.attrs['contents']}."
    return Finding(QUESTION, found, about, note, lead)


def _mean_after(table: xr.Dataset, chosen: xr.DataArray) -> xr.Dataset:
    measures = [name for name in table.data_vars if "after" in table[name].dims]
    with xr.set_options(keep_attrs=True):
        return table[measures].where(chosen).mean("after")


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
    read = [[_read(*one) for one in found] for found in results]

    def gathered(what: str) -> np.ndarray:
        parts = [
            np.stack([one[what].double().cpu().numpy() for one in found], axis=1) for found in read
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


def _read(result: FrameResult, carried: BatchState) -> dict[str, torch.Tensor]:
    """Return the compared quantities, each with its leading batch."""
    pose, points = result.prediction.pose, result.prediction.points_self
    # Both were asked for.
    assert pose is not None
    assert points is not None
    state = carried.state
    return {"state": state.tokens, "memory": state.memory, "pose": pose_matrix(pose),
            "depth": points[..., 2]}  # fmt: skip
