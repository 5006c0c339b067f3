"""How often `explain` names the one of five planted faults that does harm, and none without it.

    python benchmarks/explaining.py --scenes 20

Both runs are gated, with sharpnesses that differ a little, so that they differ everywhere. Of
faults drawn at random, all as far from what their head wrote, the one that raises the error of its
frame most is planted, beside four that leave errors where they are, each in another frame. A scene
where no such five were drawn is passed over.
"""

import argparse
from pathlib import Path

import numpy as np
import xarray as xr
from faults import Fault, Faulty, drawn
from measure import at_least, publish

import mut3r_analysis as m3
from mut3r_analysis.evaluation.tasks import score_run
from mut3r_analysis.metrics import protocol

FRAMES, GRID, CANDIDATES = 5, (6, 8), 32
LEAST_HARM, MOST_HARMLESS = 0.02, 0.002
"""Shares of the mean error: what the harmful fault adds in its frame, and the others in any."""
WANTED = {"frame and patch": 0.9, "site": 0.75, "layer": 0.75, "head": 0.6}
"""Share of scenes in which each has to be named first."""
PLACE = ("frame", "patch_row", "patch_col", "site", "layer", "head")


def ran(backbone, sequence, beta, faulty=None, size=1) -> list[xr.DataTree]:
    """Run a gated configuration, as often as there are lists of faults."""
    gated = m3.Configuration(cue=m3.Cue.mut3r(), gate=m3.Gate.mut3r(beta=beta))
    return m3.run_batch(
        backbone, sequence, [gated] * size, outputs=("pose", "depth"), intervene=faulty,
        progress=False,
    )  # fmt: skip


def planted(backbone, sequence, generator) -> tuple[Fault | None, list[Fault]]:
    """Draw faults; return the most harmful one, where it is harmful enough, and four harmless."""
    faults = [drawn(generator, FRAMES, GRID) for _ in range(CANDIDATES)]
    faulty = Faulty([[fault] for fault in faults], FRAMES, GRID)
    depth = protocol("default:depth:scale_median")
    (base,) = ran(backbone, sequence, 1.02)
    before = score_run(depth, base, None)["frame_abs_rel"]
    raised = np.stack(
        [
            (score_run(depth, run, None)["frame_abs_rel"] - before) / before.mean()
            for run in ran(backbone, sequence, 1.02, faulty, CANDIDATES)
        ]
    )
    harm = [values[fault.frame] for fault, values in zip(faults, raised, strict=True)]
    worst = int(np.argmax(harm))
    others: dict[int, Fault] = {}
    for fault, values in zip(faults, raised, strict=True):
        if fault.frame != faults[worst].frame and values.max() < MOST_HARMLESS:
            others.setdefault(fault.frame, fault)
    found = faults[worst] if harm[worst] > LEAST_HARM and len(others) == FRAMES - 1 else None
    return found, list(others.values())


def main() -> None:
    """Print one line per scene, and how often each part was named."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--scenes", type=int, default=20)
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    scenes = args.scenes
    backbone, generator = m3.load_backbone("tiny", device="cpu"), np.random.default_rng(0)
    rows, silent, seed = [], 0, 0
    while len(rows) < scenes:
        seed += 1
        sequence = m3.open_sequence(f"scenes:seed={seed},movers=1", stop=FRAMES)
        harmful, harmless = planted(backbone, sequence, generator)
        if harmful is None:
            print(f"seed {seed}: no harmful fault, or too few harmless ones, was drawn")
            continue
        (plain,) = ran(backbone, sequence, 1.0)
        said = []
        for faults in ([*harmless, harmful], harmless):
            faulty = Faulty([faults], FRAMES, GRID)
            (gated,) = ran(backbone, sequence, 1.02, faulty)
            found = m3.explain(plain, gated, sequence, backbone=backbone, intervene=faulty)
            said.append(found.attrs)
        right = [said[0].get(name) == wanted for name, wanted in zip(PLACE, harmful, strict=False)]
        rows.append([right[0] and right[1] and right[2], *right[3:]])
        silent += "frame" not in said[1]
        print(f"seed {seed}: planted {tuple(harmful)}; {said[0]['answer']}", flush=True)
    named = dict(zip(WANTED, np.mean(rows, axis=0), strict=True))
    ratios = {
        f"{name} named first, share of scenes": at_least(named[name], wanted)
        for name, wanted in WANTED.items()
    }
    ratios["nothing named where nothing was planted"] = at_least(silent / scenes, 1.0)
    result = {
        "backbone": f"tiny, {scenes} drawn scenes, five faults in each of which one does harm",
        "repetitions": 1,
        "ratios": ratios,
    }
    publish("explaining", result, args.out, quick=scenes < 20)


if __name__ == "__main__":
    main()
