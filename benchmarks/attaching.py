"""What attaching costs: a foreign model alone, and watched with closed-form statistics.

    python benchmarks/attaching.py --pairs 6

One process, one thread, taking turns, processor seconds. The model is a vision transformer of the
size of ViT-L with random weights; it needs `transformers`, which the tests install.
"""

import argparse
import json
import time

import numpy as np
import torch

import mut3r_analysis as m3

SIZES = {
    "large": {"hidden_size": 1024, "num_hidden_layers": 24, "num_attention_heads": 16,
              "intermediate_size": 4096},
    "small": {"hidden_size": 384, "num_hidden_layers": 12, "num_attention_heads": 6,
              "intermediate_size": 1536},
}  # fmt: skip
CLOSED = [name for name, row in m3.attention.STATISTICS.items() if row.closed_form]


def main() -> None:
    """Measure and print the median ratio with its interval."""
    import transformers

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pairs", type=int, default=6)
    parser.add_argument("--size", choices=SIZES, default="large")
    args = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    model = transformers.ViTModel(transformers.ViTConfig(**SIZES[args.size])).eval()
    image = torch.randn(1, 3, 224, 224)
    tokens = m3.Tokens(grid=(14, 14), special=("class",))
    capture = m3.Capture(statistics=CLOSED)

    def bare() -> None:
        model(image)

    def watched() -> None:
        with m3.attach(model, tokens=tokens, capture=capture):
            model(image)

    ratios = []
    with torch.inference_mode():
        bare(), watched()
        for pair in range(args.pairs):
            order = (bare, watched) if pair % 2 == 0 else (watched, bare)
            seconds = {each: measured(each) for each in order}
            ratios.append(seconds[watched] / seconds[bare])
    draws = np.random.default_rng(0).choice(ratios, (4000, len(ratios)))
    low, high = np.quantile(np.median(draws, axis=1), [0.025, 0.975])
    found = {
        "watched / bare, processor seconds": float(np.median(ratios)),
        "interval": [float(low), float(high)],
        "pairs": args.pairs,
        "size": args.size,
    }
    print(json.dumps(found, indent=2))


def measured(function) -> float:
    """Return the processor seconds of one call."""
    began = time.process_time()
    function()
    return time.process_time() - began


if __name__ == "__main__":
    main()
