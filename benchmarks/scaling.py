"""How time and memory of a run grow with frames, tokens and layers.

    python benchmarks/scaling.py [--quick]

Small random models on a bundled scene, looped. Every measurement has a process of its own, so that
its peak memory is its own. Wall time of a frame is the median over the frames; processor time is
that of the whole run, its store included, over the frames.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from measure import at_most, publish

SCENE = "scenes/orbit-01"
FRAMES, TOKENS, LAYERS = (100, 300, 1000), (64, 128, 256), (2, 4, 8)
WIDTH, DEPTH = 64, 4  # of the model where something else grows
QUICK_FRAMES, QUICK_TOKENS, QUICK_LAYERS = (5, 10), (64, 128), (2, 4)
MEMORY_LIMIT, TIME_LIMIT = 1.05, 1.15


def one_run(frames: int, width: int, layers: int) -> dict[str, float]:
    """Run in this process, and return seconds per frame and bytes."""
    import torch

    import mut3r_analysis as m3
    from mut3r_analysis.backbones.preparation import Preparation
    from mut3r_analysis.backbones.random_weights import NAMED_CONFIGS

    torch.set_num_threads(1)
    config = replace(NAMED_CONFIGS["small"], img_size=(width, width), dec_depth=layers)
    preparation = Preparation(width, patch=config.patch_size)
    backbone = m3.load_backbone(config, preparation=preparation, device="cpu")
    scene = m3.open_sequence(SCENE)[["image"]]

    def looped(count: int) -> Any:
        order = np.arange(count) % scene.sizes["frame"]
        return scene.isel(frame=order).assign_coords(frame=np.arange(count))

    def stored(count: int, place: str) -> Any:
        return m3.run(
            backbone, looped(count), outputs=("pose",), capture=m3.Capture(statistics=["entropy"]),
            out=place, progress=False,
        )  # fmt: skip

    with tempfile.TemporaryDirectory() as folder:
        stored(2, f"{folder}/first")
        before, cpu = psutil.Process().memory_info().rss, time.process_time()
        run = stored(frames, f"{folder}/second")
        cpu = time.process_time() - cpu
        wall = float(run["timing/seconds"].sum("pass").median())
    height = preparation.shape(scene.sizes["y"], scene.sizes["x"])[0]
    return {
        "wall": wall,
        "cpu": cpu / frames,
        "peak": peak_bytes(),
        "before": before,
        "tokens": 1 + height * width / config.patch_size**2,
    }


def peak_bytes() -> float:
    """Return the peak resident size of this process so far."""
    if sys.platform == "linux":
        status = Path("/proc/self/status").read_text(encoding="utf-8")
        return 1024 * float(status.split("VmHWM:")[1].split()[0])
    import resource

    return float(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)


@cache
def in_its_own_process(frames: int, width: int, layers: int) -> dict[str, float]:
    asked = json.dumps({"frames": frames, "width": width, "layers": layers})
    command = [sys.executable, __file__, "--one", asked]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return json.loads(done.stdout.splitlines()[-1])


def slope(sizes: list[float], values: list[float]) -> float:
    """Return the exponent of a power law through all points."""
    return float(np.polyfit(np.log(sizes), np.log(values), 1)[0])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="few frames, for a rehearsal")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--one", type=json.loads, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.one:
        print(json.dumps(one_run(**args.one)))
        return
    counts, widths, depths = (
        (QUICK_FRAMES, QUICK_TOKENS, QUICK_LAYERS) if args.quick else (FRAMES, TOKENS, LAYERS)
    )
    by_frames = {count: in_its_own_process(count, WIDTH, DEPTH) for count in counts}
    by_width = {width: in_its_own_process(counts[0], width, DEPTH) for width in widths}
    by_layers = {depth: in_its_own_process(counts[0], WIDTH, depth) for depth in depths}
    rows = {f"{count} frames": found for count, found in by_frames.items()}
    rows |= {f"{found['tokens']:.0f} image tokens": found for found in by_width.values()}
    rows |= {f"{depth} decoder layers": found for depth, found in by_layers.items()}
    first, last = by_frames[counts[0]], by_frames[counts[-1]]
    span = f"{counts[-1]} / {counts[0]} frames"
    tokens = [found["tokens"] for found in by_width.values()]
    result = {
        "backbone": "random, small",
        "repetitions": 1,
        "growth": rows,
        "ratios": {
            f"peak memory, {span}": at_most(last["peak"] / first["peak"], MEMORY_LIMIT),
            f"processor time per frame, {span}": at_most(last["cpu"] / first["cpu"], TIME_LIMIT),
            "processor time per frame grows with tokens to the power of": at_most(
                slope(tokens, [found["cpu"] for found in by_width.values()])
            ),
            "processor time per frame grows with decoder layers to the power of": at_most(
                slope(list(depths), [found["cpu"] for found in by_layers.values()])
            ),
        },
    }
    publish("scaling", result, args.out, args.quick)


if __name__ == "__main__":
    main()
