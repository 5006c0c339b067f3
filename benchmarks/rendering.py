"""How many frames of procedural scenes are rendered per second, with all their truth.

    python benchmarks/rendering.py [--quick]

The compiled renderer on one thread and on all, and the one in torch on the same scenes.
"""

import argparse
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import psutil
import torch
from measure import at_least, counted, measure, publish

from mut3r_analysis.scenes.batches import render_arrays
from mut3r_analysis.scenes.distribution import draw
from mut3r_analysis.scenes.raycast_torch import render_arrays_torch

SIZE = (64, 48)
FRAMES = 8
WANTED = 1000.0
"""Frames per second on two cores."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="few clips, for a rehearsal")
    parser.add_argument("--repetitions", type=int, default=5)
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    clips, repetitions = (2, 1) if args.quick else (64, args.repetitions)
    scenes, threads = draw(0, clips, FRAMES), psutil.cpu_count() or 1
    alternatives: dict[str, Callable[[], Any]] = {
        f"compiled, {counted(number, 'thread')}": partial(
            render_arrays, scenes, FRAMES, SIZE, threads=number
        )
        for number in sorted({1, threads})
    }
    every = list(alternatives)[-1]
    devices = ["cpu", "cuda"] if torch.cuda.is_available() else ["cpu"]
    alternatives |= {
        f"torch, {device}": partial(render_arrays_torch, scenes, FRAMES, SIZE, device=device)
        for device in devices
    }
    for call in alternatives.values():
        call()
    found = measure(alternatives, repetitions)
    speed = {name: clips * FRAMES / item.wall for name, item in found.items()}
    result = {
        "backbone": f"no model; {clips} clips of {FRAMES} frames",
        "image": [SIZE[1], SIZE[0]],
        "repetitions": repetitions,
        "frames_per_second": speed,
        "ratios": {
            f"frames per second, {every} / {WANTED:.0f}": at_least(speed[every] / WANTED, 1.0)
        },
    }
    publish("rendering", result, args.out, args.quick)


if __name__ == "__main__":
    main()
