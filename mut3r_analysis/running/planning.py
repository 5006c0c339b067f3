"""What a run will cost, before it runs."""

import time
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from html import escape
from pathlib import Path
from typing import Any

import torch
import xarray as xr
from torch.utils.flop_counter import FlopCounterMode

from mut3r_analysis.attention.capture import Capture
from mut3r_analysis.attention.sites import Site
from mut3r_analysis.backbones.heads import check_outputs
from mut3r_analysis.backbones.precision import Precision, arithmetic
from mut3r_analysis.backbones.protocol import Backbone
from mut3r_analysis.backbones.steps import Encoded, Frame, FrameRead, Write
from mut3r_analysis.backbones.write_rules import Rules
from mut3r_analysis.motion.cue import Cue
from mut3r_analysis.motion.gate import Gate
from mut3r_analysis.motion.probe import cue_layers
from mut3r_analysis.running.chunks import block_length, stored_bytes
from mut3r_analysis.running.commit import Commit
from mut3r_analysis.running.configuration import Configuration
from mut3r_analysis.running.inputs import check_inputs
from mut3r_analysis.running.new_store import new_files
from mut3r_analysis.running.provenance import provenance
from mut3r_analysis.running.schema import run_schema

AGAIN = "second reading"
"""Among the operations of a frame: what it costs to read it once more after a chained reset."""


@dataclass(frozen=True)
class PlannedVariable:
    """One array of the store: where, how large."""

    path: str
    dims: tuple[str, ...]
    shape: tuple[int, ...]
    dtype: str
    stored_bytes: int


@dataclass(frozen=True)
class Plan:
    """The price of a run.

    Attributes
    ----------
    variables : tuple of PlannedVariable
    stored_bytes : int
        All the store will hold: arrays, their indices and metadata.
    frames : int
    flops : dict of str to int
        Floating-point operations of one frame, by part of the backbone: a multiply-add is two.
        ``probe`` is what passes before the gated one add, and a pass by rays, without heads. Of
        write rules the signals that a decoder takes are counted, with the decoder. Statistics and
        the gates' own work are not; ``benchmarks/`` measures them.
    read_twice : int
        Frames that the parts before and after a chained reset share. Those of resets by a trigger
        are not known before the run, and not counted.
    again : int
        Operations of such a second reading, which encodes nothing and predicts only what is
        carried on.
    seconds : float
        Rough estimate of the whole run from the speed of a matrix product on this device now.
    """

    variables: tuple[PlannedVariable, ...]
    stored_bytes: int
    frames: int
    flops: dict[str, int]
    read_twice: int
    again: int
    seconds: float

    def __str__(self) -> str:
        rows = [
            (item.path, f"({', '.join(item.dims)})", "x".join(map(str, item.shape)), item.dtype,
             human_bytes(item.stored_bytes))
            for item in self.variables
        ]  # fmt: skip
        widths = [max(len(row[column]) for row in rows) for column in range(5)]
        lines = [
            "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
            for row in rows
        ]
        return "\n".join([*lines, self.summary])

    @property
    def summary(self) -> str:
        """One paragraph: frames, bytes, operations, time."""
        parts = ", ".join(f"{name} {human_flops(value)}" for name, value in self.flops.items())
        again = f"{self.read_twice} read twice, {human_flops(self.again)} each; "
        twice = again if self.read_twice else ""
        return (
            f"{self.frames} frames, {human_bytes(self.stored_bytes)} stored; "
            f"{human_flops(sum(self.flops.values()))} per frame ({parts}); "
            f"{twice}estimated time on this device: {human_seconds(self.seconds)}"
        )

    def _repr_html_(self) -> str:
        rows = "".join(
            f"<tr><td>{escape(item.path)}</td><td>{escape(', '.join(item.dims))}</td>"
            f"<td>{item.shape}</td><td>{item.dtype}</td>"
            f"<td>{human_bytes(item.stored_bytes)}</td></tr>"
            for item in self.variables
        )
        head = "".join(f"<th>{name}</th>" for name in ("array", "dims", "shape", "dtype", "stored"))
        return f"<p>{escape(self.summary)}</p><table><tr>{head}</tr>{rows}</table>"


def plan(
    backbone: Backbone | str | Path,
    sequence: xr.Dataset | str | Path,
    *,
    cue: Cue | None = None,
    gate: Gate | None = None,
    capture: Capture | None = None,
    commit: Commit | str = "rw.gg",
    outputs: Collection[str] | None = None,
) -> Plan:
    """Price a run without running it.

    Parameters
    ----------
    backbone, sequence, cue, gate, capture, commit, outputs
        As for :func:`~mut3r_analysis.run`.

    Returns
    -------
    Plan
        Prints as a table of shapes and bytes, with operations and time below.

    Raises
    ------
    InvalidArgument
        For anything that `run` would refuse.

    Examples
    --------
    >>> priced = plan("tiny", sequence, outputs=("pose",))
    >>> priced.frames, priced.variables[0].path, priced.variables[0].shape
    (3, '/prediction/pose', (3, 4, 4))
    """
    configuration = Configuration(cue=cue, gate=gate, commit=commit)
    return Pricing().plan(backbone, sequence, configuration, capture, outputs)


class Pricing:
    """Prices runs, and counts and measures once what several of them share."""

    def __init__(self) -> None:
        self._flops: dict[Any, dict[str, int]] = {}
        self._speeds: dict[Any, float] = {}

    def plan(
        self,
        backbone: Backbone | str | Path,
        sequence: xr.Dataset | str | Path,
        configuration: Configuration,
        capture: Capture | None,
        outputs: Collection[str] | None,
    ) -> Plan:
        """Price a run, as :func:`plan` does."""
        backbone, sequence = check_inputs(backbone, sequence, capture)
        names = check_outputs(outputs, backbone.outputs)
        configuration.check(backbone, sequence, names)
        schema = run_schema(backbone, sequence, capture, names, configuration)
        block = block_length(schema)
        frames = sequence.sizes["frame"]
        variables = [
            PlannedVariable(
                f"/{path}/{variable.name}",
                variable.dims,
                variable.shape,
                str(variable.dtype),
                stored_bytes(variable, block, len(group.frames) == frames),
            )
            for path, group in schema.items()
            for variable in group.variables.values()
            if variable.values is None
        ]
        flops = dict(self._flops_of(backbone, sequence, names, configuration))
        again = flops.pop(AGAIN, 0)
        commit = configuration.commit
        counted = commit.reset_chain and isinstance(commit.reset, int)
        read_twice = frames // commit.reset if counted else 0
        operations = frames * sum(flops.values()) + read_twice * again
        attrs = provenance(backbone, sequence, capture, configuration, names)
        return Plan(
            tuple(variables),
            sum(item.stored_bytes for item in variables)
            + sum(map(len, new_files(schema, attrs).values())),
            frames,
            flops,
            read_twice,
            again,
            operations / self._speed_of(backbone),
        )

    def _flops_of(
        self,
        backbone: Backbone,
        sequence: xr.Dataset,
        outputs: Collection[str],
        configuration: Configuration,
    ) -> dict[str, int]:
        cue = configuration.cue
        key = (
            backbone,
            backbone.preparation.shape(sequence.sizes["y"], sequence.sizes["x"]),
            # Only a memory that grows costs more in a longer sequence.
            sequence.sizes["frame"] if backbone.state_grows else None,
            tuple(outputs),
            configuration.probes,
            cue and (cue.site, cue.layers, cue.source, cue.reading),
            configuration.commit.keeps_probe,
            configuration.commit.rate,
            configuration.commit.reset_chain,
        )
        if key not in self._flops:
            self._flops[key] = frame_flops(backbone, sequence, outputs, configuration)
        return self._flops[key]

    def _speed_of(self, backbone: Backbone) -> float:
        key = backbone.device, backbone.precision
        if key not in self._speeds:
            self._speeds[key] = _matmul_speed(*key)
        return self._speeds[key]


def frame_flops(
    backbone: Backbone,
    sequence: xr.Dataset,
    outputs: Collection[str],
    configuration: Configuration | None = None,
) -> dict[str, int]:
    """Operations of one frame by part, counted on a copy without memory.

    Where parts are chained, :data:`AGAIN` is what a second reading of a frame costs.
    """
    height, width = backbone.preparation.shape(sequence.sizes["y"], sequence.sizes["x"])
    configuration = configuration or Configuration()
    named = configuration.commit.rate
    rules = backbone.rules.times([named])
    with torch.device("meta"), torch.no_grad():
        shadow = backbone.shadow()
        frame = Frame(torch.empty(1, 3, height, width))
        # From the second frame on, which all but one are, the memories are read.
        state = shadow.meta_state(shadow.patch_grid(height, width), sequence.sizes["frame"])
        last_read = _last_read(shadow, configuration)
        counts: dict[str, int] = {}

        def count(part: str, before: int) -> int:
            total = counter.get_total_flops()
            counts[part] = total - before
            return total

        with FlopCounterMode(display=False) as counter:
            encoded = shadow.encode(frame)
            if shadow.looks_ahead:
                encoded = replace(encoded, following=encoded)
            total = count("encoder", 0)
            entered = shadow.enter(encoded, state)
            before = counter.get_total_flops()
            reached: list[int] = []

            def watch(site: Site, q: torch.Tensor, k: torch.Tensor) -> None:
                if site == last_read:
                    reached.append(counter.get_total_flops() - before)

            # Who watches has a decoder do what it could leave out, and so must a run do it.
            decoded = shadow.decode(
                entered,
                probe=watch if configuration.probes else None,
                signals=rules.signals if named else (),
            )
            total = count("decoder and memory", total)
            whole = total - before
            prediction = shadow.predict(decoded, {*outputs, *shadow.commit_needs, *rules.outputs})
            heads = count("heads", total)
            read = FrameRead(frame, encoded, decoded, prediction)
            shadow.commit(read, state, _write(rules, encoded, decoded) if named else Write())
            counts["decoder and memory"] += counter.get_total_flops() - heads
            before = counter.get_total_flops()
            world = ("points_world",) if configuration.reads_head else ()
            if carried := {*shadow.commit_needs, *rules.outputs, *world}:
                shadow.predict(decoded, carried)
            heads_again = counter.get_total_flops() - before
    cue, probe = configuration.cue, _probe_flops(configuration, whole, reached)
    if cue is not None and (configuration.probes or cue.casts_rays):
        counts["probe"] = probe
    if configuration.commit.reset_chain:
        counts[AGAIN] = counts["decoder and memory"] + probe + heads_again
    return counts


def _probe_flops(configuration: Configuration, whole: int, reached: Sequence[int]) -> int:
    """Operations of what passes add before the pass that is read, and of a pass by rays.

    `whole` are those of a decoder's pass, `reached` those until the cue has read its last layer,
    where a pass that is only measured ends.
    """
    cue, found = configuration.cue, 0
    if cue is not None and cue.casts_rays:
        found += whole
    if configuration.probes and cue is not None:
        kept = configuration.commit.keeps_probe
        found += kept * whole + max(cue.passes - kept, 0) * (reached or [whole])[0]
    return found


def _write(rules: Rules, encoded: Encoded, decoded: Any) -> Write:
    """Return a write by rules that a commit names, with what a cue would give them."""
    signals = {
        "motion": torch.empty(encoded.features.shape[:2]),
        "static_mass": torch.empty(decoded.proposal.shape[:2]),
    }
    return Write(rules=rules, signals={name: signals[name] for name in rules.needs & set(signals)})


def _last_read(backbone: Backbone, configuration: Configuration) -> Site | None:
    """Return the site at which a pass that is only measured ends; None where there is none."""
    cue = configuration.cue
    if cue is None or not cue.measured:
        return None
    return Site(cue.site, cue_layers(cue, backbone.sites())[-1])


def _matmul_speed(device: torch.device, precision: Precision) -> float:
    """Floating-point operations per second of a matrix product, measured for some milliseconds."""
    size = 4096 if device.type == "cuda" else 1024  # a GPU has done a small one before it is timed
    best = float("inf")
    with arithmetic(precision, device):
        a = torch.ones(size, size, device=device, dtype=precision.dtype)
        for _ in range(3):
            began = time.perf_counter()
            (a @ a)[0, 0].item()
            best = min(best, time.perf_counter() - began)
    return 2 * size**3 / best


def human_bytes(count: float) -> str:
    """Return bytes in the unit a person would choose."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if count < 1024:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.1f} TiB"


def human_flops(count: float) -> str:
    """Return floating-point operations in the unit a person would choose."""
    return f"{count / 1e9:.1f} GFLOP" if count >= 1e9 else f"{count / 1e6:.3g} MFLOP"


def human_seconds(seconds: float) -> str:
    """Return a duration in the unit a person would choose."""
    if seconds < 1:
        return "under a second"
    if seconds < 120:
        return f"{seconds:.0f} s" if seconds >= 10 else f"{seconds:.1f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
