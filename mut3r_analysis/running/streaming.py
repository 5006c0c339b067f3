"""The loop over frames: everything asked for is computed and stored, nothing is kept."""

import shutil
import signal
import threading
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import torch
import xarray as xr
from tqdm.auto import tqdm

from mut3r_analysis.attention.capture import Capture
from mut3r_analysis.backbones.cut3r import CUT3R
from mut3r_analysis.backbones.heads import check_outputs
from mut3r_analysis.errors import BudgetExceeded, InvalidArgument
from mut3r_analysis.motion.cue import Cue
from mut3r_analysis.motion.gate import Gate
from mut3r_analysis.motion.readings import MASK
from mut3r_analysis.running.branch import Branch, look
from mut3r_analysis.running.commit import Commit
from mut3r_analysis.running.configuration import Configuration
from mut3r_analysis.running.grouping import grouped
from mut3r_analysis.running.inputs import check_inputs, identified
from mut3r_analysis.running.opening import open_run
from mut3r_analysis.running.planning import plan
from mut3r_analysis.running.provenance import provenance, timestamp
from mut3r_analysis.running.recording import Found, known_truth, peak_memory, recorded
from mut3r_analysis.running.schema import Schema, run_schema
from mut3r_analysis.running.store import BlockWriter, check_free, create_store


def run(
    backbone: CUT3R,
    sequence: xr.Dataset,
    *,
    cue: Cue | None = None,
    gate: Gate | None = None,
    capture: Capture | None = None,
    commit: Commit | str = "rw.gg",
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
        From :func:`~mut3r_analysis.open_sequence`; any other is read once more, for its digest.
    cue : Cue, optional
        How motion is scored. Without a gate it is measured in the plain pass and recorded.
    gate : Gate, optional
        What the motion score does to attention; needs a cue. None is the plain backbone.
    capture : Capture, optional
        What to record of attention; None records none. With gates it is the attention of the pass
        that is read, its logits before any gate acts on them.
    commit : Commit or str
        Which pass is read and which is written, and how much; :meth:`Commit.parse` has the words.
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
        For arguments that contradict each other, before anything is written; for a cue without
        contrast, at the frame where it fails.
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
    configuration = Configuration(cue=cue, gate=gate, commit=commit)
    (found,) = _run([configuration], backbone, sequence, capture, outputs, [out], progress)
    return found


def run_batch(
    backbone: CUT3R,
    sequence: xr.Dataset,
    configurations: Sequence[Configuration | Mapping[str, Any]],
    *,
    capture: Capture | None = None,
    outputs: Collection[str] | None = None,
    out: Sequence[str | Path] | None = None,
    progress: bool = True,
) -> list[xr.DataTree]:
    """Run a backbone over a sequence once for several configurations.

    Each frame is encoded once; configurations with the same passes go through the decoder as one
    batch, each with its own state, cue, gate, commit and resets. Results equal runs one by one up
    to float rounding: matrix products of another shape add in another order.

    Parameters
    ----------
    backbone, sequence, capture, outputs, progress
        As for :func:`run`.
    configurations : sequence of Configuration or mapping
        Mappings have the keys ``cue``, ``gate`` and ``commit``, all of which may be left out.
    out : sequence of path, optional
        One store per configuration; None keeps the runs in memory.

    Returns
    -------
    list of xarray.DataTree
        One run per configuration, in their order. Wall times are each one's share of the batch.

    Raises
    ------
    InvalidArgument, BudgetExceeded, AlreadyExists, StoreError
        As for :func:`run`; the budget is that of each run.
    """
    checked = [Configuration.of(item) for item in configurations]
    if not checked:
        raise InvalidArgument("run_batch needs at least one configuration; {} is the plain one")
    places = [None] * len(checked) if out is None else list(out)
    if len(places) != len(checked) or len({str(place) for place in places if place}) < len(
        [place for place in places if place]
    ):
        raise InvalidArgument(
            f"out must name one store per configuration, all different: {len(checked)} "
            f"configurations, got {[str(place) for place in places]}"
        )
    return _run(checked, backbone, sequence, capture, outputs, places, progress)


def _run(
    configurations: Sequence[Configuration],
    backbone: CUT3R,
    sequence: xr.Dataset,
    capture: Capture | None,
    outputs: Collection[str] | None,
    places: Sequence[str | Path | None],
    progress: bool,
) -> list[xr.DataTree]:
    check_inputs(backbone, sequence, capture)
    names = check_outputs(outputs, backbone.config.rgb_head)
    for configuration in configurations:
        configuration.check(backbone, sequence, names)
        _check_budget(backbone, sequence, configuration, capture, names)
    stores = [None if place is None else Path(place).expanduser() for place in places]
    for store in stores:
        if store is not None:
            check_free(store)
    sequence = identified(sequence)
    schemas = [
        run_schema(backbone, sequence, capture, names, configuration)
        for configuration in configurations
    ]
    roots, writers = [], []
    for configuration, schema, store in zip(configurations, schemas, stores, strict=True):
        attrs = provenance(backbone, sequence, capture, configuration, names)
        root, block = create_store(schema, attrs, store)
        roots.append(root)
        writers.append(BlockWriter(root, schema, block))
    frames = _frames(configurations, backbone, sequence, schemas, capture, names, progress)
    done = 0
    with _termination_as_interrupt():
        try:
            for position, found in enumerate(frames):
                for writer, values in zip(writers, found, strict=True):
                    writer.add(position, values)
                done = position + 1
        finally:
            # Also after an interrupt or an unreadable frame: what is done is worth keeping, and
            # nothing done must not stand in the way of the next try.
            if done:
                _flush(writers)
            else:
                _remove(stores)
    for root in roots:
        root.attrs.update({"complete": True, "finished": timestamp()})
    return [
        open_run(root.store if store is None else store)
        for root, store in zip(roots, stores, strict=True)
    ]


def _flush(writers: Sequence[BlockWriter]) -> None:
    """Let every writer write what it holds, also when one of them fails."""
    with ExitStack() as stack:
        for writer in reversed(writers):
            stack.callback(writer.flush)


def _remove(stores: Sequence[Path | None]) -> None:
    for store in stores:
        if store is not None:
            shutil.rmtree(store, ignore_errors=True)


def _check_budget(
    backbone: CUT3R,
    sequence: xr.Dataset,
    configuration: Configuration,
    capture: Capture | None,
    names: Collection[str],
) -> None:
    if capture is None or capture.budget is None:
        return
    parts = {"cue": configuration.cue, "gate": configuration.gate, "commit": configuration.commit}
    priced = plan(backbone, sequence, capture=capture, outputs=names, **parts)
    if priced.stored_bytes > capture.budget:
        raise BudgetExceeded(
            f"this run would store {priced.stored_bytes:,} bytes, its budget is "
            f"{capture.budget:,}; nothing was run. Capture fewer frames, layers, sites or "
            "statistics, or no maps: plan(...) lists what takes how much"
        )


def _frames(
    configurations: Sequence[Configuration],
    backbone: CUT3R,
    sequence: xr.Dataset,
    schemas: Sequence[Schema],
    capture: Capture | None,
    outputs: Collection[str],
    progress: bool,
) -> Iterator[list[Found]]:
    """Yield all that is known of each frame, for every configuration."""
    groups = grouped(backbone, configurations, sequence.sizes["y"], sequence.sizes["x"])
    branches = [
        Branch(backbone, [configurations[i] for i in group], capture=capture, outputs=outputs)
        for group in groups
    ]
    carried = [branch.start() for branch in branches]
    recorded_frames = {
        frame
        for path, group in schemas[0].items()
        if path.startswith("attention/")
        for frame in group.frames.tolist()
    }
    bar = tqdm(
        total=sequence.sizes["frame"],
        desc=str(sequence.attrs.get("name", "sequence")),
        unit="frame",
        disable=not progress,
    )
    with bar:
        for position in range(sequence.sizes["frame"]):
            frame = sequence.isel(frame=position)
            record = position in recorded_frames
            began = time.perf_counter()
            sight = look(
                branches,
                prepared(backbone, frame),
                position=position,
                masks=masks_for(configurations, backbone, frame),
                capture=capture if record else None,
            )
            found: dict[int, Found] = {}
            shared = time.perf_counter() - began
            truth = known_truth(backbone, frame) if "truth" in schemas[0] else {}
            for number, (branch, group) in enumerate(zip(branches, groups, strict=True)):
                outcome = branch.step(
                    sight, carried[number], measured=sight.measured[number], record=record
                )
                carried[number] = outcome.carried
                memory = peak_memory(backbone.device)
                for sample, index in enumerate(group):
                    before, rest = (part / len(group) for part in outcome.seconds)
                    rest += shared / len(configurations)
                    probes = configurations[index].probes
                    found[index] = recorded(
                        outcome,
                        sample,
                        cue=configurations[index].cue,
                        schema=schemas[index],
                        outputs=outputs,
                        truth=truth,
                        seconds=(before, rest) if probes else (before + rest,),
                        memory=memory,
                    )
            yield [found[index] for index in range(len(configurations))]
            bar.set_postfix_str(f"{memory / 2**30:.2f} GiB", refresh=False)
            bar.update()


def prepared(backbone: CUT3R, frame: xr.Dataset) -> torch.Tensor:
    """Return a frame's image as the backbone takes it, ``(1, rgb, y, x)``."""
    image = torch.from_numpy(backbone.preparation.image(frame["image"].values))
    return image[None].to(backbone.device)


def masks_for(
    configurations: Sequence[Configuration], backbone: CUT3R, frame: xr.Dataset
) -> dict[str, torch.Tensor]:
    """Return the variables of a frame that cues read, ``(1, y, x)``, prepared like the image."""
    names = {
        str(item.cue.of)
        for item in configurations
        if item.cue is not None and item.cue.reading == MASK
    }
    prepare = backbone.preparation.mask
    return {
        name: torch.from_numpy(prepare(frame[name].values))[None].to(backbone.device)
        for name in sorted(names)
    }


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
