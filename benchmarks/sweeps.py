"""What a batch of gate configurations saves over running them one by one.

    python benchmarks/sweeps.py [--quick]

The bundled model on one bundled scene; both ways give the same numbers up to float rounding.
"""

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from measure import Measurement, at_most, measure, publish

import mut3r_analysis as m3
from mut3r_analysis.backbones import Backbone

SCENE = "scenes/orbit-01"
LIMITS = {8: None, 24: 0.5}
AGREEMENT = 1e-5


def configurations(count: int) -> list[dict[str, Any]]:
    """Return gates of different sharpness, all with the default cue."""
    return [
        {"cue": m3.Cue.mut3r(), "gate": m3.Gate.mut3r(beta=float(beta))}
        for beta in np.geomspace(0.1, 8, count)
    ]


def compare(
    backbone: Backbone, scene: xr.Dataset, count: int, repetitions: int
) -> tuple[dict[str, Measurement], float]:
    """Return what both ways cost, and the largest relative difference of what they give."""
    given = configurations(count)
    results: dict[str, list[xr.DataTree]] = {}

    def one_by_one() -> None:
        results["one by one"] = [m3.run(backbone, scene, progress=False, **each) for each in given]

    def batched() -> None:
        results["batched"] = m3.run_batch(backbone, scene, given, progress=False)

    found = measure({"one by one": one_by_one, "batched": batched}, repetitions)
    pairs = zip(results["one by one"], results["batched"], strict=True)
    return found, max(difference(one, other) for one, other in pairs)


def difference(one: xr.DataTree, other: xr.DataTree) -> float:
    """Return the largest difference of a prediction over the largest of its values."""
    worst = 0.0
    for name, values in one["prediction"].data_vars.items():
        apart = float(np.abs(values - other["prediction"][name]).max())
        worst = max(worst, apart / max(float(np.abs(values).max()), 1e-30))
    return worst


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="few frames, for a rehearsal")
    parser.add_argument("--frames", type=int, default=16)
    parser.add_argument("--repetitions", type=int, default=2)
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    backbone = m3.load_backbone("tiny")
    frames = 2 if args.quick else args.frames
    scene = m3.open_sequence(SCENE).isel(frame=slice(frames)).load()
    repetitions = 1 if args.quick else args.repetitions
    m3.run(backbone, scene.isel(frame=slice(2)), progress=False)
    seconds, ratios = {}, {}
    for count in (2, 3) if args.quick else LIMITS:
        found, apart = compare(backbone, scene, count, repetitions)
        for name, item in found.items():
            seconds[f"{count} configurations, {name}"] = {"wall": item.wall, "cpu": item.cpu}
        single, batch = found["one by one"], found["batched"]
        limit = LIMITS.get(count)
        text = f"{count} batched / one by one"
        ratios[f"{text}, wall"] = at_most(batch.wall / single.wall, limit)
        ratios[f"{text}, cpu"] = at_most(batch.cpu / single.cpu, limit)
        ratios[f"{text}, largest relative difference"] = at_most(apart, AGREEMENT)
    result = {
        "backbone": backbone.origin.name,
        "image": list(backbone.preparation.shape(scene.sizes["y"], scene.sizes["x"])),
        "frames": frames,
        "repetitions": repetitions,
        "seconds": seconds,
        "ratios": ratios,
    }
    publish("sweeps", result, args.out, args.quick)


if __name__ == "__main__":
    main()
