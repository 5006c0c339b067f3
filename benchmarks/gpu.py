"""What a GPU does: agreement with the CPU first, then what capturing and gating cost there.

    python benchmarks/gpu.py                  about ten minutes on one GPU, full size
    python benchmarks/gpu.py --quick          a rehearsal on a small model
    python benchmarks/gpu.py --parts asked    one part, here what a frame asks of the device

Each part is tried while the minutes last, and a part that fails is a row and stops no other. Times
are of the device: a call is over when the device has done it. The result joins the README here.
"""

import argparse
import statistics
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
import xarray as xr
from measure import at_most, publish
from torch.profiler import ProfilerActivity, profile
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

import mut3r_analysis as m3
from mut3r_analysis.attention.statistics import STATISTICS, site_statistics
from mut3r_analysis.backbones.heads import check_outputs
from mut3r_analysis.backbones.precision import PRECISIONS
from mut3r_analysis.motion.realisations import REALISATIONS
from mut3r_analysis.running.agreement import differences
from mut3r_analysis.running.batch import Batch
from mut3r_analysis.running.configuration import Configuration
from mut3r_analysis.running.loop import encode_frame
from mut3r_analysis.running.passes import FrameInput

DEVICE = torch.device("cuda")
MODELS = ("small", "point3r-small", "dust3r-small", "spann3r-small", "vggt-small")
COMMITS = (
    "rw.gp",
    "rw.pg",
    "read.split",
    "hold",
    "mix(0.5)",
    "rate.ttt3r",
    "rate.ttsa3r",
    "reset.2",
)
SOURCES = ("two_pass", "two_pass_cut(1)", "previous", "previous_ema(0.5)", "same_site")
CLOSED = [name for name, row in STATISTICS.items() if row.closed_form]
GATED = {"cue": m3.Cue.mut3r(), "gate": m3.Gate.mut3r()}
AGREES = {"float32": 1e-3, "tf32": 5e-2, "bfloat16": 2e-1}
"""Largest difference from the CPU, of an array's largest number."""


@dataclass
class Report:
    """What was found: ratios beside their limits, milliseconds, and what failed."""

    ratios: dict[str, Any] = field(default_factory=dict)
    milliseconds: dict[str, float] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)


def apart(one: xr.DataTree, other: xr.DataTree) -> tuple[float, str]:
    """Return the largest difference of two runs, of each array's largest number, and where it is.

    What hangs on the last bit is left out: focal lengths of the noise that random weights predict,
    and which of two equal weights is the largest.
    """
    found = {
        where: difference
        for where, difference in differences(one, other).items()
        if where.rpartition("/")[2] not in ("focal", "argmax_key")
    }
    where = max(found, key=lambda name: found[name])
    return found[where], where


def both(name: str, precision: str = "float32", **options: Any) -> tuple[float, str]:
    """Run a model on the device and on the CPU; return how far apart the runs are, and where."""
    scene = m3.open_sequence("scenes/orbit-03", stop=4)
    on_cpu = "float32" if precision == "tf32" else precision
    runs = [
        m3.run(
            m3.load_backbone(name, device=device, precision=own), scene, progress=False, **options
        )
        for device, own in ((DEVICE, precision), ("cpu", on_cpu))
    ]
    return apart(*runs)


def models(report: Report, quick: bool) -> None:
    """Every kind of model, with all statistics, beside itself on the CPU."""
    for name in MODELS:
        found, where = both(f"random:{name}", capture=m3.Capture())
        row = f"random:{name}, all statistics, from the CPU ({where})"
        report.ratios[row] = at_most(found, 1e-3)


def precisions(report: Report, quick: bool) -> None:
    """The bundled model in every precision, plain and gated."""
    for precision, limit in AGREES.items():
        for what, options in (("plain", {}), ("gated", GATED)):
            found, where = both("tiny", precision, capture=m3.Capture(), **options)
            row = f"tiny, {precision}, {what}, from the CPU ({where})"
            report.ratios[row] = at_most(found, limit)


def gates(report: Report, quick: bool) -> None:
    """Every realisation of a gate, source of a cue and commit; the farthest from the CPU counts."""
    cases: dict[str, dict[str, Any]] = {
        f"{realisation} at {site}": {
            "cue": m3.Cue.mut3r(),
            "gate": m3.Gate.at({site: realisation}),
        }
        for site, realisations in REALISATIONS.items()
        for realisation in realisations
    }
    cases |= {
        source: {"cue": m3.Cue.mut3r(source=source), "gate": m3.Gate.mut3r()} for source in SOURCES
    }
    cases |= {commit: {**GATED, "commit": commit} for commit in COMMITS}
    chosen = dict(list(cases.items())[:: 6 if quick else 1])
    found = {name: both("random:small", **options) for name, options in chosen.items()}
    worst = max(found, key=lambda name: found[name])
    value, where = found[worst]
    row = f"farthest of {len(found)} gates, sources and commits from the CPU ({worst}, {where})"
    report.ratios[row] = at_most(value, 1e-3)


def definitions(report: Report, quick: bool) -> None:
    """Statistics of one site against their definition in float64."""
    generator = torch.Generator().manual_seed(0)
    tokens = 97 if quick else 769
    for dtype, limit in ((torch.float32, 2e-5), (torch.bfloat16, 2e-2)):
        q, k = (
            (1.5 * torch.randn(1, 12, tokens, 64, generator=generator)).to(DEVICE, dtype)
            for _ in range(2)
        )
        names = [name for name, row in STATISTICS.items() if not row.is_index]
        exact = site_statistics(names, q.double(), k.double(), pose_key=0)
        found = site_statistics(names, q, k, pose_key=0)
        worst = max(
            float((found[name].double() - value).abs().max() / value.abs().max())
            for name, value in exact.items()
        )
        report.ratios[f"statistics in {dtype}, from float64"] = at_most(worst, limit)


def memory(report: Report, quick: bool) -> None:
    """Peak memory of long and short runs that store all there is."""
    model = m3.load_backbone("random:small", device=DEVICE)
    capture = m3.Capture(maps=["image_self"], archive=True, state=True)
    peaks = []
    for frames in (8, 24 if quick else 80):
        pixels = np.random.default_rng(0).integers(0, 256, (frames, 48, 64, 3), np.uint8)
        run = m3.run(
            model, m3.open_sequence(pixels, name="noise"), capture=capture, progress=False, **GATED
        )
        peaks.append(int(run["timing/peak_memory"].max()))
    report.ratios["peak memory of a long run / a short one"] = at_most(peaks[1] / peaks[0], 1.01)


def once(model: Any, configuration: Configuration, **options: Any) -> Callable[[], Any]:
    """Return what does the second frame of a run, again and again."""
    height, width = 3 * max(model.config.img_size) // 4 // 16 * 16, max(model.config.img_size)
    image = torch.rand(1, 3, height, width, device=DEVICE) * 2 - 1
    batch = Batch(model, [configuration], **options)
    frames = [FrameInput(position, image, {}, record=position == 1) for position in (0, 1)]
    carried = batch.step(encode_frame([batch], frames[0]), batch.start()).carried
    return lambda: batch.step(encode_frame([batch], frames[1]), carried)


def milliseconds(call: Callable[[], Any], repetitions: int, warm: int = 3) -> float:
    """Return the median of what a call takes until the device has done it."""
    for _ in range(warm):
        call()
    torch.cuda.synchronize()
    found = []
    for _ in range(repetitions):
        began = time.perf_counter()
        call()
        torch.cuda.synchronize()
        found.append(1e3 * (time.perf_counter() - began))
    return statistics.median(found)


def frames(report: Report, quick: bool) -> None:
    """What a frame costs in each precision: plain, captured, gated."""
    model = m3.load_backbone("random:small" if quick else "random:512-dpt", device=DEVICE)
    outputs = check_outputs(None, model.outputs)
    plain, sources = Configuration(), ("two_pass", "same_site", "previous")
    maps = m3.Capture(statistics=(), sites=["image_self"], maps=["image_self"])
    alternatives: dict[str, tuple[Configuration, dict[str, Any], float | None]] = {
        "plain": (plain, {"outputs": outputs}, None),
        "pose only": (plain, {"outputs": ("pose",)}, None),
        "closed forms": (
            plain,
            {"outputs": outputs, "capture": m3.Capture(statistics=CLOSED)},
            1.1,
        ),
        "all statistics": (plain, {"outputs": outputs, "capture": m3.Capture()}, 1.1),
        "whole maps of image_self": (plain, {"outputs": outputs, "capture": maps}, None),
    }
    limits = {"two_pass": 1.35, "same_site": 1.05, "previous": 1.05}
    for source in sources:
        configuration = Configuration(cue=m3.Cue.mut3r(source=source), gate=m3.Gate.mut3r())
        alternatives[f"gated, {source}"] = (configuration, {"outputs": outputs}, limits[source])
    # bfloat16 comes last: weights that were rounded do not come back.
    for precision in ("float32", "tf32", "bfloat16"):
        model.precision = PRECISIONS[precision]
        model = model.to(model.precision.dtype)
        found = {
            name: milliseconds(once(model, configuration, **options), 2 if quick else 10)
            for name, (configuration, options, _) in alternatives.items()
        }
        for name, value in found.items():
            report.milliseconds[f"{precision}: {name}"] = value
            if name != "plain":
                report.ratios[f"{precision}: {name} / plain"] = at_most(
                    value / found["plain"], alternatives[name][2]
                )
        for name in ("plain", "all statistics"):
            configuration, options, _ = alternatives[name]
            launches(report, f"{precision}: {name}", once(model, configuration, **options))


def launches(report: Report, name: str, call: Callable[[], Any]) -> None:
    """Count kernels of one frame, and the milliseconds that the device is busy with them."""
    if not torch.backends.cuda.is_built():
        return
    call()
    torch.cuda.synchronize()
    with profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA]) as seen:
        call()
        torch.cuda.synchronize()
    kernels = [event for event in seen.events() if str(event.device_type).endswith("CUDA")]
    if kernels:
        report.ratios[f"{name}: kernels"] = at_most(len(kernels))
        busy = sum(event.device_time for event in kernels) / 1e3
        report.milliseconds[f"{name}: device busy"] = busy


class Asked(TorchDispatchMode):
    """How many operations the device is asked for, and how many of them the host waits for."""

    operations, waits = 0, 0

    def __torch_dispatch__(
        self, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        made = function(*args, **(kwargs or {}))
        given, made_there = on_device((args, kwargs)), on_device(made)
        if not function.is_view and (given or made_there):
            self.operations += 1
            self.waits += given and not made_there
        return made


def on_device(values: Any) -> bool:
    """Whether any tensor among values is on the device."""
    return any(isinstance(item, torch.Tensor) and item.is_cuda for item in tree_leaves(values))


def asked(report: Report, quick: bool) -> None:
    """What a frame of a run asks of the device, which is known before any time is."""
    model = m3.load_backbone("random:small" if quick else "random:512-dpt", device=DEVICE)
    width = max(model.config.img_size)
    pixels = np.random.default_rng(0).integers(0, 256, (4, 3 * width // 4, width, 3), np.uint8)

    def per_frame(**options: Any) -> tuple[float, float]:
        seen = []
        for count in (2, 4):
            with Asked() as found:
                m3.run(
                    model,
                    m3.open_sequence(pixels[:count], name="noise"),
                    progress=False,
                    **options,
                )
            seen.append(found)
        short, long = seen
        return (long.operations - short.operations) / 2, (long.waits - short.waits) / 2

    plain, waits = per_frame()
    report.ratios["operations of a frame, plain"] = at_most(plain)
    report.ratios["waits for a frame, plain"] = at_most(waits, 2)
    for name, options, limit in (
        ("all statistics", {"capture": m3.Capture()}, 1.15 * plain + 300),
        ("gated", GATED, plain + 1000),
    ):
        operations, waits = per_frame(**options)
        report.ratios[f"operations of a frame, {name}"] = at_most(operations, limit)
        report.ratios[f"waits for a frame, {name}"] = at_most(waits, 2)


def stored(report: Report, quick: bool) -> None:
    """Whole runs with their stores, and what a copy to the host takes."""
    model = m3.load_backbone("random:small" if quick else "random:512-dpt", device=DEVICE)
    width = max(model.config.img_size)
    count = 4 if quick else 24
    pixels = np.random.default_rng(0).integers(0, 256, (count, 3 * width // 4, width, 3), np.uint8)
    sequence = m3.open_sequence(pixels, name="noise")
    captures = {
        "plain": None,
        "all statistics": m3.Capture(),
        "archive": m3.Capture(statistics=(), archive=True),
    }
    for name, capture in captures.items():
        with tempfile.TemporaryDirectory() as folder:
            began = time.perf_counter()
            m3.run(model, sequence, capture=capture, out=Path(folder) / "run", progress=False)
            per_frame = 1e3 * (time.perf_counter() - began) / count
        report.milliseconds[f"run with its store, {name}: per frame"] = per_frame


PARTS = {
    part.__name__: part
    for part in (models, precisions, definitions, gates, memory, asked, frames, stored)
}


def tried(names: list[str], minutes: float, quick: bool) -> Iterator[Report]:
    """Try parts in turn, and yield the report after each."""
    report, began = Report(), time.perf_counter()
    for part in (PARTS[name] for name in names):
        left = 60 * minutes - (time.perf_counter() - began)
        if left <= 0:
            report.failed[part.__name__] = "not tried: no time was left"
            continue
        try:
            part(report, quick)
        except Exception as error:
            traceback.print_exc()
            report.failed[part.__name__] = f"{type(error).__name__}: {error}"
        yield report


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a small model, for a rehearsal")
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument(
        "--where-there-is-one", action="store_true", help="without a GPU do nothing"
    )
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    if not torch.cuda.is_available():
        if args.where_there_is_one:
            return
        sys.exit("no CUDA device; this benchmark is about one (torch.cuda.is_available() is False)")
    for report in tried(args.parts, args.minutes, args.quick):
        result = {
            "backbone": "random:small" if args.quick else "random:512-dpt",
            "repetitions": 2 if args.quick else 10,
            "milliseconds": report.milliseconds,
            "ratios": report.ratios,
            "failed": report.failed,
        }
        # A part alone must not take the place of the whole.
        publish("gpu", result, args.out, args.quick or args.parts != list(PARTS))
    if report.failed or any(row["met"] is False for row in report.ratios.values()):
        sys.exit(1)


if __name__ == "__main__":
    main()
