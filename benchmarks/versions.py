"""One version of the package beside another: the same run, in two processes that take turns.

    python benchmarks/versions.py BEFORE AFTER --pairs 60

BEFORE and AFTER are checkouts. Each has a process of its own, since the package loads what it needs
when it needs it, and two versions in one process would mix. In every pair both run once, in an
order that alternates, and the ratio is that of their processor seconds. With ``--by-frame`` there
is one run of each, and its frames take turns: where a run takes minutes, the machine is another one
from run to run. ``--statistics ''`` captures nothing. ``--sequence VIDEO`` reads a file,
``--on-disk`` writes each run to a store, and ``--wall`` compares wall time, for which nothing else
may run.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

WORKER = """
import json, shutil, sys, time, warnings
import torch
import mut3r_analysis as m3
warnings.simplefilter("ignore")
torch.set_num_threads(1)
asked = json.loads(sys.argv[1])
model = m3.load_backbone(asked["backbone"])
if asked["sequence"] == "noise":
    import numpy as np
    pixels = np.random.default_rng(0).integers(0, 256, (asked["frames"], 384, 512, 3), np.uint8)
    sequence = m3.open_sequence(pixels, name="noise")
else:
    sequence = m3.open_sequence(asked["sequence"], stop=asked["frames"])
names = [name for name in asked["statistics"].split(",") if name]
capture = m3.Capture(statistics=names) if names else None
store = f"{sys.argv[2]}/run.zarr" if asked["on_disk"] else None
clock = time.perf_counter if asked["wall"] else time.process_time
began = clock()

def turn():
    global began
    print(clock() - began, flush=True)
    sys.stdin.readline()
    if store is not None:
        shutil.rmtree(store)
    began = clock()

if asked["by_frame"]:
    encode = type(model).encode

    def waiting(*args, **options):
        turn()
        return encode(*args, **options)

    type(model).encode = waiting
sys.stdin.readline()
began = clock()
while True:
    m3.run(model, sequence, capture=capture, out=store, progress=False)
    turn()
"""

STATISTICS = (
    "logit_mean,logit_variance,logsumexp,entropy,max_weight,pose_weight,received,received_logit"
)
"""All those of the first edition."""


def main() -> None:
    """Measure and print the median ratio with its interval."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("before", type=Path)
    parser.add_argument("after", type=Path)
    parser.add_argument("--pairs", type=int, default=60)
    parser.add_argument("--backbone", default="tiny", help="or random:512-dpt, for example")
    parser.add_argument("--frames", type=int, default=24)
    parser.add_argument("--statistics", default=STATISTICS, help="those that both versions have")
    parser.add_argument("--sequence", help="scenes/orbit-03 of tiny and noise of others, or a file")
    parser.add_argument("--by-frame", action="store_true", help="frames of one run take turns")
    parser.add_argument("--on-disk", action="store_true", help="runs are written to a store")
    parser.add_argument("--wall", action="store_true", help="wall time instead of processor time")
    args = parser.parse_args()
    if args.on_disk and args.by_frame:
        parser.error("the store of a run is removed between runs, not between frames")
    args.sequence = args.sequence or ("scenes/orbit-03" if args.backbone == "tiny" else "noise")
    stores = [tempfile.TemporaryDirectory() for _ in range(2)]
    workers = [
        start(checkout, args, store.name)
        for checkout, store in zip((args.before, args.after), stores, strict=True)
    ]
    for worker in workers:  # what is loaded on first use is loaded here, or the run begins
        once(worker)
    pairs = args.frames if args.by_frame else args.pairs
    ratios, taken = [], []
    for pair in range(pairs):
        order = (0, 1) if pair % 2 == 0 else (1, 0)
        seconds = {number: once(workers[number]) for number in order}
        taken.append((seconds[0], seconds[1]))
        ratios.append(seconds[1] / seconds[0])
    for worker in workers:
        worker.kill()
        worker.wait()
    draws = np.random.default_rng(0).choice(ratios, (4000, len(ratios)))
    low, high = np.quantile(np.median(draws, axis=1), [0.025, 0.975])
    found = {
        f"after / before, {'wall' if args.wall else 'processor'} seconds": float(np.median(ratios)),
        "interval": [float(low), float(high)],
        "before and after, median seconds": np.median(taken, axis=0).round(4).tolist(),
        "pairs": pairs,
        "of": "frames" if args.by_frame else "runs",
        "backbone": args.backbone,
        "frames": args.frames,
        "sequence": args.sequence,
        "statistics": args.statistics,
        "on disk": args.on_disk,
    }
    print(json.dumps(found, indent=2))


def start(folder: Path, args: argparse.Namespace, store: str) -> subprocess.Popen:
    """Start the worker of a checkout."""
    asked = {name: value for name, value in vars(args).items() if not isinstance(value, Path)}
    return subprocess.Popen(
        [sys.executable, "-c", WORKER, json.dumps(asked), store],
        env=os.environ | {"PYTHONPATH": str(folder.resolve()), "OMP_NUM_THREADS": "1"},
        cwd=folder,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def once(worker: subprocess.Popen) -> float:
    """Let a worker run once, and return its processor seconds."""
    worker.stdin.write("run\n")
    worker.stdin.flush()
    return float(worker.stdout.readline())


if __name__ == "__main__":
    main()
