"""The loop over frames: one step of the backbone, everything asked for, nothing kept."""

import signal
import threading
import time
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import psutil
import torch
import xarray as xr
from tqdm.auto import tqdm

from mut3r_analysis.attention.capture import Capture
from mut3r_analysis.attention.recorder import Recorder
from mut3r_analysis.backbones.cut3r import CUT3R, Frame, State, Step
from mut3r_analysis.backbones.geometry import focal_length, pose_matrix
from mut3r_analysis.backbones.heads import check_outputs
from mut3r_analysis.errors import BudgetExceeded, InvalidArgument
from mut3r_analysis.running.opening import open_run
from mut3r_analysis.running.planning import plan
from mut3r_analysis.running.provenance import provenance, timestamp
from mut3r_analysis.running.schema import TRUTH_DIMS, Schema, run_schema
from mut3r_analysis.running.store import BlockWriter, create_store

Found = dict[str, dict[str, np.ndarray]]


def run(
    backbone: CUT3R,
    sequence: xr.Dataset,
    *,
    cue: None = None,
    gate: None = None,
    capture: Capture | None = None,
    commit: str = "rw.gg",
    outputs: Collection[str] | None = None,
    out: str | Path | None = None,
    progress: bool = True,
) -> xr.DataTree:
    """Run a backbone over a sequence and record what it does.

    Frames are read, processed and stored one by one: memory does not grow with their number.

    Parameters
    ----------
    backbone : CUT3R
    sequence : xarray.Dataset
        From :func:`~mut3r_analysis.open_sequence`.
    cue, gate : None
        The plain backbone.
    capture : Capture, optional
        What to record of attention; None records none.
    commit : {"rw.gg"}
        Which pass is read and which is written; without a gate there is one pass.
    outputs : collection of str, optional
        Names among ``pose``, ``depth``, ``points_self``, ``points_world``, ``color``; None computes
        and stores all. The dense heads are more than a third of the cost of a frame.
    out : path, optional
        Store to write (Zarr v3, must not exist); None keeps the run in memory.
    progress : bool
        Show a progress bar with frames per second and memory.

    Returns
    -------
    xarray.DataTree
        The run, read lazily; :func:`~mut3r_analysis.open_run` gives the same later.

    Raises
    ------
    InvalidArgument
        For arguments that contradict each other, before anything is written.
    BudgetExceeded
        When ``capture.budget`` is smaller than what would be stored, before anything is written.
    AlreadyExists
        When `out` exists.
    StoreError
        When the disk refuses; whole frames stay readable.

    Notes
    -----
    When the process is interrupted or terminated, the frames that are done are written and the
    store says how many; when it is killed, those of the last whole block are.
    """
    if cue is not None or gate is not None:
        raise InvalidArgument("this version runs the plain backbone: leave cue and gate at None")
    if commit != "rw.gg":
        raise InvalidArgument(f"commit = {commit!r} needs a gate; without one use 'rw.gg'")
    names = check_outputs(outputs, backbone.config.rgb_head)
    schema = run_schema(backbone, sequence, capture, names)
    if capture is not None and capture.budget is not None:
        priced = plan(backbone, sequence, capture=capture, outputs=names)
        if priced.stored_bytes > capture.budget:
            raise BudgetExceeded(
                f"this run would store {priced.stored_bytes:,} bytes, its budget is "
                f"{capture.budget:,}; nothing was run. Capture fewer frames, layers, sites or "
                "statistics, or no maps: plan(...) lists what takes how much"
            )
    attrs = provenance(backbone, sequence, capture, commit, names)
    root, block = create_store(schema, attrs, out)
    writer = BlockWriter(root, schema, block)
    with _termination_as_interrupt():
        try:
            for position, found in enumerate(
                _frames(backbone, sequence, schema, capture, names, progress)
            ):
                writer.add(position, found)
        finally:
            # Also after an interrupt or an unreadable frame: what is done is worth keeping.
            writer.flush()
    root.attrs.update({"complete": True, "finished": timestamp()})
    return open_run(root.store if out is None else out)


def _frames(
    backbone: CUT3R,
    sequence: xr.Dataset,
    schema: Schema,
    capture: Capture | None,
    outputs: Collection[str],
    progress: bool,
) -> Iterator[Found]:
    """Yield all that is known of each frame, group -> name -> array without the frame dimension."""
    recorded = {path.removeprefix("attention/"): group for path, group in schema.items()}
    state = None
    bar = tqdm(
        total=sequence.sizes["frame"],
        desc=str(sequence.attrs.get("name", "sequence")),
        unit="frame",
        disable=not progress,
    )
    with bar, torch.no_grad():
        for position in range(sequence.sizes["frame"]):
            recorder = None
            if capture is not None and any(
                position in group.frames
                for path, group in recorded.items()
                if path in capture.sites
            ):
                recorder = Recorder(capture)
            frame = sequence.isel(frame=position)
            began = time.perf_counter()
            image = torch.from_numpy(backbone.preparation.image(frame["image"].values))
            state = state or backbone.initial_state()
            step = backbone.step(
                Frame(image[None].to(backbone.device)), state, probe=recorder, outputs=outputs
            )
            found = _predictions(step, outputs)
            found["state"] = _state_statistics(state, step, schema)
            if recorder is not None:
                found |= _attention(recorder)
            memory = _peak_memory(backbone.device)
            found["timing"] = {
                "seconds": np.array([time.perf_counter() - began]),
                "peak_memory": np.array([memory]),
            }
            if "truth" in schema:
                found["truth"] = _truth(backbone, frame)
            yield found
            state = step.state
            bar.set_postfix_str(f"{memory / 2**30:.2f} GiB", refresh=False)
            bar.update()


def _predictions(step: Step, outputs: Collection[str]) -> Found:
    prediction = step.prediction
    values: dict[str, torch.Tensor] = {}
    if prediction.pose is not None:
        values["pose"] = pose_matrix(prediction.pose)
    if prediction.points_self is not None and prediction.confidence_self is not None:
        values["depth"] = prediction.points_self[..., 2]
        values["confidence_self"] = prediction.confidence_self
        values["focal"] = focal_length(prediction.points_self)
        if "points_self" in outputs:
            values["points_self"] = prediction.points_self
    if prediction.points_world is not None and prediction.confidence_world is not None:
        values["points_world"] = prediction.points_world
        values["confidence_world"] = prediction.confidence_world
    if prediction.color is not None:
        values["color"] = prediction.color
    return {"prediction": {name: value[0].cpu().numpy() for name, value in values.items()}}


def _state_statistics(before: State, step: Step, schema: Schema) -> dict[str, np.ndarray]:
    after = step.state
    values = {
        "norm": after.tokens.float().norm(dim=-1),
        "update_size": (after.tokens.float() - before.tokens.float()).norm(dim=-1),
        "write_rate": step.rate,
        "memory_norm": after.memory.float().norm(dim=-1),
    }
    if "tokens" in schema["state"].variables:
        values |= {"tokens": after.tokens.float(), "memory": after.memory.float()}
    return {name: value[0].cpu().numpy() for name, value in values.items()}


def _attention(recorder: Recorder) -> Found:
    return {
        f"attention/{kind}": {name: values[0].numpy() for name, values in found.items()}
        for kind, found in recorder.take().items()
    }


def _truth(backbone: CUT3R, frame: xr.Dataset) -> dict[str, np.ndarray]:
    preparation = backbone.preparation
    height, width = frame.sizes["y"], frame.sizes["x"]
    prepare: dict[str, Any] = {
        "depth": preparation.depth,
        "motion_mask": preparation.mask,
        "instance": preparation.mask,
        "intrinsics": lambda matrix: preparation.intrinsics(matrix, height, width),
        "pose": np.asarray,
    }
    return {name: prepare[name](frame[name].values) for name in TRUTH_DIMS if name in frame}


def _peak_memory(device: torch.device) -> int:
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    memory = psutil.Process().memory_info()
    return int(getattr(memory, "peak_wset", memory.rss))


@contextmanager
def _termination_as_interrupt() -> Iterator[None]:
    """Let a polite termination end a run as an interrupt does: with its whole frames written."""

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt(f"received {signal.Signals(number).name}")

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
