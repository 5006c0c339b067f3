"""What cues and gates cost: one frame per source, across frames, and many as one batch.

    python benchmarks/gating.py --size full --repetitions 1

All alternatives run on the same frame and weights side by side on one core, from a state in the
middle of a sequence. Targets are those that the method is meant to meet at the released size.
"""

import argparse
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from measure import at_most, publish, side_by_side
from torch import Tensor

from mut3r_analysis.backbones import Backbone, load_backbone
from mut3r_analysis.motion import Cue, Gate
from mut3r_analysis.running import Configuration
from mut3r_analysis.running.batch import Batch
from mut3r_analysis.running.grouping import grouped
from mut3r_analysis.running.loop import encode_frame
from mut3r_analysis.running.passes import BatchState, FrameInput

SIZES = {"full": "random:512-dpt", "bundled": "tiny", "small": "random:small"}
LIMITS = {"two_pass": 1.35, "two_pass_cut(6)": 1.20, "same_site": 1.05, "previous": 1.05}
ACROSS = {f"gram_query_{other}_{moment}": 1.05 for other in ("query", "key")
          for moment in ("mean", "variance")}  # fmt: skip
"""Readings across frames, and what a frame in which one is taken may cost."""
BATCH_LIMITS = {"full": 0.80, "bundled": 0.50, "small": 0.50}


def gated(source: str, depth: int, **changes: Any) -> Configuration:
    """Return the default cue and gates with a cue source; a cut is scaled to the decoder."""
    scaled = source.replace("(6)", f"({round(depth / 2)})")
    return Configuration(cue=Cue.mut3r(source=scaled), gate=Gate.mut3r(**changes))


def midway(batch: Batch, grid: tuple[int, int]) -> BatchState:
    """Return what a batch carries in the middle of a sequence, as far as cost depends on it."""
    carried = batch.start()
    state = replace(carried.state, fresh=torch.zeros_like(carried.state.fresh))
    score = torch.rand(batch.size, *grid)
    cue = tuple(
        replace(item, frames=item.frames + 1, carried=score[: len(item.frames)])
        for item in carried.cue
    )
    return replace(carried, state=state, cue=cue, age=(9,) * batch.size, scored=(9,) * batch.size)


def frame_of(
    backbone: Backbone, configurations: Sequence[Configuration], image: Tensor, count: int
) -> Callable[[], None]:
    """Return a call that does `count` frames from the same state."""
    batches = [
        Batch(backbone, [configurations[i] for i in group], outputs=backbone.outputs)
        for group in grouped(backbone, configurations, *image.shape[-2:])
    ]
    grid = backbone.patch_grid(*image.shape[-2:])
    carried = [midway(batch, grid) for batch in batches]
    if any(item.cue is not None and item.cue.across_frames for item in configurations):
        # What costs is that there are frames before, not which: one that was read is enough.
        frame = encode_frame(batches, FrameInput(0, image, {}))
        read = [batch.step(frame, batch.start(), number=i) for i, batch in enumerate(batches)]
        carried = [
            replace(before, cue=after.carried.cue)
            for before, after in zip(carried, read, strict=True)
        ]

    def call() -> None:
        for position in range(count):
            frame = encode_frame(batches, FrameInput(position, image, {}))
            for number, (batch, before) in enumerate(zip(batches, carried, strict=True)):
                batch.step(frame, before, number=number)

    return call


def main() -> None:
    """Measure and print; ``--out`` keeps the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", choices=SIZES, default="full")
    parser.add_argument("--repetitions", type=int, default=1)
    parser.add_argument(
        "--batch", type=int, help="compare so many configurations as a batch with one by one"
    )
    parser.add_argument(
        "--across", action="store_true", help="readings that compare with the eight frames before"
    )
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    torch.set_num_threads(1)
    backbone = load_backbone(SIZES[args.size])
    config = backbone.config
    side = max(config.img_size)
    height = round(0.75 * side / config.patch_size) * config.patch_size
    pixels = np.random.default_rng(0).uniform(-1, 1, (1, 3, height, side)).astype(np.float32)
    image = torch.from_numpy(pixels).to(backbone.device)
    count = 1 if args.size == "full" else 20
    make = partial(frame_of, backbone, image=image, count=count)
    depth = config.dec_depth
    alternatives: dict[str, Callable[[], Any]]
    if args.batch:
        several = [gated("two_pass", depth, beta=0.25 * (i + 1)) for i in range(args.batch)]
        singles = [make([one]) for one in several]
        alternatives = {
            "one by one": lambda: [call() for call in singles],
            "batch": make(several),
        }
    elif args.across:
        alternatives = {"plain": make([Configuration()])}
        alternatives |= {name: make([Configuration(cue=Cue(reading=name))]) for name in ACROSS}
    else:
        alternatives = {"plain": make([Configuration()])}
        alternatives |= {source: make([gated(source, depth)]) for source in LIMITS}
    if args.size != "full":
        for call in alternatives.values():
            call()
    elif not args.batch:
        alternatives["plain"]()
    found = side_by_side(alternatives, args.repetitions)
    result = {
        "backbone": backbone.origin.name,
        "image": [height, side],
        "repetitions": args.repetitions,
        "seconds": {name: {"cpu": seconds} for name, seconds in found.items()},
        "ratios": ratios(found, args.size, args.batch, ACROSS if args.across else LIMITS),
    }
    name = f"gating-{args.size}" + ("-batch" if args.batch else "-across" * args.across)
    publish(name, result, args.out, False)


def ratios(
    found: dict[str, float], size: str, batch: int | None, limits: dict[str, float]
) -> dict[str, dict[str, Any]]:
    """Ratios of processor seconds beside what they should not exceed."""
    if batch:
        ratio = found["batch"] / found["one by one"]
        return {f"{batch} as a batch / one by one": at_most(ratio, BATCH_LIMITS[size])}
    return {
        f"{source} / plain": at_most(
            found[source] / found["plain"], limit if size == "full" else None
        )
        for source, limit in limits.items()
    }


if __name__ == "__main__":
    main()
