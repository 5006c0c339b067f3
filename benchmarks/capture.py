"""What capturing attention costs: statistics, outputs, and the eager full maps of other code.

    python benchmarks/capture.py --size full --repetitions 4

All alternatives run on the same frames and weights side by side on one core. Of two threads, the
one that waits for the other counts as processor time, and more so beside small operations.
"""

import argparse
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from measure import at_most, measure, pin_allocator, publish, side_by_side
from torch import Tensor

from mut3r_analysis.attention import DECODER_KINDS, Capture, Recorder, Site, logits
from mut3r_analysis.attention.statistics import STATISTICS
from mut3r_analysis.backbones import Backbone, Frame, load_backbone
from mut3r_analysis.backbones.steps import FrameRead, Write

SIZES = {"full": ("random:512-dpt", (384, 512)), "small": ("random:small", (48, 64))}
CLOSED = [name for name, item in STATISTICS.items() if item.closed_form]
CLOSED_LIMIT, ALL_LIMIT = 1.02, 1.08


class EagerMaps:
    """A gate that changes nothing: explicit softmax attention that keeps every logit map.

    This is how TTT3R's own code reads attention: the fused kernel is given up at every decoder
    site, and a copy of each map of all layers is held until the frame is over.
    """

    def __init__(self) -> None:
        self.maps: list[Tensor] = []

    def __call__(self, site: Site, q: Tensor, k: Tensor, v: Tensor) -> Tensor | None:
        if site.kind not in DECODER_KINDS:
            return None
        z = logits(q, k)
        self.maps.append(z.clone())
        return z.softmax(-1) @ v


def step(
    backbone: Backbone,
    image: Tensor,
    capture: Capture | None = None,
    outputs: tuple[str, ...] | None = None,
    eager: bool = False,
) -> None:
    with torch.no_grad():
        recorder = None
        if capture is not None:
            axes = backbone.axes(backbone.patch_grid(*image.shape[-2:]))
            recorder = Recorder(capture, backbone.sites(), axes)
        gate = EagerMaps() if eager else None
        backbone.step(Frame(image), probe=recorder, gate=gate, outputs=outputs)
        if recorder is not None:
            recorder.take()


def parts(backbone: Backbone, image: Tensor, repetitions: int) -> dict[str, float]:
    """Processor seconds of encoder, decoder with memory, and heads."""
    with torch.no_grad():
        state = backbone.begin()
        encoded = backbone.encode(Frame(image))
        decoded = backbone.decode(backbone.enter(encoded, state))
        timed = measure(
            {
                "encoder": lambda: backbone.encode(Frame(image)),
                "decoder": lambda: backbone.decode(backbone.enter(encoded, state)),
                "memory": lambda: backbone.commit(
                    FrameRead(Frame(image), encoded, decoded), state, Write()
                ),
                "heads": lambda: backbone.predict(decoded),
            },
            repetitions,
        )
    return {name: found.cpu for name, found in timed.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", choices=SIZES, default="full")
    parser.add_argument("--repetitions", type=int, default=4)
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    torch.set_num_threads(1)
    spec, (height, width) = SIZES[args.size]
    backbone = load_backbone(spec)
    pixels = np.random.default_rng(0).uniform(-1, 1, (1, 3, height, width))
    image = torch.from_numpy(pixels.astype(np.float32)).to(backbone.device)
    call = partial(step, backbone, image)
    call()
    alternatives = {
        "plain": call,
        "plain again": call,
        "closed-form statistics": partial(call, Capture(statistics=CLOSED)),
        "all statistics": partial(call, Capture()),
        "eager full maps": partial(call, eager=True),
        "pose only": partial(call, outputs=("pose",)),
    }
    found = side_by_side(alternatives, args.repetitions)
    split = parts(backbone, image, args.repetitions)
    # Memory is measured apart from time: the allocator setting that makes it exact costs time.
    pin_allocator()
    peaks = {name: item.peak_bytes for name, item in measure(alternatives, 1).items()}
    plain, everything = found["plain"], found["all statistics"]
    result: dict[str, Any] = {
        "backbone": spec,
        "image": [height, width],
        "repetitions": args.repetitions,
        "seconds_per_frame": {name: {"cpu": seconds} for name, seconds in found.items()},
        "parts_cpu_seconds": split,
        "ratios": {
            "plain again / plain, cpu": found["plain again"] / plain,
            "closed-form statistics / plain, cpu": at_most(
                found["closed-form statistics"] / plain, CLOSED_LIMIT
            ),
            "all statistics / plain, cpu": at_most(everything / plain, ALL_LIMIT),
            "pose only / plain, cpu": found["pose only"] / plain,
            "eager full maps / all statistics, cpu": found["eager full maps"] / everything,
            "eager full maps / all statistics, peak memory": peaks["eager full maps"]
            / peaks["all statistics"],
        },
        "extra_peak_megabytes": {
            name: (peak - peaks["plain"]) / 1e6 for name, peak in peaks.items()
        },
    }
    publish("capture", result, args.out, False)


if __name__ == "__main__":
    main()
