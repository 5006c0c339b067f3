"""Runs: everything asked for is computed and stored frame by frame, nothing is kept."""

import json
import signal
import threading
import warnings
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import torch
import xarray as xr
import zarr
from tqdm.auto import tqdm
from zarr.storage import LocalStore

from mut3r_analysis.attention.capture import Capture
from mut3r_analysis.attention.seam import Observer
from mut3r_analysis.backbones.heads import check_outputs
from mut3r_analysis.backbones.in_memory import as_in_memory
from mut3r_analysis.backbones.preparation import Preparation
from mut3r_analysis.backbones.protocol import Backbone
from mut3r_analysis.errors import BudgetExceeded, InvalidArgument
from mut3r_analysis.foundation.paths import user_path
from mut3r_analysis.metrics.protocols import Protocol
from mut3r_analysis.motion.cue import Cue
from mut3r_analysis.motion.gate import Gate
from mut3r_analysis.motion.patch import Patching
from mut3r_analysis.running.batch import Batch
from mut3r_analysis.running.chunks import block_length
from mut3r_analysis.running.claiming import Claim, claimed
from mut3r_analysis.running.commit import Commit
from mut3r_analysis.running.configuration import Configuration
from mut3r_analysis.running.finiteness import first_site, not_finite
from mut3r_analysis.running.grouping import grouped
from mut3r_analysis.running.inputs import as_scored, check_inputs, frame_inputs, identified
from mut3r_analysis.running.inventory import CHANGING
from mut3r_analysis.running.loop import stream
from mut3r_analysis.running.moments import duration
from mut3r_analysis.running.new_store import create_store
from mut3r_analysis.running.opening import open_run
from mut3r_analysis.running.passes import BatchState, FrameResult
from mut3r_analysis.running.pipeline import read_ahead, write_behind
from mut3r_analysis.running.planning import plan
from mut3r_analysis.running.provenance import Observers, provenance, timestamp
from mut3r_analysis.running.recording import Found, known_truth, peak_memory, recorded
from mut3r_analysis.running.schema import Schema, run_schema
from mut3r_analysis.running.store import BlockWriter


def run(
    backbone: Backbone | str | Path,
    sequence: xr.Dataset | str | Path,
    *,
    cue: Cue | None = None,
    gate: Gate | None = None,
    capture: Capture | None = None,
    commit: Commit | str = "rw.gg",
    outputs: Collection[str] | None = None,
    out: str | Path | None = None,
    progress: bool = True,
    protocol: str | Protocol | None = None,
    preparation: str | Preparation | None = None,
    resume: bool = False,
    probe: Observer | None = None,
    intervene: Observer | Patching | None = None,
) -> xr.DataTree:
    """Run a backbone over a sequence and record what it does.

    Frames are read, processed and stored one by one: memory does not grow with their number.

    Parameters
    ----------
    backbone : Backbone, str or Path
        A loaded one, or the name or path of one.
    sequence : xarray.Dataset, str or Path
        From :func:`~mut3r_analysis.open_sequence`, or what that takes; a Dataset that it did not
        make is read once more, for its digest.
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
    protocol : str or Protocol, optional
        Under which the run is to be scored: its frames of the sequence are run, prepared its way.
    preparation : str or Preparation, optional
        ``"crop"`` or ``"resize"``, or a whole preparation, in place of the backbone's.
    resume : bool
        Whether to continue a run that was stopped at `out`: the same run, on the same machine,
        whose numbers are then those of one that was not. What is complete is opened, and where
        nothing is, the run begins.
    probe : callable, optional
        Shown ``(site, q, k, v, out)`` at every site of the encoder, of the pass that is read and of
        the heads: rotated queries and keys, values, and what each head writes ``(batch, head,
        query, channel)``. The run records its name.
    intervene : callable, optional
        As `probe`, in every pass; what it returns replaces ``out``, and None leaves it. The run
        records its name, and is no longer described by cue, gate and commit alone. Or a patch,
        :meth:`Patch.of`, which is recorded as data.

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
        When `out` exists, or another process is writing it.
    StoreError
        When the disk refuses; whole frames stay readable.

    Warns
    -----
    UserWarning
        At the first frame whose numbers are NaN or infinite, with the site and layer where that
        begins; ``attrs["not_finite"]`` keeps it.

    Notes
    -----
    When the process is interrupted or terminated, the frames that are done are written and the
    store says how many. When it is killed, the last whole block is there: at most the last
    32 frames are lost, or as many as take 32 MB.
    A run without whole frames leaves nothing.

    Examples
    --------
    >>> scene = m3.open_sequence("scenes/orbit-03", stop=2)
    >>> tree = run("tiny", scene, capture=m3.Capture(statistics="entropy"), progress=False)
    >>> tree["attention/image_self/entropy"].dims
    ('frame', 'layer', 'head', 'query')
    >>> tree["prediction/pose"].shape
    (2, 4, 4)
    """
    backbone, sequence = check_inputs(backbone, sequence, capture)
    backbone, sequence = as_scored(backbone, sequence, protocol, preparation)
    configuration = Configuration(cue=cue, gate=gate, commit=commit)
    seen = Observers(probe, intervene)
    (found,) = _run(
        [configuration], backbone, sequence, capture, outputs, [out], progress, seen, resume
    )
    return found


def run_batch(
    backbone: Backbone | str | Path,
    sequence: xr.Dataset | str | Path,
    configurations: Sequence[Configuration | Mapping[str, Any]],
    *,
    capture: Capture | None = None,
    outputs: Collection[str] | None = None,
    out: Sequence[str | Path] | None = None,
    progress: bool = True,
    probe: Observer | None = None,
    intervene: Observer | Patching | None = None,
) -> list[xr.DataTree]:
    """Run a backbone over a sequence once for several configurations.

    Each frame is encoded once; configurations with the same passes go through the decoder as one
    batch, each with its own state, cue, gate, commit and resets. Results equal runs one by one up
    to float rounding: matrix products of another shape add in another order.

    Parameters
    ----------
    backbone, sequence, capture, outputs, progress, probe, intervene
        As for :func:`run`; the callables are shown all configurations of a batch at once.
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

    Examples
    --------
    >>> gates = [m3.Gate.mut3r(beta=beta) for beta in (0.5, 2.0)]
    >>> configurations = [{"cue": m3.Cue.mut3r(), "gate": gate} for gate in gates]
    >>> weak, strong = run_batch("tiny", sequence, configurations, progress=False)
    >>> strong["cue/motion"].dims
    ('frame', 'patch_row', 'patch_col')
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
    seen = Observers(probe, intervene)
    return _run(checked, backbone, sequence, capture, outputs, places, progress, seen)


def _run(
    configurations: Sequence[Configuration],
    backbone: Backbone | str | Path,
    sequence: xr.Dataset | str | Path,
    capture: Capture | None,
    outputs: Collection[str] | None,
    places: Sequence[str | Path | None],
    progress: bool,
    seen: Observers,
    resume: bool = False,
) -> list[xr.DataTree]:
    backbone, sequence = check_inputs(backbone, sequence, capture)
    backbone = as_in_memory(backbone)
    names = check_outputs(outputs, backbone.outputs)
    for configuration in configurations:
        configuration.check(backbone, sequence, names)
        _check_budget(backbone, sequence, configuration, capture, names)
    if isinstance(seen.intervene, Patching) and len({c.captured_pass for c in configurations}) > 1:
        raise InvalidArgument(
            "a patch acts in the pass that is read, and these configurations read different ones; "
            "run them one by one"
        )
    stores = [None if place is None else user_path(place) for place in places]
    if resume and None in stores:
        raise InvalidArgument("resume=True continues a run in its store; name it with out=")
    sequence = identified(sequence)
    schemas = [
        run_schema(backbone, sequence, capture, names, configuration)
        for configuration in configurations
    ]
    roots, writers = [], []
    with _termination_as_interrupt(), ExitStack() as held:
        claims = [
            None if store is None else held.enter_context(claimed(store, resume=resume))
            for store in stores
        ]
        for configuration, schema, claim in zip(configurations, schemas, claims, strict=True):
            attrs = provenance(backbone, sequence, capture, configuration, names, seen)
            root, block = _begun(schema, attrs, claim)
            keep = claim.keep if claim and len(claims) == 1 else None
            roots.append(root)
            writers.append(BlockWriter(root, schema, block, keep))
        first = claims[0]
        if not (first and first.complete):
            carried = first.carried(backbone.device) if first and first.frames else None
            frames = _frames(
                configurations, backbone, sequence, schemas, capture, names, progress, seen,
                writers[0].complete, carried,
            )  # fmt: skip
            _write(frames, writers)
            for root in roots:
                root.attrs.update({"complete": True, "finished": timestamp()})
    return [
        open_run(root.store if store is None else store)
        for root, store in zip(roots, stores, strict=True)
    ]


def _begun(schema: Schema, attrs: dict[str, Any], claim: Claim | None) -> tuple[zarr.Group, int]:
    """Return the store of a run and the length of its blocks, new or to go on with."""
    if claim is None or not claim.frames:
        return create_store(schema, attrs, None if claim is None else claim.out)
    root = zarr.open_group(LocalStore(claim.out), mode="r+")
    differing = [
        f"{name} (there {root.attrs.get(name)!r:.60}, now {value!r:.60})"
        for name, value in json.loads(json.dumps(attrs)).items()
        if name not in CHANGING | {"started"} and root.attrs.get(name) != value
    ]
    if differing:
        raise InvalidArgument(
            f"{claim.out} cannot be resumed by a different run: {', '.join(differing)} differ. Run "
            "with the settings that it was begun with, or to another store"
        )
    return root, block_length(schema)


def _write(frames: Iterator["_Recorded"], writers: Sequence[BlockWriter]) -> None:
    def write(frame: _Recorded) -> None:
        for index, writer in enumerate(writers):
            if index in frame.not_finite and not writer.notes:
                writer.notes["not_finite"] = frame.not_finite[index]
            writer.add(frame.position, frame.found[index], frame.carried)

    try:
        with write_behind(write) as hand_over:
            for frame in frames:
                for bad in frame.not_finite.values():
                    _warn_not_finite(bad)
                hand_over(frame)
    finally:
        # Also after an interrupt or an unreadable frame: what is done is worth keeping.
        _flush(writers)


def _warn_not_finite(bad: Mapping[str, Any]) -> None:
    where = f"{bad['site']}, layer {bad['layer']}" if "site" in bad else "the heads"
    warnings.warn(
        f"the numbers of this run are NaN or infinite from frame {bad['frame']} on: "
        f"{bad['variable']}, which begins at {where}",
        stacklevel=5,
    )


@dataclass(frozen=True, eq=False)
class _Recorded:
    """What is known of a frame: by configuration, what is stored and where it is not finite."""

    position: int
    found: dict[int, Found]
    not_finite: dict[int, dict[str, Any]]
    carried: BatchState


def _flush(writers: Sequence[BlockWriter]) -> None:
    """Let every writer write what it holds, also when one of them fails."""
    with ExitStack() as stack:
        for writer in reversed(writers):
            stack.callback(writer.flush)


def _check_budget(
    backbone: Backbone,
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


def _found(
    backbone: Backbone,
    results: Sequence[FrameResult],
    groups: Sequence[Sequence[int]],
    configurations: Sequence[Configuration],
    schemas: Sequence[Schema],
    truth: dict[str, np.ndarray],
    memory: int,
) -> dict[int, Found]:
    """Return what is stored of a frame, by configuration."""
    found: dict[int, Found] = {}
    for result, group in zip(results, groups, strict=True):
        for sample, index in enumerate(group):
            found[index] = recorded(
                backbone,
                result,
                sample,
                cue=configurations[index].cue,
                schema=schemas[index],
                truth=truth,
            )
    # A GPU has by then done what these times are of: the arrays came from it.
    for result, group in zip(results, groups, strict=True):
        probing, whole, shared = map(duration, (result.probing, result.whole, result.shared))
        before = probing / len(group)
        rest = (whole - probing) / len(group) + shared / len(configurations)
        for index in group:
            seconds = (before, rest) if configurations[index].probes else (before + rest,)
            found[index]["timing"] = {
                "seconds": np.array(seconds),
                "peak_memory": np.full(len(seconds), memory),
            }
    return found


def _recorded_frames(schema: Schema) -> set[int]:
    """Return the positions at which attention is recorded."""
    groups = (group for path, group in schema.items() if path.startswith("attention/"))
    return {frame for group in groups for frame in group.frames.tolist()}


def _frames(
    configurations: Sequence[Configuration],
    backbone: Backbone,
    sequence: xr.Dataset,
    schemas: Sequence[Schema],
    capture: Capture | None,
    outputs: Collection[str],
    progress: bool,
    seen: Observers,
    start: int = 0,
    carried: BatchState | None = None,
) -> Iterator[_Recorded]:
    """Yield all that is known of each frame, for every configuration."""
    groups = grouped(backbone, configurations, sequence.sizes["y"], sequence.sizes["x"])
    batches = [
        Batch(backbone, [configurations[i] for i in group], capture=capture, outputs=outputs,
              probe=seen.probe, intervene=seen.intervene)
        for group in groups
    ]  # fmt: skip
    bar = tqdm(
        total=sequence.sizes["frame"],
        desc=str(sequence.attrs.get("name", "sequence")),
        unit="frame",
        disable=not progress,
        initial=start,
    )
    recorded_frames = _recorded_frames(schemas[0])
    inputs = partial(frame_inputs, backbone, sequence, configurations, recorded=recorded_frames)
    if backbone.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(backbone.device)
    told: set[int] = set()
    states = [batch.start() for batch in batches] if carried is None else [carried]
    with bar, read_ahead(inputs(start=start)) as coming:
        for position, results in enumerate(stream(batches, coming, states), start):
            frame = sequence.isel(frame=position)
            truth = known_truth(backbone, frame) if "truth" in schemas[0] else {}
            memory = peak_memory(backbone.device)
            with batches[0].computing():
                found = _found(backbone, results, groups, configurations, schemas, truth, memory)
            bad: dict[int, dict[str, Any]] = {}
            for batch, group, state in zip(batches, groups, states, strict=True):
                new = {i: not_finite(found[i]) for i in group if i not in told}
                if any(new.values()):
                    given = list(inputs(start=position, stop=position + 1))
                    site = first_site(batch, given, state, outputs)
                    where = {"frame": frame["frame"].item(), "position": position, **site}
                    bad |= {i: {**where, "variable": name} for i, name in new.items() if name}
            told |= set(bad)
            states = [result.carried for result in results]
            yield _Recorded(position, found, bad, states[0])
            bar.set_postfix_str(f"{memory / 2**30:.2f} GiB", refresh=False)
            bar.update()


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
