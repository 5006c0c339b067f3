"""One version of the package beside another: the same run, in two processes that take turns.

    python benchmarks/versions.py BEFORE AFTER --pairs 60

BEFORE and AFTER are checkouts. Each has a process of its own, since the package loads what it needs
when it needs it, and two versions in one process would mix. In every pair both run once, in an
order that alternates, and the ratio is that of their processor seconds. With ``--by-frame`` there
is one run of each, and its frames take turns: where a run takes minutes, the machine is another one
from run to run.
"""

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np

WORKER = """
import sys, time, warnings
import torch
import mut3r_analysis as m3
warnings.simplefilter("ignore")
torch.set_num_threads(1)
backbone, height, width, frames = sys.argv[1], *map(int, sys.argv[2:5])
model = m3.load_backbone(backbone)
if backbone == "tiny":
    sequence = m3.open_sequence("scenes/orbit-03").isel(frame=slice(frames))
else:
    import numpy as np
    pixels = np.random.default_rng(0).integers(0, 256, (frames, height, width, 3), np.uint8)
    sequence = m3.open_sequence(pixels, name="noise")
capture = m3.Capture(statistics=sys.argv[5].split(","))
began = time.process_time()

def turn():
    global began
    print(time.process_time() - began, flush=True)
    sys.stdin.readline()
    began = time.process_time()

if sys.argv[6] == "frame":
    encode = type(model).encode

    def waiting(*args, **options):
        turn()
        return encode(*args, **options)

    type(model).encode = waiting
sys.stdin.readline()
began = time.process_time()
while True:
    m3.run(model, sequence, capture=capture, progress=False)
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
    parser.add_argument("--by-frame", action="store_true", help="frames of one run take turns")
    args = parser.parse_args()
    workers = [start(folder, args) for folder in (args.before, args.after)]
    for worker in workers:  # what is loaded on first use is loaded here, or the run begins
        once(worker)
    pairs = args.frames if args.by_frame else args.pairs
    ratios = []
    for pair in range(pairs):
        order = (0, 1) if pair % 2 == 0 else (1, 0)
        seconds = {number: once(workers[number]) for number in order}
        ratios.append(seconds[1] / seconds[0])
    for worker in workers:
        worker.kill()
        worker.wait()
    draws = np.random.default_rng(0).choice(ratios, (4000, len(ratios)))
    low, high = np.quantile(np.median(draws, axis=1), [0.025, 0.975])
    found = {
        "after / before, processor seconds": float(np.median(ratios)),
        "interval": [float(low), float(high)],
        "pairs": pairs,
        "of": "frames" if args.by_frame else "runs",
        "backbone": args.backbone,
        "frames": args.frames,
    }
    print(json.dumps(found, indent=2))


def start(folder: Path, args: argparse.Namespace) -> subprocess.Popen:
    """Start the worker of a checkout."""
    return subprocess.Popen(
        [
            sys.executable,
            "-c",
            WORKER,
            args.backbone,
            "384",
            "512",
            str(args.frames),
            args.statistics,
            "frame" if args.by_frame else "run",
        ],
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
